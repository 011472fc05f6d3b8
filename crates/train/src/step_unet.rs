//! Training the denoiser, and with it the text encoder: latents with noise in, the noise (or the velocity) out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use serde_json::json;
use velatura::checkpoint::{Component, FloatType};
use velatura::clip::ClipTextModel;
use velatura::diffusion::{LossWeight, NoiseSchedule, PredictionType, Sampler, SchedulerConfig};
use velatura::nn::check_finite;
use velatura::pipeline::{Advice, Facts, Painter, Plan, Request};
use velatura::tokenizer::Tokenizer;
use velatura::unet::{Unet, UnetConfig};
use velatura::vae::{AutoencoderKl, VaeConfig};
use velatura::weights::{Mode, Store};
use velatura_tensor::tape::no_grad;
use velatura_tensor::{Parameter, Precision, Tensor};

use crate::config::{Config, Sample};
use crate::dataset::{Dataset, summary};
use crate::error::{Error, Result};
use crate::latent_source::{LatentBatch, LatentSource};
use crate::latents::{self, LatentCache};
use crate::loader::MakeBatch;
use crate::models;
use crate::optimizer::Named;
use crate::order::Order;
use crate::parts;
use crate::picture::grid;
use crate::run_folder::RunFolder;
use crate::trainer::{self, Losses, Objective};
use crate::{Ending, Options, Outcome};

/// The denoising loss: the mean squared error of the prediction for `add_noise(latents, noise, timesteps)`, weighted
/// by timestep (Ho et al. 2020; Hang et al. 2023).
///
/// `latents`, `noise`: `[B, h, w, C]`, `context: [B, 77, D]`, one timestep for each of the B.
pub fn denoising_loss(
    unet: &Unet,
    objective: &Denoising,
    latents: &Tensor,
    noise: &Tensor,
    timesteps: &[usize],
    context: &Tensor,
) -> Tensor {
    let Denoising {
        schedule,
        predicts,
        weight,
    } = objective;
    let noisy = schedule.add_noise(latents, noise, timesteps);
    let target = predicts.target(schedule, latents, noise, timesteps);
    let times: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    let errors = unet.forward(&noisy, &times, context).sub(&target).square();
    match weight {
        LossWeight::Uniform => errors.mean(),
        other => errors
            .scale_samples(&other.weights(schedule, *predicts, timesteps))
            .mean(),
    }
}

/// What the denoiser is asked to do.
#[derive(Clone, Debug)]
pub struct Denoising {
    /// How much noise each timestep has.
    pub schedule: NoiseSchedule,
    /// What is predicted.
    pub predicts: PredictionType,
    /// How much each timestep counts.
    pub weight: LossWeight,
}

/// Runs the training of a UNet.
///
/// # Errors
/// See [`crate::train`].
pub fn train(config: &Config, run: &RunFolder, options: &Options) -> Result<Outcome> {
    match UnetObjective::new(config, run, options)? {
        Some(objective) => trainer::run(&objective, config, &run.start(), options),
        None => {
            let step = run.start().step;
            eprintln!("stopped while latents were encoded; `--resume` goes on from there");
            Ok(Outcome {
                run: run.dir().to_path_buf(),
                step,
                loss: f32::NAN,
                ending: Ending::Stopped,
            })
        }
    }
}

struct UnetObjective {
    unet: Unet,
    unet_parameters: Vec<Parameter>,
    text_encoder: ClipTextModel,
    /// Empty when the text encoder is frozen.
    text_parameters: Vec<Parameter>,
    /// Where the frozen text encoder lies, to be copied.
    frozen_text: Option<PathBuf>,
    tokenizer: Tokenizer,
    vae: AutoencoderKl,
    vae_dir: PathBuf,
    scheduler: SchedulerConfig,
    denoising: Denoising,
    source: Arc<LatentSource>,
    sample: Sample,
    /// One for each of the sample's prompts.
    plans: Vec<Plan>,
    size: usize,
}

