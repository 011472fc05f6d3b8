//! The forward pass with bf16 dot products.
//!
//! As in `forward`, but keys are rounded to rows of bf16 pairs and values transposed, `Vᵀ`, once for all
//! strips of queries of their head. Softmax and sums are f32.

use super::AttentionShape;
use super::forward::{KEYS, Online, Target};
use super::rounded::{pair_rows, round_rows, round_up, turn, turned_stride};
use super::strip::{Strip, multiples};
use crate::gemm::tile::LeftView;
use crate::isa::{Isa, Kernel, Simd};
use crate::math::exp2_flushed;
use crate::pool::{SharedMut, parallel_for};
use crate::scratch;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Keys that one task rounds.
const TASK_KEYS: usize = 512;

pub(super) fn forward(
    isa: Isa,
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    let heads = shape.batch * shape.heads;
    let sizes = Sizes {
        width: round_up(shape.head_dim),
        keys: round_up(shape.keys),
        turned: turned_stride(shape.keys),
    };
    let (key_len, value_len) = (sizes.keys * sizes.width / 2, sizes.turned * sizes.width / 2);
    let mut memory = scratch::lease(heads * (key_len + value_len));
    let (keys, values) = memory.split_at_mut(heads * key_len);
    let (keys, values) = (SharedMut::new(keys), SharedMut::new(values));
    let parts = shape.keys.div_ceil(TASK_KEYS);
    parallel_for(heads * parts, |task| {
        let (head, part) = (task / parts, task % parts);
        isa.run_bf16(Round {
            shape,
            sizes,
            head,
            range: part * TASK_KEYS..shape.keys.min((part + 1) * TASK_KEYS),
            k,
            v,
            keys: keys.pointer(head * key_len).cast(),
            values: values.pointer(head * value_len).cast(),
        });
    });
    let strips = (1_000_000 / (64 * shape.keys * shape.head_dim)).max(1);
    let block = strips * 64;
    let blocks = shape.queries.div_ceil(block);
    let (out, lse) = (SharedMut::new(out), lse.map(SharedMut::new));
    parallel_for(heads * blocks, |task| {
        let (head, i) = (task / blocks, task % blocks);
        isa.run_bf16(Forward {
            target: Target {
                shape,
                b: head / shape.heads,
                h: head % shape.heads,
                out,
                lse,
            },
            sizes,
            queries: i * block..shape.queries.min((i + 1) * block),
            q,
            keys: keys.pointer(head * key_len),
            values: values.pointer(head * value_len),
        });
    });
}

/// Rows of rounded matrices, in numbers.
#[derive(Clone, Copy)]
struct Sizes {
    /// Of a key, the head size rounded up.
    width: usize,
    /// Keys, rounded up.
    keys: usize,
    /// From one channel of `Vᵀ` to the next.
    turned: usize,
}

/// Rounds some keys of one head, and transposes their values.
struct Round<'a> {
    shape: &'a AttentionShape,
    sizes: Sizes,
    head: usize,
    range: Range<usize>,
    k: &'a [f32],
    v: &'a [f32],
    keys: *mut u16,
    values: *mut u16,
}

impl Kernel for Round<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (shape, Sizes { width, turned, .. }) = (self.shape, self.sizes);
        let (d, stride) = (shape.head_dim, shape.width());
        let start = shape.start(shape.keys, self.head / shape.heads, self.head % shape.heads);
        let (k, v) = (&self.k[start..], &self.v[start..]);
        let mut rows = scratch::lease(32 * width / 2);
        let rows = rows.as_mut_ptr().cast::<u16>();
        for key in self.range.clone().step_by(32) {
            let sizes = (32.min(self.range.end - key), d);
            // SAFETY: the head's matrices have whole blocks of 32 keys, of which this task has its own.
            unsafe {
                let to = self.keys.add(key * width);
                round_rows(simd, &k[key * stride..], stride, sizes, 1.0, to);
                round_rows(simd, &v[key * stride..], stride, sizes, 1.0, rows);
                turn(simd, rows, (32, width), self.values.add(key), turned);
            }
        }
    }
}

