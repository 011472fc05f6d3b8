//! Training a low-rank adaptation: beside PyTorch (fixtures/make_training_lora.py), and in whole runs.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::fixtures::{distance, integers, tensor, topic};
use common::{config, prepare, run, weights};
use serde_json::Value;
use velatura::checkpoint::{
    Component, LearnedWord, LoraFile, ModelFolder, TensorFile, read_config,
};
use velatura::diffusion::{Sampler, SchedulerConfig};
use velatura::nn::Adaptation;
use velatura::pipeline::{Model, Pipeline, PrecisionChoice, Request};
use velatura::unet::{Unet, UnetConfig};
use velatura::weights::{Mode, Store};
use velatura_tensor::Tensor;
use velatura_train::config::{Loss, Optimizer as Settings};
use velatura_train::optimizer::{Named, Optimizer};
use velatura_train::{Denoising, Ending, Example};

#[test]
fn twenty_steps_go_the_way_of_peft() {
    let (Some(folder), Some(models)) = (topic("lora"), topic("models")) else {
        return;
    };
    for recompute in [false, true] {
        follow(&folder, &models.join("sd15"), recompute);
    }
}

fn follow(folder: &Path, model: &Path, recompute: bool) {
    let record: Value = read_config(&folder.join("training.json")).unwrap();
    let number = |name: &str| record[name].as_f64().unwrap();
    let targets = record["targets"].as_array().unwrap();
    let adaptation = Adaptation {
        rank: number("rank") as usize,
        alpha: number("alpha") as f32,
        dropout: 0.0,
        targets: targets
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect(),
        seed: 1,
        clock: Arc::default(),
    };
    let component = Component::open(&model.join("unet"), None).unwrap();
    let store = Store::load(&component, Mode::Frozen).with_adapters(adaptation);
    let mut unet = Unet::load(&UnetConfig::read(&component).unwrap(), &store.root()).unwrap();
    store.finish().unwrap();
    unet.recompute = recompute;
    let file = TensorFile::open(&folder.join("training.safetensors")).unwrap();
    let parameters: Vec<Named> = store
        .parameters()
        .into_iter()
        .map(|parameter| Named {
            component: "unet",
            parameter,
        })
        .collect();
    let starts = file.names().filter(|name| name.starts_with("start."));
    assert_eq!(parameters.len(), starts.count());
    for named in &parameters {
        let start = tensor(&file, &format!("start.{}", named.parameter.name()));
        named.parameter.set(start);
    }

    let scheduler = fs::read_to_string(model.join("scheduler/scheduler_config.json")).unwrap();
    let scheduler = SchedulerConfig::from_json(&scheduler).unwrap();
    let denoising = Denoising::new(
        &scheduler.settings(Sampler::Ddpm).unwrap(),
        &Loss::default(),
    );
    let settings = Settings {
        learning_rate: number("learning_rate"),
        betas: [number("beta1"), number("beta2")],
        eps: number("eps"),
        weight_decay: number("weight_decay"),
        max_grad_norm: number("max_grad_norm"),
        ..Settings::default()
    };
    let [latents, noise, context] = ["latents", "noise", "context"].map(|name| tensor(&file, name));
    let times = integers(&file, "timesteps");
    let losses = record["losses"].as_array().unwrap();
    let batch = latents.dim(1);
    let mut optimizer = Optimizer::new(&settings, losses.len() as u64, &parameters);
    for (step, expected) in losses.iter().enumerate() {
        let of_step = |all: &Tensor| all.narrow_batch(step, 1).reshape(&all.shape()[1..]);
        let example = Example {
            latents: &of_step(&latents).nchw_to_nhwc(),
            noise: &of_step(&noise).nchw_to_nhwc(),
            timesteps: &times[step * batch..][..batch],
            context: &of_step(&context),
            importance: &[],
        };
        let loss = denoising.loss(&unet, &example);
        let (here, there) = (f64::from(loss.item()), expected.as_f64().unwrap());
        assert!(
            (here / there - 1.0).abs() < 1e-4,
            "step {step}: loss {here}, PyTorch's {there}"
        );
        let gradients = loss.backward();
        let norm = optimizer.gradient_norm(&gradients);
        optimizer.step(step as u64 + 1, &gradients, norm);
    }
    for named in &parameters {
        let name = named.parameter.name();
        let last = tensor(&file, &format!("final.{name}"));
        let error = distance(named.parameter.value().as_slice(), last.as_slice());
        assert!(error < 1e-3, "{name} is off by {error:.1e}");
    }
}

