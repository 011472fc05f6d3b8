//! Which noise levels a sampler visits: the timesteps that the model is told, and the σs beside them.
//!
//! Rounding follows numpy: halves go to the even number, intermediate values are f64 and σs are f32 at the end.

use velatura_tensor::Tensor;

use super::config::{FinalSigma, SchedulerConfig, Settings, TimestepSpacing};
use super::denoiser::{NoiseLevel, PredictionType};
use super::samplers::{Sampler, Spacing};
use super::schedule::{BetaSchedule, NoiseSchedule};
use crate::{Error, Result};

/// The way from noise to sample, ready to walk.
#[derive(Clone, Debug)]
pub struct SamplerSchedule {
    /// Who walks it.
    pub sampler: Sampler,
    /// What the model is told at each of its evaluations, as diffusers' `scheduler.timesteps`. Heun's method and the
    /// start of PNDM evaluate the model more than once per step.
    pub timesteps: Vec<f32>,
    /// σ at each evaluation and at the end, as diffusers' `scheduler.sigmas`; empty for samplers that work on ᾱ.
    pub sigmas: Vec<f32>,
    /// What the initial noise is scaled by.
    pub init_noise_sigma: f32,
    /// Steps that were asked for.
    pub steps: usize,
    pub(super) settings: Settings,
    pub(super) noise: NoiseSchedule,
}

impl SamplerSchedule {
    /// Plans `steps` steps. `spacing: None` takes the σ spacing that the config asks for.
    ///
    /// # Errors
    /// [`Error::Request`] for a number of steps that cannot be or a spacing that the sampler cannot use,
    /// [`Error::Config`] for a config that the sampler cannot use.
    pub fn new(
        config: &SchedulerConfig,
        sampler: Sampler,
        spacing: Option<Spacing>,
        steps: usize,
    ) -> Result<Self> {
        let mut settings = config.settings(sampler)?;
        settings.spacing = spacing.unwrap_or(settings.spacing);
        if !sampler.supports(settings.spacing) {
            return Err(Error::request(
                "schedule",
                format!("{} with the sampler {sampler}", Spacing::Normal),
                settings.spacing,
            ));
        }
        check_steps(sampler, &settings, steps)?;
        let noise = NoiseSchedule::new(&settings);
        let timesteps = spaced(sampler, &settings, &noise, steps);
        let mut schedule = Self {
            sampler,
            timesteps: vec![],
            sigmas: vec![],
            init_noise_sigma: 1.0,
            steps,
            settings,
            noise,
        };
        match sampler {
            Sampler::Ddpm | Sampler::Ddim => schedule.timesteps = to_f32(&timesteps),
            Sampler::Pndm => schedule.timesteps = to_f32(&schedule.pndm_timesteps(&timesteps)),
            Sampler::Euler | Sampler::EulerAncestral | Sampler::Heun | Sampler::DpmPp2m => {
                schedule.place_sigmas(timesteps)
            }
        }
        schedule.check()?;
        Ok(schedule)
    }

    /// The latents at the start, from standard normal noise.
    pub fn start(&self, noise: &Tensor) -> Tensor {
        if self.init_noise_sigma == 1.0 {
            noise.clone()
        } else {
            noise.scale(self.init_noise_sigma)
        }
    }

    /// x₀ with the noise of an evaluation's level: α·x₀ + σ·ε.
    ///
    /// # Panics
    /// When the shapes differ, or there is no such evaluation.
    pub fn noised(&self, evaluation: usize, x0: &Tensor, noise: &Tensor) -> Tensor {
        let level = self.level(evaluation);
        x0.scale(level.alpha).add(&noise.scale(level.sigma))
    }

    /// The evaluation to begin with when a picture is there already: `strength` of the steps are taken, rounded down
    /// as diffusers does. 1 takes all of them.
    ///
    /// # Errors
    /// [`Error::Request`] when no step would be left, or the sampler cannot begin in the middle.
    pub fn begin(&self, strength: f64) -> Result<usize> {
        let taken = ((self.steps as f64 * strength) as usize).min(self.steps);
        if taken == 0 {
            return Err(Error::request(
                "strength",
                format!(
                    "a number above 0 and up to 1 that leaves at least one of {} steps: {} or more",
                    self.steps,
                    1.0 / self.steps as f64
                ),
                strength,
            ));
        }
        let skipped = self.steps - taken;
        if skipped > 0 && self.sampler == Sampler::Pndm && !self.settings.skip_prk_steps {
            return Err(Error::request(
                "sampler",
                "one that can begin in the middle, such as ddim, because this model's config has pndm begin with \
                 Runge\u{2013}Kutta steps; or strength 1",
                self.sampler,
            ));
        }
        // Heun's method asks twice per step, except in the last.
        let per_step = if self.sampler == Sampler::Heun { 2 } else { 1 };
        Ok(skipped * per_step)
    }

    /// Times that the model is asked.
    pub fn evaluations(&self) -> usize {
        self.timesteps.len()
    }

