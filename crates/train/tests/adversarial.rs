//! An autoencoder against a discriminator, and LPIPS, beside PyTorch's: the fixtures of
//! `fixtures/make_training_vae.py`. And whole runs with both, stopped and resumed.

mod common;

use std::fs;
use std::path::Path;

use common::fixtures::{distance, tensor, topic};
use common::{config, run, weights};
use serde_json::Value;
use velatura::checkpoint::{Component, TensorFile, read_config};
use velatura::vae::{AutoencoderKl, VaeConfig};
use velatura::weights::{Mode, Store};
use velatura_tensor::{Parameter, Precision, Tensor};
use velatura_train::VaeLoss;
use velatura_train::config::{Loss, Optimizer as Settings};
use velatura_train::discriminator::{Discriminator, Sizes};
use velatura_train::lpips::Lpips;
use velatura_train::optimizer::{Named, Optimizer};

#[test]
fn lpips_is_pytorchs() {
    let Some(folder) = topic("training_vae") else {
        return;
    };
    let lpips = Lpips::load(&folder.join("lpips.safetensors"), Precision::F32).unwrap();
    let case = TensorFile::open(&folder.join("lpips_case.safetensors")).unwrap();
    let picture = |name: &str| tensor(&case, name).nchw_to_nhwc();
    let x = Parameter::new("x", picture("x"));
    let found = lpips.distance(&x.value(), &picture("y"));
    let expected = tensor(&case, "distance").item();
    assert!((found.item() / expected - 1.0).abs() < 1e-5);
    let gradients = found.backward();
    let gradient = gradients.get(&x).unwrap().nhwc_to_nchw();
    let error = distance(gradient.as_slice(), tensor(&case, "gradient").as_slice());
    assert!(error < 1e-4, "the gradient is off by {error:.1e}");
    // A picture is as itself.
    assert_eq!(lpips.distance(&picture("x"), &picture("x")).item(), 0.0);
}

#[test]
fn both_players_go_the_way_of_pytorch() {
    let Some(folder) = topic("training_vae") else {
        return;
    };
    let record: Value = read_config(&folder.join("training.json")).unwrap();
    let number = |name: &str| record[name].as_f64().unwrap();
    let open = |name: &str| Component::open(&folder.join(name), None).unwrap();
    let component = open("vae");
    let vae_store = Store::load(&component, Mode::Training);
    let vae = AutoencoderKl::load(&VaeConfig::read(&component).unwrap(), &vae_store.root());
    let vae = vae.unwrap();
    vae_store.finish().unwrap();
    let sizes = Sizes {
        ndf: number("ndf") as usize,
        num_layers: number("num_layers") as usize,
    };
    let store = Store::load(&open("discriminator"), Mode::Training);
    let discriminator = Discriminator::load(sizes, &store.root()).unwrap();
    store.finish().unwrap();
    let lpips = Lpips::load(&folder.join("lpips.safetensors"), Precision::F32).unwrap();
    let loss = VaeLoss {
        settings: Loss {
            kl_weight: number("kl_weight") as f32,
            ..Loss::default()
        },
        lpips: Some((lpips, number("lpips_weight") as f32)),
        discriminator: Some((discriminator, number("disc_weight") as f32)),
    };
    let settings = Settings {
        learning_rate: number("learning_rate"),
        betas: [number("beta1"), number("beta2")],
        eps: number("eps"),
        weight_decay: number("weight_decay"),
        max_grad_norm: number("max_grad_norm"),
        ..Settings::default()
    };
    let mut optimizers = [("vae", &vae_store), ("discriminator", &store)].map(|(name, store)| {
        let named = store.parameters().into_iter().map(|parameter| Named {
            component: name,
            parameter,
        });
        Optimizer::new(&settings, u64::MAX, &named.collect::<Vec<_>>())
    });

    let batches = TensorFile::open(&folder.join("batches.safetensors")).unwrap();
    let [pixels, noise] = ["pixels", "noise"].map(|name| tensor(&batches, name));
    let of_step = |all: &Tensor, index: usize| {
        let one = all.narrow_batch(index, 1);
        one.reshape(&all.shape()[1..]).nchw_to_nhwc()
    };
    for (index, expected) in record["steps"].as_array().unwrap().iter().enumerate() {
        let step = index as u64 + 1;
        let (pixels, noise) = (of_step(&pixels, index), of_step(&noise, index));
        let losses = loss.of(&vae, &pixels, &noise, step >= number("start") as u64);
        let mut figures = losses.parts.clone();
        figures.push(("loss", losses.loss));
        for (name, found) in figures {
            // What does not take part yet is 0 here, and not there at all in PyTorch's record.
            let expected = expected[name].as_f64().unwrap_or(0.0);
            let error = (f64::from(found) - expected).abs() / expected.abs().max(0.1);
            assert!(
                error < 1e-3,
                "step {step}: {name} is {found}, PyTorch's {expected}"
            );
        }
        let gradients = losses.slope.backward();
        for optimizer in &mut optimizers {
            let norm = optimizer.gradient_norm(&gradients);
            optimizer.step(step, &gradients, norm);
        }
    }
    let last = TensorFile::open(&folder.join("final.safetensors")).unwrap();
    for named in optimizers.iter().flat_map(Optimizer::parameters) {
        let name = named.key().replace('/', ".");
        // A bias of keys shifts all scores of a query alike: its gradient is 0 but for rounding, of which Adam makes
        // steps of full length.
        if name.ends_with("to_k.bias") {
            continue;
        }
        let found = named.parameter.value();
        let error = distance(found.as_slice(), tensor(&last, &name).as_slice());
        assert!(error < 2e-3, "{name} is off by {error:.1e}");
    }
}

