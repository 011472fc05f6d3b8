//! Training the scorer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use velatura::checkpoint::{Component, FloatType};
use velatura::pipeline::PrecisionChoice;
use velatura_tensor::Parameter;
use velatura_tensor::tape::no_grad;

use super::loss::loss;
use super::net::{PLACE, Scorer, ScorerConfig};
use super::question::{Aspect, Question, judge};
use super::source::{SceneBatch, SceneSource, open_vae};
use crate::config::Config;
use crate::dataset::scene_generator;
use crate::error::{Error, Result};
use crate::inspection::Inspection;
use crate::loader::MakeBatch;
use crate::models;
use crate::objective::{Losses, Objective, first_not_finite};
use crate::optimizer::Named;
use crate::picture::{grid, pictures_of, to_rgb};
use crate::run_folder::RunFolder;
use crate::trainer;
use crate::{Options, Outcome};

/// Runs the training of a scorer.
///
/// # Errors
/// See [`crate::train`].
pub fn train(config: &Config, run: &RunFolder, options: &Options) -> Result<Outcome> {
    let objective = ScorerObjective::new(config, run)?;
    trainer::run(&objective, config, &run.start(), options)
}

pub(crate) struct ScorerObjective {
    scorer: Scorer,
    parameters: Vec<Parameter>,
    source: Arc<SceneSource>,
    samples: usize,
}

/// What a fresh scorer says of a cell before it knows better: that one in ten holds a centre. From an even chance the
/// first steps would all be spent on the 255 cells that hold none (as in the paper on points).
const FRESH_LOGIT: f32 = -2.2;
/// The parameters that have a row for each channel of a cell.
const CELLS_WEIGHT: &str = "conv_cells.weight";
const CELLS_BIAS: &str = "conv_cells.bias";
/// Scenes by which a sample's remark says how good the scorer is.
const JUDGED: u64 = 192;
/// Pictures looked at in one batch.
const TOGETHER: u64 = 32;

impl ScorerObjective {
    pub fn new(config: &Config, run: &RunFolder) -> Result<ScorerObjective> {
        let sources = config.data.sources();
        let [source] = sources.as_slice() else {
            let message = "[data]: a scorer learns from one source, of kind \"scenes\"";
            return Err(Error::config(run.config_file(), message));
        };
        let generator = scene_generator(source, config.data.size)?;
        let shares = config.scorer.clone().unwrap_or_default();
        let nouns: Vec<String> = generator.nouns().into_iter().map(str::to_owned).collect();
        let component = models::open(config, run, "scorer")?;
        let (scorer, parameters) = match &component {
            Some(component) => known(config, component, nouns)?,
            None => fresh(config, &shares, nouns)?,
        };
        let scorer_config = scorer.config().clone();
        let open = |folder| open_vae(folder, PrecisionChoice::Auto);
        let vae = config.model.vae.as_deref().map(open);
        Ok(ScorerObjective {
            scorer,
            parameters,
            source: Arc::new(SceneSource {
                config: scorer_config,
                generator,
                scene_seed: source.seed,
                count: source.count,
                seed: config.run.seed,
                batch: config.run.batch_size,
                shares,
                vae: vae.transpose()?,
            }),
            samples: config.sample.count,
        })
    }

    fn write(&self, dir: &Path, dtype: FloatType) -> velatura::Result<()> {
        let config = self.scorer.config().to_json();
        models::save(dir, &config, &self.parameters, dtype)
    }
}

/// A scorer that knows nothing yet.
fn fresh(
    config: &Config,
    shares: &crate::config::Scorer,
    nouns: Vec<String>,
) -> Result<(Scorer, Vec<Parameter>)> {
    let (channels, groups) = (shares.block_out_channels, shares.norm_num_groups);
    let store = models::store(config, "scorer", None);
    let scorer = Scorer::load(
        &ScorerConfig::of_all_scenes(channels, groups, nouns),
        &store.root(),
    )?;
    let parameters = store.parameters();
    if let Some(bias) = parameters.iter().find(|p| p.name() == CELLS_BIAS) {
        bias.update(|values| values[0] = FRESH_LOGIT);
    }
    Ok((scorer, parameters))
}

