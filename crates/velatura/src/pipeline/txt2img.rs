//! Text to picture: the figure of the design from left to right, once.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;

use super::plan::Plan;
use super::trace::Trace;
use crate::clip::ClipTextModel;
use crate::diffusion::{SchedulerConfig, guidance};
use crate::image::Image;
use crate::nn::check_finite;
use crate::tokenizer::Tokenizer;
use crate::unet::Unet;
use crate::vae::AutoencoderKl;
use crate::{Error, Result};

/// The parts of a model that painting needs, wherever they live: in a loaded [`Pipeline`](super::Pipeline), or in a
/// training run that wants to see how far it is.
#[derive(Clone, Copy)]
pub struct Painter<'a> {
    /// Text → token ids.
    pub tokenizer: &'a Tokenizer,
    /// Token ids → context.
    pub text_encoder: &'a ClipTextModel,
    /// Latents, time and context → what the scheduler says the model predicts.
    pub unet: &'a Unet,
    /// Latents ↔ pictures.
    pub vae: &'a AutoencoderKl,
    /// The noise schedule that the UNet was trained with.
    pub scheduler: &'a SchedulerConfig,
}

/// How far the work is; handed to the callback after every step.
pub struct Step<'a> {
    /// Steps behind us, from 1.
    pub done: usize,
    /// Steps in all. With samplers that ask the model twice per step, each time counts.
    pub total: usize,
    /// The latents now: `[1, h, w, C]`.
    pub latents: &'a Tensor,
    painter: Painter<'a>,
}

impl Step<'_> {
    /// The picture as it would be if the latents were final: noisy at first. Costs a whole decoding.
    pub fn preview(&self) -> Image {
        Image::from_tensor(&self.painter.decode(self.latents))
    }
}

/// What the callback wants: [`ControlFlow::Break`] cancels.
pub type Observer<'a> = &'a mut dyn FnMut(&Step) -> ControlFlow<()>;

/// A finished picture, and how it went.
#[derive(Clone, Debug)]
pub struct Painted {
    /// The picture.
    pub image: Image,
    /// The words of the prompt that did not fit into the model's 77 tokens.
    pub prompt_cut: Vec<String>,
    /// The words of the negative prompt that did not fit.
    pub negative_cut: Vec<String>,
    /// Time for the context.
    pub text_encoder: Duration,
    /// Time for each step.
    pub steps: Vec<Duration>,
    /// Time for the last stage.
    pub vae_decode: Duration,
}

impl<'a> Painter<'a> {
    /// Paints the picture of `plan`. Records every intermediate in `trace`, where there is one; calls `observe` after
    /// every step.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `observe` says so, [`Error::NotFinite`] when numbers degenerate on the way.
    pub fn paint(&self, plan: &Plan, mut trace: Option<&mut Trace>, observe: Observer) -> Result<Painted> {
        let start = Instant::now();
        let negative = self.tokenizer.encode(&plan.negative)?;
        let positive = self.tokenizer.encode(&plan.prompt)?;
        // The negative half comes first, as in diffusers; without guidance only a trace wants to see it.
        let ids = [negative.ids.as_slice(), positive.ids.as_slice()].concat();
        let context = if plan.is_guided() || trace.is_some() {
            self.encode(&ids)?
        } else {
            self.encode(&positive.ids)?
        };
        if let Some(trace) = trace.as_deref_mut() {
            trace.ids("input_ids", &ids, &[2, positive.ids.len()]);
            trace.floats("context", context.as_slice(), context.shape());
        }
        let context = if plan.is_guided() { context } else { context.narrow_batch(context.dim(0) - 1, 1) };
        let text_encoder = start.elapsed();

        let mut steps = Vec::new();
        let latents = self.sample(plan, &context, trace.as_deref_mut(), &mut steps, observe)?;

        let start = Instant::now();
        let picture = self.decode(&latents);
        if !picture.is_finite() {
            check_finite("vae", || self.decode(&latents))?;
        }
        if let Some(trace) = trace {
            trace.image("image", &picture.clamp(-1.0, 1.0));
        }
        Ok(Painted {
            image: Image::from_tensor(&picture),
            prompt_cut: positive.truncated,
            negative_cut: negative.truncated,
            text_encoder,
            steps,
            vae_decode: start.elapsed(),
        })
    }

    /// Token ids of whole texts, `[B, 77]` → context `[B, 77, D]`.
    fn encode(&self, ids: &[u32]) -> Result<Tensor> {
        self.text_encoder.check_ids(ids)?;
        let batch = ids.len() / self.tokenizer.max_length();
        let context = self.text_encoder.forward(ids, batch);
        if !context.is_finite() {
            check_finite("text_encoder", || self.text_encoder.forward(ids, batch))?;
        }
        Ok(context)
    }

    /// The noise that `plan.seed` means, `[1, h, w, C]`, and the generator behind it, for samplers that need more.
    /// The numbers are drawn channel by channel, as PyTorch draws them.
    pub fn noise(&self, plan: &Plan) -> (Tensor, TorchGenerator) {
        let mut generator = TorchGenerator::new(plan.seed);
        let noise = self.draw(&mut generator, plan);
        (noise, generator)
    }
}
