//! Element by element, and sums: arithmetic and activations.

use velatura_kernels::activation::Activation;

use crate::Memory;
use crate::device::PLACES;

/// Rows that one block of a sum over rows takes.
const CHUNK: usize = 256;

/// a·x + b·y
pub fn combine(a: f32, x: &Memory, b: f32, y: &Memory) -> Memory {
    assert_eq!(x.len(), y.len(), "combine");
    let out = x.gpu().allocate(x.len());
    let pointers = [x.all(), y.all(), out.all()];
    x.gpu()
        .fours("combine", [1, x.len()], &pointers, &[], &[a, b]);
    out
}

/// x in bf16, two numbers in each of the result's; their number is a multiple of eight.
pub fn round_bf16(x: &Memory) -> Memory {
    assert_eq!(x.len() % 8, 0, "round_bf16 of {} numbers", x.len());
    let out = x.gpu().allocate(x.len() / 2);
    let pointers = [x.all(), out.all()];
    x.gpu().each("round_bf16", x.len() / 8, &pointers, &[], &[]);
    out
}

/// x += y
pub fn accumulate(x: &mut Memory, y: &Memory) {
    assert_eq!(x.len(), y.len(), "accumulate");
    let pointers = [x.all(), y.all(), x.all()];
    x.gpu()
        .fours("combine", [1, x.len()], &pointers, &[], &[1.0, 1.0]);
}

/// a·x + b
pub fn scale(x: &Memory, a: f32, b: f32) -> Memory {
    let out = x.gpu().allocate(x.len());
    let pointers = [x.all(), out.all()];
    x.gpu()
        .fours("scale", [1, x.len()], &pointers, &[], &[a, b]);
    out
}

/// a·x·y
pub fn multiply(a: f32, x: &Memory, y: &Memory) -> Memory {
    assert_eq!(x.len(), y.len(), "multiply");
    let out = x.gpu().allocate(x.len());
    let pointers = [x.all(), y.all(), out.all()];
    x.gpu()
        .fours("multiply", [1, x.len()], &pointers, &[], &[a]);
    out
}

/// Sample b of x times `factors[b]`.
pub fn scale_samples(x: &Memory, factors: &[f32]) -> Memory {
    let gpu = x.gpu();
    let (out, uploaded) = (gpu.allocate(x.len()), gpu.upload(factors));
    let pointers = [x.all(), uploaded.all(), out.all()];
    let sample = x.len() / factors.len().max(1);
    let sizes = [factors.len(), sample];
    gpu.fours("scale_samples", sizes, &pointers, &[], &[]);
    out
}

/// x `[B, places, C]` + e `[B, C]`
pub fn add_channels(x: &Memory, e: &Memory, places: usize, channels: usize) -> Memory {
    let out = x.gpu().allocate(x.len());
    let pointers = [x.all(), e.all(), out.all()];
    let sizes = [e.len() / channels, places, channels, PLACES];
    x.gpu().tiles("add_channels", sizes, &pointers, &[]);
    out
}

/// The gradient of `e` in [`add_channels`]: `[B, C]`.
pub fn add_channels_gradient(dy: &Memory, batch: usize, places: usize, channels: usize) -> Memory {
    sum_places(dy, [batch, places, channels])
}

/// The sum over the rows of x `[rows, C]`.
pub fn sum_rows(x: &Memory, rows: usize, channels: usize) -> Memory {
    sum_places(x, [1, rows, channels])
}

/// The sum over the places of each sample of x `[samples, places, C]`.
fn sum_places(x: &Memory, [samples, places, channels]: [usize; 3]) -> Memory {
    match places.div_ceil(CHUNK) {
        0 => x.gpu().filled(samples * channels, 0.0),
        1 => sum_pieces(x, [samples, places, channels, CHUNK]),
        pieces => {
            let sums = sum_pieces(x, [samples, places, channels, CHUNK]);
            sum_places(&sums, [samples, pieces, channels])
        }
    }
}

/// The sums over each `chunk` places of x `[samples, places, C]`.
fn sum_pieces(x: &Memory, sizes: [usize; 4]) -> Memory {
    let [samples, places, channels, chunk] = sizes;
    let out = x
        .gpu()
        .allocate(samples * places.div_ceil(chunk) * channels);
    x.gpu().tiles("sum_rows", sizes, &[x.all(), out.all()], &[]);
    out
}

fn number(activation: Activation) -> usize {
    match activation {
        Activation::Silu => 0,
        Activation::Gelu => 1,
        Activation::QuickGelu => 2,
    }
}

/// The activation of every number.
pub fn activation(activation: Activation, x: &Memory) -> Memory {
    let out = x.gpu().allocate(x.len());
    let numbers = [number(activation)];
    x.gpu().fours(
        "activate",
        [1, x.len()],
        &[x.all(), out.all()],
        &numbers,
        &[],
    );
    out
}

/// Its gradient.
pub fn activation_backward(activation: Activation, x: &Memory, dy: &Memory) -> Memory {
    let dx = x.gpu().allocate(x.len());
    let pointers = [x.all(), dy.all(), dx.all()];
    x.gpu().fours(
        "activate_backward",
        [1, x.len()],
        &pointers,
        &[number(activation)],
        &[],
    );
    dx
}

/// value · gelu(gate) of `[rows, 2·columns]` = value | gate.
pub fn geglu(x: &Memory, columns: usize) -> Memory {
    let out = x.gpu().allocate(x.len() / 2);
    let sizes = [out.len() / columns, columns];
    x.gpu()
        .fours("geglu", sizes, &[x.all(), out.all()], &[], &[]);
    out
}

/// Its gradient.
pub fn geglu_backward(x: &Memory, dy: &Memory, columns: usize) -> Memory {
    let dx = x.gpu().allocate(x.len());
    let pointers = [x.all(), dy.all(), dx.all()];
    let sizes = [dy.len() / columns, columns];
    x.gpu().fours("geglu_backward", sizes, &pointers, &[], &[]);
    dx
}
