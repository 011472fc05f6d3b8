//! The forward pass with bf16 dot products.
//!
//! As in `forward`, but keys are rounded to rows of bf16 pairs and values transposed, `Vᵀ`, once for all
//! strips of queries of their head. Softmax and sums are f32.
//!
//! A score becomes a power in the registers where it was summed (`powers`), so what it is relative to must be known
//! before: the highest of the first few keys' scores. Softmax allows any number there as long as no power overflows, and
//! where some key's score is so far above, its block is computed once more.

use super::AttentionShape;
use super::forward::Target;
use super::powers::{Powers, TILE_KEYS};
use super::rounded::{pair_rows, round_rows, round_up, turn, turned_stride};
use super::strip::{Strip, multiples};
use crate::gemm::tile::LeftView;
use crate::isa::{Isa, Kernel, Simd};
use crate::pool::parallel_for;
use crate::scratch;
use crate::shared::SharedMut;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Keys that one task rounds.
const TASK_KEYS: usize = 512;

/// Keys per block: their powers with 64 queries are 24 KiB of bf16, which stay in the first-level cache, and the sums over
/// 96 pairs are long enough to pay for loading and storing them.
const KEYS: usize = 192;

/// Keys that are looked at to see how high scores are.
const LOOKED_AT: usize = 2 * TILE_KEYS;

/// A block's sum of powers above which they are computed again, relative to their maximum: here bf16 and f32 still have
/// exponents to spare.
const TOO_MUCH: f32 = 1.0e24;

/// The same for the sums of all blocks, which are then rescaled.
const MUCH: f32 = 1.0e12;

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
    let (all_keys, all_values) = (SharedMut::new(keys), SharedMut::new(values));
    let parts = shape.keys.div_ceil(TASK_KEYS);
    parallel_for(heads * parts, |task| {
        let (head, part) = (task / parts, task % parts);
        let range = part * TASK_KEYS..shape.keys.min((part + 1) * TASK_KEYS);
        // In numbers of 32 bits, of which each is two of the matrices'.
        let (first, count) = (range.start / 2, round_up(range.len()) / 2);
        let key_start = head * key_len + first * sizes.width;
        let channels = (0..sizes.width).map(|channel| channel * sizes.turned / 2);
        isa.run_bf16(Round {
            shape,
            sizes,
            head,
            range,
            k,
            v,
            // SAFETY: whole blocks of 32 keys of one head, which no other task has.
            keys: unsafe { all_keys.slice(key_start, count * sizes.width) },
            values: all_values
                .rows(head * value_len + first, channels, count)
                .cast(),
        });
    });
    let (keys, values) = (&*keys, &*values);
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
            keys: &keys[head * key_len..][..key_len],
            values: &values[head * value_len..][..value_len],
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
    /// Where the first of these keys goes, here and in `values`.
    keys: &'a mut [f32],
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
        for key in self.range.clone().step_by(32) {
            let sizes = (32.min(self.range.end - key), d);
            let done = key - self.range.start;
            let to = &mut self.keys[done * width / 2..];
            round_rows(simd, &k[key * stride..], stride, sizes, 1.0, to);
            round_rows(simd, &v[key * stride..], stride, sizes, 1.0, &mut rows);
            // SAFETY: the head's values have room for whole blocks of 32 keys, of which this task has its own.
            unsafe { turn(simd, &rows, (32, width), self.values.add(done), turned) };
        }
    }
}

