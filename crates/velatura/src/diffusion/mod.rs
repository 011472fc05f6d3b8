//! From noise to latents and back: the noise schedule, what the model predicts, guidance and the samplers.
//!
//! A sampler never sees a model, only a function of x and t; a model never sees a sampler. Between them stands the
//! [`denoiser`], the one place that knows what a prediction means. Reading order: [`schedule`] (β → ᾱ → σ),
//! [`denoiser`], [`guidance`], [`config`] (what `scheduler_config.json` says), [`timesteps`] (which noise levels are
//! visited), [`samplers`].

pub mod config;
pub mod denoiser;
pub mod guidance;
pub mod samplers;
pub mod schedule;
pub mod timesteps;

pub use config::{SchedulerConfig, Settings};
pub use denoiser::{LossWeight, NoiseLevel, PredictionType};
pub use samplers::{Known, Options, Sampler, Spacing, Step, sample};
pub use schedule::NoiseSchedule;
pub use timesteps::SamplerSchedule;

use velatura_tensor::Tensor;

/// x/by, rounded once. Samplers subtract numbers that nearly agree (σ reaches 20 000 with cosine schedules), so the
/// order of operations and their rounding is kept as in diffusers: the product with 1/by would round twice.
fn divide(x: &Tensor, by: f32) -> Tensor {
    let values = x.as_slice().iter().map(|x| x / by).collect();
    Tensor::from_vec(values, x.shape())
}
