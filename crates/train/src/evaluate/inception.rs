//! The Inception network that FID is defined by (Szegedy et al. 2015, arXiv:1512.00567, in the weights of
//! `pt_inception-2015-12-05`): a picture in, 2048 features out.
//!
//! The weights are the person's: a safetensors file with the tensors of that checkpoint, under its names, which are
//! torchvision's. What is computed is what `pytorch-fid` computes: pictures are scaled to 299×299 bilinearly, averages
//! at the border leave out what is beyond it, and the last block's pool takes the largest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use velatura::checkpoint::TensorFile;
use velatura_tensor::tape::no_grad;
use velatura_tensor::{Parameter, Precision, Tensor, Weight};

use crate::error::Result;

/// The network.
pub struct Inception {
    file: PathBuf,
    convolutions: BTreeMap<String, Convolution>,
}

/// A convolution, with the norm behind it multiplied in.
struct Convolution {
    /// `[O, kh·kw·I]`
    weight: Weight,
    bias: Parameter,
    kernel: [usize; 2],
    inputs: usize,
}

/// Added to the variances; torchvision's.
const EPS: f64 = 1e-3;
/// The side of the pictures that it was trained with.
const SIDE: usize = 299;

/// Where a convolution's window stands.
#[derive(Clone, Copy)]
struct Window {
    stride: usize,
    /// Zeros above and below, left and right.
    padding: [usize; 2],
}

const PLAIN: Window = Window {
    stride: 1,
    padding: [0, 0],
};
const HALVING: Window = Window {
    stride: 2,
    padding: [0, 0],
};

/// With so many zeros that height and width stay.
fn around(kernel: [usize; 2]) -> Window {
    Window {
        stride: 1,
        padding: kernel.map(|k| k / 2),
    }
}

impl Inception {
    /// Numbers a picture.
    pub const FEATURES: usize = 2048;

    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read; a tensor is missing or of a shape that does not fit the one before.
    pub fn load(path: &Path) -> Result<Inception> {
        let file = TensorFile::open(path)?;
        let mut convolutions = BTreeMap::new();
        let names: Vec<String> = file
            .names()
            .filter_map(|name| name.strip_suffix(".conv.weight"))
            // A second output for training.
            .filter(|name| !name.starts_with("AuxLogits"))
            .map(str::to_owned)
            .collect();
        for name in names {
            let convolution = read(&file, &name)?;
            convolutions.insert(name, convolution);
        }
        let inception = Inception {
            file: path.to_path_buf(),
            convolutions,
        };
        // The smallest picture that goes through shows whether everything is there and fits.
        no_grad(|| inception.forward(&Tensor::zeros(&[1, 75, 75, 3])))?;
        Ok(inception)
    }

    /// The features of pictures x `[B, H, W, 3]` of any size, values in [0, 1]: [`Inception::FEATURES`] for each.
    ///
    /// # Errors
    /// None once it is loaded.
    pub fn features(&self, x: &Tensor) -> Result<Vec<f32>> {
        let scaled = bilinear(x, SIDE).scale(2.0).add_scalar(-1.0);
        let map = no_grad(|| self.forward(&scaled))?;
        let (places, channels) = (map.dim(1) * map.dim(2), map.channels());
        let mut features = Vec::with_capacity(map.dim(0) * channels);
        for picture in map.as_slice().chunks_exact(places * channels) {
            let mut means = vec![0.0; channels];
            for place in picture.chunks_exact(channels) {
                for (mean, value) in means.iter_mut().zip(place) {
                    *mean += value / places as f32;
                }
            }
            features.extend(means);
        }
        Ok(features)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let three = around([3, 3]);
        let x = self.conv("Conv2d_1a_3x3", x, [3, 3], HALVING)?;
        let x = self.conv("Conv2d_2a_3x3", &x, [3, 3], PLAIN)?;
        let x = max_pool(&self.conv("Conv2d_2b_3x3", &x, [3, 3], three)?, HALVING);
        let x = self.conv("Conv2d_3b_1x1", &x, [1, 1], PLAIN)?;
        let x = max_pool(&self.conv("Conv2d_4a_3x3", &x, [3, 3], PLAIN)?, HALVING);
        let x = self.square("Mixed_5b", &x)?;
        let x = self.square("Mixed_5c", &x)?;
        let x = self.square("Mixed_5d", &x)?;
        let x = self.halve_early("Mixed_6a", &x)?;
        let mut x = x;
        for block in ["Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"] {
            x = self.crossed(block, &x)?;
        }
        let x = self.halve_late("Mixed_7a", &x)?;
        let x = self.spread("Mixed_7b", &x, average_pool)?;
        self.spread("Mixed_7c", &x, |x| max_pool(x, around([3, 3])))
    }

