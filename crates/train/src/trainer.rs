//! The loop: batch, loss, gradients, step, average; and every so often a checkpoint and samples.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use velatura::checkpoint::{FloatType, write_folder_atomically};
use velatura::image::Image;

use crate::checkpoint::{Checkpoints, restore};
use crate::config::Config;
use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::first_batches;
use crate::live::say;
use crate::loader::Loader;
use crate::objective::{Objective, optimizers, step};
use crate::optimizer::Optimizer;
use crate::picture::write_png;
use crate::progress::Progress;
use crate::{Ending, Options, Outcome};

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
    let mut optimizers = optimizers(objective, config);
    let mut ema = Ema::new(config.ema.decay, &parameters);
    if let Some(dir) = &start.checkpoint {
        restore(dir, &mut optimizers, ema.as_mut())?;
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
            objective.batch_size(),
            run.log_every,
        )?,
    };
    let count: usize = parameters
        .iter()
        .map(|named| named.parameter.shape().iter().product::<usize>())
        .sum();
    let together = objective.batch_size();
    say(&format!(
        "{:.2} million parameters in {} tensors; steps {} to {} of {together} picture{} each",
        count as f64 / 1e6,
        parameters.len(),
        start.step + 1,
        run.steps,
        if together == 1 { "" } else { "s" }
    ));
    if start.step == 0 && first_batches::write(objective, &run.dir, run.steps)? {
        let sheet = run.dir.join(first_batches::SHEET);
        say(&format!(
            "what the first steps are fed: {}",
            sheet.display()
        ));
    }

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
    let ended = session.steps(loader, &mut optimizers, &mut ema, &mut place, options);
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
    if ending == Ending::Finished {
        let model = run.dir.join("model");
        say(&format!("done: the model is in {}", model.display()));
    }
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
        optimizers: &mut [Optimizer],
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
            let (number, batch) = (place.step + 1, batch?);
            let (figures, norm) = step(self.objective, run.accumulate, number, &batch, optimizers)
                .map_err(|what| self.not_finite(number, what, &batch))?;
            if let Some(ema) = ema {
                ema.update(number);
            }
            *place = Place {
                step: number,
                loss: figures.loss,
            };
            let rate = optimizers[0].learning_rate(number);
            self.progress
                .step(number, &figures, norm, rate, began.elapsed())?;

            let last = number == run.steps;
            if run.sample_every > 0 && (number.is_multiple_of(run.sample_every) || last) {
                self.sample(number, ema.as_mut(), options)?;
            }
            if number.is_multiple_of(run.save_every) || last {
                self.save(number, optimizers, ema.as_mut())?;
            }
        }
        if place.step < run.steps && self.saved.unwrap_or(0) != place.step {
            self.save(place.step, optimizers, ema.as_mut())?;
        }
        crate::report::write(&run.dir, self.progress.rows())
    }

    /// Writes the checkpoint, and the model as it would be taken away now, so that it can be tried at any time.
    fn save(&mut self, step: u64, optimizers: &[Optimizer], ema: Option<&mut Ema>) -> Result<()> {
        let run = &self.config.run;
        let components = |dir: &Path| self.objective.save(dir, FloatType::F32);
        self.checkpoints.save(
            step,
            &self.config.identity(),
            run.keep,
            optimizers,
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

    fn sample(&mut self, step: u64, ema: Option<&mut Ema>, options: &Options) -> Result<()> {
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
        let png = write_png(&picture, &path)?;
        self.progress.picture(step, &png, picture.dimensions())?;
        say(&format!(
            "samples of step {step}: {}{remark}",
            path.display()
        ));
        let (width, height) = picture.dimensions();
        let image = Image::new(width as usize, height as usize, picture.into_raw());
        if let Some(text) = (options.show)(&image) {
            say(&text);
        }
        Ok(())
    }

    /// The end of a run whose numbers are none any more; the batch is kept for a person to look at.
    fn not_finite(&self, step: u64, what: String, batch: &O::Batch) -> Error {
        let dir = self.config.run.dir.join(format!("not-finite-{step:06}"));
        let batch = match self.objective.inspect(batch, usize::MAX).save(&dir) {
            Ok(()) => format!("in {}", dir.display()),
            Err(error) => format!("lost ({error})"),
        };
        Error::NotFinite {
            step,
            what,
            batch,
            last: self.last_checkpoint(),
        }
    }

    /// Where the newest checkpoint lies.
    fn last_checkpoint(&self) -> Option<PathBuf> {
        self.saved.map(|step| self.checkpoints.path(step))
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
