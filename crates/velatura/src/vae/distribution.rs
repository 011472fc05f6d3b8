//! The encoder's answer: an independent normal distribution for every number of the latent.

use velatura_tensor::Tensor;

/// The logarithm of the variance is kept within these bounds, as everywhere in the field: e^20 is far beyond, and
/// e^-30 far below, anything a trained encoder says.
const LOGVAR_BOUNDS: (f32, f32) = (-30.0, 20.0);

/// A diagonal normal distribution over latents `[B, h, w, Z]`.
#[derive(Clone, Debug)]
pub struct LatentDistribution {
    pub mean: Tensor,
    /// Logarithm of the variance.
    pub logvar: Tensor,
}

impl LatentDistribution {
    /// From `[B, h, w, 2·Z]`: the mean, then the logarithm of the variance, which is clamped.
    pub fn from_moments(moments: &Tensor) -> Self {
        let z = moments.channels() / 2;
        LatentDistribution {
            mean: moments.narrow_channels(0, z),
            logvar: moments
                .narrow_channels(z, z)
                .clamp(LOGVAR_BOUNDS.0, LOGVAR_BOUNDS.1),
        }
    }

    /// The most probable latent.
    pub fn mode(&self) -> Tensor {
        self.mean.clone()
    }

    /// mean + σ·noise, through which gradients pass (the reparametrisation trick).
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        self.mean.add(&self.logvar.scale(0.5).exp().mul(noise))
    }

    /// KL divergence from the standard normal distribution, summed over each latent, averaged over the batch:
    /// ½·Σ(mean² + σ² − 1 − ln σ²).
    pub fn kl(&self) -> Tensor {
        let terms = self
            .mean
            .square()
            .add(&self.logvar.exp())
            .sub(&self.logvar)
            .add_scalar(-1.0);
        terms.sum().scale(0.5 / self.mean.dim(0) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_normal_has_no_divergence_and_a_shifted_one_half_the_square() {
        let moments = |mean: f32| Tensor::from_vec(vec![mean, 0.0], &[1, 1, 1, 2]);
        assert_eq!(
            LatentDistribution::from_moments(&moments(0.0)).kl().item(),
            0.0
        );
        let shifted = LatentDistribution::from_moments(&moments(3.0));
        assert_eq!(shifted.kl().item(), 4.5);
        assert_eq!(shifted.mode().as_slice(), [3.0]);
        assert_eq!(
            shifted.sample(&Tensor::full(&[1, 1, 1, 1], 2.0)).as_slice(),
            [5.0]
        );
    }

    #[test]
    fn the_variance_is_bounded() {
        let moments = Tensor::from_vec(vec![0.0, 0.0, 1e9, -1e9], &[1, 1, 1, 4]);
        assert_eq!(
            LatentDistribution::from_moments(&moments).logvar.as_slice(),
            [20.0, -30.0]
        );
    }
}
