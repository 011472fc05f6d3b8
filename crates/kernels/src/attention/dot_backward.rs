//! The backward pass with bf16 dot products.
//!
//! Strips of queries stand in the lanes, keys in the rows, as in `dot`, whose products of queries and keys are these, bit
//! by bit: the probabilities are those of the forward pass. Two keys at a time, the probabilities `p = 2^(s − lse)` and
//! the gradients `p · (dp − delta)` of their scores are made in registers, and leave them as bf16: in rows of queries
//! for the sums over queries, `dV = Pᵀ·dO` and `dK = dSᵀ·Q`, and as pairs of keys for that over keys, `dQᵀ = Kᵀ·dSᵀ`.

use super::AttentionShape;
use super::rounded::{pair_rows, round_rows, round_up, turn, turned_stride};
use super::strip::{Strip, multiples};
use crate::gemm::panels::Panels;
use crate::gemm::tile::{self, Block, LeftView, Store};
use crate::isa::{Isa, Kernel, Simd};
use crate::map::for_each_piece;
use crate::math::exp2_for_bf16;
use crate::pool::{SharedMut, parallel_for};
use crate::scratch;
use std::f32::consts::LOG2_E;

/// Keys per block: with 64 lanes of queries probabilities and gradients take 12 KiB each, the gradients twice, and 96
/// are whole tiles of six rows.
const KEYS: usize = 96;

/// Queries per strip at most, and from one row of probabilities to the next.
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
        let turned = turned_stride(shape.keys);
        let panels = Panels::new(d, S::LANES, S::TILE_VECTORS);
        let padded = panels.padded();
        let key_start = shape.start(shape.keys, self.b, self.h);
        let query_start = shape.start(shape.queries, self.b, self.h);
        let [q, k, v] = self.qkv;
        let mut memory = scratch::lease(
            keys * width
                + turned * width / 2
                + 2 * shape.keys * padded
                + LANES * (2 * even + d + padded)
                + LANES * 3 * KEYS / 2
                + 2 * LANES,
        );
        let mut rest = &mut memory[..];
        let mut take = |len: usize| {
            let (taken, others) = std::mem::take(&mut rest).split_at_mut(len);
            rest = others;
            taken
        };
        // Keys and values as rows of bf16, keys transposed; the gradients of both, `[keys, padded]`.
        let key_rows = take(keys * width / 2).as_mut_ptr();
        let value_rows = take(keys * width / 2).as_mut_ptr();
        let key_columns = take(turned * width / 2).as_mut_ptr();
        let (dk, dv) = (take(shape.keys * padded), take(shape.keys * padded));
        // A strip of queries and output gradients in lanes, pairs of channels; the gradient of the queries in lanes.
        let (query_lanes, dout_lanes) = (take(LANES * even), take(LANES * even));
        let dq = take(LANES * d);
        // The strip's queries and output gradients as pairs of rows.
        let (query_pairs, dout_pairs) = (take(LANES / 2 * padded), take(LANES / 2 * padded));
        // A block's probabilities and gradients of scores, `[KEYS, 64]` in bf16, and the latter in pairs of keys.
        let (p_rows, ds_rows) = (take(LANES * KEYS / 2), take(LANES * KEYS / 2));
        let ds_pairs = take(LANES * KEYS / 2);
        let (offsets, deltas) = (take(LANES), take(LANES));
        // SAFETY: the scratch was cut to these sizes.
        unsafe {
            let size = (shape.keys, d);
            let rows = key_rows.cast::<u16>();
            round_rows(simd, &k[key_start..], stride, size, 1.0, rows);
            turn(simd, rows, (keys, width), key_columns.cast(), turned);
            let rows = value_rows.cast::<u16>();
            round_rows(simd, &v[key_start..], stride, size, 1.0, rows);
        }
        let (mut rows, mut lanes, mut key_places) = (Vec::new(), 0, Vec::new());
        multiples(padded, KEYS, &mut key_places);
        let mut first = 0;
        while first < shape.queries {
            let strip = Strip::new::<S>(first, shape.queries);
            first += strip.count;
            if lanes != strip.lanes {
                lanes = strip.lanes;
                multiples(lanes, d, &mut rows);
            }
            let at = query_start + strip.first * stride;
            let (q, dout) = (&q[at..], &self.dout[at..]);
            strip.transpose(q, stride, d, shape.scale() * LOG2_E, query_lanes);
            pair_rows(simd, &mut query_lanes[..even * lanes], d, lanes);
            strip.transpose(dout, stride, d, 1.0, dout_lanes);
            pair_rows(simd, &mut dout_lanes[..even * lanes], d, lanes);
            pair_queries(simd, &strip, q, stride, &panels, query_pairs);
            pair_queries(simd, &strip, dout, stride, &panels, dout_pairs);
            offsets.fill(0.0);
            deltas.fill(0.0);
            let all = &self.lse[(self.b * shape.heads + self.h) * shape.queries..];
            for lane in 0..strip.count {
                offsets[lane] = -all[strip.first + lane] * LOG2_E;
                let out = &self.out[at + lane * stride..][..d];
                deltas[lane] = -dot(simd, out, &dout[lane * stride..][..d]);
            }
            dq[..d * lanes].fill(0.0);
            let visible = shape.visible(first);
            for start in (0..visible).step_by(KEYS) {
                let count = KEYS.min(visible - start);
                let scores = Scores {
                    keys: count,
                    steps: even / 2,
                    stride: width / 2,
                    key_rows: key_rows.wrapping_add(start * width / 2),
                    value_rows: value_rows.wrapping_add(start * width / 2),
                    query_lanes,
                    dout_lanes,
                    offsets,
                    deltas,
                    hidden: (shape.causal && start + count > strip.first)
                        .then(|| start as isize - strip.first as isize),
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
                    start: key_columns.wrapping_add(start / 2),
                    row_stride: turned / 2,
                    depth_stride: 1,
                };
                // SAFETY: `d` rows of keys, zero beyond the last.
                unsafe { strip.product_bf16(simd, left, count, ds_pairs, &rows[..d], dq, true) };
                for (left, right, sums) in [
                    (&*p_rows, &*dout_pairs, &mut *dv),
                    (&*ds_rows, &*query_pairs, &mut *dk),
                ] {
                    let sums = &mut sums[start * padded..][..count * padded];
                    let places = &key_places[..count];
                    // The first strip sees as few keys as any: what it leaves out, a later one sets.
                    let seen = match shape.causal {
                        true => shape.visible(strip.first).saturating_sub(start).min(count),
                        false if strip.first == 0 => 0,
                        false => count,
                    };
                    sums[seen * padded..].fill(0.0);
                    add_queries(simd, &strip, &panels, left, right, places, sums);
                }
            }
            // SAFETY: this head's gradients of the strip's queries.
            unsafe {
                let factors = [shape.scale(); LANES];
                strip.write_rows(&dq[..d * lanes], &factors, self.gradients[0], at, stride);
            }
        }
        let seen = shape.visible(shape.queries);
        for (sums, to, scale) in [
            (dk, self.gradients[1], shape.scale()),
            (dv, self.gradients[2], 1.0),
        ] {
            for (key, sums) in sums.chunks_exact(padded).enumerate() {
                // SAFETY: this head's numbers of one key.
                let to = unsafe { to.slice(key_start + key * stride, d) };
                if key >= seen {
                    to.fill(0.0);
                    continue;
                }
                for (to, sum) in to.iter_mut().zip(sums) {
                    *to = sum * scale;
                }
            }
        }
    }
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
    /// `[keys, 64]`
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
                    p[r][v] = exp2_for_bf16(simd, p[r][v]);
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