impl UnetObjective {
    /// None if the run was asked to stop while latents were encoded.
    fn new(config: &Config, run: &RunFolder, options: &Options) -> Result<Option<UnetObjective>> {
        let (data, base) = (&config.data, config.model.base.as_deref());
        // The configs first: what is wrong there should be said before hours of encoding.
        let scheduler = parts::scheduler(config, run)?;
        // Training is DDPM's, whichever sampler the model is given.
        let settings = scheduler
            .settings(Sampler::Ddpm)
            .map_err(models::in_table(run, "scheduler"))?;
        let vae_source = config
            .model
            .vae
            .as_deref()
            .or(base)
            .unwrap_or(Path::new("."));
        let vae_dir = models::component_dir(vae_source, "vae");
        let vae_component = Component::open(&vae_dir, None)?;
        let vae_config = VaeConfig::read(&vae_component)?;
        let factor = vae_config.factor();
        if !data.size.is_multiple_of(factor) {
            let message = format!(
                "[data] size: expected a multiple of {factor}, by which the VAE divides it, found {}",
                data.size
            );
            return Err(Error::config(run.config_file(), message));
        }
        let plans = plans(&config.sample, &scheduler, &vae_config, data.size)
            .map_err(models::in_table(run, "sample"))?;
        let unet_component = models::open(config, run, "unet")?;
        let mut unet_config = match &unet_component {
            Some(component) => UnetConfig::read(component)?,
            None => UnetConfig::from_json(&models::table(config.unet.as_ref()))
                .map_err(models::in_table(run, "unet"))?,
        };
        let side = data.size / factor;
        unet_config.check_latent_size(side, side)?;
        unet_config.sample_size = Some([side; 2]);
        if [unet_config.in_channels, unet_config.out_channels] != [vae_config.latent_channels; 2] {
            let message = format!(
                "[unet] in_channels, out_channels: expected {}, the latent_channels of the VAE, found {} and {}",
                vae_config.latent_channels, unet_config.in_channels, unet_config.out_channels
            );
            return Err(Error::config(run.config_file(), message));
        }
        if base.is_none() && !config.model.train_text_encoder {
            let message = "[model] train_text_encoder: a fresh text encoder knows nothing yet; only that of a base can stay as it is";
            return Err(Error::config(run.config_file(), message));
        }
        let dataset = Arc::new(Dataset::open(config)?);
        if !dataset.skipped().is_empty() {
            eprintln!("{}", summary(dataset.skipped()));
        }

        // Encoding wants the packed weights of inference.
        let vae_store = Store::load(&vae_component, Mode::Inference(Precision::F32));
        let vae = AutoencoderKl::load(&vae_config, &vae_store.root())?;
        vae_store.finish()?;
        let cache_dir = data
            .cache
            .clone()
            .unwrap_or_else(|| run.dir().join("cache"));
        let request = latents::Request {
            dir: &cache_dir,
            dataset: Arc::clone(&dataset),
            size: data.size,
            component: &vae_component,
            vae: &vae,
            workers: data.workers,
        };
        let Some(cache) = LatentCache::open(&request, options.stop)? else {
            return Ok(None);
        };

        let tokenizer = parts::tokenizer(config, run, &cache, &dataset)?;
        let (text_encoder, text_parameters, frozen_text) =
            parts::text_encoder(config, run, &tokenizer)?;
        let width = text_encoder.config().hidden_size;
        if let Some(dim) = unet_config
            .cross_attention_dim
            .iter()
            .find(|&&dim| dim != width)
        {
            let message = format!(
                "[unet] cross_attention_dim: expected {width}, the text encoder's hidden_size, found {dim}"
            );
            return Err(Error::config(run.config_file(), message));
        }
        let unet_store = models::store(config, "unet", unet_component.as_ref());
        let mut unet = Unet::load(&unet_config, &unet_store.root())?;
        unet_store.finish()?;
        unet.recompute = config.model.recompute;

        let denoising = Denoising {
            schedule: NoiseSchedule::new(&settings),
            predicts: settings.prediction_type,
            weight: config
                .loss
                .min_snr_gamma
                .map_or(LossWeight::Uniform, LossWeight::MinSnr),
        };
        let source = LatentSource {
            order: Order::new(config.run.seed, Some(cache.len())),
            cache,
            tokenizer: tokenizer.clone(),
            seed: config.run.seed,
            batch: config.run.batch_size,
            timesteps: denoising.schedule.len(),
            caption_dropout: data.caption_dropout,
            shift: vae_config.shift_factor,
            scale: vae_config.scaling_factor,
        };
        source.check_scale(&vae_dir);
        Ok(Some(UnetObjective {
            unet,
            unet_parameters: unet_store.parameters(),
            text_encoder,
            text_parameters,
            frozen_text,
            tokenizer,
            vae,
            vae_dir,
            scheduler,
            denoising,
            source: Arc::new(source),
            sample: config.sample.clone(),
            plans,
            size: data.size,
        }))
    }

    fn context(&self, ids: &[u32]) -> Tensor {
        let forward = || self.text_encoder.forward(ids, self.source.batch);
        if self.text_parameters.is_empty() {
            no_grad(forward)
        } else {
            forward()
        }
    }

