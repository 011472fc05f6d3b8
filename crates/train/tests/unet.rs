//! Whole runs of a tiny UNet with its text encoder, on latents of a VAE that was made a moment before.

mod common;

use std::fs;
use std::path::Path;

use common::{config, losses, prepare, run, weights};
use velatura::pipeline::{LoadOptions, Pipeline, Request};
use velatura_tensor::{Gpu, device};
use velatura_train::Ending;

fn everything(run: &Path) -> impl PartialEq + std::fmt::Debug + use<> {
    let last = run.join("checkpoints/step-000008");
    let training = fs::read(last.join("training.safetensors")).unwrap();
    (
        weights(&last.join("unet")),
        weights(&last.join("text_encoder")),
        training,
    )
}

#[test]
fn a_run_that_is_stopped_and_resumed_ends_as_one_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    assert_eq!(
        run(&config(dir.path(), "whole", &text), false, None)
            .unwrap()
            .ending,
        Ending::Finished
    );

    let stopped = config(dir.path(), "stopped", &text);
    // The first question comes while latents are encoded, if they have to be; here the cache is there.
    assert_eq!(run(&stopped, false, Some(4)).unwrap().step, 4);
    fs::remove_dir_all(dir.path().join("stopped/checkpoints/step-000004")).unwrap();
    run(&stopped, true, None).unwrap();
    assert_eq!(
        everything(&dir.path().join("whole")),
        everything(&dir.path().join("stopped"))
    );
    assert!(dir.path().join("whole/samples/step-000008.png").is_file());

    // What was exported paints.
    let pipeline = Pipeline::load(&dir.path().join("whole/model"), LoadOptions::default()).unwrap();
    let request = Request {
        prompt: "a red car".into(),
        steps: Some(2),
        seed: Some(1),
        ..Request::default()
    };
    let plan = pipeline.model().plan(&request).unwrap();
    assert_eq!((plan.width, plan.height, plan.guidance), (32, 32, 5.0));
    pipeline
        .paint(&plan, None, &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap();
}

#[test]
fn on_a_graphics_card_it_does_too_and_may_go_on_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let gpu = Gpu::for_tests();
    let go = |name: &str, resume: bool, steps: Option<usize>| {
        run(&config(dir.path(), name, &text), resume, steps).unwrap()
    };
    device::on(&gpu, || go("whole", false, None));
    device::on(&gpu, || go("stopped", false, Some(4)));
    device::on(&gpu, || go("stopped", true, None));
    assert_eq!(
        everything(&dir.path().join("whole")),
        everything(&dir.path().join("stopped"))
    );

    device::on(&gpu, || go("handed over", false, Some(4)));
    go("handed over", true, None);
    go("never there", false, None);
    let [whole, handed_over, never_there] = ["whole", "handed over", "never there"].map(|name| {
        let losses = losses(&dir.path().join(name));
        assert_eq!(losses.len(), 8);
        losses
    });
    for (index, loss) in never_there.iter().enumerate() {
        for other in [whole[index], handed_over[index]] {
            assert!(
                (other / loss - 1.0).abs() < 1e-3,
                "step {index}: {other} with a card, {loss} without"
            );
        }
    }
}

#[test]
fn muon_too_is_stopped_and_resumed_and_another_optimiser_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, adamw) = prepare(dir.path());
    let muon = adamw.replace("[optimizer]", "[optimizer]\nkind = \"muon\"");
    let go =
        |name: &str, text: &str, resume, steps| run(&config(dir.path(), name, text), resume, steps);
    go("whole", &muon, false, None).unwrap();
    go("stopped", &muon, false, Some(4)).unwrap();
    let message = go("stopped", &adamw, true, None).unwrap_err().to_string();
    assert!(
        message.contains("optimizer") && message.contains("muon"),
        "{message}"
    );
    go("stopped", &muon, true, None).unwrap();
    assert_eq!(
        everything(&dir.path().join("whole")),
        everything(&dir.path().join("stopped"))
    );
    // It went another way.
    go("adamw", &adamw, false, None).unwrap();
    let weights = |name: &str| weights(&dir.path().join(name).join("model/unet"));
    assert!(weights("adamw") != weights("whole"));
}

#[test]
fn a_few_pictures_are_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let text = text
        .replace("steps = 8", "steps = 200")
        .replace("count = 9", "count = 2")
        .replace("log_every = 1", "log_every = 40")
        .replace("save_every = 3", "save_every = 1000")
        .replace("batch_size = 2", "batch_size = 8");
    run(&config(dir.path(), "few", &text), false, None).unwrap();
    let losses = losses(&dir.path().join("few"));
    assert!(losses[losses.len() - 1] < 0.6 * losses[0], "{losses:?}");
}