    /// Branches of 1×1, 5×5 and twice 3×3, and a pool.
    fn square(&self, block: &str, x: &Tensor) -> Result<Tensor> {
        let conv = |name: &str, x: &Tensor, side: usize| {
            self.conv(&format!("{block}.{name}"), x, [side; 2], around([side; 2]))
        };
        let one = conv("branch1x1", x, 1)?;
        let five = conv("branch5x5_2", &conv("branch5x5_1", x, 1)?, 5)?;
        let double = conv("branch3x3dbl_2", &conv("branch3x3dbl_1", x, 1)?, 3)?;
        let double = conv("branch3x3dbl_3", &double, 3)?;
        let pool = conv("branch_pool", &average_pool(x), 1)?;
        Ok(Tensor::concat_channels(&[&one, &five, &double, &pool]))
    }

    fn halve_early(&self, block: &str, x: &Tensor) -> Result<Tensor> {
        let conv = |name: &str, x: &Tensor, side: usize, window| {
            self.conv(&format!("{block}.{name}"), x, [side; 2], window)
        };
        let three = conv("branch3x3", x, 3, HALVING)?;
        let double = conv("branch3x3dbl_1", x, 1, PLAIN)?;
        let double = conv("branch3x3dbl_2", &double, 3, around([3, 3]))?;
        let double = conv("branch3x3dbl_3", &double, 3, HALVING)?;
        Ok(Tensor::concat_channels(&[
            &three,
            &double,
            &max_pool(x, HALVING),
        ]))
    }

    /// Branches of 1×1 and of rows and columns of 7, and a pool.
    fn crossed(&self, block: &str, x: &Tensor) -> Result<Tensor> {
        let conv = |name: &str, x: &Tensor, kernel| {
            self.conv(&format!("{block}.{name}"), x, kernel, around(kernel))
        };
        let one = conv("branch1x1", x, [1, 1])?;
        let seven = conv("branch7x7_1", x, [1, 1])?;
        let seven = conv("branch7x7_3", &conv("branch7x7_2", &seven, [1, 7])?, [7, 1])?;
        let double = conv("branch7x7dbl_1", x, [1, 1])?;
        let double = conv(
            "branch7x7dbl_3",
            &conv("branch7x7dbl_2", &double, [7, 1])?,
            [1, 7],
        )?;
        let double = conv(
            "branch7x7dbl_5",
            &conv("branch7x7dbl_4", &double, [7, 1])?,
            [1, 7],
        )?;
        let pool = conv("branch_pool", &average_pool(x), [1, 1])?;
        Ok(Tensor::concat_channels(&[&one, &seven, &double, &pool]))
    }

    fn halve_late(&self, block: &str, x: &Tensor) -> Result<Tensor> {
        let conv = |name: &str, x: &Tensor, kernel, window| {
            self.conv(&format!("{block}.{name}"), x, kernel, window)
        };
        let three = conv("branch3x3_1", x, [1, 1], PLAIN)?;
        let three = conv("branch3x3_2", &three, [3, 3], HALVING)?;
        let seven = conv("branch7x7x3_1", x, [1, 1], PLAIN)?;
        let seven = conv("branch7x7x3_2", &seven, [1, 7], around([1, 7]))?;
        let seven = conv("branch7x7x3_3", &seven, [7, 1], around([7, 1]))?;
        let seven = conv("branch7x7x3_4", &seven, [3, 3], HALVING)?;
        Ok(Tensor::concat_channels(&[
            &three,
            &seven,
            &max_pool(x, HALVING),
        ]))
    }

    /// Branches that end in a row and a column side by side, and a pool.
    fn spread(&self, block: &str, x: &Tensor, pool: impl Fn(&Tensor) -> Tensor) -> Result<Tensor> {
        let conv = |name: &str, x: &Tensor, kernel| {
            self.conv(&format!("{block}.{name}"), x, kernel, around(kernel))
        };
        let one = conv("branch1x1", x, [1, 1])?;
        let three = conv("branch3x3_1", x, [1, 1])?;
        let (row, column) = (
            conv("branch3x3_2a", &three, [1, 3])?,
            conv("branch3x3_2b", &three, [3, 1])?,
        );
        let double = conv(
            "branch3x3dbl_2",
            &conv("branch3x3dbl_1", x, [1, 1])?,
            [3, 3],
        )?;
        let (double_row, double_column) = (
            conv("branch3x3dbl_3a", &double, [1, 3])?,
            conv("branch3x3dbl_3b", &double, [3, 1])?,
        );
        let pool = conv("branch_pool", &pool(x), [1, 1])?;
        let parts = [&one, &row, &column, &double_row, &double_column, &pool];
        Ok(Tensor::concat_channels(&parts))
    }

