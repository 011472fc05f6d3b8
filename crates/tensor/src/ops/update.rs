//! What an optimiser does, in place.

use velatura_gpu::{elementwise, optimizer as gpu};
use velatura_kernels::elementwise::sum_squares;
use velatura_kernels::optimizer::{self as kernel, AdamW};

use crate::{Parameter, Tensor, device};

impl Parameter {
    /// Step `step` (from 1) of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); the gradient counts `scale` times,
    /// and the moments are of the parameter's shape.
    pub fn adamw(
        &self,
        options: &AdamW,
        step: u64,
        scale: f32,
        gradient: &Tensor,
        first: &mut Tensor,
        second: &mut Tensor,
    ) {
        self.update_tensor(|weights| match device::current() {
            Some(on) => gpu::adamw(
                options,
                step,
                scale,
                weights.memory_mut(&on),
                gradient.memory(&on),
                first.memory_mut(&on),
                second.memory_mut(&on),
            ),
            None => kernel::adamw(
                options,
                step,
                scale,
                weights.make_mut(),
                gradient.as_slice(),
                first.make_mut(),
                second.make_mut(),
            ),
        });
    }

    /// Exchanges the value with `other`, of the same shape.
    pub fn swap(&self, other: &mut Tensor) {
        assert_eq!(other.shape(), self.shape(), "exchange with {}", self.name());
        self.update_tensor(|value| std::mem::swap(value, other));
    }
}

/// average = decay · average + (1 − decay) · weights
pub fn ema(decay: f32, average: &mut Tensor, weights: &Tensor) {
    match device::current() {
        Some(on) => gpu::ema(decay, average.memory_mut(&on), weights.memory(&on)),
        None => kernel::ema(decay, average.make_mut(), weights.as_slice()),
    }
}

/// Σ x² of each tensor.
pub fn sums_of_squares(tensors: &[&Tensor]) -> Vec<f64> {
    match device::current() {
        Some(on) => {
            let arrays: Vec<_> = tensors.iter().map(|x| x.memory(&on)).collect();
            elementwise::sums(&on, &arrays, true)
        }
        None => tensors.iter().map(|x| sum_squares(x.as_slice())).collect(),
    }
}
