//! Convolution together with what stands before and behind it, without the intermediates in memory.
//!
//! At 1024×1024 a feature map of 256 channels takes 1 GB, and a residual block would hold four of them.
//! Here a band of rows at a time is normalised (or enlarged) into a window that stays in the cache, and
//! convolved from there. Group norm's moments are those of the whole picture, so nothing is approximate:
//! every number is the one that the separate operations give.

use super::conv::as_conv;
use crate::buffer::Buffer;
use crate::{Padding, Parameter, Tensor, Weight, device};
use std::ops::Range;
use velatura_kernels::conv::{self, ConvShape};
use velatura_kernels::gemm::Epilogue;
use velatura_kernels::norm::{self, GroupNormShape};
use velatura_kernels::resample;

/// Numbers in a window, 16 MiB, about what two cores have to themselves of a shared cache. Pictures of up
/// to twice this size are not cut: their intermediates are no burden.
const WINDOW: usize = 4 << 20;

/// Rows that a band is a multiple of, so that convolution algorithms which work on tiles cut a band as
/// they would cut the picture.
const ROWS: usize = 8;

/// A convolution of 3×3, stride 1, that keeps height and width.
pub struct BandedConv<'a> {
    /// What its input goes through first.
    pub before: Before<'a>,
    /// `[O, I, 3, 3]`
    pub weight: &'a Weight,
    /// `[O]`
    pub bias: &'a Parameter,
    /// What is added to its result.
    pub residual: Option<Residual<'a>>,
}

/// What the input of a [`BandedConv`] goes through first.
pub enum Before<'a> {
    /// Group norm, then SiLU; see [`Tensor::group_norm_silu`].
    NormSilu {
        groups: usize,
        eps: f32,
        gamma: &'a Parameter,
        beta: &'a Parameter,
    },
    /// [`Tensor::upsample_nearest2x`].
    Upsample,
}

/// What is added to the result of a [`BandedConv`]: a tensor of its shape, or one of other channels and
/// the 1×1 convolution that gives it as many.
pub struct Residual<'a> {
    /// `[B, H, W, O]`, or `[B, H, W, C]` where there is a projection.
    pub x: Tensor,
    /// `[O, C, 1, 1]` and `[O]`.
    pub projection: Option<(&'a Weight, &'a Parameter)>,
}

