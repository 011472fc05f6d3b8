//! AdamW and the moving average of weights.

use super::Real;

/// One step of `torch.optim.AdamW` (Loshchilov & Hutter, "Decoupled Weight Decay Regularization",
/// 2019) for one weight.
pub struct AdamW<R> {
    /// α
    pub learning_rate: R,
    /// β₁
    pub beta1: R,
    /// β₂
    pub beta2: R,
    /// ε
    pub eps: R,
    /// λ
    pub weight_decay: R,
}

/// `step` counts from 1; the gradient is `grad_scale · grad`.
pub fn adamw<R: Real>(
    options: &AdamW<R>,
    step: u64,
    grad_scale: R,
    weights: &mut [R],
    grad: &[R],
    m: &mut [R],
    v: &mut [R],
) {
    let AdamW {
        learning_rate,
        beta1,
        beta2,
        eps,
        weight_decay,
    } = *options;
    let correction1 = R::ONE - beta1.powi(step as i32);
    let correction2 = R::ONE - beta2.powi(step as i32);
    for i in 0..weights.len() {
        let g = grad[i] * grad_scale;
        weights[i] *= R::ONE - learning_rate * weight_decay;
        m[i] = beta1 * m[i] + (R::ONE - beta1) * g;
        v[i] = beta2 * v[i] + (R::ONE - beta2) * g * g;
        let (mean, variance) = (m[i] / correction1, v[i] / correction2);
        weights[i] -= learning_rate * mean / (variance.sqrt() + eps);
    }
}

/// `ema = decay · ema + (1 − decay) · weights`
pub fn ema<R: Real>(decay: R, ema: &mut [R], weights: &[R]) {
    for i in 0..ema.len() {
        ema[i] = decay * ema[i] + (R::ONE - decay) * weights[i];
    }
}
