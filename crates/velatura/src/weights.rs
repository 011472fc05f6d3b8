//! Where a model gets its weights from. A [`Store`] is a source (a checkpoint, or random numbers for a new model) and
//! a purpose (generation, training); [`Weights`] is a cursor into it that spells checkpoint paths:
//! `w.at("mid_block").at("resnets").at(0)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use velatura_tensor::{ConvShape, Padding, Parameter, Precision, Tensor, Weight};

use crate::checkpoint::{Component, LoraFile, TensorView, canonical, is_harmless};
use crate::error::{Error, Result};
use crate::nn::{Adaptation, Adapter};

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

/// The first values of a tensor in a new model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in `[-bound, bound]`.
    Uniform(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Normal with mean 1 and this standard deviation.
    Around1(f32),
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
}

impl Init {
    /// What PyTorch gives `nn.Linear` and `nn.Conv2d`, weight and bias alike: uniform within `1/sqrt(fan_in)`, where
    /// `fan_in` is the number of inputs to each output, kernel included.
    pub fn torch(fan_in: usize) -> Init {
        Init::Uniform(1.0 / (fan_in as f32).sqrt())
    }
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
        Weights {
            store: self,
            path: String::new(),
            in_f32: false,
            map_size: (64, 64),
        }
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
        let count = shape.iter().product();
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if unpacked.len() < count {
            *unpacked = vec![0.0; count];
        }
        let values = &mut unpacked[..count];
        self.read(&source, name, shape, values)?;
        Ok(pack(values))
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

/// A place in a checkpoint: the names below it are read through it.
#[derive(Clone)]
pub struct Weights<'a> {
    store: &'a Store,
    path: String,
    in_f32: bool,
    /// Height and width of the feature maps here, as far as one can know before there are any.
    map_size: (usize, usize),
}

impl<'a> Weights<'a> {
    /// The place one segment further: `w.at("norm1")`, `w.at(0)`.
    pub fn at(&self, segment: impl Display) -> Weights<'a> {
        Weights {
            store: self.store,
            path: self.name(segment),
            ..*self
        }
    }

    /// The same place, where generation packs weights in f32 whatever its precision: for layers that cost
    /// next to nothing and whose rounding would go straight into the result.
    pub fn in_f32(&self) -> Weights<'a> {
        Weights {
            in_f32: true,
            ..self.clone()
        }
    }

    /// The same place, with the height and width that feature maps are expected to have from here on: by them a
    /// convolution's algorithm is chosen when its weight is packed.
    pub fn with_map_size(&self, (height, width): (usize, usize)) -> Weights<'a> {
        Weights {
            map_size: (height, width),
            ..self.clone()
        }
    }

    /// Where the cursor stands: `mid_block.resnets.0`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The full name of the tensor `name` here, as diffusers spells it.
    pub fn name(&self, name: impl Display) -> String {
        if self.path.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Whether the tensor `name` exists here. A new model has every tensor it asks for.
    pub fn has(&self, name: &str) -> bool {
        match &self.store.source {
            Source::Checkpoint(component) => component.tensor(&self.name(name)).is_some(),
            Source::Random { .. } => true,
        }
    }

    /// The weight `[O, I]` of a linear layer.
    ///
    /// # Errors
    ///
    /// The tensor is missing, of another shape, not of floating point, or not finite.
    pub fn weight(&self, name: &str, shape: [usize; 2], init: Init) -> Result<Weight> {
        self.packed_or_trainable(name, &shape, init, |values, precision| {
            Weight::packed(values, shape, precision)
        })
    }

    /// The weight `[2·O, I]` of a linear layer of values and their gates.
    ///
    /// # Errors
    ///
    /// As [`Weights::weight`].
    pub fn gated_weight(&self, name: &str, shape: [usize; 2], init: Init) -> Result<Weight> {
        self.packed_or_trainable(name, &shape, init, |values, precision| {
            Weight::packed_gated(values, shape, precision)
        })
    }

    /// The weight `[O, I, k, k]` of a convolution with this stride and padding.
    ///
    /// # Errors
    ///
    /// As [`Weights::weight`].
    pub fn conv_weight(
        &self,
        name: &str,
        [o, i, k, _]: [usize; 4],
        stride: usize,
        padding: Padding,
        init: Init,
    ) -> Result<Weight> {
        let expected = ConvShape {
            // With guidance a picture is two.
            batch: 2,
            height: self.map_size.0.max(k),
            width: self.map_size.1.max(k),
            in_channels: i,
            out_channels: o,
            kernel: k,
            stride,
            padding,
        };
        self.packed_or_trainable(name, &[o, i, k, k], init, |values, precision| {
            let most = self.store.transformed;
            Weight::packed_conv(values, &expected, precision, most)
        })
    }

    fn packed_or_trainable(
        &self,
        name: &str,
        shape: &[usize],
        init: Init,
        pack: impl FnOnce(&[f32], Precision) -> Weight,
    ) -> Result<Weight> {
        let name = self.take(name);
        let precision = |wanted| match self.in_f32 {
            true => Precision::F32,
            false => wanted,
        };
        let parameter = match self.store.mode {
            Mode::Inference(wanted) => {
                let pack = |values: &[f32]| pack(values, precision(wanted));
                return self.store.packed(&name, shape, init, pack);
            }
            Mode::Training => self.store.trained(&name, shape, init)?,
            Mode::Frozen => self.store.frozen(&name, shape, init)?,
        };
        Ok(Weight::trainable_in(
            parameter,
            precision(self.store.products),
        ))
    }

    /// The adapter of the layer here, whose weight has this `shape`; none where none is to be trained.
    pub fn adapter(&self, shape: &[usize]) -> Option<Adapter> {
        let shared = self.store.adaptation.as_ref()?;
        if !shared.covers(&self.path) {
            return None;
        }
        let (rank, fan_in) = (shared.rank, shape[1..].iter().product());
        let down_shape = [&[rank], &shape[1..]].concat();
        let mut up_shape = shape.to_vec();
        up_shape[1] = rank;
        let (down, up) = (self.name("lora_A.weight"), self.name("lora_B.weight"));
        // PEFT's choice for A, which is PyTorch's for a linear layer.
        let first = random(shared.seed, &down, rank * fan_in, Init::torch(fan_in));
        let zeros = Tensor::zeros(&up_shape);
        let seed = SplitMix::new(shared.seed, &self.path).next();
        let down = self.store.keep(&down, Tensor::from_vec(first, &down_shape));
        let up = self.store.keep(&up, zeros);
        Some(Adapter::new(shared, seed, down, up))
    }

    /// Any other tensor: a bias, a norm's scale, an embedding table.
    ///
    /// # Errors
    ///
    /// As [`Weights::weight`].
    pub fn parameter(&self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        let name = self.take(name);
        match self.store.mode {
            Mode::Inference(_) | Mode::Frozen => self.store.frozen(&name, shape, init),
            Mode::Training => self.store.trained(&name, shape, init),
        }
    }

    /// Marks a tensor as used and returns its canonical name.
    fn take(&self, name: &str) -> String {
        let name = canonical(&self.name(name));
        self.store.taken().names.insert(name.clone());
        name
    }
}

