//! The loop: batch, loss, gradients, step, average; and every so often a checkpoint and samples.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use image::RgbImage;
use velatura::checkpoint::{FloatType, write_folder_atomically};
use velatura_tensor::{Gradients, Tensor};

use crate::checkpoint::{Checkpoints, restore};
use crate::config::Config;
use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::inspection::Inspection;
use crate::loader::{Loader, MakeBatch};
use crate::optimizer::{Named, Optimizer};
use crate::progress::Progress;
use crate::{Ending, Options, Outcome};

/// What is trained: how a batch is made and what its loss is.
pub(crate) trait Objective {
    /// What the loader's threads make for a step.
    type Batch: Send + 'static;

    /// Everything that is trained, in a fixed order.
    fn parameters(&self) -> Vec<Named>;

    /// Makes the batch of a step from the step alone.
    fn batches(&self) -> MakeBatch<Self::Batch>;

    /// Samples in a batch.
    fn batch_size(&self) -> usize;

    /// The mean loss of some of a batch's samples, on the tape.
    fn loss(&self, batch: &Self::Batch, samples: Range<usize>) -> Losses;

    /// Writes the components that are trained, as they are now, as diffusers folders into `dir`.
    fn save(&self, dir: &Path, dtype: FloatType) -> velatura::Result<()>;

    /// Writes what a person takes away, with the weights as they are now: a folder that diffusers can load.
    fn export(&self, dir: &Path, dtype: FloatType) -> Result<()>;

    /// Pictures that show how far the model is, and a remark on them.
    fn samples(&self) -> Result<Option<(RgbImage, String)>>;

    /// After a loss that is not finite: which layer is to blame.
    fn diagnose(&self, batch: &Self::Batch) -> Option<String>;

    /// What a person wants to see of a batch that has led to numbers that are none.
    fn inspect(&self, batch: &Self::Batch) -> Inspection;
}

/// A batch's loss and the figures it is made of.
pub(crate) struct Losses {
    pub total: Tensor,
    pub parts: Vec<(&'static str, f32)>,
}

/// A step's loss and its terms, averaged over the batch.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub loss: f32,
    pub parts: Vec<(&'static str, f32)>,
}

impl Figures {
    fn add(&mut self, losses: &Losses, share: f32) {
        self.loss += share * losses.total.item();
        for &(name, value) in &losses.parts {
            match self.parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += share * value,
                None => self.parts.push((name, share * value)),
            }
        }
    }
}

/// `0..size` in `count` runs as long as each other, or nearly.
fn parts(size: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let count = count.clamp(1, size.max(1));
    (0..count).map(move |part| size * part / count..size * (part + 1) / count)
}

/// Where a run begins: at the start, or after the step of a checkpoint.
pub(crate) struct Start {
    pub step: u64,
    pub checkpoint: Option<PathBuf>,
}

