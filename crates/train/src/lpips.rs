//! LPIPS: how different two pictures look, by the features of a VGG16 (Zhang et al. 2018, arXiv:1801.03924).
//!
//! The weights are the person's: a safetensors file with the tensors of `lpips.LPIPS(net="vgg")`, under its names.

use std::path::Path;

use velatura::Error;
use velatura::checkpoint::TensorFile;
use velatura_tensor::tape::no_grad;
use velatura_tensor::{Padding, Parameter, Precision, Tensor, Weight};

use crate::error::Result;

/// The convolutions before each comparison, by their place among VGG16's layers; between the slices the picture is
/// halved.
const SLICES: [&[usize]; 5] = [
    &[0, 2],
    &[5, 7],
    &[10, 12, 14],
    &[17, 19, 21],
    &[24, 26, 28],
];
/// What VGG16 expects: the mean and deviation of its training pictures, in [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// Added to the length that features are divided by.
const EPS: f32 = 1e-10;

/// The frozen network.
pub struct Lpips {
    scaling: (Weight, Parameter),
    slices: Vec<Slice>,
}

struct Slice {
    convolutions: Vec<(Weight, Parameter)>,
    /// How much each channel counts: `[1, C]`.
    head: Weight,
}

impl Lpips {
    /// The smallest side of a picture: it is halved four times.
    pub const SMALLEST_SIDE: usize = 1 << (SLICES.len() - 1);

    /// Reads the file; the widths of the layers are its own. `products` is the number format of the products.
    ///
    /// # Errors
    /// It cannot be read; a tensor is missing or of a shape that does not fit the one before.
    pub fn load(file: &Path, products: Precision) -> Result<Lpips> {
        let file = TensorFile::open(file)?;
        let mut inputs = 3;
        let mut slices = Vec::with_capacity(SLICES.len());
        for (number, layers) in SLICES.iter().enumerate() {
            let mut convolutions = Vec::with_capacity(layers.len());
            for layer in *layers {
                let name = format!("net.slice{}.{layer}", number + 1);
                let kernel = read(&file, &format!("{name}.weight"), &[0, inputs, 3, 3])?;
                inputs = kernel.dim(0);
                let bias = read(&file, &format!("{name}.bias"), &[inputs])?;
                convolutions.push((
                    Weight::trainable_in(Parameter::frozen(&name, kernel), products),
                    Parameter::frozen(name, bias),
                ));
            }
            let name = format!("lin{number}.model.1.weight");
            let head = read(&file, &name, &[1, inputs, 1, 1])?;
            slices.push(Slice {
                convolutions,
                head: Weight::trainable(Parameter::frozen(name, head)),
            });
        }
        let mut diagonal = vec![0.0; 9];
        for channel in 0..3 {
            diagonal[4 * channel] = 1.0 / SCALE[channel];
        }
        let offset = [0, 1, 2].map(|channel| -SHIFT[channel] / SCALE[channel]);
        let diagonal =
            Parameter::frozen("scaling_layer.scale", Tensor::from_vec(diagonal, &[3, 3]));
        let offset = Tensor::from_vec(offset.to_vec(), &[3]);
        Ok(Lpips {
            scaling: (
                Weight::trainable(diagonal),
                Parameter::frozen("scaling_layer.shift", offset),
            ),
            slices,
        })
    }

    /// The mean distance of the pictures x from y, `[B, H, W, 3]` in [-1, 1]; gradients flow to x alone.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn distance(&self, x: &Tensor, y: &Tensor) -> Tensor {
        assert_eq!(x.shape(), y.shape(), "pictures to compare");
        let theirs = no_grad(|| self.features(y));
        let terms = self.features(x).into_iter().zip(theirs).zip(&self.slices);
        let mut sum = Tensor::full(&[], 0.0);
        for ((x, y), slice) in terms {
            let difference = x.sub(&y).square();
            sum = sum.add(&difference.linear(&slice.head, None).mean());
        }
        sum
    }

    /// The features after each slice, each place's of length 1.
    fn features(&self, x: &Tensor) -> Vec<Tensor> {
        let (scale, shift) = &self.scaling;
        let mut x = x.linear(scale, Some(shift));
        let mut features = Vec::with_capacity(self.slices.len());
        for (number, slice) in self.slices.iter().enumerate() {
            if number > 0 {
                x = x.max_pool2x2();
            }
            for (kernel, bias) in &slice.convolutions {
                x = x
                    .conv2d(kernel, Some(bias), 1, Padding::uniform(1))
                    .leaky_relu(0.0);
            }
            features.push(x.unit_channels(EPS));
        }
        features
    }

    /// How many numbers the network has.
    pub(crate) fn len(&self) -> usize {
        let size = |shape: &[usize]| shape.iter().product::<usize>();
        let slices = self.slices.iter();
        slices
            .map(|slice| {
                let convolutions = slice.convolutions.iter();
                let own: usize = convolutions
                    .map(|(kernel, bias)| size(kernel.shape()) + size(bias.shape()))
                    .sum();
                own + size(slice.head.shape())
            })
            .sum()
    }
}

/// The tensor `name`, which must have this shape; 0 stands for any size but 0.
fn read(file: &TensorFile, name: &str, shape: &[usize]) -> Result<Tensor> {
    let fits = |found: &[usize]| {
        found.len() == shape.len()
            && (found.iter().zip(shape)).all(|(&found, &wanted)| match wanted {
                0 => found > 0,
                _ => found == wanted,
            })
    };
    let expected = || format!("shape {shape:?} (0: any)");
    let Some(view) = file.tensor(name) else {
        let found =
            "no such tensor; the file should hold the state_dict of lpips.LPIPS(net=\"vgg\")";
        return Err(Error::tensor(name, expected(), found)
            .in_file(file.path())
            .into());
    };
    if !fits(view.shape) {
        let found = format!("shape {:?}", view.shape);
        return Err(Error::tensor(name, expected(), found)
            .in_file(file.path())
            .into());
    }
    Ok(Tensor::from_vec(view.to_f32()?, view.shape))
}
