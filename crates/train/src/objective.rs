//! What is trained, and one step of it: losses, gradients, clipping, AdamW.

use std::ops::Range;
use std::path::Path;

use image::RgbImage;
use velatura::checkpoint::FloatType;
use velatura::nn::check_finite;
use velatura_tensor::{Gradients, Tensor};

use crate::config::{self, Config};
use crate::error::Result;
use crate::inspection::Inspection;
use crate::loader::MakeBatch;
use crate::optimizer::{Named, Optimizer};

/// What is trained: how a batch is made and what its loss is.
pub(crate) trait Objective {
    /// What the loader's threads make for a step.
    type Batch: Send + 'static;

    /// Everything that is trained to be taken away, in a fixed order.
    fn parameters(&self) -> Vec<Named>;

    /// Parameters that learn beside those by a loss of their own, with settings of their own, and are not taken away:
    /// a discriminator's.
    fn opponent(&self) -> Option<(config::Optimizer, Vec<Named>)> {
        None
    }

    /// Networks that stay as they are and that nobody takes away, which only judge, and their sizes.
    fn frozen(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }

    /// Seconds to encode a picture's latents on this machine, where the run encodes some.
    fn encode_seconds(&self) -> Option<f64> {
        None
    }

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

    /// After a loss that is not finite: the first layer whose output is not.
    fn diagnose(&self, batch: &Self::Batch) -> Option<String>;

    /// What a person wants to see of a batch: its numbers, what it says, and at most so many of its pictures.
    fn inspect(&self, batch: &Self::Batch, pictures: usize) -> Inspection;
}

/// A batch's loss and the figures it is made of.
pub struct Losses {
    /// The loss that is minimised.
    pub loss: f32,
    /// A scalar on the tape whose gradients are those of the loss; its value need not be.
    pub slope: Tensor,
    /// Terms and other figures.
    pub parts: Vec<(&'static str, f32)>,
}

impl Losses {
    /// Of a loss that is differentiated as it is.
    pub(crate) fn new(total: Tensor, parts: Vec<(&'static str, f32)>) -> Losses {
        Losses {
            loss: total.item(),
            slope: total,
            parts,
        }
    }
}

/// A step's loss and its terms, averaged over the batch.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub loss: f32,
    pub parts: Vec<(&'static str, f32)>,
}

impl Figures {
    fn add(&mut self, losses: &Losses, share: f32) {
        self.loss += share * losses.loss;
        for &(name, value) in &losses.parts {
            match self.parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += share * value,
                None => self.parts.push((name, share * value)),
            }
        }
    }
}

/// Runs a part of `model` again under watch, for [`Objective::diagnose`]: its result, or the first layer whose output is
/// not finite.
pub(crate) fn first_not_finite<T>(model: &str, again: impl FnOnce() -> T) -> Result<T, String> {
    check_finite(model, again).map_err(|error| match error {
        velatura::Error::NotFinite { place, .. } => place,
        other => other.to_string(),
    })
}

/// `0..size` in `count` runs as long as each other, or nearly.
pub(crate) fn parts(size: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let count = count.clamp(1, size.max(1));
    (0..count).map(move |part| size * part / count..size * (part + 1) / count)
}

/// An optimiser for what is taken away, and one for its opponent where there is one.
pub(crate) fn optimizers(objective: &impl Objective, config: &Config) -> Vec<Optimizer> {
    let steps = config.run.steps;
    let main = Optimizer::new(&config.optimizer, steps, &objective.parameters());
    let opponent = objective
        .opponent()
        .map(|(settings, parameters)| Optimizer::new(&settings, steps, &parameters));
    [main].into_iter().chain(opponent).collect()
}

/// Step `step`: the gradients of all parts of the batch, the norms that they are clipped by, AdamW. Returns the loss
/// with its terms, and the norm of the first optimiser's gradients.
///
/// # Errors
/// What stopped being a number; the weights stay as they are.
pub(crate) fn step<O: Objective>(
    objective: &O,
    accumulate: usize,
    step: u64,
    batch: &O::Batch,
    optimizers: &mut [Optimizer],
) -> Result<(Figures, f64), String> {
    let (figures, gradients) = gradients(objective, accumulate, batch)?;
    let mut norms = Vec::with_capacity(optimizers.len());
    for optimizer in &*optimizers {
        let norm = optimizer.gradient_norm(&gradients);
        if !norm.is_finite() {
            let first = optimizer.first_not_finite(&gradients);
            let place = first
                .map(|name| format!(", first in {name}"))
                .unwrap_or_default();
            let loss = figures.loss;
            return Err(format!(
                "the gradient's norm is {norm}{place}, the loss was {loss}"
            ));
        }
        norms.push(norm);
    }
    for (optimizer, &norm) in optimizers.iter_mut().zip(&norms) {
        optimizer.step(step, &gradients, norm);
    }
    Ok((figures, norms.first().copied().unwrap_or_default()))
}

fn gradients<O: Objective>(
    objective: &O,
    accumulate: usize,
    batch: &O::Batch,
) -> Result<(Figures, Gradients), String> {
    let mut gradients = Gradients::default();
    let mut figures = Figures::default();
    let size = objective.batch_size();
    for samples in parts(size, accumulate) {
        let share = samples.len() as f32 / size as f32;
        let losses = objective.loss(batch, samples);
        if !losses.loss.is_finite() {
            let layer = objective
                .diagnose(batch)
                .map(|layer| format!(", first in {layer}"))
                .unwrap_or_default();
            return Err(format!("the loss is {}{layer}", losses.loss));
        }
        figures.add(&losses, share);
        // The mean over a batch is the sum of its parts' means, each by its share.
        gradients.merge(if share == 1.0 {
            losses.slope.backward()
        } else {
            losses.slope.scale(share).backward()
        });
    }
    Ok((figures, gradients))
}