/// `count` numbers for the tensor `name`.
fn random(seed: u64, name: &str, count: usize, init: Init) -> Vec<f32> {
    let mut numbers = SplitMix::new(seed, name);
    match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Uniform(bound) => (0..count)
            .map(|_| (2.0 * numbers.uniform() - 1.0) as f32 * bound)
            .collect(),
        Init::Normal(std) => (0..count).map(|_| numbers.normal() as f32 * std).collect(),
        Init::Around1(std) => (0..count)
            .map(|_| 1.0 + numbers.normal() as f32 * std)
            .collect(),
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014): good enough for first weights, and cheap to start once per tensor.
struct SplitMix(u64);

impl SplitMix {
    /// FNV-1a turns the name into 64 bits.
    fn new(seed: u64, name: &str) -> SplitMix {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut numbers = SplitMix(seed);
        SplitMix(numbers.next() ^ hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal, by Box and Muller's cosine branch.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_weights_have_the_wanted_distribution_whatever_the_order() {
        let count = 100_000;
        let normal = random(7, "a", count, Init::Normal(0.5));
        let mean = normal.iter().map(|&x| f64::from(x)).sum::<f64>() / count as f64;
        let square = normal.iter().map(|&x| f64::from(x * x)).sum::<f64>() / count as f64;
        // Standard errors: 0.5/sqrt(n) = 0.0016 of the mean, 0.25·sqrt(2/n) = 0.0011 of the mean square.
        assert!(
            mean.abs() < 0.008 && (square - 0.25).abs() < 0.006,
            "{mean} {square}"
        );
        let uniform = random(7, "a", count, Init::Uniform(2.0));
        assert!(uniform.iter().all(|x| x.abs() <= 2.0));
        let square = uniform.iter().map(|&x| f64::from(x * x)).sum::<f64>() / count as f64;
        assert!((square - 4.0 / 3.0).abs() < 0.03, "{square}");
        assert_ne!(
            random(7, "a", 4, Init::Normal(1.0)),
            random(7, "b", 4, Init::Normal(1.0))
        );
        assert_ne!(
            random(7, "a", 4, Init::Normal(1.0)),
            random(8, "a", 4, Init::Normal(1.0))
        );

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
