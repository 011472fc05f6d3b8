//! Group and layer normalisation.

use super::Real;
use super::activation::{derivative, value};
use crate::activation::Activation;
use crate::norm::GroupNormShape;

/// Mean and reciprocal deviation, 1/√(variance + eps), of the numbers that `x` yields.
fn moments<R: Real>(eps: R, x: impl Iterator<Item = R> + Clone) -> (R, R) {
    let n = R::from_usize(x.clone().count());
    let mean = x.clone().sum::<R>() / n;
    let variance = x.map(|x| (x - mean) * (x - mean)).sum::<R>() / n;
    (mean, R::ONE / (variance + eps).sqrt())
}

/// The indices of group `g` of sample `b` in `[batch, spatial, channels]`, with their channels.
fn members(
    shape: &GroupNormShape,
    b: usize,
    g: usize,
) -> impl Iterator<Item = (usize, usize)> + Clone {
    let GroupNormShape {
        spatial,
        channels,
        groups,
        ..
    } = *shape;
    let size = channels / groups;
    (0..spatial).flat_map(move |s| {
        (g * size..(g + 1) * size).map(move |c| ((b * spatial + s) * channels + c, c))
    })
}

/// `out = act((x − mean) · rstd · gamma + beta)` with the moments of each group of each sample.
#[allow(clippy::too_many_arguments)]
pub fn group_norm<R: Real>(
    shape: &GroupNormShape,
    eps: R,
    x: &[R],
    gamma: &[R],
    beta: &[R],
    silu: bool,
    out: &mut [R],
    stats: &mut [R],
) {
    for b in 0..shape.batch {
        for g in 0..shape.groups {
            let (mean, rstd) = moments(eps, members(shape, b, g).map(|(i, _)| x[i]));
            let at = (b * shape.groups + g) * 2;
            (stats[at], stats[at + 1]) = (mean, rstd);
            for (i, c) in members(shape, b, g) {
                let y = (x[i] - mean) * rstd * gamma[c] + beta[c];
                out[i] = if silu { value(Activation::Silu, y) } else { y };
            }
        }
    }
}

/// The gradients of [`group_norm`].
#[allow(clippy::too_many_arguments)]
pub fn group_norm_backward<R: Real>(
    shape: &GroupNormShape,
    x: &[R],
    gamma: &[R],
    beta: &[R],
    stats: &[R],
    silu: bool,
    dy: &[R],
    dx: &mut [R],
    dgamma: &mut [R],
    dbeta: &mut [R],
) {
    dgamma.fill(R::ZERO);
    dbeta.fill(R::ZERO);
    for b in 0..shape.batch {
        for g in 0..shape.groups {
            let at = (b * shape.groups + g) * 2;
            let (mean, rstd) = (stats[at], stats[at + 1]);
            let (mut sum, mut dot, mut n) = (R::ZERO, R::ZERO, R::ZERO);
            for (i, c) in members(shape, b, g) {
                let normal = (x[i] - mean) * rstd;
                let d = if silu {
                    dy[i] * derivative(Activation::Silu, normal * gamma[c] + beta[c])
                } else {
                    dy[i]
                };
                dgamma[c] += d * normal;
                dbeta[c] += d;
                sum += d * gamma[c];
                dot += d * gamma[c] * normal;
                n += R::ONE;
                dx[i] = d * gamma[c];
            }
            for (i, _) in members(shape, b, g) {
                let normal = (x[i] - mean) * rstd;
                dx[i] = rstd * (dx[i] - sum / n - normal * dot / n);
            }
        }
    }
}

/// `out = (x − mean) · rstd · gamma + beta` with the moments of each row.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm<R: Real>(
    rows: usize,
    cols: usize,
    eps: R,
    x: &[R],
    gamma: &[R],
    beta: &[R],
    out: &mut [R],
    stats: &mut [R],
) {
    for r in 0..rows {
        let x = &x[r * cols..][..cols];
        let (mean, rstd) = moments(eps, x.iter().copied());
        (stats[2 * r], stats[2 * r + 1]) = (mean, rstd);
        for c in 0..cols {
            out[r * cols + c] = (x[c] - mean) * rstd * gamma[c] + beta[c];
        }
    }
}

/// The gradients of [`layer_norm`].
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward<R: Real>(
    rows: usize,
    cols: usize,
    x: &[R],
    gamma: &[R],
    stats: &[R],
    dy: &[R],
    dx: &mut [R],
    dgamma: &mut [R],
    dbeta: &mut [R],
) {
    dgamma.fill(R::ZERO);
    dbeta.fill(R::ZERO);
    let n = R::from_usize(cols);
    for r in 0..rows {
        let (mean, rstd) = (stats[2 * r], stats[2 * r + 1]);
        let normal = |c: usize| (x[r * cols + c] - mean) * rstd;
        let (mut sum, mut dot) = (R::ZERO, R::ZERO);
        for c in 0..cols {
            let d = dy[r * cols + c];
            dgamma[c] += d * normal(c);
            dbeta[c] += d;
            sum += d * gamma[c];
            dot += d * gamma[c] * normal(c);
        }
        for c in 0..cols {
            dx[r * cols + c] = rstd * (dy[r * cols + c] * gamma[c] - sum / n - normal(c) * dot / n);
        }
    }
}

/// `out[r] = x[r] / (‖x[r]‖ + eps)`
pub fn unit_rows<R: Real>(cols: usize, eps: R, x: &[R], out: &mut [R]) {
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
        let length = x.iter().map(|&x| x * x).sum::<R>().sqrt();
        for c in 0..cols {
            out[c] = x[c] / (length + eps);
        }
    }
}

/// The gradient of [`unit_rows`]; the length of a row of zeros has no slope.
pub fn unit_rows_backward<R: Real>(cols: usize, eps: R, x: &[R], dy: &[R], dx: &mut [R]) {
    for (r, x) in x.chunks_exact(cols).enumerate() {
        let (dy, dx) = (&dy[r * cols..][..cols], &mut dx[r * cols..][..cols]);
        let length = x.iter().map(|&x| x * x).sum::<R>().sqrt();
        let dot = x.iter().zip(dy).map(|(&x, &dy)| x * dy).sum::<R>();
        let n = length + eps;
        for c in 0..cols {
            let along = match length > R::ZERO {
                true => x[c] * dot / (length * n * n),
                false => R::ZERO,
            };
            dx[c] = dy[c] / n - along;
        }
    }
}
