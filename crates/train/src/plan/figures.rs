//! What follows from the config and the sizes of the models, by counting.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use velatura::checkpoint::{Component, FloatType};

use super::measure::Measured;
use super::trial::Pictures;
use crate::config::{Config, OptimizerKind, Part, PrecisionKind, StateKind};
use crate::error::Result;
use crate::models::component_dir;
use crate::optimizer::Optimizer;
use crate::prior;

/// The numbers of one model.
#[derive(Debug, Clone, Serialize)]
pub struct PartSize {
    /// "unet", "text_encoder", "vae", "discriminator", "lpips".
    pub part: &'static str,
    /// Numbers that training changes.
    pub trained: usize,
    /// Numbers that stay as they are.
    pub frozen: usize,
    /// Whether gradients pass through, so that products need the weights in two forms.
    #[serde(skip)]
    passed: bool,
}

/// A figure, and how it is known.
#[derive(Debug, Clone, Serialize)]
pub struct Amount {
    /// What it is an amount of.
    pub what: String,
    /// Bytes or seconds.
    pub value: f64,
    /// How it is known.
    pub how: How,
}

/// How a figure is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Counted.
    Computed,
    /// Seen on this machine.
    Measured,
    /// Derived from what was measured of something smaller or alike.
    Estimated,
}

impl Amount {
    fn new(what: impl Into<String>, value: f64, how: How) -> Amount {
        Amount {
            what: what.into(),
            value,
            how,
        }
    }
}

