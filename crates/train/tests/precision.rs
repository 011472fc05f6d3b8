//! How far gradients are from those of f32 where the products are taken in bf16.

use serde_json::json;
use velatura::diffusion::{Sampler, SchedulerConfig};
use velatura::unet::{Unet, UnetConfig};
use velatura::weights::Store;
use velatura_tensor::random::TorchGenerator;
use velatura_tensor::{Precision, Tensor};
use velatura_train::config::Loss;
use velatura_train::{Denoising, Example};

/// What `benches/peers/gradient_errors.py` gives for a model of these sizes: PyTorch's bf16 autocast, all parameters
/// together.
const PYTORCH: f64 = 1.7e-2;

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let values = TorchGenerator::new(seed).randn(shape.iter().product());
    Tensor::from_vec(values, shape)
}

/// The gradients of a UNet whose convolutions are wide enough, and have pixels enough, for every algorithm.
fn gradients(precision: Precision) -> Vec<f32> {
    let config = UnetConfig::from_json(&json!({
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [64, 128],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 32,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
    }))
    .unwrap();
    let store = Store::init(1).with_products_in(precision);
    let unet = Unet::load(&config, &store.root()).unwrap();
    let settings = SchedulerConfig::from_value(json!({
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
    }))
    .unwrap()
    .settings(Sampler::Ddpm)
    .unwrap();
    let loss = Denoising::new(&settings, &Loss::default()).loss(
        &unet,
        &Example {
            latents: &normal(1, &[8, 16, 16, 4]),
            noise: &normal(2, &[8, 16, 16, 4]),
            timesteps: &[100, 200, 300, 400, 500, 600, 700, 800],
            context: &normal(3, &[8, 9, 32]),
            importance: &[],
        },
    );
    let gradients = loss.backward();
    let of = |parameter| gradients.get(parameter).unwrap().to_vec();
    store.parameters().iter().flat_map(of).collect()
}

#[test]
fn gradients_in_bf16_are_as_near_as_pytorchs() {
    let (exact, rounded) = (gradients(Precision::F32), gradients(Precision::Bf16));
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = rounded.iter().zip(&exact);
    let off = norm(&mut pairs.map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let relative = off / norm(&mut exact.iter().map(|&x| f64::from(x)));
    println!("relative error of the gradients {relative:.2e}");
    assert!(relative < PYTORCH, "relative error {relative:e}");
    // Weights in bf16 are rounded on every machine.
    assert!(relative > 0.0);
}
