//! A packed weight taken apart, to be kept in a file, and put together again without packing.

use super::{Inner, Packed, Source, Weight};
use crate::{Memory, Precision, device};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use velatura_kernels::conv::{Algorithm, PackedConv, Tile};
use velatura_kernels::gemm::PackedMatrix;

/// How a packed weight lies. With the instruction set it says all about the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedForm {
    #[serde(with = "PrecisionName")]
    precision: Precision,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Layout {
    Matrix,
    /// Values beside their gates.
    GatedMatrix,
    Direct,
    WinogradF2,
    WinogradF4,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Precision", rename_all = "snake_case")]
enum PrecisionName {
    F32,
    Bf16,
    Int8,
}

/// What [`Weight::from_packed`] makes a packed weight from again.
#[derive(Clone, Copy, Debug)]
pub struct PackedParts<'a> {
    pub form: PackedForm,
    /// Any 32 bits, seen as numbers.
    pub numbers: &'a [f32],
    /// Of 8-bit weights, else empty.
    pub rescale: &'a [f32],
}

impl Weight {
    /// The parts of a weight that was packed for inference; none of any other.
    pub fn packed_parts(&self) -> Option<PackedParts<'_>> {
        let Source::Packed(packed) = &self.0.source else {
            return None;
        };
        let (layout, (numbers, rescale)) = match &**packed {
            Packed::Matrix(matrix) if matrix.is_gated() => (Layout::GatedMatrix, matrix.parts()),
            Packed::Matrix(matrix) => (Layout::Matrix, matrix.parts()),
            Packed::Conv(conv) => {
                let (algorithm, numbers, rescale) = conv.parts();
                let layout = match algorithm {
                    Algorithm::Direct => Layout::Direct,
                    Algorithm::Winograd(Tile::F2) => Layout::WinogradF2,
                    Algorithm::Winograd(Tile::F4) => Layout::WinogradF4,
                };
                (layout, (numbers, rescale))
            }
        };
        let precision = self.precision();
        Some(PackedParts {
            form: PackedForm { precision, layout },
            numbers,
            rescale,
        })
    }

    /// The weight of this shape from the parts of one that was packed for the same instruction set. `None` where the parts
    /// are not those of such a weight, and where this thread's operations are a card's.
    pub fn from_packed(
        shape: &[usize],
        form: PackedForm,
        numbers: Memory,
        rescale: Vec<f32>,
    ) -> Option<Weight> {
        let PackedForm { precision, layout } = form;
        if device::current().is_some() {
            return None;
        }
        let packed = match (layout, shape) {
            (Layout::Matrix | Layout::GatedMatrix, &[o, i] | &[o, i, 1, 1]) => {
                let gated = layout == Layout::GatedMatrix;
                Packed::Matrix(PackedMatrix::from_parts(
                    (i, o),
                    precision,
                    gated,
                    numbers,
                    rescale,
                )?)
            }
            (_, &[o, i, k, k2]) if k == k2 => {
                let algorithm = match layout {
                    Layout::Direct => Algorithm::Direct,
                    Layout::WinogradF2 => Algorithm::Winograd(Tile::F2),
                    Layout::WinogradF4 => Algorithm::Winograd(Tile::F4),
                    Layout::Matrix | Layout::GatedMatrix => return None,
                };
                let sizes = (o, i, k);
                Packed::Conv(PackedConv::from_parts(
                    sizes, precision, algorithm, numbers, rescale,
                )?)
            }
            _ => return None,
        };
        Some(Weight(Arc::new(Inner {
            shape: shape.to_vec(),
            source: Source::Packed(Arc::new(packed)),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::TorchGenerator;
    use crate::{ConvShape, Padding, Tensor};
    use velatura_kernels::isa::{self, Isa};

    const SIZE: usize = 16;

    fn random(len: usize) -> Vec<f32> {
        TorchGenerator::new(len as u64).randn(len)
    }

    fn conv(batch: usize, channels: usize, kernel: usize) -> ConvShape {
        ConvShape {
            batch,
            height: SIZE,
            width: SIZE,
            in_channels: channels,
            out_channels: channels,
            kernel,
            stride: 1,
            padding: Padding::uniform(kernel / 2),
        }
    }

    fn copied(numbers: &[f32]) -> Memory {
        let mut memory = Memory::zeroed(numbers.len());
        // Bit for bit, whatever number the bits would be.
        memory.copy_from_slice(numbers);
        memory
    }

    fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|x| x.to_bits()).collect()
    }

    /// Takes apart, through JSON, and puts together.
    fn again(weight: &Weight) -> Weight {
        let parts = weight.packed_parts().unwrap();
        let form = serde_json::to_string(&parts.form).unwrap();
        let form = serde_json::from_str(&form).unwrap();
        let make = |shape: &[usize], numbers| {
            Weight::from_packed(shape, form, numbers, parts.rescale.to_vec())
        };
        assert!(
            make(weight.shape(), copied(&parts.numbers[1..])).is_none(),
            "too few"
        );
        let wide = [weight.shape()[0] + 64, weight.shape()[1]];
        assert!(
            make(&wide, copied(parts.numbers)).is_none(),
            "of another shape"
        );
        let made = make(weight.shape(), copied(parts.numbers)).unwrap();
        let other = made.packed_parts().unwrap();
        assert_eq!(parts.form, other.form);
        assert_eq!(bits(parts.numbers), bits(other.numbers));
        assert_eq!(bits(parts.rescale), bits(other.rescale));
        made
    }

    #[test]
    fn a_weight_put_together_again_gives_the_same_products() {
        let mut layouts = Vec::new();
        for isa in Isa::available() {
            for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
                isa::with(isa, || {
                    let x = Tensor::from_vec(random(2 * SIZE * SIZE * 64), &[2, SIZE, SIZE, 64]);
                    let linear = Weight::packed(&random(128 * 64), [128, 64], precision);
                    let gated = Weight::packed_gated(&random(128 * 64), [128, 64], precision);
                    let convs = [(1, 1), (1, 3), (2, 3), (8, 3)].map(|(batch, kernel)| {
                        let values = random(64 * 64 * kernel * kernel);
                        // By the number of pictures the algorithm is chosen.
                        let shape = conv(batch, 64, kernel);
                        Weight::packed_conv(&values, &shape, precision, usize::MAX)
                    });
                    let few = random(32 * 32 * 9);
                    let few = Weight::packed_conv(&few, &conv(2, 32, 3), precision, usize::MAX);
                    let narrow = Tensor::from_vec(random(SIZE * SIZE * 32), &[1, SIZE, SIZE, 32]);
                    let products = |weights: &[Weight]| -> Vec<Tensor> {
                        let [linear, gated, pointwise, convs @ .., few] = weights else {
                            panic!("as many as there are")
                        };
                        let conv = |x: &Tensor, w: &Weight| {
                            x.conv2d(w, None, 1, Padding::uniform(w.shape()[2] / 2))
                        };
                        let mut all = vec![x.linear(linear, None), x.linear_geglu(gated, None)];
                        all.push(conv(&x, pointwise));
                        all.extend(convs.iter().map(|w| conv(&x, w)));
                        all.push(conv(&narrow, few));
                        all
                    };
                    let weights = [&[linear, gated][..], &convs, &[few]].concat();
                    let made: Vec<Weight> = weights.iter().map(again).collect();
                    for (a, b) in products(&weights).iter().zip(products(&made)) {
                        assert_eq!(bits(a.as_slice()), bits(b.as_slice()));
                    }
                    for weight in &weights {
                        layouts.push(weight.packed_parts().unwrap().form.layout);
                    }
                });
            }
        }
        for layout in [
            Layout::Matrix,
            Layout::GatedMatrix,
            Layout::Direct,
            Layout::WinogradF2,
            Layout::WinogradF4,
        ] {
            assert!(layouts.contains(&layout), "{layout:?} was not among them");
        }
    }
}
