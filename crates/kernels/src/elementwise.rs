//! Element by element.
pub fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = a + b
    }
}
pub fn sub(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = a - b
    }
}
pub fn mul(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = a * b
    }
}
pub fn scale(x: &[f32], s: f32, out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = x * s
    }
}
pub fn axpy(s: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += s * x
    }
}
pub fn exp(x: &[f32], out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = x.exp()
    }
}
pub fn add_channels(
    batch: usize,
    spatial: usize,
    channels: usize,
    x: &[f32],
    e: &[f32],
    out: &mut [f32],
) {
    for b in 0..batch {
        for s in 0..spatial {
            for c in 0..channels {
                let i = (b * spatial + s) * channels + c;
                out[i] = x[i] + e[b * channels + c]
            }
        }
    }
}
pub fn sum_rows(_rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for r in x.chunks_exact(cols) {
        for (o, x) in out.iter_mut().zip(r) {
            *o += x
        }
    }
}
pub fn sum(x: &[f32]) -> f64 {
    x.iter().map(|&x| x as f64).sum()
}
pub fn sum_squares(x: &[f32]) -> f64 {
    x.iter().map(|&x| x as f64 * x as f64).sum()
}
pub fn all_finite(x: &[f32]) -> bool {
    x.iter().all(|x| x.is_finite())
}
