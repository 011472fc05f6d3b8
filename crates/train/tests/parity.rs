//! Twenty steps beside PyTorch's: the fixtures of `fixtures/make_training.py`.

use std::path::PathBuf;

use serde_json::Value;
use velatura::checkpoint::{Component, TensorFile, read_config};
use velatura::diffusion::{LossWeight, NoiseSchedule, Sampler, SchedulerConfig};
use velatura::unet::{Unet, UnetConfig};
use velatura::weights::{Mode, Store};
use velatura_tensor::Tensor;
use velatura_train::config::Optimizer as Settings;
use velatura_train::optimizer::{Named, Optimizer};
use velatura_train::{Denoising, denoising_loss};

/// The folder of training fixtures; none where a folder given by the environment has no such topic.
fn fixtures() -> Option<PathBuf> {
    let (root, given) = match std::env::var_os("VELATURA_FIXTURES") {
        Some(root) => (PathBuf::from(root), true),
        None => (
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/data")),
            false,
        ),
    };
    let folder = root.join("training");
    if given && !folder.is_dir() {
        println!(
            "{} has no training fixtures: nothing to compare",
            root.display()
        );
        return None;
    }
    Some(folder)
}

fn tensor(file: &TensorFile, name: &str) -> Tensor {
    let view = file
        .tensor(name)
        .unwrap_or_else(|| panic!("no {name} in the fixture"));
    Tensor::from_vec(view.to_f32().unwrap(), view.shape)
}

/// ‖a − b‖ / ‖b‖
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    let size: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    (difference / size.max(1e-30)).sqrt()
}

#[test]
fn twenty_steps_go_the_way_of_pytorch() {
    let Some(folder) = fixtures() else { return };
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
    let denoising = Denoising {
        schedule: NoiseSchedule::new(&settings),
        predicts: settings.prediction_type,
        weight: LossWeight::Uniform,
    };
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
    let times = batches.tensor("timesteps").unwrap();
    let times: Vec<usize> = times
        .bytes
        .chunks_exact(8)
        .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as usize)
        .collect();
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
        let loss = denoising_loss(
            &unet,
            &denoising,
            &of_step(&latents, index).nchw_to_nhwc(),
            &of_step(&noise, index).nchw_to_nhwc(),
            &times[index * batch..][..batch],
            &of_step(&context, index),
        );
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
