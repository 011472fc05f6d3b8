//! The part of a sample that is known already: inpainting with a model that was never told about masks.

use velatura_tensor::Tensor;

use crate::diffusion::timesteps::SamplerSchedule;

/// Where the mask is 0 the sample is known, and is put back after every step with the noise that x has by then: Lugmayr
/// et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models" (2022), equation 8, without its
/// resampling; the same noise at every step, as diffusers' `StableDiffusionInpaintPipeline` has it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The whole sample, `[B, h, w, C]`.
    pub x0: Tensor,
    /// Standard normal noise of the same shape.
    pub noise: Tensor,
    /// 1 where the sample is to be found, 0 where it is known; the same shape.
    pub mask: Tensor,
}

impl Known {
    /// x after evaluation `i`, with the known part as it should be there: without noise after the last.
    pub(super) fn put_back(&self, schedule: &SamplerSchedule, i: usize, x: &Tensor) -> Tensor {
        let known = if i + 1 < schedule.evaluations() {
            schedule.noised(i + 1, &self.x0, &self.noise)
        } else {
            self.x0.clone()
        };
        let kept = self.mask.scale(-1.0).add_scalar(1.0);
        kept.mul(&known).add(&self.mask.mul(x))
    }
}
