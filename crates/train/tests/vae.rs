//! Whole runs of a tiny VAE.

mod common;

use std::fs;
use std::path::Path;

use common::{config, losses, run, weights};
use velatura_train::Ending;

const CONFIG: &str = r#"
[run]
dir = "DIR"
seed = 3
steps = 8
batch_size = 2
save_every = 3
sample_every = 4
log_every = 1
export = "f32"
[data]
kind = "scenes"
size = 32
crop = 16
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
[optimizer]
learning_rate = 2e-3
warmup_steps = 2
decay = "cosine"
[sample]
count = 3
"#;

/// The weights, averages and moments of the last checkpoint, and the exported model.
fn everything(run: &Path) -> impl PartialEq + std::fmt::Debug + use<> {
    let last = run.join("checkpoints/step-000008");
    let training = fs::read(last.join("training.safetensors")).unwrap();
    (
        weights(&last.join("vae")),
        training,
        weights(&run.join("model/vae")),
    )
}

#[test]
fn a_run_that_is_stopped_and_resumed_ends_as_one_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let whole = config(dir.path(), "whole", CONFIG);
    assert_eq!(run(&whole, false, None).unwrap().ending, Ending::Finished);

    // Asked to leave twice: a checkpoint is saved at once.
    let stopped = config(dir.path(), "stopped", CONFIG);
    let outcome = run(&stopped, false, Some(2)).unwrap();
    assert_eq!((outcome.step, outcome.ending), (2, Ending::Stopped));
    assert_eq!(run(&stopped, true, Some(3)).unwrap().step, 5);
    assert_eq!(run(&stopped, true, None).unwrap().ending, Ending::Finished);
    assert_eq!(
        everything(&dir.path().join("whole")),
        everything(&dir.path().join("stopped"))
    );

    // Killed between checkpoints: what came after the last one is done again.
    let killed = config(dir.path(), "killed", CONFIG);
    run(&killed, false, Some(5)).unwrap();
    let checkpoints = dir.path().join("killed/checkpoints");
    fs::remove_dir_all(checkpoints.join("step-000005")).unwrap();
    fs::create_dir(checkpoints.join(".step-000006.x.tmp")).unwrap();
    run(&killed, true, None).unwrap();
    assert_eq!(
        everything(&dir.path().join("whole")),
        everything(&dir.path().join("killed"))
    );
    assert!(!checkpoints.join(".step-000006.x.tmp").exists());
    let figures = |name: &str| losses(&dir.path().join(name));
    assert_eq!(figures("whole").len(), 8);
    assert_eq!(figures("whole"), figures("killed"));
    for file in [
        "samples/step-000004.png",
        "samples/step-000008.png",
        "first-batches.png",
        "report.html",
        "tensorboard/events.out.tfevents.0.velatura",
        "config.toml",
    ] {
        assert!(dir.path().join("whole").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_few_pictures_are_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let text = CONFIG
        .replace("steps = 8", "steps = 150")
        .replace("crop = 16\ncount = 6", "count = 2")
        .replace("log_every = 1", "log_every = 10")
        .replace("sample_every = 4", "sample_every = 0")
        .replace("save_every = 3", "save_every = 1000");
    run(&config(dir.path(), "few", &text), false, None).unwrap();
    let losses = losses(&dir.path().join("few"));
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < 0.4 * first, "{losses:?}");
    // What was exported has latents of deviation 1.
    let text = fs::read_to_string(dir.path().join("few/model/vae/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_ne!(config["scaling_factor"], 0.18215);
    assert_eq!(config["_class_name"], "AutoencoderKL");
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = |name: &str, text: &str| {
        run(&config(dir.path(), name, text), false, None)
            .unwrap_err()
            .to_string()
    };
    fs::create_dir(dir.path().join("taken")).unwrap();
    assert!(message("taken", CONFIG).contains("it exists already"));
    let text = CONFIG.replace("norm_num_groups = 2", "norm_num_groups = 3");
    let error = message("groups", &text);
    assert!(
        error.contains("groups.toml: [vae] field `block_out_channels[0]`"),
        "{error}"
    );
    // A mistake in the config leaves no folder in the way of the next attempt.
    assert!(!dir.path().join("groups").exists());
    let error = message(
        "blow",
        &CONFIG.replace("learning_rate = 2e-3", "learning_rate = 1e30"),
    );
    assert!(
        error.contains("step ") && error.contains("no checkpoint"),
        "{error}"
    );
    // The batch is there to be looked at, and the first layer is named.
    let kept = fs::read_dir(dir.path().join("blow")).unwrap().flatten();
    let kept = kept.map(|entry| entry.path());
    let kept = kept.filter(|path| path.join("batch.png").is_file());
    let [kept] = &kept.collect::<Vec<_>>()[..] else {
        panic!("expected one batch: {error}");
    };
    assert!(kept.join("batch.safetensors").is_file());
    assert!(error.contains(&kept.display().to_string()), "{error}");
    assert!(
        error.contains("vae.") || error.contains("first in"),
        "{error}"
    );
    assert!(!dir.path().join("blow/checkpoints/step-000008").exists());

    // Going on with another picture size would be another run.
    let file = config(dir.path(), "other", CONFIG);
    run(&file, false, Some(1)).unwrap();
    let file = config(
        dir.path(),
        "other",
        &CONFIG.replace("size = 32", "size = 64"),
    );
    let error = run(&file, true, None).unwrap_err().to_string();
    assert!(error.contains("data.size = 32"), "{error}");
}
