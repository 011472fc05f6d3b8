//! What is trained, and in which numbers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[model]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What this run trains.
    pub part: Part,
    /// A diffusers folder to go on from; absent: fresh weights from the tables of the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// The trained VAE: a model folder, or the VAE's own folder. A scorer learns from pictures taken through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<PathBuf>,
    /// Whether the text encoder learns with the UNet.
    #[serde(default = "defaults::yes")]
    pub train_text_encoder: bool,
    /// A new vocabulary; absent: the base's, and without a base the words of the captions. Beside a base, what its text
    /// encoder has learnt of the words that both know stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerKind>,
    /// Recompute blocks in the backward pass instead of keeping their activations.
    #[serde(default)]
    pub recompute: bool,
    /// Number format of the matrix products; weights, sums and the optimiser are f32 either way.
    #[serde(default)]
    pub precision: PrecisionKind,
}

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The autoencoder.
    Vae,
    /// The UNet, with or without the text encoder.
    Unet,
    /// A low-rank adaptation of both or of the UNet alone, whose own weights stay.
    Lora,
    /// A word for the text encoder, and nothing else.
    Embedding,
    /// The network that judges what scenes show.
    Scorer,
}

impl Model {
    /// The vocabulary that a run begins with; none where it is the base's.
    pub fn new_tokenizer(&self) -> Option<TokenizerKind> {
        self.tokenizer
            .or_else(|| self.base.is_none().then_some(TokenizerKind::Captions))
    }
}

impl Part {
    /// Whether it learns from the latents of a trained VAE, and from captions.
    pub fn learns_latents(self) -> bool {
        matches!(self, Part::Unet | Part::Lora | Part::Embedding)
    }
}

/// `[embedding]` (part "embedding"; textual inversion: Gal et al. 2022, arXiv:2208.01618)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// The new word, as captions and prompts spell it: "<my-thing>".
    pub word: String,
    /// A word that the vocabulary has as one token, from which the new one begins: "toy".
    pub init: String,
}

/// `[lora]` (part "lora"; Hu et al. 2021, arXiv:2106.09685)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// r: the more, the more can be learnt and the larger the file.
    pub rank: usize,
    /// α: the adaptation counts α/r times; r if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f32>,
    /// Share of a layer's inputs that the adaptation does not see in a step.
    pub dropout: f32,
    /// Layers of the UNet, by the end of their path.
    pub targets: Vec<String>,
    /// Layers of the text encoder (`train_text_encoder`).
    pub text_targets: Vec<String>,
}

impl Lora {
    /// α, which is r where the config leaves it open.
    pub fn alpha(&self) -> f32 {
        self.alpha.unwrap_or(self.rank as f32)
    }
}

impl Default for Lora {
    fn default() -> Self {
        let list = |names: [&str; 4]| names.map(String::from).to_vec();
        Lora {
            rank: 8,
            alpha: None,
            dropout: 0.0,
            targets: list(["to_q", "to_k", "to_v", "to_out.0"]),
            text_targets: list(["q_proj", "k_proj", "v_proj", "out_proj"]),
        }
    }
}

/// A text encoder's new vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// The words of the captions.
    Captions,
    /// CLIP's own 49 408 tokens.
    Clip,
}

/// Number format of the products in the forward and backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionKind {
    /// 32-bit.
    #[default]
    F32,
    /// bfloat16 operands, 32-bit sums.
    Bf16,
}

mod defaults {
    pub fn yes() -> bool {
        true
    }
}
