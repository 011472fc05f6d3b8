//! Nearest-neighbour upsampling, and the largest of four.

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

/// `out[b, i, j, c] = max(x[b, 2i..2i+2, 2j..2j+2, c])` for `x: [batch, h, w, c]`.
pub fn max_pool2x2<R: Real>(batch: usize, h: usize, w: usize, c: usize, x: &[R], out: &mut [R]) {
    each_window(batch, h, w, c, |places, at| {
        out[at] = x[largest(x, places)];
    });
}

/// The gradient of [`max_pool2x2`]: the first of the largest gets it.
pub fn max_pool2x2_backward<R: Real>(
    batch: usize,
    h: usize,
    w: usize,
    c: usize,
    x: &[R],
    dy: &[R],
    dx: &mut [R],
) {
    dx.fill(R::ZERO);
    each_window(batch, h, w, c, |places, at| {
        dx[largest(x, places)] = dy[at];
    });
}

fn largest<R: Real>(x: &[R], places: [usize; 4]) -> usize {
    let mut best = places[0];
    for place in places {
        if x[place] > x[best] {
            best = place;
        }
    }
    best
}

/// Calls `f` with the four places of each window in the input and its place in the output.
fn each_window(batch: usize, h: usize, w: usize, c: usize, mut f: impl FnMut([usize; 4], usize)) {
    for b in 0..batch {
        for i in 0..h / 2 {
            for j in 0..w / 2 {
                for k in 0..c {
                    let place = |di, dj| ((b * h + 2 * i + di) * w + 2 * j + dj) * c + k;
                    let places = [place(0, 0), place(0, 1), place(1, 0), place(1, 1)];
                    f(places, ((b * (h / 2) + i) * (w / 2) + j) * c + k);
                }
            }
        }
    }
}
