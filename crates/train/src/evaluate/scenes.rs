//! Scenes to judge by.

use std::path::Path;

use image::RgbImage;

use super::proof::SEED;
use crate::config::{Config, DataKind, Source};
use crate::dataset::scene_generator;
use crate::error::{Error, Result};

/// The scenes that a training config shows, so that only what a model has learnt is asked for.
///
/// # Errors
/// The config cannot be used, or has no scenes in it.
pub fn scenes_of(file: &Path) -> Result<Source> {
    let config = Config::from_file(file)?;
    let sources = config.data.sources();
    let drawn = sources.into_iter().find(|s| s.kind == DataKind::Scenes);
    drawn.ok_or_else(|| {
        let message = "[data] kind: expected \"scenes\", by which can be judged; found none";
        Error::config(file, message)
    })
}

/// Scenes like those of `source`, `size` pixels a side, that no model has learnt from, by number.
///
/// # Errors
/// No scene can be drawn in this size; sprites cannot be read.
pub fn held_back_scenes(
    source: &Source,
    size: usize,
) -> Result<impl Fn(usize) -> RgbImage + use<>> {
    let generator = scene_generator(source, size)?;
    Ok(move |number| generator.scene(SEED, number as u64).render())
}
