//! A whole model as diffusers lays it out: `model_index.json` and a folder for each component.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{CONVERT, Component, read_config};
use crate::error::{Error, Result};

/// An open model folder.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    dir: PathBuf,
    index: Map<String, Value>,
}

impl ModelFolder {
    /// Opens the folder at `dir`.
    ///
    /// # Errors
    ///
    /// There is no folder, or it has no `model_index.json`: with what was found instead.
    pub fn open(dir: &Path) -> Result<ModelFolder> {
        let path = dir.join("model_index.json");
        if !path.is_file() {
            return Err(Error::format(dir, explain(dir)));
        }
        let index = match read_config(&path)? {
            Value::Object(index) => index,
            other => {
                return Err(Error::format(
                    path,
                    format!("expected an object, found {}", kind(&other)),
                ));
            }
        };
        Ok(ModelFolder {
            dir: dir.to_path_buf(),
            index,
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The pipeline that the model was made for, such as `StableDiffusionPipeline`.
    pub fn pipeline(&self) -> Option<&str> {
        self.index.get("_class_name")?.as_str()
    }

    /// The components that the model has, in the index's order: `unet`, `vae`, ….
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.index
            .keys()
            .map(String::as_str)
            .filter(|name| self.has(name))
    }

    /// Whether the model has a component of this name.
    pub fn has(&self, name: &str) -> bool {
        self.class(name).is_some()
    }

    /// The class of a component, such as `UNet2DConditionModel`; none where the index has `[null, null]` or nothing.
    pub fn class(&self, name: &str) -> Option<&str> {
        match self.index.get(name)?.as_array()?.as_slice() {
            [_library, class] => class.as_str(),
            _ => None,
        }
    }

    /// The folder of the component `name`, which must be of one of `classes` (any class when that is empty).
    ///
    /// # Errors
    ///
    /// The index does not have the component, it is of another class, or its folder is missing.
    pub fn require(&self, name: &str, classes: &[&str]) -> Result<PathBuf> {
        let expected = if classes.is_empty() {
            "a component".to_owned()
        } else {
            classes.join(" or ")
        };
        let wrong = |found: &str| {
            Err(Error::config(name, &expected, found).in_file(self.dir.join("model_index.json")))
        };
        match self.class(name) {
            None => return wrong("nothing: the model does not have this component"),
            Some(class) if !classes.is_empty() && !classes.contains(&class) => {
                return wrong(&format!("{class}; this kind of model cannot be read"));
            }
            Some(_) => {}
        }
        let dir = self.dir.join(name);
        if !dir.is_dir() {
            return wrong(&format!(
                "its entry, but no folder {}; fetch it too",
                dir.display()
            ));
        }
        Ok(dir)
    }

    /// Opens a component that has weights; see [`Component::open`].
    ///
    /// # Errors
    ///
    /// As [`ModelFolder::require`] and [`Component::open`].
    pub fn component(
        &self,
        name: &str,
        classes: &[&str],
        variant: Option<&str>,
    ) -> Result<Component> {
        Component::open(&self.require(name, classes)?, variant)
    }
}

/// Why `dir` is not a model, and what to do.
fn explain(dir: &Path) -> String {
    const EXPECTED: &str =
        "expected a folder in diffusers' layout (model_index.json, unet/, vae/, …)";
    if dir.is_file() {
        return format!("{EXPECTED}, found a file. {CONVERT}");
    }
    if !dir.exists() {
        return format!("{EXPECTED}, found nothing; check the path");
    }
    if dir.join("config.json").is_file() {
        return format!("{EXPECTED}, found a single component; give the folder above it");
    }
    let single = super::files::list(dir)
        .unwrap_or_default()
        .into_iter()
        .find(|name| {
            [".ckpt", ".safetensors", ".bin", ".pt"]
                .iter()
                .any(|ending| name.ends_with(ending))
        });
    match single {
        Some(file) => format!("{EXPECTED}, found {file} without model_index.json. {CONVERT}"),
        None => format!("{EXPECTED}, found no model_index.json"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
