//! From a request to a picture: [`Request`] → [`Plan`] → [`Painter::paint`], and the loading of whole models.

mod batcher;
mod init;
mod masked;
mod plan;
mod preview;
mod request;
mod stages;
mod trace;
mod txt2img;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use velatura_kernels::isa;
use velatura_tensor::{Parameter, Precision};

pub use self::batcher::Batcher;
pub use self::init::{Init, Whole};
pub use self::masked::MaskedContent;
pub use self::plan::{Advice, Facts, Plan};
pub use self::preview::Preview;
pub use self::request::Request;
pub use self::stages::Stage;
pub use self::trace::Trace;
pub use self::txt2img::{Observer, Painted, Painter, Step};
use crate::checkpoint::{Component, LearnedWord, LoraFile, ModelFolder, model_hash, parse_config};
use crate::clip::{ClipTextConfig, ClipTextModel};
use crate::diffusion::SchedulerConfig;
use crate::metadata::{ModelIdentity, Recipe};
use crate::tokenizer::Tokenizer;
use crate::unet::{Unet, UnetConfig};
use crate::vae::{AutoencoderKl, VaeConfig};
use crate::weights::{Mode, Store};
use crate::{Error, Result};

/// The side of the latents where a UNet's config says nothing: Stable Diffusion's.
const SAMPLE_SIZE: usize = 64;
/// The tokenizer's classes that are CLIP's.
const TOKENIZERS: &[&str] = &["CLIPTokenizer", "CLIPTokenizerFast"];

/// The numbers that matrix products are taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrecisionChoice {
    /// bf16 where the processor has instructions for it, f32 elsewhere.
    #[default]
    Auto,
    /// f32.
    F32,
    /// bf16, summed up in f32.
    Bf16,
    /// The UNet's linear layers in 8-bit integers, the rest as with [`PrecisionChoice::Auto`].
    Int8,
}

impl PrecisionChoice {
    /// The choice on this machine.
    pub fn resolve(self) -> Precision {
        match self {
            PrecisionChoice::F32 => Precision::F32,
            PrecisionChoice::Bf16 => Precision::Bf16,
            PrecisionChoice::Int8 => Precision::Int8,
            PrecisionChoice::Auto if isa::has_fast_bf16() => Precision::Bf16,
            PrecisionChoice::Auto => Precision::F32,
        }
    }
}

/// How [`Pipeline::load`] reads a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The numbers to compute with.
    pub precision: PrecisionChoice,
    /// What stands in the weight files' names: `fp16`.
    pub variant: Option<String>,
}

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
        })
    }

    /// Adds a low-rank adaptation, of which `strength` times its effect is merged into the weights as they are read.
    pub fn with_lora(mut self, file: LoraFile, strength: f32) -> Model {
        self.loras.push((Arc::new(file), strength));
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

    /// Reads the weights.
    ///
    /// # Errors
    /// A tensor is missing, left over, misshapen, or not finite; the tokenizer is damaged or of another model.
    pub fn load(&self, precision: PrecisionChoice) -> Result<Pipeline> {
        let precision = precision.resolve();
        let mut tokenizer = tokenizer(&self.folder)?;
        let store = |component: &Component, name| {
            // Text encoder and autoencoder run once per picture, and hardly consist of linear layers.
            let precision = match name {
                "unet" => precision,
                _ => precision.beside_linear(),
            };
            Store::load(component, Mode::Inference(precision)).with_loras(name, &self.loras)
        };

        let (component, config) = &self.text_encoder;
        if tokenizer.vocab_size() > config.vocab_size {
            let largest = tokenizer.vocab_size();
            let expected = format!("at least {largest}, the size of the tokenizer's vocabulary");
            return Err(Error::config("vocab_size", expected, config.vocab_size)
                .in_file(component.config_path()));
        }
        let (length, positions) = (tokenizer.max_length(), config.max_position_embeddings);
        if length > positions {
            let expected = format!("at least {length}, the model_max_length of the tokenizer");
            return Err(
                Error::config("max_position_embeddings", expected, positions)
                    .in_file(component.config_path()),
            );
        }
        let weights = store(component, "text_encoder");
        let mut text_encoder = ClipTextModel::load(config, &weights.root())?;
        weights.finish()?;
        for LearnedWord { word, rows } in &self.words {
            let first = tokenizer.add_word(word, rows.dim(0))?;
            text_encoder.learn(first, Parameter::frozen(word.as_str(), rows.clone()))?;
        }

        let (component, config) = &self.unet;
        let weights = store(component, "unet");
        let unet = Unet::load(config, &weights.root())?;
        weights.finish()?;

        let (component, config) = &self.vae;
        let weights = store(component, "vae");
        let vae = AutoencoderKl::load(config, &weights.root())?;
        weights.finish()?;
        for (lora, _) in &self.loras {
            lora.check_used()?;
        }

        Ok(Pipeline {
            model: self.clone(),
            precision,
            tokenizer,
            text_encoder,
            unet,
            vae,
            batcher: Batcher::default(),
            hash: OnceLock::new(),
        })
    }
}

/// A model that is ready to paint.
pub struct Pipeline {
    model: Model,
    precision: Precision,
    tokenizer: Tokenizer,
    text_encoder: ClipTextModel,
    unet: Unet,
    vae: AutoencoderKl,
    batcher: Batcher,
    hash: OnceLock<String>,
}

impl Pipeline {
    /// Opens and loads the model in the diffusers folder `dir`.
    ///
    /// # Errors
    /// As [`ModelFolder::open`], [`Model::open`] and [`Model::load`].
    pub fn load(dir: &Path, options: LoadOptions) -> Result<Pipeline> {
        Model::open(ModelFolder::open(dir)?, options.variant.as_deref())?.load(options.precision)
    }

    /// What it was loaded from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// `f32`, `bf16` or `int8`.
    pub fn precision_name(&self) -> &'static str {
        match self.precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    /// Borrows what painting needs.
    pub fn painter(&self) -> Painter<'_> {
        Painter {
            tokenizer: &self.tokenizer,
            text_encoder: &self.text_encoder,
            unet: &self.unet,
            vae: &self.vae,
            scheduler: &self.model.facts.scheduler,
            batcher: Some(&self.batcher),
        }
    }

    /// Paints a picture; see [`Painter::paint`]. Where several threads paint at once, pictures of one size share the UNet's
    /// batches, and come out as if they were painted alone.
    ///
    /// # Errors
    /// As there.
    pub fn paint(
        &self,
        plan: &Plan,
        trace: Option<&mut Trace>,
        observe: Observer,
    ) -> Result<Painted> {
        self.painter().paint(plan, trace, observe)
    }

    /// What a picture of `plan` shall carry. The first call reads every weight file once more, for the hash.
    pub fn recipe(&self, plan: &Plan) -> Recipe {
        let Model {
            text_encoder,
            unet,
            vae,
            ..
        } = &self.model;
        let hash = self
            .hash
            .get_or_init(|| model_hash(&[&text_encoder.0, &unet.0, &vae.0]));
        Recipe {
            version: env!("CARGO_PKG_VERSION").to_string(),
            model: ModelIdentity {
                name: self.model.name(),
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
            precision: self.precision_name().to_string(),
        }
    }
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
