//! Twenty steps beside PyTorch's: the fixtures of `fixtures/make_training.py`.

mod common;

use std::path::PathBuf;

use common::fixtures::{distance, integers, tensor, topic};
use serde_json::Value;
use velatura::checkpoint::{Component, TensorFile, read_config};
use velatura::diffusion::{Sampler, SchedulerConfig};
use velatura::unet::{Unet, UnetConfig};
use velatura::weights::{Mode, Store};
use velatura_tensor::{Gpu, Tensor, device};
use velatura_train::config::{Loss, Optimizer as Settings};
use velatura_train::optimizer::{Named, Optimizer};
use velatura_train::{Denoising, Example};

#[test]
fn twenty_steps_go_the_way_of_pytorch() {
    follow_all();
}

#[test]
fn on_a_graphics_card_they_do_too() {
    device::on(&Gpu::for_tests(), follow_all);
}

fn follow_all() {
    let Some(folder) = topic("training") else {
        return;
    };
    let cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!cases.is_empty(), "{} is empty", folder.display());
    for case in cases {
        follow(&case);
    }
}

fn follow(case: &std::path::Path) {
    let record: Value = read_config(&case.join("training.json")).unwrap();
    let number = |name: &str| record[name].as_f64().unwrap();
    let component = Component::open(&case.join("unet"), None).unwrap();
    let store = Store::load(&component, Mode::Training);
    let unet = Unet::load(&UnetConfig::read(&component).unwrap(), &store.root()).unwrap();
    store.finish().unwrap();

    let text = std::fs::read_to_string(case.join("scheduler/scheduler_config.json")).unwrap();
    let settings = SchedulerConfig::from_json(&text)
        .unwrap()
        .settings(Sampler::Ddpm)
        .unwrap();
    let denoising = Denoising::new(&settings, &Loss::default());
    let settings = Settings {
        learning_rate: number("learning_rate"),
        betas: [number("beta1"), number("beta2")],
        eps: number("eps"),
        weight_decay: number("weight_decay"),
        max_grad_norm: number("max_grad_norm"),
        ..Settings::default()
    };
    let parameters: Vec<Named> = store
        .parameters()
        .into_iter()
        .map(|parameter| Named {
            component: "unet",
            parameter,
        })
        .collect();

    let batches = TensorFile::open(&case.join("batches.safetensors")).unwrap();
    let first = TensorFile::open(&case.join("first.safetensors")).unwrap();
    let [latents, noise, context] =
        ["latents", "noise", "context"].map(|name| tensor(&batches, name));
    let times = integers(&batches, "timesteps");
    let expected: Vec<f64> = record["losses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect();
    let norms: Vec<f64> = record["grad_norms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect();

    let mut optimizer = Optimizer::new(&settings, expected.len() as u64, &parameters);
    let batch = latents.dim(1);
    let of_step = |all: &Tensor, step: usize| all.narrow_batch(step, 1).reshape(&all.shape()[1..]);
    for (index, (&loss_there, &norm_there)) in expected.iter().zip(&norms).enumerate() {
        let example = Example {
            latents: &of_step(&latents, index).nchw_to_nhwc(),
            noise: &of_step(&noise, index).nchw_to_nhwc(),
            timesteps: &times[index * batch..][..batch],
            context: &of_step(&context, index),
            importance: &[],
        };
        let loss = denoising.loss(&unet, &example);
        let here = f64::from(loss.item());
        let error = (here / loss_there - 1.0).abs();
        assert!(
            error < 1e-4,
            "{}: step {index}: loss {here}, PyTorch's {loss_there}",
            case.display()
        );
        let gradients = loss.backward();
        if index == 0 {
            for named in &parameters {
                let name = named.parameter.name();
                let gradient = gradients
                    .get(&named.parameter)
                    .unwrap_or_else(|| panic!("{name} has no gradient"));
                let error = distance(gradient.as_slice(), tensor(&first, name).as_slice());
                assert!(
                    error < 1e-3,
                    "{}: gradient of {name} is off by {error:.1e}",
                    case.display()
                );
            }
        }
        let norm = optimizer.gradient_norm(&gradients);
        if index == 0 {
            // Later norms follow from weights that have begun to differ in their last digits, and a norm magnifies that
            // where the loss does not; the weights after the last step are compared below.
            assert!(
                (norm / norm_there - 1.0).abs() < 1e-4,
                "gradient norm {norm}, PyTorch's {norm_there}"
            );
        }
        optimizer.step(index as u64 + 1, &gradients, norm);
    }

    let last = TensorFile::open(&case.join("final.safetensors")).unwrap();
    let mut worst: f64 = 0.0;
    for named in &parameters {
        let name = named.parameter.name();
        let error = distance(
            named.parameter.value().as_slice(),
            tensor(&last, name).as_slice(),
        );
        assert!(
            error < 1e-3,
            "{}: {name} is off by {error:.1e}",
            case.display()
        );
        worst = worst.max(error);
    }
    println!(
        "{}: the weights are at most {worst:.1e} apart",
        case.display()
    );
}
