//! The stages of a picture one by one, for measuring them and for comparing them with other programs.

use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;

use super::{Pipeline, Plan, Trace};
use crate::Result;

/// A piece of work that can be repeated.
pub struct Stage<'a> {
    /// One of [`Stage::NAMES`].
    pub name: &'static str,
    work: Box<dyn Fn() -> Tensor + 'a>,
}

impl Stage<'_> {
    /// All there are, in the order of their work: two texts; one guided step, which is the UNet on a batch of two for each
    /// picture; one picture encoded; one decoded.
    pub const NAMES: [&'static str; 4] = ["text_encoder", "unet_step", "vae_encode", "vae_decode"];

    /// Does the work.
    pub fn run(&self) -> Tensor {
        (self.work)()
    }
}

impl Pipeline {
    /// The stages of painting `plan`, in the order of [`Stage::NAMES`], and what they work on: the plan's texts, its
    /// noise, and random numbers for the rest, so that a stage's input does not depend on those before it. The UNet takes
    /// its step for `pictures` at once.
    ///
    /// The UNet's step is one of many, as painting has them: what a run computes once is there already.
    ///
    /// # Errors
    /// The model's vocabulary cannot spell the prompt.
    pub fn stages(&self, plan: &Plan, pictures: usize) -> Result<(Vec<Stage<'_>>, Trace)> {
        let negative = self.tokenizer.encode(&plan.negative)?;
        let positive = self.tokenizer.encode(&plan.prompt)?;
        let length = positive.ids.len();
        let ids = [negative.ids, positive.ids].concat();
        let width = self.unet.config().cross_attention_dim[0];
        let numbers = TorchGenerator::new(plan.seed).randn(2 * length * width);
        let context = Tensor::from_vec(numbers, &[2, length, width]);
        let context = Tensor::concat_batch(&vec![&context; pictures]);
        let (noise, _) = self.painter().noise(plan);
        let latents = Tensor::concat_batch(&vec![&noise; 2 * pictures]);
        let time = (self.model.facts().scheduler.num_train_timesteps / 2) as f32;
        let channels = self.vae.config().in_channels;
        let picture = Tensor::zeros(&[1, plan.height, plan.width, channels]);
        let z = self.vae.config().unscale(&noise);

        let mut inputs = Trace::new();
        inputs.ids("input_ids", &ids, &[2, length]);
        inputs.image("latents", &latents);
        inputs.floats("timesteps", &vec![time; 2 * pictures], &[2 * pictures]);
        inputs.floats("context", context.as_slice(), context.shape());
        inputs.image("picture", &picture);
        inputs.image("z", &z);

        let run = self.unet.run(&[time], &context);
        let work: [Box<dyn Fn() -> Tensor + '_>; 4] = [
            Box::new(move || self.text_encoder.forward(&ids, 2)),
            Box::new(move || run.forward(&latents, time)),
            Box::new(move || self.vae.encode_moments(&picture)),
            Box::new(move || self.vae.decode(&z)),
        ];
        let stages = Stage::NAMES.into_iter().zip(work);
        let stages = stages.map(|(name, work)| Stage { name, work }).collect();
        Ok((stages, inputs))
    }
}
