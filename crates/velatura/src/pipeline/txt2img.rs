//! Text to picture: the figure of the design from left to right, once. Where a picture is there to begin with, `init.rs`
//! says where the walk starts.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;

use super::batcher::{Batcher, Seat};
use super::init::Start;
use super::part::Part;
use super::plan::Plan;
use super::trace::Trace;
use crate::Result;
use crate::clip::ClipTextModel;
use crate::diffusion::{self, Options, SchedulerConfig, guidance};
use crate::image::Image;
use crate::nn::check_finite;
use crate::tokenizer::Tokenizer;
use crate::unet::{Unet, UnetRun};
use crate::vae::{AutoencoderKl, LatentDistribution, VaeConfig};

/// The parts of a model that painting needs, wherever they live: in a loaded [`Pipeline`](super::Pipeline), or in a
/// training run that wants to see how far it is.
#[derive(Clone, Copy)]
pub struct Painter<'a> {
    /// Text → token ids.
    pub tokenizer: &'a Tokenizer,
    /// Token ids → context.
    pub text_encoder: Part<'a, ClipTextModel>,
    /// Latents, time and context → what the scheduler says the model predicts.
    pub unet: Part<'a, Unet>,
    /// Latents ↔ pictures.
    pub vae: Part<'a, AutoencoderKl>,
    /// Its sizes.
    pub vae_config: &'a VaeConfig,
    /// The noise schedule that the UNet was trained with.
    pub scheduler: &'a SchedulerConfig,
    /// Where pictures that are painted on other threads meet this one, to share the UNet's batches.
    pub batcher: Option<&'a Batcher>,
}

/// How far the work is; handed to the callback after every step.
pub struct Step<'a> {
    inner: &'a diffusion::Step<'a>,
    painter: Painter<'a>,
}

impl Step<'_> {
    /// Steps behind us, from 1.
    pub fn done(&self) -> usize {
        self.inner.index + 1
    }

    /// Steps in all. With samplers that ask the model twice per step, each time counts.
    pub fn total(&self) -> usize {
        self.inner.total
    }

    /// The latents now: `[1, h, w, C]`.
    pub fn latents(&self) -> &Tensor {
        self.inner.latents
    }

    /// The latents as the model sees them through the noise, `[1, h, w, C]`: vague at first.
    pub fn predicted(&self) -> Tensor {
        self.inner.predicted_x0()
    }

    /// The picture of [`Step::predicted`]. Costs a whole decoding; [`Preview`](super::Preview) is nearly free.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) when it cannot be decoded.
    pub fn preview(&self) -> Result<Image> {
        let x0 = self.inner.predicted_x0();
        Ok(Image::from_tensor(&self.painter.decode(&x0)?.0))
    }
}

/// What the callback wants: [`ControlFlow::Break`] cancels.
pub type Observer<'a> = &'a mut dyn FnMut(&Step) -> ControlFlow<()>;

/// A finished picture, and how it went.
#[derive(Clone, Debug)]
pub struct Painted {
    /// The picture.
    pub image: Image,
    /// What it was decoded from, `[1, h, w, C]`.
    pub latents: Tensor,
    /// The words of the prompt that did not fit into the model's 77 tokens.
    pub prompt_cut: Vec<String>,
    /// The words of the negative prompt that did not fit.
    pub negative_cut: Vec<String>,
    /// Time for reading weights on the way; none where they were there before.
    pub loading: Duration,
    /// Time for the context.
    pub text_encoder: Duration,
    /// Time for each step.
    pub steps: Vec<Duration>,
    /// Time for the last stage.
    pub vae_decode: Duration,
}

