//! An open model: what it is, and the reading of its parts.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use velatura_tensor::{Parameter, Precision};

use super::{
    Advice, Batcher, Facts, Init, Observer, Painted, Painter, Part, Pipeline, Plan,
    PrecisionChoice, Request, Trace, memory, precision_name,
};
use crate::checkpoint::{Component, LearnedWord, LoraFile, ModelFolder, model_hash, parse_config};
use crate::clip::{ClipTextConfig, ClipTextModel};
use crate::diffusion::SchedulerConfig;
use crate::metadata::{ModelIdentity, Recipe};
use crate::tokenizer::Tokenizer;
use crate::unet::{Unet, UnetConfig};
use crate::vae::{AutoencoderKl, VaeConfig};
use crate::weights::{Mode, PackedCache, Store};
use crate::{Error, Result};

/// The side of the latents where a UNet's config says nothing: Stable Diffusion's.
const SAMPLE_SIZE: usize = 64;
/// The tokenizer's classes that are CLIP's.
const TOKENIZERS: &[&str] = &["CLIPTokenizer", "CLIPTokenizerFast"];

/// An open model whose configs have been read and found to fit each other, and whose weights have not been read yet.
#[derive(Clone, Debug)]
pub struct Model {
    folder: ModelFolder,
    text_encoder: (Component, ClipTextConfig),
    unet: (Component, UnetConfig),
    vae: (Component, VaeConfig),
    facts: Facts,
    loras: Vec<(Arc<LoraFile>, f32)>,
    words: Vec<LearnedWord>,
    cache: Option<PackedCache>,
    hash: Arc<OnceLock<String>>,
}

impl Model {
    /// Reads the configs in `folder` and opens the weight files.
    ///
    /// # Errors
    /// A folder, file or field is missing, impossible, or of a kind that is not supported; the parts do not fit.
    pub fn open(folder: ModelFolder, variant: Option<&str>) -> Result<Model> {
        let component = |name, class| folder.component(name, &[class], variant);
        let text_encoder = component("text_encoder", "CLIPTextModel")?;
        let text_config = ClipTextConfig::read(&text_encoder)?;
        let unet = component("unet", "UNet2DConditionModel")?;
        let unet_config = UnetConfig::read(&unet)?;
        let vae = component("vae", "AutoencoderKL")?;
        let vae_config = VaeConfig::read(&vae)?;
        check_fit(&text_config, &unet_config, &vae_config)
            .map_err(|error| error.in_file(unet.config_path()))?;
        let facts = Facts {
            advice: advice(&folder)?,
            scheduler: scheduler(&folder)?,
            sample_size: unet_config.sample_size.unwrap_or([SAMPLE_SIZE; 2]),
            scale: vae_config.factor(),
        };
        Ok(Model {
            folder,
            text_encoder: (text_encoder, text_config),
            unet: (unet, unet_config),
            vae: (vae, vae_config),
            facts,
            loras: Vec::new(),
            words: Vec::new(),
            cache: None,
            hash: Arc::default(),
        })
    }

    /// Adds a low-rank adaptation, of which `strength` times its effect is merged into the weights as they are read.
    pub fn with_lora(mut self, file: LoraFile, strength: f32) -> Model {
        self.loras.push((Arc::new(file), strength));
        self
    }

    /// Keeps the packed weights of large parts in `cache`, and takes them from there at the next start. Numbers and pictures
    /// are the same to the last bit.
    pub fn with_cache(mut self, cache: PackedCache) -> Model {
        self.cache = Some(cache);
        self
    }

    /// The folder's name, for messages and recipes.
    pub fn name(&self) -> String {
        let dir = self.folder.dir();
        let full = dir.canonicalize();
        let name = full
            .as_deref()
            .unwrap_or(dir)
            .file_name()
            .unwrap_or(dir.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// What plans are made from.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Teaches the text encoder a word, as textual inversion has learnt it.
    pub fn with_word(mut self, word: LearnedWord) -> Model {
        self.words.push(word);
        self
    }

    /// The words of `text` that a model which [lists its things](Advice::things) has never seen: those that are no
    /// tokens of its vocabulary, which was made of whole words. Of other models, none.
    ///
    /// # Errors
    /// The tokenizer is damaged.
    pub fn unknown_words(&self, text: &str) -> Result<Vec<String>> {
        if self.facts.advice.things.is_empty() {
            return Ok(Vec::new());
        }
        let (tokenizer, _) = self.tokenizer()?;
        // What it has been taught since is known, whatever it is spelt like.
        let taught = self.words.iter();
        let text = taught.fold(text.to_owned(), |text, known| {
            text.replace(&known.word, " ")
        });
        let mut unknown: Vec<String> = Vec::new();
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            let known = word.is_empty() || tokenizer.encode(word)?.length <= 1;
            if !known && !unknown.iter().any(|seen| seen == word) {
                unknown.push(word.to_owned());
            }
        }
        Ok(unknown)
    }

    /// Fills in what `request` leaves open.
    ///
    /// # Errors
    /// As [`Request::plan`]; also a size that this UNet cannot have.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        let plan = request.plan(&self.facts)?;
        let scale = self.facts.scale;
        self.unet
            .1
            .check_latent_size(plan.height / scale, plan.width / scale)?;
        Ok(plan)
    }

