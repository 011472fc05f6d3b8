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
pub use samplers::{Options, Sampler, Spacing, Step, sample};
pub use schedule::NoiseSchedule;
pub use timesteps::SamplerSchedule;
