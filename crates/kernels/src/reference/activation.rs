//! Activation functions and their derivatives.

use super::Real;
use crate::activation::Activation;

/// The logistic function, 1 / (1 + e⁻ˣ).
pub fn sigmoid<R: Real>(x: R) -> R {
    R::ONE / (R::ONE + (-x).exp())
}

/// The normal distribution's cumulative function Φ(x) = (1 + erf(x/√2)) / 2.
fn normal_cdf<R: Real>(x: R) -> R {
    let half = R::from_f64(0.5);
    half * (R::ONE + (x * R::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

/// The normal distribution's density φ(x) = e^(−x²/2) / √(2π).
fn normal_density<R: Real>(x: R) -> R {
    let scale = R::from_f64(1.0 / (2.0 * std::f64::consts::PI).sqrt());
    (-(x * x) * R::from_f64(0.5)).exp() * scale
}

/// The activation of one number.
pub fn value<R: Real>(act: Activation, x: R) -> R {
    match act {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => x * normal_cdf(x),
        Activation::QuickGelu => x * sigmoid(R::from_f64(1.702) * x),
    }
}

/// Its derivative.
pub fn derivative<R: Real>(act: Activation, x: R) -> R {
    let logistic = |k: R| {
        let s = sigmoid(k * x);
        s * (R::ONE + k * x * (R::ONE - s))
    };
    match act {
        Activation::Silu => logistic(R::ONE),
        Activation::Gelu => normal_cdf(x) + x * normal_density(x),
        Activation::QuickGelu => logistic(R::from_f64(1.702)),
    }
}

/// `out = act(x)`
pub fn forward<R: Real>(act: Activation, x: &[R], out: &mut [R]) {
    assert_eq!(x.len(), out.len());
    for (out, &x) in out.iter_mut().zip(x) {
        *out = value(act, x);
    }
}

/// `dx = dy · act'(x)`
pub fn backward<R: Real>(act: Activation, x: &[R], dy: &[R], dx: &mut [R]) {
    assert_eq!((x.len(), dy.len()), (dx.len(), dx.len()));
    for i in 0..dx.len() {
        dx[i] = dy[i] * derivative(act, x[i]);
    }
}

/// `out = x` where x is positive, else `slope · x`
pub fn leaky_relu<R: Real>(slope: R, x: &[R], out: &mut [R]) {
    for i in 0..out.len() {
        out[i] = if x[i] > R::ZERO { x[i] } else { slope * x[i] };
    }
}

/// `dx = dy` where x is positive, else `slope · dy`
pub fn leaky_relu_backward<R: Real>(slope: R, x: &[R], dy: &[R], dx: &mut [R]) {
    for i in 0..dx.len() {
        dx[i] = if x[i] > R::ZERO { dy[i] } else { slope * dy[i] };
    }
}

/// `out[r, c] = x[r, c] · gelu(x[r, cols + c])`
pub fn geglu<R: Real>(rows: usize, cols: usize, x: &[R], out: &mut [R]) {
    assert_eq!((x.len(), out.len()), (2 * rows * cols, rows * cols));
    for r in 0..rows {
        for c in 0..cols {
            let (value_at, gate_at) = (r * 2 * cols + c, r * 2 * cols + cols + c);
            out[r * cols + c] = x[value_at] * value(Activation::Gelu, x[gate_at]);
        }
    }
}

/// The gradient of [`geglu`] for both halves of `x`.
pub fn geglu_backward<R: Real>(rows: usize, cols: usize, x: &[R], dy: &[R], dx: &mut [R]) {
    assert_eq!((x.len(), dy.len()), (2 * rows * cols, rows * cols));
    assert_eq!(dx.len(), x.len());
    for r in 0..rows {
        for c in 0..cols {
            let (value_at, gate_at) = (r * 2 * cols + c, r * 2 * cols + cols + c);
            let dy = dy[r * cols + c];
            dx[value_at] = dy * value(Activation::Gelu, x[gate_at]);
            dx[gate_at] = dy * x[value_at] * derivative(Activation::Gelu, x[gate_at]);
        }
    }
}