/// Pairs of neighbouring queries' rows, zero beyond the last: for each panel of channels `[lanes / 2][width]`.
#[inline(always)]
fn pair_queries<S: Simd>(
    simd: S,
    strip: &Strip,
    x: &[f32],
    stride: usize,
    panels: &Panels,
    to: &mut [f32],
) {
    let pairs = strip.lanes / 2;
    for index in 0..panels.count {
        let panel = panels.get(index);
        let row = |query: usize| match query < strip.count {
            true => &x[query * stride + panel.start..][..panel.columns],
            false => &[],
        };
        let to = &mut to[panel.start * pairs..][..pairs * panel.width];
        for (pair, to) in to.chunks_exact_mut(panel.width).enumerate() {
            let (low, high) = (row(2 * pair), row(2 * pair + 1));
            for at in (0..panel.width).step_by(S::LANES) {
                let low = simd.load_partial(low.get(at..).unwrap_or(&[]));
                let high = simd.load_partial(high.get(at..).unwrap_or(&[]));
                simd.store(&mut to[at..], simd.pairs_bf16(low, high));
            }
        }
    }
}

/// `sums: [keys, padded] += left: [keys, lanes] · right`, over the strip's queries; `right` comes from [`pair_queries`].
#[inline(always)]
fn add_queries<S: Simd>(
    simd: S,
    strip: &Strip,
    panels: &Panels,
    left: &[f32],
    right: &[f32],
    places: &[usize],
    sums: &mut [f32],
) {
    let pairs = strip.lanes / 2;
    assert!(left.len() >= places.len() * LANES / 2 && right.len() >= pairs * panels.padded());
    assert!(sums.len() >= places.len() * panels.padded());
    for index in 0..panels.count {
        let panel = panels.get(index);
        let packed = right[panel.start * pairs..].as_ptr();
        let block = Block {
            depth: strip.lanes,
            left: LeftView {
                start: left.as_ptr(),
                row_stride: LANES / 2,
                depth_stride: 1,
            },
            panel: packed,
            vectors: panel.vectors,
            prefetch: packed,
            store: Store::plain(sums[panel.start..].as_mut_ptr(), places, panel.width, true),
        };
        // SAFETY: the lengths of all three were checked.
        unsafe { block.run::<S, { tile::DOT }>(simd) }
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
