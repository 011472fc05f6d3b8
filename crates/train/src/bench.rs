//! Training steps to be measured: models of fixed sizes with random weights, on random numbers, optimiser included.
//!
//! `benches/peers/compare_training.py` builds the same models in PyTorch, so the sizes here stand there, too.

use serde_json::json;
use velatura::diffusion::{Sampler, SchedulerConfig};
use velatura::unet::{Unet, UnetConfig};
use velatura::vae::{AutoencoderKl, VaeConfig};
use velatura::weights::Store;
use velatura_tensor::random::TorchGenerator;
use velatura_tensor::{Parameter, Precision, Tensor};

use crate::config::{Loss, Optimizer as Settings};
use crate::denoising::{Denoising, Example};
use crate::error::Result;
use crate::models::named;
use crate::optimizer::Optimizer;
use crate::vae_loss::VaeLoss;

/// A model that takes training steps.
pub struct Bench {
    loss: Box<dyn Fn() -> Tensor>,
    optimizer: Optimizer,
    /// Samples in a step.
    pub batch: usize,
    /// Numbers that are trained.
    pub parameters: usize,
    steps: u64,
}

impl Bench {
    /// A UNet of 28.6 million parameters on latents `[16, 32, 32, 4]` and a context `[16, 77, 256]`, predicting noise.
    ///
    /// # Errors
    /// None that is not a bug here.
    pub fn unet(precision: Precision) -> Result<Bench> {
        let config = UnetConfig::from_json(&json!({
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": [96, 192, 384],
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "layers_per_block": 1,
            "norm_num_groups": 32,
            "attention_head_dim": 8,
            "cross_attention_dim": 256,
        }))?;
        let store = Store::init(1).with_products_in(precision);
        let unet = Unet::load(&config, &store.root())?;
        let settings = SchedulerConfig::from_value(json!({
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
        }))?
        .settings(Sampler::Ddpm)?;
        let denoising = Denoising::new(&settings, &Loss::default());
        let batch = 16;
        let latents = normal(1, &[batch, 32, 32, 4]);
        let noise = normal(2, &[batch, 32, 32, 4]);
        let context = normal(3, &[batch, 77, 256]);
        let timesteps: Vec<usize> = (0..batch).map(|sample| sample * 1000 / batch).collect();
        let loss = move || {
            denoising.loss(
                &unet,
                &Example {
                    latents: &latents,
                    noise: &noise,
                    timesteps: &timesteps,
                    context: &context,
                    importance: &[],
                },
            )
        };
        Ok(Bench::new(
            "unet",
            store.parameters(),
            batch,
            Box::new(loss),
        ))
    }

    /// The autoencoder of `configs/folder-vae.toml` on pictures `[8, 128, 128, 3]`, with L1 and KL.
    ///
    /// # Errors
    /// None that is not a bug here.
    pub fn vae(precision: Precision) -> Result<Bench> {
        let config = VaeConfig::from_json(&json!({
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": [64, 128, 256, 256],
            "down_block_types": vec!["DownEncoderBlock2D"; 4],
            "up_block_types": vec!["UpDecoderBlock2D"; 4],
            "layers_per_block": 1,
            "norm_num_groups": 32,
        }))?;
        let store = Store::init(1).with_products_in(precision);
        let vae = AutoencoderKl::load(&config, &store.root())?;
        let batch = 8;
        let pixels = normal(1, &[batch, 128, 128, 3]).clamp(-1.0, 1.0);
        let noise = normal(2, &[batch, 16, 16, 4]);
        let loss = VaeLoss {
            settings: Loss::default(),
            lpips: None,
            discriminator: None,
        };
        let loss = move || loss.of(&vae, &pixels, &noise, false).slope;
        Ok(Bench::new("vae", store.parameters(), batch, Box::new(loss)))
    }

    fn new(
        component: &'static str,
        parameters: Vec<Parameter>,
        batch: usize,
        loss: Box<dyn Fn() -> Tensor>,
    ) -> Bench {
        let parameters = named(component, &parameters);
        Bench {
            loss,
            optimizer: Optimizer::new(&Settings::default(), u64::MAX, &parameters),
            batch,
            parameters: parameters.iter().map(|named| named.len()).sum(),
            steps: 0,
        }
    }

    /// One step: forward, backward, clipping by the gradients' norm, AdamW. Returns the loss.
    pub fn step(&mut self) -> f32 {
        let loss = (self.loss)();
        let gradients = loss.backward();
        let norm = self.optimizer.gradient_norm(&gradients);
        self.steps += 1;
        self.optimizer.step(self.steps, &gradients, norm);
        loss.item()
    }
}

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let values = TorchGenerator::new(seed).randn(shape.iter().product());
    Tensor::from_vec(values, shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_are_the_peers() {
        // What `sum(p.numel() for p in model.parameters())` is in benches/peers/compare_training.py.
        let unet = Bench::unet(Precision::F32).unwrap();
        let vae = Bench::vae(Precision::F32).unwrap();
        assert_eq!([unet.parameters, vae.parameters], [28_557_508, 15_481_255]);
    }
}
