//! The samplers: one function each, all of one signature, and one table of their names for command line, API and files.

mod ddim;
mod ddpm;
mod dpmpp_2m;
mod euler;
mod euler_ancestral;
mod heun;
mod names;
mod pndm;

pub use names::{Sampler, Spacing};

use std::ops::ControlFlow;

use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;

use super::denoiser::{Denoiser, Model, Prediction};
use super::timesteps::SamplerSchedule;
use crate::{Error, Result};

/// What a sampler can be told beside its schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// DDIM's η: 0 adds no noise on the way, 1 as much as DDPM. The other samplers have no use for it.
    pub eta: f32,
}

/// What the callback sees after each evaluation of the model.
pub struct Step<'a> {
    /// Evaluations before this one.
    pub index: usize,
    /// Evaluations in all.
    pub total: usize,
    /// The timestep that the model was told.
    pub timestep: f32,
    /// x after the step, `[B, h, w, C]`.
    pub latents: &'a Tensor,
    prediction: &'a Prediction,
}

impl Step<'_> {
    /// What the sample would be if the model were right at once: a good preview, for two passes over the latents.
    pub fn predicted_x0(&self) -> Tensor {
        self.prediction.x0()
    }
}

/// Told of each step; [`ControlFlow::Break`] cancels.
pub type Callback<'a> = &'a mut dyn FnMut(&Step) -> ControlFlow<()>;

/// Walks from `x` (see [`SamplerSchedule::start`]), `[B, h, w, C]`, to a sample.
///
/// `model` is told x at its training scale and the timestep, and answers in x's shape. `generator` is the one that
/// the initial noise came from, so that the noise of stochastic samplers goes on where that ended.
///
/// # Errors
/// The model's own, [`Error::NotFinite`] with the step when its output is not finite, and [`Error::Cancelled`].
///
/// # Panics
/// When x has not four axes, or the model changes its shape.
pub fn sample(
    schedule: &SamplerSchedule,
    options: Options,
    model: Model,
    x: Tensor,
    generator: &mut TorchGenerator,
    callback: Callback,
) -> Result<Tensor> {
    let denoiser = Denoiser {
        model,
        kind: schedule.settings.prediction_type,
        clip: schedule.settings.clip,
    };
    let run = &mut Run {
        schedule,
        options,
        denoiser,
        generator,
        callback,
    };
    match schedule.sampler {
        Sampler::Ddpm => ddpm::ddpm(run, x),
        Sampler::Ddim => ddim::ddim(run, x),
        Sampler::Pndm => pndm::pndm(run, x),
        Sampler::Euler => euler::euler(run, x),
        Sampler::EulerAncestral => euler_ancestral::euler_ancestral(run, x),
        Sampler::Heun => heun::heun(run, x),
        Sampler::DpmPp2m => dpmpp_2m::dpmpp_2m(run, x),
    }
}

/// What every sampler works with.
struct Run<'a> {
    schedule: &'a SamplerSchedule,
    options: Options,
    denoiser: Denoiser<'a>,
    generator: &'a mut TorchGenerator,
    callback: Callback<'a>,
}

impl Run<'_> {
    /// Evaluations of the model.
    fn len(&self) -> usize {
        self.schedule.evaluations()
    }

    /// The timestep of evaluation i, for samplers that count in whole ones.
    fn timestep(&self, i: usize) -> i64 {
        self.schedule.timesteps[i] as i64
    }

    /// Asks the model at evaluation i.
    fn predict(&mut self, i: usize, x: &Tensor) -> Result<Prediction> {
        let level = self.schedule.level(i);
        self.denoiser
            .predict(x, level, i, self.schedule.evaluations())
    }

    /// Standard normal noise of x's shape, drawn in PyTorch's order: channel by channel.
    fn noise(&mut self, x: &Tensor) -> Tensor {
        let &[batch, height, width, channels] = x.shape() else {
            panic!("latents are [B, h, w, C], not {:?}", x.shape());
        };
        let values = self.generator.randn(x.len());
        Tensor::from_vec(values, &[batch, channels, height, width]).nchw_to_nhwc()
    }

    /// Tells the callback that evaluation i led to `latents`.
    fn report(&mut self, i: usize, latents: &Tensor, prediction: &Prediction) -> Result<()> {
        let step = Step {
            index: i,
            total: self.len(),
            timestep: self.schedule.timesteps[i],
            latents,
            prediction,
        };
        match (self.callback)(&step) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}
