//! The backward pass with bf16 dot products.
//!
//! Strips of queries stand in the lanes, keys in the rows, as in `dot`, whose rounded queries and keys are these: the
//! probabilities are those of the forward pass. Two keys at a time, the probabilities `p = 2^(s − lse)` and the
//! gradients `p · (dp − delta)` of their scores are made in registers, and leave them as bf16: as pairs of keys for the
//! sum over keys, `dQᵀ = Kᵀ·dSᵀ`, and as rows of queries, whose pairs are then transposed for the sums over queries,
//! `dVᵀ = dOᵀ·P` and `dKᵀ = Qᵀ·dS`.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use super::AttentionShape;
use super::rounded::{pair_rows, round_rows, round_up, turn, turned_stride};
use super::strip::{Strip, multiples};
use crate::gemm::tile::LeftView;
use crate::isa::{Isa, Kernel, Simd};
use crate::map::for_each_piece;
use crate::pool::parallel_for;
use crate::scratch;
use crate::shared::SharedMut;
use std::f32::consts::{LN_2, LOG2_E};

/// Queries per strip, and keys per block: as many as a panel has columns. Probabilities and gradients of the scores take
/// 8 KiB each, in each of their orders.
const LANES: usize = 64;

pub(super) fn backward(
    isa: Isa,
    shape: &AttentionShape,
    qkv: [&[f32]; 3],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    gradients: [&mut [f32]; 3],
) {
    let gradients = gradients.map(SharedMut::new);
    parallel_for(shape.batch * shape.heads, |head| {
        isa.run_bf16(Head {
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
        const { assert!(S::LANES * S::TILE_VECTORS <= LANES) }
        let shape = self.shape;
        let (d, stride) = (shape.head_dim, shape.width());
        let (keys, width, even) = (round_up(shape.keys), round_up(d), d.next_multiple_of(2));
        let padded = d.next_multiple_of(16);
        let turned = turned_stride(shape.keys);
        let blocks = shape.keys.div_ceil(LANES);
        let key_start = shape.start(shape.keys, self.b, self.h);
        let query_start = shape.start(shape.queries, self.b, self.h);
        let [q, k, v] = self.qkv;
        let mut memory = scratch::lease(
            keys * width
                + turned * width / 2
                + LANES * (2 * blocks * d + 2 * padded + 2 * d + 2 * LANES + 2),
        );
        let mut rest = &mut memory[..];
        let mut take = |len: usize| {
            let (taken, others) = std::mem::take(&mut rest).split_at_mut(len);
            rest = others;
            taken
        };
        // Keys and values as rows of bf16, keys transposed; the gradients of both, per block of keys `[d, lanes]`.
        let (key_rows, value_rows) = (take(keys * width / 2), take(keys * width / 2));
        let key_columns = take(turned * width / 2);
        let (dk, dv) = (take(LANES * blocks * d), take(LANES * blocks * d));
        // A strip of queries and output gradients in lanes: as pairs of channels, and as rows of bf16. The gradient of the
        // queries.
        let (query_lanes, dout_lanes) = (take(LANES * padded), take(LANES * padded));
        let (query_rows, dout_rows) = (take(LANES * d / 2), take(LANES * d / 2));
        let dq = take(LANES * d);
        // A block's probabilities and gradients of scores as rows of keys; the latter as pairs of keys; one of both as
        // pairs of queries.
        let (p_rows, ds_rows) = (take(LANES * LANES / 2), take(LANES * LANES / 2));
        let (ds_pairs, turned_pairs) = (take(LANES * LANES / 2), take(LANES * LANES / 2));
        let (offsets, deltas) = (take(LANES), take(LANES));
        let size = (shape.keys, d);
        round_rows(simd, &k[key_start..], stride, size, 1.0, key_rows);
        round_rows(simd, &v[key_start..], stride, size, 1.0, value_rows);
        // SAFETY: the scratch was cut to `width` rows of `turned >= keys`.
        unsafe {
            let columns = key_columns.as_mut_ptr().cast();
            turn(simd, key_rows, (keys, width), columns, turned);
        }
        dk.fill(0.0);
        dv.fill(0.0);
        let (mut rows, mut key_places) = (Vec::new(), Vec::new());
        let mut first = 0;
        while first < shape.queries {
            let strip = Strip::new::<S>(first, shape.queries);
            first += strip.count;
            let lanes = strip.lanes;
            multiples(lanes, d, &mut rows);
            let at = query_start + strip.first * stride;
            let (q, dout) = (&q[at..], &self.dout[at..]);
            // While this strip is worked on, the next one's rows come nearer.
            for x in [q, dout, &self.out[at..]] {
                let next = x.as_ptr().wrapping_add(strip.count * stride);
                strip.fetch(simd, next, stride, d);
            }
            for (x, factor, to, to_rows) in [
                (
                    q,
                    shape.scale() * LOG2_E,
                    &mut *query_lanes,
                    &mut *query_rows,
                ),
                (dout, 1.0, &mut *dout_lanes, &mut *dout_rows),
            ] {
                strip.turn_in(simd, x, stride, d, factor, to);
                round_lanes(simd, &to[..d * lanes], lanes, to_rows);
                pair_rows(simd, &mut to[..even * lanes], d, lanes);
            }
            offsets.fill(0.0);
            deltas.fill(0.0);
            let all = &self.lse[(self.b * shape.heads + self.h) * shape.queries..];
            for lane in 0..strip.count {
                offsets[lane] = -all[strip.first + lane] * LOG2_E;
                let out = &self.out[at + lane * stride..][..d];
                deltas[lane] = -dot(simd, out, &dout[lane * stride..][..d]);
            }
            dq[..d * lanes].fill(0.0);
            // Of a causal strip's last block the hidden keys have probability zero.
            let visible = shape.visible(first);
            for block in key_blocks::<S>(shape.keys).take_while(|block| block.first < visible) {
                let scores = Scores {
                    keys: block.count,
                    steps: even / 2,
                    stride: width / 2,
                    key_rows: key_rows[block.first * width / 2..].as_ptr(),
                    value_rows: value_rows[block.first * width / 2..].as_ptr(),
                    query_lanes,
                    dout_lanes,
                    offsets,
                    deltas,
                    hidden: (shape.causal && block.first + block.count > strip.first)
                        .then(|| block.first as isize - strip.first as isize),
                    p_rows: p_rows.as_mut_ptr().cast(),
                    ds_rows: ds_rows.as_mut_ptr().cast(),
                    ds_pairs: ds_pairs.as_mut_ptr(),
                };
                match strip.vectors {
                    1 => simd.call(Differentiate::<1>(scores)),
                    2 => simd.call(Differentiate::<2>(scores)),
                    3 => simd.call(Differentiate::<3>(scores)),
                    _ => simd.call(Differentiate::<4>(scores)),
                }
                let left = LeftView {
                    start: key_columns[block.first / 2..].as_ptr(),
                    row_stride: turned / 2,
                    depth_stride: 1,
                };
                // SAFETY: `d` rows of keys, zero beyond the last.
                unsafe { strip.product_bf16(simd, left, block.count, ds_pairs, &rows, dq, true) };
                multiples(block.lanes, d, &mut key_places);
                for (left, right, sums) in [
                    (&*dout_rows, &*p_rows, &mut *dv),
                    (&*query_rows, &*ds_rows, &mut *dk),
                ] {
                    turn_queries(simd, right, lanes, block.lanes, turned_pairs);
                    let left = LeftView {
                        start: left.as_ptr(),
                        row_stride: LANES / 2,
                        depth_stride: 1,
                    };
                    let sums = &mut sums[block.first * d..][..d * block.lanes];
                    // SAFETY: `d` rows of 64 queries.
                    unsafe {
                        block.product_bf16(
                            simd,
                            left,
                            lanes,
                            turned_pairs,
                            &key_places,
                            sums,
                            true,
                        );
                    }
                }
            }
            // SAFETY: this head's gradients of the strip's queries.
            unsafe {
                let factors = [shape.scale(); LANES];
                strip.turn_out(
                    simd,
                    &dq[..d * lanes],
                    &factors,
                    self.gradients[0],
                    at,
                    stride,
                );
            }
        }
        // The queries came with a factor for scores in units of log₂.
        for (sums, to, factor) in [(dk, self.gradients[1], LN_2), (dv, self.gradients[2], 1.0)] {
            for block in key_blocks::<S>(shape.keys) {
                let sums = &sums[block.first * d..][..d * block.lanes];
                let at = key_start + block.first * stride;
                // SAFETY: this head's gradients of the block's keys.
                unsafe { block.turn_out(simd, sums, &[factor; LANES], to, at, stride) };
            }
        }
    }
}

/// The keys in blocks, as strips.
fn key_blocks<S: Simd>(keys: usize) -> impl Iterator<Item = Strip> {
    (0..keys).step_by(LANES).map(move |first| {
        let count = LANES.min(keys - first);
        let vectors = count.div_ceil(S::LANES);
        Strip {
            first,
            count,
            vectors,
            lanes: vectors * S::LANES,
        }
    })
}

/// A block of keys and a strip of queries.
struct Scores<'a> {
    keys: usize,
    /// Pairs of channels.
    steps: usize,
    /// From a key's row to the next one's, here and in `value_rows`.
    stride: usize,
    key_rows: *const f32,
    value_rows: *const f32,
    /// `[steps][lanes]`
    query_lanes: &'a [f32],
    dout_lanes: &'a [f32],
    /// What scores and gradients of probabilities begin with: `−lse` in units of log₂, `−Σ out · dout`.
    offsets: &'a [f32],
    deltas: &'a [f32],
    /// By how many places the block's first key comes after the strip's first query, where some keys are hidden.
    hidden: Option<isize>,
    /// `[64, 64]`, of which `keys` rows and the strip's lanes are written.
    p_rows: *mut u16,
    ds_rows: *mut u16,
    /// `[keys / 2, lanes]`
    ds_pairs: *mut f32,
}

struct Differentiate<'a, const V: usize>(Scores<'a>);

impl<const V: usize> Kernel for Differentiate<'_, V> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let it = self.0;
        let lanes = V * S::LANES;
        assert!(
            it.query_lanes.len() >= it.steps * lanes && it.dout_lanes.len() >= it.steps * lanes
        );
        for pair in 0..it.keys.div_ceil(2) {
            let (queries, douts) = (it.query_lanes.as_ptr(), it.dout_lanes.as_ptr());
            let row = 2 * pair * it.stride;
            let mut p = [[simd.zero(); V]; 2];
            let mut ds = [[simd.zero(); V]; 2];
            // SAFETY: rows are kept up to a multiple of 32 keys, and the lanes were checked.
            unsafe {
                let keys = it.key_rows.add(row);
                products::<S, V>(simd, keys, it.stride, it.steps, queries, it.offsets, &mut p);
                let values = it.value_rows.add(row);
                products::<S, V>(simd, values, it.stride, it.steps, douts, it.deltas, &mut ds);
            }
            for r in 0..2 {
                for v in 0..V {
                    p[r][v] = simd.exp2(p[r][v]);
                }
                let key = 2 * pair + r;
                if key >= it.keys {
                    p[r] = [simd.zero(); V];
                } else if let Some(distance) = it.hidden {
                    hide::<S, V>(simd, distance + key as isize, &mut p[r]);
                }
                for v in 0..V {
                    ds[r][v] = simd.mul(p[r][v], ds[r][v]);
                    let at = key * LANES + v * S::LANES;
                    // SAFETY: both have rows for an even number of keys.
                    unsafe {
                        simd.store_bf16_raw(it.p_rows.add(at), p[r][v]);
                        simd.store_bf16_raw(it.ds_rows.add(at), ds[r][v]);
                    }
                }
            }
            for v in 0..V {
                let pairs = simd.pairs_bf16(ds[0][v], ds[1][v]);
                // SAFETY: as above.
                unsafe { simd.store_raw(it.ds_pairs.add(pair * lanes + v * S::LANES), pairs) }
            }
        }
    }
}

