//! Nearest-neighbour upsampling by two, and the largest of four.

use crate::isa::{self, Kernel, Simd};
use crate::map::{for_each_piece, for_each_task};
use crate::profile;
use crate::shared::SharedMut;

/// `out[b, i, j, c] = x[b, i/2, j/2, c]`: `x: [batch, h, w, c]` to `out: [batch, 2h, 2w, c]`.
///
/// # Panics
/// When a length does not fit.
pub fn upsample_nearest2x(batch: usize, h: usize, w: usize, c: usize, x: &[f32], out: &mut [f32]) {
    assert_eq!(
        (x.len(), out.len()),
        (batch * h * w * c, 4 * batch * h * w * c)
    );
    if x.is_empty() {
        return;
    }
    let _note = profile::note(|| {
        (
            format!("upsample {batch}×{h}×{w}×{c}"),
            isa::active().to_string(),
            0.0,
        )
    });
    let len = out.len();
    let out = SharedMut::new(out);
    for_each_task(len, batch * h, |row| {
        let x = &x[row * w * c..][..w * c];
        // SAFETY: each row of the input has two rows of the output of its own.
        let out = unsafe { out.slice(row * 4 * w * c, 4 * w * c) };
        let (upper, lower) = out.split_at_mut(2 * w * c);
        for (pixel, pair) in x.chunks_exact(c).zip(upper.chunks_exact_mut(2 * c)) {
            let (left, right) = pair.split_at_mut(c);
            left.copy_from_slice(pixel);
            right.copy_from_slice(pixel);
        }
        lower.copy_from_slice(upper);
    });
}

/// Some rows of [`upsample_nearest2x`] of one sample: `x: [h, w, c]`, and `rows: [n, 2w, c]` are the result's
/// from row `first` on.
///
/// # Panics
/// When a length does not fit.
pub fn upsample_nearest2x_rows(first: usize, w: usize, c: usize, x: &[f32], rows: &mut [f32]) {
    let row = 2 * w * c;
    assert!(rows.len().is_multiple_of(row) && first * row + rows.len() <= 4 * x.len());
    let (len, shared) = (rows.len(), SharedMut::new(rows));
    for_each_task(len, len / row, |i| {
        let x = &x[(first + i) / 2 * w * c..][..w * c];
        // SAFETY: each task has a row of its own.
        let out = unsafe { shared.slice(i * row, row) };
        for (pixel, pair) in x.chunks_exact(c).zip(out.chunks_exact_mut(2 * c)) {
            let (left, right) = pair.split_at_mut(c);
            left.copy_from_slice(pixel);
            right.copy_from_slice(pixel);
        }
    });
}

/// The gradient of [`upsample_nearest2x`]: `dx: [batch, h, w, c]` collects the four copies' gradients
/// from `dy: [batch, 2h, 2w, c]`.
///
/// # Panics
/// When a length does not fit.
pub fn upsample_nearest2x_backward(
    batch: usize,
    h: usize,
    w: usize,
    c: usize,
    dy: &[f32],
    dx: &mut [f32],
) {
    assert_eq!(
        (dx.len(), dy.len()),
        (batch * h * w * c, 4 * batch * h * w * c)
    );
    if dx.is_empty() {
        return;
    }
    let (isa, dx) = (isa::active(), SharedMut::new(dx));
    for_each_task(dy.len(), batch * h, |row| {
        let (upper, lower) = dy[row * 4 * w * c..][..4 * w * c].split_at(2 * w * c);
        // SAFETY: each task has a row of its own.
        let dx = unsafe { dx.slice(row * w * c, w * c) };
        isa.run(Backward {
            channels: c,
            upper,
            lower,
            dx,
        });
    });
}

struct Backward<'a> {
    channels: usize,
    upper: &'a [f32],
    lower: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let c = self.channels;
        let pairs = self
            .upper
            .chunks_exact(2 * c)
            .zip(self.lower.chunks_exact(2 * c));
        for ((upper, lower), dx) in pairs.zip(self.dx.chunks_exact_mut(c)) {
            for_each_piece(
                simd,
                c,
                #[inline(always)]
                |at| {
                    let upper = simd.add(at.load(upper), at.load(&upper[c..]));
                    let lower = simd.add(at.load(lower), at.load(&lower[c..]));
                    at.store(dx, simd.add(upper, lower));
                },
            );
        }
    }
}

/// `out[b, i, j, c] = max(x[b, 2i..2i+2, 2j..2j+2, c])`: `x: [batch, h, w, c]` to `out: [batch, h/2, w/2, c]`. An odd
/// last row or column is left out, as PyTorch's `MaxPool2d(2)` does.
///
/// # Panics
/// When a length does not fit.
pub fn max_pool2x2(batch: usize, h: usize, w: usize, c: usize, x: &[f32], out: &mut [f32]) {
    let (rows, columns) = (h / 2, w / 2);
    assert_eq!(
        (x.len(), out.len()),
        (batch * h * w * c, batch * rows * columns * c)
    );
    if out.is_empty() {
        return;
    }
    let (isa, out) = (isa::active(), SharedMut::new(out));
    for_each_task(x.len(), batch * rows, |row| {
        let start = (row / rows * h + row % rows * 2) * w * c;
        let (upper, lower) = x[start..][..2 * w * c].split_at(w * c);
        isa.run(MaxPool {
            channels: c,
            upper,
            lower,
            // SAFETY: each task has a row of its own.
            out: unsafe { out.slice(row * columns * c, columns * c) },
        });
    });
}

struct MaxPool<'a> {
    channels: usize,
    upper: &'a [f32],
    lower: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for MaxPool<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let c = self.channels;
        let pairs = self
            .upper
            .chunks_exact(2 * c)
            .zip(self.lower.chunks_exact(2 * c));
        for ((upper, lower), out) in pairs.zip(self.out.chunks_exact_mut(c)) {
            for_each_piece(
                simd,
                c,
                #[inline(always)]
                |at| {
                    let upper = simd.max(at.load(upper), at.load(&upper[c..]));
                    let lower = simd.max(at.load(lower), at.load(&lower[c..]));
                    at.store(out, simd.max(upper, lower));
                },
            );
        }
    }
}

/// The gradient of [`max_pool2x2`]: `dy` goes to the largest of the four, to the first of equals.
///
/// # Panics
/// When a length does not fit.
pub fn max_pool2x2_backward(
    batch: usize,
    h: usize,
    w: usize,
    c: usize,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let (rows, columns) = (h / 2, w / 2);
    assert_eq!(
        (x.len(), dx.len(), dy.len()),
        (dx.len(), batch * h * w * c, batch * rows * columns * c)
    );
    dx.fill(0.0);
    if dy.is_empty() {
        return;
    }
    let dx = SharedMut::new(dx);
    for_each_task(x.len(), batch * rows, |row| {
        let start = (row / rows * h + row % rows * 2) * w * c;
        // SAFETY: each task has two rows of its own.
        let dx = unsafe { dx.slice(start, 2 * w * c) };
        let (x, dy) = (&x[start..][..2 * w * c], &dy[row * columns * c..]);
        for (i, &dy) in dy[..columns * c].iter().enumerate() {
            let upper = i / c * 2 * c + i % c;
            let places = [upper, upper + c, upper + w * c, upper + w * c + c];
            let mut largest = places[0];
            for place in places {
                if x[place] > x[largest] {
                    largest = place;
                }
            }
            dx[largest] = dy;
        }
    });
}