impl Painter<'_> {
    /// Paints the picture of `plan`. Records every intermediate in `trace`, where there is one; calls `observe` after
    /// every step.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled) when `observe` says so, [`Error::NotFinite`](crate::Error::NotFinite)
    /// when numbers degenerate on the way.
    pub fn paint(
        &self,
        plan: &Plan,
        mut trace: Option<&mut Trace>,
        observe: Observer,
    ) -> Result<Painted> {
        let negative = self.tokenizer.encode(&plan.negative)?;
        let positive = self.tokenizer.encode(&plan.prompt)?;
        // The negative half comes first, as in diffusers; without guidance only a trace wants to see it.
        let ids = [negative.ids.as_slice(), positive.ids.as_slice()].concat();
        let asked = if plan.is_guided() || trace.is_some() {
            ids.as_slice()
        } else {
            positive.ids.as_slice()
        };
        let (context, text_encoder) = self.text_encoder.with(|text_encoder| {
            let start = Instant::now();
            Ok((self.encode(text_encoder, asked)?, start.elapsed()))
        })?;
        if let Some(trace) = trace.as_deref_mut() {
            trace.ids("input_ids", &ids, &[2, positive.ids.len()]);
            trace.floats("context", context.as_slice(), context.shape());
        }
        let context = if plan.is_guided() {
            context
        } else {
            context.narrow_batch(context.dim(0) - 1, 1)
        };

        let mut steps = Vec::new();
        let latents = self.sample(plan, &context, trace.as_deref_mut(), &mut steps, observe)?;

        let (picture, vae_decode) = self.decode(&latents)?;
        if let Some(trace) = trace {
            trace.image("image", &picture.clamp(-1.0, 1.0));
        }
        let image = Image::from_tensor(&picture);
        let image = match &plan.init {
            Some(init) => init.finish(image),
            None => image,
        };
        Ok(Painted {
            image,
            latents,
            prompt_cut: positive.truncated,
            negative_cut: negative.truncated,
            loading: Duration::ZERO,
            text_encoder,
            steps,
            vae_decode,
        })
    }

    /// Token ids of whole texts, `[B, 77]` → context `[B, 77, D]`.
    fn encode(&self, text_encoder: &ClipTextModel, ids: &[u32]) -> Result<Tensor> {
        text_encoder.check_ids(ids)?;
        let batch = ids.len() / self.tokenizer.max_length();
        let context = text_encoder.forward(ids, batch);
        if context.is_finite() {
            return Ok(context);
        }
        check_finite("text_encoder", || text_encoder.forward(ids, batch))
    }

    /// The noise that `plan.seed` means, `[1, h, w, C]`, and the generator behind it, for samplers that need more.
    /// The numbers are drawn channel by channel, as PyTorch draws them.
    pub fn noise(&self, plan: &Plan) -> (Tensor, TorchGenerator) {
        let VaeConfig {
            latent_channels, ..
        } = *self.vae_config;
        let scale = self.vae_config.factor();
        let (height, width) = (plan.height / scale, plan.width / scale);
        let mut generator = TorchGenerator::new(plan.seed);
        let values = generator.randn(latent_channels * height * width);
        let noise = Tensor::from_vec(values, &[1, latent_channels, height, width]);
        (noise.nchw_to_nhwc(), generator)
    }

    /// From noise to latents.
    fn sample(
        &self,
        plan: &Plan,
        context: &Tensor,
        mut trace: Option<&mut Trace>,
        times: &mut Vec<Duration>,
        observe: Observer,
    ) -> Result<Tensor> {
        let schedule = plan.sampler_schedule(self.scheduler)?;
        let Start {
            x,
            begin,
            known,
            mut generator,
        } = match &plan.init {
            Some(init) => self.start_from(init, plan.seed, &schedule, trace.as_deref_mut())?,
            None => {
                let (noise, generator) = self.noise(plan);
                if let Some(trace) = trace.as_deref_mut() {
                    trace.image("noise", &noise);
                }
                Start {
                    x: schedule.start(&noise),
                    begin: 0,
                    known: None,
                    generator,
                }
            }
        };
        if let Some(trace) = trace.as_deref_mut() {
            let timesteps = &schedule.timesteps[begin..];
            trace.floats("timesteps", timesteps, &[timesteps.len()]);
            if !schedule.sigmas.is_empty() {
                let sigmas = &schedule.sigmas[begin..];
                trace.floats("sigmas", sigmas, &[sigmas.len()]);
            }
        }
        self.unet.with(|unet| {
            let run = unet.run(&schedule.timesteps[begin..], context);
            let seat = self.batcher.map(|batcher| batcher.sit(&x));
            let mut denoise = |x: &Tensor, t: f32| denoise(unet, &run, seat.as_ref(), x, t);
            let mut model =
                |x: &Tensor, t: f32| guidance::predict(&mut denoise, x, t, plan.guidance);
            let mut start = Instant::now();
            diffusion::sample(
                &schedule,
                Options {
                    eta: plan.eta,
                    begin,
                    known: known.as_ref(),
                },
                &mut model,
                x,
                &mut generator,
                &mut |step| {
                    times.push(start.elapsed());
                    if let Some(trace) = trace.as_deref_mut() {
                        trace.image(format!("latents.{}", step.index), step.latents);
                    }
                    let answer = observe(&Step {
                        inner: step,
                        painter: *self,
                    });
                    start = Instant::now();
                    answer
                },
            )
        })
    }

    /// Picture `[1, H, W, 3]` → what the encoder sees in it.
    pub(super) fn look(&self, x: &Tensor) -> Result<LatentDistribution> {
        self.vae.with(|vae| {
            let distribution = vae.encode(x);
            if distribution.mean.is_finite() && distribution.logvar.is_finite() {
                return Ok(distribution);
            }
            check_finite("vae", || vae.encode(x))
        })
    }

    /// Latents → picture `[1, H, W, 3]`, and the time it took.
    fn decode(&self, latents: &Tensor) -> Result<(Tensor, Duration)> {
        self.vae.with(|vae| {
            let start = Instant::now();
            let z = self.vae_config.unscale(latents);
            let picture = vae.decode(&z);
            if picture.is_finite() {
                return Ok((picture, start.elapsed()));
            }
            let picture = check_finite("vae", || vae.decode(&z))?;
            Ok((picture, start.elapsed()))
        })
    }
}

/// The UNet's prediction; an error that names the layer when it is not finite.
fn denoise(unet: &Unet, run: &UnetRun, seat: Option<&Seat>, x: &Tensor, t: f32) -> Result<Tensor> {
    let output = match seat {
        Some(seat) => seat.ask(|questions| unet.answer(questions), run.question(x, t)),
        None => run.forward(x, t),
    };
    if output.is_finite() {
        return Ok(output);
    }
    check_finite("unet", || run.forward_anew(x, t))
}
