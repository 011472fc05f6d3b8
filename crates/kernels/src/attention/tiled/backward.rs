//! The backward pass.

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
use std::f32::consts::LOG2_E;

/// Keys per block: scores, their gradients and both as bf16 take 128 KiB together.
const KEYS: usize = 256;

pub fn backward(
    shape: &AttentionShape,
    qkv: [&[f32]; 3],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    gradients: [&mut [f32]; 3],
) {
    let gradients = gradients.map(SharedMut::new);
    pool::parallel_for(shape.batch * shape.heads, |head| {
        Isa::Amx.run_bf16(Head {
            shape,
            b: head / shape.heads,
            h: head % shape.heads,
            qkv,
            out,
            lse,
            dout,
            gradients,
        });
    });
}

/// One head.
struct Head<'a> {
    shape: &'a AttentionShape,
    b: usize,
    h: usize,
    qkv: [&'a [f32]; 3],
    out: &'a [f32],
    lse: &'a [f32],
    dout: &'a [f32],
    /// Of q, k and v; only the head's numbers are written.
    gradients: [SharedMut<f32>; 3],
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = self.shape;
        let (d, stride) = (shape.head_dim, shape.width());
        let (keys, width) = (round_up(shape.keys), round_up(d));
        let turned = turned_stride(keys);
        let key_start = shape.start(shape.keys, self.b, self.h);
        let query_start = shape.start(shape.queries, self.b, self.h);
        let [q, k, v] = self.qkv;
        let mut memory = scratch::lease(
            2 * keys * width / 2
                + turned * width / 2
                + 2 * keys * width
                + 4 * KEYS * SIDE
                + 6 * SIDE * width,
        );
        let mut rest = &mut memory[..];
        let mut take = |len: usize| {
            let (taken, others) = std::mem::take(&mut rest).split_at_mut(len);
            rest = others;
            taken
        };
        // Keys and values as rows, and a strip of queries or output gradients; keys transposed.
        let (key_rows, value_rows) = (take(keys * width / 2), take(keys * width / 2));
        let rows = take(SIDE * width);
        let mut take = |len: usize| take(len).as_mut_ptr();
        let key_columns = take(turned * width / 2).cast::<u16>();
        // Gradients of keys and values: per 32 channels `[keys][32]`.
        let (dk, dv) = (take(keys * width), take(keys * width));
        // Probabilities and gradients of scores, `[KEYS][32]`, each also as bf16 rows.
        let (scores, dscores) = (take(KEYS * SIDE), take(KEYS * SIDE));
        let score_rows = take(KEYS * SIDE).cast::<u16>();
        let dscore_rows = take(KEYS * SIDE).cast::<u16>();
        // A strip of queries and of output gradients: as pairs of channels (transposed), as pairs of rows; the gradient of
        // the queries.
        let query_pairs = take(SIDE * width).cast::<u32>();
        let dout_pairs = take(SIDE * width).cast::<u32>();
        let (query_rows, dout_rows) = (take(SIDE * width / 2), take(SIDE * width / 2));
        let dq = take(SIDE * width);
        let size = (shape.keys, d);
        round_rows(simd, &k[key_start..], stride, size, 1.0, key_rows);
        round_rows(simd, &v[key_start..], stride, size, 1.0, value_rows);
        // SAFETY: the scratch was cut to these sizes.
        unsafe {
            turn(simd, key_rows, (keys, width), key_columns, turned);
            dk.write_bytes(0, keys * width);
            dv.write_bytes(0, keys * width);
        }
        let key_rows = key_rows.as_ptr().cast::<u16>();
        let value_rows = value_rows.as_ptr().cast::<u16>();
        let tiles = Tiles::configure();
        let (channel_steps, key_steps) = (Step::sequence(width, SIDE), Step::sequence(KEYS, SIDE));
        let query_step = Step::sequence(SIDE, width);
        for first in (0..shape.queries).step_by(SIDE) {
            let count = SIDE.min(shape.queries - first);
            let strip = Strip {
                first,
                count,
                vectors: SIDE / S::LANES,
                lanes: SIDE,
            };
            let at = query_start + first * stride;
            let (queries, dout) = (&q[at..], &self.dout[at..]);
            let [mut lse, mut deltas] = [[0.0; SIDE]; 2];
            let all = &self.lse[(self.b * shape.heads + self.h) * shape.queries + first..];
            for lane in 0..count {
                lse[lane] = all[lane] * LOG2_E;
                let out = &self.out[at + lane * stride..][..d];
                let products = out.iter().zip(&dout[lane * stride..]).map(|(y, dy)| y * dy);
                deltas[lane] = products.sum();
            }
            // SAFETY: as above; all sizes are rounded up to 32, and blocks of keys end at `keys`.
            unsafe {
                let factor = shape.scale() * LOG2_E;
                round_rows(simd, queries, stride, (count, d), factor, rows);
                turn_pairs(rows.as_ptr().cast(), width, query_pairs);
                round_rows(simd, dout, stride, (count, d), 1.0, rows);
                turn_pairs(rows.as_ptr().cast(), width, dout_pairs);
                pair_strided(simd, queries, stride, (count, d), query_rows);
                pair_strided(simd, dout, stride, (count, d), dout_rows);
                let visible = shape.visible(first + count);
                for start in (0..visible).step_by(KEYS) {
                    let seen = KEYS.min(visible - start);
                    let near = round_up(seen);
                    for (left, right, sums) in [
                        (key_rows, query_pairs, scores),
                        (value_rows, dout_pairs, dscores),
                    ] {
                        let product = Product {
                            left: left.add(start * width),
                            stride: width,
                            right,
                            right_stride: SIDE,
                        };
                        product.run(&tiles, near, &channel_steps, sums, false);
                    }
                    let p = std::slice::from_raw_parts_mut(scores, near * SIDE);
                    let dp = std::slice::from_raw_parts_mut(dscores, near * SIDE);
                    if shape.causal {
                        strip.mask(start, seen, p);
                    }
                    p[seen * SIDE..].fill(Strip::LOWEST);
                    let scale = shape.scale();
                    differentiate(simd, p, dp, (&lse, &deltas), scale, score_rows, dscore_rows);
                    pair_rows(simd, dp, near, SIDE);
                    let product = Product {
                        left: key_columns.add(start),
                        stride: turned,
                        right: dscores.cast(),
                        right_stride: SIDE,
                    };
                    product.run(&tiles, width, &key_steps[..near / SIDE], dq, start > 0);
                    for (left, right, sums) in
                        [(score_rows, dout_rows, dv), (dscore_rows, query_rows, dk)]
                    {
                        for channel in (0..width).step_by(SIDE) {
                            let product = Product {
                                left,
                                stride: SIDE,
                                right: right.cast::<u32>().add(channel),
                                right_stride: width,
                            };
                            let sums = sums.add(channel * keys + start * SIDE);
                            product.run(&tiles, near, &query_step, sums, true);
                        }
                    }
                }
                let dq = std::slice::from_raw_parts_mut(dq, d * SIDE);
                strip.write_rows(simd, dq, &[1.0; 64], self.gradients[0], at, stride);
            }
        }
        for (sums, to) in [(dk, self.gradients[1]), (dv, self.gradients[2])] {
            for key in 0..shape.keys {
                // SAFETY: this head's numbers; the sums have `[width / 32][keys][32]`.
                unsafe {
                    let to = to.slice(key_start + key * stride, d);
                    for (i, to) in to.chunks_mut(SIDE).enumerate() {
                        let from = sums.add((i * keys + key) * SIDE);
                        to.copy_from_slice(std::slice::from_raw_parts(from, to.len()));
                    }
                }
            }
        }
    }
}

