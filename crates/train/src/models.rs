//! Finding, making and writing the components of a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::Value;
use velatura::checkpoint::{
    Component, FloatType, TensorFile, save_component, save_tensors, write_atomically,
};
use velatura::nn::Adaptation;
use velatura::weights::{Mode, Store};
use velatura_tensor::{Parameter, Precision, Tensor};

use crate::config::{Config, Part, PrecisionKind};
use crate::error::{Error, Result};
use crate::optimizer::Named;
use crate::random::{Purpose, mix};
use crate::run_folder::RunFolder;

/// The folder of the component `name` in `folder`, which is a model's folder or the component's own.
pub fn component_dir(folder: &Path, name: &str) -> PathBuf {
    let below = folder.join(name);
    if below.is_dir() || !folder.join("config.json").is_file() {
        below
    } else {
        folder.to_path_buf()
    }
}

/// Opens the component that the run goes on from: of the newest checkpoint, else of `[model] base`; none where fresh
/// weights are wanted. An adaptation or a word is learnt beside the base's own weights, which no checkpoint has.
///
/// # Errors
/// It is there but cannot be read.
pub fn open(config: &Config, run: &RunFolder, name: &str) -> Result<Option<Component>> {
    let adapts = matches!(config.model.part, Part::Lora | Part::Embedding);
    let dir = match (run.checkpoint(), &config.model.base) {
        (_, Some(base)) if adapts => component_dir(base, name),
        (Some(checkpoint), _) => checkpoint.join(name),
        (None, Some(base)) => component_dir(base, name),
        (None, None) => return Ok(None),
    };
    Ok(Some(Component::open(&dir, None)?))
}

/// A table of the run's config as the JSON that the models read.
pub fn table(table: Option<&toml::Table>) -> Value {
    table
        .and_then(|table| serde_json::to_value(table).ok())
        .unwrap_or(Value::Null)
}

/// Names the table in an error about its values.
pub fn in_table(run: &RunFolder, name: &'static str) -> impl Fn(velatura::Error) -> Error {
    let file = run.config_file().to_path_buf();
    move |error| Error::config(&file, format!("[{name}] {error}"))
}

/// The seed of a fresh component's weights.
fn weights_seed(config: &Config, name: &str) -> u64 {
    let position = name.bytes().fold(0u64, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    mix(config.run.seed, Purpose::Weights, position)
}

/// Writes the parameters of one component with their names and current values.
///
/// # Errors
/// The disk is full or not writable; a value does not fit into `dtype`.
pub fn save(
    dir: &Path,
    config: &Value,
    parameters: &[Parameter],
    dtype: FloatType,
) -> velatura::Result<()> {
    let tensors = parameters
        .iter()
        .map(|parameter| (parameter.name().to_string(), parameter.value().detach()));
    save_component(dir, config, tensors, dtype)
}

/// The parameters of a component under its name.
pub fn named(component: &'static str, parameters: &[Parameter]) -> Vec<Named> {
    parameters
        .iter()
        .map(|parameter| Named {
            component,
            parameter: parameter.clone(),
        })
        .collect()
}

/// Writes a JSON file, and the folder it stands in.
///
/// # Errors
/// The disk is full or not writable.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> velatura::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(velatura::Error::io("make the folder", dir))?;
    }
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| velatura::Error::format(path, error.to_string()))?;
    write_atomically(path, |out| {
        std::io::Write::write_all(out, format!("{text}\n").as_bytes())
    })
}

/// A place to train weights from: of `component`, or fresh ones.
pub fn store(config: &Config, name: &str, component: Option<&Component>) -> Store {
    let store = match component {
        Some(component) => Store::load(component, Mode::Training),
        None => Store::init(weights_seed(config, name)),
    };
    store.with_products_in(products(config))
}

/// Weights of `component` that stay as they are, and let gradients pass.
pub fn frozen_store(config: &Config, component: &Component) -> Store {
    Store::load(component, Mode::Frozen).with_products_in(products(config))
}

/// Weights of `component` that stay as they are, with adapters beside those of the layers that `targets` name.
pub fn adapted_store(
    config: &Config,
    name: &str,
    component: &Component,
    targets: &[String],
    clock: &Arc<AtomicU64>,
) -> Store {
    let lora = config.lora.clone().unwrap_or_default();
    frozen_store(config, component).with_adapters(Adaptation {
        rank: lora.rank,
        alpha: lora.alpha(),
        dropout: lora.dropout,
        targets: targets.to_vec(),
        seed: weights_seed(config, name),
        clock: Arc::clone(clock),
    })
}

/// The number format of the products.
pub fn products(config: &Config) -> Precision {
    match config.model.precision {
        PrecisionKind::F32 => Precision::F32,
        PrecisionKind::Bf16 => Precision::Bf16,
    }
}

/// Gives `fresh` parameters what those of a base have `learnt`: all of it, but of the tables, whose rows stand for other
/// things than before, only the rows `same`, of which each is (from, to).
pub fn take_over(
    learnt: &[Parameter],
    fresh: &[Parameter],
    tables: &[&str],
    same: &[(usize, usize)],
) {
    for (old, new) in learnt.iter().zip(fresh) {
        let value = old.value();
        if !tables.contains(&new.name()) {
            new.set(value.detach());
            continue;
        }
        let row = value.as_slice().len() / old.shape()[0];
        new.update(|rows| {
            for &(from, to) in same {
                rows[to * row..][..row].copy_from_slice(&value.as_slice()[from * row..][..row]);
            }
        });
    }
}

/// Writes parameters of several components to one file, each under its key.
///
/// # Errors
/// The disk is full or not writable.
pub fn save_named(path: &Path, parameters: &[Named], dtype: FloatType) -> velatura::Result<()> {
    let tensors = parameters
        .iter()
        .map(|named| (named.key(), named.parameter.value().detach()));
    save_tensors(path, tensors, dtype)
}

/// Fills parameters from what [`save_named`] has written.
///
/// # Errors
/// The file is damaged; a parameter is missing in it or of another shape.
pub fn read_named(path: &Path, parameters: &[Named]) -> Result<()> {
    let file = TensorFile::open(path)?;
    for named in parameters {
        let (key, shape) = (named.key(), named.parameter.shape());
        let view = file.tensor(&key).filter(|view| view.shape == shape);
        let Some(view) = view else {
            return Err(Error::run(
                path,
                format!("expected a tensor {key} of shape {shape:?}, found none"),
            ));
        };
        let values = Tensor::from_vec(view.to_f32()?, shape);
        named.parameter.set(values);
    }
    Ok(())
}
