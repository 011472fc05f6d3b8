//! Where pictures and captions come from: a folder, WebDataset archives, Parquet files, or scenes drawn from a seed.

mod captions;
mod folder;
mod parquet;
mod scenes;
mod shards;
mod webdataset;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use sha2::{Digest, Sha256};

use self::folder::FolderDataset;
use self::parquet::ParquetDataset;
use self::scenes::SceneDataset;
pub use self::scenes::scene_generator;
use self::webdataset::WebDataset;
use crate::config::{Config, DataKind, Source};
use crate::error::{Error, Result};

/// A picture and its captions (none where only the picture matters).
#[derive(Debug, Clone)]
pub struct Item {
    /// In its own size.
    pub picture: RgbImage,
    /// One or more captions that each describe it; empty in a source without captions.
    pub captions: Vec<String>,
}

/// A picture that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file, with its place in it where it holds many.
    pub file: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.file, self.reason)
    }
}

/// What every kind of source can do. Picture i is the same whenever and by whichever thread it is asked for.
trait Pictures: Send + Sync {
    /// The number of pictures; none where they never end.
    fn len(&self) -> Option<u64>;

    /// Picture `index`; `Err` says why this one cannot be used.
    fn item(&self, index: u64) -> Result<Item, Skipped>;

    /// What was passed over when the source was opened.
    fn skipped(&self) -> &[Skipped] {
        &[]
    }

    /// How errors call the source.
    fn place(&self) -> String;

    /// A digest of everything that pictures and captions depend on.
    fn fingerprint(&self) -> Result<String>;

    /// Words that captions may have though none has been seen with them.
    fn vocabulary(&self) -> Vec<String> {
        Vec::new()
    }

    /// What there is to be seen, where somebody has listed it.
    fn things(&self) -> Vec<String> {
        Vec::new()
    }

    /// A licence that what is made from the pictures has to carry.
    fn notice(&self) -> Option<String> {
        None
    }
}

/// An open source of pictures.
pub struct Dataset {
    pictures: Box<dyn Pictures>,
    /// In place of the pictures' own.
    caption: Option<String>,
    weight: f32,
}

impl Dataset {
    /// Opens what `source` describes. `size` is the side of scenes; with `captions_needed` pictures without a caption
    /// are passed over.
    ///
    /// # Errors
    /// Files are missing, or hold nothing that can be used.
    pub fn open(source: &Source, size: usize, captions_needed: bool) -> Result<Dataset> {
        let path = source.path.as_deref().unwrap_or(Path::new("."));
        let captions_needed = captions_needed && source.caption.is_none();
        Ok(Dataset {
            pictures: match source.kind {
                DataKind::Folder => Box::new(FolderDataset::scan(path, captions_needed)?),
                DataKind::Scenes => Box::new(SceneDataset::new(source, size)?),
                DataKind::WebDataset => Box::new(WebDataset::scan(path, captions_needed)?),
                DataKind::Parquet => Box::new(ParquetDataset::open(path, source, captions_needed)?),
            },
            caption: source.caption.clone(),
            weight: source.weight,
        })
    }

    /// Opens all sources of `[data]`, and says on standard error what was passed over.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_all(config: &Config) -> Result<Vec<Arc<Dataset>>> {
        let mut all = Vec::new();
        for source in config.data.sources() {
            let dataset = Dataset::open(
                &source,
                config.data.size,
                config.model.part.learns_latents(),
            )?;
            if !dataset.skipped().is_empty() {
                eprintln!("{}", summary(dataset.skipped()));
            }
            all.push(Arc::new(dataset));
        }
        Ok(all)
    }

    /// The number of pictures; none where they never end.
    pub fn len(&self) -> Option<u64> {
        self.pictures.len()
    }

    /// Whether there is no picture at all; an open dataset never is.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// How often its pictures are wanted beside those of other sources.
    pub fn weight(&self) -> f32 {
        self.weight
    }

    /// Picture `index`; `Err` says why this one cannot be used.
    ///
    /// # Errors
    /// The file is broken.
    pub fn item(&self, index: u64) -> Result<Item, Skipped> {
        let mut item = self.pictures.item(index)?;
        if let Some(caption) = &self.caption {
            item.captions = vec![caption.clone()];
        }
        Ok(item)
    }

    /// The picture at `index`, or the next one that is not broken.
    ///
    /// What stands in for a broken file depends on the files alone, so every run meets the same pictures.
    ///
    /// # Errors
    /// All are broken.
    pub fn usable_item(&self, index: u64, broken: &mut dyn FnMut(Skipped)) -> Result<Item> {
        let count = self.len().unwrap_or(u64::MAX);
        let mut last = None;
        for offset in 0..count.min(MOST_BROKEN) {
            match self.item((index + offset) % count) {
                Ok(item) => return Ok(item),
                Err(skipped) => {
                    last = Some(skipped.clone());
                    broken(skipped);
                }
            }
        }
        let example = last
            .map(|skipped| format!(", the last being {skipped}"))
            .unwrap_or_default();
        Err(Error::data(
            self.place(),
            format!(
                "{} pictures in a row cannot be used{example}; nothing is left to learn from",
                count.min(MOST_BROKEN)
            ),
        ))
    }

    /// What was passed over when the dataset was opened.
    pub fn skipped(&self) -> &[Skipped] {
        self.pictures.skipped()
    }

    /// How errors call the dataset.
    pub fn place(&self) -> String {
        self.pictures.place()
    }

    /// A digest of everything the pictures and captions depend on, for the latents cache. Reads every file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut all = Sha256::new();
        all.update(self.pictures.fingerprint()?);
        all.update(format!("{:?}", self.caption));
        Ok(hex(&all.finalize()))
    }

    /// Words that captions may have though none has been seen with them.
    pub fn vocabulary(&self) -> Vec<String> {
        self.pictures.vocabulary()
    }

    /// What there is to be seen, where somebody has listed it.
    pub fn things(&self) -> Vec<String> {
        self.pictures.things()
    }

    /// A licence that what is made from the pictures has to carry.
    pub fn notice(&self) -> Option<String> {
        self.pictures.notice()
    }
}

/// More broken files in a row than this mean that something else is wrong: a disk that is gone, say.
const MOST_BROKEN: u64 = 1000;

/// One line for the person: how many were passed over, and the first few by name.
pub fn summary(skipped: &[Skipped]) -> String {
    const NAMED: usize = 10;
    let names: Vec<String> = skipped.iter().take(NAMED).map(Skipped::to_string).collect();
    let more = if skipped.len() > NAMED {
        format!(", and {} more", skipped.len() - NAMED)
    } else {
        String::new()
    };
    format!("{} skipped: {}{more}", skipped.len(), names.join(", "))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
