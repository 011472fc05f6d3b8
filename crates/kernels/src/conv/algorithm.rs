//! Which algorithm a convolution gets.

use super::ConvShape;
use crate::gemm::Precision;
use crate::isa;
pub use crate::winograd::Tile;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// As one matrix product of the patches under the kernel.
    Direct,
    /// In transformed tiles; for 3×3 kernels and stride 1.
    Winograd(Tile),
}

/// Channels on either side below which the transforms weigh more than the products. An estimate: at 128 tiles still
/// gain 2.5 times in f32, at fewer nothing has been measured.
const FEW_CHANNELS: usize = 64;

/// Output pixels (of all pictures) below which the larger weight of `F(4×4)`, read once per call, takes
/// longer than its fewer products save. In bf16 too it is taken wherever it is faster, because its tiles are rounded so
/// that their errors cancel: Stable Diffusion 1.5's UNet is then as near to f32 (1.2 %) as PyTorch's bf16.
const SMALL_F4: usize = 512;

/// The same beside linear layers of 8-bit integers, which are chosen for their memory. Between the two, at 16×16 in Stable
/// Diffusion 1.5, `F(4×4)` saves 2 % of a step and takes 0.85 GB.
const SMALL_F4_INT8: usize = 2048;

/// The same of `F(2×2)`.
const SMALL_F2: usize = 64;

/// Pixels in training below which the more numerous places of `F(4×4)` cost more in bf16 than its fewer products save.
const FEW_TILES: usize = 2048;

impl Algorithm {
    /// The fastest known for `shape`, with the instruction set that is [active](isa::active): on a matrix
    /// unit the plain product, else what the number of pixels and channels allows.
    pub fn choose(shape: &ConvShape, precision: Precision) -> Algorithm {
        let small_f4 = match precision {
            Precision::Int8 => SMALL_F4_INT8,
            Precision::Bf16 | Precision::F32 => SMALL_F4,
        };
        let precision = precision.beside_linear();
        let pixels = shape.batch * shape.out_height() * shape.out_width();
        let few = shape.in_channels.min(shape.out_channels) < FEW_CHANNELS;
        let isa = isa::active();
        if shape.kernel != 3 || shape.stride != 1 || few || pixels < SMALL_F2 {
            return Algorithm::Direct;
        }
        match precision {
            // The matrix unit, or weights that are to be small.
            Precision::Bf16 if !isa.has_bf16_dot() => Algorithm::Direct,
            Precision::Int8 => Algorithm::Direct,
            _ if pixels < small_f4 => Algorithm::Winograd(Tile::F2),
            _ => Algorithm::Winograd(Tile::F4),
        }
    }

    /// The same for weights that change: they are packed again after each step, and twice, for the forward pass
    /// and for the gradient. Large ones, which come with small pictures and would take most of the memory, are
    /// not transformed, and products of bf16 are not made rougher.
    pub fn choose_in_training(shape: &ConvShape, precision: Precision) -> Algorithm {
        const LARGE: usize = 512 * 640;
        if shape.in_channels * shape.out_channels > LARGE {
            return Algorithm::Direct;
        }
        match Algorithm::choose(shape, precision) {
            Algorithm::Winograd(Tile::F4) if precision == Precision::Bf16 => {
                Algorithm::Winograd(Tile::F2)
            }
            algorithm => algorithm,
        }
    }

    /// The same for the input's gradient. `F(4×4)` in bf16 too, where it is faster: a gradient's errors are not magnified on
    /// their way, as those of the forward pass are. With it the error of all gradients together grows from 0.8 to 1.0 % in
    /// the UNet of `velatura bench --train` and from 2.0 to 2.2 % in its autoencoder, where PyTorch's autocast has 1.7 and
    /// 2.9 %; in the forward pass it would make 1.3 and 3.5 % of them.
    pub fn choose_for_input_gradient(shape: &ConvShape, precision: Precision) -> Algorithm {
        let pixels = shape.batch * shape.height * shape.width;
        match Algorithm::choose_in_training(shape, precision) {
            Algorithm::Winograd(Tile::F2)
                if precision == Precision::Bf16 && pixels >= FEW_TILES =>
            {
                Algorithm::Winograd(Tile::F4)
            }
            algorithm => algorithm,
        }
    }

    /// The same for the weight's gradient, whose errors go no further: `F(4×4)` in bf16 too. For each weight a place of
    /// the transform costs a sum in memory, 0.8 ns, beside 4.3 ps for each tile's product: with few tiles `F(2×2)`, which
    /// has fewer places, is faster. Sums that take most of the memory are not made.
    pub fn choose_for_weight_gradient(shape: &ConvShape, precision: Precision) -> Algorithm {
        const SUMS: usize = 36 * 768 * 768;
        let isa = isa::active();
        let tiles_unit = precision == Precision::Bf16 && isa.has_tiles();
        let sums = 36 * shape.in_channels * shape.out_channels;
        if tiles_unit || sums > SUMS {
            return Algorithm::Direct;
        }
        let pixels = shape.batch * shape.out_height() * shape.out_width();
        match Algorithm::choose(shape, Precision::F32) {
            Algorithm::Winograd(_) if precision == Precision::Bf16 && pixels < FEW_TILES => {
                Algorithm::Winograd(Tile::F2)
            }
            algorithm => algorithm,
        }
    }
}
