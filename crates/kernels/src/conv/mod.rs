//! Two-dimensional convolution (the cross-correlation that the field calls so), channels last, as an
//! implicit matrix product: the patches under the kernel are the left-hand matrix, gathered block by
//! block while they are multiplied.

mod algorithm;
mod backward;
mod packed;
pub(crate) mod patches;
mod shape;

pub use algorithm::{Algorithm, Tile};
pub use backward::{backward_input, backward_weight, backward_weight_by};
pub use packed::PackedConv;
pub use shape::{ConvShape, Padding};

use crate::gemm::driver::{OutRows, Product, Segment};
use crate::gemm::operands::Left;
use crate::gemm::{Epilogue, PackedMatrix};
use crate::profile;
use crate::winograd;
use packed::Form;

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
