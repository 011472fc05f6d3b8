//! The samplers: one function each, all of one signature, and one table of their names for command line, API and files.

mod ddim;
mod ddpm;
mod dpmpp_2m;
mod euler;
mod euler_ancestral;
mod heun;
mod known;
mod names;
mod pndm;

pub use known::Known;
pub use names::{Sampler, Spacing};

use std::ops::ControlFlow;

use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;

use super::denoiser::{Denoiser, Model, Prediction};
use super::timesteps::SamplerSchedule;
use crate::{Error, Result};

/// What a sampler can be told beside its schedule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// DDIM's η: 0 adds no noise on the way, 1 as much as DDPM. The other samplers have no use for it.
    pub eta: f32,
    /// The evaluation to begin with, as [`SamplerSchedule::begin`] has it for a strength; 0 is pure noise.
    pub begin: usize,
    /// What is known of the sample already and shall stay.
    pub known: Option<&'a Known>,
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

/// Walks from `x` (see [`SamplerSchedule::start`] and [`SamplerSchedule::noised`]), `[B, h, w, C]`, to a sample.
///
/// `model` is told x at its training scale and the timestep, and answers in x's shape. `generator` is the one that
/// the initial noise came from, so that the noise of stochastic samplers goes on where that ended.
///
/// # Errors
/// The model's own, [`Error::NotFinite`] with the step when its output is not finite, and [`Error::Cancelled`].
///
/// # Panics
/// When x has not four axes, the model changes its shape, or `options.begin` is beyond the last evaluation.
pub fn sample(
    schedule: &SamplerSchedule,
    options: Options,
    model: Model,
    x: Tensor,
    generator: &mut TorchGenerator,
    callback: Callback,
) -> Result<Tensor> {
    assert!(
        options.begin < schedule.evaluations(),
        "nothing is left to do from evaluation {}",
        options.begin
    );
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
    options: Options<'a>,
    denoiser: Denoiser<'a>,
    generator: &'a mut TorchGenerator,
    callback: Callback<'a>,
}

impl Run<'_> {
    /// The evaluations of the model, from the one to begin with.
    fn evaluations(&self) -> std::ops::Range<usize> {
        self.options.begin..self.len()
    }

    /// The number of the schedule's evaluations, those before the beginning included.
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
        let begin = self.options.begin;
        self.denoiser
            .predict(x, level, i - begin, self.schedule.evaluations() - begin)
    }

    /// Standard normal noise of x's shape, drawn in PyTorch's order: channel by channel.
    fn noise(&mut self, x: &Tensor) -> Tensor {
        let &[batch, height, width, channels] = x.shape() else {
            panic!("latents are [B, h, w, C], not {:?}", x.shape());
        };
        let values = self.generator.randn(x.len());
        Tensor::from_vec(values, &[batch, channels, height, width]).nchw_to_nhwc()
    }

    /// Ends evaluation i, which led to `latents`: puts what is known back in its place, and tells the callback.
    /// Returns the latents to go on with.
    fn report(&mut self, i: usize, latents: Tensor, prediction: &Prediction) -> Result<Tensor> {
        let latents = match self.options.known {
            Some(known) => known.put_back(self.schedule, i, &latents),
            None => latents,
        };
        let begin = self.options.begin;
        let step = Step {
            index: i - begin,
            total: self.len() - begin,
            timestep: self.schedule.timesteps[i],
            latents: &latents,
            prediction,
        };
        match (self.callback)(&step) {
            ControlFlow::Continue(()) => Ok(latents),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}
