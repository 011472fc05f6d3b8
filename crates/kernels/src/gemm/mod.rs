//! Matrix products.
//!
//! The right-hand matrix is packed into panels of up to `TILE_VECTORS` vectors of columns, ahead of
//! time ([`PackedMatrix`]) or as it is needed; the left-hand one is read where it lies, a number at
//! a time. A micro-kernel (`tile.rs`) keeps six rows times one panel of sums in registers; the
//! driver cuts the product into pieces that the caches hold. The sum over `k` is cut into pieces of
//! fixed length, each summed on its own and then added, which also keeps rounding errors small.

pub(crate) mod driver;
pub(crate) mod operands;
pub(crate) mod packed;
mod pairs;
pub(crate) mod panels;
mod rounding;
mod store;
pub(crate) mod task;
pub(crate) mod tile;
pub(crate) mod weight_gradient;

pub use packed::PackedMatrix;
pub use rounding::int8_error;

use crate::elementwise::sum_rows_unnoted;
use crate::isa;
use crate::pool;
use crate::profile;
use crate::scratch;
use crate::tiles::{self, Places};
use driver::{OutRows, Product, Segment};
use operands::{Left, Right};
use panels::{PackRow, PackSource, Panels};
use weight_gradient::{Inputs, WeightGradient};

/// The number format of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16 weights. Where the CPU has a matrix unit or a bf16 dot product, activations are rounded
    /// to bf16 too on their way in; elsewhere they stay f32 and the weights are widened. Sums are f32
    /// always.
    Bf16,
    /// 8-bit integers: weights with a scale per output, activations with one per row, found as they come. Sums are
    /// 32-bit integers, exact. For linear layers.
    Int8,
}

impl Precision {
    /// What convolutions and attention are computed in beside linear layers of this precision.
    pub fn beside_linear(self) -> Precision {
        match self {
            Precision::Int8 if isa::has_fast_bf16() => Precision::Bf16,
            Precision::Int8 => Precision::F32,
            other => other,
        }
    }

    /// How `isa` computes products of these numbers, in words.
    pub fn algorithm(self, isa: isa::Isa) -> String {
        match self {
            Precision::F32 => format!("{isa} f32"),
            Precision::Bf16 if isa.has_tiles() => "amx bf16".into(),
            Precision::Bf16 if isa.has_bf16_dot() => format!("{isa} bf16 dot"),
            Precision::Bf16 => format!("{isa} bf16 weights"),
            Precision::Int8 => format!("{isa} int8"),
        }
    }
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row by row.
    Normal,
    /// Column by column: the transpose is stored row by row.
    Transposed,
}

/// What is added to a product before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One number per column: `[n]`.
    pub bias: Option<&'a [f32]>,
    /// One number per output: `[m, n]`.
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    pub(crate) fn check(&self, m: usize, n: usize) {
        assert!(
            self.bias.is_none_or(|x| x.len() == n),
            "a bias of shape [{n}]"
        );
        assert!(
            self.residual.is_none_or(|x| x.len() == m * n),
            "a residual of shape [{m}, {n}]"
        );
    }
}

/// `out[m, n] = a[m, k] · b[k, n] + bias + residual`.
///
/// # Panics
/// When a slice's length does not fit the shapes.
pub fn matmul_packed(m: usize, a: &[f32], b: &PackedMatrix, out: &mut [f32], epilogue: &Epilogue) {
    let (k, n) = (b.k(), b.n());
    assert_eq!(a.len(), m * k, "a left-hand matrix of shape [{m}, {k}]");
    assert_eq!(out.len(), m * n, "an output of shape [{m}, {n}]");
    assert!(!b.is_gated(), "a matrix packed for `matmul_geglu`");
    epilogue.check(m, n);
    let _note = profile::note(|| {
        let flops = 2.0 * (m * n) as f64 * k as f64;
        (format!("linear {m}×{k}×{n}"), b.algorithm(), flops)
    });
    packed_product(m, a, b, out, epilogue);
}

