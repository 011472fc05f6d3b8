//! What a run changes, and how it is written: the models' own weights, adapters beside them, or a word.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use velatura::checkpoint::{FloatType, LearnedWord, LoraLayer, LoraNaming, save_lora};
use velatura::pipeline::Advice;
use velatura_tensor::Parameter;

use crate::error::Result;
use crate::models;
use crate::objective::Objective;
use crate::parts;
use crate::step_unet::UnetObjective;

/// The file of a checkpoint that holds what is learnt beside a base's own weights.
pub(crate) const ADAPTERS: &str = "adapters.safetensors";

/// What the parameters of a run are.
pub(crate) enum Learner {
    /// The weights of the UNet, and of the text encoder unless that is copied from the base.
    Models {
        /// Where the text encoder lies that stays as it is.
        frozen_text: Option<PathBuf>,
    },
    /// Low-rank adapters beside weights that stay.
    Adapters {
        /// α
        alpha: f32,
        /// Says which inputs the adapters do not see; 0 while nothing is learnt.
        clock: Arc<AtomicU64>,
        /// What the file for web UIs is called, which is how prompts name it there.
        name: String,
    },
    /// The row of a new word in the text encoder's table.
    Word(String),
}

impl Learner {
    /// What follows belongs to the samples from `first` on of this step.
    pub fn begin(&self, step: u64, first: usize) {
        if let Learner::Adapters { clock, .. } = self {
            // A batch has at most 4096 samples, and as many again for a prior.
            clock.store(step << 16 | first as u64, Ordering::Relaxed);
        }
    }

    /// What follows is no learning.
    pub fn rest(&self) {
        if let Learner::Adapters { clock, .. } = self {
            clock.store(0, Ordering::Relaxed);
        }
    }

    /// Writes what a resumed run needs.
    pub fn save(
        &self,
        objective: &UnetObjective,
        dir: &Path,
        dtype: FloatType,
    ) -> velatura::Result<()> {
        match self {
            Learner::Models { frozen_text } => {
                save_unet(objective, dir, dtype)?;
                if frozen_text.is_none() {
                    save_text(objective, None, dir, dtype)?;
                }
            }
            Learner::Adapters { .. } | Learner::Word(_) => {
                models::save_named(&dir.join(ADAPTERS), &objective.parameters(), dtype)?;
            }
        }
        objective.tokenizer.save(&dir.join("tokenizer"))
    }

    /// Writes what a person takes away.
    pub fn export(&self, objective: &UnetObjective, dir: &Path, dtype: FloatType) -> Result<()> {
        match self {
            Learner::Models { frozen_text } => {
                save_unet(objective, dir, dtype)?;
                save_text(objective, frozen_text.as_deref(), dir, dtype)?;
                export_rest(objective, dir, dtype)
            }
            Learner::Adapters { alpha, name, .. } => {
                let layers = adapted_layers(objective, *alpha);
                // The name that diffusers looks for.
                let diffusers = dir.join("pytorch_lora_weights.safetensors");
                save_lora(&diffusers, &layers, LoraNaming::Diffusers, dtype)?;
                let kohya = dir.join(format!("{name}.safetensors"));
                save_lora(&kohya, &layers, LoraNaming::Kohya, dtype)?;
                Ok(())
            }
            Learner::Word(word) => {
                let path = dir.join("learned_embeds.safetensors");
                for rows in &objective.text_parameters {
                    let rows = rows.value().detach();
                    let word = word.clone();
                    LearnedWord { word, rows }.save(&path, dtype)?;
                }
                Ok(())
            }
        }
    }
}

fn save_unet(objective: &UnetObjective, dir: &Path, dtype: FloatType) -> velatura::Result<()> {
    models::save(
        &dir.join("unet"),
        &objective.unet.config().to_json(),
        &objective.unet_parameters,
        dtype,
    )
}

fn save_text(
    objective: &UnetObjective,
    frozen: Option<&Path>,
    dir: &Path,
    dtype: FloatType,
) -> velatura::Result<()> {
    let dir = dir.join("text_encoder");
    match frozen {
        Some(from) => parts::recast(from, &dir, dtype),
        None => models::save(
            &dir,
            &objective.text_encoder.config().to_json(),
            &objective.text_parameters,
            dtype,
        ),
    }
}

/// Everything of a model folder but the UNet and the text encoder.
fn export_rest(objective: &UnetObjective, dir: &Path, dtype: FloatType) -> Result<()> {
    objective.tokenizer.save(&dir.join("tokenizer"))?;
    parts::recast(&objective.vae_dir, &dir.join("vae"), dtype)?;
    let scheduler = objective.scheduler.value();
    let scheduler_class = scheduler["_class_name"]
        .as_str()
        .unwrap_or(parts::SCHEDULER);
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", scheduler_class],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    let advice = Advice {
        steps: Some(objective.sample.steps),
        guidance_scale: Some(objective.sample.guidance_scale),
        width: Some(objective.size),
        height: Some(objective.size),
        things: objective.things.clone(),
        notice: objective.notice.clone(),
        ..Advice::default()
    };
    models::write_json(&dir.join("model_index.json"), &index)?;
    models::write_json(&dir.join("velatura.json"), &advice)?;
    let scheduler_file = dir.join("scheduler").join("scheduler_config.json");
    Ok(models::write_json(&scheduler_file, scheduler)?)
}

/// The adapters of both models, with the values that they have now.
fn adapted_layers(objective: &UnetObjective, alpha: f32) -> Vec<LoraLayer> {
    let mut layers = Vec::new();
    for (component, parameters) in [
        ("unet", &objective.unet_parameters),
        ("text_encoder", &objective.text_parameters),
    ] {
        let value = |name: String| {
            let found = parameters.iter().find(|parameter| parameter.name() == name);
            found.map(|parameter: &Parameter| parameter.value().detach())
        };
        for parameter in parameters {
            let Some(path) = parameter.name().strip_suffix(".lora_A.weight") else {
                continue;
            };
            let down = parameter.value().detach();
            if let Some(up) = value(format!("{path}.lora_B.weight")) {
                layers.push(LoraLayer {
                    component,
                    path: path.to_owned(),
                    down,
                    up,
                    alpha,
                });
            }
        }
    }
    layers
}