/// Two rows times `V` vectors of lanes, sums beginning with `offsets`.
///
/// # Safety
/// `rows` is valid for reading `steps` pairs at two rows `stride` apart, `panel` for `steps × V` vectors.
#[inline(always)]
unsafe fn products<S: Simd, const V: usize>(
    simd: S,
    rows: *const f32,
    stride: usize,
    steps: usize,
    panel: *const f32,
    offsets: &[f32],
    sums: &mut [[S::Vector; V]; 2],
) {
    for v in 0..V {
        sums[0][v] = simd.load(&offsets[v * S::LANES..]);
        sums[1][v] = sums[0][v];
    }
    for step in 0..steps {
        // SAFETY: by this function's contract.
        unsafe {
            let a = simd.splat(rows.add(step).read());
            let b = simd.splat(rows.add(stride + step).read());
            for v in 0..V {
                let x = simd.load_raw(panel.add((step * V + v) * S::LANES));
                sums[0][v] = simd.dot_bf16(sums[0][v], a, x);
                sums[1][v] = simd.dot_bf16(sums[1][v], b, x);
            }
        }
    }
}

/// Zero in the lanes of queries that come before a key which is `distance` places after the first lane.
#[inline(always)]
fn hide<S: Simd, const V: usize>(simd: S, distance: isize, p: &mut [S::Vector; V]) {
    let places: [f32; LANES] = std::array::from_fn(|lane| lane as f32);
    for (v, p) in p.iter_mut().enumerate() {
        let place = simd.load(&places[v * S::LANES..]);
        *p = simd.select_less(place, simd.splat(distance as f32), simd.zero(), *p);
    }
}

