//! Training: a captioned picture's way from the disk to a better model.
//!
//! `dataset` → `loader` (decode, crop, drop some captions, or read cached latents) → the step of the part that is
//! trained → gradients → clipping → AdamW → average → every N steps a checkpoint. The models, the noise schedule and
//! the denoiser are those that generation uses.
//!
//! A run is a function of its config: everything random follows from the seed and the step, so a run that is stopped
//! and resumed ends with the very weights of one that was not, on the same machine with the same number of threads.

pub mod bench;
mod buckets;
pub mod checkpoint;
pub mod config;
mod critics;
pub mod dataset;
mod denoising;
pub mod discriminator;
pub mod ema;
mod error;
pub mod evaluate;
mod events;
mod first_batches;
mod inspection;
mod latent_source;
mod latents;
mod learner;
mod live;
pub mod loader;
pub mod lpips;
pub mod machine;
mod mirror;
mod models;
mod objective;
pub mod optimizer;
mod order;
mod parts;
pub mod picture;
pub mod plan;
mod prepare_unet;
mod prior;
mod progress;
pub mod random;
mod report;
mod run_folder;
pub mod scorer;
mod step_unet;
mod step_vae;
mod text_cache;
mod trainer;
mod vae_loss;

use std::path::{Path, PathBuf};

use velatura::image::Image;

pub use self::config::Config;
pub use self::denoising::{Denoising, Distance, Example};
pub use self::error::{Error, Result};
pub use self::latent_source::add_offsets;
pub use self::live::say;
pub use self::objective::Losses;
pub use self::plan::{Plan, plan};
pub use self::run_folder::RunFolder;
pub use self::vae_loss::VaeLoss;

/// How a run is started.
pub struct Options<'a> {
    /// Go on from the newest checkpoint in the run folder; without one, begin.
    pub resume: bool,
    /// Threads for the arithmetic; all cores if absent.
    pub threads: Option<usize>,
    /// Asked after every step; true finishes the step, saves and leaves.
    pub stop: &'a dyn Fn() -> bool,
    /// Makes of a sample picture what shows it in this terminal; none in one that cannot.
    pub show: &'a dyn Fn(&Image) -> Option<String>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            resume: false,
            threads: None,
            stop: &|| false,
            show: &|_| None,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done and the model is exported.
    Finished,
    /// It was asked to stop, and has saved.
    Stopped,
}

/// What a run leaves behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The run folder; the exported model is in `model` below it.
    pub run: PathBuf,
    /// The last step done.
    pub step: u64,
    /// Its loss; NaN when no step was done.
    pub loss: f32,
    /// Whether it is finished.
    pub ending: Ending,
}

/// Trains as the config file says, on the device of this thread. Progress goes to standard error and to `metrics.jsonl` in
/// the run folder.
///
/// # Errors
/// The config, the data, the base model or the run folder cannot be used; the disk is full; the loss stopped being a
/// number. Whatever happens, the last checkpoint stays whole.
pub fn train(file: &Path, options: &Options) -> Result<Outcome> {
    let config = Config::from_file(file)?;
    if let Some(threads) = options.threads {
        velatura_kernels::pool::set_threads(threads);
    }
    let folder = RunFolder::open(&config, file, options.resume)?;
    match config.model.part {
        config::Part::Vae => step_vae::train(&config, &folder, options),
        config::Part::Scorer => scorer::train(&config, &folder, options),
        _ => step_unet::train(&config, &folder, options),
    }
}
