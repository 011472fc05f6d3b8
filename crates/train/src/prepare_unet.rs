//! Everything that the training of a denoiser needs, opened, checked against each other, and encoded.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use velatura::checkpoint::Component;
use velatura::diffusion::{Sampler, SchedulerConfig};
use velatura::pipeline::{Advice, Facts, Plan, Request};
use velatura::unet::{Unet, UnetConfig};
use velatura::vae::{AutoencoderKl, VaeConfig};
use velatura::weights::{Mode, Store};

use crate::Options;
use crate::buckets::Buckets;
use crate::config::{Config, DataKind, Sample, Source};
use crate::dataset::Dataset;
use crate::denoising::Denoising;
use crate::error::{Error, Result};
use crate::latent_source::{LatentSource, Times};
use crate::latents::{self, Framing, LatentCache};
use crate::learner::{ADAPTERS, Learner};
use crate::models;
use crate::objective::Objective;
use crate::order::{Members, Order, Stock};
use crate::parts;
use crate::prior;
use crate::random::{Purpose, mix};
use crate::run_folder::RunFolder;
use crate::step_unet::UnetObjective;
use crate::text_cache::TextCache;

impl UnetObjective {
    /// None if the run was asked to stop while latents were encoded.
    pub(crate) fn new(
        config: &Config,
        run: &RunFolder,
        options: &Options,
    ) -> Result<Option<UnetObjective>> {
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
        for (side, field) in [(Some(data.size), "size"), (data.bucket_step, "bucket_step")] {
            if let Some(side) = side.filter(|side| !side.is_multiple_of(factor)) {
                let message = format!(
                    "[data] {field}: expected a multiple of {factor}, by which the VAE divides it, found {side}"
                );
                return Err(Error::config(run.config_file(), message));
            }
        }
        let buckets = match data.bucket_step {
            Some(step) => Buckets::of_area(data.size, step),
            None => Buckets::square(data.size),
        };
        let plans = plans(&config.sample, &scheduler, &vae_config, data.size)
            .map_err(models::in_table(run, "sample"))?;
        let unet_component = models::open(config, run, "unet")?;
        let mut unet_config = match &unet_component {
            Some(component) => UnetConfig::read(component)?,
            None => UnetConfig::from_json(&models::table(config.unet.as_ref()))
                .map_err(models::in_table(run, "unet"))?,
        };
        let side = data.size / factor;
        for [width, height] in buckets.shapes() {
            unet_config
                .check_latent_size(height / factor, width / factor)
                .map_err(models::in_table(run, "data"))?;
        }
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
        let width = parts::text_width(config, run)?;
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
        let datasets = Dataset::open_all(config)?;
        let notice = parts::notice(base, &datasets)?;
        if let Some(word) = &config.embedding {
            // A word has a base, which brings its tokenizer with it.
            let tokenizer = parts::tokenizer(config, run, &[], &datasets)?;
            parts::first_token(word, run, &tokenizer)?;
        }

        // Encoding wants the packed weights of inference.
        let precision = models::products(config);
        let vae_store = Store::load(&vae_component, Mode::Inference(precision));
        let vae = AutoencoderKl::load(&vae_config, &vae_store.root())?;
        vae_store.finish()?;
        let dir = data
            .cache
            .clone()
            .unwrap_or_else(|| run.dir().join("cache"));
        let encode = |dataset: &Arc<Dataset>| {
            LatentCache::open(
                &latents::Request {
                    dir: &dir,
                    dataset: Arc::clone(dataset),
                    framing: Framing {
                        buckets: buckets.clone(),
                        flip: data.flip,
                        random_crop: data.random_crop.then_some(config.run.seed),
                    },
                    component: &vae_component,
                    vae: &vae,
                    precision,
                    workers: data.workers,
                },
                options.stop,
            )
        };
        let mut caches = Vec::new();
        for dataset in &datasets {
            match encode(dataset)? {
                Some(cache) => caches.push(cache),
                None => return Ok(None),
            }
        }
        let class = match &config.prior {
            None => None,
            Some(prior) => {
                if !prior::complete(config, prior, options.stop)? {
                    return Ok(None);
                }
                let source = Source {
                    path: Some(prior.path.clone()),
                    caption: Some(prior.caption.clone()),
                    ..Source::new(DataKind::Folder)
                };
                let pictures = Dataset::open(&source, data.size, false)?;
                match encode(&Arc::new(pictures))? {
                    Some(cache) => Some((cache, prior.weight)),
                    None => return Ok(None),
                }
            }
        };

        let mut tokenizer = parts::tokenizer(config, run, &caches, &datasets)?;
        let clock = Arc::default();
        let (mut text_encoder, mut text_parameters, frozen_text) =
            parts::text_encoder(config, run, &tokenizer, &clock)?;
        if let Some(word) = &config.embedding {
            let row = parts::new_word(word, run, &mut tokenizer, &mut text_encoder)?;
            text_parameters = vec![row];
        }
        let texts = match &frozen_text {
            Some(encoder) if data.cache_text && text_parameters.is_empty() => {
                Some(TextCache::open(&dir, &Component::open(encoder, None)?)?)
            }
            _ => None,
        };
        let unet_store = match (&config.adaptation(), &config.embedding, &unet_component) {
            (Some(lora), _, Some(component)) => {
                models::adapted_store(config, "unet", component, &lora.targets, &clock)
            }
            (_, Some(_), Some(component)) => models::frozen_store(config, component),
            _ => models::store(config, "unet", unet_component.as_ref()),
        };
        let mut unet = Unet::load(&unet_config, &unet_store.root())?;
        unet_store.finish()?;
        unet.recompute = config.model.recompute;
        let learner = match (config.adaptation(), &config.embedding) {
            (None, None) => Learner::Models { frozen_text },
            (None, Some(embedding)) => Learner::Word(embedding.word.clone()),
            (Some(lora), _) => {
                if unet_store.parameters().is_empty() {
                    let message = format!(
                        "[lora] targets: expected ends of layers' paths, such as \"to_q\"; the UNet has none of {:?}",
                        lora.targets
                    );
                    return Err(Error::config(run.config_file(), message));
                }
                Learner::Adapters {
                    alpha: lora.alpha(),
                    clock,
                    name: run.name(),
                }
            }
        };

        let denoising = Denoising::new(&settings, &config.loss);
        let source = |caches: Vec<LatentCache>, seed: u64| LatentSource {
            order: Order::new(
                seed,
                config.run.batch_size,
                &caches.iter().map(LatentCache::stock).collect::<Vec<_>>(),
            ),
            caches,
            tokenizer: tokenizer.clone(),
            seed,
            batch: config.run.batch_size,
            times: Times::new(&config.loss, denoising.schedule.len()),
            caption_dropout: data.caption_dropout,
            flip: data.flip,
            offset_noise: config.loss.offset_noise,
            shift: vae_config.shift_factor,
            scale: vae_config.scaling_factor,
        };
        let prior = class.map(|(cache, weight)| {
            let seed = mix(config.run.seed, Purpose::Prior, 0);
            (Arc::new(source(vec![cache], seed)), weight)
        });
        let source = source(caches, config.run.seed);
        source.check_scale(&vae_dir);
        if data.bucket_step.is_some() {
            eprintln!("{}", bucket_summary(&buckets, &source.caches));
        }
        let things: BTreeSet<String> = datasets
            .iter()
            .flat_map(|dataset| dataset.things())
            .collect();
        let things = things.into_iter().collect();
        let objective = UnetObjective {
            unet,
            unet_parameters: unet_store.parameters(),
            text_encoder,
            text_parameters,
            texts,
            learner,
            tokenizer,
            vae,
            vae_dir,
            scheduler,
            denoising,
            source: Arc::new(source),
            prior,
            sample: config.sample.clone(),
            plans,
            size: data.size,
            things,
            notice,
        };
        let beside = !matches!(objective.learner, Learner::Models { .. });
        if let Some(dir) = run.checkpoint().filter(|_| beside) {
            models::read_named(&dir.join(ADAPTERS), &objective.parameters())?;
        }
        Ok(Some(objective))
    }
}

/// One line for the person: how many pictures each bucket has.
fn bucket_summary(buckets: &Buckets, caches: &[LatentCache]) -> String {
    let stocks: Vec<Stock> = caches.iter().map(LatentCache::stock).collect();
    let counts = buckets.shapes().iter().enumerate().map(|(bucket, shape)| {
        let members = stocks.iter().map(|stock| &stock.buckets[bucket]);
        (shape, members.filter_map(Members::len).sum::<u64>())
    });
    let counts: Vec<String> = counts
        .filter(|(_, count)| *count > 0)
        .map(|([width, height], count)| format!("{width}x{height} {count}"))
        .collect();
    format!("buckets and their pictures: {}", counts.join(", "))
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
