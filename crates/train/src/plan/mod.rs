//! `velatura train --plan`: what a run will take, said before it is begun.
//!
//! The models of the run are made as the run makes them, in a run folder that is thrown away, with a few pictures in
//! place of all. What can be counted is counted; a few real steps are measured; the rest follows from both.

mod figures;
mod measure;
mod text;
mod trial;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::figures::{Amount, How, PartSize};
use self::figures::{disk, duration, memory, sizes};
use self::measure::{Measured, measure};
use crate::Options;
use crate::config::{Config, Part};
use crate::error::Result;
use crate::machine;
use crate::objective::{Objective, optimizers};
use crate::run_folder::RunFolder;
use crate::scorer::ScorerObjective;
use crate::step_unet::UnetObjective;
use crate::step_vae::VaeObjective;

/// What a run will take.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The config file.
    pub config: PathBuf,
    /// The run folder.
    pub run: PathBuf,
    /// What is trained.
    pub part: Part,
    /// Optimiser steps.
    pub steps: u64,
    /// Pictures a step, those of a prior included.
    pub batch_size: usize,
    /// Parts that they are taken in.
    pub accumulate: usize,
    /// Threads of the arithmetic.
    pub threads: usize,
    /// Numbers in the models.
    pub parameters: Vec<PartSize>,
    /// Bytes in memory.
    pub memory: Vec<Amount>,
    /// Their sum.
    pub memory_bytes: f64,
    /// Bytes of memory that were free for it; none where the system does not tell.
    pub memory_available: Option<u64>,
    /// Floating-point operations of a step, a multiply-add counting two: forward, backward, and what is recomputed.
    pub flops_per_step: Option<f64>,
    /// Bytes on the disk.
    pub disk: Vec<Amount>,
    /// Their sum.
    pub disk_bytes: f64,
    /// Bytes free on the disk of the run folder; none where the system does not tell.
    pub disk_free: Option<u64>,
    /// Seconds.
    pub time: Vec<Amount>,
    /// Their sum; none where no step could be measured.
    pub seconds: Option<f64>,
    /// What will not fit, in words.
    pub obstacles: Vec<String>,
}

/// Works out what the run of a config file will take, by measuring a few of its steps. Nothing is written where the
/// run will be.
///
/// # Errors
/// The config, the data or the base model cannot be used.
pub fn plan(file: &Path, options: &Options) -> Result<Plan> {
    within(machine::memory_available(), file, options)
}

/// [`plan`] with so many bytes of memory; none where the system does not tell.
fn within(available: Option<u64>, file: &Path, options: &Options) -> Result<Plan> {
    let config = Config::from_file(file)?;
    if let Some(threads) = options.threads {
        velatura_kernels::pool::set_threads(threads);
    }
    let scratch = trial::Scratch::new(&config)?;
    let trial = scratch.config();
    let run = RunFolder::open(trial, file, false)?;
    match config.model.part {
        Part::Vae => {
            let objective = VaeObjective::new(trial, &run)?;
            Plan::of(file, &config, &scratch, &objective, available)
        }
        Part::Scorer => {
            let objective = ScorerObjective::new(trial, &run)?;
            Plan::of(file, &config, &scratch, &objective, available)
        }
        _ => match UnetObjective::new(trial, &run, options)? {
            Some(objective) => Plan::of(file, &config, &scratch, &objective, available),
            None => Err(crate::Error::run(
                run.dir(),
                "stopped before anything was measured",
            )),
        },
    }
}

impl Plan {
    fn of<O: Objective>(
        file: &Path,
        config: &Config,
        scratch: &trial::Scratch,
        objective: &O,
        available: Option<u64>,
    ) -> Result<Plan> {
        let run = &config.run;
        let mut optimizers = optimizers(objective, scratch.config());
        let parameters = sizes(config, &optimizers, objective.frozen())?;
        let mut memory = memory(config, &parameters, &optimizers);
        let fixed = sum(&memory);
        let measured = measure(
            objective,
            scratch.config(),
            &mut optimizers,
            fixed,
            available,
        )?;
        if let Some(activations) = &measured.activations {
            memory.push(activations.clone());
        }
        let disk = disk(config, &parameters, scratch.pictures());
        let time = duration(config, scratch.pictures(), &measured);
        let memory_bytes = sum(&memory);
        let disk_bytes = sum(&disk);
        let disk_free = machine::disk_free(&run.dir);
        let mut obstacles = Vec::new();
        if let Some(available) = available.filter(|&available| memory_bytes > available as f64) {
            obstacles.push(text::memory_obstacle(config, memory_bytes, available));
        }
        if let Some(free) = disk_free.filter(|&free| disk_bytes > free as f64) {
            obstacles.push(text::disk_obstacle(config, disk_bytes, free));
        }
        let Measured { flops, step, .. } = measured;
        Ok(Plan {
            config: file.to_path_buf(),
            run: run.dir.clone(),
            part: config.model.part,
            steps: run.steps,
            batch_size: objective.batch_size(),
            accumulate: run.accumulate,
            threads: velatura_kernels::pool::threads(),
            parameters,
            memory,
            memory_bytes,
            memory_available: available,
            flops_per_step: flops,
            disk,
            disk_bytes,
            disk_free,
            seconds: step.map(|_| sum(&time)),
            time,
            obstacles,
        })
    }
}

fn sum(amounts: &[Amount]) -> f64 {
    amounts.iter().map(|amount| amount.value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAE: &str = r#"
[run]
dir = "never-made"
steps = 100
batch_size = 8
[data]
kind = "scenes"
size = 64
[model]
part = "vae"
[vae]
in_channels = 3
out_channels = 3
latent_channels = 4
block_out_channels = [4, 8]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]
norm_num_groups = 2
layers_per_block = 1
"#;

    #[test]
    fn no_more_is_measured_than_fits() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vae.toml");
        std::fs::write(&file, VAE).unwrap();
        let within = |bytes: Option<u64>| within(bytes, &file, &Options::default()).unwrap();
        let whole = within(None);
        let activations = whole.memory.last().unwrap();
        assert_eq!(activations.how, How::Measured);
        assert!(whole.obstacles.is_empty(), "{:?}", whole.obstacles);

        // Not even the weights: nothing is measured.
        let nothing = within(Some(1000));
        assert_eq!((nothing.seconds, nothing.flops_per_step), (None, None));
        assert!(nothing.to_string().contains("[run] accumulate"));

        // The weights, and half of the activations: those of the batch are estimated from one and two samples.
        let bytes = whole.memory_bytes - activations.value / 2.0;
        let half = within(Some(bytes as u64));
        let estimated = half.memory.last().unwrap();
        assert_eq!(estimated.how, How::Estimated);
        assert!(half.seconds.is_some_and(|seconds| seconds > 0.0));
        assert_eq!(half.obstacles.len(), 1);
        let error = estimated.value / activations.value - 1.0;
        assert!(
            error.abs() < 0.25,
            "estimated {estimated:?}, measured {activations:?}"
        );
    }
}
