//! What a plan says, beside what a run then does.

mod common;

use std::path::Path;

use common::{config, prepare, run, weights};
use velatura_train::plan::{How, Plan};
use velatura_train::{Options, plan};

fn planned(file: &Path) -> Plan {
    let options = Options {
        threads: Some(2),
        ..Options::default()
    };
    plan(file, &options).unwrap()
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => bytes_below(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}

#[test]
fn a_plan_is_what_the_run_becomes_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let file = config(dir.path(), "run", &text);
    let plan = planned(&file);
    assert!(!dir.path().join("run").exists() && !dir.path().join("cache").exists());
    assert!(plan.obstacles.is_empty(), "{:?}", plan.obstacles);
    assert!(plan.seconds.is_some_and(|seconds| seconds > 0.0));
    assert!(plan.flops_per_step.is_some_and(|flops| flops > 0.0));
    assert_eq!(plan.memory.last().unwrap().how, How::Measured);
    let text = plan.to_string();
    for part in [
        "unet",
        "text_encoder",
        "activations, 2 at a time",
        "latents of 9 pictures",
        "It fits.",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }

    run(&file, false, None).unwrap();
    let checkpoint = dir.path().join("run/checkpoints/step-000008");
    for part in &plan.parameters {
        let (found, expected) = match part.part {
            "vae" => (weights(&dir.path().join("vae/model/vae")), part.frozen),
            trained => (weights(&checkpoint.join(trained)), part.trained),
        };
        let numbers: usize = found.values().map(Vec::len).sum();
        assert_eq!(numbers, expected, "{}", part.part);
    }
    // Beside the numbers there are names: not more than a few hundred bytes for each of some hundred tensors.
    let names = 400_000.0;
    let numbers: usize = plan.parameters.iter().map(|part| part.trained).sum();
    let found = bytes_below(&checkpoint) as f64 - 16.0 * numbers as f64;
    assert!((0.0..names).contains(&found), "{found}");
    // Two bytes each for mean and variance of 9 pictures' 8×8×4 latents.
    let cache = plan
        .disk
        .iter()
        .find(|amount| amount.what.contains("cache"));
    assert_eq!(cache.unwrap().value, 9.0 * 8.0 * 8.0 * 4.0 * 4.0);
}

#[test]
fn a_folder_of_pictures_is_planned_from_a_few_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let pictures = dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for (index, colour) in ["red", "green", "blue", "grey", "pink", "white"]
        .iter()
        .enumerate()
    {
        let picture = image::RgbImage::from_pixel(40, 48, image::Rgb([40 * index as u8, 9, 200]));
        picture.save(pictures.join(format!("{index}.png"))).unwrap();
        std::fs::write(
            pictures.join(format!("{index}.txt")),
            format!("all {colour}"),
        )
        .unwrap();
    }
    let kind = format!("kind = \"folder\"\npath = \"{}\"", pictures.display());
    let text = text
        .replace("kind = \"scenes\"", &kind)
        .replace("count = 9\n", "");
    let file = config(dir.path(), "run", &text);
    let plan = planned(&file);
    assert!(plan.to_string().contains("latents of 6 pictures"), "{plan}");
    // The vocabulary is that of all captions, not only of the few pictures that are encoded.
    run(&file, false, None).unwrap();
    let encoder = weights(&dir.path().join("run/checkpoints/step-000008/text_encoder"));
    let numbers: usize = encoder.values().map(Vec::len).sum();
    let planned = plan
        .parameters
        .iter()
        .find(|part| part.part == "text_encoder");
    assert_eq!(planned.unwrap().trained, numbers);
}

#[test]
fn what_does_not_fit_is_said_with_what_would_help() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    // A checkpoint after every step, and all of them kept.
    let text = text.replace("steps = 8", "steps = 1000000000");
    let text = text.replace("save_every = 3", "save_every = 1\nkeep = 1000000000");
    let plan = planned(&config(dir.path(), "run", &text));
    let [obstacle] = &plan.obstacles[..] else {
        panic!("{:?}", plan.obstacles);
    };
    assert!(obstacle.contains("[run] keep"), "{obstacle}");
}

#[test]
fn a_discriminator_is_planned_for_though_it_begins_later() {
    let dir = tempfile::tempdir().unwrap();
    let text = common::VAE.replace(
        "[vae]",
        "[discriminator]\nstart = 100\nnum_layers = 2\nndf = 4\n[vae]",
    );
    let with = planned(&config(dir.path(), "with", &text));
    let without = planned(&config(dir.path(), "without", common::VAE));
    let parts: Vec<&str> = with.parameters.iter().map(|part| part.part).collect();
    assert_eq!(parts, ["discriminator", "vae"]);
    assert!(with.flops_per_step > without.flops_per_step);
    assert!(with.disk_bytes > without.disk_bytes);
}
