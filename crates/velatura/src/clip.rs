//! CLIP's text model (Radford et al. 2021, arXiv:2103.00020): token ids in, one context vector per token out. Its other
//! half, which looks at pictures, judges what has been painted ([`ClipModel`]).

mod both;
mod vision;

pub use self::both::ClipModel;
pub use self::vision::{ClipVisionConfig, ClipVisionModel};

use serde_json::{Value, json};
use velatura_tensor::{Activation, Parameter, Tensor};

use crate::checkpoint::Component;
use crate::fields::{Fields, check, decimal};
use crate::nn::{Attention, Embedding, LayerNorm, Linear, watch};
use crate::weights::Weights;
use crate::{Error, Result};

/// What `text_encoder/config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    pub vocab_size: usize,
    /// Width D of the context.
    pub hidden_size: usize,
    pub intermediate_size: usize,
    /// Stable Diffusion 2.x uses the layer before the last of a model of 24: its config says 23.
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// The longest text in tokens: 77.
    pub max_position_embeddings: usize,
    /// Stable Diffusion 1.x: quick_gelu, 2.x: gelu.
    pub activation: Activation,
    pub layer_norm_eps: f32,
}

impl ClipTextConfig {
    /// The config of a component, checked.
    ///
    /// # Errors
    /// A field is missing, impossible, or asks for what is not supported; with file and field.
    pub fn read(component: &Component) -> Result<Self> {
        Self::from_json(&component.config()?)
            .map_err(|error| error.in_file(component.config_path()))
    }

    /// As [`ClipTextConfig::read`], from `transformers`' JSON.
    ///
    /// # Errors
    /// As there, without the file.
    pub fn from_json(config: &Value) -> Result<Self> {
        let fields = Fields::of(config, "CLIPTextModel")?;
        fields.only("model_type", &["clip_text_model".into()])?;
        fields.only("use_attention_mask", &[false.into()])?;
        let name = fields.get_or("hidden_act", "quick_gelu".to_owned())?;
        let activation = activation(&name).ok_or_else(|| {
            Error::config(
                "hidden_act",
                "\"quick_gelu\" or \"gelu\" (nothing else is supported)",
                &name,
            )
        })?;
        let config = ClipTextConfig {
            vocab_size: fields.get("vocab_size")?,
            hidden_size: fields.get("hidden_size")?,
            intermediate_size: fields.get("intermediate_size")?,
            num_hidden_layers: fields.get("num_hidden_layers")?,
            num_attention_heads: fields.get("num_attention_heads")?,
            max_position_embeddings: fields.get_or("max_position_embeddings", 77)?,
            activation,
            layer_norm_eps: fields.get_or("layer_norm_eps", 1e-5)?,
        };
        let heads = config.num_attention_heads;
        check(
            config.hidden_size.is_multiple_of(heads),
            "hidden_size",
            || format!("a multiple of num_attention_heads = {heads}"),
            || config.hidden_size,
        )?;
        Ok(config)
    }

    fn sizes(&self) -> LayerSizes {
        LayerSizes {
            width: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            depth: self.num_hidden_layers,
            activation: self.activation,
            eps: self.layer_norm_eps,
            causal: true,
        }
    }

    /// In `transformers`' form, for a new checkpoint.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": if self.activation == Activation::Gelu { "gelu" } else { "quick_gelu" },
            "layer_norm_eps": decimal(self.layer_norm_eps),
            // CLIP's vocabularies end with these two, and this is how a pooled output would find the end.
            "bos_token_id": self.vocab_size.saturating_sub(2),
            "eos_token_id": self.vocab_size.saturating_sub(1),
        })
    }
}

fn activation(name: &str) -> Option<Activation> {
    match name {
        "quick_gelu" => Some(Activation::QuickGelu),
        "gelu" => Some(Activation::Gelu),
        _ => None,
    }
}

/// The text encoder.
#[derive(Clone, Debug)]
pub struct ClipTextModel {
    config: ClipTextConfig,
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
}

