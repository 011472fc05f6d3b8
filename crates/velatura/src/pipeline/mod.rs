//! From a request to a picture: [`Request`] → [`Plan`] → [`Painter::paint`], and the loading of whole models.

mod batcher;
mod init;
mod masked;
mod memory;
mod model;
mod part;
mod plan;
mod preview;
mod request;
mod stages;
mod trace;
mod txt2img;

use std::path::Path;

use velatura_kernels::isa;
use velatura_tensor::Precision;

pub use self::batcher::Batcher;
pub use self::init::{Init, Whole};
pub use self::masked::MaskedContent;
pub use self::model::Model;
pub use self::part::Part;
pub use self::plan::{Advice, Facts, Plan};
pub use self::preview::Preview;
pub use self::request::Request;
pub use self::stages::Stage;
pub use self::trace::Trace;
pub use self::txt2img::{Observer, Painted, Painter, Step};
use crate::Result;
use crate::checkpoint::ModelFolder;
use crate::clip::ClipTextModel;
use crate::metadata::Recipe;
use crate::tokenizer::Tokenizer;
use crate::unet::Unet;
use crate::vae::AutoencoderKl;

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

/// A model that is ready to paint, with all its parts in memory.
pub struct Pipeline {
    model: Model,
    precision: Precision,
    tokenizer: Tokenizer,
    text_encoder: ClipTextModel,
    unet: Unet,
    vae: AutoencoderKl,
    batcher: Batcher,
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
        precision_name(self.precision)
    }

    /// Its autoencoder.
    pub fn vae(&self) -> &AutoencoderKl {
        &self.vae
    }

    /// Borrows what painting needs.
    pub fn painter(&self) -> Painter<'_> {
        Painter {
            tokenizer: &self.tokenizer,
            text_encoder: Part::Kept(&self.text_encoder),
            unet: Part::Kept(&self.unet),
            vae: Part::Kept(&self.vae),
            vae_config: self.vae.config(),
            scheduler: &self.model.facts().scheduler,
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

    /// What a picture of `plan` shall carry; see [`Model::recipe`].
    pub fn recipe(&self, plan: &Plan) -> Recipe {
        self.model.recipe(plan, self.precision)
    }
}

/// `f32`, `bf16` or `int8`.
pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
        Precision::Int8 => "int8",
    }
}
