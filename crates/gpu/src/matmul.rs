//! Matrix products, linear layers.

use velatura_kernels::gemm::Precision;

use crate::device::PLACES;
use crate::{Gpu, Memory, Pointer};

/// C = alpha · A·B + beta · C, all in row-major order, for each of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Rows of C, columns of C, and what is summed over.
    pub sizes: [usize; 3],
    /// Whether A lies in memory as `[k, m]`, and B as `[n, k]`.
    pub transposed: [bool; 2],
    /// From one row in memory to the next, of A, B, C.
    pub widths: [usize; 3],
    pub batch: usize,
    /// From one of the batch to the next, of A, B, C.
    pub strides: [usize; 3],
    pub alpha: f32,
    pub beta: f32,
    /// Factors of 10 bits of mantissa (TF32) instead of 23.
    pub rounded: bool,
}

impl Product {
    /// One product of matrices without gaps.
    pub fn new([m, n, k]: [usize; 3], transposed: [bool; 2], precision: Precision) -> Product {
        Product {
            sizes: [m, n, k],
            transposed,
            widths: [
                if transposed[0] { m } else { k },
                if transposed[1] { k } else { n },
                n,
            ],
            batch: 1,
            strides: [0; 3],
            alpha: 1.0,
            beta: 0.0,
            rounded: precision != Precision::F32,
        }
    }

    /// Added to what is in C.
    pub fn onto(self) -> Product {
        Product { beta: 1.0, ..self }
    }
}

/// `[rows, I]` · Wᵀ + bias + residual, with W `[O, I]`.
pub fn linear(
    [rows, inputs, outputs]: [usize; 3],
    x: &Memory,
    weight: &Memory,
    bias: Option<&Memory>,
    residual: Option<&Memory>,
    precision: Precision,
) -> Memory {
    let gpu = x.gpu();
    let out = gpu.allocate(rows * outputs);
    let mut product = Product::new([rows, outputs, inputs], [false, true], precision);
    if bias.is_some() || residual.is_some() {
        begin(gpu, &out, outputs, bias, residual);
        product = product.onto();
    }
    gpu.multiply(&product, x.all(), weight.all(), out.all());
    out
}

/// Writes bias and residual into `out`, for a product to be added.
pub(crate) fn begin(
    gpu: &Gpu,
    out: &Memory,
    channels: usize,
    bias: Option<&Memory>,
    residual: Option<&Memory>,
) {
    let pointers = [Pointer::of(bias), Pointer::of(residual), out.all()];
    let sizes = [1, out.len() / channels, channels, PLACES];
    gpu.tiles("add_rows", sizes, &pointers, &[]);
}

/// The gradient of a linear layer's input, plus what is there `before`.
pub fn linear_input_gradient(
    [rows, inputs, outputs]: [usize; 3],
    dy: &Memory,
    weight: &Memory,
    before: Option<&Memory>,
    precision: Precision,
) -> Memory {
    let gpu = dy.gpu();
    let mut product = Product::new([rows, inputs, outputs], [false, false], precision);
    let dx = match before {
        Some(before) => {
            product = product.onto();
            before.duplicate()
        }
        None => gpu.allocate(rows * inputs),
    };
    gpu.multiply(&product, dy.all(), weight.all(), dx.all());
    dx
}

/// The gradient of a linear layer's weight `[O, I]`.
pub fn linear_weight_gradient(
    [rows, inputs, outputs]: [usize; 3],
    dy: &Memory,
    x: &Memory,
    precision: Precision,
) -> Memory {
    let gpu = dy.gpu();
    let dw = gpu.allocate(outputs * inputs);
    let product = Product::new([outputs, inputs, rows], [true, false], precision);
    gpu.multiply(&product, dy.all(), x.all(), dw.all());
    dw
}

/// C `[batch, m, n]` = A · B, each of A's matrices with its own of B's; `transposed` ones lie in memory as `[k, m]` and
/// `[n, k]`.
pub fn products(
    batch: usize,
    [m, n, k]: [usize; 3],
    transposed: [bool; 2],
    [a, b]: [&Memory; 2],
    precision: Precision,
) -> Memory {
    let gpu = a.gpu();
    let out = gpu.allocate(batch * m * n);
    let product = Product {
        batch,
        strides: [m * k, k * n, m * n],
        ..Product::new([m, n, k], transposed, precision)
    };
    gpu.multiply(&product, a.all(), b.all(), out.all());
    out
}
