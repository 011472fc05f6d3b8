//! The backward pass.

use super::strip::{Strip, multiples, skew, skewed};
use super::{AttentionShape, dot_backward, tiled};
use crate::gemm::tile::{Ahead, Block, F32, LeftView, Store};
use crate::isa::{self, Kernel, Simd};
use crate::map::for_each_piece;
use crate::math::exp2_flushed;
use crate::pool::parallel_for;
use crate::scratch;
use crate::shared::SharedMut;
use std::f32::consts::LOG2_E;

/// Keys per block: probabilities and their gradients for 64 lanes of queries take 12 KiB each, and
/// 48 are whole tiles of six rows.
const KEYS: usize = 48;

/// The gradients of [`forward`](super::forward) for `q`, `k` and `v`, from its inputs, its output,
/// its `lse` and the output's gradient.
///
/// # Panics
/// When a length does not fit the shape, or there are queries but no keys.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    shape.check();
    let AttentionShape {
        batch,
        heads,
        queries,
        head_dim,
        ..
    } = *shape;
    let (query_len, key_len) = (shape.query_len(), shape.key_len());
    assert_eq!(
        (q.len(), out.len(), dout.len()),
        (query_len, query_len, query_len)
    );
    assert_eq!((dq.len(), lse.len()), (query_len, batch * heads * queries));
    assert_eq!((k.len(), v.len()), (key_len, key_len));
    assert_eq!((dk.len(), dv.len()), (key_len, key_len));
    if shape.tiled() && !q.is_empty() {
        return tiled::backward(shape, [q, k, v], out, lse, dout, [dq, dk, dv]);
    }
    if shape.dotted() && !q.is_empty() {
        let isa = isa::active();
        return dot_backward::backward(isa, shape, [q, k, v], out, lse, dout, [dq, dk, dv]);
    }
    dk.fill(0.0);
    dv.fill(0.0);
    if q.is_empty() {
        return;
    }
    let isa = isa::active();
    let [dq, dk, dv] = [dq, dk, dv].map(SharedMut::new);
    parallel_for(batch * heads, |head| {
        // Queries and output gradients in lanes and in rows (padded to whole vectors), sums for dq,
        // two blocks of scores, log-sum-exps and deltas; a block of keys.
        let len =
            64 * (3 * head_dim + 2 * (head_dim + 15) + 2 * KEYS + 2) + KEYS * skewed(head_dim);
        scratch::with(len, |scratch| {
            let (b, h) = (head / heads, head % heads);
            isa.run(Backward {
                shape,
                b,
                h,
                q,
                k,
                v,
                out,
                lse,
                dout,
                dq,
                dk,
                dv,
                scratch,
            });
        });
    });
}

/// One head.
struct Backward<'a> {
    shape: &'a AttentionShape,
    b: usize,
    h: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
    dout: &'a [f32],
    /// Only the head's numbers are written, here and in the next two.
    dq: SharedMut<f32>,
    dk: SharedMut<f32>,
    dv: SharedMut<f32>,
    scratch: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const { assert!(S::LANES * S::TILE_VECTORS <= 64 && S::LANES <= 16) }
        let (shape, d, stride) = (self.shape, self.shape.head_dim, self.shape.width());
        let padded = d.next_multiple_of(S::LANES);
        let query_start = shape.start(shape.queries, self.b, self.h);
        let key_start = shape.start(shape.keys, self.b, self.h);
        let (k, v) = (&self.k[key_start..], &self.v[key_start..]);
        let (queries, rest) = self.scratch.split_at_mut(64 * d);
        let (gradients, rest) = rest.split_at_mut(64 * d);
        let (sums, rest) = rest.split_at_mut(64 * d);
        let (query_rows, rest) = rest.split_at_mut(64 * padded);
        let (gradient_rows, rest) = rest.split_at_mut(64 * padded);
        let (scores, rest) = rest.split_at_mut(64 * KEYS);
        let (dscores, rest) = rest.split_at_mut(64 * KEYS);
        let (lse, rest) = rest.split_at_mut(64);
        let (deltas, near_keys) = rest.split_at_mut(64);
        // This task's alone, by the fields' rule.
        let all_keys = || (0..shape.keys).map(|key| key * stride);
        let [dk, dv] = [self.dk, self.dv].map(|to| to.rows(key_start, all_keys(), d));
        let (mut rows, mut lanes, mut key_rows) = (Vec::new(), 0, Vec::new());
        multiples(stride, KEYS, &mut key_rows);
        let mut first = 0;
        while first < shape.queries {
            let strip = Strip::new::<S>(first, shape.queries);
            first += strip.count;
            if lanes != strip.lanes {
                lanes = strip.lanes;
                multiples(lanes, d.max(KEYS), &mut rows);
            }
            let at = query_start + strip.first * stride;
            let (q, dout) = (&self.q[at..], &self.dout[at..]);
            strip.transpose(simd, q, stride, d, shape.scale() * LOG2_E, queries);
            strip.transpose(simd, dout, stride, d, 1.0, gradients);
            pack_rows(simd, q, stride, strip.count, d, query_rows);
            pack_rows(simd, dout, stride, strip.count, d, gradient_rows);
            sums[..d * lanes].fill(0.0);
            let all = &self.lse[(self.b * shape.heads + self.h) * shape.queries..];
            lse.fill(0.0);
            deltas.fill(0.0);
            for lane in 0..strip.count {
                lse[lane] = all[strip.first + lane] * LOG2_E;
                deltas[lane] = dot(
                    simd,
                    &self.out[at + lane * stride..][..d],
                    &dout[lane * stride..][..d],
                );
            }
            let visible = shape.visible(first);
            for start in (0..visible).step_by(KEYS) {
                let keys = KEYS.min(visible - start);
                let (k, v) = (&k[start * stride..], &v[start * stride..]);
                strip.scores(simd, keys, d, k, stride, queries, &rows, scores);
                strip.scores(simd, keys, d, v, stride, gradients, &rows, dscores);
                if shape.causal && start + keys > strip.first {
                    strip.mask(start, keys, scores);
                }
                simd.call(Differentiate {
                    lanes,
                    scale: shape.scale(),
                    scores: &mut scores[..keys * lanes],
                    dscores: &mut dscores[..keys * lanes],
                    lse,
                    deltas,
                });
                skew(simd, k, stride, keys, d, near_keys);
                strip.accumulate(simd, keys, d, near_keys, skewed(d), dscores, &rows, sums);
                for (left, right, out) in [
                    (&*scores, &*gradient_rows, dv),
                    (&*dscores, &*query_rows, dk),
                ] {
                    // SAFETY: only this head's numbers of these rows are written, which are this
                    // task's alone.
                    unsafe {
                        let out = out.wrapping_add(start * stride);
                        add_rows(simd, &strip, &key_rows[..keys], d, left, right, out);
                    }
                }
            }
            // SAFETY: this task's part, by the field's rule.
            let sums = &mut sums[..d * lanes];
            unsafe { strip.write_rows(simd, sums, &[1.0; 64], self.dq, at, stride) };
        }
    }
}

