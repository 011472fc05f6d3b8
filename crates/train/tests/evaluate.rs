//! A scorer trained a few steps, and a tiny model judged by it: shapes, repeatability and the report's form. How good
//! they are is another matter.

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use image::RgbImage;
use velatura::checkpoint::ModelFolder;
use velatura::pipeline::{LoadOptions, Pipeline, PrecisionChoice, Request};
use velatura_scenes::{SceneConfig, SceneGenerator};
use velatura_train::config::{DataKind, Source};
use velatura_train::evaluate::features::Network;
use velatura_train::evaluate::{
    self, PromptsOptions, Verdict, distance, features, prompts, prove, reconstruction, write_html,
};
use velatura_train::scorer::{Aspect, Question, Scorer, Sight, judge, look};

const SCORER: &str = r#"
[run]
dir = "DIR"
seed = 3
steps = 12
batch_size = 4
save_every = 2
sample_every = 12
log_every = 1
[data]
kind = "scenes"
size = 64
seed = 7
count = 4
workers = 2
[data.scenes]
nouns = ["car", "cat", "balloon"]
pair_share = 0.4
[model]
part = "scorer"
vae = "VAE"
[scorer]
block_out_channels = [8, 8, 16, 16]
nothing = 0.3
empty = 0.2
reconstructed = 0.25
[optimizer]
learning_rate = 2e-3
[ema]
decay = 0.9
[sample]
count = 4
"#;

/// A VAE, a UNet and a scorer, all hardly trained.
fn models(dir: &Path) -> (PathBuf, PathBuf, String) {
    let (vae, unet) = common::prepare(dir);
    common::run(&common::config(dir, "unet", &unet), false, None).unwrap();
    let text = SCORER.replace("VAE", &vae.display().to_string());
    (dir.join("unet/model"), vae, text)
}

fn silent(_: &'static str, _: usize, _: usize) -> bool {
    true
}