/// The scorer of a checkpoint or a base. Where it is to tell other things apart, it keeps what it knows of those of `nouns`
/// that it has met.
fn known(
    config: &Config,
    component: &Component,
    nouns: Vec<String>,
) -> Result<(Scorer, Vec<Parameter>)> {
    let before = ScorerConfig::from_json(&component.config()?)
        .map_err(|message| Error::config(&component.config_path(), message))?;
    let store = models::store(config, "scorer", Some(component));
    let scorer = Scorer::load(&before, &store.root())?;
    store.finish()?;
    if before.nouns == nouns {
        return Ok((scorer, store.parameters()));
    }
    let after = ScorerConfig {
        nouns,
        ..before.clone()
    };
    // The channels of a cell: its place, the nouns, the colours.
    let mut same: Vec<(usize, usize)> = (0..PLACE).map(|channel| (channel, channel)).collect();
    let colours = (0..ScorerConfig::COLOURS).rev();
    same.extend(colours.map(|c| {
        (
            before.cell_channels() - 1 - c,
            after.cell_channels() - 1 - c,
        )
    }));
    for (new, noun) in after.nouns.iter().enumerate() {
        if let Some(old) = before.nouns.iter().position(|known| known == noun) {
            same.push((PLACE + old, PLACE + new));
        }
    }
    let wider = models::store(config, "scorer", None);
    let scorer = Scorer::load(&after, &wider.root())?;
    let parameters = wider.parameters();
    let tables = [CELLS_WEIGHT, CELLS_BIAS];
    models::take_over(&store.parameters(), &parameters, &tables, &same);
    Ok((scorer, parameters))
}

impl Objective for ScorerObjective {
    type Batch = SceneBatch;

    fn parameters(&self) -> Vec<Named> {
        models::named("scorer", &self.parameters)
    }

    fn batches(&self) -> MakeBatch<SceneBatch> {
        let source = Arc::clone(&self.source);
        Arc::new(move |step| source.batch(step))
    }

    fn batch_size(&self) -> usize {
        self.source.batch
    }

    fn loss(&self, batch: &SceneBatch, samples: Range<usize>) -> Losses {
        let pixels = batch.pixels.narrow_batch(samples.start, samples.len());
        let outputs = self.scorer.forward(&pixels);
        loss(self.scorer.config(), &outputs, &batch.targets[samples])
    }

    fn save(&self, dir: &Path, dtype: FloatType) -> velatura::Result<()> {
        self.write(&dir.join("scorer"), dtype)
    }

    fn export(&self, dir: &Path, dtype: FloatType) -> Result<()> {
        Ok(self.write(dir, dtype)?)
    }

    fn samples(&self) -> Result<Option<(RgbImage, String)>> {
        let mut tally: BTreeMap<Aspect, (u32, u32)> = BTreeMap::new();
        let mut shown = Vec::new();
        let side = ScorerConfig::SIZE as u32;
        for start in (0..JUDGED).step_by(TOGETHER as usize) {
            let (pixels, said) = self.source.unseen(start..(start + TOGETHER).min(JUDGED));
            for (sight, (truth, caption)) in self.scorer.look(&pixels).iter().zip(&said) {
                for (aspect, yes) in judge(sight, &Question::of(truth, caption)) {
                    let (hits, asked) = tally.entry(aspect).or_default();
                    *hits += u32::from(yes);
                    *asked += 1;
                }
            }
            let pictures = pixels.as_slice().chunks_exact((side * side * 3) as usize);
            shown.extend(pictures.filter_map(|pixels| to_rgb(pixels, side, side)));
        }
        if self.samples == 0 {
            return Ok(None);
        }
        shown.truncate(self.samples);
        let figures: Vec<String> = tally
            .iter()
            .map(|(aspect, &(hits, asked))| {
                let share = 100.0 * f64::from(hits) / f64::from(asked);
                format!("{} {share:.1} %", aspect.name())
            })
            .collect();
        let remark = format!(" (of {JUDGED} drawings: {})", figures.join(", "));
        Ok(Some((grid(&shown, self.samples.div_ceil(2)), remark)))
    }

    fn diagnose(&self, batch: &SceneBatch) -> Option<String> {
        let again = || no_grad(|| self.scorer.forward(&batch.pixels).cells);
        first_not_finite("scorer", again).err()
    }

    fn inspect(&self, batch: &SceneBatch, pictures: usize) -> Inspection {
        Inspection {
            tensors: vec![("pixels", batch.pixels.clone())],
            texts: batch.targets.iter().map(|t| format!("{t:?}")).collect(),
            pictures: pictures_of(&batch.pixels, pictures),
        }
    }
}