impl BandedConv<'_> {
    /// x `[B, H, W, I]` → `[B, H, W, O]`, twice as high and wide with [`Before::Upsample`]. Where x has O
    /// channels and nobody else holds it, its memory becomes the result's.
    ///
    /// With weights for training, on a graphics card, and where the intermediates are small, the operations are taken one after
    /// the other.
    ///
    /// # Panics
    /// When a shape does not fit.
    pub fn forward(&self, x: Tensor) -> Tensor {
        let &[batch, height, width, channels] = x.shape() else {
            panic!("conv2d of {:?}, expected [B, H, W, C]", x.shape());
        };
        let scale = self.scale();
        let whole = self.weight.parameter().is_some() || device::current().is_some();
        if whole || batch * height * width * channels * scale * scale <= 2 * WINDOW {
            return self.separately(x);
        }
        let rows = (WINDOW / (scale * width * channels)) / ROWS * ROWS;
        self.in_bands(x, rows.max(ROWS))
    }

    fn scale(&self) -> usize {
        match self.before {
            Before::NormSilu { .. } => 1,
            Before::Upsample => 2,
        }
    }

    /// The definition.
    fn separately(&self, x: Tensor) -> Tensor {
        let prepared = match self.before {
            Before::NormSilu {
                groups,
                eps,
                gamma,
                beta,
            } => x.group_norm_silu(groups, eps, gamma, beta),
            Before::Upsample => x.upsample_nearest2x(),
        };
        let residual = self.residual.as_ref().map(Residual::value);
        let padding = Padding::uniform(1);
        prepared.conv2d_added(self.weight, Some(self.bias), 1, padding, residual.as_ref())
    }

    /// As [`BandedConv::separately`], with weights that no gradient passes, by bands of `rows` rows.
    fn in_bands(&self, x: Tensor, rows: usize) -> Tensor {
        let &[batch, height, width, channels] = x.shape() else {
            panic!("conv2d of {:?}, expected [B, H, W, C]", x.shape());
        };
        let &[outputs, inputs, 3, 3] = self.weight.shape() else {
            panic!("a banded convolution with {:?}", self.weight);
        };
        assert_eq!(
            channels,
            inputs,
            "conv2d {:?} of {:?}",
            self.weight,
            x.shape()
        );
        let scale = self.scale();
        let shape = [batch, scale * height, scale * width, outputs];
        if let Some(residual) = &self.residual {
            assert_eq!(
                residual.x.shape()[..3],
                shape[..3],
                "a residual of {shape:?}"
            );
        }
        let stats = self.stats(&x);
        if shape == x.shape() && x.is_unshared() {
            let mut out = x;
            self.write_bands(None, &stats, &shape, rows, out.make_mut());
            return out;
        }
        Tensor::output(&shape, |out| {
            self.write_bands(Some(x.as_slice()), &stats, &shape, rows, out)
        })
    }

    /// Mean and reciprocal deviation of each group of each sample; nothing where there is no norm.
    fn stats(&self, x: &Tensor) -> Vec<f32> {
        let Before::NormSilu { groups, eps, .. } = self.before else {
            return Vec::new();
        };
        let shape = GroupNormShape {
            batch: x.dim(0),
            spatial: x.dim(1) * x.dim(2),
            channels: x.channels(),
            groups,
        };
        let mut stats = vec![0.0; x.dim(0) * groups * 2];
        norm::group_norm_stats(&shape, eps, x.as_slice(), &mut stats);
        stats
    }

    /// Writes the result of `shape` into `out`, where x lies if `x` is none: each row is read before it is
    /// overwritten, and the window keeps the two that the next band needs again.
    fn write_bands(
        &self,
        x: Option<&[f32]>,
        stats: &[f32],
        shape: &[usize; 4],
        rows: usize,
        out: &mut [f32],
    ) {
        let &[batch, height, width, outputs] = shape;
        let inputs = self.weight.shape()[1];
        let (row, out_row) = (width * inputs, width * outputs);
        let bias = self.bias.value();
        // Packed for inference, as `forward` has made sure: whatever the shape, there is one form.
        let packed = self.weight.forward(None);
        let mut window = Buffer::for_output((rows + 2).min(height) * row);
        for sample in 0..batch {
            let out = &mut out[sample * height * out_row..][..height * out_row];
            let x = x.map(|x| &x[x.len() / batch * sample..][..x.len() / batch]);
            let stats = &stats[stats.len() / batch * sample..][..stats.len() / batch];
            let mut held = 0..0;
            for first in (0..height).step_by(rows) {
                let last = (first + rows).min(height);
                let needed = first.saturating_sub(1)..(last + 1).min(height);
                let kept = held.end - needed.start;
                window.copy_within((held.len() - kept) * row..held.len() * row, 0);
                let fresh = &mut window[kept * row..needed.len() * row];
                self.prepare(x.unwrap_or(out), stats, width, held.end, fresh);

                let band = ConvShape {
                    batch: 1,
                    height: needed.len(),
                    width,
                    in_channels: inputs,
                    out_channels: outputs,
                    kernel: 3,
                    stride: 1,
                    padding: Padding {
                        top: usize::from(first == 0),
                        bottom: usize::from(last == height),
                        ..Padding::uniform(1)
                    },
                };
                let places = (sample * height + first) * width..(sample * height + last) * width;
                let residual = self.residual.as_ref();
                let projected = residual.and_then(|residual| residual.projected(places.clone()));
                let epilogue = Epilogue {
                    bias: Some(bias.as_slice()),
                    residual: match &projected {
                        Some(projected) => Some(projected.as_slice()),
                        None => residual.map(|residual| residual.at(places)),
                    },
                };
                let window = &window[..needed.len() * row];
                let out = &mut out[first * out_row..last * out_row];
                conv::forward(&band, window, as_conv(&packed), out, &epilogue);
                held = needed;
            }
        }
    }

    /// Fills `rows`, the rows from `first` on of what is convolved, from a sample `x`.
    fn prepare(&self, x: &[f32], stats: &[f32], width: usize, first: usize, rows: &mut [f32]) {
        let channels = self.weight.shape()[1];
        match self.before {
            Before::Upsample => {
                resample::upsample_nearest2x_rows(first, width / 2, channels, x, rows);
            }
            Before::NormSilu {
                groups,
                gamma,
                beta,
                ..
            } => {
                let shape = GroupNormShape {
                    batch: 1,
                    spatial: rows.len() / channels,
                    channels,
                    groups,
                };
                let x = &x[first * width * channels..][..rows.len()];
                let (gamma, beta) = (gamma.value(), beta.value());
                let (gamma, beta) = (gamma.as_slice(), beta.as_slice());
                norm::group_norm_apply(&shape, stats, x, gamma, beta, true, rows);
            }
        }
    }
}

