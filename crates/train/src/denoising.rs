//! The denoiser's objective: what it predicts, how its error is measured, and how much each sample counts.

use velatura::diffusion::{LossWeight, NoiseSchedule, PredictionType, Settings};
use velatura::unet::Unet;
use velatura_tensor::Tensor;

use crate::config::{DistanceKind, Loss};

/// What the denoiser is asked to do.
#[derive(Clone, Debug)]
pub struct Denoising {
    /// How much noise each timestep has.
    pub schedule: NoiseSchedule,
    /// What is predicted.
    pub predicts: PredictionType,
    /// How much each timestep counts.
    pub weight: LossWeight,
    /// What the error is measured by.
    pub distance: Distance,
}

/// What an error is measured by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance {
    /// d²
    Squared,
    /// 2c·(√(d² + c²) − c) with this c (Khrapov et al. 2024, arXiv:2403.16728).
    PseudoHuber(f32),
}

/// What the loss is taken of.
pub struct Example<'a> {
    /// `[B, h, w, C]`, scaled to deviation 1.
    pub latents: &'a Tensor,
    /// `[B, h, w, C]`
    pub noise: &'a Tensor,
    /// One for each sample.
    pub timesteps: &'a [usize],
    /// `[B, S, D]`
    pub context: &'a Tensor,
    /// A factor of each sample's error; 1 for all if empty.
    pub importance: &'a [f32],
}

impl Denoising {
    /// As the config says, on the noise schedule of `settings`.
    pub fn new(settings: &Settings, loss: &Loss) -> Denoising {
        Denoising {
            schedule: NoiseSchedule::new(settings),
            predicts: settings.prediction_type,
            weight: loss
                .min_snr_gamma
                .map_or(LossWeight::Uniform, LossWeight::MinSnr),
            distance: match loss.distance {
                DistanceKind::L2 => Distance::Squared,
                DistanceKind::Huber => Distance::PseudoHuber(loss.huber_c),
            },
        }
    }

    /// The mean error of the prediction for `add_noise(latents, noise, timesteps)`, weighted by timestep (Ho et al.
    /// 2020; Hang et al. 2023) and sample: a scalar.
    ///
    /// # Panics
    /// When the shapes differ or a timestep is beyond the schedule.
    pub fn loss(&self, unet: &Unet, example: &Example) -> Tensor {
        let &Example {
            latents,
            noise,
            timesteps,
            context,
            importance,
        } = example;
        let noisy = self.schedule.add_noise(latents, noise, timesteps);
        let target = self
            .predicts
            .target(&self.schedule, latents, noise, timesteps);
        let times: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        let difference = unet.forward(&noisy, &times, context).sub(&target);
        let errors = match self.distance {
            Distance::Squared => difference.square(),
            Distance::PseudoHuber(c) => difference.pseudo_huber(c),
        };
        if self.weight == LossWeight::Uniform && importance.is_empty() {
            return errors.mean();
        }
        let mut factors = self
            .weight
            .weights(&self.schedule, self.predicts, timesteps);
        for (factor, importance) in factors.iter_mut().zip(importance) {
            *factor *= importance;
        }
        errors.scale_samples(&factors).mean()
    }
}