/// A base model in `dir`, and a config that adapts it.
fn adapted(dir: &Path) -> String {
    let (_, text) = prepare(dir);
    let text = text.replace("[run]", "[run]\nexport = \"f32\"");
    run(&config(dir, "base", &text), false, None).unwrap();
    let start = text.find("[unet]").unwrap();
    let end = text.find("[optimizer]").unwrap();
    let vae = text.find("vae = ").unwrap();
    let after = vae + text[vae..].find('\n').unwrap();
    let base = dir.join("base/model");
    format!(
        "{}base = \"{}\"{}[lora]\nrank = 2\nalpha = 4.0\ndropout = 0.25\ntext_targets = [\"q_proj\", \"fc1\"]\n{}",
        &text[..vae].replace("part = \"unet\"", "part = \"lora\""),
        base.display(),
        &text[after..start],
        &text[end..]
    )
}

#[test]
fn an_adaptation_is_learnt_resumed_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let text = adapted(dir.path());
    let whole = config(dir.path(), "whole", &text);
    assert_eq!(run(&whole, false, None).unwrap().ending, Ending::Finished);

    // Dropped inputs are a function of seed and step, so a resumed run drops the same.
    let stopped = config(dir.path(), "stopped", &text);
    assert_eq!(run(&stopped, false, Some(5)).unwrap().step, 5);
    run(&stopped, true, None).unwrap();
    let last = |run: &str| {
        let checkpoint = dir.path().join(run).join("checkpoints/step-000008");
        ["adapters.safetensors", "training.safetensors"]
            .map(|file| fs::read(checkpoint.join(file)).unwrap())
    };
    assert_eq!(last("whole"), last("stopped"));
    let folder = dir.path().join("whole/model");
    assert!(!folder.join("unet").exists());

    // Both files say the same, and change what the model paints.
    let base = || {
        Model::open(
            ModelFolder::open(&dir.path().join("base/model")).unwrap(),
            None,
        )
    };
    let paint = |model: Model| {
        let pipeline: Pipeline = model.load(PrecisionChoice::F32).unwrap();
        let request = Request {
            prompt: "a red car".into(),
            steps: Some(2),
            seed: Some(1),
            ..Request::default()
        };
        let plan = pipeline.model().plan(&request).unwrap();
        let painted = pipeline.paint(&plan, None, &mut |_| std::ops::ControlFlow::Continue(()));
        painted.unwrap().image.pixels().to_vec()
    };
    let with = |file: &str, strength: f32| {
        let lora = LoraFile::open(&folder.join(file)).unwrap();
        paint(base().unwrap().with_lora(lora, strength))
    };
    let plain = paint(base().unwrap());
    let ours = with("pytorch_lora_weights.safetensors", 1.0);
    assert_ne!(ours, plain);
    assert_eq!(with("pytorch_lora_weights.safetensors", 0.0), plain);
    let pairs = ours.iter().zip(with("whole.safetensors", 1.0));
    let furthest = pairs.map(|(&a, b)| a.abs_diff(b)).max();
    assert!(furthest <= Some(1), "{furthest:?}");
}

#[test]
fn adapting_changes_no_weight_of_the_base_and_needs_layers() {
    let dir = tempfile::tempdir().unwrap();
    let text = adapted(dir.path());
    let before = weights(&dir.path().join("base/model/unet"));
    let only_unet = text.replace("[model]", "[model]\ntrain_text_encoder = false");
    run(&config(dir.path(), "one", &only_unet), false, None).unwrap();
    assert_eq!(weights(&dir.path().join("base/model/unet")), before);
    let file = dir.path().join("one/model/one.safetensors");
    let names: Vec<String> = TensorFile::open(&file)
        .unwrap()
        .names()
        .map(str::to_owned)
        .collect();
    assert!(names.iter().all(|name| name.starts_with("lora_unet_")));

    let message = |name: &str, from: &str, to: &str| {
        let file = config(dir.path(), name, &text.replace(from, to));
        run(&file, false, None).unwrap_err().to_string()
    };
    let error = message("none", "[lora]", "[lora]\ntargets = [\"to_x\"]");
    assert!(error.contains("[lora] targets"), "{error}");
    let error = message("rank", "rank = 2", "rank = 0");
    assert!(error.contains("[lora] rank"), "{error}");
}

