//! What stands round the denoiser in a run: noise schedule, tokenizer and text encoder, opened or made.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Value, json};
use velatura::checkpoint::{Component, FloatType, save_component};
use velatura::clip::{ClipTextConfig, ClipTextModel};
use velatura::diffusion::SchedulerConfig;
use velatura::pipeline::Advice;
use velatura::tokenizer::Tokenizer;
use velatura::weights::{Mode, Store};
use velatura_tensor::{Parameter, Precision, Tensor};

use crate::config::{Config, Embedding, Part, TokenizerKind};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::latents::LatentCache;
use crate::models;
use crate::run_folder::RunFolder;

/// The sampler that a model is given where the config names none.
pub const SCHEDULER: &str = "DDIMScheduler";

/// The noise schedule: of the config's table, else of the base, else Stable Diffusion's.
pub fn scheduler(config: &Config, run: &RunFolder) -> Result<SchedulerConfig> {
    if let (None, Some(base)) = (&config.scheduler, &config.model.base) {
        let path = base.join("scheduler").join("scheduler_config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        return Ok(SchedulerConfig::from_json(&text).map_err(|error| error.in_file(&path))?);
    }
    let mut value = json!({
        "_class_name": SCHEDULER,
        "_diffusers_version": "0.42.1",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "clip_sample": false,
        "set_alpha_to_one": false,
        "steps_offset": 1,
    });
    if let (Value::Object(given), Value::Object(all)) =
        (models::table(config.scheduler.as_ref()), &mut value)
    {
        all.extend(given);
    }
    SchedulerConfig::from_value(value).map_err(models::in_table(run, "scheduler"))
}

/// The tokenizer: of the checkpoint, of the base where the config wants no other, or made from the words of the captions.
pub fn tokenizer(
    config: &Config,
    run: &RunFolder,
    caches: &[LatentCache],
    datasets: &[Arc<Dataset>],
) -> Result<Tokenizer> {
    if let Some(checkpoint) = run.checkpoint() {
        return Ok(Tokenizer::from_folder(&checkpoint.join("tokenizer"))?);
    }
    match (config.model.new_tokenizer(), &config.model.base) {
        (Some(TokenizerKind::Captions), _) => {
            let mut words = BTreeSet::new();
            for cache in caches {
                cache.captions(|caption| {
                    words.extend(caption.split_whitespace().map(str::to_owned));
                })?;
            }
            words.extend(datasets.iter().flat_map(|dataset| dataset.vocabulary()));
            Ok(Tokenizer::train_words(words.iter().map(String::as_str))?)
        }
        (None, Some(base)) => tokenizer_of(base),
        (Some(TokenizerKind::Clip), _) | (None, None) => Ok(Tokenizer::clip()?),
    }
}

/// The tokenizer of a base. A model without one of its own has CLIP's.
fn tokenizer_of(base: &Path) -> Result<Tokenizer> {
    let dir = base.join("tokenizer");
    Ok(if dir.is_dir() {
        Tokenizer::from_folder(&dir)?
    } else {
        Tokenizer::clip()?
    })
}

/// The text encoder that there is already: of the base where it stays as it is, else of the run's checkpoint or the base.
fn text_component(config: &Config, run: &RunFolder) -> Result<Option<Component>> {
    match &config.model.base {
        Some(base) if !trains_text(config) => {
            let dir = models::component_dir(base, "text_encoder");
            Ok(Some(Component::open(&dir, None)?))
        }
        _ => models::open(config, run, "text_encoder"),
    }
}

fn trains_text(config: &Config) -> bool {
    config.model.train_text_encoder && config.model.part != Part::Embedding
}

/// A fresh text encoder's config, for a vocabulary of `vocab_size` and texts of `length` tokens where it says nothing else.
fn fresh_text(
    config: &Config,
    run: &RunFolder,
    vocab_size: usize,
    length: usize,
) -> Result<ClipTextConfig> {
    let mut value = models::table(config.text_encoder.as_ref());
    if let Value::Object(fields) = &mut value {
        let mut default = |name: &str, value: usize| {
            fields.entry(name).or_insert_with(|| value.into());
        };
        default("vocab_size", vocab_size);
        default("max_position_embeddings", length);
    }
    ClipTextConfig::from_json(&value).map_err(models::in_table(run, "text_encoder"))
}

/// The width of what the text encoder says, which is known before its vocabulary is.
pub fn text_width(config: &Config, run: &RunFolder) -> Result<usize> {
    let text_config = match text_component(config, run)? {
        Some(component) => ClipTextConfig::read(&component)?,
        None => fresh_text(config, run, 1, 1)?,
    };
    Ok(text_config.hidden_size)
}

/// The text encoder, its parameters (or those of its adapters, with the `clock` of all) if it is trained, and the folder to copy it from if it is not.
pub fn text_encoder(
    config: &Config,
    run: &RunFolder,
    tokenizer: &Tokenizer,
    clock: &Arc<AtomicU64>,
) -> Result<(ClipTextModel, Vec<Parameter>, Option<PathBuf>)> {
    let component = text_component(config, run)?;
    if let (false, Some(base), Some(component)) =
        (trains_text(config), &config.model.base, &component)
    {
        let store = match config.model.part {
            // Gradients pass through on their way to the word.
            Part::Embedding => models::frozen_store(config, component),
            _ => Store::load(component, Mode::Inference(Precision::F32)),
        };
        let model = ClipTextModel::load(&ClipTextConfig::read(component)?, &store.root())?;
        store.finish()?;
        check_vocabulary(model.config(), tokenizer, &component.config_path())?;
        let dir = models::component_dir(base, "text_encoder");
        return Ok((model, Vec::new(), Some(dir)));
    }
    if let (Some(base), Some(component), Some(_), None) = (
        &config.model.base,
        &component,
        config.model.tokenizer,
        run.checkpoint(),
    ) {
        let (model, parameters) = with_vocabulary(config, base, component, tokenizer)?;
        check_vocabulary(model.config(), tokenizer, &component.config_path())?;
        return Ok((model, parameters, None));
    }
    let (text_config, place) = match &component {
        Some(component) => (ClipTextConfig::read(component)?, component.config_path()),
        None => (
            fresh_text(config, run, tokenizer.vocab_size(), tokenizer.max_length())?,
            run.config_file().to_path_buf(),
        ),
    };
    let store = match (&config.adaptation(), &component) {
        (Some(lora), Some(component)) => {
            let targets = &lora.text_targets;
            models::adapted_store(config, "text_encoder", component, targets, clock)
        }
        _ => models::store(config, "text_encoder", component.as_ref()),
    };
    let model = ClipTextModel::load(&text_config, &store.root())?;
    store.finish()?;
    check_vocabulary(&text_config, tokenizer, &place)?;
    Ok((model, store.parameters(), None))
}

/// The parameter that has a row for each token.
const TOKEN_TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// The text encoder of `base`, whose files are `component`, for another vocabulary: of the table of tokens, those rows stay
/// that stand for a token of both, and all else as it is.
fn with_vocabulary(
    config: &Config,
    base: &Path,
    component: &Component,
    tokenizer: &Tokenizer,
) -> Result<(ClipTextModel, Vec<Parameter>)> {
    let mut text_config = ClipTextConfig::read(component)?;
    let learnt = models::store(config, "text_encoder", Some(component));
    ClipTextModel::load(&text_config, &learnt.root())?;
    learnt.finish()?;
    let vocabulary = tokenizer_of(base)?;
    check_vocabulary(&text_config, &vocabulary, &component.config_path())?;

    text_config.vocab_size = tokenizer.vocab_size();
    let fresh = models::store(config, "text_encoder", None);
    let model = ClipTextModel::load(&text_config, &fresh.root())?;
    let known = |(token, id)| Some((vocabulary.id_of(token)? as usize, id as usize));
    let same: Vec<(usize, usize)> = tokenizer.tokens().filter_map(known).collect();
    let parameters = fresh.parameters();
    models::take_over(&learnt.parameters(), &parameters, &[TOKEN_TABLE], &same);
    Ok((model, parameters))
}

/// The token that a word to be learnt begins as.
///
/// # Errors
/// It is not a single one.
pub fn first_token(config: &Embedding, run: &RunFolder, tokenizer: &Tokenizer) -> Result<u32> {
    let init = tokenizer.encode(&config.init)?;
    match init.ids[1..=init.length.min(init.ids.len() - 2)] {
        [id] => Ok(id),
        _ => {
            let message = format!(
                "[embedding] init: expected a word that is one token of the vocabulary, found {:?}, which is {} tokens; take a \
                 commoner word",
                config.init, init.length
            );
            Err(Error::config(run.config_file(), message))
        }
    }
}

/// Teaches `text_encoder` and `tokenizer` the word that is to be learnt, beginning with the row of another: its row,
/// which is all that training changes.
///
/// # Errors
/// The word is known already; the other one is not a single token.
pub fn new_word(
    config: &Embedding,
    run: &RunFolder,
    tokenizer: &mut Tokenizer,
    text_encoder: &mut ClipTextModel,
) -> Result<Parameter> {
    let id = first_token(config, run, tokenizer)?;
    let width = text_encoder.config().hidden_size;
    let table = text_encoder.token_table();
    let row = table.as_slice()[id as usize * width..][..width].to_vec();
    let row = Parameter::new("learned_word", Tensor::from_vec(row, &[1, width]));
    let first = tokenizer
        .add_word(&config.word, 1)
        .map_err(models::in_table(run, "embedding"))?;
    text_encoder.learn(first, row.clone())?;
    Ok(row)
}

/// A text encoder must have a row for every token and a place for every position.
fn check_vocabulary(config: &ClipTextConfig, tokenizer: &Tokenizer, place: &Path) -> Result<()> {
    for (field, needed, found) in [
        ("vocab_size", tokenizer.vocab_size(), config.vocab_size),
        (
            "max_position_embeddings",
            tokenizer.max_length(),
            config.max_position_embeddings,
        ),
    ] {
        if found < needed {
            let message = format!(
                "text encoder's {field}: expected at least {needed} for the tokenizer, found {found}"
            );
            return Err(Error::config(place, message));
        }
    }
    Ok(())
}

/// The licences that a model has to carry: of the base, and of the pictures that it learns from.
pub fn notice(base: Option<&Path>, datasets: &[Arc<Dataset>]) -> Result<Option<String>> {
    let mut notices: BTreeSet<String> = datasets.iter().filter_map(|data| data.notice()).collect();
    let advice = base.map(|base| base.join("velatura.json"));
    if let Some(path) = advice.filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let advice: Advice =
            serde_json::from_str(&text).map_err(|error| Error::config(&path, error.to_string()))?;
        notices.extend(advice.notice);
    }
    let all: Vec<String> = notices.into_iter().collect();
    Ok((!all.is_empty()).then(|| all.join("\n")))
}

/// Copies a component with its numbers as `dtype`.
///
/// # Errors
/// The component is broken; the disk is full or not writable; a value does not fit into `dtype`.
pub fn recast(from: &Path, to: &Path, dtype: FloatType) -> velatura::Result<()> {
    let component = Component::open(from, None)?;
    let config: Value = component.config()?;
    let tensors = component
        .names()
        .filter_map(|name| component.tensor(name).map(|view| (name, view)))
        .map(|(name, view)| {
            Ok((
                name.to_string(),
                Tensor::from_vec(view.to_f32()?, view.shape),
            ))
        })
        .collect::<velatura::Result<Vec<_>>>()?;
    save_component(to, &config, tensors, dtype)
}
