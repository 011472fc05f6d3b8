//! Which files of a component's folder hold its weights: one file or shards with an index, with or without a
//! variant, named as `diffusers` or `transformers` name them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::read_config;
use crate::error::{Error, Result};

/// What the files are called before the first dot: by `diffusers`, by `transformers`.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// Formats that are not read.
const FOREIGN: [&str; 6] = ["bin", "ckpt", "pt", "pth", "msgpack", "h5"];

/// The files with a component's weights.
pub(super) struct WeightFiles {
    /// In the order of their names.
    pub files: Vec<PathBuf>,
    /// For shards: the index, and which tensor it says is in which file.
    pub index: Option<(PathBuf, BTreeMap<String, String>)>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// One way in which the weights lie in the folder.
struct Candidate {
    file: String,
    variant: Option<String>,
    is_index: bool,
    /// Place in [`STEMS`].
    stem: usize,
}

/// Finds the weights in `dir`. Without a `variant` the plain files are taken, or the only variant there is. As in
/// diffusers, an index goes before a single file.
pub(super) fn find(dir: &Path, variant: Option<&str>) -> Result<WeightFiles> {
    let names = list(dir)?;
    let mut candidates: Vec<Candidate> = names.iter().filter_map(|name| classify(name)).collect();
    let mut variants: Vec<Option<String>> = candidates.iter().map(|c| c.variant.clone()).collect();
    variants.sort();
    variants.dedup();
    let chosen = match variant {
        Some(_) => variants.iter().find(|have| have.as_deref() == variant),
        None => match &variants[..] {
            [only] => Some(only),
            several => several.iter().find(|have| have.is_none()),
        },
    };
    let Some(chosen) = chosen.cloned() else {
        return Err(nothing_fits(dir, variant, &names, &variants));
    };
    candidates.retain(|c| c.variant == chosen);
    candidates.sort_by_key(|c| (c.stem, !c.is_index));
    match candidates.first() {
        Some(found) if found.is_index => read_index(dir, &found.file),
        Some(found) => Ok(WeightFiles {
            files: vec![dir.join(&found.file)],
            index: None,
        }),
        None => Err(nothing_fits(dir, variant, &names, &variants)),
    }
}

/// The names of the files in a folder, sorted.
pub(super) fn list(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("open the folder", dir))? {
        let entry = entry.map_err(Error::io("list the folder", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// `STEM[.VARIANT].safetensors` or `STEM.safetensors.index[.VARIANT].json`; anything else is not for us.
fn classify(name: &str) -> Option<Candidate> {
    let (stem, rest) = STEMS
        .iter()
        .enumerate()
        .find_map(|(i, stem)| Some((i, name.strip_prefix(stem)?.strip_prefix('.')?)))?;
    let segments: Vec<&str> = rest.split('.').collect();
    let (variant, is_index) = match segments[..] {
        ["safetensors"] => (None, false),
        [variant, "safetensors"] => (Some(variant), false),
        ["safetensors", "index", "json"] => (None, true),
        ["safetensors", "index", variant, "json"] => (Some(variant), true),
        _ => return None,
    };
    // `fp16-00001-of-00002` is a shard, which only its index can speak for.
    if variant.is_some_and(|variant| variant.contains("-of-")) {
        return None;
    }
    Some(Candidate {
        file: name.to_owned(),
        variant: variant.map(str::to_owned),
        is_index,
        stem,
    })
}

/// Reads an index and checks that the files exist which it names.
fn read_index(dir: &Path, file: &str) -> Result<WeightFiles> {
    let path = dir.join(file);
    let Index { weight_map } = read_config(&path)?;
    let mut files: Vec<&String> = weight_map.values().collect();
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(
            Error::config("weight_map", "the tensors and their files", "an empty map")
                .in_file(path),
        );
    }
    for name in &files {
        // An index speaks for its own folder only.
        if Path::new(name).file_name() != Some(OsStr::new(name)) {
            return Err(Error::config(
                "weight_map",
                "names of files in the same folder",
                format!("`{name}`"),
            )
            .in_file(path));
        }
        if !dir.join(name).is_file() {
            return Err(Error::config(
                "weight_map",
                "names of existing files",
                format!("`{name}`, which is missing"),
            )
            .in_file(path));
        }
    }
    let files = files.into_iter().map(|name| dir.join(name)).collect();
    Ok(WeightFiles {
        files,
        index: Some((path, weight_map)),
    })
}

/// Says why there are no weights to load, and what can be done.
fn nothing_fits(
    dir: &Path,
    variant: Option<&str>,
    names: &[String],
    variants: &[Option<String>],
) -> Error {
    if !variants.is_empty() {
        let have: Vec<&str> = variants
            .iter()
            .map(|v| v.as_deref().unwrap_or("(none)"))
            .collect();
        let wanted = variant.map_or("one without a variant".to_owned(), |v| {
            format!("variant `{v}`")
        });
        return Error::format(
            dir,
            format!(
                "expected weights as {wanted}, found the variants {}; choose one of them",
                have.join(", ")
            ),
        );
    }
    if let Some(shard) = names
        .iter()
        .find(|n| n.contains("-of-") && n.ends_with(".safetensors"))
    {
        return Error::format(
            dir,
            format!(
                "found the shard {shard}, but no index (*.safetensors.index.json) that says what is in it; fetch the index too"
            ),
        );
    }
    let foreign = names.iter().find(|name| {
        Path::new(name)
            .extension()
            .and_then(OsStr::to_str)
            .is_some_and(|ext| FOREIGN.contains(&ext))
    });
    if let Some(foreign) = foreign {
        return Error::format(dir, format!("found only {foreign}. {}", super::CONVERT));
    }
    Error::format(
        dir,
        format!(
            "no weights here: expected {}.safetensors or {}.safetensors, found {}",
            STEMS[0],
            STEMS[1],
            if names.is_empty() {
                "an empty folder".to_owned()
            } else {
                names.join(", ")
            }
        ),
    )
}
