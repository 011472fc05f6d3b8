//! A whole model as diffusers lays it out: `model_index.json` and a folder for each component.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{CONVERT, Component, parse_config, read_config, read_text};
use crate::error::{Error, Result};

/// Files that are compiled into the program: their paths inside the model's folder, with `/`, and their content.
pub type StaticFiles = &'static [(&'static str, &'static [u8])];

/// An open model folder, on disk or compiled into the program.
#[derive(Clone)]
pub struct ModelFolder {
    dir: PathBuf,
    /// The files of a model that is compiled in; none for a folder on disk.
    files: Option<StaticFiles>,
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
        let index = object(&path, read_config(&path)?)?;
        Ok(ModelFolder {
            dir: dir.to_path_buf(),
            files: None,
            index,
        })
    }

    /// A model that is compiled into the program. `name` is what errors and pictures call it.
    ///
    /// # Errors
    ///
    /// There is no `model_index.json` among the files, or it is damaged.
    pub fn from_static(name: &str, files: StaticFiles) -> Result<ModelFolder> {
        let mut folder = ModelFolder {
            dir: PathBuf::from(name),
            files: Some(files),
            index: Map::new(),
        };
        let path = folder.dir.join("model_index.json");
        let Some(text) = folder.read("model_index.json")? else {
            return Err(Error::format(
                path,
                "the model compiled into this program has no such file",
            ));
        };
        folder.index = object(&path, parse_config(&path, &text)?)?;
        Ok(folder)
    }

    /// The text of a file in the folder, such as `scheduler/scheduler_config.json`; none where there is no such file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not UTF-8.
    pub fn read(&self, file: &str) -> Result<Option<String>> {
        let path = self.dir.join(file);
        match self.bytes(file) {
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(error) => Err(Error::format(
                    path,
                    format!("expected text in UTF-8: {error}"),
                )),
            },
            None if self.files.is_some() || !path.is_file() => Ok(None),
            None => read_text(&path, "read the file").map(Some),
        }
    }

    /// The content of a compiled-in file.
    fn bytes(&self, file: &str) -> Option<&'static [u8]> {
        self.files?
            .iter()
            .find(|(name, _)| *name == file)
            .map(|(_, bytes)| *bytes)
    }

    /// Whether the folder has a folder of this name, which need not be in the index.
    pub fn has_folder(&self, name: &str) -> bool {
        match self.files {
            Some(files) => files.iter().any(|(file, _)| is_below(file, name)),
            None => self.dir.join(name).is_dir(),
        }
    }

    /// The files that are compiled into the program; none for a folder on disk.
    pub fn static_files(&self) -> Option<StaticFiles> {
        self.files
    }

    /// The folder; for a compiled-in model only its name.
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
        if !self.has_folder(name) {
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
        let dir = self.require(name, classes)?;
        let Some(files) = self.files else {
            return Component::open(&dir, variant);
        };
        let config = self
            .read(&format!("{name}/config.json"))?
            .unwrap_or_default();
        let weights: Vec<&'static [u8]> = files
            .iter()
            .filter(|(file, _)| is_below(file, name) && file.ends_with(".safetensors"))
            .map(|(_, bytes)| *bytes)
            .collect();
        Component::from_static(&dir.to_string_lossy(), &config, &weights)
    }
}

impl fmt::Debug for ModelFolder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ModelFolder({})", self.dir.display())
    }
}

/// Whether the path `file` begins with the folder `name`.
fn is_below(file: &str, name: &str) -> bool {
    file.strip_prefix(name)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// The fields of the index.
fn object(path: &Path, value: Value) -> Result<Map<String, Value>> {
    match value {
        Value::Object(index) => Ok(index),
        other => Err(Error::format(
            path,
            format!("expected an object, found {}", kind(&other)),
        )),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiled_in_model_is_read_like_a_folder() {
        const FILES: StaticFiles = &[
            (
                "model_index.json",
                br#"{"_class_name": "P", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"]}"#,
            ),
            ("unet/config.json", b"{}"),
            ("unet/model.safetensors", b"\x02\0\0\0\0\0\0\0{}"),
        ];
        let folder = ModelFolder::from_static("own", FILES).unwrap();
        assert_eq!(folder.pipeline(), Some("P"));
        assert_eq!(
            folder.read("unet/config.json").unwrap().as_deref(),
            Some("{}")
        );
        assert_eq!(folder.read("velatura.json").unwrap(), None);
        assert_eq!(
            folder
                .component("unet", &["U"], None)
                .unwrap()
                .names()
                .count(),
            0
        );
        let message = folder.component("vae", &[], None).unwrap_err().to_string();
        assert!(message.contains("no folder own/vae"), "{message}");
        assert!(ModelFolder::from_static("own", &FILES[1..]).is_err());
    }
}