    /// The convolution of that name, its norm, and what is above 0 of it.
    fn conv(&self, name: &str, x: &Tensor, kernel: [usize; 2], window: Window) -> Result<Tensor> {
        let inputs = x.channels();
        let expected = || format!("a kernel {}×{} of {inputs} channels", kernel[0], kernel[1]);
        let tensor = format!("{name}.conv.weight");
        let fault =
            |found: String| velatura::Error::tensor(&tensor, expected(), found).in_file(&self.file);
        let Some(convolution) = self.convolutions.get(name) else {
            return Err(fault("none".into()).into());
        };
        if (convolution.kernel, convolution.inputs) != (kernel, inputs) {
            let [height, width] = convolution.kernel;
            let found = format!("{height}×{width} of {}", convolution.inputs);
            return Err(fault(found).into());
        }
        let patches = patches(x, kernel, window);
        let y = patches.linear(&convolution.weight, Some(&convolution.bias));
        Ok(y.leaky_relu(0.0))
    }
}

/// A convolution and its norm, y = γ (Wx − μ) / √(σ² + ε) + β, as one product.
fn read(file: &TensorFile, name: &str) -> Result<Convolution> {
    let tensor = |name: String, shape: Option<&[usize]>| -> Result<(Vec<f32>, Vec<usize>)> {
        let fault = |expected: String, found: String| {
            velatura::Error::tensor(&name, expected, found).in_file(file.path())
        };
        let Some(view) = file.tensor(&name) else {
            return Err(fault("a tensor".into(), "none".into()).into());
        };
        if let Some(shape) = shape.filter(|shape| *shape != view.shape) {
            return Err(fault(format!("shape {shape:?}"), format!("{:?}", view.shape)).into());
        }
        Ok((view.to_f32()?, view.shape.to_vec()))
    };
    let (kernel, shape) = tensor(format!("{name}.conv.weight"), None)?;
    let &[outputs, inputs, height, width] = shape.as_slice() else {
        let expected = "a convolution's four axes";
        let error = velatura::Error::tensor(name, expected, format!("shape {shape:?}"));
        return Err(error.in_file(file.path()).into());
    };
    let norm = |part: &str| Ok(tensor(format!("{name}.bn.{part}"), Some(&[outputs]))?.0);
    let parts: Result<Vec<Vec<f32>>> = ["weight", "bias", "running_mean", "running_var"]
        .into_iter()
        .map(norm)
        .collect();
    let parts = parts?;
    let (mut weight, mut bias) = (Vec::with_capacity(kernel.len()), Vec::new());
    for (output, kernel) in kernel
        .chunks_exact((inputs * height * width).max(1))
        .enumerate()
    {
        let [gamma, beta, mean, variance] = [0, 1, 2, 3].map(|i| f64::from(parts[i][output]));
        let factor = gamma / (variance + EPS).sqrt();
        for place in 0..height * width {
            for input in 0..inputs {
                let value = f64::from(kernel[input * height * width + place]);
                weight.push((value * factor) as f32);
            }
        }
        bias.push((beta - mean * factor) as f32);
    }
    Ok(Convolution {
        weight: Weight::packed(&weight, [outputs, height * width * inputs], Precision::F32),
        bias: Parameter::frozen(name, Tensor::from_vec(bias, &[outputs])),
        kernel: [height, width],
        inputs,
    })
}

/// Height and width of what a window gives on a map of this size.
fn size(length: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    (length + 2 * padding - kernel) / stride + 1
}

