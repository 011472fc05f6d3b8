//! What judges an autoencoder's pictures beside the pixels: a discriminator, and a perceptual distance.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[discriminator]` (part "vae"): a PatchGAN (Isola et al. 2017, arXiv:1611.07004) that learns to tell pictures from
/// reconstructions, as in latent diffusion (Rombach et al. 2022, arXiv:2112.10752, appendix G).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discriminator {
    /// The step with which it begins (`disc_start`): before it, there is little to judge.
    pub start: u64,
    /// How much it counts (`disc_weight`), on top of the weight that makes its gradient as large as the
    /// reconstruction's at the decoder's last layer.
    #[serde(default = "defaults::weight")]
    pub weight: f32,
    /// Layers that halve the picture (`disc_num_layers`).
    #[serde(default = "defaults::num_layers")]
    pub num_layers: usize,
    /// Channels of the first layer; each next one has twice as many, up to eight times.
    #[serde(default = "defaults::ndf")]
    pub ndf: usize,
    /// That of `[optimizer]` if absent; warm-up and decay are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Adam's β₁ and β₂, without weight decay.
    #[serde(default = "defaults::betas")]
    pub betas: [f64; 2],
}

/// `[lpips]` (part "vae"): the distance between features of a VGG16 (Zhang et al. 2018, arXiv:1801.03924).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lpips {
    /// A safetensors file with the weights of `lpips.LPIPS(net="vgg")`.
    pub path: PathBuf,
    /// How much it counts beside the reconstruction (`perceptual_weight`).
    #[serde(default = "defaults::one")]
    pub weight: f32,
}

impl Discriminator {
    /// The first field that cannot be.
    pub(super) fn check(&self) -> Result<(), String> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let fault = if !(1..=6).contains(&self.num_layers) {
            format!("num_layers: expected 1 to 6, found {}", self.num_layers)
        } else if !(1..=1024).contains(&self.ndf) {
            format!("ndf: expected 1 to 1024, found {}", self.ndf)
        } else if !positive(self.weight.into()) {
            format!("weight: expected a number above 0, found {}", self.weight)
        } else if let Some(rate) = self.learning_rate.filter(|&rate| !positive(rate)) {
            format!("learning_rate: expected a number above 0, found {rate}")
        } else if let Some(beta) = self.betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
            format!("betas: expected 0 ≤ β < 1, found {beta}")
        } else {
            return Ok(());
        };
        Err(format!("[discriminator] {fault}"))
    }
}

impl Lpips {
    /// The first field that cannot be.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.weight.is_finite() && self.weight > 0.0 {
            Ok(())
        } else {
            let found = self.weight;
            Err(format!(
                "[lpips] weight: expected a number above 0, found {found}"
            ))
        }
    }
}

mod defaults {
    pub fn weight() -> f32 {
        0.5
    }
    pub fn num_layers() -> usize {
        3
    }
    pub fn ndf() -> usize {
        64
    }
    pub fn betas() -> [f64; 2] {
        [0.5, 0.9]
    }
    pub fn one() -> f32 {
        1.0
    }
}
