//! Element-wise arithmetic and sums.

use super::Real;

/// `out = a + b`
pub fn add<R: Real>(a: &[R], b: &[R], out: &mut [R]) {
    for i in 0..out.len() {
        out[i] = a[i] + b[i];
    }
}

/// `out = a − b`
pub fn sub<R: Real>(a: &[R], b: &[R], out: &mut [R]) {
    for i in 0..out.len() {
        out[i] = a[i] - b[i];
    }
}

/// `out = a · b`
pub fn mul<R: Real>(a: &[R], b: &[R], out: &mut [R]) {
    for i in 0..out.len() {
        out[i] = a[i] * b[i];
    }
}

/// `out = s · x`
pub fn scale<R: Real>(x: &[R], s: R, out: &mut [R]) {
    for i in 0..out.len() {
        out[i] = x[i] * s;
    }
}

/// `y += s · x`
pub fn axpy<R: Real>(s: R, x: &[R], y: &mut [R]) {
    for i in 0..y.len() {
        y[i] += s * x[i];
    }
}

/// `out = eˣ`
pub fn exp<R: Real>(x: &[R], out: &mut [R]) {
    for i in 0..out.len() {
        out[i] = x[i].exp();
    }
}

/// `out[b, s, c] = x[b, s, c] + e[b, c]`
pub fn add_channels<R: Real>(
    batch: usize,
    spatial: usize,
    channels: usize,
    x: &[R],
    e: &[R],
    out: &mut [R],
) {
    for b in 0..batch {
        for s in 0..spatial {
            for c in 0..channels {
                let i = (b * spatial + s) * channels + c;
                out[i] = x[i] + e[b * channels + c];
            }
        }
    }
}

/// `out[c] = Σ_r x[r, c]`
pub fn sum_rows<R: Real>(rows: usize, cols: usize, x: &[R], out: &mut [R]) {
    out.fill(R::ZERO);
    for r in 0..rows {
        for c in 0..cols {
            out[c] += x[r * cols + c];
        }
    }
}

/// `Σ x`
pub fn sum<R: Real>(x: &[R]) -> f64 {
    x.iter().map(|x| x.to_f64()).sum()
}

/// `Σ x²`
pub fn sum_squares<R: Real>(x: &[R]) -> f64 {
    x.iter().map(|x| x.to_f64() * x.to_f64()).sum()
}
