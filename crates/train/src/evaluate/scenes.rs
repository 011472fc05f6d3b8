//! Scenes to judge by.

use std::path::Path;

use image::RgbImage;
use velatura_scenes::{Setting, Time, Weather};

use super::proof::SEED;
use crate::config::{Config, DataKind, Source};
use crate::dataset::scene_generator;
use crate::error::{Error, Result};
use crate::scorer::{Scorer, ScorerConfig};

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

/// The things that the scenes of `source` show.
///
/// # Errors
/// Its sprites cannot be read; it names what there is not.
pub fn nouns_of(source: &Source) -> Result<Vec<String>> {
    let generator = scene_generator(source, ScorerConfig::SIZE)?;
    Ok(generator.nouns().into_iter().map(str::to_owned).collect())
}

/// The scenes of which a scorer knows everything: older ones may not know what scenes show today.
pub fn scenes_known_to(scorer: &Scorer) -> Source {
    fn names<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> Option<Vec<String>> {
        Some(all.iter().map(|&one| name(one).to_owned()).collect())
    }
    let known = scorer.config();
    let mut source = Source::new(DataKind::Scenes);
    source.scenes.nouns = Some(known.nouns.clone());
    source.scenes.settings = names(&known.settings, Setting::name);
    source.scenes.times = names(&known.times, Time::name);
    source.scenes.weathers = names(&known.weathers, Weather::name);
    source
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
