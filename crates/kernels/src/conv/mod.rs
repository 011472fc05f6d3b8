//! Two-dimensional convolution (the cross-correlation that the field calls so), channels last, as an
//! implicit matrix product: the patches under the kernel are the left-hand matrix, gathered block by
//! block while they are multiplied.

mod algorithm;
mod backward;
pub(crate) mod patches;

pub use algorithm::{Algorithm, Tile};
pub use backward::{backward_input, backward_weight, backward_weight_by};

use crate::gemm::driver::{OutRows, Product, Segment};
use crate::gemm::operands::Left;
use crate::gemm::panels::{PackRow, PackSource};
use crate::gemm::{Epilogue, PackedMatrix, Precision};
use crate::memory::Memory;
use crate::profile;
use crate::winograd::{self, Geometry, PackedWinograd, Source};
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

    /// What Winograd's algorithm needs to know.
    fn geometry(&self) -> Geometry {
        Geometry {
            batch: self.batch,
            height: self.height,
            width: self.width,
            inputs: self.in_channels,
            out_height: self.out_height(),
            out_width: self.out_width(),
            outputs: self.out_channels,
            top: self.padding.top as isize,
            left: self.padding.left as isize,
        }
    }

    /// The convolution that makes the input's gradient from the output's.
    fn turned_geometry(&self) -> Geometry {
        let last = self.kernel as isize - 1;
        Geometry {
            batch: self.batch,
            height: self.out_height(),
            width: self.out_width(),
            inputs: self.out_channels,
            out_height: self.height,
            out_width: self.width,
            outputs: self.in_channels,
            top: last - self.padding.top as isize,
            left: last - self.padding.left as isize,
        }
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

/// A convolution's weight, packed once for one [`Algorithm`].
#[derive(Clone, Debug)]
pub struct PackedConv {
    form: Form,
    kernel: usize,
    /// Channels of the picture that is read: inputs, or outputs for the input gradient.
    channels: usize,
    for_input_gradient: bool,
    precision: Precision,
}

#[derive(Clone, Debug)]
enum Form {
    /// `[kernel · kernel · channels, outputs]`.
    Direct(PackedMatrix),
    Winograd(PackedWinograd),
}

impl PackedConv {
    /// Packs `weight: [O, I, kh, kw]` for [`forward`].
    ///
    /// # Panics
    /// When `weight` has another length, or the algorithm is none for such a kernel.
    pub fn new(
        weight: &[f32],
        (out_channels, in_channels, kernel): (usize, usize, usize),
        precision: Precision,
        algorithm: Algorithm,
    ) -> Self {
        let taps = kernel * kernel;
        let k = taps * in_channels;
        assert_eq!(weight.len(), out_channels * k, "a weight of [O, I, kh, kw]");
        let form = match algorithm {
            Algorithm::Direct => {
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
                Form::Direct(PackedMatrix::pack(out_channels, precision, &source))
            }
            Algorithm::Winograd(tile) => {
                assert_eq!(kernel, 3, "Winograd's algorithm is for kernels of 3×3");
                let source = Source {
                    weight,
                    outputs_by: k,
                    inputs_by: 9,
                    turned: false,
                };
                let channels = (out_channels, in_channels);
                Form::Winograd(PackedWinograd::pack(tile, channels, precision, source))
            }
        };
        PackedConv {
            form,
            kernel,
            channels: in_channels,
            for_input_gradient: false,
            precision,
        }
    }

    /// What [`PackedConv::from_parts`] makes it from again: how it was packed, the numbers, and of 8-bit ones the scales.
    pub fn parts(&self) -> (Algorithm, &[f32], &[f32]) {
        match &self.form {
            Form::Direct(matrix) => {
                let (numbers, rescale) = matrix.parts();
                (Algorithm::Direct, numbers, rescale)
            }
            Form::Winograd(packed) => (Algorithm::Winograd(packed.tile), packed.numbers(), &[]),
        }
    }

    /// A weight `[O, I, kh, kw]` for [`forward`] from the parts of one that was packed for the same instruction set. `None`
    /// where they have not the lengths that such a weight has.
    pub fn from_parts(
        (out_channels, in_channels, kernel): (usize, usize, usize),
        precision: Precision,
        algorithm: Algorithm,
        numbers: Memory,
        rescale: Vec<f32>,
    ) -> Option<Self> {
        let form = match algorithm {
            Algorithm::Direct => {
                let sizes = (kernel * kernel * in_channels, out_channels);
                Form::Direct(PackedMatrix::from_parts(
                    sizes, precision, false, numbers, rescale,
                )?)
            }
            Algorithm::Winograd(tile) if kernel == 3 && rescale.is_empty() => {
                let channels = (out_channels, in_channels);
                let packed = PackedWinograd::from_numbers(tile, channels, precision, numbers);
                Form::Winograd(packed?)
            }
            Algorithm::Winograd(_) => return None,
        };
        Some(PackedConv {
            form,
            kernel,
            channels: in_channels,
            for_input_gradient: false,
            precision,
        })
    }

    /// Packs `weight: [O, I, kh, kw]` for [`backward_input`]: channels exchanged, taps turned round.
    ///
    /// # Panics
    /// As [`PackedConv::new`].
    pub fn for_input_gradient(
        weight: &[f32],
        (out_channels, in_channels, kernel): (usize, usize, usize),
        precision: Precision,
        algorithm: Algorithm,
    ) -> Self {
        let taps = kernel * kernel;
        assert_eq!(
            weight.len(),
            out_channels * in_channels * taps,
            "a weight of [O, I, kh, kw]"
        );
        let form = match algorithm {
            Algorithm::Direct => {
                let channels = (out_channels, in_channels);
                Form::Direct(turned_matrix(weight, channels, taps, precision))
            }
            Algorithm::Winograd(tile) => {
                assert_eq!(kernel, 3, "Winograd's algorithm is for kernels of 3×3");
                let source = Source {
                    weight,
                    outputs_by: 9,
                    inputs_by: in_channels * 9,
                    turned: true,
                };
                let channels = (in_channels, out_channels);
                Form::Winograd(PackedWinograd::pack(tile, channels, precision, source))
            }
        };
        PackedConv {
            form,
            kernel,
            channels: out_channels,
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
        match &self.form {
            Form::Direct(matrix) => matrix.bytes(),
            Form::Winograd(packed) => packed.bytes(),
        }
    }

    fn outputs(&self) -> usize {
        match &self.form {
            Form::Direct(matrix) => matrix.n(),
            Form::Winograd(packed) => packed.panels.n,
        }
    }

    fn algorithm(&self) -> String {
        match &self.form {
            Form::Direct(matrix) => matrix.algorithm(),
            Form::Winograd(packed) => packed.algorithm(),
        }
    }

    fn check(&self, shape: &ConvShape, for_input_gradient: bool) {
        let (reads, writes) = match for_input_gradient {
            false => (shape.in_channels, shape.out_channels),
            true => (shape.out_channels, shape.in_channels),
        };
        assert_eq!(
            (
                self.kernel,
                self.channels,
                self.outputs(),
                self.for_input_gradient
            ),
            (shape.kernel, reads, writes, for_input_gradient),
            "the weight was packed for another convolution (kernel, channels read and written, \
             for the input gradient)"
        );
        let winograd = matches!(self.form, Form::Winograd(_));
        assert!(
            !winograd || shape.stride == 1,
            "a weight packed for stride 1, used with stride {}",
            shape.stride
        );
    }
}

/// The taps one by one from the last, their channels exchanged: `[taps · O, I]`.
fn turned_matrix(
    weight: &[f32],
    (out_channels, in_channels): (usize, usize),
    taps: usize,
    precision: Precision,
) -> PackedMatrix {
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
            let round = |&x: &f32| half::bf16::from_f32(x).to_f32();
            rounded = weight.iter().map(round).collect();
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
    PackedMatrix::pack(in_channels, format, &source)
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
    weight.check(shape, false);
    assert_eq!(x.len(), shape.input_len(), "an input for {shape:?}");
    assert_eq!(out.len(), shape.output_len(), "an output for {shape:?}");
    let m = shape.batch * shape.out_height() * shape.out_width();
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
        (name, weight.algorithm(), flops)
    });
    match &weight.form {
        Form::Direct(matrix) => direct(shape, x, matrix, out, epilogue),
        Form::Winograd(packed) => winograd::forward(&shape.geometry(), x, packed, out, epilogue),
    }
}

/// The product of the patches with the weight.
fn direct(
    shape: &ConvShape,
    x: &[f32],
    matrix: &PackedMatrix,
    out: &mut [f32],
    epilogue: &Epilogue,
) {
    let m = shape.batch * shape.out_height() * shape.out_width();
    let (k, patches) = (matrix.k(), shape.patches(x));
    let product = Product {
        m,
        left_k: k,
        right_k: k,
        left: match shape.is_pointwise() {
            true => Left::Rows(x),
            false => Left::Patches(&patches),
        },
        right: matrix.right(),
        panels: matrix.panels(),
        segments: &[Segment {
            left: 0,
            right: 0,
            len: k,
        }],
        rows: OutRows::Contiguous,
        epilogue: *epilogue,
        accumulate: false,
        gated: false,
    };
    product.run(matrix.isa(), out);
}