/// Rounds `x: [d, lanes]` to rows of 64 bf16 numbers, of which the first `lanes` are written.
#[inline(always)]
fn round_lanes<S: Simd>(simd: S, x: &[f32], lanes: usize, to: &mut [f32]) {
    for (row, to) in x.chunks_exact(lanes).zip(to.chunks_exact_mut(LANES / 2)) {
        for at in (0..lanes).step_by(S::LANES) {
            // SAFETY: `lanes` are whole vectors, at most 64.
            unsafe {
                let to = to.as_mut_ptr().cast::<u16>().add(at);
                simd.store_bf16_raw(to, simd.load(&row[at..]));
            }
        }
    }
}

/// Transposes the pairs of queries of `rows: [key_lanes][64]` in bf16 to `[lanes / 2][key_lanes]`.
#[inline(always)]
fn turn_queries<S: Simd>(simd: S, rows: &[f32], lanes: usize, key_lanes: usize, to: &mut [f32]) {
    const STRIDE: usize = LANES / 2;
    assert!(rows.len() >= key_lanes * STRIDE && to.len() >= STRIDE * key_lanes);
    for key in (0..key_lanes).step_by(16) {
        for pair in (0..lanes / 2).step_by(16) {
            // SAFETY: both have whole squares of 16 pairs by 16 keys, as was checked.
            unsafe {
                let from = rows.as_ptr().add(key * STRIDE + pair);
                let to = to.as_mut_ptr().add(pair * key_lanes + key);
                simd.transpose_raw((from, STRIDE), (to, key_lanes));
            }
        }
    }
}

#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = simd.zero();
    for_each_piece(
        simd,
        a.len(),
        #[inline(always)]
        |at| sum = simd.mul_add(at.load(a), at.load(b), sum),
    );
    simd.reduce_add(sum)
}