impl ClipTextModel {
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(config: &ClipTextConfig, w: &Weights) -> Result<Self> {
        let w = w.at("text_model");
        let embeddings = w.at("embeddings");
        let (width, places) = (config.hidden_size, config.max_position_embeddings);
        // 0.02 is CLIP's own choice for fresh tables.
        Ok(ClipTextModel {
            token_embedding: Embedding::load(
                &embeddings.at("token_embedding"),
                config.vocab_size,
                width,
                0.02,
            )?,
            position_embedding: Embedding::load(
                &embeddings.at("position_embedding"),
                places,
                width,
                0.02,
            )?,
            layers: (0..config.num_hidden_layers)
                .map(|i| EncoderLayer::load(config.sizes(), &w.at("encoder").at("layers").at(i)))
                .collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::load(
                &w.at("final_layer_norm"),
                width,
                config.layer_norm_eps,
            )?,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The table of tokens, `[V, D]`.
    pub fn token_table(&self) -> Tensor {
        self.token_embedding.table()
    }

    /// Teaches the model the tokens from the id `first` on: their `rows` are `[n, D]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the rows have another width than this model's.
    pub fn learn(&mut self, first: u32, rows: Parameter) -> Result<()> {
        let width = self.config.hidden_size;
        if rows.shape().get(1) != Some(&width) {
            let expected = format!("rows of {width} numbers, the hidden_size of the text encoder");
            let found = format!("shape {:?}", rows.shape());
            return Err(Error::tensor(rows.name(), expected, found));
        }
        self.token_embedding.learn(first, rows);
        Ok(())
    }

    /// Whether this model has a row for each of `ids`: a tokenizer may come from another model.
    ///
    /// # Errors
    /// [`Error::Config`] naming `vocab_size`.
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let missing = ids.iter().find(|&&id| !self.token_embedding.has(id));
        check(
            missing.is_none(),
            "vocab_size",
            || {
                let largest = missing.copied().unwrap_or_default();
                format!("more than {largest}, which is an id of this model's tokenizer")
            },
            || self.config.vocab_size,
        )
    }

    /// ids `[batch, S]` with S at most 77: the context `[batch, S, D]`, which is `last_hidden_state` after the
    /// final norm.
    ///
    /// # Panics
    /// When an id is not below the vocabulary's size ([`ClipTextModel::check_ids`]), or the ids don't divide
    /// into `batch` texts of at most 77.
    pub fn forward(&self, ids: &[u32], batch: usize) -> Tensor {
        assert!(
            ids.len().is_multiple_of(batch),
            "{} ids in {batch} texts",
            ids.len()
        );
        let shape = [batch, ids.len() / batch];
        let places: Vec<u32> = (0..batch).flat_map(|_| 0..shape[1] as u32).collect();
        let tokens = self.token_embedding.forward(ids, &shape);
        let mut x = tokens.add(&self.position_embedding.forward(&places, &shape));
        for layer in &self.layers {
            x = layer.forward(&x);
        }
        self.final_layer_norm.forward(&x)
    }
}

/// The sizes of an [`EncoderLayer`], which texts and pictures go through alike.
#[derive(Clone, Copy)]
struct LayerSizes {
    width: usize,
    inner: usize,
    heads: usize,
    /// Of how many layers it is one.
    depth: usize,
    activation: Activation,
    eps: f32,
    causal: bool,
}

/// Attention and a two-layer network, each behind a norm and beside a residual connection.
#[derive(Clone, Debug)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
    path: String,
}

impl EncoderLayer {
    fn load(sizes: LayerSizes, w: &Weights) -> Result<Self> {
        let LayerSizes {
            width,
            inner,
            heads,
            depth,
            activation,
            eps,
            causal,
        } = sizes;
        let mlp = w.at("mlp");
        // The deviations of CLIP's own initialisation.
        let fc1_std = (2.0 * width as f32).powf(-0.5);
        let fc2_std = (width as f32).powf(-0.5) * (2.0 * depth as f32).powf(-0.5);
        Ok(EncoderLayer {
            layer_norm1: LayerNorm::load(&w.at("layer_norm1"), width, eps)?,
            self_attn: Attention::load_clip(&w.at("self_attn"), width, heads, depth, causal)?,
            layer_norm2: LayerNorm::load(&w.at("layer_norm2"), width, eps)?,
            fc1: Linear::normal(&mlp.at("fc1"), width, inner, fc1_std)?,
            fc2: Linear::normal(&mlp.at("fc2"), inner, width, fc2_std)?,
            activation,
            path: mlp.path().to_owned(),
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.self_attn.forward(&self.layer_norm1.forward(x), x);
        let h = self.fc1.forward(&self.layer_norm2.forward(&x));
        let h = watch(&self.path, h.activation(self.activation));
        self.fc2.forward_onto(&h, &x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Value {
        json!({
            "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 49408,
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
            "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05,
        })
    }

    #[test]
    fn the_published_config_is_read_and_written() {
        let config = ClipTextConfig::from_json(&published()).unwrap();
        assert_eq!(
            (config.hidden_size, config.activation),
            (768, Activation::QuickGelu)
        );
        assert_eq!(
            ClipTextConfig::from_json(&config.to_json()).unwrap(),
            config
        );
        assert_eq!(config.to_json()["layer_norm_eps"], json!(1e-5));
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        for (field, value) in [
            ("hidden_act", json!("tanh")),
            ("num_attention_heads", json!(7)),
            ("vocab_size", json!(0)),
            ("model_type", json!("t5")),
            ("use_attention_mask", json!(true)),
        ] {
            let mut config = published();
            config[field] = value;
            let message = ClipTextConfig::from_json(&config).unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
