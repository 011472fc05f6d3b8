//! Two-dimensional convolution (the cross-correlation that the field calls so), channels last, as an
//! implicit matrix product: the patches under the kernel are the left-hand matrix, gathered block by
//! block while they are multiplied.

mod backward;
pub(crate) mod patches;

pub use backward::{backward_input, backward_weight};

use crate::gemm::driver::{OutRows, Product, Segment};
use crate::gemm::operands::Left;
use crate::gemm::panels::{PackRow, PackSource};
use crate::gemm::{self, Epilogue, PackedMatrix, Precision};
use crate::profile;
use patches::{Patches, Run};

/// Rows and columns of zeros around the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns on the left.
    pub left: usize,
    /// Columns on the right.
    pub right: usize,
}

impl Padding {
    /// The same on all four sides.
    pub const fn uniform(pixels: usize) -> Self {
        Padding {
            top: pixels,
            bottom: pixels,
            left: pixels,
            right: pixels,
        }
    }
}

/// The sizes of a convolution `x: [batch, height, width, in_channels]` →
/// `[batch, out_height, out_width, out_channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Pictures.
    pub batch: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Kernel rows, and kernel columns.
    pub kernel: usize,
    /// Step between outputs, in input pixels.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

impl ConvShape {
    /// Output rows.
    ///
    /// # Panics
    /// When the kernel is larger than the padded picture, or the stride is 0.
    pub fn out_height(&self) -> usize {
        let padded = self.height + self.padding.top + self.padding.bottom;
        assert!(
            padded >= self.kernel,
            "the kernel is larger than the padded picture"
        );
        (padded - self.kernel) / self.stride + 1
    }

    /// Output columns.
    ///
    /// # Panics
    /// When the kernel is larger than the padded picture, or the stride is 0.
    pub fn out_width(&self) -> usize {
        let padded = self.width + self.padding.left + self.padding.right;
        assert!(
            padded >= self.kernel,
            "the kernel is larger than the padded picture"
        );
        (padded - self.kernel) / self.stride + 1
    }

    /// Numbers in the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.in_channels
    }

    /// Numbers in the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }

    /// Numbers in the weight.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.in_channels * self.kernel * self.kernel
    }

    /// Whether the convolution is a matrix product of the picture as it lies.
    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == Padding::default()
    }

    /// The patches of the input under the kernel: one row per output pixel, columns through kernel
    /// rows, kernel columns and channels.
    fn patches<'a>(&self, x: &'a [f32]) -> Patches<'a> {
        let run = |tap_row: usize| Run {
            row: tap_row as isize - self.padding.top as isize,
            column: -(self.padding.left as isize),
        };
        Patches {
            x,
            height: self.height,
            width: self.width,
            channels: self.in_channels,
            grid_height: self.out_height(),
            grid_width: self.out_width(),
            stride: self.stride,
            runs: (0..self.kernel).map(run).collect(),
            taps: self.kernel,
        }
    }
}

/// A convolution's weight, packed once; see [`PackedMatrix`].
#[derive(Clone, Debug)]
pub struct PackedConv {
    /// `[kernel · kernel · channels, outputs]`.
    matrix: PackedMatrix,
    /// Channels of the picture that is read: inputs, or outputs for the input gradient.
    channels: usize,
    kernel: usize,
    for_input_gradient: bool,
    precision: Precision,
}

impl PackedConv {
    /// Packs `weight: [O, I, kh, kw]` for [`forward`].
    ///
    /// # Panics
    /// When `weight` has another length.
    pub fn new(
        weight: &[f32],
        out_channels: usize,
        in_channels: usize,
        kernel: usize,
        precision: Precision,
    ) -> Self {
        let taps = kernel * kernel;
        let k = taps * in_channels;
        assert_eq!(weight.len(), out_channels * k, "a weight of [O, I, kh, kw]");
        let visit = |i| PackRow {
            row: i % taps * in_channels + i / taps,
            offset: i,
        };
        let source = PackSource {
            source: weight,
            stride: k,
            k,
            visit,
        };
        PackedConv {
            matrix: PackedMatrix::pack(out_channels, precision, &source),
            channels: in_channels,
            kernel,
            for_input_gradient: false,
            precision,
        }
    }

