//! Twenty steps beside PyTorch's for each objective that is more than a mean square: the fixtures of
//! `fixtures/make_training_objectives.py`.

mod common;

use std::path::Path;

use common::fixtures::{distance, integers, tensor, topic};
use serde_json::Value;
use velatura::checkpoint::{Component, TensorFile, read_config};
use velatura::diffusion::{Sampler, SchedulerConfig};
use velatura::unet::{Unet, UnetConfig};
use velatura::weights::{Mode, Store};
use velatura_tensor::{Gradients, Tensor};
use velatura_train::config::{DistanceKind, Loss, Optimizer as Settings};
use velatura_train::optimizer::{Named, Optimizer};
use velatura_train::{Denoising, Example, add_offsets};

#[test]
fn every_objective_goes_the_way_of_pytorch() {
    let Some(folder) = topic("training_objectives") else {
        return;
    };
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let accumulate = read_config::<Value>(&path).unwrap()["accumulate"].as_u64();
            follow(&folder, &path, accumulate.unwrap() as usize);
            // However the batch is cut, the step is the same within rounding.
            follow(&folder, &path, 4);
            cases += 1;
        }
    }
    assert!(cases >= 3, "{cases} cases in {}", folder.display());
}

fn follow(folder: &Path, case: &Path, accumulate: usize) {
    let record: Value = read_config(case).unwrap();
    let number = |name: &str| record[name].as_f64();
    let component = Component::open(&folder.join("unet"), None).unwrap();
    let store = Store::load(&component, Mode::Training);
    let unet = Unet::load(&UnetConfig::read(&component).unwrap(), &store.root()).unwrap();
    let parameters: Vec<Named> = store
        .parameters()
        .into_iter()
        .map(|parameter| Named {
            component: "unet",
            parameter,
        })
        .collect();
    let scheduler = SchedulerConfig::from_value(record["scheduler"].clone()).unwrap();
    let loss = Loss {
        min_snr_gamma: number("min_snr_gamma").map(|gamma| gamma as f32),
        distance: match number("huber_c") {
            Some(_) => DistanceKind::Huber,
            None => DistanceKind::L2,
        },
        huber_c: number("huber_c").unwrap_or(1.0) as f32,
        ..Loss::default()
    };
    let denoising = Denoising::new(&scheduler.settings(Sampler::Ddpm).unwrap(), &loss);
    let settings = Settings {
        learning_rate: number("learning_rate").unwrap(),
        betas: [number("beta1").unwrap(), number("beta2").unwrap()],
        eps: number("eps").unwrap(),
        weight_decay: number("weight_decay").unwrap(),
        max_grad_norm: number("max_grad_norm").unwrap(),
        ..Settings::default()
    };

    let file = TensorFile::open(&case.with_extension("safetensors")).unwrap();
    let [latents, noise, offsets, context] =
        ["latents", "noise", "offsets", "context"].map(|name| tensor(&file, name));
    let times = integers(&file, "timesteps");
    let losses = record["losses"].as_array().unwrap();
    let (steps, batch) = (losses.len(), latents.dim(1));
    let mut optimizer = Optimizer::new(&settings, steps as u64, &parameters);
    for (step, expected) in losses.iter().enumerate() {
        let of_step = |all: &Tensor| all.narrow_batch(step, 1).reshape(&all.shape()[1..]);
        let latents = of_step(&latents).nchw_to_nhwc();
        let mut noise = of_step(&noise).nchw_to_nhwc().to_vec();
        let offset = number("offset_noise").unwrap() as f32;
        add_offsets(
            &mut noise,
            of_step(&offsets).as_slice(),
            latents.channels(),
            offset,
        );
        let noise = Tensor::from_vec(noise, latents.shape());
        let context = of_step(&context);
        let mut gradients = Gradients::default();
        let mut here = 0.0;
        let size = batch / accumulate;
        for start in (0..batch).step_by(size) {
            let example = Example {
                latents: &latents.narrow_batch(start, size),
                noise: &noise.narrow_batch(start, size),
                timesteps: &times[step * batch + start..][..size],
                context: &context.narrow_batch(start, size),
                importance: &[],
            };
            let loss = denoising
                .loss(&unet, &example)
                .scale(1.0 / accumulate as f32);
            here += f64::from(loss.item());
            gradients.merge(loss.backward());
        }
        let there = expected.as_f64().unwrap();
        assert!(
            (here / there - 1.0).abs() < 1e-4,
            "{} in {accumulate} parts: step {step}: loss {here}, PyTorch's {there}",
            case.display()
        );
        let norm = optimizer.gradient_norm(&gradients);
        optimizer.step(step as u64 + 1, &gradients, norm);
    }
    for named in &parameters {
        let name = named.parameter.name();
        let last = tensor(&file, &format!("final.{name}"));
        let error = distance(named.parameter.value().as_slice(), last.as_slice());
        assert!(
            error < 1e-3,
            "{} in {accumulate} parts: {name} is off by {error:.1e}",
            case.display()
        );
    }
}
