//! The run's configuration: one TOML file, unknown fields refused, every default filled in here.

mod check;
mod check_data;
mod check_tables;
mod critics;
mod data;
mod learning;
mod model;
mod run;
mod scorer;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::critics::{Discriminator, Lpips};
pub use self::data::{Data, DataKind, Prior, Scenes, Source};
pub use self::learning::{
    Decay, DistanceKind, Ema, Loss, Optimizer, OptimizerKind, Reconstruction, StateKind,
    TimestepKind,
};
pub use self::model::{Embedding, Lora, Model, Part, PrecisionKind, TokenizerKind};
pub use self::run::{Run, Sample};
pub use self::scorer::Scorer;
use crate::error::{Error, Result};

/// A training run as its TOML file describes it. Paths are relative to the current directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the run lives and how long it goes.
    pub run: Run,
    /// What is learnt from.
    pub data: Data,
    /// Pictures of a class, learnt beside those of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<Prior>,
    /// What is trained.
    pub model: Model,
    /// The loss.
    #[serde(default)]
    pub loss: Loss,
    /// What learns to tell a VAE's pictures from real ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discriminator: Option<Discriminator>,
    /// A perceptual distance beside the VAE's reconstruction term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpips: Option<Lpips>,
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
    /// The adaptation (part "lora"); the defaults if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// The word that is learnt (part "embedding").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Embedding>,
    /// The network that judges scenes (part "scorer"); the defaults if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scorer: Option<Scorer>,
    /// The noise schedule: the fields of a diffusers scheduler config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<toml::Table>,
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

    /// The adaptation that is trained; none where weights themselves are.
    pub fn adaptation(&self) -> Option<Lora> {
        (self.model.part == Part::Lora).then(|| self.lora.clone().unwrap_or_default())
    }

    /// The part of the config that a resumed run must share with the one it goes on from, as JSON.
    ///
    /// Length, intervals, samples, optimiser settings and the number of loader threads may change; what the weights, the optimiser state
    /// and the order of the data depend on may not.
    pub fn identity(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or(Value::Null);
        if let Value::Object(root) = &mut value {
            // Another kind remembers other things of the gradients; AdamW has always been unsaid.
            if let Some(Value::Object(optimizer)) = root.get_mut("optimizer") {
                optimizer.retain(|key, _| key == "kind");
                if optimizer.is_empty() {
                    root.remove("optimizer");
                }
            }
            // What is left unsaid was written out as the words of the captions once.
            if let Some(Value::Object(model)) = root.get_mut("model") {
                let said = model.entry("tokenizer");
                said.or_insert_with(|| json!(TokenizerKind::Captions));
            }
            for free in ["sample", "loss", "lpips"] {
                root.remove(free);
            }
            if let Some(Value::Object(run)) = root.get_mut("run") {
                run.retain(|key, _| key == "seed" || key == "batch_size");
            }
            if let Some(Value::Object(discriminator)) = root.get_mut("discriminator") {
                discriminator.retain(|key, _| key == "num_layers" || key == "ndf");
            }
            if let Some(Value::Object(data)) = root.get_mut("data") {
                data.remove("workers");
                data.remove("cache");
                // Texts come to the same with it and without, but for their last bits.
                data.remove("cache_text");
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
            (
                "batch_size = 2",
                "batch_size = 2\naccumulate = 3",
                "[run] accumulate",
            ),
            ("[vae]", "[loss]\nhuber_c = 0.0\n[vae]", "[loss] huber_c"),
            (
                "[vae]",
                "[loss]\noffset_noise = -1.0\n[vae]",
                "[loss] offset_noise",
            ),
            ("[vae]", "[lora]\nrank = 4\n[vae]", "[lora]"),
            (
                "[vae]",
                "[prior]\npath = \"a\"\ncaption = \"b\"\n[vae]",
                "[prior]",
            ),
            (
                "[vae]",
                "[embedding]\nword = \"a\"\ninit = \"b\"\n[vae]",
                "[embedding]",
            ),
            ("part = \"vae\"", "part = \"lora\"", "[model] base"),
            ("kind = \"folder\"\n", "", "[data] kind: missing"),
            (
                "size = 64",
                "size = 64\nbucket_step = 64",
                "[data] bucket_step",
            ),
            (
                "size = 64",
                "size = 64\nimage_column = \"i\"",
                "[data] image_column",
            ),
            ("size = 64", "size = 64\nflip = 1", "flip = 1"),
            ("[vae]", "[discriminator]\n[vae]", "missing field `start`"),
            (
                "[vae]",
                "[discriminator]\nstart = 5\nnum_layers = 9\n[vae]",
                "[discriminator] num_layers",
            ),
            (
                "[vae]",
                "[lpips]\npath = \"x\"\nweight = -1.0\n[vae]",
                "[lpips] weight",
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
    fn several_sources_each_say_what_they_are() {
        let sources = |more: &str| {
            let (before, after) = VAE
                .split_once("kind = \"folder\"\npath = \"pictures\"\nsize = 64\n")
                .unwrap();
            parse(&format!(
                "{before}size = 64\n[[data.sources]]\nkind = \"webdataset\"\npath = \"a.tar\"\nweight = 3.0\n\
                 [[data.sources]]\n{more}\n{after}"
            ))
        };
        let config = sources("kind = \"parquet\"\npath = \"b\"").unwrap();
        let read = config.data.sources();
        assert_eq!((read.len(), read[0].weight, read[1].weight), (2, 3.0, 1.0));
        for (more, expected) in [
            ("path = \"b\"", "missing field `kind`"),
            (
                "kind = \"parquet\"",
                "[[data.sources]] number 2, path: missing",
            ),
            (
                "kind = \"scenes\"\nweight = 0.0",
                "[[data.sources]] number 2, weight: expected a number above 0, found 0",
            ),
            ("kind = \"scenes\"\nweight = -1.0", "found -1"),
            ("kind = \"scenes\"\nweight = nan", "found NaN"),
            (
                "kind = \"folder\"\npath = \"b\"\ncount = 3",
                "number 2, count",
            ),
            (
                "kind = \"parquet\"\npath = \"b\"\nsize = 3",
                "unknown field `size`",
            ),
        ] {
            let message = sources(more).unwrap_err().to_string();
            assert!(
                message.contains(expected),
                "{expected:?} is not in {message:?}"
            );
        }
        let neither = VAE.replace("kind = \"folder\"\npath = \"pictures\"\n", "");
        assert!(
            parse(&neither)
                .unwrap_err()
                .to_string()
                .contains("[data] kind: missing")
        );
        let both = VAE.replace("[model]", "[[data.sources]]\nkind = \"scenes\"\n[model]");
        assert!(parse(&both).unwrap_err().to_string().contains("found both"));
    }

    /// Read back from a checkpoint, every share is what it was, to the last bit.
    #[test]
    fn an_identity_survives_its_file() {
        for thousandths in 1..1000 {
            let share = format!("caption_dropout = 0.{thousandths:03}");
            let identity = parse(&VAE.replace("[model]", &format!("{share}\n[model]")))
                .unwrap()
                .identity();
            let text = serde_json::to_string(&identity).unwrap();
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, identity);
        }
    }

    #[test]
    fn what_was_added_later_does_not_shut_out_older_checkpoints() {
        let identity = parse(VAE).unwrap().identity();
        let keys = |value: &Value| -> Vec<String> {
            let object = value.as_object().unwrap();
            object.keys().cloned().collect()
        };
        // As version 0.1.0 wrote them for this config, in whatever order: a new field must leave its default out.
        assert_eq!(keys(&identity), ["run", "data", "model", "ema", "vae"]);
        assert_eq!(keys(&identity["run"]), ["seed", "batch_size"]);
        assert_eq!(
            keys(&identity["data"]),
            ["kind", "path", "size", "seed", "scenes", "caption_dropout"]
        );
        assert_eq!(
            keys(&identity["model"]),
            [
                "part",
                "train_text_encoder",
                "recompute",
                "precision",
                "tokenizer"
            ]
        );
        assert_eq!(keys(&identity["ema"]), ["decay"]);
    }

    #[test]
    fn identity_ignores_what_may_change() {
        let a = parse(VAE).unwrap();
        let b = parse(&VAE.replace("steps = 10", "steps = 99\nsave_every = 7")).unwrap();
        assert_eq!(a.identity(), b.identity());
        let muon = format!("{VAE}\n[optimizer]\nkind = \"muon\"\nlearning_rate = 1e-3");
        let muon = parse(&muon).unwrap();
        let (path, ..) = first_difference(&a.identity(), &muon.identity(), "").unwrap();
        assert!(path.starts_with("optimizer"), "{path}");
        let c = parse(&VAE.replace("size = 64", "size = 32")).unwrap();
        let (path, old, new) = first_difference(&a.identity(), &c.identity(), "").unwrap();
        assert_eq!(
            (path.as_str(), old.as_str(), new.as_str()),
            ("data.size", "64", "32")
        );
    }
}
