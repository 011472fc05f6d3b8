//! Scenes drawn from a seed.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use velatura_scenes::{
    Colour, SceneConfig, SceneGenerator, Setting, SpriteSet, Style, Time, Weather,
};

use super::{Item, Pictures, Skipped, hex};
use crate::config::{Scenes as Narrowed, Source};
use crate::error::{Error, Result};

/// Scene after scene from one seed.
pub struct SceneDataset {
    generator: SceneGenerator,
    seed: u64,
    count: Option<u64>,
}

impl SceneDataset {
    /// As `source` says, `size` pixels a side.
    ///
    /// # Errors
    /// As [`scene_generator`].
    pub fn new(source: &Source, size: usize) -> Result<SceneDataset> {
        Ok(SceneDataset {
            generator: scene_generator(source, size)?,
            seed: source.seed,
            count: source.count,
        })
    }
}

/// What draws the scenes that `source` describes, `size` pixels a side.
///
/// # Errors
/// The sprites cannot be read; a name in a list is unknown; no scene can be drawn that way.
pub fn scene_generator(source: &Source, size: usize) -> Result<SceneGenerator> {
    let fault = |error: velatura_scenes::SceneError| Error::data("scenes", error.to_string());
    let mut config = SceneConfig {
        size: size as u32,
        ..SceneConfig::default()
    };
    if let Some(dir) = &source.sprites {
        config.sprites = Some(Arc::new(SpriteSet::load(dir).map_err(fault)?));
    }
    narrow(&mut config, &source.scenes)?;
    SceneGenerator::new(config).map_err(fault)
}

impl Pictures for SceneDataset {
    fn len(&self) -> Option<u64> {
        self.count
    }

    fn item(&self, index: u64) -> Result<Item, Skipped> {
        let scene = self.generator.scene(self.seed, index);
        Ok(Item {
            picture: scene.render(),
            captions: scene.captions,
        })
    }

    /// SHA-256 over the number of scenes and the first of them: whatever changes how scenes are planned, drawn or
    /// described changes those as well.
    fn fingerprint(&self) -> Result<String> {
        const LOOKED_AT: u64 = 64;
        let mut all = Sha256::new();
        all.update(format!("{:?} {}", self.count, self.seed));
        for index in 0..LOOKED_AT {
            let scene = self.generator.scene(self.seed, index);
            all.update(scene.render().as_raw());
            for caption in &scene.captions {
                all.update(caption.as_bytes());
                all.update([0]);
            }
        }
        Ok(hex(&all.finalize()))
    }

    fn place(&self) -> String {
        "scenes".into()
    }

    /// Every word that a caption can contain, sorted.
    fn vocabulary(&self) -> Vec<String> {
        self.generator.vocabulary()
    }

    fn things(&self) -> Vec<String> {
        self.generator
            .nouns()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    fn notice(&self) -> Option<String> {
        let sprites = self.generator.config().sprites.as_ref()?;
        sprites.notice().map(str::to_owned)
    }
}

/// Puts the lists and shares that `[data.scenes]` has in place of the defaults.
fn narrow(config: &mut SceneConfig, by: &Narrowed) -> Result<()> {
    fn list<T>(
        field: &str,
        names: &Option<Vec<String>>,
        find: impl Fn(&str) -> Option<T>,
        into: &mut Vec<T>,
    ) -> Result<()> {
        let Some(names) = names else { return Ok(()) };
        let unknown = |name: &str| {
            Error::data(
                "scenes",
                format!("[data.scenes] {field}: {name:?} is not one of them"),
            )
        };
        *into = names
            .iter()
            .map(|name| find(name).ok_or_else(|| unknown(name)))
            .collect::<Result<_>>()?;
        Ok(())
    }
    list(
        "settings",
        &by.settings,
        Setting::from_name,
        &mut config.settings,
    )?;
    list("times", &by.times, Time::from_name, &mut config.times)?;
    list(
        "weathers",
        &by.weathers,
        Weather::from_name,
        &mut config.weathers,
    )?;
    list("styles", &by.styles, Style::from_name, &mut config.styles)?;
    list(
        "colours",
        &by.colours,
        Colour::from_name,
        &mut config.colours,
    )?;
    list(
        "nouns",
        &by.nouns,
        |name| Some(name.to_string()),
        &mut config.nouns,
    )?;
    for (share, into) in [
        (by.pair_share, &mut config.pair_share),
        (by.count_share, &mut config.count_share),
        (by.trio_share, &mut config.trio_share),
        (by.flat_share, &mut config.flat_share),
        (by.odd_size_share, &mut config.odd_size_share),
        (by.clear_share, &mut config.clear_share),
    ] {
        if let Some(share) = share {
            *into = share;
        }
    }
    config.held_out = by.held_out.unwrap_or_default();
    Ok(())
}
