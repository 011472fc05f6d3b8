//! Twenty AdamW steps of a tiny UNet against PyTorch's (fixtures/make_training.py): every loss, the first
//! gradients, and the weights after the last step.

mod support;

use support::{Expected, folders, json, relative, topic};
use velatura::checkpoint::Component;
use velatura::unet::{Unet, UnetConfig};
use velatura::weights::{Mode, Store};
use velatura_kernels::optimizer::{self, AdamW};
use velatura_tensor::Tensor;

/// What issue 2 asks.
const LOSS_TOLERANCE: f64 = 1e-4;
const WEIGHT_TOLERANCE: f64 = 1e-3;
const GRADIENT_TOLERANCE: f64 = 1e-4;

/// ᾱ of the `scaled_linear` schedule.
fn alphas_cumprod(scheduler: &serde_json::Value) -> Vec<f64> {
    let field = |name: &str| scheduler[name].as_f64().unwrap();
    assert_eq!(scheduler["beta_schedule"], "scaled_linear");
    let (start, end) = (field("beta_start").sqrt(), field("beta_end").sqrt());
    let count = field("num_train_timesteps") as usize;
    (0..count)
        .scan(1.0, |product, i| {
            let beta = (start + (end - start) * i as f64 / (count - 1) as f64).powi(2);
            *product *= 1.0 - beta;
            Some(*product)
        })
        .collect()
}

/// The `step`-th slice of a stack `[N, …]`, channels last if it is a feature map.
fn slice(stack: &Tensor, step: usize) -> Tensor {
    let shape = &stack.shape()[1..];
    let slice = stack.narrow_batch(step, 1).reshape(shape);
    if shape.len() == 4 {
        slice.nchw_to_nhwc()
    } else {
        slice
    }
}

#[test]
fn twenty_steps_are_pytorchs() {
    let Some(dir) = topic("training") else { return };
    for case in folders(&dir) {
        for recompute in [false, true] {
            follow(&case, recompute);
        }
    }
}

fn follow(case: &std::path::Path, recompute: bool) {
    let record = json(&case.join("training.json"));
    let setting = |name: &str| record[name].as_f64().unwrap() as f32;
    let alphas = alphas_cumprod(&json(&case.join("scheduler/scheduler_config.json")));
    let batches = Expected::open(&case.join("batches.safetensors"));
    let (timesteps, shape) = batches.integers("timesteps");
    let [latents, noises, contexts] =
        ["latents", "noise", "context"].map(|name| batches.plain(name));

    let component = Component::open(&case.join("unet"), None).unwrap();
    let store = Store::load(&component, Mode::Training);
    let mut unet = Unet::load(&UnetConfig::read(&component).unwrap(), &store.root()).unwrap();
    store.finish().unwrap();
    unet.recompute = recompute;
    let parameters = store.parameters();
    let moments = || {
        parameters
            .iter()
            .map(|p| vec![0.0; p.value().len()])
            .collect::<Vec<_>>()
    };
    let (mut m, mut v) = (moments(), moments());
    let adamw = AdamW {
        learning_rate: setting("learning_rate"),
        beta1: setting("beta1"),
        beta2: setting("beta2"),
        eps: setting("eps"),
        weight_decay: setting("weight_decay"),
    };

    for (step, timesteps) in timesteps.chunks_exact(shape[1]).enumerate() {
        let (x0, noise, context) = (
            slice(&latents, step),
            slice(&noises, step),
            slice(&contexts, step),
        );
        let of = |f: fn(f64) -> f64| -> Vec<f32> {
            timesteps
                .iter()
                .map(|&t| f(alphas[t as usize]) as f32)
                .collect()
        };
        let (signal, sigma) = (of(f64::sqrt), of(|alpha| (1.0 - alpha).sqrt()));
        let x = x0.scale_samples(&signal).add(&noise.scale_samples(&sigma));
        let target = match record["prediction_type"].as_str().unwrap() {
            "epsilon" => noise,
            "v_prediction" => noise.scale_samples(&signal).sub(&x0.scale_samples(&sigma)),
            other => panic!("{other}"),
        };
        let t: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        let loss = unet.forward(&x, &t, &context).sub(&target).square().mean();
        let expected = record["losses"][step].as_f64().unwrap();
        let error = (f64::from(loss.item()) - expected).abs() / expected;
        assert!(
            error <= LOSS_TOLERANCE,
            "{}: loss of step {step} is off by {error:.2e}",
            case.display()
        );

        let gradients = loss.backward();
        let gradient = |i: usize| gradients.get(&parameters[i]).unwrap();
        if step == 0 {
            let first = Expected::open(&case.join("first.safetensors"));
            for (i, parameter) in parameters.iter().enumerate() {
                let error = relative(gradient(i), &first.plain(parameter.name()));
                assert!(
                    error <= GRADIENT_TOLERANCE,
                    "{}: gradient of {} is off by {error:.2e}",
                    case.display(),
                    parameter.name()
                );
            }
        }
        let square = |i| -> f64 {
            let gradient: &Tensor = gradient(i);
            gradient
                .as_slice()
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum()
        };
        let norm = (0..parameters.len()).map(square).sum::<f64>().sqrt();
        // PyTorch adds 1e-6 to the norm before it divides.
        let scale = (f64::from(setting("max_grad_norm")) / (norm + 1e-6)).min(1.0) as f32;
        for (i, parameter) in parameters.iter().enumerate() {
            let gradient = gradient(i).as_slice();
            parameter.update(|weights| {
                let (m, v) = (&mut m[i], &mut v[i]);
                optimizer::adamw(&adamw, step as u64 + 1, scale, weights, gradient, m, v);
            });
        }
    }

    let last = Expected::open(&case.join("final.safetensors"));
    let errors = parameters.iter().map(|p| {
        (
            relative(&p.value().detach(), &last.plain(p.name())),
            p.name(),
        )
    });
    let (error, name) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    println!(
        "{}: weights are off by at most {error:.1e} ({name})",
        case.display()
    );
    assert!(
        error <= WEIGHT_TOLERANCE,
        "{}: {name} is off by {error:.2e}",
        case.display()
    );
}
