//! Resampling.
pub fn upsample_nearest2x(batch: usize, h: usize, w: usize, c: usize, x: &[f32], out: &mut [f32]) {
    for b in 0..batch {
        for i in 0..2 * h {
            for j in 0..2 * w {
                let o = ((b * 2 * h + i) * 2 * w + j) * c;
                let f = ((b * h + i / 2) * w + j / 2) * c;
                out[o..o + c].copy_from_slice(&x[f..f + c])
            }
        }
    }
}
pub fn upsample_nearest2x_backward(
    batch: usize,
    h: usize,
    w: usize,
    c: usize,
    dy: &[f32],
    dx: &mut [f32],
) {
    dx.fill(0.0);
    for b in 0..batch {
        for i in 0..2 * h {
            for j in 0..2 * w {
                let o = ((b * 2 * h + i) * 2 * w + j) * c;
                let f = ((b * h + i / 2) * w + j / 2) * c;
                for t in 0..c {
                    dx[f + t] += dy[o + t]
                }
            }
        }
    }
}
