//! What sets of pictures are compared by.

use std::path::{Path, PathBuf};

use image::RgbImage;
use velatura_tensor::Tensor;

use super::distance::Features;
use super::inception::Inception;
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

/// What makes features of pictures.
pub enum Network {
    /// The network that judges scenes: for scenes only, and comparable only with figures of the same network.
    Scorer(Box<Scorer>),
    /// The one that FID is defined by.
    Inception(Inception),
}

/// Pictures in one batch.
const TOGETHER: usize = 16;

impl Network {
    /// As reports call it.
    pub fn name(&self) -> &'static str {
        match self {
            Network::Scorer(_) => "scene scorer",
            Network::Inception(_) => "Inception",
        }
    }

    /// The features of the pictures in `files`.
    ///
    /// # Errors
    /// A picture cannot be read; `report` says stop.
    pub fn features(&self, files: &[PathBuf], report: Report) -> Result<Features> {
        let mut values = Vec::new();
        let mut done = 0;
        for chunk in files.chunks(TOGETHER) {
            let pictures = chunk.iter().map(|file| read(file));
            let pictures = pictures.collect::<Result<Vec<_>>>()?;
            match self {
                Network::Scorer(scorer) => {
                    values.extend(scorer.features(&scaled_batch(pictures)));
                }
                Network::Inception(inception) => {
                    // Pictures of a folder may differ in size.
                    for picture in pictures {
                        values.extend(inception.features(&units(&picture))?);
                    }
                }
            }
            done += chunk.len();
            tell(&mut *report, "picture", done, files.len())?;
        }
        Ok(Features::new(&values, values.len() / files.len().max(1)))
    }
}

/// `[1, H, W, 3]` in [0, 1].
fn units(picture: &RgbImage) -> Tensor {
    let (width, height) = picture.dimensions();
    let values = picture.as_raw().iter().map(|&byte| f32::from(byte) / 255.0);
    Tensor::from_vec(values.collect(), &[1, height as usize, width as usize, 3])
}