/// One head, a range of queries.
struct Forward<'a> {
    target: Target<'a>,
    sizes: Sizes,
    queries: Range<usize>,
    q: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
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
        // Queries, sums, pairs of powers, some scores, and three numbers for each of 64 lanes.
        let mut memory = scratch::lease(64 * (even + d + KEYS / 2 + LOOKED_AT + 4));
        let (queries, rest) = memory.split_at_mut(64 * even);
        let (sums, rest) = rest.split_at_mut(64 * d);
        let (powers, rest) = rest.split_at_mut(64 * KEYS / 2);
        let (scores, rest) = rest.split_at_mut(64 * LOOKED_AT);
        let (maxima, rest) = rest.split_at_mut(64);
        let (totals, rest) = rest.split_at_mut(64);
        let (block_totals, highest) = rest.split_at_mut(64);
        let (mut rows, mut lanes) = (Vec::new(), 0);
        let mut first = self.queries.start;
        while first < self.queries.end {
            let strip = Strip::new::<S>(first, self.queries.end);
            first += strip.count;
            if lanes != strip.lanes {
                lanes = strip.lanes;
                multiples(lanes, d.max(LOOKED_AT), &mut rows);
            }
            let at = shape.start(shape.queries, b, h) + strip.first * stride;
            // Scores are in units of log₂, which saves the exponential a product.
            let factor = shape.scale() * LOG2_E;
            strip.transpose(simd, &self.q[at..], stride, d, factor, queries);
            pair_rows(simd, &mut queries[..even * lanes], d, lanes);
            let visible = shape.visible(first);
            let view = |start: usize| LeftView {
                start: self.keys[start * self.sizes.width / 2..].as_ptr(),
                row_stride: self.sizes.width / 2,
                depth_stride: 1,
            };
            let mut state = Online {
                sums: &mut sums[..d * lanes],
                maxima: &mut maxima[..lanes],
                totals: &mut totals[..lanes],
            };
            state.sums.fill(0.0);
            state.totals.fill(0.0);
            state.maxima.fill(Strip::LOWEST);
            let look = Look {
                strip: &strip,
                depth: d,
                queries,
                rows: &rows,
                causal: shape.causal,
            };
            // SAFETY (of `look` and `compute`): the head has a row of at least `d` numbers for each visible key.
            let some = 0..LOOKED_AT.min(visible);
            unsafe { look.raise(simd, view(0), some, scores, state.maxima) };
            for start in (0..visible).step_by(KEYS) {
                let keys = KEYS.min(visible - start);
                for again in [false, true] {
                    let block = Powers {
                        keys: view(start).start,
                        key_stride: self.sizes.width / 2,
                        count: keys,
                        queries: &queries[..even / 2 * lanes],
                        maxima: state.maxima,
                        hidden: shape.causal.then(|| start as isize - strip.first as isize),
                        powers,
                        totals: block_totals,
                    };
                    unsafe { block.compute(simd, lanes) };
                    if again || largest(simd, &block_totals[..lanes]) < TOO_MUCH {
                        break;
                    }
                    // Some key's score is far above all before it.
                    let highest = &mut highest[..lanes];
                    highest.copy_from_slice(state.maxima);
                    for from in (start..start + keys).step_by(LOOKED_AT) {
                        let some = from..(from + LOOKED_AT).min(start + keys);
                        unsafe { look.raise(simd, view(from), some, scores, highest) };
                    }
                    state.rescale(simd, highest);
                }
                let left = LeftView {
                    start: self.values[start / 2..].as_ptr(),
                    row_stride: self.sizes.turned / 2,
                    depth_stride: 1,
                };
                // SAFETY: the head has `d` rows of values, zero beyond the last key.
                unsafe {
                    strip.product_bf16(simd, left, keys, powers, &rows[..d], state.sums, true);
                }
                for (total, more) in state.totals.iter_mut().zip(&*block_totals) {
                    *total += more;
                }
                if largest(simd, state.totals) > MUCH {
                    let highest = &mut highest[..lanes];
                    for ((highest, &maximum), &total) in
                        highest.iter_mut().zip(&*state.maxima).zip(&*state.totals)
                    {
                        *highest = maximum + total.max(1.0).log2();
                    }
                    state.rescale(simd, highest);
                }
            }
            target.finish(simd, &strip, &mut sums[..d * lanes], maxima, totals);
        }
    }
}

/// The running state of a strip's softmax.
struct Online<'a> {
    /// `[d, lanes]`: what has been summed so far.
    sums: &'a mut [f32],
    /// `[lanes]`: the exponent that powers are relative to; some score, not always the highest.
    maxima: &'a mut [f32],
    /// `[lanes]`: the powers' sums.
    totals: &'a mut [f32],
}

impl Online<'_> {
    /// Makes everything relative to `maxima`.
    #[inline(always)]
    fn rescale<S: Simd>(&mut self, simd: S, maxima: &[f32]) {
        let lanes = maxima.len();
        for at in (0..lanes).step_by(S::LANES) {
            let new = simd.load(&maxima[at..]);
            let factor = simd.exp2(simd.sub(simd.load(&self.maxima[at..]), new));
            for sums in self.sums.chunks_exact_mut(lanes) {
                let sums = &mut sums[at..];
                simd.store(sums, simd.mul(simd.load(sums), factor));
            }
            let totals = &mut self.totals[at..];
            simd.store(totals, simd.mul(simd.load(totals), factor));
            simd.store(&mut self.maxima[at..], new);
        }
    }
}

/// The scores of some keys, to see how high they are.
struct Look<'a> {
    strip: &'a Strip,
    depth: usize,
    queries: &'a [f32],
    rows: &'a [usize],
    causal: bool,
}

impl Look<'_> {
    /// Raises `maxima` to the scores of up to [`LOOKED_AT`] keys.
    ///
    /// # Safety
    /// `view` is valid for reading pairs of `depth` numbers at each key.
    #[inline(always)]
    unsafe fn raise<S: Simd>(
        &self,
        simd: S,
        view: LeftView,
        keys: Range<usize>,
        scores: &mut [f32],
        maxima: &mut [f32],
    ) {
        let Look { strip, depth, .. } = *self;
        let rows = &self.rows[..keys.len()];
        // SAFETY: passed on.
        unsafe { strip.product_bf16(simd, view, depth, self.queries, rows, scores, false) };
        if self.causal {
            strip.mask(keys.start, keys.len(), scores);
        }
        for scores in scores.chunks_exact(strip.lanes).take(keys.len()) {
            for at in (0..strip.lanes).step_by(S::LANES) {
                // Second operand: a NaN leaves the maximum alone and reaches the result by itself.
                let maxima = &mut maxima[at..];
                simd.store(
                    maxima,
                    simd.max(simd.load(&scores[at..]), simd.load(maxima)),
                );
            }
        }
    }
}

/// The largest of whole vectors of numbers.
#[inline(always)]
fn largest<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut largest = simd.zero();
    for x in x.chunks_exact(S::LANES) {
        largest = simd.max(simd.load(x), largest);
    }
    simd.reduce_max(largest)
}