/// What each window of x `[B, H, W, C]` covers, side by side: `[B, H', W', kh·kw·C]`.
fn patches(x: &Tensor, kernel: [usize; 2], window: Window) -> Tensor {
    if kernel == [1, 1] && window.stride == 1 {
        return x.clone();
    }
    let (batch, height, width, channels) = (x.dim(0), x.dim(1), x.dim(2), x.channels());
    let Window { stride, padding } = window;
    let rows = size(height, kernel[0], stride, padding[0]);
    let columns = size(width, kernel[1], stride, padding[1]);
    let row_length = kernel[1] * channels;
    let each = kernel[0] * row_length;
    let mut out = vec![0.0; batch * rows * columns * each];
    let values = x.as_slice();
    for (place, patch) in out.chunks_exact_mut(each).enumerate() {
        let (b, row, column) = (
            place / (rows * columns),
            place / columns % rows,
            place % columns,
        );
        for (ky, line) in patch.chunks_exact_mut(row_length).enumerate() {
            let Some(y) = (row * stride + ky).checked_sub(padding[0]) else {
                continue;
            };
            if y >= height {
                continue;
            }
            for (kx, pixel) in line.chunks_exact_mut(channels).enumerate() {
                let Some(x) = (column * stride + kx).checked_sub(padding[1]) else {
                    continue;
                };
                if x < width {
                    let from = ((b * height + y) * width + x) * channels;
                    pixel.copy_from_slice(&values[from..from + channels]);
                }
            }
        }
    }
    Tensor::from_vec(out, &[batch, rows, columns, each])
}

/// The largest in each window of 3×3.
fn max_pool(x: &Tensor, window: Window) -> Tensor {
    pool(x, window, f32::NEG_INFINITY, f32::max, |value, _| value)
}

/// The mean of each window of 3×3 around a place, of what is inside the map.
fn average_pool(x: &Tensor) -> Tensor {
    let mean = |sum: f32, count: usize| sum / count as f32;
    pool(x, around([3, 3]), 0.0, |a, b| a + b, mean)
}

fn pool(
    x: &Tensor,
    Window { stride, padding }: Window,
    start: f32,
    join: impl Fn(f32, f32) -> f32,
    finish: impl Fn(f32, usize) -> f32,
) -> Tensor {
    let (batch, height, width, channels) = (x.dim(0), x.dim(1), x.dim(2), x.channels());
    let rows = size(height, 3, stride, padding[0]);
    let columns = size(width, 3, stride, padding[1]);
    let mut out = vec![start; batch * rows * columns * channels];
    for (place, pixel) in out.chunks_exact_mut(channels).enumerate() {
        let (b, row, column) = (
            place / (rows * columns),
            place / columns % rows,
            place % columns,
        );
        let inside = |at: usize, padding: usize, length: usize| {
            (at * stride).saturating_sub(padding)..(at * stride + 3 - padding).min(length)
        };
        let (ys, xs) = (
            inside(row, padding[0], height),
            inside(column, padding[1], width),
        );
        let count = ys.len() * xs.len();
        for y in ys {
            for x_at in xs.clone() {
                let from = ((b * height + y) * width + x_at) * channels;
                for (value, &other) in pixel.iter_mut().zip(&x.as_slice()[from..]) {
                    *value = join(*value, other);
                }
            }
        }
        pixel
            .iter_mut()
            .for_each(|value| *value = finish(*value, count));
    }
    Tensor::from_vec(out, &[batch, rows, columns, channels])
}

/// x `[B, H, W, C]` scaled to a square by linear interpolation between pixels' middles, without smoothing: PyTorch's
/// `interpolate(mode="bilinear", align_corners=False)`.
fn bilinear(x: &Tensor, side: usize) -> Tensor {
    let (batch, height, width, channels) = (x.dim(0), x.dim(1), x.dim(2), x.channels());
    let taps = |length: usize| -> Vec<(usize, usize, f32)> {
        let scale = length as f32 / side as f32;
        (0..side)
            .map(|i| {
                let at = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
                let first = (at as usize).min(length - 1);
                (first, (first + 1).min(length - 1), at - first as f32)
            })
            .collect()
    };
    let (down, across) = (taps(height), taps(width));
    let values = x.as_slice();
    let mut out = Vec::with_capacity(batch * side * side * channels);
    for b in 0..batch {
        for &(y0, y1, t) in &down {
            for &(x0, x1, s) in &across {
                for c in 0..channels {
                    let pixel =
                        |y: usize, x: usize| values[((b * height + y) * width + x) * channels + c];
                    let above = pixel(y0, x0) * (1.0 - s) + pixel(y0, x1) * s;
                    let below = pixel(y1, x0) * (1.0 - s) + pixel(y1, x1) * s;
                    out.push(above * (1.0 - t) + below * t);
                }
            }
        }
    }
    Tensor::from_vec(out, &[batch, side, side, channels])
}
