//! What a model's output means. ε, v and x₀ are turned into one another here and nowhere else; sampling and the
//! training loss use the same lines.
//!
//! With x = α·x₀ + σ·ε and n = √(α² + σ²), the model sees x/n and predicts one of
//! - ε, the noise: x₀ = (x − σ·ε)/α;
//! - v = (α·ε − σ·x₀)/n, the velocity: x₀ = (α/n²)·x − (σ/n)·v and ε = (σ/n²)·x + (α/n)·v;
//! - x₀, the sample: ε = (x − α·x₀)/σ.
//!
//! Samplers in DDPM's tradition have n = 1 ("variance preserving"); those in Karras et al.'s have α = 1 ("variance
//! exploding", "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, table 1).

use velatura_tensor::Tensor;

use super::divide;
use super::schedule::NoiseSchedule;
use crate::{Error, Result};

/// What the model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity.
    VPrediction,
    /// The clean sample.
    Sample,
}

/// How much signal and noise x has: x = `alpha`·x₀ + `sigma`·ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// The model's name for this level.
    pub timestep: f32,
    /// Factor of the signal.
    pub alpha: f32,
    /// Factor of the noise.
    pub sigma: f32,
    /// n² = α² + σ²: the variance of x for samples of variance 1. The model sees x/n.
    pub variance: f32,
}

impl NoiseLevel {
    /// α = √ᾱ, σ = √(1−ᾱ).
    pub fn variance_preserving(timestep: f32, alpha_bar: f32) -> Self {
        Self {
            timestep,
            alpha: alpha_bar.sqrt(),
            sigma: (1.0 - alpha_bar).sqrt(),
            variance: 1.0,
        }
    }

    /// α = 1: noise of size `sigma` on top of the whole signal.
    pub fn variance_exploding(timestep: f32, sigma: f32) -> Self {
        Self {
            timestep,
            alpha: 1.0,
            sigma,
            variance: sigma * sigma + 1.0,
        }
    }

    /// The variance-preserving level whose σ/α is `ratio`.
    pub fn of_ratio(timestep: f32, ratio: f32) -> Self {
        let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
        Self {
            timestep,
            alpha,
            sigma: ratio * alpha,
            variance: 1.0,
        }
    }

    /// λ = ln(α/σ), half the logarithm of the signal-to-noise ratio.
    pub fn lambda(&self) -> f32 {
        self.alpha.ln() - self.sigma.ln()
    }
}

impl PredictionType {
    /// x₀ from the model's `output` for `x`.
    pub fn x0(self, output: &Tensor, x: &Tensor, level: &NoiseLevel) -> Tensor {
        let (alpha, sigma) = (level.alpha, level.sigma);
        match self {
            PredictionType::Epsilon => divide(&x.sub(&output.scale(sigma)), alpha),
            PredictionType::VPrediction => divide(&x.scale(alpha), level.variance)
                .sub(&output.scale(sigma / level.variance.sqrt())),
            PredictionType::Sample => output.clone(),
        }
    }

    /// ε from the model's `output` for `x`.
    pub fn epsilon(self, output: &Tensor, x: &Tensor, level: &NoiseLevel) -> Tensor {
        let (alpha, sigma) = (level.alpha, level.sigma);
        match self {
            PredictionType::Epsilon => output.clone(),
            PredictionType::VPrediction => output
                .scale(alpha / level.variance.sqrt())
                .add(&divide(&x.scale(sigma), level.variance)),
            PredictionType::Sample => divide(&x.sub(&output.scale(alpha)), sigma),
        }
    }

    /// What the model is trained to predict for `schedule.add_noise(x0, noise, timesteps)`.
    ///
    /// # Panics
    /// As [`NoiseSchedule::add_noise`].
    pub fn target(
        self,
        schedule: &NoiseSchedule,
        x0: &Tensor,
        noise: &Tensor,
        timesteps: &[usize],
    ) -> Tensor {
        match self {
            PredictionType::Epsilon => noise.clone(),
            PredictionType::VPrediction => schedule.velocity(x0, noise, timesteps),
            PredictionType::Sample => x0.clone(),
        }
    }
}

/// How much each timestep counts in the training loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossWeight {
    /// All alike: DDPM's L_simple.
    Uniform,
    /// min(SNR, γ), expressed for what the model predicts (Hang et al., "Efficient Diffusion Training via Min-SNR
    /// Weighting Strategy", 2023, section 3.4); γ = 5 in the paper.
    MinSnr(f32),
}

impl LossWeight {
    /// The factor of each sample's squared error.
    ///
    /// # Panics
    /// When a timestep is beyond the schedule.
    pub fn weights(
        self,
        schedule: &NoiseSchedule,
        predicts: PredictionType,
        timesteps: &[usize],
    ) -> Vec<f32> {
        let weight = |&t: &usize| {
            let a = schedule.alphas_cumprod[t];
            let snr = a / (1.0 - a);
            match self {
                LossWeight::Uniform => 1.0,
                LossWeight::MinSnr(gamma) => match predicts {
                    // As SNR → 0, min(SNR, γ)/SNR → 1.
                    PredictionType::Epsilon if snr == 0.0 => 1.0,
                    PredictionType::Epsilon => snr.min(gamma) / snr,
                    PredictionType::VPrediction => snr.min(gamma) / (snr + 1.0),
                    PredictionType::Sample => snr.min(gamma),
                },
            }
        };
        timesteps.iter().map(weight).collect()
    }
}

