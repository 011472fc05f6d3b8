//! The run's configuration: one TOML file, unknown fields refused, every default filled in here.

mod check;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use velatura::checkpoint::FloatType;

use crate::error::{Error, Result};

/// A training run as its TOML file describes it. Paths are relative to the current directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the run lives and how long it goes.
    pub run: Run,
    /// What is learnt from.
    pub data: Data,
    /// What is trained.
    pub model: Model,
    /// The loss.
    #[serde(default)]
    pub loss: Loss,
    /// AdamW, clipping and the learning rate's course.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Exponential moving average of the weights.
    #[serde(default)]
    pub ema: Ema,
    /// Pictures made while it runs.
    #[serde(default)]
    pub sample: Sample,
    /// A fresh VAE: the fields of diffusers' `AutoencoderKL` config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<toml::Table>,
    /// A fresh UNet: the fields of diffusers' `UNet2DConditionModel` config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unet: Option<toml::Table>,
    /// A fresh text encoder: the fields of transformers' `CLIPTextConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<toml::Table>,
    /// The noise schedule: the fields of a diffusers scheduler config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<toml::Table>,
}

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

/// `[data]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// A folder of pictures, or scenes drawn from a seed.
    pub kind: DataKind,
    /// The folder (kind "folder").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Pictures are made square with this side, in pixels.
    pub size: usize,
    /// Side of the random crop that the VAE trains on; the whole picture if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// Scenes drawn (kind "scenes"); absent: a VAE never sees the same scene twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The scenes' own seed (kind "scenes").
    #[serde(default)]
    pub seed: u64,
    /// Folder of named sprites for the scenes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sprites: Option<PathBuf>,
    /// Narrows what the scenes show.
    #[serde(default)]
    pub scenes: Scenes,
    /// Latents cache; default `cache` in the run folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Share of captions replaced by the empty one, which is what guidance needs.
    #[serde(default = "defaults::caption_dropout")]
    pub caption_dropout: f32,
    /// Background threads that prepare batches.
    #[serde(default = "defaults::workers")]
    pub workers: usize,
}

/// `[data.scenes]`: lists of names and shares in place of the defaults of `velatura-scenes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenes {
    /// Landscapes.
    pub settings: Option<Vec<String>>,
    /// Hours.
    pub times: Option<Vec<String>>,
    /// Weathers.
    pub weathers: Option<Vec<String>>,
    /// Paints.
    pub colours: Option<Vec<String>>,
    /// Things, in the singular.
    pub nouns: Option<Vec<String>>,
    /// Share of scenes with two different things.
    pub pair_share: Option<f32>,
    /// Share of scenes with two or three of the same thing.
    pub count_share: Option<f32>,
    /// Share of single things drawn small, and the same share drawn big.
    pub odd_size_share: Option<f32>,
    /// Share of scenes in clear weather.
    pub clear_share: Option<f32>,
}

/// Where pictures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataKind {
    /// Pictures with captions in a folder.
    Folder,
    /// Scenes drawn by `velatura-scenes`.
    Scenes,
}

/// `[model]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What this run trains.
    pub part: Part,
    /// A diffusers folder to go on from; absent: fresh weights from the tables of the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// The trained VAE (part "unet"): a model folder, or the VAE's own folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<PathBuf>,
    /// Whether the text encoder learns with the UNet.
    #[serde(default = "defaults::yes")]
    pub train_text_encoder: bool,
    /// The fresh text encoder's vocabulary.
    #[serde(default)]
    pub tokenizer: TokenizerKind,
    /// Recompute blocks in the backward pass instead of keeping their activations.
    #[serde(default)]
    pub recompute: bool,
    /// Number format of the matrix products; weights, sums and the optimiser are f32 either way.
    #[serde(default)]
    pub precision: PrecisionKind,
}

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The autoencoder.
    Vae,
    /// The UNet, with or without the text encoder.
    Unet,
}

/// A fresh text encoder's vocabulary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// The words of the captions.
    #[default]
    Captions,
    /// CLIP's own 49 408 tokens.
    Clip,
}

/// Number format of the products in the forward and backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionKind {
    /// 32-bit.
    #[default]
    F32,
    /// bfloat16 operands, 32-bit sums.
    Bf16,
}

/// `[loss]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// The VAE's reconstruction term.
    pub reconstruction: Reconstruction,
    /// The VAE's KL weight as the LDM paper counts it (sums over a picture): 1e-6 is Stable Diffusion's.
    pub kl_weight: f32,
    /// The UNet's weighting by signal-to-noise ratio (Hang et al. 2023, where γ is 5); all timesteps alike if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_snr_gamma: Option<f32>,
}

impl Default for Loss {
    fn default() -> Self {
        Loss {
            reconstruction: Reconstruction::L1,
            kl_weight: 1e-6,
            min_snr_gamma: None,
        }
    }
}

/// The reconstruction term, a mean over pixels and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reconstruction {
    /// |x − x̂|
    L1,
    /// (x − x̂)²
    L2,
}

/// `[optimizer]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// The rate after the warm-up.
    pub learning_rate: f64,
    /// AdamW's β₁ and β₂.
    pub betas: [f64; 2],
    /// AdamW's ε.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps over which the rate rises from 0 linearly.
    pub warmup_steps: u64,
    /// The rate's course after the warm-up.
    pub decay: Decay,
    /// The rate at the last step as a fraction of `learning_rate` (decay "cosine" and "linear").
    pub final_fraction: f64,
    /// Gradients are scaled down to this global norm; 0 for no clipping.
    pub max_grad_norm: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            learning_rate: 1e-4,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.01,
            warmup_steps: 0,
            decay: Decay::Constant,
            final_fraction: 0.0,
            max_grad_norm: 1.0,
        }
    }
}

