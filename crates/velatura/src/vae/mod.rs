//! The autoencoder (`AutoencoderKL`; Kingma & Welling 2014, arXiv:1312.6114; Rombach et al. 2022): pictures to
//! latents and back.

mod blocks;
mod config;
mod decoder;
mod distribution;
mod encoder;

use velatura_tensor::Tensor;

pub use self::config::VaeConfig;
use self::decoder::Decoder;
pub use self::distribution::LatentDistribution;
use self::encoder::Encoder;
use crate::Result;
use crate::nn::{Conv2d, watch};
use crate::weights::Weights;

/// Encoder and decoder.
#[derive(Clone, Debug)]
pub struct AutoencoderKl {
    config: VaeConfig,
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
}

impl AutoencoderKl {
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(config: &VaeConfig, w: &Weights) -> Result<Self> {
        let z = config.latent_channels;
        Ok(AutoencoderKl {
            encoder: Encoder::load(config, &w.at("encoder"))?,
            quant_conv: config
                .use_quant_conv
                .then(|| Conv2d::load(&w.at("quant_conv").in_f32(), 2 * z, 2 * z, 1))
                .transpose()?,
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| Conv2d::load(&w.at("post_quant_conv").in_f32(), z, z, 1))
                .transpose()?,
            decoder: Decoder::load(config, &w.at("decoder"))?,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// x `[B, H, W, 3]` in [-1, 1]: a normal distribution over latents `[B, H/f, W/f, Z]`, not yet scaled
    /// ([`VaeConfig::scale`]). f is [`VaeConfig::factor`], and should divide H and W.
    pub fn encode(&self, x: &Tensor) -> LatentDistribution {
        LatentDistribution::from_moments(&self.encode_moments(x))
    }

    /// What the distribution is made from: `[B, H/f, W/f, 2·Z]`, the mean and the unclamped logarithm of the
    /// variance.
    pub fn encode_moments(&self, x: &Tensor) -> Tensor {
        let moments = self.encoder.forward(&watch("image", x.clone()));
        apply(&self.quant_conv, moments)
    }

    /// z `[B, h, w, Z]`, unscaled ([`VaeConfig::unscale`]): pictures `[B, f·h, f·w, 3]`, about [-1, 1].
    pub fn decode(&self, z: &Tensor) -> Tensor {
        self.decoder.forward(&self.decoder_input(z))
    }

    /// What the decoder's last layer makes pictures of: `[B, f·h, f·w, C]`.
    pub fn decoder_features(&self, z: &Tensor) -> Tensor {
        self.decoder.features(&self.decoder_input(z))
    }

    fn decoder_input(&self, z: &Tensor) -> Tensor {
        apply(&self.post_quant_conv, watch("latents", z.clone()))
    }

    /// The decoder's last layer, at which adversarial training weighs its losses against each other.
    pub fn last_layer(&self) -> &Conv2d {
        self.decoder.last_layer()
    }
}

fn apply(conv: &Option<Conv2d>, x: Tensor) -> Tensor {
    match conv {
        Some(conv) => conv.forward(&x),
        None => x,
    }
}
