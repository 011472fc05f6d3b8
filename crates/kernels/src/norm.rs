//! Norms.
#[derive(Clone, Copy, Debug)]
pub struct GroupNormShape {
    pub batch: usize,
    pub spatial: usize,
    pub channels: usize,
    pub groups: usize,
}
fn sig(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
#[allow(clippy::too_many_arguments)]
pub fn group_norm(
    s: &GroupNormShape,
    eps: f32,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    silu: bool,
    out: &mut [f32],
    stats: &mut [f32],
) {
    let cg = s.channels / s.groups;
    for b in 0..s.batch {
        for g in 0..s.groups {
            let at = |i: usize, c: usize| (b * s.spatial + i) * s.channels + g * cg + c;
            let n = (s.spatial * cg) as f64;
            let mut m = 0f64;
            for i in 0..s.spatial {
                for c in 0..cg {
                    m += x[at(i, c)] as f64
                }
            }
            m /= n;
            let mut v = 0f64;
            for i in 0..s.spatial {
                for c in 0..cg {
                    v += (x[at(i, c)] as f64 - m).powi(2)
                }
            }
            v /= n;
            let r = (1.0 / (v + eps as f64).sqrt()) as f32;
            let m = m as f32;
            stats[(b * s.groups + g) * 2] = m;
            stats[(b * s.groups + g) * 2 + 1] = r;
            for i in 0..s.spatial {
                for c in 0..cg {
                    let y = (x[at(i, c)] - m) * r * gamma[g * cg + c] + beta[g * cg + c];
                    out[at(i, c)] = if silu { y * sig(y) } else { y }
                }
            }
        }
    }
}
#[allow(clippy::too_many_arguments)]
pub fn group_norm_backward(
    s: &GroupNormShape,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    stats: &[f32],
    silu: bool,
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let cg = s.channels / s.groups;
    dgamma.fill(0.0);
    dbeta.fill(0.0);
    for b in 0..s.batch {
        for g in 0..s.groups {
            let at = |i: usize, c: usize| (b * s.spatial + i) * s.channels + g * cg + c;
            let (m, r) = (
                stats[(b * s.groups + g) * 2],
                stats[(b * s.groups + g) * 2 + 1],
            );
            let n = (s.spatial * cg) as f64;
            let (mut s1, mut s2) = (0f64, 0f64);
            let d = |i: usize, c: usize| {
                let k = at(i, c);
                let h = (x[k] - m) * r;
                let y = h * gamma[g * cg + c] + beta[g * cg + c];
                let q = sig(y);
                (
                    h,
                    if silu {
                        dy[k] * (q + y * q * (1.0 - q))
                    } else {
                        dy[k]
                    },
                )
            };
            for i in 0..s.spatial {
                for c in 0..cg {
                    let (h, e) = d(i, c);
                    dgamma[g * cg + c] += e * h;
                    dbeta[g * cg + c] += e;
                    let e = e * gamma[g * cg + c];
                    s1 += e as f64;
                    s2 += (e * h) as f64
                }
            }
            let (s1, s2) = ((s1 / n) as f32, (s2 / n) as f32);
            for i in 0..s.spatial {
                for c in 0..cg {
                    let (h, e) = d(i, c);
                    dx[at(i, c)] = r * (e * gamma[g * cg + c] - s1 - h * s2)
                }
            }
        }
    }
}
#[allow(clippy::too_many_arguments)]
pub fn layer_norm(
    rows: usize,
    cols: usize,
    eps: f32,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    out: &mut [f32],
    stats: &mut [f32],
) {
    for i in 0..rows {
        let x = &x[i * cols..][..cols];
        let n = cols as f64;
        let m = x.iter().map(|&x| x as f64).sum::<f64>() / n;
        let v = x.iter().map(|&x| (x as f64 - m).powi(2)).sum::<f64>() / n;
        let (m, r) = (m as f32, (1.0 / (v + eps as f64).sqrt()) as f32);
        stats[2 * i] = m;
        stats[2 * i + 1] = r;
        for c in 0..cols {
            out[i * cols + c] = (x[c] - m) * r * gamma[c] + beta[c]
        }
    }
}
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward(
    rows: usize,
    cols: usize,
    x: &[f32],
    gamma: &[f32],
    stats: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    dgamma.fill(0.0);
    dbeta.fill(0.0);
    for i in 0..rows {
        let (x, dy) = (&x[i * cols..][..cols], &dy[i * cols..][..cols]);
        let (m, r) = (stats[2 * i], stats[2 * i + 1]);
        let (mut s1, mut s2) = (0f64, 0f64);
        for c in 0..cols {
            let h = (x[c] - m) * r;
            dgamma[c] += dy[c] * h;
            dbeta[c] += dy[c];
            s1 += (dy[c] * gamma[c]) as f64;
            s2 += (dy[c] * gamma[c] * h) as f64
        }
        let (s1, s2) = ((s1 / cols as f64) as f32, (s2 / cols as f64) as f32);
        for c in 0..cols {
            let h = (x[c] - m) * r;
            dx[i * cols + c] = r * (dy[c] * gamma[c] - s1 - h * s2)
        }
    }
}