const CONFIG: &str = r#"
[run]
dir = "DIR"
seed = 3
steps = 7
batch_size = 2
accumulate = 2
save_every = 3
sample_every = 0
log_every = 1
export = "f32"
[data]
kind = "scenes"
size = 32
count = 6
[model]
part = "vae"
[vae]
in_channels = 3
out_channels = 3
latent_channels = 4
block_out_channels = [4, 8]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]
layers_per_block = 1
norm_num_groups = 2
[discriminator]
start = 4
num_layers = 2
ndf = 4
[lpips]
path = "LPIPS"
weight = 0.5
[optimizer]
learning_rate = 2e-3
"#;

/// Everything that the last checkpoint holds of both players, and what is exported.
fn everything(run: &Path) -> impl PartialEq + std::fmt::Debug + use<> {
    let last = run.join("checkpoints/step-000007");
    (
        weights(&last.join("vae")),
        weights(&last.join("discriminator")),
        fs::read(last.join("training.safetensors")).unwrap(),
        weights(&run.join("model/vae")),
    )
}

#[test]
fn both_players_resume_bit_for_bit() {
    let Some(folder) = topic("training_vae") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let lpips = folder.join("lpips.safetensors");
    let text = CONFIG.replace("LPIPS", &lpips.display().to_string());
    run(&config(dir.path(), "whole", &text), false, None).unwrap();
    let stopped = config(dir.path(), "stopped", &text);
    // Before the discriminator begins, and after.
    assert_eq!(run(&stopped, false, Some(2)).unwrap().step, 2);
    assert_eq!(run(&stopped, true, Some(3)).unwrap().step, 5);
    run(&stopped, true, None).unwrap();
    let [whole, stopped] = ["whole", "stopped"].map(|name| everything(&dir.path().join(name)));
    assert!(whole == stopped, "other weights after stops");

    // The discriminator waits until its step, and learns from then on; it is not exported.
    let at = |step: u64| {
        let checkpoint = format!("whole/checkpoints/step-{step:06}/discriminator");
        weights(&dir.path().join(checkpoint))
    };
    assert!(at(3) != at(6) && at(6) != at(7));
    assert!(!dir.path().join("whole/model/discriminator").exists());
    let rows = fs::read_to_string(dir.path().join("whole/metrics.jsonl")).unwrap();
    let rows: Vec<Value> = (rows.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let weights = rows.iter().map(|row| row["disc_weight"].as_f64().unwrap());
    let counts: Vec<bool> = weights.map(|weight| weight > 0.0).collect();
    assert_eq!(counts, [false, false, false, true, true, true, true]);

    // Another size of the discriminator would be another run.
    let other = config(dir.path(), "stopped", &text.replace("ndf = 4", "ndf = 8"));
    let error = run(&other, true, None).unwrap_err().to_string();
    assert!(error.contains("discriminator.ndf = 4"), "{error}");
}

#[test]
fn what_cannot_judge_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = |name: &str, text: &str| {
        let error = run(&config(dir.path(), name, text), false, None).unwrap_err();
        error.to_string()
    };
    let plain = CONFIG.split("[lpips]").next().unwrap();
    let small = plain.replace("num_layers = 2", "num_layers = 4");
    assert!(message("small", &small).contains("at least 48 pixels for [discriminator]"));

    let missing = CONFIG.replace("LPIPS", "nowhere.safetensors");
    assert!(message("missing", &missing).contains("nowhere.safetensors"));
    // A file of something else.
    let file = dir.path().join("other.safetensors");
    let tensors = [("weight".to_string(), Tensor::zeros(&[2]))];
    velatura::checkpoint::save_tensors(&file, tensors, velatura::checkpoint::FloatType::F32)
        .unwrap();
    let error = message(
        "other",
        &CONFIG.replace("LPIPS", &file.display().to_string()),
    );
    assert!(
        error.contains("net.slice1.0.weight") && error.contains("lpips.LPIPS"),
        "{error}"
    );
}
