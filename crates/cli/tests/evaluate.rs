//! `velatura evaluate`, on tiny models and a scorer that has hardly learnt.

mod common;

use std::fs;

use common::{Bench, models};

const SCORER: &str = r#"
[run]
dir = "scorer"
steps = 2
batch_size = 2
sample_every = 0
[data]
kind = "scenes"
size = 64
[model]
part = "scorer"
[scorer]
block_out_channels = [8, 8, 16, 16]
"#;

#[test]
fn every_question_is_answered() {
    let bench = Bench::new();
    let model = models().join("sd15");
    let model = model.to_str().unwrap();
    fs::write(bench.path("scorer.toml"), SCORER).unwrap();
    let said = bench.run(&["train", "scorer.toml"]);
    assert_eq!(said.status, 0, "{}", said.stderr);

    let report = bench
        .run(&[
            "evaluate", "vae", "-m", model, "--count", "2", "--size", "64", "--json",
        ])
        .json();
    assert_eq!(report["pictures"], 2);
    assert!(report["psnr"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["ssim"].as_f64().unwrap() < 1.0, "{report}");

    let scorer = ["--scorer", "scorer/model"];
    let few = [
        "--prompts",
        "3",
        "--seeds",
        "1",
        "--proof",
        "4",
        "--steps",
        "2",
        "--batch",
        "2",
    ];
    let prompts = [&["evaluate", "prompts", "-m", model][..], &few, &scorer].concat();
    let said = bench.run(&[&prompts[..], &["--html", "page.html"]].concat());
    assert_eq!(said.status, 0, "{}", said.stderr);
    for words in [
        "all together",
        "unseen combinations",
        "worth on 4 scenes",
        "≥ 99 %",
    ] {
        assert!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
    assert!(said.stderr.contains("proof 4/4"), "{}", said.stderr);
    assert!(said.stderr.contains("picture 3/3"), "{}", said.stderr);
    let page = fs::read_to_string(bench.path("page.html")).unwrap();
    assert_eq!(page.matches("<figure>").count(), 3);
    let report = bench.run(&[&prompts[..], &["--json"]].concat()).json();
    assert_eq!(report["verdicts"].as_array().unwrap().len(), 3);
    assert_eq!(report["seen"]["all"]["of"], 2);
    assert_eq!(report["proof"]["drawings"]["setting"]["of"], 4);

    // Without a config only that is asked for which the scorer knows; an embedded one may be older than some scenes.
    let embedded = [
        "evaluate",
        "prompts",
        "-m",
        model,
        "--prompts",
        "1",
        "--seeds",
        "1",
        "--proof",
        "2",
        "--steps",
        "1",
        "--json",
    ];
    let report = bench.run(&embedded).json();
    assert_eq!(report["verdicts"].as_array().unwrap().len(), 1, "{report}");

    for (folder, seed) in [("a", "1"), ("b", "2")] {
        let said = bench.run(&[
            "scenes", "render", "--count", "4", "--seed", seed, "--size", "64", "--out", folder,
        ]);
        assert_eq!(said.status, 0, "{}", said.stderr);
    }
    let distance = [&["evaluate", "distance", "a", "b", "--json"][..], &scorer].concat();
    let report = bench.run(&distance).json();
    assert!(report["fid"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["network"], "scene scorer");
    let nearest = [
        "evaluate",
        "nearest",
        "a",
        "--training",
        "a",
        "--held-out",
        "b",
        "--json",
    ];
    let report = bench.run(&[&nearest[..], &scorer].concat()).json();
    // What was painted are the very pictures of the training.
    assert!(
        report["painted"]["median"].as_f64().unwrap() < 1e-3,
        "{report}"
    );
    assert_eq!(report["nearer_than_first_percentile"], 1.0);

    let clip = models().with_file_name("clip");
    if clip.is_dir() {
        let clip = clip.to_str().unwrap();
        let report = bench
            .run(&["evaluate", "clip", "a", "--clip", clip, "--json"])
            .json();
        assert_eq!(report["pictures"], 4);
        assert!((0.0..=100.0).contains(&report["clip_score"].as_f64().unwrap()));
    }
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    let bench = Bench::new();
    let model = models().join("sd15");
    let model = model.to_str().unwrap();
    fs::create_dir(bench.path("empty")).unwrap();
    let vae = ["evaluate", "vae", "-m", model];
    bench
        .run(&[&vae[..], &["--pictures", "nowhere"]].concat())
        .fails(1, &["nowhere"]);
    bench
        .run(&[&vae[..], &["--pictures", "empty"]].concat())
        .fails(1, &["empty", "found none"]);
    bench
        .run(&["evaluate", "prompts", "-m", model, "--scorer", "empty"])
        .fails(1, &["empty", "config.json"]);
    bench
        .run(&[
            "evaluate",
            "distance",
            "a",
            "b",
            "--inception",
            "none.safetensors",
        ])
        .fails(1, &["none.safetensors"]);
    bench
        .run(&["evaluate", "clip", "empty", "--clip", "empty"])
        .fails(1, &["empty", "config.json"]);
    assert_eq!(bench.files(), ["empty"]);
}
