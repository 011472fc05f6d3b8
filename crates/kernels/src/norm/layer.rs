//! Layer normalisation (Ba, Kiros & Hinton, "Layer Normalization", 2016).

use crate::elementwise::{combine, row_block};
use crate::isa::{self, Kernel, Simd};
use crate::map::{for_each_piece, for_each_task};
use crate::profile;
use crate::shared::SharedMut;

/// `out = (x − mean) · rstd · gamma + beta` with the moments of each row: rstd = 1/√(variance + eps).
/// `x, out: [rows, cols]`, `gamma, beta: [cols]`, `stats: [rows, 2]` receives mean and rstd.
///
/// # Panics
/// When a length does not fit.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm(
    rows: usize,
    cols: usize,
    eps: f32,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    out: &mut [f32],
    stats: &mut [f32],
) {
    assert_eq!((x.len(), out.len()), (rows * cols, rows * cols));
    assert_eq!(
        (gamma.len(), beta.len(), stats.len()),
        (cols, cols, 2 * rows)
    );
    if x.is_empty() {
        return;
    }
    let _note = profile::note(|| {
        (
            format!("layer norm {rows}×{cols}"),
            isa::active().to_string(),
            0.0,
        )
    });
    let block = row_block(cols);
    let isa = isa::active();
    let (out, stats) = (SharedMut::new(out), SharedMut::new(stats));
    for_each_task(x.len(), rows.div_ceil(block), |i| {
        let (first, count) = (i * block, block.min(rows - i * block));
        // SAFETY: each task has rows of its own.
        let (out, stats) = unsafe {
            (
                out.slice(first * cols, count * cols),
                stats.slice(2 * first, 2 * count),
            )
        };
        isa.run(Forward {
            eps,
            x: &x[first * cols..][..count * cols],
            gamma,
            beta,
            out,
            stats,
        });
    });
}

struct Forward<'a> {
    eps: f32,
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    out: &'a mut [f32],
    stats: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let cols = self.gamma.len();
        let n = cols as f32;
        let rows = self
            .x
            .chunks_exact(cols)
            .zip(self.out.chunks_exact_mut(cols));
        for ((x, out), stats) in rows.zip(self.stats.chunks_exact_mut(2)) {
            let mut total = simd.zero();
            for_each_piece(
                simd,
                cols,
                #[inline(always)]
                |at| total = simd.add(total, at.load(x)),
            );
            // Deviations from the rounded mean; their own sum corrects both moments.
            let center = simd.reduce_add(total) / n;
            let (mut sum, mut squares) = (simd.zero(), simd.zero());
            for_each_piece(
                simd,
                cols,
                #[inline(always)]
                |at| {
                    let d = at.deviation(x, center);
                    sum = simd.add(sum, d);
                    squares = simd.mul_add(d, d, squares);
                },
            );
            let shift = simd.reduce_add(sum) / n;
            let variance = (simd.reduce_add(squares) / n - shift * shift).max(0.0);
            let (mean, rstd) = (center + shift, 1.0 / (variance + self.eps).sqrt());
            (stats[0], stats[1]) = (mean, rstd);
            let (mean, rstd) = (simd.splat(mean), simd.splat(rstd));
            for_each_piece(
                simd,
                cols,
                #[inline(always)]
                |at| {
                    let h = simd.mul(simd.sub(at.load(x), mean), rstd);
                    at.store(
                        out,
                        simd.mul_add(h, at.load(self.gamma), at.load(self.beta)),
                    );
                },
            );
        }
    }
}

/// The gradients of [`layer_norm`] for `x`, `gamma` and `beta`, from its input and `stats`. That for `x` is added to `onto`,
/// if given.
///
/// # Panics
/// When a length does not fit.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward(
    rows: usize,
    cols: usize,
    x: &[f32],
    gamma: &[f32],
    stats: &[f32],
    dy: &[f32],
    onto: Option<&[f32]>,
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let len = rows * cols;
    assert_eq!((x.len(), dy.len(), dx.len()), (len, len, len));
    assert!(onto.is_none_or(|onto| onto.len() == len));
    assert_eq!((gamma.len(), dgamma.len(), dbeta.len()), (cols, cols, cols));
    assert_eq!(stats.len(), 2 * rows);
    if x.is_empty() {
        dgamma.fill(0.0);
        dbeta.fill(0.0);
        return;
    }
    let block = row_block(cols);
    let tasks = rows.div_ceil(block);
    let mut partial = vec![0.0; tasks * 2 * cols];
    let isa = isa::active();
    let (dx, slots) = (SharedMut::new(dx), SharedMut::new(&mut partial));
    for_each_task(len, tasks, |i| {
        let (first, count) = (i * block, block.min(rows - i * block));
        let range = first * cols..(first + count) * cols;
        // SAFETY: each task has rows and a slot of its own.
        let (dx, slot) = unsafe {
            (
                dx.slice(range.start, range.len()),
                slots.slice(i * 2 * cols, 2 * cols),
            )
        };
        let (dgamma, dbeta) = slot.split_at_mut(cols);
        isa.run(Backward {
            x: &x[range.clone()],
            dy: &dy[range.clone()],
            gamma,
            stats: &stats[2 * first..][..2 * count],
            onto: onto.map(|onto| &onto[range]),
            dx,
            dgamma,
            dbeta,
        });
    });
    let mut totals = vec![0.0; 2 * cols];
    combine(&partial, 2 * cols, &mut totals);
    dgamma.copy_from_slice(&totals[..cols]);
    dbeta.copy_from_slice(&totals[cols..]);
}

struct Backward<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    gamma: &'a [f32],
    stats: &'a [f32],
    onto: Option<&'a [f32]>,
    dx: &'a mut [f32],
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Backward {
            x,
            dy,
            gamma,
            stats,
            onto,
            dx,
            dgamma,
            dbeta,
        } = self;
        let cols = gamma.len();
        let n = cols as f32;
        dgamma.fill(0.0);
        dbeta.fill(0.0);
        let rows = x
            .chunks_exact(cols)
            .zip(dy.chunks_exact(cols))
            .zip(dx.chunks_exact_mut(cols));
        for (row, (((x, dy), dx), stats)) in rows.zip(stats.chunks_exact(2)).enumerate() {
            let onto = onto.map(|onto| &onto[row * cols..][..cols]);
            let (mean, rstd) = (simd.splat(stats[0]), simd.splat(stats[1]));
            let (mut sum, mut dot) = (simd.zero(), simd.zero());
            for_each_piece(
                simd,
                cols,
                #[inline(always)]
                |at| {
                    let h = simd.mul(simd.sub(at.load(x), mean), rstd);
                    let dy = at.load(dy);
                    at.store(dgamma, simd.mul_add(dy, h, at.load(dgamma)));
                    at.store(dbeta, simd.add(dy, at.load(dbeta)));
                    let d = simd.mul(dy, at.load(gamma));
                    sum = simd.add(sum, d);
                    dot = simd.mul_add(d, h, dot);
                },
            );
            let sum = simd.splat(simd.reduce_add(sum) / n);
            let dot = simd.splat(simd.reduce_add(dot) / n);
            for_each_piece(
                simd,
                cols,
                #[inline(always)]
                |at| {
                    let h = simd.mul(simd.sub(at.load(x), mean), rstd);
                    let d = simd.sub(simd.mul(at.load(dy), at.load(gamma)), sum);
                    let d = simd.mul(rstd, simd.sub(d, simd.mul(h, dot)));
                    at.store(dx, onto.map_or(d, |onto| simd.add(at.load(onto), d)));
                },
            );
        }
    }
}
