//! What is learnt from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// One caption for all pictures of the folder, in place of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
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

/// `[prior]`: pictures of the class that a subject belongs to, learnt beside it so that the model does not forget the
/// class (DreamBooth's prior preservation: Ruiz et al. 2022, arXiv:2208.12242).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prior {
    /// The folder of pictures; made if missing.
    pub path: PathBuf,
    /// What each of them shows: "a dog".
    pub caption: String,
    /// Pictures wanted; those that are missing are painted by the base model before training.
    #[serde(default)]
    pub count: usize,
    /// How much the class counts beside the subject.
    #[serde(default = "defaults::weight")]
    pub weight: f32,
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

mod defaults {
    pub fn caption_dropout() -> f32 {
        0.1
    }
    pub fn workers() -> usize {
        1
    }
    pub fn weight() -> f32 {
        1.0
    }
}