impl Residual<'_> {
    /// The whole of it.
    fn value(&self) -> Tensor {
        match self.projection {
            None => self.x.clone(),
            Some((weight, bias)) => self.x.linear(weight, Some(bias)),
        }
    }

    /// The `places` of x, counted over all samples.
    fn at(&self, places: Range<usize>) -> &[f32] {
        let channels = self.x.channels();
        &self.x.as_slice()[places.start * channels..places.end * channels]
    }

    /// Off the tape, the `places` of it, if it is a projection.
    fn projected(&self, places: Range<usize>) -> Option<Tensor> {
        let (weight, bias) = self.projection?;
        let shape = [places.len(), self.x.channels()];
        let x = Tensor::from_vec(self.at(places).to_vec(), &shape);
        Some(x.linear(weight, Some(bias)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;
    use crate::random::TorchGenerator;

    fn random(shape: &[usize], seed: u64) -> Tensor {
        let numbers = TorchGenerator::new(seed).randn(shape.iter().product());
        Tensor::from_vec(numbers, shape)
    }

    fn weight(outputs: usize, inputs: usize, kernel: usize, seed: u64) -> Weight {
        let values = random(&[outputs, inputs, kernel, kernel], seed);
        let expected = ConvShape {
            batch: 1,
            height: 32,
            width: 32,
            in_channels: inputs,
            out_channels: outputs,
            kernel,
            stride: 1,
            padding: Padding::uniform(kernel / 2),
        };
        Weight::packed_conv(values.as_slice(), &expected, Precision::F32, usize::MAX)
    }

    /// One to three bands, odd heights, batches, in place and not, every kind of residual; few channels, which are
    /// convolved directly, and many, which are in tiles.
    #[test]
    fn bands_are_the_separate_operations_to_the_last_bit() {
        for channels in [4, 32] {
            for outputs in [channels, channels + 2] {
                for (batch, height, upsample) in [
                    (1, 1, false),
                    (2, 9, false),
                    (1, 16, false),
                    (2, 7, true),
                    (1, 23, false),
                ] {
                    compare(channels, outputs, [batch, height, 5], upsample);
                }
            }
        }
    }

    fn compare(
        channels: usize,
        outputs: usize,
        [batch, height, width]: [usize; 3],
        upsample: bool,
    ) {
        let parameter = |len, seed| Parameter::frozen("p", random(&[len], seed));
        let (gamma, beta) = (parameter(channels, 1), parameter(channels, 2));
        let (weight, bias) = (weight(outputs, channels, 3, 3), parameter(outputs, 4));
        let (projection, shift) = (self::weight(outputs, 3, 1, 5), parameter(outputs, 6));
        let scale = 1 + usize::from(upsample);
        let result = |channels| [batch, scale * height, scale * width, channels];
        let (same, other) = (random(&result(outputs), 8), random(&result(3), 9));
        let residuals = [
            None,
            Some((same, None)),
            Some((other, Some((&projection, &shift)))),
        ];
        let x = random(&[batch, height, width, channels], 7);
        for residual in residuals {
            let conv = BandedConv {
                before: match upsample {
                    true => Before::Upsample,
                    false => Before::NormSilu {
                        groups: 2,
                        eps: 1e-6,
                        gamma: &gamma,
                        beta: &beta,
                    },
                },
                weight: &weight,
                bias: &bias,
                residual: residual.map(|(x, projection)| Residual { x, projection }),
            };
            let expected = conv.separately(x.clone());
            for rows in [8, 16, 64] {
                let from_shared = conv.in_bands(x.clone(), rows);
                assert_eq!(from_shared.as_slice(), expected.as_slice());
                let own = Tensor::from_vec(x.to_vec(), x.shape());
                assert_eq!(conv.in_bands(own, rows).as_slice(), expected.as_slice());
            }
        }
    }
}
