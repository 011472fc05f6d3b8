//! The other commands, and the help.

mod common;

use std::fs;

use common::{Bench, models};
use serde_json::Value;

#[test]
fn every_command_has_help_with_examples() {
    let bench = Bench::new();
    for command in [
        &["generate"][..],
        &["train"],
        &["scenes", "render"],
        &["evaluate", "vae"],
        &["evaluate", "prompts"],
        &["evaluate", "distance"],
        &["evaluate", "clip"],
        &["evaluate", "nearest"],
        &["bench"],
    ] {
        let said = bench.run(&[command, &["--help"]].concat());
        assert_eq!(said.status, 0);
        let example = format!("Examples:\n  velatura {}", command.join(" "));
        assert!(said.stdout.contains(&example), "{}", said.stdout);
    }
    let said = bench.run(&["--version"]);
    assert_eq!(
        said.stdout,
        format!("velatura {}\n", env!("CARGO_PKG_VERSION"))
    );
    let said = bench.run(&["generate", "--help"]);
    for name in [
        "pndm",
        "ddpm",
        "ddim",
        "euler",
        "heun",
        "karras",
        "exponential",
        "--trace",
        "--json",
    ] {
        assert!(
            said.stdout.contains(name),
            "{name} is not in: {}",
            said.stdout
        );
    }
}

#[test]
fn bench_measures_every_stage() {
    let bench = Bench::new();
    let model = models().join("sd15");
    let args = [
        "bench",
        "--model",
        model.to_str().unwrap(),
        "--width",
        "64",
        "--height",
        "64",
        "--repeat",
        "1",
    ];
    let report = bench
        .run(&[&args[..], &["--precision", "f32", "--json"]].concat())
        .json();
    for name in [
        "text_encoder_ms",
        "unet_step_ms",
        "vae_encode_ms",
        "vae_decode_ms",
        "peak_rss_mb",
    ] {
        assert!(
            report[name].as_f64().is_some_and(|value| value > 0.0),
            "{name}: {report}"
        );
    }
    let said = bench.run(&args);
    assert_eq!(said.status, 0, "{}", said.stderr);
    assert!(said.stdout.contains("unet_step_ms"), "{}", said.stdout);

    let some = [
        "--stages",
        "unet_step,vae_decode",
        "--trace",
        "t.safetensors",
    ];
    let said = bench.run(&[&args[..], &some].concat());
    assert_eq!(said.status, 0, "{}", said.stderr);
    assert!(!said.stdout.contains("vae_encode"), "{}", said.stdout);
    let bytes = std::fs::read(bench.path("t.safetensors")).unwrap();
    let trace = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name| trace.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("unet_step"), shape("latents"));
    assert_eq!(shape("vae_decode"), [1, 3, 64, 64]);
    assert!(trace.tensor("vae_encode").is_err());
}

#[test]
fn scenes_are_drawn_with_captions() {
    let bench = Bench::new();
    let said = bench.run(&[
        "scenes", "render", "--count", "3", "--seed", "1", "--size", "64", "--out", "scenes",
    ]);
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (0, ""),
        "{}",
        said.stderr
    );
    let lines = fs::read_to_string(bench.path("scenes/metadata.jsonl")).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert!(!line["text"].as_str().unwrap().is_empty());
        assert!(line["truth"].is_object());
        assert!(
            bench
                .path("scenes")
                .join(line["file_name"].as_str().unwrap())
                .is_file()
        );
    }
    // As a training config has them.
    let config = "[run]\ndir = \"run\"\nsteps = 1\nbatch_size = 1\n[data]\nkind = \"scenes\"\nsize = 64\n\
                  [data.scenes]\nnouns = [\"snowman\"]\n[model]\npart = \"scorer\"\n";
    fs::write(bench.path("run.toml"), config).unwrap();
    let said = bench.run(&[
        "scenes", "render", "--count", "3", "--seed", "1", "--config", "run.toml", "--out",
        "snowmen",
    ]);
    assert_eq!(said.status, 0, "{}", said.stderr);
    let lines = fs::read_to_string(bench.path("snowmen/metadata.jsonl")).unwrap();
    let all = lines.matches("\"noun\":").count();
    assert!(all >= 3, "{lines}");
    assert_eq!(lines.matches("\"noun\":\"snowman\"").count(), all);
    // A folder with something in it is left alone.
    bench
        .run(&[
            "scenes", "render", "--count", "3", "--seed", "1", "--out", "scenes",
        ])
        .fails(1, &["scenes"]);
    bench
        .run(&[
            "scenes",
            "render",
            "--count",
            "3",
            "--seed",
            "1",
            "--sprites",
            "nowhere",
            "--out",
            "more",
        ])
        .fails(1, &["nowhere"]);
    assert_eq!(bench.files(), ["run.toml", "scenes", "snowmen"]);
}
