//! The forward pass.

use super::strip::{Strip, multiples, skew, skewed};
use super::tiled;
use super::{AttentionShape, dot};
use crate::isa::{self, Kernel, Simd};
use crate::math::exp2_flushed;
use crate::pool::parallel_for;
use crate::profile;
use crate::scratch;
use crate::shared::SharedMut;
use std::f32::consts::{LN_2, LOG2_E};

/// Keys per block: with 64 lanes of queries their scores are 24 KiB, half of a first-level cache,
/// and 96 are whole tiles of six rows.
pub(super) const KEYS: usize = 96;

/// Scores may exceed the running maximum by this power of two before the sums are rescaled, which
/// is then rare after the first block. f32 has exponents to spare on both sides.
const SLACK: f32 = 8.0;

/// `out = softmax(q·kᵀ / √head_dim)·v`: `q, out: [batch, queries, heads · head_dim]`,
/// `k, v: [batch, keys, heads · head_dim]`. `lse: [batch, heads, queries]` receives the natural
/// logarithm of each softmax's denominator, which [`backward`](super::backward) needs.
///
/// # Panics
/// When a length does not fit the shape, or there are queries but no keys.
pub fn forward(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    shape.check();
    let AttentionShape {
        batch,
        heads,
        queries,
        keys,
        head_dim,
        ..
    } = *shape;
    assert_eq!((q.len(), out.len()), (shape.query_len(), shape.query_len()));
    assert_eq!((k.len(), v.len()), (shape.key_len(), shape.key_len()));
    if let Some(lse) = &lse {
        assert_eq!(lse.len(), batch * heads * queries);
    }
    if q.is_empty() {
        return;
    }
    let (isa, dotted) = (isa::active(), shape.dotted());
    let _note = profile::note(|| {
        let algorithm = match (shape.tiled(), dotted) {
            (true, _) => "amx bf16".into(),
            (_, true) => format!("{isa} bf16 dot"),
            (_, false) => format!("{isa} f32"),
        };
        let sizes = format!("{batch}×{heads} heads {queries}×{keys} d {head_dim}");
        let flops = 4.0 * (batch * heads * queries) as f64 * (keys * head_dim) as f64;
        (format!("attention {sizes}"), algorithm, flops)
    });
    if shape.tiled() {
        return tiled::forward(shape, q, k, v, out, lse);
    }
    if dotted {
        return dot::forward(isa, shape, q, k, v, out, lse);
    }
    let (out, lse) = (SharedMut::new(out), lse.map(SharedMut::new));
    // Some 4 MFLOP per task, tens of microseconds, in strips of 64 queries.
    let strips = (1_000_000 / (64 * keys * head_dim)).max(1);
    let block = strips * 64;
    let blocks = queries.div_ceil(block);
    parallel_for(batch * heads * blocks, |task| {
        let (head, i) = (task / blocks, task % blocks);
        // Queries, sums, scores, maxima and totals in 64 lanes; a block of values.
        let len = 64 * (2 * head_dim + KEYS + 2) + KEYS * skewed(head_dim);
        scratch::with(len, |scratch| {
            let (b, h) = (head / heads, head % heads);
            isa.run(Forward {
                target: Target {
                    shape,
                    b,
                    h,
                    out,
                    lse,
                },
                queries: i * block..queries.min((i + 1) * block),
                q,
                k,
                v,
                scratch,
            });
        });
    });
}

/// Where one head's results go.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub shape: &'a AttentionShape,
    pub b: usize,
    pub h: usize,
    /// A task writes only its head's numbers of its own queries, here and in `lse`.
    pub out: SharedMut<f32>,
    pub lse: Option<SharedMut<f32>>,
}

/// One head, a range of queries.
struct Forward<'a> {
    target: Target<'a>,
    queries: std::ops::Range<usize>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    scratch: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const { assert!(S::LANES * S::TILE_VECTORS <= 64) }
        let target = self.target;
        let (shape, b, h) = (target.shape, target.b, target.h);
        let (d, stride) = (shape.head_dim, shape.width());
        let key_start = shape.start(shape.keys, b, h);
        let (k, v) = (&self.k[key_start..], &self.v[key_start..]);
        let (queries, rest) = self.scratch.split_at_mut(64 * d);
        let (sums, rest) = rest.split_at_mut(64 * d);
        let (scores, rest) = rest.split_at_mut(64 * KEYS);
        let (maxima, rest) = rest.split_at_mut(64);
        let (totals, values) = rest.split_at_mut(64);
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
            strip.transpose(
                simd,
                &self.q[at..],
                stride,
                d,
                shape.scale() * LOG2_E,
                queries,
            );
            sums[..d * lanes].fill(0.0);
            maxima.fill(Strip::LOWEST);
            totals.fill(0.0);
            let visible = shape.visible(first);
            for start in (0..visible).step_by(KEYS) {
                let keys = KEYS.min(visible - start);
                let (k, v) = (&k[start * stride..], &v[start * stride..]);
                strip.scores(simd, keys, d, k, stride, queries, &rows, scores);
                if shape.causal && start + keys > strip.first {
                    strip.mask(start, keys, scores);
                }
                let (scores, sums) = (&mut scores[..keys * lanes], &mut sums[..d * lanes]);
                let state = Online {
                    scores,
                    sums,
                    maxima,
                    totals,
                };
                match strip.vectors {
                    1 => simd.call(Softmax::<1>(state)),
                    2 => simd.call(Softmax::<2>(state)),
                    3 => simd.call(Softmax::<3>(state)),
                    _ => simd.call(Softmax::<4>(state)),
                }
                skew(simd, v, stride, keys, d, values);
                strip.accumulate(simd, keys, d, values, skewed(d), scores, &rows, sums);
            }
            target.finish(simd, &strip, &mut sums[..d * lanes], maxima, totals);
        }
    }
}

