//! How far gradients are from those of f32 where the products are taken in bf16.

use serde_json::json;
use velatura::diffusion::{Sampler, SchedulerConfig};
use velatura::unet::{Unet, UnetConfig};
use velatura::weights::Store;
use velatura_tensor::random::TorchGenerator;
use velatura_tensor::{Gpu, Precision, Tensor, device};
use velatura_train::config::Loss;
use velatura_train::{Denoising, Example};

/// What `benches/peers/gradient_errors.py` gives for models of these sizes: PyTorch's bf16 autocast, all parameters
/// together, the mean over eight seeds, of which one is 1.4e-2 to 1.9e-2.
const PYTORCH: f64 = 1.72e-2;

/// Weights and inputs are drawn so often: the error of one draw says little, as PyTorch's own spread shows.
const DRAWS: u64 = 4;

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let values = TorchGenerator::new(seed).randn(shape.iter().product());
    Tensor::from_vec(values, shape)
}

/// The gradients of a UNet whose convolutions are wide enough, and have pixels enough, for every algorithm.
fn gradients(seed: u64, precision: Precision, batch: usize) -> Vec<f32> {
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
    let store = Store::init(seed).with_products_in(precision);
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
            latents: &normal(3 * seed, &[batch, 16, 16, 4]),
            noise: &normal(3 * seed + 1, &[batch, 16, 16, 4]),
            timesteps: &[100, 200, 300, 400, 500, 600, 700, 800][8 - batch..],
            context: &normal(3 * seed + 2, &[batch, 9, 32]),
            importance: &[],
        },
    );
    let gradients = loss.backward();
    let of = |parameter| gradients.get(parameter).unwrap().to_vec();
    store.parameters().iter().flat_map(of).collect()
}

/// ‖bf16 − f32‖ / ‖f32‖, with bf16 on a card if one is given.
fn error(seed: u64, batch: usize, on: Option<&Gpu>) -> f64 {
    let exact = gradients(seed, Precision::F32, batch);
    let rounded = device::maybe_on(on, || gradients(seed, Precision::Bf16, batch));
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = rounded.iter().zip(&exact);
    let off = norm(&mut pairs.map(|(&a, &b)| f64::from(a) - f64::from(b)));
    off / norm(&mut exact.iter().map(|&x| f64::from(x)))
}

fn check(draws: u64, batch: usize, on: Option<&Gpu>) {
    let errors: Vec<f64> = (1..=draws).map(|seed| error(seed, batch, on)).collect();
    let mean = errors.iter().sum::<f64>() / draws as f64;
    println!("relative errors of the gradients {errors:.4?}, mean {mean:.2e}");
    assert!(mean < PYTORCH, "mean {mean:e} of {errors:.4?}");
    // Weights in bf16 are rounded on every machine.
    assert!(errors.iter().all(|&error| error > 0.0));
}

#[test]
fn gradients_in_bf16_are_as_near_as_pytorchs() {
    check(DRAWS, 8, None);
}

/// The emulated card is slow, so there is one draw, of two pictures.
#[test]
fn those_of_a_graphics_card_are_too() {
    check(1, 2, Some(&Gpu::for_tests()));
}