/// A model's answer for one x.
#[derive(Clone, Debug)]
pub struct Prediction {
    kind: PredictionType,
    clip: Option<f32>,
    level: NoiseLevel,
    x: Tensor,
    /// What the model said.
    pub output: Tensor,
}

impl Prediction {
    /// The clean sample that the model sees in x, cut to ±`clip_sample_range` where the config asks for it.
    pub fn x0(&self) -> Tensor {
        let x0 = self.kind.x0(&self.output, &self.x, &self.level);
        match self.clip {
            Some(range) => x0.clamp(-range, range),
            None => x0,
        }
    }

    /// The noise that the model sees in x; never cut.
    pub fn epsilon(&self) -> Tensor {
        self.kind.epsilon(&self.output, &self.x, &self.level)
    }
}

/// A model as samplers see it: x/n and t to an output of x's shape.
pub type Model<'a> = &'a mut dyn FnMut(&Tensor, f32) -> Result<Tensor>;

/// A model together with what its output means.
pub(super) struct Denoiser<'a> {
    pub model: Model<'a>,
    pub kind: PredictionType,
    pub clip: Option<f32>,
}

impl Denoiser<'_> {
    /// Asks the model about `x`, scaled as it was in training. `step` of `steps` is for the complaint.
    ///
    /// # Errors
    /// The model's own; [`Error::NotFinite`] when its output has a NaN or an infinity.
    pub fn predict(
        &mut self,
        x: &Tensor,
        level: NoiseLevel,
        step: usize,
        steps: usize,
    ) -> Result<Prediction> {
        let output = if level.variance == 1.0 {
            (self.model)(x, level.timestep)?
        } else {
            (self.model)(&divide(x, level.variance.sqrt()), level.timestep)?
        };
        assert_eq!(output.shape(), x.shape(), "a model keeps the shape of x");
        if !output.is_finite() {
            return Err(Error::not_finite(
                format!("step {} of {steps} (timestep {})", step + 1, level.timestep),
                "check the weights, try --precision f32, or lower the guidance",
            ));
        }
        Ok(Prediction {
            kind: self.kind,
            clip: self.clip,
            level,
            x: x.clone(),
            output,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [PredictionType; 3] = [
        PredictionType::Epsilon,
        PredictionType::VPrediction,
        PredictionType::Sample,
    ];

    /// The output that a perfect model gives for x = α·x₀ + σ·ε.
    fn perfect(kind: PredictionType, x0: f32, epsilon: f32, level: &NoiseLevel) -> f32 {
        match kind {
            PredictionType::Epsilon => epsilon,
            PredictionType::VPrediction => {
                (level.alpha * epsilon - level.sigma * x0) / level.variance.sqrt()
            }
            PredictionType::Sample => x0,
        }
    }

    #[test]
    fn every_kind_gives_back_sample_and_noise() {
        let levels = [
            NoiseLevel::variance_preserving(500.0, 0.3),
            NoiseLevel::variance_exploding(500.0, 2.5),
            NoiseLevel::of_ratio(500.0, 2.5),
        ];
        let (x0, epsilon) = (0.7f32, -1.3f32);
        for level in levels {
            let x = Tensor::full(&[1], level.alpha * x0 + level.sigma * epsilon);
            for kind in KINDS {
                let output = Tensor::full(&[1], perfect(kind, x0, epsilon, &level));
                let found = (
                    kind.x0(&output, &x, &level).item(),
                    kind.epsilon(&output, &x, &level).item(),
                );
                assert!(
                    (found.0 - x0).abs() < 1e-5 && (found.1 - epsilon).abs() < 1e-5,
                    "{kind:?} at {level:?}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn min_snr_weights_are_the_same_loss_for_every_kind() {
        // ‖x₀ error‖² = ‖ε error‖²/SNR = ‖v error‖²/(SNR+1), so weight × error must agree.
        let schedule = NoiseSchedule {
            betas: vec![0.5],
            alphas_cumprod: vec![0.9],
        };
        let snr = 0.9f32 / 0.1;
        let weight = |kind| LossWeight::MinSnr(5.0).weights(&schedule, kind, &[0])[0];
        let expected = weight(PredictionType::Sample);
        assert!((weight(PredictionType::Epsilon) * snr - expected).abs() < 1e-4);
        assert!((weight(PredictionType::VPrediction) * (snr + 1.0) - expected).abs() < 1e-4);
    }

    #[test]
    fn a_nan_names_the_step() {
        let mut broken = |x: &Tensor, _: f32| Ok(Tensor::full(x.shape(), f32::NAN));
        let mut denoiser = Denoiser {
            model: &mut broken,
            kind: PredictionType::Epsilon,
            clip: None,
        };
        let level = NoiseLevel::variance_preserving(41.0, 0.5);
        let error = denoiser.predict(&Tensor::zeros(&[1, 1, 1, 4]), level, 2, 20);
        let message = error.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("step 3 of 20 (timestep 41)"), "{message}");
    }
}
