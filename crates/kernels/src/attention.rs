//! Attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    pub batch: usize,
    pub heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub head_dim: usize,
    pub causal: bool,
}
fn scores(s: &AttentionShape, q: &[f32], k: &[f32], b: usize, h: usize, i: usize) -> Vec<f32> {
    let (d, c) = (s.head_dim, s.heads * s.head_dim);
    let n = if s.causal {
        (i + 1).min(s.keys)
    } else {
        s.keys
    };
    let q = &q[(b * s.queries + i) * c + h * d..][..d];
    (0..n)
        .map(|j| {
            let k = &k[(b * s.keys + j) * c + h * d..][..d];
            q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>() / (d as f32).sqrt()
        })
        .collect()
}
pub fn forward(
    s: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    mut lse: Option<&mut [f32]>,
) {
    let (d, c) = (s.head_dim, s.heads * s.head_dim);
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in 0..s.queries {
                let p = scores(s, q, k, b, h, i);
                let m = p.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                let z: f32 = p.iter().map(|p| (p - m).exp()).sum();
                let o = &mut out[(b * s.queries + i) * c + h * d..][..d];
                o.fill(0.0);
                for (j, p) in p.iter().enumerate() {
                    let w = (p - m).exp() / z;
                    for (o, v) in o.iter_mut().zip(&v[(b * s.keys + j) * c + h * d..][..d]) {
                        *o += w * v
                    }
                }
                if let Some(l) = lse.as_deref_mut() {
                    l[(b * s.heads + h) * s.queries + i] = m + z.ln()
                }
            }
        }
    }
}
#[allow(clippy::too_many_arguments)]
pub fn backward(
    s: &AttentionShape,
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
    let (d, c) = (s.head_dim, s.heads * s.head_dim);
    dq.fill(0.0);
    dk.fill(0.0);
    dv.fill(0.0);
    let sc = 1.0 / (d as f32).sqrt();
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in 0..s.queries {
                let qi = (b * s.queries + i) * c + h * d;
                let l = lse[(b * s.heads + h) * s.queries + i];
                let delta: f32 = (0..d).map(|t| out[qi + t] * dout[qi + t]).sum();
                for (j, p) in scores(s, q, k, b, h, i).iter().enumerate() {
                    let p = (p - l).exp();
                    let kj = (b * s.keys + j) * c + h * d;
                    let dp: f32 = (0..d).map(|t| dout[qi + t] * v[kj + t]).sum();
                    let ds = p * (dp - delta) * sc;
                    for t in 0..d {
                        dv[kj + t] += p * dout[qi + t];
                        dq[qi + t] += ds * k[kj + t];
                        dk[kj + t] += ds * q[qi + t]
                    }
                }
            }
        }
    }
}
