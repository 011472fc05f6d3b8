//! CLIP's vision transformer: a picture in, one vector out.

use serde_json::Value;
use velatura_tensor::{Activation, Padding, Parameter, Tensor, Weight};

use super::{EncoderLayer, LayerSizes, activation};
use crate::fields::{Fields, check};
use crate::nn::LayerNorm;
use crate::weights::{Init, Weights};
use crate::{Error, Result};

/// What the `vision_config` of a CLIP model says.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// The side of its pictures in pixels.
    pub image_size: usize,
    /// The side of the squares that they are cut into.
    pub patch_size: usize,
    pub activation: Activation,
    pub layer_norm_eps: f32,
}

impl ClipVisionConfig {
    /// From `transformers`' JSON; what is missing there has its defaults, which are those of ViT-B/32.
    ///
    /// # Errors
    /// A field is impossible, or asks for what is not supported.
    pub fn from_json(config: &Value) -> Result<Self> {
        let fields = Fields::of_any_class(config)?;
        let name = fields.get_or("hidden_act", "quick_gelu".to_owned())?;
        let activation = activation(&name)
            .ok_or_else(|| Error::config("hidden_act", "\"quick_gelu\" or \"gelu\"", &name))?;
        let config = ClipVisionConfig {
            hidden_size: fields.get_or("hidden_size", 768)?,
            intermediate_size: fields.get_or("intermediate_size", 3072)?,
            num_hidden_layers: fields.get_or("num_hidden_layers", 12)?,
            num_attention_heads: fields.get_or("num_attention_heads", 12)?,
            image_size: fields.get_or("image_size", 224)?,
            patch_size: fields.get_or("patch_size", 32)?,
            activation,
            layer_norm_eps: fields.get_or("layer_norm_eps", 1e-5)?,
        };
        let (heads, patch) = (config.num_attention_heads, config.patch_size);
        check(
            config.hidden_size.is_multiple_of(heads),
            "hidden_size",
            || format!("a multiple of num_attention_heads = {heads}"),
            || config.hidden_size,
        )?;
        check(
            config.image_size.is_multiple_of(patch),
            "image_size",
            || format!("a multiple of patch_size = {patch}"),
            || config.image_size,
        )?;
        Ok(config)
    }

    /// Patches of a picture, and the class token before them.
    fn places(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }
}

/// The vision transformer.
#[derive(Clone, Debug)]
pub struct ClipVisionModel {
    config: ClipVisionConfig,
    class_embedding: Parameter,
    patch_embedding: Weight,
    position_embedding: Parameter,
    pre_layrnorm: LayerNorm,
    layers: Vec<EncoderLayer>,
    post_layernorm: LayerNorm,
}

impl ClipVisionModel {
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(config: &ClipVisionConfig, w: &Weights) -> Result<Self> {
        let w = w.at("vision_model");
        let embeddings = w.at("embeddings");
        let (width, patch) = (config.hidden_size, config.patch_size);
        let sizes = LayerSizes {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            depth: config.num_hidden_layers,
            activation: config.activation,
            eps: config.layer_norm_eps,
            causal: false,
        };
        Ok(ClipVisionModel {
            class_embedding: embeddings.parameter(
                "class_embedding",
                &[width],
                Init::Normal((width as f32).powf(-0.5)),
            )?,
            patch_embedding: embeddings.at("patch_embedding").conv_weight(
                "weight",
                [width, 3, patch, patch],
                patch,
                Padding::uniform(0),
                Init::Normal(0.02),
            )?,
            position_embedding: embeddings.at("position_embedding").parameter(
                "weight",
                &[config.places(), width],
                Init::Normal(0.02),
            )?,
            // The name is misspelt in every checkpoint.
            pre_layrnorm: LayerNorm::load(&w.at("pre_layrnorm"), width, config.layer_norm_eps)?,
            layers: (0..config.num_hidden_layers)
                .map(|i| EncoderLayer::load(sizes, &w.at("encoder").at("layers").at(i)))
                .collect::<Result<_>>()?,
            post_layernorm: LayerNorm::load(&w.at("post_layernorm"), width, config.layer_norm_eps)?,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// x `[B, S, S, 3]`, normalised, S its image_size: the pooled output `[B, D]`. Not for training: no gradient
    /// passes.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let patch = self.config.patch_size;
        let patches = x.conv2d(&self.patch_embedding, None, patch, Padding::uniform(0));
        let (batch, width, places) = (x.dim(0), self.config.hidden_size, self.config.places());
        let class = self.class_embedding.value();
        let positions = self.position_embedding.value();
        let mut tokens = Vec::with_capacity(batch * places * width);
        for patches in patches.as_slice().chunks_exact((places - 1) * width) {
            tokens.extend_from_slice(class.as_slice());
            tokens.extend_from_slice(patches);
        }
        for picture in tokens.chunks_exact_mut(places * width) {
            for (token, position) in picture.iter_mut().zip(positions.as_slice()) {
                *token += position;
            }
        }
        let mut x = Tensor::from_vec(tokens, &[batch, places, width]);
        x = self.pre_layrnorm.forward(&x);
        for layer in &self.layers {
            x = layer.forward(&x);
        }
        let first = x.as_slice().chunks_exact(places * width);
        let pooled = first
            .flat_map(|picture| &picture[..width])
            .copied()
            .collect();
        self.post_layernorm
            .forward(&Tensor::from_vec(pooled, &[batch, width]))
    }
}
