//! Convolution on the matrix units, in bf16 with f32 sums, without the views in memory.

use velatura_kernels::conv::ConvShape;
use velatura_kernels::gemm::Precision;

use crate::conv::{by_places, geometry};
use crate::device::THREADS;
use crate::elementwise::sum_rows;
use crate::layout::swap_axes;
use crate::{Gpu, Memory, Pointer};

/// Blocks that a weight's gradient is cut into at least, where there are places enough: a few for each of a large card's
/// processors.
const BLOCKS: usize = 1024;

/// Places that a block sums over at least.
const FEWEST: usize = 512;

/// Whether the kernels here can take a convolution from and to so many channels.
pub fn takes(gpu: &Gpu, channels: &[usize], precision: Precision) -> bool {
    precision != Precision::F32 && gpu.has_matrix_units() && channels.iter().all(|c| c % 4 == 0)
}

/// Output places of all samples.
fn places(shape: &ConvShape) -> usize {
    shape.batch * shape.out_height() * shape.out_width()
}

/// The kernels' numbers.
fn numbers(shape: &ConvShape) -> Vec<usize> {
    [
        &[places(shape)],
        &geometry(shape)[..],
        &[shape.out_channels],
    ]
    .concat()
}

/// x convolved with a weight `[O, k, k, I]`, plus bias and residual.
fn product(
    shape: &ConvShape,
    x: &Memory,
    weight: &Memory,
    bias: Option<&Memory>,
    residual: Option<&Memory>,
) -> Memory {
    let gpu = x.gpu();
    let (places, outputs) = (places(shape), shape.out_channels);
    let out = gpu.allocate(places * outputs);
    let blocks = places.div_ceil(128) * outputs.div_ceil(64);
    let pointers = [
        x.all(),
        weight.all(),
        Pointer::of(bias),
        Pointer::of(residual),
        out.all(),
    ];
    gpu.launch(
        "conv_product",
        [blocks, THREADS],
        &pointers,
        &numbers(shape),
        &[],
    );
    out
}

/// x `[B, H, W, I]` convolved with W `[O, I, k, k]`, plus bias and residual: `[B, H', W', O]`.
pub fn forward(
    shape: &ConvShape,
    x: &Memory,
    weight: &Memory,
    bias: Option<&Memory>,
    residual: Option<&Memory>,
) -> Memory {
    product(shape, x, &by_places(weight, shape), bias, residual)
}

/// The gradient of x, for a stride of 1: dy convolved with the mirrored weight.
pub fn backward_input(shape: &ConvShape, dy: &Memory, weight: &Memory) -> Memory {
    let gpu = dy.gpu();
    let mirrored = gpu.allocate(weight.len());
    let sizes = [
        shape.out_channels,
        shape.in_channels,
        shape.kernel * shape.kernel,
    ];
    let pointers = [weight.all(), mirrored.all()];
    gpu.each("mirrored_weight", weight.len(), &pointers, &sizes, &[]);
    // Its padding: what the forward pass did not see of the kernel at each end.
    let mut padding = shape.padding;
    padding.top = shape.kernel - 1 - padding.top;
    padding.left = shape.kernel - 1 - padding.left;
    padding.bottom = shape.height + shape.kernel - 1 - shape.out_height() - padding.top;
    padding.right = shape.width + shape.kernel - 1 - shape.out_width() - padding.left;
    let back = ConvShape {
        height: shape.out_height(),
        width: shape.out_width(),
        in_channels: shape.out_channels,
        out_channels: shape.in_channels,
        padding,
        ..*shape
    };
    product(&back, dy, &mirrored, None, None)
}

/// The gradient of the weight `[O, I, k, k]`.
pub fn backward_weight(shape: &ConvShape, x: &Memory, dy: &Memory) -> Memory {
    let gpu = x.gpu();
    let (taps, inputs, outputs) = (
        shape.kernel * shape.kernel,
        shape.in_channels,
        shape.out_channels,
    );
    let places = places(shape);
    let tiles = inputs.div_ceil(64) * outputs.div_ceil(64) * taps;
    let parts = BLOCKS.div_ceil(tiles).min(places / FEWEST).max(1);
    let share = places.div_ceil(parts).next_multiple_of(32);
    let parts = places.div_ceil(share).max(1);
    let all = [numbers(shape), vec![share]].concat();
    let sums = gpu.allocate(parts * outputs * taps * inputs);
    let pointers = [x.all(), dy.all(), sums.all()];
    gpu.launch(
        "conv_weight_gradient",
        [parts * tiles, THREADS],
        &pointers,
        &all,
        &[],
    );
    let dw = sum_rows(&sums, parts, outputs * taps * inputs);
    swap_axes(&dw, taps, inputs)
}
