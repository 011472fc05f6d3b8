//! Optimisers.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
}
pub fn adamw(
    o: &AdamW,
    step: u64,
    grad_scale: f32,
    weights: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let b1 = (1.0 - (o.beta1 as f64).powi(step as i32)) as f32;
    let b2 = (1.0 - (o.beta2 as f64).powi(step as i32)).sqrt() as f32;
    for (((w, g), m), v) in weights.iter_mut().zip(grad).zip(m).zip(v) {
        let g = g * grad_scale;
        *w *= 1.0 - o.learning_rate * o.weight_decay;
        *m += (1.0 - o.beta1) * (g - *m);
        *v = o.beta2 * *v + (1.0 - o.beta2) * g * g;
        *w -= o.learning_rate / b1 * *m / (v.sqrt() / b2 + o.eps)
    }
}
pub fn ema(decay: f32, ema: &mut [f32], weights: &[f32]) {
    for (e, w) in ema.iter_mut().zip(weights) {
        *e += (1.0 - decay) * (w - *e)
    }
}
