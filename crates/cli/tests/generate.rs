//! `velatura generate`, as a person runs it.

mod common;

use std::fs;

use common::{Bench, models};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

const CAT: &str = "a photo of a cat";

#[test]
fn the_summary_and_the_picture_tell_the_recipe() {
    let bench = Bench::new();
    let args = [
        "-s",
        "4",
        "-g",
        "5",
        "--seed",
        "7",
        "--sampler",
        "euler",
        "--schedule",
        "karras",
    ];
    let said = bench.generate(
        &[
            &args,
            &["-n", "dark, blurry", "-o", "cat.png", "--json", CAT][..],
        ]
        .concat(),
    );
    let summary = said.json();
    assert_eq!(summary["seed"], 7);
    assert_eq!(summary["steps"], 4);
    assert_eq!(summary["sampler"], "euler");
    assert_eq!(summary["file"], "cat.png");
    assert_eq!(summary["precision"], "f32");
    for stage in [
        "load",
        "text_encoder",
        "sampling",
        "unet_step",
        "vae_decode",
        "write",
        "total",
    ] {
        assert!(
            summary["times_ms"][stage].as_f64().unwrap() >= 0.0,
            "{stage}"
        );
    }
    if cfg!(target_os = "linux") {
        assert!(summary["peak_memory_mb"].as_f64().unwrap() > 1.0);
    }
    assert_eq!(bench.files(), ["cat.png"]);

    let decoder = png::Decoder::new(std::io::Cursor::new(
        fs::read(bench.path("cat.png")).unwrap(),
    ));
    let reader = decoder.read_info().unwrap();
    let info = reader.info();
    assert_eq!((info.width, info.height), (64, 64));
    let text = |key: &str| {
        let chunk = info
            .uncompressed_latin1_text
            .iter()
            .find(|chunk| chunk.keyword == key);
        chunk.unwrap().text.clone()
    };
    let hash = summary["model"]["hash"].as_str().unwrap();
    assert_eq!(
        text("parameters"),
        format!(
            "{CAT}\nNegative prompt: dark, blurry\nSteps: 4, Sampler: Euler, Schedule type: Karras, CFG scale: 5, \
             Seed: 7, Size: 64x64, Model hash: {hash}, Model: sd15, Version: Velatura {}",
            env!("CARGO_PKG_VERSION")
        )
    );
    let own: serde_json::Value = serde_json::from_str(&text("velatura")).unwrap();
    assert_eq!(own["model"], json!({"name": "sd15", "hash": hash}));
    assert_eq!(
        (&own["seed"], &own["version"]),
        (&json!(7), &json!(env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn the_same_seed_paints_the_same_picture_and_nothing_is_overwritten() {
    let bench = Bench::new();
    for _ in 0..2 {
        let said = bench.generate(&["-s", "2", "--seed", "3", CAT]);
        assert_eq!(
            (said.status, said.stdout.as_str()),
            (0, ""),
            "{}",
            said.stderr
        );
    }
    assert_eq!(
        bench.files(),
        ["a-photo-of-a-cat-3-2.png", "a-photo-of-a-cat-3.png"]
    );
    let [first, second] = ["a-photo-of-a-cat-3.png", "a-photo-of-a-cat-3-2.png"]
        .map(|name| fs::read(bench.path(name)).unwrap());
    assert_eq!(first, second);

    // Without a seed one is drawn, and told.
    let seeds = [(), ()].map(|()| {
        bench
            .generate(&["-s", "1", "-o", "x.png", "--json", CAT])
            .json()["seed"]
            .clone()
    });
    assert_ne!(seeds[0], seeds[1]);
}

#[test]
fn the_trace_has_every_intermediate() {
    let bench = Bench::new();
    for (guidance, sampler) in [("7.5", "pndm"), ("1", "euler")] {
        let said = bench.generate(&[
            "-s",
            "3",
            "-g",
            guidance,
            "--seed",
            "1",
            "--sampler",
            sampler,
            "-n",
            "dark",
            "-o",
            "a.png",
            "--trace",
            "a.safetensors",
            CAT,
        ]);
        assert_eq!(said.status, 0, "{}", said.stderr);
        let bytes = fs::read(bench.path("a.safetensors")).unwrap();
        let trace = SafeTensors::deserialize(&bytes).unwrap();
        let shape = |name: &str| trace.tensor(name).unwrap().shape().to_vec();
        assert_eq!(trace.tensor("input_ids").unwrap().dtype(), Dtype::I64);
        assert_eq!(shape("input_ids"), [2, 77]);
        assert_eq!(shape("context")[..2], [2, 77]);
        let latents = shape("noise");
        assert_eq!(latents[..2], [1, 4]);
        assert_eq!(shape("image"), [1, 3, 64, 64]);
        let timesteps = shape("timesteps");
        assert_eq!(timesteps.len(), 1);
        for step in 0..timesteps[0] {
            assert_eq!(shape(&format!("latents.{step}")), latents);
        }
        assert_eq!(trace.tensor("sigmas").is_ok(), sampler == "euler");
        assert!(trace.names().into_iter().all(|name| {
            name == "input_ids" || trace.tensor(name).unwrap().dtype() == Dtype::F32
        }));
    }
    assert_eq!(bench.files(), ["a.png", "a.safetensors"]);
}

#[test]
fn texts_of_any_length_are_painted() {
    let bench = Bench::new();
    let said = bench.generate(&["-s", "1", "-o", "a.png", ""]);
    assert_eq!(said.status, 0, "{}", said.stderr);
    assert!(said.stderr.contains("prompt is empty"), "{}", said.stderr);

    let long = (0..10_000).map(|i| format!("word{i} ")).collect::<String>();
    let said = bench.generate(&["-s", "1", "-o", "a.png", "--json", &long]);
    assert!(said.stderr.contains("was cut off: "), "{}", said.stderr);
    assert!(
        said.stderr.contains("word9999") || said.stderr.contains("words more"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.len() < 2000);
    let summary = said.json();
    assert_eq!(
        summary["prompt_cut"].as_array().unwrap().last().unwrap(),
        "word9999"
    );
}

#[test]
fn both_precisions_run_and_agree_roughly() {
    let bench = Bench::new();
    let model = models().join("sd21");
    let picture = |precision: &str| {
        let output = format!("{precision}.png");
        let said = bench.run(&[
            "generate",
            "-m",
            model.to_str().unwrap(),
            "-s",
            "3",
            "--seed",
            "5",
            "--width",
            "64",
            "--height",
            "64",
            "--precision",
            precision,
            "--threads",
            "2",
            "-o",
            &output,
            "--json",
            CAT,
        ]);
        assert_eq!(said.json()["precision"], precision);
        let mut reader =
            png::Decoder::new(std::io::Cursor::new(fs::read(bench.path(&output)).unwrap()))
                .read_info()
                .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    };
    let (f32, bf16) = (picture("f32"), picture("bf16"));
    let sum: u64 = f32
        .iter()
        .zip(&bf16)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    let mean = sum as f64 / f32.len() as f64;
    // bf16 has 8 significant bits: it must differ from f32, and only a little.
    assert!(mean > 0.0 && mean < 16.0, "mean difference {mean}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_no_file() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let bench = Bench::new();
    let mut child = bench
        .command()
        .args([
            "generate",
            "-m",
            models().join("sd15").to_str().unwrap(),
            "--sampler",
            "ddim",
        ])
        .args([
            "-s",
            "900",
            "--width",
            "256",
            "--height",
            "256",
            "-o",
            "a.png",
            "--trace",
            "a.safetensors",
            CAT,
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.starts_with("step "));
    assert!(first.is_some());
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(bench.files(), [] as [&str; 0]);
}

#[test]
fn without_a_model_the_embedded_one_paints() {
    let bench = Bench::new();
    let args = [
        "generate",
        "-s",
        "2",
        "--seed",
        "1",
        "-o",
        "a.png",
        "a red car on a beach at sunset",
    ];
    if velatura_models::DEFAULT.is_empty() {
        bench
            .run(&args)
            .fails(1, &["without an embedded model", "--model"]);
        return;
    }
    let said = bench.run(&args);
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (0, ""),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains(velatura_models::DEFAULT_NAME),
        "{}",
        said.stderr
    );
    assert_eq!(bench.files(), ["a.png"]);
    assert!(!said.stderr.contains("never seen"), "{}", said.stderr);

    let prompt = "a red car and a cathedral, in oil";
    let said = bench.run(&["generate", "-s", "1", "--seed", "1", "-o", "b.png", prompt]);
    let note = r#"never seen "cathedral", "oil""#;
    for part in [note, " car,", "--model"] {
        assert!(said.stderr.contains(part), "{part:?}: {}", said.stderr);
    }
}