    fn save_text(&self, dir: &Path, dtype: FloatType) -> velatura::Result<()> {
        let dir = dir.join("text_encoder");
        match &self.frozen_text {
            Some(from) => parts::recast(from, &dir, dtype),
            None => models::save(
                &dir,
                &self.text_encoder.config().to_json(),
                &self.text_parameters,
                dtype,
            ),
        }
    }
}

impl Objective for UnetObjective {
    type Batch = LatentBatch;

    fn parameters(&self) -> Vec<Named> {
        let mut all = models::named("unet", &self.unet_parameters);
        all.extend(models::named("text_encoder", &self.text_parameters));
        all
    }

    fn batches(&self) -> MakeBatch<LatentBatch> {
        let source = Arc::clone(&self.source);
        Arc::new(move |step| source.batch(step))
    }

    fn loss(&self, batch: &LatentBatch) -> Losses {
        let context = self.context(&batch.ids);
        let LatentBatch {
            latents,
            noise,
            timesteps,
            ..
        } = batch;
        let total = denoising_loss(
            &self.unet,
            &self.denoising,
            latents,
            noise,
            timesteps,
            &context,
        );
        Losses {
            total,
            parts: Vec::new(),
        }
    }

    fn save(&self, dir: &Path, dtype: FloatType) -> velatura::Result<()> {
        models::save(
            &dir.join("unet"),
            &self.unet.config().to_json(),
            &self.unet_parameters,
            dtype,
        )?;
        if self.frozen_text.is_none() {
            self.save_text(dir, dtype)?;
        }
        self.tokenizer.save(&dir.join("tokenizer"))
    }

    fn export(&self, dir: &Path, dtype: FloatType) -> Result<()> {
        models::save(
            &dir.join("unet"),
            &self.unet.config().to_json(),
            &self.unet_parameters,
            dtype,
        )?;
        self.save_text(dir, dtype)?;
        self.tokenizer.save(&dir.join("tokenizer"))?;
        parts::recast(&self.vae_dir, &dir.join("vae"), dtype)?;
        let scheduler = self.scheduler.value();
        let scheduler_class = scheduler["_class_name"]
            .as_str()
            .unwrap_or(parts::SCHEDULER);
        let index = json!({
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": [null, null],
            "image_encoder": [null, null],
            "requires_safety_checker": false,
            "safety_checker": [null, null],
            "scheduler": ["diffusers", scheduler_class],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        let advice = Advice {
            steps: Some(self.sample.steps),
            guidance_scale: Some(self.sample.guidance_scale),
            width: Some(self.size),
            height: Some(self.size),
            ..Advice::default()
        };
        models::write_json(&dir.join("model_index.json"), &index)?;
        models::write_json(&dir.join("velatura.json"), &advice)?;
        models::write_json(
            &dir.join("scheduler").join("scheduler_config.json"),
            scheduler,
        )?;
        Ok(())
    }

    fn samples(&self) -> Result<Option<(RgbImage, String)>> {
        let painter = Painter {
            tokenizer: &self.tokenizer,
            text_encoder: &self.text_encoder,
            unet: &self.unet,
            vae: &self.vae,
            scheduler: &self.scheduler,
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
        let context = match check_finite("text_encoder", || no_grad(|| self.context(&batch.ids))) {
            Ok(context) => context,
            Err(error) => return Some(error.to_string()),
        };
        let LatentBatch {
            latents,
            noise,
            timesteps,
            ..
        } = batch;
        let again = || {
            no_grad(|| {
                denoising_loss(
                    &self.unet,
                    &self.denoising,
                    latents,
                    noise,
                    timesteps,
                    &context,
                )
            })
        };
        check_finite("unet", again)
            .err()
            .map(|error| error.to_string())
    }
}

/// What the samples will be, so that an impossible wish is refused before the first step.
fn plans(
    sample: &Sample,
    scheduler: &SchedulerConfig,
    vae: &VaeConfig,
    size: usize,
) -> velatura::Result<Vec<Plan>> {
    let facts = Facts {
        advice: Advice::default(),
        scheduler: scheduler.clone(),
        sample_size: [size / vae.factor(); 2],
        scale: vae.factor(),
    };
    let request = |(number, prompt): (usize, &String)| Request {
        prompt: prompt.clone(),
        steps: Some(sample.steps),
        guidance: Some(sample.guidance_scale),
        seed: Some(sample.seed.wrapping_add(number as u64)),
        ..Request::default()
    };
    sample
        .prompts
        .iter()
        .enumerate()
        .map(|prompt| request(prompt).plan(&facts))
        .collect()
}
