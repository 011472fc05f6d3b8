//! AdamW and the average of the weights, in place.

use velatura_kernels::optimizer::{AdamW, Coefficients, approach};

use crate::Memory;

/// Step `step` (from 1) of AdamW; the gradient counts `scale` times.
pub fn adamw(
    options: &AdamW,
    step: u64,
    scale: f32,
    weights: &mut Memory,
    gradient: &Memory,
    first: &mut Memory,
    second: &mut Memory,
) {
    let c = Coefficients::new(options, step, scale);
    let pointers = [weights.all(), gradient.all(), first.all(), second.all()];
    let fractions = [
        c.grad_scale,
        c.keep,
        c.one_minus_beta1,
        c.beta2,
        c.one_minus_beta2,
        1.0 / c.root_correction2,
        c.eps,
        c.step_size,
    ];
    weights
        .gpu()
        .each("adamw", weights.len(), &pointers, &[], &fractions);
}

/// average = decay · average + (1 − decay) · weights
pub fn ema(decay: f32, average: &mut Memory, weights: &Memory) {
    let pointers = [average.all(), weights.all()];
    weights.gpu().each(
        "approach",
        weights.len(),
        &pointers,
        &[],
        &[approach(decay)],
    );
}
