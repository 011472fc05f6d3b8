//! Scaled dot-product attention (Vaswani et al., "Attention Is All You Need", 2017).

use super::Real;
use crate::attention::AttentionShape;

/// Where head `h` of position `i` of sample `b` starts in `[batch, positions, heads·head_dim]`.
fn at(shape: &AttentionShape, positions: usize, b: usize, i: usize, h: usize) -> usize {
    ((b * positions + i) * shape.heads + h) * shape.head_dim
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}

/// `q·kᵀ / √d` of one query with the keys that it may see.
fn scores<R: Real>(s: &AttentionShape, q: &[R], k: &[R], b: usize, h: usize, i: usize) -> Vec<R> {
    let d = s.head_dim;
    let q = &q[at(s, s.queries, b, i, h)..][..d];
    let visible = if s.causal { s.keys.min(i + 1) } else { s.keys };
    let root = R::from_usize(d).sqrt();
    (0..visible)
        .map(|j| dot(q, &k[at(s, s.keys, b, j, h)..][..d]) / root)
        .collect()
}

/// `out = softmax(q·kᵀ / √d)·v` and, if asked for, `lse = ln Σ exp(scores)`.
pub fn forward<R: Real>(
    shape: &AttentionShape,
    q: &[R],
    k: &[R],
    v: &[R],
    out: &mut [R],
    mut lse: Option<&mut [R]>,
) {
    let (s, d) = (shape, shape.head_dim);
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in 0..s.queries {
                let scores = scores(s, q, k, b, h, i);
                let max = scores.iter().fold(R::NEG_INFINITY, |m, &x| m.max(x));
                let sum: R = scores.iter().map(|&x| (x - max).exp()).sum();
                let out = &mut out[at(s, s.queries, b, i, h)..][..d];
                out.fill(R::ZERO);
                for (j, &x) in scores.iter().enumerate() {
                    let weight = (x - max).exp() / sum;
                    let v = &v[at(s, s.keys, b, j, h)..][..d];
                    for c in 0..d {
                        out[c] += weight * v[c];
                    }
                }
                if let Some(lse) = lse.as_deref_mut() {
                    lse[(b * s.heads + h) * s.queries + i] = max + sum.ln();
                }
            }
        }
    }
}

/// The gradients of [`forward`], from its output and `lse`.
#[allow(clippy::too_many_arguments)]
pub fn backward<R: Real>(
    shape: &AttentionShape,
    q: &[R],
    k: &[R],
    v: &[R],
    out: &[R],
    lse: &[R],
    dout: &[R],
    dq: &mut [R],
    dk: &mut [R],
    dv: &mut [R],
) {
    let (s, d) = (shape, shape.head_dim);
    let root = R::from_usize(d).sqrt();
    for gradient in [&mut *dq, &mut *dk, &mut *dv] {
        gradient.fill(R::ZERO);
    }
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in 0..s.queries {
                let qi = at(s, s.queries, b, i, h);
                let dout = &dout[qi..][..d];
                let delta = dot(&out[qi..][..d], dout);
                let lse = lse[(b * s.heads + h) * s.queries + i];
                for (j, &score) in scores(s, q, k, b, h, i).iter().enumerate() {
                    let kj = at(s, s.keys, b, j, h);
                    let weight = (score - lse).exp();
                    let dscore = weight * (dot(dout, &v[kj..][..d]) - delta) / root;
                    for c in 0..d {
                        dv[kj + c] += weight * dout[c];
                        dq[qi + c] += dscore * k[kj + c];
                        dk[kj + c] += dscore * q[qi + c];
                    }
                }
            }
        }
    }
}
