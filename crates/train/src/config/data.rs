//! What is learnt from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use velatura_scenes::HeldOut;

/// `[data]`: one source of pictures, or several in `[[data.sources]]`, and what is made of them.
///
/// The fields of the one source are those of [`Source`], written out again: flattened into this table, serde would neither
/// refuse unknown fields nor say in which line a mistake stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// What the one source is; absent where there are `sources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DataKind>,
    /// Where its files are: see [`Source::path`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Pictures are made square with this side, in pixels; with `bucket_step` this is the square whose area they have.
    pub size: usize,
    /// See [`Source::caption`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// See [`Source::image_column`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// See [`Source::caption_column`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_column: Option<String>,
    /// Side of the random crop that the VAE trains on; the whole picture if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// See [`Source::count`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// See [`Source::seed`].
    #[serde(default)]
    pub seed: u64,
    /// See [`Source::sprites`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sprites: Option<PathBuf>,
    /// See [`Source::scenes`].
    #[serde(default)]
    pub scenes: Scenes,
    /// Several sources, from which a batch's pictures are mixed by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Aspect-ratio buckets: pictures keep their shape, nearly, with width and height multiples of this (64 is usual);
    /// without it they are square.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_step: Option<usize>,
    /// Mirrors half of the pictures, but never one whose captions speak of a side, a sense of rotation or a text.
    #[serde(default, skip_serializing_if = "is_false")]
    pub flip: bool,
    /// What does not fit into the square or the bucket is cut off at random sides, not evenly.
    #[serde(default, skip_serializing_if = "is_false")]
    pub random_crop: bool,
    /// Folder of the caches of latents and texts; default `cache` in the run folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Whether the outputs of a text encoder that stays as it is are kept on disk.
    #[serde(default = "defaults::cache_text", skip_serializing_if = "is_true")]
    pub cache_text: bool,
    /// Share of captions replaced by the empty one, which is what guidance needs.
    #[serde(default = "defaults::caption_dropout")]
    pub caption_dropout: f32,
    /// Background threads that prepare batches.
    #[serde(default = "defaults::workers")]
    pub workers: usize,
}

impl Data {
    /// Where pictures come from: `sources`, or the one source that stands in `[data]` itself.
    pub fn sources(&self) -> Vec<Source> {
        match self.kind {
            None => self.sources.clone(),
            Some(kind) => vec![Source {
                path: self.path.clone(),
                caption: self.caption.clone(),
                image_column: self.image_column.clone(),
                caption_column: self.caption_column.clone(),
                count: self.count,
                seed: self.seed,
                sprites: self.sprites.clone(),
                scenes: self.scenes.clone(),
                ..Source::new(kind)
            }],
        }
    }
}

/// `[[data.sources]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it is.
    pub kind: DataKind,
    /// How often its pictures are taken beside those of the others.
    #[serde(default = "defaults::weight")]
    pub weight: f32,
    /// The folder (kind "folder"), or the shards (kinds "webdataset" and "parquet"): a file, a folder, a glob such as
    /// `shards/*.tar`, or a list such as `shards/{000..127}.tar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// One caption for all its pictures, in place of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// The column with the pictures (kind "parquet"); "image" if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// The column with the captions (kind "parquet"); "text" if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_column: Option<String>,
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
}

impl Source {
    /// A source of this kind with nothing else said.
    pub fn new(kind: DataKind) -> Source {
        Source {
            kind,
            weight: defaults::weight(),
            path: None,
            caption: None,
            image_column: None,
            caption_column: None,
            count: None,
            seed: 0,
            sprites: None,
            scenes: Scenes::default(),
        }
    }
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenes {
    /// Landscapes.
    pub settings: Option<Vec<String>>,
    /// Hours.
    pub times: Option<Vec<String>>,
    /// Weathers.
    pub weathers: Option<Vec<String>>,
    /// Styles of drawing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub styles: Option<Vec<String>>,
    /// Paints.
    pub colours: Option<Vec<String>>,
    /// Things, in the singular.
    pub nouns: Option<Vec<String>>,
    /// Share of scenes with two different things.
    pub pair_share: Option<f32>,
    /// Share of scenes with two to four of the same thing.
    pub count_share: Option<f32>,
    /// Share of scenes with three different things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trio_share: Option<f32>,
    /// Share of single things drawn small, and the same share drawn big.
    pub odd_size_share: Option<f32>,
    /// Share of scenes in clear weather.
    pub clear_share: Option<f32>,
    /// Share of flat pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flat_share: Option<f32>,
    /// Combinations that are held out, so that what a model makes of them can be judged; "exclude" for training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
}

/// Where pictures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataKind {
    /// Pictures with captions in a folder.
    Folder,
    /// Scenes drawn by `velatura-scenes`.
    Scenes,
    /// Tar archives in which members of one name and several endings belong together.
    WebDataset,
    /// Tables with a column of pictures and one of captions.
    Parquet,
}

impl DataKind {
    /// As configs spell it.
    pub fn name(self) -> &'static str {
        match self {
            DataKind::Folder => "folder",
            DataKind::Scenes => "scenes",
            DataKind::WebDataset => "webdataset",
            DataKind::Parquet => "parquet",
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_true(value: &bool) -> bool {
    *value
}

mod defaults {
    pub fn caption_dropout() -> f32 {
        0.1
    }
    pub fn workers() -> usize {
        1
    }
    pub fn cache_text() -> bool {
        true
    }
    pub fn weight() -> f32 {
        1.0
    }
}
