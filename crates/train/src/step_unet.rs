//! Training the denoiser, and with it the text encoder: latents with noise in, the noise (or the velocity) out.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;
use velatura::checkpoint::FloatType;
use velatura::clip::ClipTextModel;
use velatura::diffusion::SchedulerConfig;
use velatura::pipeline::{Painter, Part, Plan};
use velatura::tokenizer::Tokenizer;
use velatura::unet::Unet;
use velatura::vae::AutoencoderKl;
use velatura_tensor::tape::no_grad;
use velatura_tensor::{Parameter, Tensor};

use crate::config::{Config, Sample};
use crate::denoising::{Denoising, Example};
use crate::error::Result;
use crate::inspection::Inspection;
use crate::latent_source::{LatentBatch, LatentSource};
use crate::learner::Learner;
use crate::loader::MakeBatch;
use crate::models;
use crate::objective::{Losses, Objective, first_not_finite};
use crate::optimizer::Named;
use crate::picture::{grid, pictures_of};
use crate::prior;
use crate::run_folder::RunFolder;
use crate::text_cache::TextCache;
use crate::trainer;
use crate::{Ending, Options, Outcome};

/// Runs the training of a UNet.
///
/// # Errors
/// See [`crate::train`].
pub fn train(config: &Config, run: &RunFolder, options: &Options) -> Result<Outcome> {
    match UnetObjective::new(config, run, options)? {
        Some(objective) => trainer::run(&objective, config, &run.start(), options),
        None => Ok(Outcome {
            run: run.dir().to_path_buf(),
            step: run.start().step,
            loss: f32::NAN,
            ending: Ending::Stopped,
        }),
    }
}

pub(crate) struct UnetObjective {
    pub unet: Unet,
    pub unet_parameters: Vec<Parameter>,
    pub text_encoder: ClipTextModel,
    /// Empty when the text encoder is frozen.
    pub text_parameters: Vec<Parameter>,
    /// What a frozen text encoder has said before.
    pub texts: Option<TextCache>,
    /// What the parameters are, and how they are written.
    pub learner: Learner,
    pub tokenizer: Tokenizer,
    pub vae: AutoencoderKl,
    pub vae_dir: PathBuf,
    pub scheduler: SchedulerConfig,
    pub denoising: Denoising,
    pub source: Arc<LatentSource>,
    /// Pictures of a class to be learnt beside, and how much they count.
    pub prior: Option<(Arc<LatentSource>, f32)>,
    pub sample: Sample,
    /// One for each of the sample's prompts.
    pub plans: Vec<Plan>,
    pub size: usize,
    /// What its pictures show, where that is a list.
    pub things: Vec<String>,
    /// The licences that what is made from them has to carry.
    pub notice: Option<String>,
}

impl UnetObjective {
    fn context(&self, ids: &[u32]) -> Tensor {
        let length = self.tokenizer.max_length();
        if let Some(texts) = &self.texts {
            return texts.context(ids, &self.text_encoder, length);
        }
        let forward = || self.text_encoder.forward(ids, ids.len() / length);
        if self.text_parameters.is_empty() {
            no_grad(forward)
        } else {
            forward()
        }
    }

    fn denoise(&self, batch: &LatentBatch, context: &Tensor) -> Tensor {
        let example = Example {
            latents: &batch.latents,
            noise: &batch.noise,
            timesteps: &batch.timesteps,
            context,
            importance: &batch.importance,
        };
        self.denoising.loss(&self.unet, &example)
    }
}

impl Objective for UnetObjective {
    type Batch = LatentBatch;

    fn parameters(&self) -> Vec<Named> {
        let mut all = models::named("unet", &self.unet_parameters);
        all.extend(models::named("text_encoder", &self.text_parameters));
        all
    }

    fn encode_seconds(&self) -> Option<f64> {
        let picture = Tensor::zeros(&[1, self.size, self.size, 3]);
        let encode = || {
            let began = Instant::now();
            no_grad(|| self.vae.encode(&picture));
            began.elapsed().as_secs_f64()
        };
        // The first one finds no buffers yet.
        encode();
        Some(encode())
    }

    fn batches(&self) -> MakeBatch<LatentBatch> {
        let source = Arc::clone(&self.source);
        match self.prior.clone() {
            None => Arc::new(move |step| source.batch(step)),
            Some((class, weight)) => Arc::new(move |step| {
                Ok(prior::beside(
                    source.batch(step)?,
                    class.batch(step)?,
                    weight,
                ))
            }),
        }
    }

    fn batch_size(&self) -> usize {
        let class = self.prior.as_ref().map_or(0, |(class, _)| class.batch);
        self.source.batch + class
    }

    fn loss(&self, batch: &LatentBatch, samples: Range<usize>) -> Losses {
        self.learner.begin(batch.step, samples.start);
        let batch = batch.part(samples);
        let context = self.context(&batch.ids);
        Losses::new(self.denoise(&batch, &context), Vec::new())
    }

    fn save(&self, dir: &Path, dtype: FloatType) -> velatura::Result<()> {
        self.learner.save(self, dir, dtype)
    }

    fn export(&self, dir: &Path, dtype: FloatType) -> Result<()> {
        self.learner.export(self, dir, dtype)
    }

    fn samples(&self) -> Result<Option<(RgbImage, String)>> {
        self.learner.rest();
        let painter = Painter {
            tokenizer: &self.tokenizer,
            text_encoder: Part::Kept(&self.text_encoder),
            unet: Part::Kept(&self.unet),
            vae: Part::Kept(&self.vae),
            vae_config: self.vae.config(),
            scheduler: &self.scheduler,
            batcher: None,
        };
        let mut pictures = Vec::new();
        for plan in &self.plans {
            let painted = no_grad(|| {
                painter.paint(plan, None, &mut |_| std::ops::ControlFlow::Continue(()))
            })?;
            let image = painted.image;
            pictures.extend(RgbImage::from_raw(
                image.width() as u32,
                image.height() as u32,
                Vec::from(image.pixels()),
            ));
        }
        let columns = (pictures.len() as f64).sqrt().ceil() as usize;
        Ok((!pictures.is_empty()).then(|| (grid(&pictures, columns), String::new())))
    }

    fn diagnose(&self, batch: &LatentBatch) -> Option<String> {
        let context = || no_grad(|| self.context(&batch.ids));
        match first_not_finite("text_encoder", context) {
            Err(layer) => Some(layer),
            Ok(context) => {
                let denoise = || no_grad(|| self.denoise(batch, &context));
                first_not_finite("unet", denoise).err()
            }
        }
    }

    fn inspect(&self, batch: &LatentBatch, pictures: usize) -> Inspection {
        // One at a time: a decoder's memory grows with what it is given.
        let decoded = (0..batch.len().min(pictures)).flat_map(|sample| {
            let latents = batch.latents.narrow_batch(sample, 1);
            let pixels = no_grad(|| self.vae.decode(&self.vae.config().unscale(&latents)));
            pictures_of(&pixels, 1)
        });
        let times = batch.timesteps.iter().map(|&t| t as f32).collect();
        Inspection {
            tensors: vec![
                ("latents", batch.latents.clone()),
                ("noise", batch.noise.clone()),
                ("timesteps", Tensor::from_vec(times, &[batch.len()])),
            ],
            texts: batch.captions.clone(),
            pictures: decoded.collect(),
        }
    }
}