/// Runs from `start` to the last step, or until `options.stop` asks to leave.
pub(crate) fn run<O: Objective>(
    objective: &O,
    config: &Config,
    start: &Start,
    options: &Options,
) -> Result<Outcome> {
    let run = &config.run;
    let parameters = objective.parameters();
    let mut optimizer = Optimizer::new(&config.optimizer, run.steps, &parameters);
    let mut ema = Ema::new(config.ema.decay, &parameters);
    if let Some(dir) = &start.checkpoint {
        restore(dir, &mut optimizer, ema.as_mut())?;
    }
    let mut session = Session {
        objective,
        config,
        checkpoints: Checkpoints::of(&run.dir),
        saved: start.checkpoint.as_ref().map(|_| start.step),
        progress: Progress::start(
            &run.dir,
            start.step,
            run.steps,
            run.batch_size,
            run.log_every,
        )?,
    };
    let count: usize = parameters
        .iter()
        .map(|named| named.parameter.shape().iter().product::<usize>())
        .sum();
    session.progress.say(&format!(
        "{:.2} million parameters in {} tensors; steps {} to {} of {} pictures each",
        count as f64 / 1e6,
        parameters.len(),
        start.step + 1,
        run.steps,
        run.batch_size
    ));

    let mut place = Place {
        step: start.step,
        loss: f32::NAN,
    };
    let loader = Loader::start(
        place.step + 1,
        run.steps + 1,
        config.data.workers,
        objective.batches(),
    )?;
    let ended = session.steps(loader, &mut optimizer, &mut ema, &mut place, options);
    let Place { step, loss } = place;
    let ending = match ended {
        Ok(()) if step < run.steps => Ending::Stopped,
        Ok(()) => Ending::Finished,
        Err(error @ Error::NotFinite { .. }) => return Err(error),
        Err(source) => {
            return Err(Error::CutShort {
                step,
                source: Box::new(source),
                last: session.last_checkpoint(),
            });
        }
    };
    session.progress.say(&match ending {
        Ending::Stopped => format!("stopped after step {step}; `--resume` goes on from there"),
        Ending::Finished => {
            let model = run.dir.join("model");
            format!("done: the model is in {}", model.display())
        }
    });
    Ok(Outcome {
        run: run.dir.clone(),
        step,
        loss,
        ending,
    })
}

/// How far a run is.
struct Place {
    /// The last step done.
    step: u64,
    /// Its loss.
    loss: f32,
}

struct Session<'a, O> {
    objective: &'a O,
    config: &'a Config,
    checkpoints: Checkpoints,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    progress: Progress,
}

