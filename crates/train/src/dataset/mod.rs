//! Where pictures and captions come from: a folder, or scenes drawn from a seed.

mod captions;
mod folder;
pub(crate) use folder::hex;
mod scenes;

use std::fmt;
use std::path::Path;

use image::RgbImage;

pub use self::folder::FolderDataset;
pub use self::scenes::SceneDataset;
use crate::config::{Config, Data, DataKind, Part};
use crate::error::{Error, Result};
use crate::picture::square;

/// A picture, square, and its captions (none where only the picture matters).
#[derive(Debug, Clone)]
pub struct Item {
    /// `size`×`size` pixels.
    pub picture: RgbImage,
    /// One or more captions that each describe it; empty in a folder without captions.
    pub captions: Vec<String>,
}

/// A file that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file, relative to the dataset's folder.
    pub file: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.file, self.reason)
    }
}

/// A source of pictures. Picture i is the same whenever and by whichever thread it is asked for.
pub enum Dataset {
    /// Files.
    Folder(FolderDataset),
    /// Drawings.
    Scenes(SceneDataset),
}

impl Dataset {
    /// Opens what `[data]` describes.
    ///
    /// # Errors
    /// The folder is missing, or holds nothing that can be used.
    pub fn open(config: &Config) -> Result<Dataset> {
        let data: &Data = &config.data;
        Ok(match data.kind {
            DataKind::Folder => {
                let path = data.path.as_deref().unwrap_or(Path::new("."));
                Dataset::Folder(match &data.caption {
                    Some(caption) => FolderDataset::scan(path, false)?.captioned(caption),
                    None => FolderDataset::scan(path, config.model.part != Part::Vae)?,
                })
            }
            DataKind::Scenes => Dataset::Scenes(SceneDataset::new(data)?),
        })
    }

    /// The number of pictures; none where they never end.
    pub fn len(&self) -> Option<u64> {
        match self {
            Dataset::Folder(folder) => Some(folder.len() as u64),
            Dataset::Scenes(scenes) => scenes.count(),
        }
    }

    /// Whether there is no picture at all; an open dataset never is.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Picture `index`, made square with this side; `Err` says why this one cannot be used.
    ///
    /// # Errors
    /// The file is broken.
    pub fn item(&self, index: u64, size: usize) -> Result<Item, Skipped> {
        match self {
            Dataset::Folder(folder) => {
                let mut item = folder.item(index as usize)?;
                item.picture = square(item.picture, size as u32);
                Ok(item)
            }
            Dataset::Scenes(scenes) => scenes.item(index, size),
        }
    }

    /// The picture at `index`, or the next one that is not broken.
    ///
    /// What stands in for a broken file depends on the files alone, so every run meets the same pictures.
    ///
    /// # Errors
    /// All are broken.
    pub fn usable_item(
        &self,
        index: u64,
        size: usize,
        broken: &mut dyn FnMut(Skipped),
    ) -> Result<Item> {
        let count = self.len().unwrap_or(u64::MAX);
        let mut last = None;
        for offset in 0..count.min(MOST_BROKEN) {
            match self.item((index + offset) % count, size) {
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
        match self {
            Dataset::Folder(folder) => folder.skipped(),
            Dataset::Scenes(_) => &[],
        }
    }

    /// How errors call the dataset.
    pub fn place(&self) -> String {
        match self {
            Dataset::Folder(folder) => folder.dir().display().to_string(),
            Dataset::Scenes(_) => "scenes".into(),
        }
    }

    /// A digest of everything the pictures and captions depend on, for the latents cache. Reads every file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        match self {
            Dataset::Folder(folder) => folder.fingerprint(),
            Dataset::Scenes(scenes) => scenes.fingerprint(),
        }
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
    format!(
        "{} pictures skipped: {}{more}",
        skipped.len(),
        names.join(", ")
    )
}