    /// Signal and noise of x at an evaluation.
    pub fn level(&self, evaluation: usize) -> NoiseLevel {
        let t = self.timesteps[evaluation];
        match self.sampler {
            Sampler::Ddpm | Sampler::Ddim | Sampler::Pndm => {
                NoiseLevel::variance_preserving(t, self.alpha_bar(t as i64))
            }
            Sampler::DpmPp2m => NoiseLevel::of_ratio(t, self.sigmas[evaluation]),
            Sampler::Euler | Sampler::EulerAncestral | Sampler::Heun => {
                NoiseLevel::variance_exploding(t, self.sigmas[evaluation])
            }
        }
    }

    /// ᾱ_t; before the first timestep 1, or ᾱ_0 where the config has `set_alpha_to_one: false`.
    pub(super) fn alpha_bar(&self, t: i64) -> f32 {
        match usize::try_from(t) {
            Ok(t) => self.noise.alphas_cumprod[t],
            Err(_) if self.settings.set_alpha_to_one || self.sampler == Sampler::Ddpm => 1.0,
            Err(_) => self.noise.alphas_cumprod[0],
        }
    }

    /// Training timesteps per step, rounded down.
    pub(super) fn stride(&self) -> i64 {
        (self.settings.num_train_timesteps / self.steps) as i64
    }

    /// PNDM asks the model twice at its second level; with Runge–Kutta steps, it takes the first three steps with
    /// four evaluations each instead. `timesteps` descend.
    fn pndm_timesteps(&self, timesteps: &[f64]) -> Vec<f64> {
        if self.settings.skip_prk_steps {
            let mut out = timesteps.to_vec();
            if let [_, second, ..] = *timesteps {
                out.insert(1, second);
            }
            return out;
        }
        let half = (self.stride() / 2) as f64;
        let mut out = Vec::new();
        for pair in timesteps.windows(2).take(3) {
            let (t, next) = (pair[0], pair[1]);
            out.extend([t, next + half, next + half, next]);
        }
        out.extend(&timesteps[3..]);
        out
    }

    /// σ at the timesteps, spaced anew where the spacing says so, then the last σ.
    fn place_sigmas(&mut self, mut timesteps: Vec<f64>) {
        let table = self.noise.sigmas();
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| interpolate(&table, t)).collect();
        let solver = self.sampler == Sampler::DpmPp2m;
        if self.settings.spacing != Spacing::Normal {
            // DPM-Solver respaces all of the training σs, the others those that they would have visited.
            let (first, last) = if solver {
                (f64::from(table[table.len() - 1]), f64::from(table[0]))
            } else {
                (sigmas[0], sigmas[sigmas.len() - 1])
            };
            let sigma_max = self.settings.sigma_max.unwrap_or(first);
            let sigma_min = self.settings.sigma_min.unwrap_or(last);
            sigmas = respace(self.settings.spacing, sigma_max, sigma_min, self.steps);
            timesteps = timesteps_of(&sigmas, &table);
            let cosine = self.settings.beta_schedule == BetaSchedule::SquaredCosine;
            if solver && self.settings.spacing == Spacing::Karras && !cosine {
                timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
            }
        }
        if solver {
            // Its timesteps are whole numbers in diffusers, whatever is cut off.
            timesteps.iter_mut().for_each(|t| *t = t.trunc());
        }
        let end = match self.settings.final_sigmas_type {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => table[0],
        };
        let mut sigmas = to_f32(&sigmas);
        let mut timesteps = to_f32(&timesteps);
        if self.sampler == Sampler::Heun {
            sigmas = twice_from_the_second(&sigmas);
            timesteps = twice_from_the_second(&timesteps);
        }
        sigmas.push(end);
        if !solver {
            let max = sigmas.iter().copied().fold(0.0, f32::max);
            self.init_noise_sigma = match self.settings.timestep_spacing {
                TimestepSpacing::Linspace | TimestepSpacing::Trailing => max,
                TimestepSpacing::Leading => (max * max + 1.0).sqrt(),
            };
        }
        self.timesteps = timesteps;
        self.sigmas = sigmas;
    }

    /// Refuses what would index beyond ᾱ or divide by zero on the way.
    fn check(&self) -> Result<()> {
        let most = self.settings.num_train_timesteps;
        let largest = self.timesteps.iter().copied().fold(0.0, f32::max);
        if self.sigmas.is_empty() && largest as usize >= most {
            return Err(Error::request(
                "steps",
                format!(
                    "fewer, because steps_offset moves the first timestep to {largest} and the model knows 0 to {}",
                    most - 1
                ),
                self.steps,
            ));
        }
        let no_signal = self.sigmas.is_empty() && self.level(0).alpha == 0.0;
        if no_signal && self.settings.prediction_type == PredictionType::Epsilon {
            return Err(Error::config(
                "prediction_type",
                "\"v_prediction\" or \"sample\", because rescale_betas_zero_snr leaves no signal at the first step",
                "\"epsilon\"",
            ));
        }
        Ok(())
    }
}

