//! The forward pass.

use super::super::AttentionShape;
use super::super::rounded::{pair_rows, round_rows, round_up, turn, turned_stride};
use super::super::strip::Strip;
use super::{Product, SIDE, turn_pairs};
use crate::isa::amx::{Step, Tiles};
use crate::isa::{Isa, Kernel, Simd};
use crate::math::exp2_flushed;
use crate::pool;
use crate::scratch;
use crate::shared::SharedMut;
use std::f32::consts::{LN_2, LOG2_E};

/// Queries per task at least: enough to pay for rounding the keys again.
const TASK: usize = 256;

pub fn forward(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    let heads = shape.batch * shape.heads;
    let parts = (4 * pool::threads()).div_ceil(heads);
    let block = shape.queries.div_ceil(parts).max(TASK);
    let blocks = shape.queries.div_ceil(block);
    let (out, lse) = (SharedMut::new(out), lse.map(SharedMut::new));
    pool::parallel_for(heads * blocks, |task| {
        let (head, i) = (task / blocks, task % blocks);
        Isa::Amx.run_bf16(Head {
            shape,
            b: head / shape.heads,
            h: head % shape.heads,
            queries: i * block..shape.queries.min((i + 1) * block),
            q,
            k,
            v,
            out,
            lse,
        });
    });
}

/// One head, a range of queries.
struct Head<'a> {
    shape: &'a AttentionShape,
    b: usize,
    h: usize,
    queries: std::ops::Range<usize>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// A task writes only its head's numbers of its own queries, here and in `lse`.
    out: SharedMut<f32>,
    lse: Option<SharedMut<f32>>,
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = self.shape;
        let (d, stride) = (shape.head_dim, shape.width());
        let (keys, width) = (round_up(shape.keys), round_up(d));
        let turned = turned_stride(keys);
        // Keys, values transposed (and a strip of them before that), scores, sums, a strip of queries
        // twice.
        let mut memory =
            scratch::lease(keys * width / 2 + turned * width / 2 + keys * SIDE + 4 * SIDE * width);
        let (key_rows, rest) = memory.split_at_mut(keys * width / 2);
        let (values, rest) = rest.split_at_mut(turned * width / 2);
        let (scores, rest) = rest.split_at_mut(keys * SIDE);
        let (sums, rest) = rest.split_at_mut(SIDE * width);
        let (rows, pairs) = rest.split_at_mut(SIDE * width);
        let values = values.as_mut_ptr().cast::<u16>();
        let pairs = pairs.as_mut_ptr().cast::<u32>();
        let start = shape.start(shape.keys, self.b, self.h);
        let (k, v) = (&self.k[start..], &self.v[start..]);
        round_rows(simd, k, stride, (shape.keys, d), 1.0, key_rows);
        for key in (0..shape.keys).step_by(SIDE) {
            let count = SIDE.min(shape.keys - key);
            round_rows(simd, &v[key * stride..], stride, (count, d), 1.0, rows);
            // SAFETY: the scratch has room for `turned` keys in each of `width` rows.
            unsafe { turn(simd, rows, (SIDE, width), values.add(key), turned) };
        }
        let key_rows = key_rows.as_ptr().cast::<u16>();
        let tiles = Tiles::configure();
        let (score_steps, sum_steps) = (Step::sequence(width, SIDE), Step::sequence(keys, SIDE));
        for first in self.queries.clone().step_by(SIDE) {
            let count = SIDE.min(self.queries.end - first);
            let strip = Strip {
                first,
                count,
                vectors: SIDE / S::LANES,
                lanes: SIDE,
            };
            let at = shape.start(shape.queries, self.b, self.h) + first * stride;
            let visible = shape.visible(first + count);
            let near = round_up(visible);
            // Scores are in units of log₂, which saves the exponential a product.
            let factor = shape.scale() * LOG2_E;
            round_rows(simd, &self.q[at..], stride, (count, d), factor, rows);
            // SAFETY: the scratch has these sizes; scores are read and written for the visible keys, rounded up.
            unsafe {
                turn_pairs(rows.as_ptr().cast(), width, pairs);
                let product = Product {
                    left: key_rows,
                    stride: width,
                    right: pairs,
                    right_stride: SIDE,
                };
                product.run(&tiles, near, &score_steps, scores.as_mut_ptr(), false);
            }
            if shape.causal {
                strip.mask(0, visible, scores);
            }
            scores[visible * SIDE..near * SIDE].fill(Strip::LOWEST);
            let [maxima, totals] = softmax(simd, &mut scores[..near * SIDE]);
            pair_rows(simd, &mut scores[..near * SIDE], near, SIDE);
            // SAFETY: as above.
            unsafe {
                let product = Product {
                    left: values,
                    stride: turned,
                    right: scores.as_ptr().cast(),
                    right_stride: SIDE,
                };
                let steps = &sum_steps[..near / SIDE];
                product.run(&tiles, width, steps, sums.as_mut_ptr(), false);
            }
            let mut factors = [0.0; 64];
            for (factor, total) in factors.iter_mut().zip(totals) {
                *factor = 1.0 / total;
            }
            // SAFETY: this task's part, by the field's rule.
            let sums = &mut sums[..d * SIDE];
            unsafe { strip.write_rows(simd, sums, &factors, self.out, at, stride) };
            if let Some(lse) = self.lse {
                let at = (self.b * shape.heads + self.h) * shape.queries + first;
                // SAFETY: as above.
                let lse = unsafe { lse.slice(at, count) };
                for (lane, lse) in lse.iter_mut().enumerate() {
                    *lse = maxima[lane] * LN_2 + totals[lane].ln();
                }
            }
        }
    }
}

/// `scores: [keys, 32]` become powers of two of their distance to their column's maximum; returns the
/// maxima and the sums of the powers.
#[inline(always)]
fn softmax<S: Simd>(simd: S, scores: &mut [f32]) -> [[f32; SIDE]; 2] {
    let [mut maxima, mut totals] = [[0.0; SIDE]; 2];
    for at in (0..SIDE).step_by(S::LANES) {
        let mut largest = simd.splat(Strip::LOWEST);
        for row in scores.chunks_exact(SIDE) {
            // Second operand: a NaN leaves the maximum alone and reaches the result by itself.
            largest = simd.max(simd.load(&row[at..]), largest);
        }
        let mut total = simd.zero();
        for row in scores.chunks_exact_mut(SIDE) {
            let power = exp2_flushed(simd, simd.sub(simd.load(&row[at..]), largest));
            total = simd.add(total, power);
            simd.store(&mut row[at..], power);
        }
        simd.store(&mut maxima[at..], largest);
        simd.store(&mut totals[at..], total);
    }
    [maxima, totals]
}