    /// Reads the weights of all parts.
    ///
    /// # Errors
    /// A tensor is missing, left over, misshapen, or not finite; the tokenizer is damaged or of another model.
    pub fn load(&self, precision: PrecisionChoice) -> Result<Pipeline> {
        let precision = precision.resolve();
        let (tokenizer, words) = self.tokenizer()?;
        let text_encoder = self.load_text_encoder(precision, &words)?;
        let unet = self.load_unet(precision, None)?;
        let vae = self.load_vae(precision, None)?;
        self.check_loras()?;
        Ok(Pipeline {
            model: self.clone(),
            precision,
            tokenizer,
            text_encoder,
            unet,
            vae,
            batcher: Batcher::default(),
        })
    }

    /// Paints one picture with only one part of the model in memory at a time, each read when its turn comes. With
    /// `memory`, a number of bytes, weights also take the form that fits, though a slower one.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Painter::paint`]; [`Error::Request`] when `memory` is not enough.
    pub fn paint(
        &self,
        precision: PrecisionChoice,
        memory: Option<u64>,
        plan: &Plan,
        trace: Option<&mut Trace>,
        observe: Observer,
    ) -> Result<Painted> {
        let precision = precision.resolve();
        let transformed = match memory {
            Some(budget) => Some(memory::Needs::of(self, precision, plan).fit(budget)?),
            None => None,
        };
        let loading = Cell::new(Duration::ZERO);
        let (tokenizer, words) = self.tokenizer()?;
        // Read once and given up again: a damaged file shall show before the work, not after it. In the form that takes
        // least memory, which is what costs time.
        timed(&loading, || self.load_vae(precision, Some(0)))?;
        let text_encoder = || timed(&loading, || self.load_text_encoder(precision, &words));
        let unet = || {
            timed(&loading, || {
                let unet = self.load_unet(precision, transformed)?;
                self.check_loras().map(|()| unet)
            })
        };
        let vae = || timed(&loading, || self.load_vae(precision, None));
        let painter = Painter {
            tokenizer: &tokenizer,
            text_encoder: Part::OnDemand(&text_encoder),
            unet: Part::OnDemand(&unet),
            vae: Part::OnDemand(&vae),
            vae_config: &self.vae.1,
            scheduler: &self.facts.scheduler,
            batcher: None,
        };
        let painted = painter.paint(plan, trace, observe)?;
        Ok(Painted {
            loading: loading.get(),
            ..painted
        })
    }

    /// The tokenizer with the words that were learnt, and the first id of each.
    fn tokenizer(&self) -> Result<(Tokenizer, Vec<u32>)> {
        let mut tokenizer = tokenizer(&self.folder)?;
        let (component, config) = &self.text_encoder;
        let (length, positions) = (tokenizer.max_length(), config.max_position_embeddings);
        let wrong = if tokenizer.vocab_size() > config.vocab_size {
            let largest = tokenizer.vocab_size();
            let expected = format!("at least {largest}, the size of the tokenizer's vocabulary");
            Some(("vocab_size", expected, config.vocab_size))
        } else if length > positions {
            let expected = format!("at least {length}, the model_max_length of the tokenizer");
            Some(("max_position_embeddings", expected, positions))
        } else {
            None
        };
        if let Some((field, expected, found)) = wrong {
            return Err(Error::config(field, expected, found).in_file(component.config_path()));
        }
        let add = |LearnedWord { word, rows }: &LearnedWord| tokenizer.add_word(word, rows.dim(0));
        let first = self.words.iter().map(add).collect::<Result<_>>()?;
        Ok((tokenizer, first))
    }

    fn load_text_encoder(&self, precision: Precision, words: &[u32]) -> Result<ClipTextModel> {
        let (component, config) = &self.text_encoder;
        // It runs once per picture, and so does the autoencoder, which hardly has linear layers.
        let mode = Mode::Inference(precision.beside_linear());
        let weights = Store::load(component, mode)
            .with_loras("text_encoder", &self.loras)
            .kept_in(self.cache.as_ref());
        let mut text_encoder = ClipTextModel::load(config, &weights.root())?;
        weights.finish()?;
        for (LearnedWord { word, rows }, &first) in self.words.iter().zip(words) {
            text_encoder.learn(first, Parameter::frozen(word.as_str(), rows.clone()))?;
        }
        Ok(text_encoder)
    }

    /// `transformed`: the most numbers that a convolution's weight may have to be transformed for Winograd's algorithm.
    fn load_unet(&self, precision: Precision, transformed: Option<usize>) -> Result<Unet> {
        let (component, config) = &self.unet;
        let weights = Store::load(component, Mode::Inference(precision))
            .transformed_up_to(transformed.unwrap_or(usize::MAX))
            .with_loras("unet", &self.loras)
            .kept_in(self.cache.as_ref());
        let unet = Unet::load(config, &weights.root())?;
        weights.finish()?;
        Ok(unet)
    }

