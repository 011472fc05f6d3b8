//! Where a model gets its weights from. A [`Store`] is a source (a checkpoint, or random numbers for a new model) and
//! a purpose (generation, training); [`Weights`] is a cursor into it that spells checkpoint paths:
//! `w.at("mid_block").at("resnets").at(0)`.

mod cursor;
mod first;
mod packed_cache;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use velatura_tensor::{Parameter, Precision, Tensor, Weight};

pub use self::cursor::Weights;
pub use self::first::Init;
use self::first::random;
use self::packed_cache::Kept;
pub use self::packed_cache::PackedCache;
use crate::checkpoint::{Component, LoraFile, TensorView, is_harmless};
use crate::error::{Error, Result};
use crate::nn::Adaptation;

/// What the weights are wanted for.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Generation: weights are packed once for this precision, the f32 originals are dropped, nothing is trainable.
    Inference(Precision),
    /// Training: everything is a trainable f32 parameter.
    Training,
    /// Training of something beside it: gradients pass through, and nothing changes.
    Frozen,
}

/// A model's weights while the model is being built, and its parameters afterwards.
pub struct Store {
    source: Source,
    mode: Mode,
    /// Of the products with weights in training.
    products: Precision,
    /// The component's name, and what is added to its weights as they are read, each with its strength.
    loras: (&'static str, Vec<(Arc<LoraFile>, f32)>),
    /// The most numbers that a convolution's weight may have to be transformed for Winograd's algorithm.
    transformed: usize,
    /// What is trained beside frozen weights.
    adaptation: Option<Adaptation>,
    taken: Mutex<Taken>,
    /// Packed weights of an earlier start, or those of this one for the next.
    kept: Option<Kept>,
    /// Where weights are read before they are packed. Fresh memory for each would take longer than packing.
    unpacked: Mutex<Vec<f32>>,
}

enum Source {
    Checkpoint(Component),
    Random { seed: u64 },
}

/// Where the values of one tensor come from.
enum Values<'a> {
    Stored(TensorView<'a>),
    Random(u64, Init),
}

#[derive(Default)]
struct Taken {
    /// Canonical names of the tensors that were asked for.
    names: BTreeSet<String>,
    /// In training: what was made of them.
    parameters: BTreeMap<String, Parameter>,
}

impl Store {
    fn new(source: Source, mode: Mode) -> Store {
        Store {
            source,
            mode,
            products: Precision::F32,
            loras: ("", Vec::new()),
            transformed: usize::MAX,
            adaptation: None,
            taken: Mutex::default(),
            kept: None,
            unpacked: Mutex::default(),
        }
    }

    /// Weights from a checkpoint.
    pub fn load(component: &Component, mode: Mode) -> Store {
        Store::new(Source::Checkpoint(component.clone()), mode)
    }

    /// Random weights for a new model that is to be trained. Every tensor has random numbers of its own, from `seed`
    /// and its name, so that they do not depend on the order in which a model asks.
    pub fn init(seed: u64) -> Store {
        Store::new(Source::Random { seed }, Mode::Training)
    }

    /// Random weights for any purpose, such as measuring a model that one has no checkpoint of.
    pub fn random(seed: u64, mode: Mode) -> Store {
        Store::new(Source::Random { seed }, mode)
    }

    /// Adds low-rank adaptations to the checkpoint's weights as they are read, each with its strength. `component` is
    /// the name under which the files know this model: `unet`, `text_encoder`.
    pub fn with_loras(self, component: &'static str, loras: &[(Arc<LoraFile>, f32)]) -> Store {
        Store {
            loras: (component, loras.to_vec()),
            ..self
        }
    }

    /// Packs convolutions of more than `numbers` numbers in the form that takes the least memory.
    pub fn transformed_up_to(self, numbers: usize) -> Store {
        Store {
            transformed: numbers,
            ..self
        }
    }

    /// Takes packed weights from `cache`, or keeps them there. To be called last: weights that are changed as they are read,
    /// or packed in another form than the usual one, are not kept.
    pub fn kept_in(self, cache: Option<&PackedCache>) -> Store {
        let usual = self.loras.1.is_empty() && self.transformed == usize::MAX;
        let kept = match (cache, &self.source, self.mode) {
            (Some(cache), Source::Checkpoint(component), Mode::Inference(precision)) if usual => {
                cache.open(component, precision)
            }
            _ => None,
        };
        Store { kept, ..self }
    }

    /// Gives the layers that `adaptation` covers adapters to be trained, which [`Store::parameters`] then lists under
    /// `PATH.lora_A.weight` and `PATH.lora_B.weight`.
    pub fn with_adapters(self, adaptation: Adaptation) -> Store {
        Store {
            adaptation: Some(adaptation),
            ..self
        }
    }

    /// In training, takes the products with weights in this precision, and f32 where the weights are asked for in
    /// f32. The parameters stay f32.
    pub fn with_products_in(self, products: Precision) -> Store {
        Store { products, ..self }
    }