/// `out[m, n] = value · gelu(gate)` with `[value | gate] = a[m, k] · b[k, 2n] + bias`, of which only the result is
/// stored (Shazeer 2020, arXiv:2002.05202). `bias` is in the order of [`PackedMatrix::gated`].
///
/// # Panics
/// When a slice's length does not fit the shapes, or `b` was not packed for it.
pub fn matmul_geglu(m: usize, a: &[f32], b: &PackedMatrix, bias: Option<&[f32]>, out: &mut [f32]) {
    let (k, n) = (b.k(), b.n());
    assert!(b.is_gated(), "values and gates side by side in the panels");
    assert_eq!(a.len(), m * k, "a left-hand matrix of shape [{m}, {k}]");
    assert_eq!(out.len(), m * n / 2, "an output of shape [{m}, {}]", n / 2);
    let epilogue = Epilogue {
        bias,
        residual: None,
    };
    epilogue.check(m, n);
    let _note = profile::note(|| {
        let flops = 2.0 * (m * n) as f64 * k as f64;
        (format!("linear+geglu {m}×{k}×{n}"), b.algorithm(), flops)
    });
    packed_product(m, a, b, out, &epilogue);
}

/// The product with a packed matrix, the lengths having been checked.
fn packed_product(m: usize, a: &[f32], b: &PackedMatrix, out: &mut [f32], epilogue: &Epilogue) {
    let k = b.k();
    let product = Product {
        m,
        left_k: k,
        right_k: k,
        left: Left::Rows(a),
        right: b.right(),
        panels: b.panels(),
        segments: &[Segment {
            left: 0,
            right: 0,
            len: k,
        }],
        rows: OutRows::Contiguous,
        epilogue: *epilogue,
        accumulate: false,
        gated: b.is_gated(),
    };
    product.run(b.isa(), out);
}

/// `out[m, n] = op(a)[m, k] · op(b)[k, n]` in f32, added to `out` when `accumulate`.
///
/// A transposed `a` is stored as `[k, m]`, a transposed `b` as `[n, k]`.
///
/// # Panics
/// When a slice's length does not fit the shapes.
#[allow(clippy::too_many_arguments)]
pub fn matmul(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    out: &mut [f32],
    accumulate: bool,
) {
    assert_eq!(a.len(), m * k, "a left-hand matrix of {m} × {k}");
    assert_eq!(b.len(), k * n, "a right-hand matrix of {k} × {n}");
    assert_eq!(out.len(), m * n, "an output of shape [{m}, {n}]");
    let isa = isa::active();
    let panels = packed::panels(isa, n, Precision::F32);
    let left = match a_layout {
        Layout::Normal => Left::Rows(a),
        Layout::Transposed => Left::Columns(a),
    };
    let right = match b_layout {
        Layout::Normal => Right::Rows(b),
        Layout::Transposed => Right::Columns(b),
    };
    // Many blocks of rows would each pack the whole right-hand matrix again: then it is packed
    // ahead. With few rows and a long sum it may be far larger than the caches, and is packed in
    // pieces where they are used.
    if m > 256 && m >= k / 4 {
        scratch::with(k * panels.padded(), |packed| {
            match b_layout {
                Layout::Normal => {
                    let visit = |i| PackRow {
                        row: i,
                        offset: i * n,
                    };
                    let from = PackSource {
                        source: b,
                        stride: 1,
                        k,
                        visit,
                    };
                    panels::pack_f32(&panels, &from, packed);
                }
                Layout::Transposed => {
                    let visit = |i| PackRow { row: i, offset: i };
                    let from = PackSource {
                        source: b,
                        stride: k,
                        k,
                        visit,
                    };
                    panels::pack_f32(&panels, &from, packed);
                }
            }
            multiply(
                isa,
                m,
                k,
                left,
                Right::PackedF32(packed),
                panels,
                out,
                accumulate,
            );
        });
    } else {
        multiply(isa, m, k, left, right, panels, out, accumulate);
    }
}

