//! The cursor: a place in a checkpoint.

use std::fmt::Display;

use velatura_tensor::{ConvShape, Padding, Parameter, Precision, Tensor, Weight};

use super::first::{SplitMix, random};
use super::{Init, Mode, Source, Store};
use crate::checkpoint::canonical;
use crate::error::Result;
use crate::nn::Adapter;

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
    pub(super) fn new(store: &'a Store) -> Weights<'a> {
        Weights {
            store,
            path: String::new(),
            in_f32: false,
            map_size: (64, 64),
        }
    }

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
