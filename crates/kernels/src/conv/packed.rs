//! A convolution's weight as its algorithm wants it.

use super::{Algorithm, ConvShape};
use crate::gemm::panels::{PackRow, PackSource};
use crate::gemm::{PackedMatrix, Precision};
use crate::memory::Memory;
use crate::winograd::{PackedWinograd, Source};

/// A convolution's weight, packed once for one [`Algorithm`].
#[derive(Clone, Debug)]
pub struct PackedConv {
    pub(super) form: Form,
    kernel: usize,
    /// Channels of the picture that is read: inputs, or outputs for the input gradient.
    channels: usize,
    for_input_gradient: bool,
    precision: Precision,
}

#[derive(Clone, Debug)]
pub(super) enum Form {
    /// `[kernel · kernel · channels, outputs]`.
    Direct(PackedMatrix),
    Winograd(PackedWinograd),
}

impl PackedConv {
    /// Packs `weight: [O, I, kh, kw]` for [`forward`](super::forward).
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

    /// A weight `[O, I, kh, kw]` for [`forward`](super::forward) from the parts of one that was packed for the same instruction set. `None`
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

    /// Packs `weight: [O, I, kh, kw]` for [`backward_input`](super::backward_input): channels exchanged, taps turned round.
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

    pub(super) fn algorithm(&self) -> String {
        match &self.form {
            Form::Direct(matrix) => matrix.algorithm(),
            Form::Winograd(packed) => packed.algorithm(),
        }
    }

    pub(super) fn check(&self, shape: &ConvShape, for_input_gradient: bool) {
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