/// The gradient `dw: [o, i]` of a linear layer's weight, `dy: [m, o]` transposed times `x: [m, i]`, and `db: [o]` of its
/// bias, the sums of `dy` over all rows. With [`Precision::Bf16`] the factors of the products are rounded to bf16 where
/// the CPU has a matrix unit or a dot product.
///
/// # Panics
/// When a slice's length does not fit the shapes.
pub fn weight_gradient(
    (m, o, i): (usize, usize, usize),
    dy: &[f32],
    x: &[f32],
    dw: &mut [f32],
    db: Option<&mut [f32]>,
    precision: Precision,
) {
    assert_eq!(dy.len(), m * o, "an output gradient of shape [{m}, {o}]");
    assert_eq!(x.len(), m * i, "an input of shape [{m}, {i}]");
    assert_eq!(dw.len(), o * i, "a weight gradient of shape [{o}, {i}]");
    let isa = isa::active();
    if precision == Precision::Bf16 && isa.has_bf16_dot() {
        let work = WeightGradient {
            rows: m,
            outputs: o,
            columns: i,
            dy,
            x: Inputs::Rows(x),
        };
        return work.run(isa, dw, db);
    }
    if precision == Precision::Bf16 && isa.has_tiles() {
        tiles::weight_gradient(&Places::rows(x, m, i), o, dy, dw);
    } else {
        let (t, n) = (Layout::Transposed, Layout::Normal);
        matmul(o, i, m, dy, t, x, n, dw, false);
    }
    if let Some(db) = db {
        sum_rows_unnoted(m, o, dy, db);
    }
}

/// Sums of at least this many terms may be cut into slabs.
const SLAB: usize = 1024;

/// Tasks that a product with a long sum is cut into.
const SLAB_TASKS: usize = 16;

/// `out = left · right` without an epilogue, cutting a long sum with few outputs into slabs.
///
/// The cut depends on the shape alone and the slabs are added in order, so that results depend
/// neither on timing nor on the number of threads.
#[allow(clippy::too_many_arguments)]
pub(crate) fn multiply(
    isa: isa::Isa,
    m: usize,
    k: usize,
    left: Left,
    right: Right,
    panels: Panels,
    out: &mut [f32],
    accumulate: bool,
) {
    let n = panels.n;
    let product = |segments: &[Segment], out: &mut [f32], accumulate| {
        let product = Product {
            m,
            left_k: k,
            right_k: k,
            left,
            right,
            panels,
            segments,
            rows: OutRows::Contiguous,
            epilogue: Epilogue::default(),
            accumulate,
            gated: false,
        };
        product.run(isa, out);
    };
    let tasks = m.div_ceil(128) * panels.count;
    let slabs = SLAB_TASKS.div_ceil(tasks.max(1)).min(k / SLAB).max(1);
    if slabs == 1 || m * n == 0 {
        return product(
            &[Segment {
                left: 0,
                right: 0,
                len: k,
            }],
            out,
            accumulate,
        );
    }
    scratch::with(slabs * m * n, |partial| {
        pool::parallel_chunks_mut(partial, m * n, |slab, partial| {
            let start = slab * k / slabs;
            let len = (slab + 1) * k / slabs - start;
            product(
                &[Segment {
                    left: start,
                    right: start,
                    len,
                }],
                partial,
                false,
            );
        });
        pool::parallel_chunks_mut(out, 1 << 14, |chunk, out| {
            let start = chunk << 14;
            if !accumulate {
                out.fill(0.0);
            }
            for partial in partial.chunks_exact(m * n) {
                for (y, &x) in out.iter_mut().zip(&partial[start..]) {
                    *y += x;
                }
            }
        });
    });
}