impl Target<'_> {
    /// Divides the sums and writes them out as rows.
    #[inline(always)]
    pub fn finish<S: Simd>(
        &self,
        simd: S,
        strip: &Strip,
        sums: &mut [f32],
        maxima: &[f32],
        totals: &[f32],
    ) {
        let shape = self.shape;
        let start = shape.start(shape.queries, self.b, self.h);
        let at = start + strip.first * shape.width();
        let mut factors = [0.0; 64];
        for (factor, total) in factors.iter_mut().zip(totals) {
            *factor = 1.0 / total;
        }
        // SAFETY: this task's part, by the field's rule.
        unsafe { strip.write_rows(simd, sums, &factors, self.out, at, shape.width()) };
        if let Some(lse) = self.lse {
            let at = (self.b * shape.heads + self.h) * shape.queries + strip.first;
            // SAFETY: as above.
            let lse = unsafe { lse.slice(at, strip.count) };
            for (lane, lse) in lse.iter_mut().enumerate() {
                *lse = maxima[lane] * LN_2 + totals[lane].ln();
            }
        }
    }
}

/// The running state of a strip's softmax.
struct Online<'a> {
    /// `[keys, lanes]`: in, scores in units of log₂; out, their powers of two above the maxima.
    pub scores: &'a mut [f32],
    /// `[d, lanes]`: what has been summed so far; rescaled when the maxima move.
    pub sums: &'a mut [f32],
    pub maxima: &'a mut [f32],
    pub totals: &'a mut [f32],
}

struct Softmax<'a, const V: usize>(Online<'a>);

impl<const V: usize> Kernel for Softmax<'_, V> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (maximum, mut total) = self.0.advance::<S, V>(simd);
        for row in self.0.scores.chunks_exact_mut(V * S::LANES) {
            for v in 0..V {
                let score = &mut row[v * S::LANES..];
                let power = exp2_flushed(simd, simd.sub(simd.load(score), maximum[v]));
                total[v] = simd.add(total[v], power);
                simd.store(score, power);
            }
        }
        for (v, total) in total.into_iter().enumerate() {
            simd.store(&mut self.0.totals[v * S::LANES..], total);
        }
    }
}

impl Online<'_> {
    /// Takes the block's scores into the maxima; gives these and the totals above them so far.
    #[inline(always)]
    pub fn advance<S: Simd, const V: usize>(
        &mut self,
        simd: S,
    ) -> ([S::Vector; V], [S::Vector; V]) {
        let Online {
            scores,
            sums,
            maxima,
            totals,
        } = self;
        let mut largest = [simd.splat(Strip::LOWEST); V];
        for row in scores.chunks_exact(V * S::LANES) {
            for (v, largest) in largest.iter_mut().enumerate() {
                // Second operand: a NaN leaves the maximum alone and reaches the result by itself.
                *largest = simd.max(simd.load(&row[v * S::LANES..]), *largest);
            }
        }
        let (mut maximum, mut total) = ([simd.zero(); V], [simd.zero(); V]);
        for v in 0..V {
            let at = v * S::LANES;
            maximum[v] = simd.load(&maxima[at..]);
            total[v] = simd.load(&totals[at..]);
            if simd.reduce_max(simd.sub(largest[v], maximum[v])) > SLACK {
                let new = simd.max(largest[v], maximum[v]);
                let factor = exp2_flushed(simd, simd.sub(maximum[v], new));
                for sums in sums.chunks_exact_mut(V * S::LANES) {
                    let sums = &mut sums[at..];
                    simd.store(sums, simd.mul(simd.load(sums), factor));
                }
                total[v] = simd.mul(total[v], factor);
                maximum[v] = new;
                simd.store(&mut maxima[at..], new);
            }
        }
        (maximum, total)
    }
}
