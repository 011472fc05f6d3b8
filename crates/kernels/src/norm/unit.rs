//! Rows scaled to length 1, as the perceptual distance LPIPS compares features (Zhang et al. 2018, arXiv:1801.03924).

use crate::elementwise::row_block;
use crate::isa::{self, Kernel, Simd};
use crate::map::{for_each_piece, for_each_task};
use crate::shared::SharedMut;

/// `out[r] = x[r] / (‖x[r]‖ + eps)` for `x: [rows, cols]`.
///
/// # Panics
/// When a length does not fit.
pub fn unit_rows(cols: usize, eps: f32, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    for_each_block(cols, x, out, |x, _, out, isa| {
        isa.run(Forward { cols, eps, x, out });
    });
}

/// The gradient of [`unit_rows`]: `dx = dy / n − x · ⟨x, dy⟩ / (‖x‖ · n²)` with n = ‖x‖ + eps. A row of zeros, where
/// the length has no slope, gets the first term only.
///
/// # Panics
/// When a length does not fit.
pub fn unit_rows_backward(cols: usize, eps: f32, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!((x.len(), dy.len()), (dx.len(), dx.len()));
    for_each_block(cols, x, dx, |x, start, dx, isa| {
        isa.run(Backward {
            cols,
            eps,
            x,
            dy: &dy[start..][..x.len()],
            dx,
        });
    });
}

/// Calls `task(rows of x, where they begin, rows of out, instruction set)` for blocks of whole rows.
fn for_each_block(
    cols: usize,
    x: &[f32],
    out: &mut [f32],
    task: impl Fn(&[f32], usize, &mut [f32], isa::Isa) + Sync,
) {
    if x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(cols), "rows of {cols} numbers");
    let (isa, out) = (isa::active(), SharedMut::new(out));
    let block = row_block(cols) * cols;
    for_each_task(x.len(), x.len().div_ceil(block), |i| {
        let (start, len) = (i * block, block.min(x.len() - i * block));
        // SAFETY: each task has rows of its own.
        task(
            &x[start..][..len],
            start,
            unsafe { out.slice(start, len) },
            isa,
        );
    });
}

/// ⟨x, y⟩
#[inline(always)]
fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    let mut sum = simd.zero();
    for_each_piece(
        simd,
        x.len(),
        #[inline(always)]
        |at| sum = simd.mul_add(at.load(x), at.load(y), sum),
    );
    simd.reduce_add(sum)
}

struct Forward<'a> {
    cols: usize,
    eps: f32,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.x.chunks_exact(self.cols);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(self.cols)) {
            let factor = simd.splat(1.0 / (dot(simd, x, x).sqrt() + self.eps));
            for_each_piece(
                simd,
                self.cols,
                #[inline(always)]
                |at| at.store(out, simd.mul(at.load(x), factor)),
            );
        }
    }
}

struct Backward<'a> {
    cols: usize,
    eps: f32,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self
            .x
            .chunks_exact(self.cols)
            .zip(self.dy.chunks_exact(self.cols));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(self.cols)) {
            let length = dot(simd, x, x).sqrt();
            let factor = 1.0 / (length + self.eps);
            let along = if length > 0.0 {
                dot(simd, x, dy) * factor * factor / length
            } else {
                0.0
            };
            let (factor, along) = (simd.splat(factor), simd.splat(-along));
            for_each_piece(
                simd,
                self.cols,
                #[inline(always)]
                |at| {
                    let straight = simd.mul(at.load(dy), factor);
                    at.store(dx, simd.mul_add(at.load(x), along, straight));
                },
            );
        }
    }
}