#[test]
fn a_base_goes_on_and_its_frozen_parts_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    run(
        &config(
            dir.path(),
            "base",
            &text.replace("[run]", "[run]\nexport = \"f32\""),
        ),
        false,
        None,
    )
    .unwrap();
    let base = dir.path().join("base/model");
    let start = text.find("[unet]").unwrap();
    let end = text.find("[optimizer]").unwrap();
    let text = format!("{}{}", &text[..start], &text[end..]);
    let vae = text.find("vae = ").unwrap();
    let vae_end = vae + text[vae..].find('\n').unwrap();
    let text = format!(
        "{}base = \"{}\"\ntrain_text_encoder = false\nrecompute = true{}",
        &text[..vae],
        base.display(),
        &text[vae_end..]
    );
    run(
        &config(
            dir.path(),
            "tuned",
            &text.replace("[run]", "[run]\nexport = \"f32\""),
        ),
        false,
        None,
    )
    .unwrap();
    let tuned = dir.path().join("tuned/model");
    assert_eq!(
        weights(&base.join("text_encoder")),
        weights(&tuned.join("text_encoder"))
    );
    assert_eq!(weights(&base.join("vae")), weights(&tuned.join("vae")));
    assert_ne!(weights(&base.join("unet")), weights(&tuned.join("unet")));
    assert!(
        !dir.path()
            .join("tuned/checkpoints/step-000008/text_encoder")
            .exists()
    );
    Pipeline::load(&tuned, LoadOptions::default()).unwrap();
}

#[test]
fn the_cache_goes_by_content() {
    let dir = tempfile::tempdir().unwrap();
    let (model, text) = prepare(dir.path());
    let caches = || fs::read_dir(dir.path().join("cache")).unwrap().count();
    let text = text.replace("steps = 8", "steps = 1");
    run(&config(dir.path(), "a", &text), false, None).unwrap();
    let shard = fs::read_dir(dir.path().join("cache"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("00000.safetensors");
    let made = fs::metadata(&shard).unwrap().modified().unwrap();
    // The same again: nothing is encoded.
    run(&config(dir.path(), "b", &text), false, None).unwrap();
    assert_eq!(
        (caches(), fs::metadata(&shard).unwrap().modified().unwrap()),
        (1, made)
    );
    // A shard that was cut short is encoded again.
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, &whole[..whole.len() - 9]).unwrap();
    run(&config(dir.path(), "c", &text), false, None).unwrap();
    assert_eq!((caches(), fs::read(&shard).unwrap()), (1, whole));
    // Other pictures, another VAE: other caches.
    run(
        &config(
            dir.path(),
            "d",
            &text.replace("count = 9", "count = 9\nseed = 8"),
        ),
        false,
        None,
    )
    .unwrap();
    assert_eq!(caches(), 2);
    let weights = model.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    run(&config(dir.path(), "e", &text), false, None).unwrap();
    assert_eq!(caches(), 3);
}

#[test]
fn folders_with_flaws_are_survived_and_parts_that_do_not_fit_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let pictures = dir.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    let noisy = |n: u32| {
        image::RgbImage::from_fn(40, 33, |x, y| {
            image::Rgb([(x * y * n) as u8, (x * 7) as u8, (y * n) as u8])
        })
    };
    for n in 0..4 {
        noisy(n).save(pictures.join(format!("{n}.png"))).unwrap();
        fs::write(
            pictures.join(format!("{n}.txt")),
            format!("noise of kind {n}"),
        )
        .unwrap();
    }
    let bytes = fs::read(pictures.join("2.png")).unwrap();
    fs::write(pictures.join("2.png"), &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_file(pictures.join("3.txt")).unwrap();
    let folder = text
        .replace(
            "kind = \"scenes\"",
            &format!("kind = \"folder\"\npath = \"{}\"", pictures.display()),
        )
        .replace("count = 9", "")
        .replace("steps = 8", "steps = 2");
    let outcome = run(&config(dir.path(), "folder", &folder), false, None).unwrap();
    assert_eq!(outcome.ending, Ending::Finished);
    // The vocabulary is that of the captions.
    let words = fs::read_to_string(dir.path().join("folder/model/tokenizer/vocab.json")).unwrap();
    assert!(words.contains("\"noise</w>\""), "{words}");
    fs::write(pictures.join("0.png"), "no").unwrap();
    fs::write(pictures.join("1.png"), "no").unwrap();
    let error = run(&config(dir.path(), "nothing", &folder), false, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("nothing is left"), "{error}");

    let message = |name: &str, from: &str, to: &str| {
        run(
            &config(dir.path(), name, &text.replace(from, to)),
            false,
            None,
        )
        .unwrap_err()
        .to_string()
    };
    assert!(
        message("channels", "in_channels = 4", "in_channels = 3")
            .contains("latent_channels of the VAE")
    );
    // Before anything is encoded, which can take hours: pictures of another seed would make another cache.
    let caches = || fs::read_dir(dir.path().join("cache")).unwrap().count();
    let before = caches();
    let narrow = text
        .replace("count = 9", "count = 9\nseed = 9")
        .replace("cross_attention_dim = 16", "cross_attention_dim = 8");
    let error = run(&config(dir.path(), "width", &narrow), false, None).unwrap_err();
    assert!(error.to_string().contains("hidden_size"), "{error}");
    assert_eq!(caches(), before);
    // Numbers that are none: the batch can be looked at, and is said to come before any checkpoint.
    let error = message("blow", "learning_rate = 2e-3", "learning_rate = 1e30");
    for part in [
        "the loss is NaN, first in ",
        "there is none before it",
        "in ",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("another copy"), "{error}");
    let kept = fs::read_dir(dir.path().join("blow")).unwrap().flatten();
    let kept = kept.filter(|entry| entry.path().join("batch.png").is_file());
    assert_eq!(kept.count(), 1);

    let error = message(
        "schedule",
        "[optimizer]",
        "[scheduler]\nbeta_schedule = \"wavy\"\n[optimizer]",
    );
    assert!(
        error.contains("schedule.toml: [scheduler] field `beta_schedule`"),
        "{error}"
    );
}
