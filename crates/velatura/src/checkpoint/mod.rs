//! Checkpoints: a diffusers folder, its components, their configs and their tensors. Only this module knows how
//! other programs name things. Reading a file never runs it.

mod config;
mod files;
mod folder;
mod learned;
mod lora;
mod names;
mod safetensors;
mod save;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

pub(crate) use self::config::read_text;
pub use self::config::{parse_config, read_config};
pub use self::folder::{ModelFolder, StaticFiles};
pub use self::learned::LearnedWord;
pub use self::lora::{LoraFile, LoraLayer, LoraNaming, save_lora};
pub use self::names::{canonical, is_harmless};
pub use self::safetensors::{TensorFile, TensorView};
pub use self::save::{
    FloatType, save_component, save_tensors, write_atomically, write_folder_atomically,
};
use crate::error::{Error, Result};

/// What to tell someone whose weights are pickled.
const CONVERT: &str = "Velatura reads safetensors only, because reading a pickle can run what is in it. Convert the \
    model once in Python: `DiffusionPipeline.from_pretrained(\"OLD\").save_pretrained(\"NEW\")` for a folder, \
    `StableDiffusionPipeline.from_single_file(\"OLD.ckpt\").save_pretrained(\"NEW\")` for a single file (both from \
    `diffusers`)";

/// One part of a model on disk, such as `unet/`: its `config.json` and its tensors, mapped into memory. Cloning is
/// cheap.
#[derive(Clone)]
pub struct Component {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    config: String,
    files: Vec<TensorFile>,
    /// Canonical name → which file, and what it is called there.
    tensors: BTreeMap<String, (usize, String)>,
}

impl Component {
    /// Opens the folder of a component. `variant` is what stands in the weight files' names (`fp16`); without it
    /// the plain files are taken, or the only variant there is.
    ///
    /// # Errors
    ///
    /// Folder, config or weights are missing; a file is damaged; an index and its shards disagree; a name occurs
    /// twice.
    pub fn open(dir: &Path, variant: Option<&str>) -> Result<Component> {
        if !dir.is_dir() {
            let found = if dir.exists() { "a file" } else { "nothing" };
            return Err(Error::format(
                dir,
                format!(
                    "expected a folder with config.json and safetensors weights, found {found}; check the path"
                ),
            ));
        }
        let config = read_text(&dir.join("config.json"), "read the config")?;
        let found = files::find(dir, variant)?;
        let files = found
            .files
            .iter()
            .map(|path| TensorFile::open(path))
            .collect::<Result<Vec<_>>>()?;
        if let Some((path, weight_map)) = &found.index {
            check_index(path, weight_map, &files)?;
        }
        Component::new(dir.to_path_buf(), config, files)
    }

    /// A component that is compiled into the program. `label` is what errors call it; `weights` are whole
    /// safetensors files.
    ///
    /// # Errors
    ///
    /// The weights are damaged, or a name occurs twice.
    pub fn from_static(label: &str, config: &str, weights: &[&'static [u8]]) -> Result<Component> {
        let dir = PathBuf::from(label);
        let files = weights
            .iter()
            .map(|bytes| TensorFile::from_static(dir.join("model.safetensors"), bytes))
            .collect::<Result<Vec<_>>>()?;
        Component::new(dir, config.to_owned(), files)
    }

    fn new(dir: PathBuf, config: String, files: Vec<TensorFile>) -> Result<Component> {
        let mut tensors: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                let entry = (i, name.to_owned());
                if let Some((other, other_name)) = tensors.insert(canonical(name), entry) {
                    return Err(Error::tensor(
                        name,
                        "one tensor of this meaning",
                        format!(
                            "another, `{other_name}` in {}",
                            files[other].path().display()
                        ),
                    )
                    .in_file(file.path()));
                }
            }
        }
        Ok(Component {
            inner: Arc::new(Inner {
                dir,
                config,
                files,
                tensors,
            }),
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Where the config lies, for errors about its values.
    pub fn config_path(&self) -> PathBuf {
        self.inner.dir.join("config.json")
    }

    /// The config.
    ///
    /// # Errors
    ///
    /// It is not JSON, lacks a field, or a field has the wrong type.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        parse_config(&self.config_path(), &self.inner.config)
    }

    /// The text of the config.
    pub(crate) fn config_text(&self) -> &str {
        &self.inner.config
    }

    /// The canonical names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.tensors.keys().map(String::as_str)
    }

    /// The tensor with this name, however the file spells it. Its shape is the one in which it is used; its name is
    /// the file's.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let name = canonical(name);
        let (file, stored) = self.inner.tensors.get(&name)?;
        let mut view = self.inner.files[*file].tensor(stored)?;
        view.shape = names::canonical_shape(&name, view.shape);
        Some(view)
    }

    /// The weight files, in the order of their names.
    pub fn files(&self) -> &[TensorFile] {
        &self.inner.files
    }

    /// The file to name when a tensor is missing: the weights, or their folder when there are several.
    pub fn weights_path(&self) -> &Path {
        match &self.inner.files[..] {
            [only] => only.path(),
            _ => &self.inner.dir,
        }
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "Component({}, {} tensors)",
            self.inner.dir.display(),
            self.inner.tensors.len()
        )
    }
}

/// The index and the shards must tell the same story.
fn check_index(
    path: &Path,
    weight_map: &BTreeMap<String, String>,
    files: &[TensorFile],
) -> Result<()> {
    let called = |file: &TensorFile| {
        file.path()
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
    };
    for file in files {
        for name in file.names() {
            let found = match weight_map.get(name) {
                Some(shard) if Some(shard) == called(file).as_ref() => continue,
                Some(shard) => format!("an entry for {shard}, while the tensor (also) stands in"),
                None => "no entry, while the tensor stands in".to_owned(),
            };
            return Err(
                Error::tensor(name, "an entry of the index for every tensor", {
                    format!("{found} {}", file.path().display())
                })
                .in_file(path),
            );
        }
    }
    for (name, shard) in weight_map {
        let holds = |file: &&TensorFile| {
            called(file).as_ref() == Some(shard) && file.tensor(name).is_some()
        };
        if !files.iter().any(|file| holds(&file)) {
            return Err(Error::tensor(
                name,
                format!("it in {shard}, as the index says"),
                "no such tensor there",
            )
            .in_file(path));
        }
    }
    Ok(())
}

/// The short hash by which people recognise a model: the first ten hexadecimal digits of the SHA-256 over the weight
/// files of `components`, in the order given. For a single file that is what AUTOMATIC1111 shows as "Model hash".
/// Reads every byte, so ask once.
pub fn model_hash(components: &[&Component]) -> String {
    let mut hasher = Sha256::new();
    for file in components.iter().flat_map(|component| component.files()) {
        file.for_each_piece(|bytes| hasher.update(bytes));
    }
    hasher
        .finalize()
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