impl<O: Objective> Session<'_, O> {
    /// Takes step after step until the last, or until someone asks to leave; what is done is saved either way.
    fn steps(
        &mut self,
        mut loader: Loader<O::Batch>,
        optimizer: &mut Optimizer,
        ema: &mut Option<Ema>,
        place: &mut Place,
        options: &Options,
    ) -> Result<()> {
        let run = &self.config.run;
        if place.step == run.steps {
            // Nothing is left but what a kill after the last checkpoint may have prevented.
            self.export(ema.as_mut())?;
        }
        // Asked before the first step as well: whoever interrupts while latents are encoded wants no step at all.
        while place.step < run.steps && !(options.stop)() {
            let began = Instant::now();
            let Some(batch) = loader.next_batch() else {
                return Err(Error::run(
                    &run.dir,
                    "a loader thread ended without a word; this is a bug",
                ));
            };
            let step = place.step + 1;
            let (figures, norm) = self.step(step, &batch?, optimizer)?;
            if let Some(ema) = ema {
                ema.update(step);
            }
            *place = Place {
                step,
                loss: figures.loss,
            };
            let rate = optimizer.learning_rate(step);
            self.progress
                .step(step, &figures, norm, rate, began.elapsed())?;

            let last = step == run.steps;
            if run.sample_every > 0 && (step.is_multiple_of(run.sample_every) || last) {
                self.sample(step, ema.as_mut())?;
            }
            if step.is_multiple_of(run.save_every) || last {
                self.save(step, optimizer, ema.as_mut())?;
            }
        }
        if place.step < run.steps {
            if self.saved.unwrap_or(0) != place.step {
                self.save(place.step, optimizer, ema.as_mut())?;
            }
            return Ok(());
        }
        crate::plot::write(&run.dir, self.progress.rows())?;
        crate::report::write(&run.dir, self.progress.rows())
    }

    /// One step: the gradients of all parts of the batch, their norm, AdamW. Returns the loss with its terms, and the
    /// norm.
    fn step(
        &self,
        step: u64,
        batch: &O::Batch,
        optimizer: &mut Optimizer,
    ) -> Result<(Figures, f64)> {
        let mut gradients = Gradients::default();
        let mut figures = Figures::default();
        let size = self.objective.batch_size();
        for samples in parts(size, self.config.run.accumulate) {
            let share = samples.len() as f32 / size as f32;
            let losses = self.objective.loss(batch, samples);
            let loss = losses.total.item();
            if !loss.is_finite() {
                let layer = self
                    .objective
                    .diagnose(batch)
                    .map(|layer| format!(" ({layer})"))
                    .unwrap_or_default();
                return Err(self.not_finite(step, format!("the loss is {loss}{layer}"), batch));
            }
            figures.add(&losses, share);
            // The mean over a batch is the sum of its parts' means, each by its share.
            gradients.merge(if share == 1.0 {
                losses.total.backward()
            } else {
                losses.total.scale(share).backward()
            });
        }
        let norm = optimizer.gradient_norm(&gradients);
        if !norm.is_finite() {
            let first = optimizer.first_not_finite(&gradients);
            let place = first
                .map(|name| format!(", first in {name}"))
                .unwrap_or_default();
            let loss = figures.loss;
            return Err(self.not_finite(
                step,
                format!("the gradient's norm is {norm}{place}, the loss was {loss}"),
                batch,
            ));
        }
        optimizer.step(step, &gradients, norm);
        Ok((figures, norm))
    }

    /// Writes the checkpoint, and the model as it would be taken away now, so that it can be tried at any time.
    fn save(&mut self, step: u64, optimizer: &Optimizer, ema: Option<&mut Ema>) -> Result<()> {
        let run = &self.config.run;
        let components = |dir: &Path| self.objective.save(dir, FloatType::F32);
        self.checkpoints.save(
            step,
            &self.config.identity(),
            run.keep,
            optimizer,
            ema.as_deref(),
            components,
        )?;
        self.saved = Some(step);
        self.export(ema)
    }

    /// Writes the model, from the average of the weights where there is one.
    fn export(&self, ema: Option<&mut Ema>) -> Result<()> {
        let run = &self.config.run;
        let export = || {
            replace_folder(&run.dir.join("model"), |dir| {
                self.objective.export(dir, run.export)
            })
        };
        match ema {
            Some(ema) => ema.during(export),
            None => export(),
        }
    }

    fn sample(&mut self, step: u64, ema: Option<&mut Ema>) -> Result<()> {
        let made = match ema {
            Some(ema) => ema.during(|| self.objective.samples()),
            None => self.objective.samples(),
        }?;
        let Some((picture, remark)) = made else {
            return Ok(());
        };
        let dir = self.config.run.dir.join("samples");
        fs::create_dir_all(&dir).map_err(Error::io("make the folder", &dir))?;
        let path = dir.join(format!("step-{step:06}.png"));
        picture
            .save(&path)
            .map_err(|error| Error::run(&path, format!("cannot write the samples: {error}")))?;
        let png = fs::read(&path).map_err(Error::io("read", &path))?;
        self.progress.picture(step, &png, picture.dimensions())?;
        self.progress.say(&format!(
            "samples of step {step}: {}{remark}",
            path.display()
        ));
        Ok(())
    }

    /// The end of a run whose numbers are none any more; the batch is kept for a person to look at.
    fn not_finite(&self, step: u64, what: String, batch: &O::Batch) -> Error {
        let dir = self.config.run.dir.join(format!("not-finite-{step:06}"));
        let batch = match self.objective.inspect(batch).save(&dir) {
            Ok(()) => dir.display().to_string(),
            Err(error) => format!("lost ({error})"),
        };
        Error::NotFinite {
            step,
            what,
            batch,
            last: self.last_checkpoint(),
        }
    }

    /// For messages: where the newest checkpoint lies.
    fn last_checkpoint(&self) -> String {
        match self.saved {
            Some(step) => self.checkpoints.path(step).display().to_string(),
            None => "none".into(),
        }
    }
}

/// [`write_folder_atomically`] for work that may fail in this crate's ways.
fn replace_folder(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let result = write_folder_atomically(path, |dir| {
        write(dir).map_err(|error| {
            failed = Some(error);
            velatura::Error::Cancelled
        })
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}