/// The learning rate's course after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// No change.
    Constant,
    /// Half a cosine down to `final_fraction`.
    Cosine,
    /// A line down to `final_fraction`.
    Linear,
}

/// `[ema]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ema {
    /// The average's decay per step; 0 keeps no average and exports the last weights.
    pub decay: f32,
}

impl Default for Ema {
    fn default() -> Self {
        Ema { decay: 0.999 }
    }
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
    pub fn caption_dropout() -> f32 {
        0.1
    }
    pub fn workers() -> usize {
        1
    }
    pub fn yes() -> bool {
        true
    }
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, has an unknown, missing or impossible field.
    pub fn from_file(file: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(file).map_err(Error::io("read", file))?;
        Config::parse(&text, file)
    }

    /// Parses `text`; `file` is named in errors.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn parse(text: &str, file: &Path) -> Result<Config> {
        let config: Config = toml::from_str(text).map_err(|error| {
            let place = error
                .span()
                .map(|span| line_of(text, span.start))
                .unwrap_or_default();
            Error::config(file, format!("{place}{}", error.message()))
        })?;
        config
            .check()
            .map_err(|message| Error::config(file, message))?;
        Ok(config)
    }

    /// The part of the config that a resumed run must share with the one it goes on from, as JSON.
    ///
    /// Length, intervals, samples, optimiser settings and the number of loader threads may change; what the weights, the optimiser state
    /// and the order of the data depend on may not.
    pub fn identity(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or(Value::Null);
        if let Value::Object(root) = &mut value {
            for free in ["optimizer", "sample", "loss"] {
                root.remove(free);
            }
            if let Some(Value::Object(run)) = root.get_mut("run") {
                run.retain(|key, _| key == "seed" || key == "batch_size");
            }
            if let Some(Value::Object(data)) = root.get_mut("data") {
                data.remove("workers");
                data.remove("cache");
            }
            if let Some(Value::Object(ema)) = root.get_mut("ema") {
                // The value may change, but an average that was never kept cannot be gone on with.
                let kept = ema.get("decay").and_then(Value::as_f64).unwrap_or(0.0) > 0.0;
                ema.insert("decay".into(), Value::Bool(kept));
            }
        }
        value
    }
}

/// `line 3 (steps = "ten"): ` for the byte at `offset`; nothing where that line says nothing.
fn line_of(text: &str, offset: usize) -> String {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let number = before.iter().filter(|&&byte| byte == b'\n').count();
    match text.lines().nth(number).map(str::trim) {
        Some(line) if !line.is_empty() => format!("line {} ({line}): ", number + 1),
        _ => String::new(),
    }
}

/// The first field in which two JSON values differ: its path, the left and the right value.
pub(crate) fn first_difference(
    left: &Value,
    right: &Value,
    path: &str,
) -> Option<(String, String, String)> {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let (x, y) = (
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                );
                if let Some(found) = first_difference(x, y, &path) {
                    return Some(found);
                }
            }
            None
        }
        (a, b) if a == b => None,
        (a, b) => Some((path.to_string(), a.to_string(), b.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAE: &str = r#"
[run]
dir = "runs/x"
steps = 10
batch_size = 2
[data]
kind = "folder"
path = "pictures"
size = 64
[model]
part = "vae"
[vae]
block_out_channels = [8, 16]
"#;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("c.toml"))
    }

    #[test]
    fn a_small_file_is_filled_with_defaults() {
        let config = parse(VAE).unwrap();
        assert_eq!(config.run.keep, 3);
        assert_eq!(config.optimizer.betas, [0.9, 0.999]);
        assert_eq!(config.data.caption_dropout, 0.1);
    }

    #[test]
    fn errors_name_file_and_field() {
        for (from, to, expected) in [
            ("steps = 10", "steps = 0", "[run] steps"),
            ("steps = 10", "stepz = 10", "stepz"),
            (
                "steps = 10",
                "steps = \"ten\"",
                "line 4 (steps = \"ten\"): invalid type: string \"ten\"",
            ),
            ("steps = 10", "", "missing field `steps`"),
            ("size = 64", "size = 63", "[data] size"),
            ("size = 64", "size = 64\ncrop = 128", "[data] crop"),
            ("path = \"pictures\"", "", "[data] path"),
            ("kind = \"folder\"", "kind = \"tape\"", "tape"),
            ("[vae]\nblock_out_channels = [8, 16]", "", "[vae]"),
            ("part = \"vae\"", "part = \"unet\"", "[unet]"),
            (
                "[vae]",
                "[optimizer]\nlearning_rate = -1.0\n[vae]",
                "[optimizer] learning_rate",
            ),
        ] {
            let text = VAE.replace(from, to);
            let message = parse(&text).unwrap_err().to_string();
            assert!(message.starts_with("c.toml: "), "{message}");
            assert!(
                message.contains(expected),
                "{expected:?} is not in {message:?}"
            );
        }
    }

    #[test]
    fn identity_ignores_what_may_change() {
        let a = parse(VAE).unwrap();
        let b = parse(&VAE.replace("steps = 10", "steps = 99\nsave_every = 7")).unwrap();
        assert_eq!(a.identity(), b.identity());
        let c = parse(&VAE.replace("size = 64", "size = 32")).unwrap();
        let (path, old, new) = first_difference(&a.identity(), &c.identity(), "").unwrap();
        assert_eq!(
            (path.as_str(), old.as_str(), new.as_str()),
            ("data.size", "64", "32")
        );
    }
}
