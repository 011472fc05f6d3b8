//! How long a run goes, where it lives, and what it shows on the way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use velatura::checkpoint::FloatType;

/// `[run]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The run folder; it must not exist unless the run is resumed.
    pub dir: PathBuf,
    /// Everything random in the run follows from this number.
    #[serde(default)]
    pub seed: u64,
    /// Optimiser steps in all.
    pub steps: u64,
    /// Pictures per step.
    pub batch_size: usize,
    /// Parts in which the pictures of a step are taken, one after the other, their gradients added up: less memory for
    /// the same result within rounding.
    #[serde(default = "defaults::accumulate")]
    pub accumulate: usize,
    /// Steps between checkpoints.
    #[serde(default = "defaults::save_every")]
    pub save_every: u64,
    /// Steps between sample grids; 0 for none.
    #[serde(default = "defaults::sample_every")]
    pub sample_every: u64,
    /// Steps between log lines and rows of `metrics.jsonl`.
    #[serde(default = "defaults::log_every")]
    pub log_every: u64,
    /// Checkpoints kept.
    #[serde(default = "defaults::keep")]
    pub keep: usize,
    /// Number format of the exported model.
    #[serde(default = "defaults::export")]
    pub export: FloatType,
}

/// `[sample]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// One picture for each (part "unet").
    pub prompts: Vec<String>,
    /// Sampler steps.
    pub steps: usize,
    /// Classifier-free guidance.
    pub guidance_scale: f32,
    /// Seed of the first picture; the next prompt takes the next number.
    pub seed: u64,
    /// Pictures in the reconstruction grid (part "vae").
    pub count: usize,
}

impl Default for Sample {
    fn default() -> Self {
        Sample {
            prompts: Vec::new(),
            steps: 20,
            guidance_scale: 5.0,
            seed: 0,
            count: 8,
        }
    }
}

mod defaults {
    use super::FloatType;

    pub fn export() -> FloatType {
        FloatType::F16
    }
    pub fn accumulate() -> usize {
        1
    }
    pub fn save_every() -> u64 {
        500
    }
    pub fn sample_every() -> u64 {
        500
    }
    pub fn log_every() -> u64 {
        10
    }
    pub fn keep() -> usize {
        3
    }
}