/// Copies `count` rows of `d` numbers, `stride` apart, into panels: for every `TILE_VECTORS` vectors
/// of columns (fewer in the last panel) `[count, columns]`, zeros beyond `d`.
#[inline(always)]
fn pack_rows<S: Simd>(simd: S, x: &[f32], stride: usize, count: usize, d: usize, to: &mut [f32]) {
    let mut panel = 0;
    for first in (0..d).step_by(S::TILE_VECTORS * S::LANES) {
        let columns = (d - first).min(S::TILE_VECTORS * S::LANES);
        let width = columns.next_multiple_of(S::LANES);
        for (i, row) in to[panel..][..count * width]
            .chunks_exact_mut(width)
            .enumerate()
        {
            row[width - S::LANES..].fill(0.0);
            let x = &x[i * stride + first..][..columns];
            for_each_piece(
                simd,
                columns,
                #[inline(always)]
                |at| at.store(row, at.load(x)),
            );
        }
        panel += count * width;
    }
}

/// `out[rows[j]..][..d] += left: [keys, lanes] · right`, over the strip's queries; `right` comes from
/// [`pack_rows`].
///
/// # Safety
/// `out` is valid for reading and writing `d` numbers at every place of `rows`, and nobody else uses
/// them.
#[inline(always)]
unsafe fn add_rows<S: Simd>(
    simd: S,
    strip: &Strip,
    rows: &[usize],
    d: usize,
    left: &[f32],
    right: &[f32],
    out: *mut f32,
) {
    assert!(left.len() >= rows.len() * strip.lanes);
    assert!(right.len() >= strip.count * d.next_multiple_of(S::LANES));
    let mut panel = 0;
    for first in (0..d).step_by(S::TILE_VECTORS * S::LANES) {
        let columns = (d - first).min(S::TILE_VECTORS * S::LANES);
        let vectors = columns.div_ceil(S::LANES);
        let start = right[panel..].as_ptr();
        let block = Block {
            depth: strip.count,
            left: LeftView {
                start: left.as_ptr(),
                row_stride: strip.lanes,
                depth_stride: 1,
            },
            panel: start,
            vectors,
            prefetch: start,
            ahead: [Ahead::NONE; 2],
            store: Store::plain(out.wrapping_add(first), rows, columns, true),
        };
        // SAFETY: the lengths of both sides were checked above, the caller vouches for `out`.
        unsafe { block.run::<S, F32>(simd) };
        panel += strip.count * vectors * S::LANES;
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

/// Scores (in units of log₂) become probabilities, `p = 2^(score − lse)`, and gradients of the
/// probabilities become gradients of the scores, `p · (dp − delta) · scale`.
struct Differentiate<'a> {
    lanes: usize,
    scale: f32,
    scores: &'a mut [f32],
    dscores: &'a mut [f32],
    lse: &'a [f32],
    deltas: &'a [f32],
}

impl Kernel for Differentiate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let scale = simd.splat(self.scale);
        let rows = self.scores.chunks_exact_mut(self.lanes);
        for (score, dscore) in rows.zip(self.dscores.chunks_exact_mut(self.lanes)) {
            for_each_piece(
                simd,
                self.lanes,
                #[inline(always)]
                |at| {
                    let p = exp2_flushed(simd, simd.sub(at.load(score), at.load(self.lse)));
                    let d = simd.mul(simd.sub(at.load(dscore), at.load(self.deltas)), scale);
                    at.store(score, p);
                    at.store(dscore, simd.mul(p, d));
                },
            );
        }
    }
}
