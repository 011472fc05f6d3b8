//! What the tests of whole runs share: tiny configs, and weights by name.

#![allow(dead_code)] // Each test file uses a part of this.

pub mod data;
pub mod fixtures;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use velatura::checkpoint::Component;
use velatura_train::{Options, Outcome, Result, train};

/// Writes `text` with `DIR` replaced by the run folder, and returns the file.
pub fn config(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    let run = dir.join(name);
    std::fs::write(&file, text.replace("DIR", &run.display().to_string())).unwrap();
    file
}

/// Trains on two threads until the end, or until `steps` have been done.
pub fn run(file: &Path, resume: bool, steps: Option<usize>) -> Result<Outcome> {
    let asked = std::cell::Cell::new(0);
    let stop = || {
        // Asked once before every step.
        asked.set(asked.get() + 1);
        steps.is_some_and(|steps| asked.get() > steps)
    };
    train(
        file,
        &Options {
            resume,
            threads: Some(2),
            stop: &stop,
            ..Options::default()
        },
    )
}

/// The tensors of a component as bits, by name.
pub fn weights(component: &Path) -> BTreeMap<String, Vec<u32>> {
    let component = Component::open(component, None).unwrap();
    let bits = |name: &str| {
        component
            .tensor(name)
            .unwrap()
            .to_f32()
            .unwrap()
            .iter()
            .map(|x| x.to_bits())
            .collect()
    };
    component
        .names()
        .map(|name| (name.to_string(), bits(name)))
        .collect()
}

/// The losses in a run's `metrics.jsonl`.
pub fn losses(run: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["loss"].as_f64().unwrap()
    };
    text.lines().map(loss).collect()
}

pub const VAE: &str = r#"
[run]
dir = "DIR"
steps = 2
batch_size = 2
sample_every = 0
[data]
kind = "scenes"
size = 32
[model]
part = "vae"
[vae]
in_channels = 3
out_channels = 3
latent_channels = 4
block_out_channels = [4, 8, 8]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
layers_per_block = 1
norm_num_groups = 2
"#;

const UNET: &str = r#"
[run]
dir = "DIR"
seed = 5
steps = 8
batch_size = 2
save_every = 3
sample_every = 8
log_every = 1
[data]
kind = "scenes"
size = 32
count = 9
caption_dropout = 0.2
cache = "CACHE"
workers = 2
[model]
part = "unet"
vae = "VAE"
[unet]
in_channels = 4
out_channels = 4
block_out_channels = [8, 16]
down_block_types = ["CrossAttnDownBlock2D", "DownBlock2D"]
up_block_types = ["UpBlock2D", "CrossAttnUpBlock2D"]
layers_per_block = 1
norm_num_groups = 4
attention_head_dim = 2
cross_attention_dim = 16
[text_encoder]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
[optimizer]
learning_rate = 2e-3
[sample]
steps = 3
prompts = ["a red car", "a house in the snow"]
"#;

/// A VAE's model folder in `dir`, and the UNet's config for it.
pub fn prepare(dir: &Path) -> (PathBuf, String) {
    run(&config(dir, "vae", VAE), false, None).unwrap();
    let model = dir.join("vae/model");
    let text = UNET
        .replace("CACHE", &dir.join("cache").display().to_string())
        .replace("VAE", &model.display().to_string());
    (model, text)
}