/// How many numbers each model has. `others` are networks that only judge.
pub(super) fn sizes(
    config: &Config,
    optimizers: &[Optimizer],
    others: Vec<(&'static str, usize)>,
) -> Result<Vec<PartSize>> {
    let mut trained: BTreeMap<&'static str, usize> = BTreeMap::new();
    for named in optimizers.iter().flat_map(Optimizer::parameters) {
        *trained.entry(named.component).or_default() += named.len();
    }
    let model = &config.model;
    let beside = matches!(model.part, Part::Lora | Part::Embedding);
    let mut parts = Vec::new();
    if let Some(base) = model
        .base
        .as_deref()
        .filter(|_| model.part.learns_latents())
    {
        if beside {
            parts.push(("unet", count(base, "unet")?, true));
        }
        let text_is_trained = model.part == Part::Unet && model.train_text_encoder;
        if !text_is_trained {
            let passed = model.part == Part::Embedding || model.train_text_encoder;
            parts.push(("text_encoder", count(base, "text_encoder")?, passed));
        }
    }
    if model.part.learns_latents() {
        let vae = model.vae.as_deref().or(model.base.as_deref());
        parts.push(("vae", count(vae.unwrap_or(Path::new(".")), "vae")?, false));
    }
    parts.extend(others.into_iter().map(|(part, count)| (part, count, true)));
    let mut sizes: Vec<PartSize> = trained
        .into_iter()
        .map(|(part, trained)| PartSize {
            part,
            trained,
            frozen: 0,
            passed: true,
        })
        .collect();
    for (part, frozen, passed) in parts {
        match sizes.iter_mut().find(|size| size.part == part) {
            Some(size) => size.frozen += frozen,
            None => sizes.push(PartSize {
                part,
                trained: 0,
                frozen,
                passed,
            }),
        }
    }
    Ok(sizes)
}

/// The numbers in a component's files.
fn count(folder: &Path, name: &str) -> Result<usize> {
    let component = Component::open(&component_dir(folder, name), None)?;
    let tensors = component.names().filter_map(|name| component.tensor(name));
    Ok(tensors
        .map(|view| view.shape.iter().product::<usize>())
        .sum())
}

/// Bytes that a run takes whatever its batch.
pub(super) fn memory(config: &Config, parts: &[PartSize], optimizers: &[Optimizer]) -> Vec<Amount> {
    let all: usize = parts.iter().map(|part| part.trained + part.frozen).sum();
    let trained: usize = parts.iter().map(|part| part.trained).sum();
    let passed: usize = parts
        .iter()
        .filter(|part| part.passed)
        .map(|part| part.trained + part.frozen)
        .sum();
    let (precision, product) = match config.model.precision {
        PrecisionKind::F32 => ("f32", 4),
        PrecisionKind::Bf16 => ("bf16", 2),
    };
    let state = match (config.optimizer.kind, config.optimizer.state) {
        (OptimizerKind::Muon, _) => "momentum of matrices, moments of the rest",
        (OptimizerKind::AdamW, StateKind::F32) => "two moments in f32",
        (OptimizerKind::AdamW, StateKind::EightBit) => "two moments in 8 bits",
    };
    let moments = optimizers.iter().map(Optimizer::state_bytes).sum();
    let computed = |what: String, bytes: usize| Amount::new(what, bytes as f64, How::Computed);
    let mut memory = vec![
        computed("weights, f32".into(), 4 * all),
        computed(
            format!("weights packed for products, {precision}, forward and backward"),
            2 * product * passed,
        ),
        computed("gradients".into(), 4 * trained),
        computed(format!("optimiser, {state}"), moments),
    ];
    if config.ema.decay > 0.0 {
        // Only what is taken away is averaged, which the first optimiser has.
        let averaged = optimizers.iter().take(1).flat_map(Optimizer::parameters);
        let bytes = 4 * averaged.map(|named| named.len()).sum::<usize>();
        memory.push(computed("average of the weights (EMA)".into(), bytes));
    }
    memory
}

/// Bytes that the run folder grows to.
pub(super) fn disk(config: &Config, parts: &[PartSize], pictures: &Pictures) -> Vec<Amount> {
    let trained: usize = parts.iter().map(|part| part.trained).sum();
    let averaged: usize = (parts.iter())
        .filter(|part| part.part != "discriminator")
        .map(|part| part.trained)
        .sum();
    let average = if config.ema.decay > 0.0 {
        4 * averaged
    } else {
        0
    };
    let checkpoint = (4 + 8) * trained + average;
    let saves = config.run.steps.div_ceil(config.run.save_every);
    let kept = saves.min(config.run.keep as u64 + 1);
    let number = match config.run.export {
        FloatType::F32 => 4,
        FloatType::F16 | FloatType::Bf16 => 2,
    };
    let exported = match config.model.part {
        Part::Vae | Part::Scorer => averaged,
        Part::Unet => parts.iter().map(|part| part.trained + part.frozen).sum(),
        // In two spellings.
        Part::Lora => 2 * trained,
        Part::Embedding => trained,
    };
    let amount = |what: String, bytes: f64| Amount::new(what, bytes, How::Computed);
    let mut disk = vec![
        amount(
            format!(
                "checkpoints, {kept} of {:.1} MB while one is written",
                checkpoint as f64 / 1e6
            ),
            (kept * checkpoint as u64) as f64,
        ),
        amount(
            "model, old and new while it is written".into(),
            (2 * number * exported) as f64,
        ),
    ];
    if let (Some(count), Some(numbers)) = (pictures.count, latent_numbers(config)) {
        let prior = config.prior.as_ref().map_or(0, |prior| prior.count as u64);
        // Mean and logarithm of the variance, two bytes each.
        let bytes = (count + prior) as f64 * (4 * numbers) as f64;
        disk.push(amount("latents cache".into(), bytes));
    }
    disk
}

/// Numbers in the latents of a picture; none where no latents are kept.
fn latent_numbers(config: &Config) -> Option<usize> {
    let model = &config.model;
    if !model.part.learns_latents() {
        return None;
    }
    let folder = model.vae.as_deref().or(model.base.as_deref())?;
    let component = Component::open(&component_dir(folder, "vae"), None).ok()?;
    let vae = velatura::vae::VaeConfig::read(&component).ok()?;
    let side = config.data.size / vae.factor();
    Some(side * side * vae.latent_channels)
}

/// Seconds of the whole run.
pub(super) fn duration(config: &Config, pictures: &Pictures, measured: &Measured) -> Vec<Amount> {
    let run = &config.run;
    let mut time = Vec::new();
    let Some((step, how)) = measured.step else {
        return time;
    };
    let forward = measured.forward.unwrap_or_default();
    if let Some(prior) = &config.prior {
        let missing = prior.count.saturating_sub(prior::present(&prior.path)) as f64;
        if missing > 0.0 {
            // The library's fifty steps, each with and without the caption.
            time.push(Amount::new(
                format!("painting {missing} pictures of the class"),
                missing * 100.0 * forward,
                How::Estimated,
            ));
        }
    }
    if let (Some(count), Some(encode)) = (pictures.count, measured.encode) {
        let prior = config.prior.as_ref().map_or(0, |prior| prior.count as u64);
        let each = encode.max(pictures.seconds / config.data.workers as f64);
        let count = count + prior;
        time.push(Amount::new(
            format!(
                "latents of {count} pictures, {:.1} a second; none if they are cached",
                1.0 / each.max(1e-9)
            ),
            each * count as f64,
            How::Estimated,
        ));
    }
    time.push(Amount::new(
        format!("{} steps of {step:.3} s", run.steps),
        step * run.steps as f64,
        how,
    ));
    if run.sample_every > 0 {
        let grids = run.steps.div_ceil(run.sample_every);
        let passes = match config.model.part {
            Part::Vae => {
                let crop = config.data.crop.unwrap_or(config.data.size);
                let larger = (config.data.size / crop).pow(2);
                (config.sample.count * larger) as f64
            }
            Part::Scorer => 0.0,
            _ => (2 * config.sample.steps * config.sample.prompts.len()) as f64,
        };
        if passes > 0.0 {
            time.push(Amount::new(
                format!("{grids} sample grid{}", if grids == 1 { "" } else { "s" }),
                grids as f64 * passes * forward,
                How::Estimated,
            ));
        }
    }
    time
}
