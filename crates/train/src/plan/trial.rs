//! A run in small: the config as it is, but in a folder that is thrown away and with a few pictures.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use crate::config::{Config, Data, DataKind, Part, Prior, Scenes, TokenizerKind};
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// Pictures in place of all.
const PICTURES: u64 = 4;
/// Pictures whose captions a vocabulary is estimated from.
const CAPTIONED: u64 = 64;

/// The folder of a trial. It is removed when this is dropped.
pub(super) struct Scratch {
    _dir: TempDir,
    config: Config,
    pictures: Pictures,
}

/// What the run will learn from.
pub(super) struct Pictures {
    /// How many; none where they never end.
    pub count: Option<u64>,
    /// Seconds to read or draw one.
    pub seconds: f64,
}

impl Scratch {
    /// Copies a few pictures where latents have to be encoded; an autoencoder reads its pictures where they are.
    ///
    /// # Errors
    /// The data cannot be read, the folder for temporary files not written.
    pub fn new(config: &Config) -> Result<Scratch> {
        let dir =
            tempfile::tempdir().map_err(Error::io("make a temporary folder", Path::new("")))?;
        let mut trial = config.clone();
        trial.run.dir = dir.path().join("run");
        trial.data.cache = None;
        // What begins later is measured, too.
        if let Some(discriminator) = &mut trial.discriminator {
            discriminator.start = 0;
        }
        let datasets = Dataset::open_all(config)?;
        let began = Instant::now();
        let first = datasets[0].usable_item(0, &mut |_| {})?;
        let pictures = Pictures {
            count: datasets.iter().map(|dataset| dataset.len()).sum(),
            seconds: began.elapsed().as_secs_f64(),
        };
        match (config.model.part, config.data.kind) {
            (Part::Vae | Part::Scorer, _) => {}
            // Scenes bring their vocabulary with them.
            (_, Some(DataKind::Scenes)) => trial.data.count = Some(PICTURES),
            _ => {
                let folder = dir.path().join("pictures");
                fs::create_dir(&folder).map_err(Error::io("make the folder", &folder))?;
                let mut captions: BTreeSet<String> = first.captions.into_iter().collect();
                let fresh = config.model.new_tokenizer() == Some(TokenizerKind::Captions);
                let wanted = if fresh { CAPTIONED } else { PICTURES };
                let count = pictures.count.unwrap_or(wanted);
                let sources = datasets.len() as u64;
                for index in 0..wanted.min(count) {
                    let dataset = &datasets[(index % sources) as usize];
                    let item = dataset.usable_item(index / sources, &mut |_| {})?;
                    captions.extend(item.captions);
                    if index < PICTURES {
                        let path = folder.join(format!("{index}.png"));
                        (item.picture.save(&path)).map_err(|error| {
                            Error::run(&path, format!("cannot write the picture: {error}"))
                        })?;
                    }
                }
                // Each of them gets all captions, so that a vocabulary made from them has the words of all.
                let text: Vec<String> = captions.into_iter().collect();
                for index in 0..PICTURES.min(count) {
                    let path = folder.join(format!("{index}.txt"));
                    fs::write(&path, text.join("\n")).map_err(Error::io("write", &path))?;
                }
                trial.data = Data {
                    kind: Some(DataKind::Folder),
                    path: Some(folder.clone()),
                    caption: None,
                    image_column: None,
                    caption_column: None,
                    count: None,
                    seed: 0,
                    sprites: None,
                    scenes: Scenes::default(),
                    sources: Vec::new(),
                    ..trial.data
                };
                if let Some(prior) = &mut trial.prior {
                    *prior = Prior {
                        path: folder,
                        count: 0,
                        ..prior.clone()
                    };
                }
            }
        }
        Ok(Scratch {
            _dir: dir,
            config: trial,
            pictures,
        })
    }

    /// The config of the trial.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the run will learn from.
    pub fn pictures(&self) -> &Pictures {
        &self.pictures
    }
}
