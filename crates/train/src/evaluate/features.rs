//! What sets of pictures are compared by.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::distance::Features;
use super::{Report, tell};
use crate::error::{Error, Result};
use crate::picture::{decode, fit, is_picture};
use crate::scorer::{Scorer, scaled_batch};

/// The pictures in a folder, in the order of their names; folders in it are not looked into.
///
/// # Errors
/// The folder cannot be read, or holds no picture.
pub fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read the folder", folder))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = paths.filter(|path| is_picture(path)).collect();
    if files.is_empty() {
        return Err(Error::data(
            folder.display(),
            "expected pictures, found none",
        ));
    }
    files.sort();
    Ok(files)
}

/// Reads a picture.
///
/// # Errors
/// It cannot be decoded.
pub fn read(file: &Path) -> Result<RgbImage> {
    decode(file).map_err(|message| Error::data(file.display(), message))
}

/// Reads a picture, cut and scaled to a square.
///
/// # Errors
/// It cannot be decoded.
pub fn read_square(file: &Path, side: usize) -> Result<RgbImage> {
    Ok(fit(read(file)?, [side; 2], [0.5; 2]))
}

/// The features of pictures by the network that judges scenes: for scenes only, and comparable only with figures of
/// the same network.
///
/// # Errors
/// A picture cannot be read; `report` says stop.
pub fn of_scenes(scorer: &Scorer, files: &[PathBuf], report: Report) -> Result<Features> {
    const TOGETHER: usize = 32;
    let mut values = Vec::with_capacity(files.len() * scorer.feature_len());
    let mut done = 0;
    for chunk in files.chunks(TOGETHER) {
        let pictures = chunk
            .iter()
            .map(|file| read(file))
            .collect::<Result<Vec<_>>>()?;
        values.extend(scorer.features(&scaled_batch(pictures)));
        done += chunk.len();
        tell(&mut *report, "picture", done, files.len())?;
    }
    Ok(Features::new(&values, scorer.feature_len()))
}