#[test]
fn a_scorer_trains_resumes_bit_for_bit_and_judges() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _, text) = models(dir.path());
    common::run(&common::config(dir.path(), "whole", &text), false, None).unwrap();
    let cut = common::config(dir.path(), "cut", &text);
    common::run(&cut, false, Some(3)).unwrap();
    common::run(&cut, true, None).unwrap();
    let weights = |name: &str| common::weights(&dir.path().join(name).join("model"));
    assert_eq!(weights("whole"), weights("cut"));
    let losses = common::losses(&dir.path().join("whole"));
    // Batches differ in what is drawn without things or as noise, so thirds are compared.
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[8..]) < mean(&losses[..4]), "{losses:?}");

    let folder = dir.path().join("whole/model");
    let scorer = Scorer::open(&folder).unwrap();
    assert_eq!(scorer.config().nouns, ["car", "balloon", "cat"]);
    let pipeline = Pipeline::load(&model, LoadOptions::default()).unwrap();
    let mut scenes = Source::new(DataKind::Scenes);
    scenes.scenes.nouns = Some(vec!["car".into(), "balloon".into()]);
    let options = PromptsOptions {
        prompts: 5,
        seeds: 2,
        proof: 6,
        together: 3,
        steps: Some(2),
        scenes,
        ..PromptsOptions::default()
    };
    let mut kept: Vec<(Verdict, RgbImage)> = Vec::new();
    let mut stages = std::collections::BTreeSet::new();
    let mut report = |what, done, of| {
        assert!(done <= of);
        stages.insert(what);
        true
    };
    let result = prompts(
        &pipeline,
        &scorer,
        &options,
        &mut report,
        |verdict, picture| {
            kept.push((verdict.clone(), picture));
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(stages.into_iter().collect::<Vec<_>>(), ["picture", "proof"]);
    assert_eq!((result.verdicts.len(), kept.len()), (10, 10));
    assert_eq!(result.seen.of(Aspect::All).of, 6);
    assert_eq!(result.unseen.of(Aspect::All).of, 4);
    assert_eq!(result.proof.drawings.of(Aspect::Setting).of, 6);
    // Nobody is proved after six steps, and that is said.
    assert!(!result.shortcomings.is_empty());
    let table = result.to_string();
    for words in [
        "falls short",
        "setting",
        "unseen combinations",
        "held out by their names",
    ] {
        assert!(table.contains(words), "{table}");
    }

    // The same pictures come out painted alone, and get the same verdicts.
    let verdict = &result.verdicts[3];
    let plan = pipeline.model().plan(&Request {
        prompt: verdict.prompt.clone(),
        seed: Some(verdict.seed),
        steps: Some(2),
        ..Request::default()
    });
    let alone = pipeline
        .paint(&plan.unwrap(), None, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let (_, together) = kept
        .iter()
        .find(|(v, _)| v.prompt == verdict.prompt && v.seed == verdict.seed)
        .unwrap();
    assert_eq!(alone.image.pixels(), together.as_raw().as_slice());

    let page = dir.path().join("page.html");
    write_html(&page, &result, &kept).unwrap();
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<figure>").count(), 10);
    assert!(html.contains("all together"));

    // What the scorer has no name for is refused by name.
    let unknown = PromptsOptions {
        scenes: Source::new(DataKind::Scenes),
        ..options.clone()
    };
    let error = prompts(&pipeline, &scorer, &unknown, &mut silent, |_, _| Ok(()));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("does not know \"house\"")
    );
    // Whoever says stop is obeyed.
    let mut stop = |what: &'static str, _: usize, _: usize| what == "proof";
    let error = prompts(&pipeline, &scorer, &options, &mut stop, |_, _| Ok(()));
    assert!(error.is_err());
}

#[test]
fn a_perfect_eye_would_be_proved() {
    // The proof's own bookkeeping, by judging the truth in place of a network: see `question.rs` for the single aspects.
    let generator = SceneGenerator::new(SceneConfig {
        size: 64,
        ..SceneConfig::default()
    })
    .unwrap();
    for index in 0..50 {
        let scene = generator.scene(9, index);
        let question = Question::of(&scene.truth, &scene.captions[0]);
        let verdicts = judge(&Sight::of(&scene.truth), &question);
        assert!(verdicts.iter().all(|&(_, yes)| yes), "{question:?}");
        let nothing = judge(&Sight::default(), &question);
        assert!(nothing.iter().all(|&(_, yes)| !yes), "{question:?}");
    }
}

#[test]
fn an_autoencoder_is_measured_and_sets_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _, text) = models(dir.path());
    common::run(&common::config(dir.path(), "scorer", &text), false, None).unwrap();
    let scorer = Scorer::open(&dir.path().join("scorer/model")).unwrap();
    let folder = ModelFolder::open(&model).unwrap();
    let pipeline = velatura::pipeline::Model::open(folder, None)
        .unwrap()
        .load(PrecisionChoice::F32)
        .unwrap();
    let vae = pipeline.vae();
    let drawn = Source::new(DataKind::Scenes);
    let scenes = evaluate::held_back_scenes(&drawn, 32).unwrap();
    let result = reconstruction(vae, 3, |number| Ok(scenes(number)), &mut silent).unwrap();
    assert_eq!(result.pictures, 3);
    assert!((3.0..40.0).contains(&result.psnr), "{result:?}");
    assert!(result.psnr_of_mean <= result.psnr + 1e-9);
    assert!(result.ssim.unwrap() < 1.0);
    // The autoencoder's own folder will do.
    let alone = evaluate::open_vae(&model.join("vae"), PrecisionChoice::F32).unwrap();
    let same = reconstruction(&alone, 3, |number| Ok(scenes(number)), &mut silent).unwrap();
    assert_eq!(same.psnr, result.psnr);
    let odd = reconstruction(vae, 1, |_| Ok(RgbImage::new(33, 32)), &mut silent);
    assert!(odd.unwrap_err().to_string().contains("33×32"));

    let folder = |name: &str, first: usize| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for number in first..first + 6 {
            scenes(number)
                .save(folder.join(format!("{number}.png")))
                .unwrap();
        }
        let files = features::pictures(&folder).unwrap();
        Network::Scorer(Box::new(scorer.clone()))
            .features(&files, &mut silent)
            .unwrap()
    };
    let (a, b) = (folder("a", 0), folder("b", 6));
    assert_eq!((a.len(), a.width()), (6, 32));
    assert!(distance::frechet(&a, &a).unwrap() < 1e-4);
    assert!(distance::frechet(&a, &b).unwrap() > 1e-4);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = features::pictures(&empty).unwrap_err().to_string();
    assert!(
        error.contains("empty") && error.contains("found none"),
        "{error}"
    );

    // A scorer looks at pictures of any size.
    let large = evaluate::held_back_scenes(&drawn, 256).unwrap()(0);
    let small = evaluate::held_back_scenes(&drawn, 96).unwrap()(0);
    let _ = (look(&scorer, large), look(&scorer, small));
    let generator = SceneGenerator::new(SceneConfig {
        size: 64,
        nouns: vec!["car".into()],
        ..SceneConfig::default()
    })
    .unwrap();
    let proof = prove(&scorer, &generator, None, 8, &mut silent).unwrap();
    assert!(proof.reconstructions.is_none());
    assert_eq!(proof.noise.of(Aspect::All).of, 8);
}