/// One head, a range of queries.
struct Forward<'a> {
    target: Target<'a>,
    sizes: Sizes,
    queries: Range<usize>,
    q: &'a [f32],
    keys: *const f32,
    values: *const f32,
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const { assert!(S::LANES * S::TILE_VECTORS <= 64) }
        let target = self.target;
        let (shape, b, h) = (target.shape, target.b, target.h);
        let (d, stride) = (shape.head_dim, shape.width());
        let even = d.next_multiple_of(2);
        // Queries, sums, scores, maxima and totals in 64 lanes.
        let mut memory = scratch::lease(64 * (even + d + KEYS + 2));
        let (queries, rest) = memory.split_at_mut(64 * even);
        let (sums, rest) = rest.split_at_mut(64 * d);
        let (scores, rest) = rest.split_at_mut(64 * KEYS);
        let (maxima, totals) = rest.split_at_mut(64);
        let (mut rows, mut lanes) = (Vec::new(), 0);
        let mut first = self.queries.start;
        while first < self.queries.end {
            let strip = Strip::new::<S>(first, self.queries.end);
            first += strip.count;
            if lanes != strip.lanes {
                lanes = strip.lanes;
                multiples(lanes, d.max(KEYS), &mut rows);
            }
            let at = shape.start(shape.queries, b, h) + strip.first * stride;
            // Scores are in units of log₂, which saves the exponential a product.
            strip.transpose(&self.q[at..], stride, d, shape.scale() * LOG2_E, queries);
            pair_rows(simd, &mut queries[..even * lanes], d, lanes);
            sums[..d * lanes].fill(0.0);
            maxima.fill(Strip::LOWEST);
            totals.fill(0.0);
            let visible = shape.visible(first);
            for start in (0..visible).step_by(KEYS) {
                let keys = KEYS.min(visible - start);
                let left = LeftView {
                    start: self.keys.wrapping_add(start * self.sizes.width / 2),
                    row_stride: self.sizes.width / 2,
                    depth_stride: 1,
                };
                // SAFETY: the head has `keys` rows of at least `d` numbers from `start` on.
                unsafe { strip.product_bf16(simd, left, d, queries, &rows[..keys], scores, false) };
                if shape.causal && start + keys > strip.first {
                    strip.mask(start, keys, scores);
                }
                let state = Online {
                    scores: &mut scores[..keys * lanes],
                    sums: &mut sums[..d * lanes],
                    maxima,
                    totals,
                };
                match strip.vectors {
                    1 => simd.call(PairedSoftmax::<1>(state)),
                    2 => simd.call(PairedSoftmax::<2>(state)),
                    3 => simd.call(PairedSoftmax::<3>(state)),
                    _ => simd.call(PairedSoftmax::<4>(state)),
                }
                let left = LeftView {
                    start: self.values.wrapping_add(start / 2),
                    row_stride: self.sizes.turned / 2,
                    depth_stride: 1,
                };
                // SAFETY: the head has `d` rows of values, zero beyond the last key.
                unsafe { strip.product_bf16(simd, left, keys, scores, &rows[..d], sums, true) };
            }
            target.finish(&strip, sums, maxima, totals);
        }
    }
}

/// As `forward`'s softmax, the powers being left as bf16 pairs of neighbouring keys: `[keys / 2, lanes]`, zero for
/// the partner that a last odd key has not.
struct PairedSoftmax<'a, const V: usize>(Online<'a>);

impl<const V: usize> Kernel for PairedSoftmax<'_, V> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (maximum, mut total) = self.0.advance::<S, V>(simd);
        let Online { scores, totals, .. } = self.0;
        let lanes = V * S::LANES;
        let keys = scores.len() / lanes;
        for pair in 0..keys.div_ceil(2) {
            for v in 0..V {
                let at = 2 * pair * lanes + v * S::LANES;
                let low = power(simd, &scores[at..], maximum[v]);
                let high = match 2 * pair + 1 < keys {
                    true => power(simd, &scores[at + lanes..], maximum[v]),
                    false => simd.zero(),
                };
                total[v] = simd.add(total[v], simd.add(low, high));
                // Written where, or before where, it was read; whole rows of later pairs come after.
                let to = &mut scores[pair * lanes + v * S::LANES..];
                simd.store(to, simd.pairs_bf16(low, high));
            }
        }
        for v in 0..V {
            simd.store(&mut totals[v * S::LANES..], total[v]);
        }
    }
}

#[inline(always)]
fn power<S: Simd>(simd: S, score: &[f32], maximum: S::Vector) -> S::Vector {
    exp2_flushed(simd, simd.sub(simd.load(score), maximum))
}