/// Pairs of neighbouring rows, rounded: `[16][round_up(d)]`; zeros for the rows after `count`.
///
/// # Safety
/// `to` is valid for writing that.
#[inline(always)]
unsafe fn pair_strided<S: Simd>(
    simd: S,
    x: &[f32],
    stride: usize,
    (count, d): (usize, usize),
    to: *mut f32,
) {
    let width = round_up(d);
    let row = |i: usize| {
        if i < count {
            &x[i * stride..][..d]
        } else {
            &[]
        }
    };
    for pair in 0..SIDE / 2 {
        let (low, high) = (row(2 * pair), row(2 * pair + 1));
        for at in (0..width).step_by(S::LANES) {
            let number = |row: &[f32]| simd.load_partial(row.get(at..).unwrap_or(&[]));
            let pairs = simd.pairs_bf16(number(low), number(high));
            // SAFETY: whole vectors fit into the row.
            unsafe { simd.store_raw(to.add(pair * width + at), pairs) }
        }
    }
}

/// Scores (in units of log₂) become probabilities, `p = 2^(score − lse)`, and gradients of the
/// probabilities gradients of the scores, `p · (dp − delta) · scale`; both also as bf16 rows.
///
/// # Safety
/// `p_rows` and `dp_rows` are valid for writing as many numbers as `p` and `dp` have.
#[inline(always)]
unsafe fn differentiate<S: Simd>(
    simd: S,
    p: &mut [f32],
    dp: &mut [f32],
    (lse, deltas): (&[f32; SIDE], &[f32; SIDE]),
    scale: f32,
    p_rows: *mut u16,
    dp_rows: *mut u16,
) {
    let scale = simd.splat(scale);
    for at in (0..SIDE).step_by(S::LANES) {
        let (lse, delta) = (simd.load(&lse[at..]), simd.load(&deltas[at..]));
        let rows = p.chunks_exact(SIDE).zip(dp.chunks_exact_mut(SIDE));
        for (i, (score, dscore)) in rows.enumerate() {
            let p = exp2_flushed(simd, simd.sub(simd.load(&score[at..]), lse));
            let d = simd.mul(simd.sub(simd.load(&dscore[at..]), delta), scale);
            let d = simd.mul(p, d);
            simd.store(&mut dscore[at..], d);
            // SAFETY: by this function's contract.
            unsafe {
                simd.store_bf16_raw(p_rows.add(i * SIDE + at), p);
                simd.store_bf16_raw(dp_rows.add(i * SIDE + at), d);
            }
        }
    }
}
