//! Convolution on the matrix units, without the views in memory; a linear layer is one that sees one place. Feature maps
//! come in bf16, as [`round_bf16`](crate::elementwise::round_bf16) makes them; sums and results are f32.

use velatura_kernels::conv::ConvShape;
use velatura_kernels::gemm::Precision;

use crate::conv::geometry;
use crate::device::THREADS;
use crate::elementwise::sum_rows;
use crate::layout::swap_axes;
use crate::{Gpu, Memory, Pointer};

/// Bytes of the stages of a product's tiles, as conv_product.cu counts them: four, each with 32 bf16 of 256 places and 64 outputs.
const STAGES: usize = 4 * (256 + 64) * 32 * 2;

/// Threads of a block that sums a weight's gradient; blocks that it is cut into at least, where there are places enough: some
/// for each of a large card's processors.
const GRADIENT_THREADS: usize = 128;
const BLOCKS: usize = 2048;

/// Places that a block sums over at least.
const FEWEST: usize = 512;

/// Whether [`forward`] takes a convolution.
pub fn takes(gpu: &Gpu, shape: &ConvShape, precision: Precision) -> bool {
    let (inputs, outputs) = (shape.in_channels, shape.out_channels);
    precision != Precision::F32
        && gpu.has_matrix_units()
        && inputs.is_multiple_of(8)
        && outputs.is_multiple_of(2)
}

/// Whether [`backward_input`] does.
pub fn takes_backward_input(gpu: &Gpu, shape: &ConvShape, precision: Precision) -> bool {
    shape.stride == 1 && takes(gpu, &turned(shape), precision)
}

/// Whether [`backward_weight`] does.
pub fn takes_backward_weight(gpu: &Gpu, shape: &ConvShape, precision: Precision) -> bool {
    takes(gpu, shape, precision) && shape.out_channels.is_multiple_of(8)
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

/// The weight `[O, I, k, k]` in bf16: `[O, k, k, I]`, or `[I, k, k, O]` with neighbours mirrored.
fn weight_bf16(shape: &ConvShape, weight: &Memory, mirrored: bool) -> Memory {
    let gpu = weight.gpu();
    let out = gpu.allocate(weight.len() / 2);
    let taps = shape.kernel * shape.kernel;
    let numbers = [
        shape.out_channels,
        shape.in_channels,
        taps,
        usize::from(mirrored),
    ];
    let pointers = [weight.all(), out.all()];
    gpu.each("conv_weight", out.len(), &pointers, &numbers, &[]);
    out
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
    let blocks = places.div_ceil(256) * outputs.div_ceil(64);
    let pointers = [
        x.all(),
        weight.all(),
        Pointer::of(bias),
        Pointer::of(residual),
        out.all(),
    ];
    let numbers = numbers(shape);
    let size = [blocks, THREADS, STAGES];
    gpu.launch_sharing("conv_product", size, &pointers, &numbers, &[]);
    out
}

/// x `[B, H, W, I]` in bf16 convolved with W `[O, I, k, k]`, plus bias and residual: `[B, H', W', O]`.
pub fn forward(
    shape: &ConvShape,
    x: &Memory,
    weight: &Memory,
    bias: Option<&Memory>,
    residual: Option<&Memory>,
) -> Memory {
    let weight = weight_bf16(shape, weight, false);
    product(shape, x, &weight, bias, residual)
}

/// The convolution that makes the gradient of x from dy, with the mirrored weight.
fn turned(shape: &ConvShape) -> ConvShape {
    // Its padding: what the forward pass did not see of the kernel at each end.
    let mut padding = shape.padding;
    padding.top = shape.kernel - 1 - padding.top;
    padding.left = shape.kernel - 1 - padding.left;
    padding.bottom = shape.height + shape.kernel - 1 - shape.out_height() - padding.top;
    padding.right = shape.width + shape.kernel - 1 - shape.out_width() - padding.left;
    ConvShape {
        height: shape.out_height(),
        width: shape.out_width(),
        in_channels: shape.out_channels,
        out_channels: shape.in_channels,
        padding,
        ..*shape
    }
}

/// The gradient of x, for a stride of 1, plus what is there `before`; dy in bf16.
pub fn backward_input(
    shape: &ConvShape,
    dy: &Memory,
    weight: &Memory,
    before: Option<&Memory>,
) -> Memory {
    let weight = weight_bf16(shape, weight, true);
    product(&turned(shape), dy, &weight, None, before)
}

/// The gradients of the weight `[O, I, k, k]` and the bias `[O]`; x and dy in bf16.
pub fn backward_weight(shape: &ConvShape, x: &Memory, dy: &Memory) -> [Memory; 2] {
    let gpu = x.gpu();
    let (taps, inputs, outputs) = (
        shape.kernel * shape.kernel,
        shape.in_channels,
        shape.out_channels,
    );
    let places = places(shape);
    let tiles = inputs.div_ceil(64) * outputs.div_ceil(64) * taps;
    let parts = BLOCKS.div_ceil(tiles).min(places / FEWEST).max(1);
    let share = places.div_ceil(parts).next_multiple_of(64);
    let parts = places.div_ceil(share).max(1);
    let all = [numbers(shape), vec![share]].concat();
    let [dw, db] = [outputs * taps * inputs, outputs].map(|len| gpu.allocate(parts * len));
    let pointers = [x, dy, &dw, &db].map(Memory::all);
    let size = [parts * tiles, GRADIENT_THREADS];
    gpu.launch("conv_weight_gradient", size, &pointers, &all, &[]);
    let dw = sum_rows(&dw, parts, outputs * taps * inputs);
    let dw = match taps {
        1 => dw,
        _ => swap_axes(&dw, taps, inputs),
    };
    [dw, sum_rows(&db, parts, outputs)]
}
