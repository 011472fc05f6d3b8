//! Scenes drawn from a seed.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use velatura_scenes::{Colour, SceneConfig, SceneGenerator, Setting, SpriteSet, Time, Weather};

use super::{Item, Skipped, hex};
use crate::config::{Data, Scenes as Narrowed};
use crate::error::{Error, Result};

/// Scene after scene from one seed.
pub struct SceneDataset {
    generator: SceneGenerator,
    seed: u64,
    count: Option<u64>,
    size: usize,
}

impl SceneDataset {
    /// As `[data]` and `[data.scenes]` say.
    ///
    /// # Errors
    /// The sprites cannot be read; a name in a list is unknown; no scene can be drawn that way.
    pub fn new(data: &Data) -> Result<SceneDataset> {
        let fault = |error: velatura_scenes::SceneError| Error::data("scenes", error.to_string());
        let mut config = SceneConfig {
            size: data.size as u32,
            ..SceneConfig::default()
        };
        if let Some(dir) = &data.sprites {
            config.sprites = Some(Arc::new(SpriteSet::load(dir).map_err(fault)?));
        }
        narrow(&mut config, &data.scenes)?;
        let generator = SceneGenerator::new(config).map_err(fault)?;
        Ok(SceneDataset {
            generator,
            seed: data.seed,
            count: data.count,
            size: data.size,
        })
    }

    /// The number of scenes; none where they never end.
    pub fn count(&self) -> Option<u64> {
        self.count
    }

    /// Draws scene `index`.
    ///
    /// # Errors
    /// None; a folder's pictures have them.
    pub fn item(&self, index: u64, size: usize) -> Result<Item, Skipped> {
        debug_assert_eq!(
            size, self.size,
            "scenes are drawn in the size of the config"
        );
        let scene = self.generator.scene(self.seed, index);
        Ok(Item {
            picture: scene.render(),
            captions: scene.captions,
        })
    }

    /// SHA-256 over the number of scenes and the first of them: whatever changes how scenes are planned, drawn or
    /// described changes those as well.
    ///
    /// # Errors
    /// None; a folder's files have them.
    pub fn fingerprint(&self) -> Result<String> {
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

    /// Every word that a caption can contain, sorted.
    pub fn vocabulary(&self) -> Vec<String> {
        self.generator.vocabulary()
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
        (by.odd_size_share, &mut config.odd_size_share),
        (by.clear_share, &mut config.clear_share),
    ] {
        if let Some(share) = share {
            *into = share;
        }
    }
    Ok(())
}