#[test]
fn a_word_is_learnt_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let text = adapted(dir.path());
    let lora = text.find("[lora]").unwrap();
    let end = text.find("[optimizer]").unwrap();
    let text = format!(
        "{}[embedding]\nword = \"<my-car>\"\ninit = \"car\"\n{}",
        text[..lora].replace("part = \"lora\"", "part = \"embedding\""),
        text[end..].replace("a red car", "a <my-car>")
    );
    // The captions have to speak of it.
    let pictures = dir.path().join("things");
    fs::create_dir(&pictures).unwrap();
    image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([(x * 8) as u8, (y * 8) as u8, 9]))
        .save(pictures.join("a.png"))
        .unwrap();
    let text = text
        .replace(
            "kind = \"scenes\"",
            &format!(
                "kind = \"folder\"\npath = \"{}\"\ncaption = \"a <my-car> on a lake\"",
                pictures.display()
            ),
        )
        .replace("count = 9", "");
    let whole = config(dir.path(), "whole", &text);
    assert_eq!(run(&whole, false, None).unwrap().ending, Ending::Finished);
    let stopped = config(dir.path(), "stopped", &text);
    run(&stopped, false, Some(3)).unwrap();
    run(&stopped, true, None).unwrap();
    let learned = |run: &str| {
        let file = dir
            .path()
            .join(run)
            .join("model/learned_embeds.safetensors");
        LearnedWord::open(&file).unwrap()
    };
    let word = learned("whole");
    assert_eq!(
        (word.word.as_str(), word.rows.shape()),
        ("<my-car>", &[1, 16][..])
    );
    assert_eq!(word.rows.to_vec(), learned("stopped").rows.to_vec());
    // It began as another word and has moved; a model that is taught it paints with it.
    let folder = ModelFolder::open(&dir.path().join("base/model")).unwrap();
    let base = Component::open(&dir.path().join("base/model/text_encoder"), None).unwrap();
    let table = base
        .tensor("text_model.embeddings.token_embedding.weight")
        .unwrap();
    let table = table.to_f32().unwrap();
    assert!(
        table
            .chunks_exact(16)
            .all(|row| row != word.rows.as_slice())
    );
    let model = Model::open(folder, None).unwrap().with_word(word);
    let pipeline = model.load(PrecisionChoice::F32).unwrap();
    let request = Request {
        prompt: "a <my-car>".into(),
        steps: Some(2),
        seed: Some(1),
        ..Request::default()
    };
    let plan = pipeline.model().plan(&request).unwrap();
    pipeline
        .paint(&plan, None, &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap();

    let file = config(dir.path(), "two", &text.replace("\"car\"", "\"red car\""));
    let error = run(&file, false, None).unwrap_err().to_string();
    assert!(error.contains("[embedding] init"), "{error}");
    let file = config(dir.path(), "known", &text.replace("<my-car>", "car</w>"));
    let error = run(&file, false, None).unwrap_err().to_string();
    assert!(error.contains("[embedding] word"), "{error}");
}

#[test]
fn a_subject_is_learnt_beside_its_class_which_the_base_paints() {
    let dir = tempfile::tempdir().unwrap();
    let text = adapted(dir.path());
    let pictures = dir.path().join("subject");
    fs::create_dir(&pictures).unwrap();
    for n in 0..3u8 {
        image::RgbImage::from_fn(32, 32, |x, y| {
            image::Rgb([(x * 8) as u8, (y * 8) as u8, n * 80])
        })
        .save(pictures.join(format!("{n}.png")))
        .unwrap();
    }
    let class = dir.path().join("class");
    let text = text
        .replace(
            "kind = \"scenes\"",
            &format!(
                "kind = \"folder\"\npath = \"{}\"\ncaption = \"a sks thing\"",
                pictures.display()
            ),
        )
        .replace("count = 9", "")
        .replace("[run]", "[run]\naccumulate = 2")
        .replace(
            "[lora]",
            &format!(
                "[prior]\npath = \"{}\"\ncaption = \"a red car\"\ncount = 2\n[lora]",
                class.display()
            ),
        );
    let whole = config(dir.path(), "whole", &text);
    assert_eq!(run(&whole, false, None).unwrap().ending, Ending::Finished);
    assert_eq!(fs::read_dir(&class).unwrap().count(), 2);
    // What is there is not painted again, and the class's choices are functions of the step like all others.
    let stopped = config(dir.path(), "stopped", &text);
    run(&stopped, false, Some(5)).unwrap();
    run(&stopped, true, None).unwrap();
    let last = |run: &str| {
        let run = dir.path().join(run);
        fs::read(run.join("checkpoints/step-000008/adapters.safetensors")).unwrap()
    };
    assert_eq!(last("whole"), last("stopped"));
    assert_eq!(fs::read_dir(&class).unwrap().count(), 2);
}