fn check_steps(sampler: Sampler, settings: &Settings, steps: usize) -> Result<()> {
    // DPM-Solver's leading spacing needs a stride for one step more, unless the σs are spaced without it.
    let leading = settings.timestep_spacing == TimestepSpacing::Leading
        && settings.spacing == Spacing::Normal;
    let spare = usize::from(sampler == Sampler::DpmPp2m && leading);
    let most = settings.num_train_timesteps - spare;
    let least = match sampler {
        Sampler::Pndm if !settings.skip_prk_steps => 4,
        _ => 1,
    };
    if (least..=most).contains(&steps) {
        return Ok(());
    }
    let expected = format!("a number from {least} to {most} for the sampler {sampler}");
    Err(Error::request("steps", expected, steps))
}

/// The training timesteps to visit, descending.
fn spaced(sampler: Sampler, settings: &Settings, noise: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let train = settings.num_train_timesteps;
    let solver = sampler == Sampler::DpmPp2m;
    // DPM-Solver plans one level more and leaves the last away, and may begin below the last training timestep.
    let count = if solver { steps + 1 } else { steps };
    let last = if solver {
        train - clipped_levels(noise, settings.lambda_min_clipped)
    } else {
        train
    };
    let mut timesteps: Vec<f64> = match settings.timestep_spacing {
        TimestepSpacing::Linspace => {
            let even = linspace(0.0, last.saturating_sub(1) as f64, count);
            let whole = !matches!(
                sampler,
                Sampler::Euler | Sampler::EulerAncestral | Sampler::Heun
            );
            let place = |t: f64| {
                if whole {
                    t.round_ties_even()
                } else {
                    f64::from(t as f32)
                }
            };
            even.into_iter().rev().map(place).collect()
        }
        TimestepSpacing::Leading => {
            let stride = last / count;
            let offset = settings.steps_offset as f64;
            (0..count)
                .rev()
                .map(|i| (i * stride) as f64 + offset)
                .collect()
        }
        TimestepSpacing::Trailing => {
            let stride = train as f64 / steps as f64;
            let count = (last as f64 / stride).ceil() as usize;
            // numpy's arange adds the difference of its first two numbers.
            let step = (last as f64 - stride) - last as f64;
            (0..count)
                .map(|i| (last as f64 + i as f64 * step).round_ties_even() - 1.0)
                .collect()
        }
    };
    if solver && settings.timestep_spacing != TimestepSpacing::Trailing {
        timesteps.truncate(steps);
    }
    timesteps
}

/// How many of the noisiest levels have a λ below `lambda_min`.
fn clipped_levels(noise: &NoiseSchedule, lambda_min: f64) -> usize {
    let lambda = |sigma: &f32| f64::from(NoiseLevel::of_ratio(0.0, *sigma).lambda());
    let sigmas = noise.sigmas();
    sigmas
        .iter()
        .rev()
        .take_while(|sigma| lambda(sigma) < lambda_min)
        .count()
}

/// `numpy.linspace`.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / (count.max(2) - 1) as f64;
    let mut out: Vec<f64> = (0..count).map(|i| i as f64 * step + start).collect();
    if let [_, .., last] = &mut out[..] {
        *last = end;
    }
    out
}

/// The table at a fractional index, linear in between and constant beyond, as `numpy.interp`.
fn interpolate(table: &[f32], at: f64) -> f64 {
    let below = (at.max(0.0) as usize).min(table.len() - 1);
    let low = f64::from(table[below]);
    match table.get(below + 1) {
        Some(&high) => (f64::from(high) - low) * (at - below as f64) + low,
        None => low,
    }
}

/// σs from `max` to `min`: evenly in σ^(1/7) (Karras et al. 2022, equation 5), or in ln σ.
fn respace(spacing: Spacing, max: f64, min: f64, count: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    match spacing {
        Spacing::Exponential => linspace(max.ln(), min.ln(), count)
            .into_iter()
            .map(f64::exp)
            .collect(),
        Spacing::Karras | Spacing::Normal => {
            let (max, min) = (max.powf(1.0 / RHO), min.powf(1.0 / RHO));
            linspace(0.0, 1.0, count)
                .into_iter()
                .map(|ramp| (max + ramp * (min - max)).powf(RHO))
                .collect()
        }
    }
}

/// The fractional timesteps that have these σs, linear in ln σ.
fn timesteps_of(sigmas: &[f64], table: &[f32]) -> Vec<f64> {
    // Rounded to f32, as diffusers has the table: a timestep that is cut to a whole number depends on it.
    let logs: Vec<f64> = table
        .iter()
        .map(|&sigma| f64::from(f64::from(sigma).ln() as f32))
        .collect();
    let timestep = |sigma: &f64| {
        let log = sigma.max(1e-10).ln();
        let low = logs
            .partition_point(|&known| known <= log)
            .saturating_sub(1)
            .min(logs.len() - 2);
        let w = ((logs[low] - log) / (logs[low] - logs[low + 1])).clamp(0.0, 1.0);
        (1.0 - w) * low as f64 + w * (low + 1) as f64
    };
    sigmas.iter().map(timestep).collect()
}

/// a, b, c → a, b, b, c, c.
fn twice_from_the_second(values: &[f32]) -> Vec<f32> {
    let rest = values[1..].iter().flat_map(|&value| [value, value]);
    values[..1].iter().copied().chain(rest).collect()
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}
