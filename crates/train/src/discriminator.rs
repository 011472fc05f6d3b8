//! A PatchGAN: a network that says of every patch of a picture whether it looks real (Isola et al. 2017,
//! arXiv:1611.07004), as latent diffusion's autoencoders are trained against it.
//!
//! Layers and names are those of `NLayerDiscriminator` in taming-transformers: `main.0.weight`, …

use serde_json::{Value, json};
use velatura::nn::watch;
use velatura::weights::{Init, Weights};
use velatura_tensor::{Padding, Parameter, Tensor, Weight};

use crate::error::Result;

/// Of all its kernels.
const KERNEL: usize = 4;
/// The slope of negative numbers.
const SLOPE: f32 = 0.2;
/// Added to a batch norm's variance.
const EPS: f32 = 1e-5;

/// The network.
pub struct Discriminator {
    layers: Vec<Layer>,
    sizes: Sizes,
}

/// How large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Channels of the first layer.
    pub ndf: usize,
    /// Layers that halve the picture.
    pub num_layers: usize,
}

impl Sizes {
    /// The config that stands beside its weights.
    pub fn to_json(self) -> Value {
        json!({
            "_class_name": "NLayerDiscriminator",
            "input_nc": 3,
            "ndf": self.ndf,
            "n_layers": self.num_layers,
        })
    }

    /// The smallest picture of which a patch is left to judge: two kernels of 4 follow the halvings, each of which
    /// takes one place away.
    pub fn smallest_side(self) -> usize {
        3 << self.num_layers
    }
}

/// A convolution, the batch norm behind it, and the bend; the last has neither of the latter.
struct Layer {
    path: String,
    weight: Weight,
    bias: Option<Parameter>,
    norm: Option<[Parameter; 2]>,
    stride: usize,
}

impl Discriminator {
    /// Fresh convolutions have normal weights of deviation 0.02, and batch norms such scales around 1, as pix2pix has
    /// it.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(sizes: Sizes, w: &Weights) -> Result<Discriminator> {
        let main = w.at("main");
        let width = |level: usize| sizes.ndf << level.min(3);
        let mut layers = vec![Layer::load(&main, 0, [3, width(0)], 2, false)?];
        for level in 1..=sizes.num_layers {
            let stride = if level < sizes.num_layers { 2 } else { 1 };
            let channels = [width(level - 1), width(level)];
            layers.push(Layer::load(&main, 3 * level - 1, channels, stride, true)?);
        }
        let last = [width(sizes.num_layers), 1];
        layers.push(Layer::load(
            &main,
            3 * sizes.num_layers + 2,
            last,
            1,
            false,
        )?);
        Ok(Discriminator { layers, sizes })
    }

    /// Its sizes.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// x `[B, H, W, 3]` in [-1, 1]: a number for each patch, `[B, h, w, 1]`, the larger the more real. Batch norms go by
    /// the moments of this batch, as in training.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (last, layers) = match self.layers.split_last() {
            Some(split) => split,
            None => return x.clone(),
        };
        let mut x = x.clone();
        for layer in layers {
            x = layer.forward(&x).leaky_relu(SLOPE);
        }
        last.forward(&x)
    }

    /// The hinge loss (Lim & Ye 2017, arXiv:1705.02894): ½·(mean max(0, 1 − D(real)) + mean max(0, 1 + D(fake))).
    pub fn loss(&self, real: &Tensor, fake: &Tensor) -> Tensor {
        let real = self.forward(real).neg().add_scalar(1.0);
        let fake = self.forward(fake).add_scalar(1.0);
        let mean = |x: Tensor| x.leaky_relu(0.0).mean();
        mean(real).add(&mean(fake)).scale(0.5)
    }
}

impl Layer {
    fn load(
        main: &Weights,
        index: usize,
        [inputs, outputs]: [usize; 2],
        stride: usize,
        norm: bool,
    ) -> Result<Layer> {
        let w = main.at(index);
        let behind = main.at(index + 1);
        let bias = Init::torch(inputs * KERNEL * KERNEL);
        Ok(Layer {
            path: w.path().to_owned(),
            weight: w.conv_weight(
                "weight",
                [outputs, inputs, KERNEL, KERNEL],
                stride,
                Padding::uniform(1),
                Init::Normal(0.02),
            )?,
            bias: (!norm)
                .then(|| w.parameter("bias", &[outputs], bias))
                .transpose()?,
            norm: match norm {
                false => None,
                true => Some([
                    behind.parameter("weight", &[outputs], Init::Around1(0.02))?,
                    behind.parameter("bias", &[outputs], Init::Zeros)?,
                ]),
            },
            stride,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.conv2d(
            &self.weight,
            self.bias.as_ref(),
            self.stride,
            Padding::uniform(1),
        );
        let y = match &self.norm {
            Some([gamma, beta]) => batch_norm(&y, gamma, beta),
            None => y,
        };
        watch(&self.path, y)
    }
}

/// Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167) of x `[B, H, W, C]` over everything but the channels: a
/// group norm of the whole batch as one sample, each channel a group of its own.
fn batch_norm(x: &Tensor, gamma: &Parameter, beta: &Parameter) -> Tensor {
    let channels = x.channels();
    let places = x.len() / channels.max(1);
    x.reshape(&[1, places, channels])
        .group_norm(channels, EPS, gamma, beta)
        .reshape(x.shape())
}

#[cfg(test)]
mod tests {
    use velatura::weights::Store;
    use velatura_tensor::tape::no_grad;

    use super::*;

    #[test]
    fn the_smallest_side_leaves_one_patch() {
        for num_layers in 1..=4 {
            let sizes = Sizes { ndf: 2, num_layers };
            let store = Store::init(1);
            let discriminator = Discriminator::load(sizes, &store.root()).unwrap();
            let side = sizes.smallest_side();
            let patches = no_grad(|| discriminator.forward(&Tensor::zeros(&[2, side, side, 3])));
            assert_eq!(patches.shape(), [2, 1, 1, 1], "{num_layers} layers");
        }
    }
}
