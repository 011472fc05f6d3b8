//! Nearest-neighbour upsampling.

use super::Real;

/// `out[b, i, j, c] = x[b, i/2, j/2, c]` for `x: [batch, h, w, c]`.
pub fn upsample_nearest2x<R: Real>(
    batch: usize,
    h: usize,
    w: usize,
    c: usize,
    x: &[R],
    out: &mut [R],
) {
    for b in 0..batch {
        for i in 0..2 * h {
            for j in 0..2 * w {
                for k in 0..c {
                    out[((b * 2 * h + i) * 2 * w + j) * c + k] =
                        x[((b * h + i / 2) * w + j / 2) * c + k];
                }
            }
        }
    }
}

/// The gradient of [`upsample_nearest2x`]: each input collects its four copies.
pub fn upsample_nearest2x_backward<R: Real>(
    batch: usize,
    h: usize,
    w: usize,
    c: usize,
    dy: &[R],
    dx: &mut [R],
) {
    dx.fill(R::ZERO);
    for b in 0..batch {
        for i in 0..2 * h {
            for j in 0..2 * w {
                for k in 0..c {
                    dx[((b * h + i / 2) * w + j / 2) * c + k] +=
                        dy[((b * 2 * h + i) * 2 * w + j) * c + k];
                }
            }
        }
    }
}