    /// `transformed` as there.
    fn load_vae(&self, precision: Precision, transformed: Option<usize>) -> Result<AutoencoderKl> {
        let (component, config) = &self.vae;
        let weights = Store::load(component, Mode::Inference(precision.beside_linear()))
            .transformed_up_to(transformed.unwrap_or(usize::MAX))
            .kept_in(self.cache.as_ref());
        let vae = AutoencoderKl::load(config, &weights.root())?;
        weights.finish()?;
        Ok(vae)
    }

    /// To be called when text encoder and UNet have been read.
    fn check_loras(&self) -> Result<()> {
        self.loras
            .iter()
            .try_for_each(|(lora, _)| lora.check_used())
    }

    /// The UNet's checkpoint and config, and the autoencoder's.
    pub(super) fn large_parts(&self) -> (&(Component, UnetConfig), &(Component, VaeConfig)) {
        (&self.unet, &self.vae)
    }

    /// What a picture of `plan` shall carry. The first call reads every weight file once more, for the hash.
    pub fn recipe(&self, plan: &Plan, precision: Precision) -> Recipe {
        let Model {
            text_encoder,
            unet,
            vae,
            ..
        } = self;
        let hash = self
            .hash
            .get_or_init(|| model_hash(&[&text_encoder.0, &unet.0, &vae.0]));
        Recipe {
            version: env!("CARGO_PKG_VERSION").to_string(),
            model: ModelIdentity {
                name: self.name(),
                hash: hash.clone(),
            },
            prompt: plan.prompt.clone(),
            negative_prompt: plan.negative.clone(),
            seed: plan.seed,
            steps: plan.steps,
            sampler: plan.sampler.name().to_string(),
            sampler_label: plan.sampler.label().to_string(),
            schedule: plan.schedule.name().to_string(),
            schedule_label: plan.schedule.label().to_string(),
            eta: plan.eta,
            guidance_scale: plan.guidance,
            width: plan.width,
            height: plan.height,
            mode: plan.mode().to_string(),
            strength: plan.init.as_ref().map(|init| init.strength),
            inpainting: plan.init.as_ref().and_then(Init::inpainting),
            precision: precision_name(precision).to_string(),
            notice: self.facts.advice.notice.clone(),
        }
    }
}

/// Works, and adds the time it took.
fn timed<T>(total: &Cell<Duration>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    total.set(total.get() + start.elapsed());
    result
}

/// Refuses a UNet that does not speak to the other two parts.
fn check_fit(text: &ClipTextConfig, unet: &UnetConfig, vae: &VaeConfig) -> Result<()> {
    let latents = vae.latent_channels;
    for (field, channels) in [
        ("in_channels", unet.in_channels),
        ("out_channels", unet.out_channels),
    ] {
        if channels != latents {
            let hint = if field == "in_channels" && channels == 2 * latents + 1 {
                "; a model for inpainting cannot paint from text alone"
            } else {
                ""
            };
            let expected = format!("{latents}, the latent_channels of the VAE");
            return Err(Error::config(field, expected, format!("{channels}{hint}")));
        }
    }
    match unet
        .cross_attention_dim
        .iter()
        .find(|&&dim| dim != text.hidden_size)
    {
        Some(dim) => {
            let expected = format!("{}, the hidden_size of the text encoder", text.hidden_size);
            Err(Error::config("cross_attention_dim", expected, dim))
        }
        None => Ok(()),
    }
}

/// The recommendation in `velatura.json`; nothing where there is no such file.
fn advice(folder: &ModelFolder) -> Result<Advice> {
    const FILE: &str = "velatura.json";
    match folder.read(FILE)? {
        Some(text) => parse_config(&folder.dir().join(FILE), &text),
        None => Ok(Advice::default()),
    }
}

/// The noise schedule and the sampler that the model came with.
fn scheduler(folder: &ModelFolder) -> Result<SchedulerConfig> {
    const FILE: &str = "scheduler/scheduler_config.json";
    folder.require("scheduler", &[])?;
    let path = folder.dir().join(FILE);
    let Some(text) = folder.read(FILE)? else {
        return Err(Error::format(
            path,
            "expected the noise schedule that the model was trained with, found no such file",
        ));
    };
    SchedulerConfig::from_json(&text).map_err(|error| error.in_file(path))
}

/// The model's own tokenizer; CLIP's where it came without one.
fn tokenizer(folder: &ModelFolder) -> Result<Tokenizer> {
    const NAME: &str = "tokenizer";
    if !folder.has(NAME) && !folder.has_folder(NAME) {
        return Tokenizer::clip();
    }
    let dir = if folder.has(NAME) {
        folder.require(NAME, TOKENIZERS)?
    } else {
        folder.dir().join(NAME)
    };
    let Some(files) = folder.static_files() else {
        return Tokenizer::from_folder(&dir);
    };
    let texts: Vec<(&str, &str)> = files
        .iter()
        .filter_map(|(path, bytes)| {
            Some((
                path.strip_prefix("tokenizer/")?,
                std::str::from_utf8(bytes).ok()?,
            ))
        })
        .collect();
    Tokenizer::from_static(&dir.to_string_lossy(), &texts)
}
