//! The noise schedule: how much noise each training timestep has.
//!
//! Ho et al., "Denoising Diffusion Probabilistic Models" (2020): x_t = √ᾱ_t·x₀ + √(1−ᾱ_t)·ε with ᾱ_t = ∏ (1−β_s).
//! Everything is rounded where PyTorch rounds it, because 1−ᾱ is a small difference at the first timesteps and a
//! sampler divides by it.

use velatura_tensor::Tensor;

use super::config::Settings;

/// How β grows over the training timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetaSchedule {
    /// Evenly from `beta_start` to `beta_end`.
    Linear,
    /// √β evenly: Stable Diffusion's own.
    ScaledLinear,
    /// ᾱ follows a squared cosine (Nichol and Dhariwal, "Improved DDPM", 2021, equation 17), β at most 0.999.
    SquaredCosine,
}

/// β and ᾱ of every training timestep.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// β_t, the variance that one step adds.
    pub betas: Vec<f32>,
    /// ᾱ_t, the share of the signal's variance that is left.
    pub alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// The schedule of a config.
    pub fn new(settings: &Settings) -> Self {
        let mut betas = match &settings.trained_betas {
            Some(betas) => betas.iter().map(|&beta| beta as f32).collect(),
            None => settings.beta_schedule.betas(
                settings.num_train_timesteps,
                settings.beta_start,
                settings.beta_end,
            ),
        };
        if settings.rescale_betas_zero_snr {
            betas = with_zero_terminal_snr(&betas);
        }
        let alphas_cumprod = cumulative_product(betas.iter().map(|beta| 1.0 - beta));
        Self {
            betas,
            alphas_cumprod,
        }
    }

    /// The number of training timesteps.
    pub fn len(&self) -> usize {
        self.betas.len()
    }

    /// Whether there are no timesteps; a checked config has some.
    pub fn is_empty(&self) -> bool {
        self.betas.is_empty()
    }

    /// σ_t = √((1−ᾱ_t)/ᾱ_t), the noise beside a signal of size 1. Where zero terminal SNR leaves no signal, ᾱ counts
    /// as 2⁻²⁴, so that σ is large and not infinite.
    pub fn sigmas(&self) -> Vec<f32> {
        let sigma = |&a: &f32| {
            let a = if a == 0.0 { 2f32.powi(-24) } else { a };
            ((1.0 - a) / a).sqrt()
        };
        self.alphas_cumprod.iter().map(sigma).collect()
    }

    /// √ᾱ and √(1−ᾱ) of each timestep: the factors of signal and noise.
    ///
    /// # Panics
    /// When a timestep is beyond the schedule.
    pub fn factors(&self, timesteps: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let alphas = timesteps.iter().map(|&t| self.alphas_cumprod[t]);
        alphas.map(|a| (a.sqrt(), (1.0 - a).sqrt())).unzip()
    }

    /// The forward process: √ᾱ_t·x₀ + √(1−ᾱ_t)·ε, with a timestep for each sample. `x0`, `noise`: `[B, …]`.
    ///
    /// # Panics
    /// When the shapes differ, or there are not B timesteps within the schedule.
    pub fn add_noise(&self, x0: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Tensor {
        let (signal, noise_factor) = self.factors(timesteps);
        x0.scale_samples(&signal)
            .add(&noise.scale_samples(&noise_factor))
    }

    /// Salimans and Ho's velocity, v = √ᾱ_t·ε − √(1−ᾱ_t)·x₀ ("Progressive Distillation", 2022, appendix D), with a
    /// timestep for each sample.
    ///
    /// # Panics
    /// As [`NoiseSchedule::add_noise`].
    pub fn velocity(&self, x0: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Tensor {
        let (signal, noise_factor) = self.factors(timesteps);
        noise
            .scale_samples(&signal)
            .sub(&x0.scale_samples(&noise_factor))
    }
}

impl BetaSchedule {
    fn betas(self, count: usize, start: f64, end: f64) -> Vec<f32> {
        match self {
            BetaSchedule::Linear => linspace(start, end, count),
            BetaSchedule::ScaledLinear => linspace(start.sqrt(), end.sqrt(), count)
                .into_iter()
                .map(|root| root * root)
                .collect(),
            BetaSchedule::SquaredCosine => {
                let alpha_bar = |i: usize| {
                    let t = i as f64 / count as f64;
                    let cos = ((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos();
                    cos * cos
                };
                (0..count)
                    .map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32)
                    .collect()
            }
        }
    }
}

/// `torch.linspace` in f32, which walks from both ends to the middle.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if count == 1 {
        return vec![start];
    }
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(|i| {
            if i < count / 2 {
                step.mul_add(i as f32, start)
            } else {
                (-step).mul_add((count - 1 - i) as f32, end)
            }
        })
        .collect()
}

/// `torch.cumprod` in f32, which multiplies in f64.
fn cumulative_product(factors: impl Iterator<Item = f32>) -> Vec<f32> {
    factors
        .scan(1f64, |product, factor| {
            *product *= f64::from(factor);
            Some(*product as f32)
        })
        .collect()
}

/// Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023), algorithm 1: shifts and scales
/// √ᾱ so that the last timestep is pure noise and the first stays as it is.
fn with_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let mut roots = cumulative_product(betas.iter().map(|beta| 1.0 - beta));
    roots.iter_mut().for_each(|a| *a = a.sqrt());
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let alphas_bar: Vec<f32> = roots
        .iter()
        .map(|root| {
            let root = (root - last) * scale;
            root * root
        })
        .collect();
    let alphas = alphas_bar.windows(2).map(|pair| pair[1] / pair[0]);
    std::iter::once(alphas_bar[0])
        .chain(alphas)
        .map(|alpha| 1.0 - alpha)
        .collect()
}
