//! Activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    Gelu,
    QuickGelu,
}
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}
fn dgelu(x: f32) -> f32 {
    0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
        + x * (-0.5 * x * x).exp() * 0.398_942_3
}
pub fn forward(act: Activation, x: &[f32], out: &mut [f32]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = match act {
            Activation::Silu => x * sigmoid(x),
            Activation::Gelu => gelu(x),
            Activation::QuickGelu => x * sigmoid(1.702 * x),
        }
    }
}
pub fn backward(act: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let s = |x: f32, k: f32| {
        let s = sigmoid(k * x);
        s + k * x * s * (1.0 - s)
    };
    for ((d, &x), dy) in dx.iter_mut().zip(x).zip(dy) {
        *d = dy
            * match act {
                Activation::Silu => s(x, 1.0),
                Activation::Gelu => dgelu(x),
                Activation::QuickGelu => s(x, 1.702),
            }
    }
}
pub fn geglu(rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    for r in 0..rows {
        for c in 0..cols {
            out[r * cols + c] = x[r * 2 * cols + c] * gelu(x[r * 2 * cols + cols + c])
        }
    }
}
pub fn geglu_backward(rows: usize, cols: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    for r in 0..rows {
        for c in 0..cols {
            let (i, j) = (r * 2 * cols + c, r * 2 * cols + cols + c);
            dx[i] = dy[r * cols + c] * gelu(x[j]);
            dx[j] = dy[r * cols + c] * x[i] * dgelu(x[j])
        }
    }
}
