//! What an optimiser does, in place. A card does it for many parameters at a time.

use velatura_gpu::{multi, optimizer as gpu};
use velatura_kernels::elementwise::sum_squares;
use velatura_kernels::optimizer::{self as kernel, AdamW};

use crate::{Parameter, Tensor, device};

/// A parameter for [`adamw`], with moments of its shape.
pub struct AdamWStep<'a> {
    pub parameter: &'a Parameter,
    pub gradient: &'a Tensor,
    pub first: &'a mut Tensor,
    pub second: &'a mut Tensor,
}

/// Step `step` (from 1) of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) for parameters of which none is there twice;
/// the gradients count `scale` times.
pub fn adamw(options: &AdamW, step: u64, scale: f32, steps: &mut [AdamWStep]) {
    if let Some(on) = device::current() {
        let mut weights: Vec<_> = steps.iter().map(|s| s.parameter.write()).collect();
        let arrays = steps.iter_mut().zip(&mut weights);
        let mut arrays: Vec<_> = arrays
            .map(|(s, weights)| gpu::AdamWArrays {
                weights: weights.memory_mut(&on),
                gradient: s.gradient.memory(&on),
                first: s.first.memory_mut(&on),
                second: s.second.memory_mut(&on),
            })
            .collect();
        gpu::adamw(&on, options, step, scale, &mut arrays);
        return;
    }
    for s in steps {
        kernel::adamw(
            options,
            step,
            scale,
            s.parameter.write().make_mut(),
            s.gradient.as_slice(),
            s.first.make_mut(),
            s.second.make_mut(),
        );
    }
}

/// average = decay · average + (1 − decay) · weights, of pairs of both.
pub fn ema(decay: f32, pairs: &mut [(&mut Tensor, Tensor)]) {
    if let Some(on) = device::current() {
        let mut arrays: Vec<_> = pairs
            .iter_mut()
            .map(|(average, weights)| (average.memory_mut(&on), weights.memory(&on)))
            .collect();
        gpu::ema(&on, decay, &mut arrays);
        return;
    }
    for (average, weights) in pairs {
        kernel::ema(decay, average.make_mut(), weights.as_slice());
    }
}

/// Takes gradients into their running means, of one shape `[O, I]`: mean = momentum · mean + share · gradient. Gives Nesterov's
/// directions `[G, O, I]`, the means as they would be if the next gradients were as these, divided by their norms, which
/// count as `eps` at least.
pub fn nesterov(
    momentum: f32,
    share: f32,
    eps: f32,
    pairs: &mut [(&mut Tensor, &Tensor)],
) -> Tensor {
    let shape = [&[pairs.len()], pairs[0].0.shape()].concat();
    if let Some(on) = device::current() {
        let mut arrays: Vec<_> = pairs
            .iter_mut()
            .map(|(mean, gradient)| (mean.memory_mut(&on), gradient.memory(&on)))
            .collect();
        let directions = gpu::nesterov(&on, [momentum, share, eps], &mut arrays);
        return Tensor::from_memory(directions, &shape);
    }
    let take = |(mean, gradient): &mut (&mut Tensor, &Tensor)| {
        let gradient = gradient.reshape(mean.shape());
        **mean = mean.combined(momentum, &gradient, share);
        mean.combined(momentum, &gradient, share)
    };
    let directions: Vec<Tensor> = pairs.iter_mut().map(take).collect();
    let directions: Vec<&Tensor> = directions.iter().collect();
    let norms = sums_of_squares(&directions).into_iter().map(f64::sqrt);
    let factors: Vec<f32> = norms
        .map(|norm| (1.0 / norm.max(f64::from(eps))) as f32)
        .collect();
    Tensor::concat_batch(&directions)
        .reshape(&shape)
        .scale_samples(&factors)
}

/// Moves parameters of one size, of which none is there twice, along their directions, a sample for each: weights = kept · weights − rate · direction.
pub fn descend(kept: f32, rate: f32, parameters: &[&Parameter], directions: &Tensor) {
    if let Some(on) = device::current() {
        let mut weights: Vec<_> = parameters.iter().map(|p| p.write()).collect();
        let mut arrays: Vec<_> = weights.iter_mut().map(|w| w.memory_mut(&on)).collect();
        gpu::descend([kept, rate], &mut arrays, directions.memory(&on));
        return;
    }
    for (index, parameter) in parameters.iter().enumerate() {
        let direction = directions.narrow_batch(index, 1).reshape(parameter.shape());
        parameter.set(parameter.value().combined(kept, &direction, -rate));
    }
}

/// Σ x² of each tensor.
pub fn sums_of_squares(tensors: &[&Tensor]) -> Vec<f64> {
    match device::current() {
        Some(on) => {
            let arrays: Vec<_> = tensors.iter().map(|x| x.memory(&on)).collect();
            multi::sums(&on, &arrays, true)
        }
        None => tensors.iter().map(|x| sum_squares(x.as_slice())).collect(),
    }
}

impl Parameter {
    /// Exchanges the value with `other`, of the same shape.
    pub fn swap(&self, other: &mut Tensor) {
        assert_eq!(other.shape(), self.shape(), "exchange with {}", self.name());
        std::mem::swap(&mut *self.write(), other);
    }
}