    /// Packs `weight: [O, I, kh, kw]` for [`backward_input`]: channels exchanged, taps turned round.
    ///
    /// # Panics
    /// When `weight` has another length.
    pub fn for_input_gradient(
        weight: &[f32],
        out_channels: usize,
        in_channels: usize,
        kernel: usize,
        precision: Precision,
    ) -> Self {
        let taps = kernel * kernel;
        assert_eq!(
            weight.len(),
            out_channels * in_channels * taps,
            "a weight of [O, I, kh, kw]"
        );
        let visit = |i| {
            let (o, tap) = (i / taps, i % taps);
            let offset = o * in_channels * taps + tap;
            PackRow {
                row: (taps - 1 - tap) * out_channels + o,
                offset,
            }
        };
        // The gradient of a convolution with stride takes taps one by one, so that each must start
        // on a bf16 pair. Where it does not, the rounded numbers are kept as f32.
        let rounded: Vec<f32>;
        let (weight, format) = match precision {
            Precision::Bf16 if !out_channels.is_multiple_of(2) => {
                rounded = weight
                    .iter()
                    .map(|&x| half::bf16::from_f32(x).to_f32())
                    .collect();
                (rounded.as_slice(), Precision::F32)
            }
            _ => (weight, precision),
        };
        let source = PackSource {
            source: weight,
            stride: taps,
            k: taps * out_channels,
            visit,
        };
        PackedConv {
            matrix: PackedMatrix::pack(in_channels, format, &source),
            channels: out_channels,
            kernel,
            for_input_gradient: true,
            precision,
        }
    }

    /// The number format.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        self.matrix.bytes()
    }

    fn check(&self, kernel: usize, channels: usize, outputs: usize, for_input_gradient: bool) {
        assert_eq!(
            (
                self.kernel,
                self.channels,
                self.matrix.n(),
                self.for_input_gradient
            ),
            (kernel, channels, outputs, for_input_gradient),
            "the weight was packed for another convolution (kernel, channels read and written, \
             for the input gradient)"
        );
    }
}

/// `out: [B, OH, OW, O] = conv(x) + bias + residual`, where `conv(x)[b, y, x, o] =
/// Σ weight[o, i, dy, dx] · x[b, y·stride + dy − top, x·stride + dx − left, i]`.
///
/// # Panics
/// When a slice's length or the packed weight does not fit the shape.
pub fn forward(
    shape: &ConvShape,
    x: &[f32],
    weight: &PackedConv,
    out: &mut [f32],
    epilogue: &Epilogue,
) {
    weight.check(shape.kernel, shape.in_channels, shape.out_channels, false);
    assert_eq!(x.len(), shape.input_len(), "an input for {shape:?}");
    assert_eq!(out.len(), shape.output_len(), "an output for {shape:?}");
    let m = shape.batch * shape.out_height() * shape.out_width();
    if shape.is_pointwise() {
        return gemm::matmul_packed(m, x, &weight.matrix, out, epilogue);
    }
    epilogue.check(m, shape.out_channels);
    let _note = profile::note(|| {
        let ConvShape {
            batch,
            height,
            width,
            in_channels: i,
            out_channels: o,
            kernel,
            stride,
            ..
        } = *shape;
        let flops = 2.0 * (m * o) as f64 * (i * kernel * kernel) as f64;
        let name = format!("conv {kernel}×{kernel}/{stride} {batch}×{height}×{width} {i}→{o}");
        (name, weight.matrix.algorithm(), flops)
    });
    let k = weight.matrix.k();
    let patches = shape.patches(x);
    let product = Product {
        m,
        left_k: k,
        right_k: k,
        left: Left::Patches(&patches),
        right: weight.matrix.right(),
        panels: weight.matrix.panels(),
        segments: &[Segment {
            left: 0,
            right: 0,
            len: k,
        }],
        rows: OutRows::Contiguous,
        epilogue: *epilogue,
        accumulate: false,
    };
    product.run(weight.matrix.isa(), out);
}
