//! The loop: batch, loss, gradients, step, average; and every so often a checkpoint and samples.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use image::RgbImage;
use velatura::checkpoint::{FloatType, write_folder_atomically};
use velatura_tensor::Tensor;

use crate::checkpoint::{Checkpoints, restore};
use crate::config::Config;
use crate::ema::Ema;
use crate::error::{Error, Result};
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

    /// The loss of a batch, on the tape.
    fn loss(&self, batch: &Self::Batch) -> Losses;

    /// Writes the components that are trained, as they are now, as diffusers folders into `dir`.
    fn save(&self, dir: &Path, dtype: FloatType) -> velatura::Result<()>;

    /// Writes what a person takes away, with the weights as they are now: a folder that diffusers can load.
    fn export(&self, dir: &Path, dtype: FloatType) -> Result<()>;

    /// Pictures that show how far the model is, and a remark on them.
    fn samples(&self) -> Result<Option<(RgbImage, String)>>;

    /// After a loss that is not finite: which layer is to blame.
    fn diagnose(&self, batch: &Self::Batch) -> Option<String>;
}

/// A batch's loss and the figures it is made of.
pub(crate) struct Losses {
    pub total: Tensor,
    pub parts: Vec<(&'static str, f32)>,
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

    let mut step = start.step;
    let mut loss = f32::NAN;
    let mut loader = Loader::start(
        step + 1,
        run.steps + 1,
        config.data.workers,
        objective.batches(),
    )?;
    // Asked before the first step as well: whoever interrupts while latents are encoded wants no step at all.
    while step < run.steps && !(options.stop)() {
        let began = Instant::now();
        let Some(batch) = loader.next_batch() else {
            return Err(Error::run(
                &run.dir,
                "a loader thread ended without a word; this is a bug",
            ));
        };
        let batch = batch?;
        step += 1;
        let losses = objective.loss(&batch);
        loss = losses.total.item();
        if !loss.is_finite() {
            let layer = objective
                .diagnose(&batch)
                .map(|layer| format!(" ({layer})"))
                .unwrap_or_default();
            return Err(session.not_finite(step, format!("the loss is {loss}{layer}")));
        }
        let gradients = losses.total.backward();
        let norm = optimizer.gradient_norm(&gradients);
        if !norm.is_finite() {
            let first = optimizer.first_not_finite(&gradients);
            let place = first
                .map(|name| format!(", first in {name}"))
                .unwrap_or_default();
            return Err(session.not_finite(
                step,
                format!("the gradient's norm is {norm}{place}, the loss was {loss}"),
            ));
        }
        optimizer.step(step, &gradients, norm);
        drop(gradients);
        if let Some(ema) = &mut ema {
            ema.update(step);
        }
        let rate = optimizer.learning_rate(step);
        session
            .progress
            .step(step, loss, &losses.parts, norm, rate, began.elapsed())?;

        let last = step == run.steps;
        if run.sample_every > 0 && (step.is_multiple_of(run.sample_every) || last) {
            session.sample(step, ema.as_mut())?;
        }
        if step.is_multiple_of(run.save_every) || last {
            session.save(step, &optimizer, ema.as_mut())?;
        }
    }
    drop(loader);

    if step < run.steps {
        if session.saved != Some(step) && step > start.step {
            session.save(step, &optimizer, ema.as_mut())?;
        }
        session.progress.say(&format!(
            "stopped after step {step}; `--resume` goes on from there"
        ));
        return Ok(Outcome {
            run: run.dir.clone(),
            step,
            loss,
            ending: Ending::Stopped,
        });
    }
    crate::plot::write(&run.dir, session.progress.rows())?;
    session.progress.say(&format!(
        "done: the model is in {}",
        run.dir.join("model").display()
    ));
    Ok(Outcome {
        run: run.dir.clone(),
        step,
        loss,
        ending: Ending::Finished,
    })
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

    fn sample(&self, step: u64, ema: Option<&mut Ema>) -> Result<()> {
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
        self.progress.say(&format!(
            "samples of step {step}: {}{remark}",
            path.display()
        ));
        Ok(())
    }

    fn not_finite(&self, step: u64, what: String) -> Error {
        let last = match self.saved {
            Some(step) => self.checkpoints.path(step).display().to_string(),
            None => "none".into(),
        };
        Error::NotFinite { step, what, last }
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
