//! The figures that only the machine knows: activations, operations, seconds.

use std::time::Instant;

use velatura_kernels::profile;
use velatura_tensor::Tensor;
use velatura_tensor::tape::no_grad;

use super::figures::{Amount, How};
use crate::config::Config;
use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::loader::Loader;
use crate::objective::{Objective, step};
use crate::optimizer::Optimizer;

/// Steps that are measured, after one that fills caches and buffers.
const STEPS: u64 = 3;
/// No further step is measured after this many seconds.
const PATIENCE: f64 = 60.0;

/// What was found out.
#[derive(Default)]
pub(super) struct Measured {
    /// Bytes that a step holds beyond weights and gradients.
    pub activations: Option<Amount>,
    /// Operations of a step.
    pub flops: Option<f64>,
    /// Seconds of a forward pass of one sample.
    pub forward: Option<f64>,
    /// Seconds of a step, and how that is known.
    pub step: Option<(f64, How)>,
    /// Seconds to encode the latents of a picture.
    pub encode: Option<f64>,
}

/// Measures as much as `available` memory allows, when `fixed` bytes are taken whatever the batch.
pub(super) fn measure<O: Objective>(
    objective: &O,
    config: &Config,
    optimizers: &mut [Optimizer],
    fixed: f64,
    available: Option<u64>,
) -> Result<Measured> {
    let room = available.map_or(f64::INFINITY, |available| available as f64) - fixed;
    if room < 0.0 {
        return Ok(Measured::default());
    }
    let mut loader = Loader::start(1, STEPS + 2, config.data.workers, objective.batches())?;
    let mut next = || match loader.next_batch() {
        Some(batch) => batch,
        None => Err(Error::run(
            &config.run.dir,
            "a loader thread ended without a word; this is a bug",
        )),
    };
    let batch = next()?;
    let size = objective.batch_size();
    let together = size.div_ceil(config.run.accumulate);

    // Twice, because the first call packs weights; the second says what one sample costs.
    pass(objective, &batch, 1);
    let (one, events) = profile::record(|| pass(objective, &batch, 1));
    let flops: f64 = events.iter().map(|event| event.flops).sum();
    let two = pass(objective, &batch, together.min(2));
    let each = if together > 1 {
        two.bytes - one.bytes
    } else {
        0.0
    };
    let needed = one.bytes + each * (together - 1) as f64;
    let began = Instant::now();
    no_grad(|| objective.loss(&batch, 0..1));
    let mut measured = Measured {
        activations: Some(Amount {
            what: format!("activations, {together} at a time"),
            value: needed.max(0.0),
            how: if together > 2 {
                How::Estimated
            } else {
                How::Measured
            },
        }),
        flops: Some(flops * size as f64),
        forward: Some(began.elapsed().as_secs_f64()),
        step: Some((
            two.seconds / together.min(2) as f64 * size as f64,
            How::Estimated,
        )),
        encode: objective.encode_seconds(),
    };
    if needed > room {
        return Ok(measured);
    }

    let mut ema = Ema::new(config.ema.decay, &objective.parameters());
    let mut batch = batch;
    let mut times = Vec::new();
    let began = Instant::now();
    for number in 1..=STEPS + 1 {
        let start = Instant::now();
        if number > 1 {
            batch = next()?;
        }
        let run = || step(objective, config.run.accumulate, number, &batch, optimizers);
        let (done, peak) = peak_beyond(run);
        done.map_err(|what| Error::run(&config.run.dir, format!("step {number}: {what}")))?;
        if let Some(ema) = &mut ema {
            ema.update(number);
        }
        times.push(start.elapsed().as_secs_f64());
        if let Some(activations) = &mut measured.activations {
            activations.value = (peak - gradients(optimizers)).max(0.0);
            activations.how = How::Measured;
        }
        if times.len() > 1 && began.elapsed().as_secs_f64() > PATIENCE {
            break;
        }
    }
    // The first one has filled the buffers.
    let mut rest = times.split_off(1);
    rest.sort_by(f64::total_cmp);
    let median = rest.get(rest.len() / 2).copied();
    measured.step = median
        .map(|seconds| (seconds, How::Measured))
        .or(measured.step);
    Ok(measured)
}

/// What a forward and backward pass took.
struct Pass {
    bytes: f64,
    seconds: f64,
}

/// The gradients of the first `count` samples.
fn pass<O: Objective>(objective: &O, batch: &O::Batch, count: usize) -> Pass {
    let start = Instant::now();
    let mut held = 0;
    let (_, peak) = peak_beyond(|| {
        let before = Tensor::memory_in_use();
        let losses = objective.loss(batch, 0..count);
        held = Tensor::memory_in_use().saturating_sub(before);
        losses.slope.backward()
    });
    let trained: usize = objective.parameters().iter().map(|named| named.len()).sum();
    // Gradients are there at the end, activations at the beginning, and both for a while.
    let bytes = (peak - 4.0 * trained as f64).max(held as f64);
    Pass {
        bytes,
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// Bytes in tensors during `f` beyond those that were there before, at most.
fn peak_beyond<T>(f: impl FnOnce() -> T) -> (T, f64) {
    let before = Tensor::memory_in_use();
    let (result, peak) = Tensor::peak_memory_during(f);
    (result, peak.saturating_sub(before) as f64)
}

fn gradients(optimizers: &[Optimizer]) -> f64 {
    let all = optimizers.iter().flat_map(Optimizer::parameters);
    4.0 * all.map(|named| named.len()).sum::<usize>() as f64
}