    /// The cursor at the top.
    pub fn root(&self) -> Weights<'_> {
        Weights::new(self)
    }

    /// Checks that the model has used everything in the checkpoint. To be called when the model is built.
    ///
    /// # Errors
    ///
    /// A tensor is left over: the config describes another model than the weights do.
    pub fn finish(&self) -> Result<()> {
        let Source::Checkpoint(component) = &self.source else {
            return Ok(());
        };
        let taken = self.taken();
        let left: Vec<&str> = component
            .names()
            .filter(|name| !taken.names.contains(*name) && !is_harmless(name))
            .collect();
        let Some(view) = left.first().and_then(|name| component.tensor(name)) else {
            if let Some(kept) = &self.kept {
                kept.write();
            }
            return Ok(());
        };
        let others = match left.len() {
            1 => String::new(),
            n => format!(", and {} more like it (the next is `{}`)", n - 1, left[1]),
        };
        Err(Error::tensor(
            view.name,
            "only tensors that the model described by config.json has",
            format!(
                "one of shape {:?} left over{others}; config and weights do not belong together",
                view.shape
            ),
        )
        .in_file(view.file))
    }

    /// All parameters that can be trained, in the order of their names.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.taken().parameters.values().cloned().collect()
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of one tensor, which must have this shape.
    fn values(&self, name: &str, shape: &[usize], init: Init) -> Result<Vec<f32>> {
        let source = self.find(name, shape, init)?;
        let mut values = vec![0.0; shape.iter().product()];
        self.read(&source, name, shape, &mut values)?;
        Ok(values)
    }

    /// A weight for generation, as `pack` makes it of the values.
    fn packed(
        &self,
        name: &str,
        shape: &[usize],
        init: Init,
        pack: impl FnOnce(&[f32]) -> Weight,
    ) -> Result<Weight> {
        let source = self.find(name, shape, init)?;
        if let Some(weight) = self.kept.as_ref().and_then(|kept| kept.get(name, shape)) {
            return Ok(weight);
        }
        let count = shape.iter().product();
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if unpacked.len() < count {
            *unpacked = vec![0.0; count];
        }
        let values = &mut unpacked[..count];
        self.read(&source, name, shape, values)?;
        let weight = pack(values);
        if let Some(kept) = &self.kept {
            kept.add(name, &weight);
        }
        Ok(weight)
    }

    /// Where the values of a tensor come from, once it is known to be there in this shape.
    fn find(&self, name: &str, shape: &[usize], init: Init) -> Result<Values<'_>> {
        let component = match &self.source {
            Source::Random { seed } => return Ok(Values::Random(*seed, init)),
            Source::Checkpoint(component) => component,
        };
        let Some(view) = component.tensor(name) else {
            return Err(Error::tensor(name, format!("shape {shape:?}"), "no such tensor; config and weights do not belong together, or the file is incomplete")
                .in_file(component.weights_path()));
        };
        if view.shape != shape {
            return Err(Error::tensor(
                view.name,
                format!("shape {shape:?}, as config.json has it"),
                format!("shape {:?}", view.shape),
            )
            .in_file(view.file));
        }
        Ok(Values::Stored(view))
    }

    /// Reads what was found into `values`.
    fn read(&self, from: &Values, name: &str, shape: &[usize], values: &mut [f32]) -> Result<()> {
        let view = match from {
            Values::Random(seed, init) => {
                values.copy_from_slice(&random(*seed, name, values.len(), *init));
                return Ok(());
            }
            Values::Stored(view) => view,
        };
        view.read_f32(values)?;
        let (component, loras) = &self.loras;
        for (lora, strength) in loras {
            lora.add_to(component, name, shape, *strength, values)?;
        }
        Ok(())
    }

    /// A parameter for training: made at the first call, the same one afterwards.
    fn trained(&self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        if let Some(parameter) = self.taken().parameters.get(name)
            && parameter.shape() == shape
        {
            return Ok(parameter.clone());
        }
        let values = self.values(name, shape, init)?;
        Ok(self.keep(name, Tensor::from_vec(values, shape)))
    }

    /// A parameter that training changes, with this first value.
    fn keep(&self, name: &str, value: Tensor) -> Parameter {
        let parameter = Parameter::new(name, value);
        self.taken()
            .parameters
            .insert(name.to_owned(), parameter.clone());
        parameter
    }

    /// A parameter that training passes by.
    fn frozen(&self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        let values = self.values(name, shape, init)?;
        Ok(Parameter::frozen(name, Tensor::from_vec(values, shape)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_model_has_what_it_asks_for() {
        let store = Store::init(7);
        let w = store.root().at("block").at(0);
        w.parameter("bias", &[4], Init::Zeros).unwrap();
        w.weight("weight", [4, 3], Init::torch(3)).unwrap();
        let names: Vec<String> = store
            .parameters()
            .iter()
            .map(|p| p.name().to_owned())
            .collect();
        assert_eq!(names, ["block.0.bias", "block.0.weight"]);
    }
}
