//! Activation functions, forward and backward.

use crate::isa::{self, Kernel, Simd};
use crate::map::{BLOCK, Map, for_each_piece, map};
use crate::math;
use crate::pool::parallel_for;
use crate::profile;
use crate::shared::SharedMut;

/// A function applied to every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// x · Φ(x), with the exact normal distribution (not its tanh approximation).
    Gelu,
    /// x · sigmoid(1.702·x), CLIP's approximation of GELU.
    QuickGelu,
}

const QUICK: f32 = 1.702;

/// `out = act(x)`
///
/// # Panics
/// When the lengths differ.
pub fn forward(act: Activation, x: &[f32], out: &mut [f32]) {
    let _note = profile::note(|| {
        (
            format!("{act:?} {}", x.len()),
            isa::active().to_string(),
            0.0,
        )
    });
    match act {
        Activation::Silu => map(Silu, [x], out),
        Activation::Gelu => map(Gelu, [x], out),
        Activation::QuickGelu => map(QuickGelu, [x], out),
    }
}

/// `dx = dy · act'(x)`
///
/// # Panics
/// When the lengths differ.
pub fn backward(act: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let _note = profile::note(|| {
        (
            format!("{act:?} gradient {}", x.len()),
            isa::active().to_string(),
            0.0,
        )
    });
    match act {
        Activation::Silu => map(SiluBackward(1.0), [x, dy], dx),
        Activation::Gelu => map(GeluBackward, [x, dy], dx),
        Activation::QuickGelu => map(SiluBackward(QUICK), [x, dy], dx),
    }
}

/// `out = x` where x is positive, else `slope · x` (Maas et al. 2013); with slope 0 the rectifier, ReLU.
///
/// # Panics
/// When the lengths differ.
pub fn leaky_relu(slope: f32, x: &[f32], out: &mut [f32]) {
    map(LeakyRelu(slope), [x], out);
}

/// The gradient of [`leaky_relu`]: `dx = dy` where x is positive, else `slope · dy`.
///
/// # Panics
/// When the lengths differ.
pub fn leaky_relu_backward(slope: f32, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    map(LeakyReluBackward(slope), [x, dy], dx);
}

#[derive(Clone, Copy)]
struct LeakyRelu(f32);
impl Map<1> for LeakyRelu {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [x]: [S::Vector; 1]) -> S::Vector {
        // A NaN is not less, and stays.
        simd.select_less(x, simd.zero(), simd.mul(x, simd.splat(self.0)), x)
    }
}

#[derive(Clone, Copy)]
struct LeakyReluBackward(f32);
impl Map<2> for LeakyReluBackward {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [x, dy]: [S::Vector; 2]) -> S::Vector {
        let below = simd.mul(dy, simd.splat(self.0));
        simd.select_less(simd.zero(), x, dy, below)
    }
}

#[derive(Clone, Copy)]
struct Silu;
impl Map<1> for Silu {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [x]: [S::Vector; 1]) -> S::Vector {
        math::silu(simd, x)
    }
}

#[derive(Clone, Copy)]
struct QuickGelu;
impl Map<1> for QuickGelu {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [x]: [S::Vector; 1]) -> S::Vector {
        simd.mul(x, math::sigmoid(simd, simd.mul(x, simd.splat(QUICK))))
    }
}

#[derive(Clone, Copy)]
struct Gelu;
impl Map<1> for Gelu {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [x]: [S::Vector; 1]) -> S::Vector {
        math::gelu(simd, x)
    }
}

/// Of x · sigmoid(k·x).
#[derive(Clone, Copy)]
struct SiluBackward(f32);
impl Map<2> for SiluBackward {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [x, dy]: [S::Vector; 2]) -> S::Vector {
        simd.mul(dy, math::silu_derivative(simd, x, self.0))
    }
}

#[derive(Clone, Copy)]
struct GeluBackward;
impl Map<2> for GeluBackward {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [x, dy]: [S::Vector; 2]) -> S::Vector {
        simd.mul(dy, math::gelu_with_derivative(simd, x).1)
    }
}

/// The gated GELU of Shazeer, "GLU Variants Improve Transformer" (2020), as diffusers' feed-forward
/// layers have it: `x: [rows, 2·cols]` holds values, then gates;
/// `out[r, c] = x[r, c] · gelu(x[r, cols + c])`.
///
/// # Panics
/// When a length does not fit.
pub fn geglu(rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    assert_eq!((x.len(), out.len()), (2 * rows * cols, rows * cols));
    let _note = profile::note(|| {
        (
            format!("geglu {rows}×{cols}"),
            isa::active().to_string(),
            0.0,
        )
    });
    let (isa, out) = (isa::active(), SharedMut::new(out));
    by_rows(rows, cols, |start, count| {
        isa.run(Geglu {
            cols,
            x: &x[start * 2 * cols..][..count * 2 * cols],
            // SAFETY: each task has rows of its own.
            out: unsafe { out.slice(start * cols, count * cols) },
        });
    });
}

/// The gradient of [`geglu`]: `dx: [rows, 2·cols]` from `dy: [rows, cols]`.
///
/// # Panics
/// When a length does not fit.
pub fn geglu_backward(rows: usize, cols: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!((x.len(), dy.len()), (2 * rows * cols, rows * cols));
    assert_eq!(dx.len(), x.len());
    let _note = profile::note(|| {
        (
            format!("geglu gradient {rows}×{cols}"),
            isa::active().to_string(),
            0.0,
        )
    });
    let (isa, dx) = (isa::active(), SharedMut::new(dx));
    by_rows(rows, cols, |start, count| {
        isa.run(GegluBackward {
            cols,
            x: &x[start * 2 * cols..][..count * 2 * cols],
            dy: &dy[start * cols..][..count * cols],
            // SAFETY: each task has rows of its own.
            dx: unsafe { dx.slice(start * 2 * cols, count * 2 * cols) },
        });
    });
}

/// Calls `task(first row, rows)` for blocks of rows, in parallel.
fn by_rows(rows: usize, cols: usize, task: impl Fn(usize, usize) + Sync) {
    if cols == 0 {
        return;
    }
    let block = (BLOCK / cols).max(1);
    parallel_for(rows.div_ceil(block), |i| {
        task(i * block, block.min(rows - i * block));
    });
}

struct Geglu<'a> {
    cols: usize,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Geglu<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self
            .x
            .chunks_exact(2 * self.cols)
            .zip(self.out.chunks_exact_mut(self.cols));
        for (x, out) in rows {
            let (value, gate) = x.split_at(self.cols);
            for_each_piece(
                simd,
                self.cols,
                #[inline(always)]
                |at| {
                    at.store(
                        out,
                        simd.mul(at.load(value), math::gelu(simd, at.load(gate))),
                    )
                },
            );
        }
    }
}

struct GegluBackward<'a> {
    cols: usize,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for GegluBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self
            .x
            .chunks_exact(2 * self.cols)
            .zip(self.dy.chunks_exact(self.cols));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(2 * self.cols)) {
            let (value, gate) = x.split_at(self.cols);
            let (dvalue, dgate) = dx.split_at_mut(self.cols);
            for_each_piece(
                simd,
                self.cols,
                #[inline(always)]
                |at| {
                    let dy = at.load(dy);
                    let (y, slope) = math::gelu_with_derivative(simd, at.load(gate));
                    at.store(dvalue, simd.mul(dy, y));
                    at.store(dgate, simd.mul(simd.mul(dy, at.load(value)), slope));
                },
            );
        }
    }
}
