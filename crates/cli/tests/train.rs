//! `velatura train` as a process: killed, interrupted, out of disk space. Whatever happens, the run goes on to the very
//! weights of one to which nothing happened.

#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Bench, models, said};
use serde_json::Value;

const STEPS: u64 = 60;

/// Steps of a run that is killed again and again: more than it gets through until it has been killed often enough.
const LONG: u64 = 120;

/// How often it is killed.
const KILLS: usize = 20;

/// A tiny UNet on the latents of drawn scenes, fine-tuned from the model `BASE` for `LONG` steps; `DIR` is the run folder.
const UNET: &str = r#"
[run]
dir = "DIR"
seed = 3
steps = LONG
batch_size = 2
save_every = 5
sample_every = 0
log_every = 1
keep = 2
export = "f32"
[data]
kind = "scenes"
size = 64
count = 6
caption_dropout = 0.2
[model]
part = "unet"
base = "BASE"
[optimizer]
learning_rate = 1e-3
decay = "cosine"
"#;

/// A tiny autoencoder on drawn scenes, from step 20 on against a discriminator; `DIR` is the run folder.
const VAE: &str = r#"
[run]
dir = "DIR"
seed = 3
steps = 60
batch_size = 2
save_every = 5
sample_every = 0
log_every = 1
keep = 2
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
[discriminator]
start = 20
num_layers = 2
ndf = 4
[optimizer]
learning_rate = 2e-3
decay = "cosine"
"#;

fn write_config(bench: &Bench, run: &str) -> String {
    let name = format!("{run}.toml");
    fs::write(bench.path(&name), VAE.replace("DIR", run)).unwrap();
    name
}

/// `velatura train` on two threads; `--resume` begins where there is nothing to resume.
fn train(bench: &Bench, config: &str) -> Command {
    let mut command = bench.command();
    command
        .args(["train", config, "--resume", "--threads", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Everything that the run has come to: weights, averages, moments, by the files' names, as bytes.
fn result(bench: &Bench, run: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let run = bench.path(run);
    let last = format!("checkpoints/step-{:06}", newest_step(&run));
    let (mut folders, mut files) = (vec![run.join(last), run.join("model")], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "safetensors") {
                let name = path.strip_prefix(&run).unwrap().to_path_buf();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// What a run comes to, to which nothing happens.
fn undisturbed(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let config = write_config(bench, "whole");
    let said = said(train(bench, &config).output().unwrap());
    assert_eq!(said.status, 0, "{}", said.stderr);
    result(bench, "whole")
}

/// Waits until the run has done `step`; whether the process has ended before by itself.
fn ends_before(child: &mut Child, run: &Path, step: u64) -> bool {
    while newest_figures(run) < step {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        sleep(Duration::from_millis(2));
    }
    false
}

/// The step of the last whole line of `metrics.jsonl`; 0 where there is none.
fn newest_figures(run: &Path) -> u64 {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let rows = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    rows.filter_map(|row| row["step"].as_u64())
        .max()
        .unwrap_or(0)
}

fn no_temporary_names(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "{name} in {}", folder.display());
    }
}

/// Trains by `config`, whose run folder is `DIR`, once in peace and once killed [`KILLS`] times, and compares.
fn survives_kills(config: &str) {
    let bench = Bench::new();
    for run in ["whole", "killed"] {
        let text = config.replace("DIR", run);
        fs::write(bench.path(&format!("{run}.toml")), text).unwrap();
    }
    let whole = said(train(&bench, "whole.toml").output().unwrap());
    assert_eq!(whole.status, 0, "{}", whole.stderr);
    let run = bench.path("killed");
    // Other moments at each run of the test; the seed is said, should one of them fail.
    let seed = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_nanos() as u64;
    let mut state = seed;
    let mut below = |bound: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for kill in 0..KILLS {
        let mut child = train(&bench, "killed.toml").spawn().unwrap();
        // Some of them pass a checkpoint, and all together stay before the end.
        let further = below(8);
        let ended = ends_before(&mut child, &run, newest_step(&run) + further);
        assert!(!ended, "seed {seed}: the run ended before kill {kill}");
        // In the middle of a step, of a checkpoint, or before anything is done.
        sleep(Duration::from_millis(below(20)));
        // SIGKILL: nothing can be tidied up.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let stopped = newest_step(&run);
    assert!((1..LONG).contains(&stopped), "seed {seed}: {stopped}");
    // Once more where the last checkpoint and the model are written, unless that is sooner done.
    let mut child = train(&bench, "killed.toml").spawn().unwrap();
    if !ends_before(&mut child, &run, LONG) {
        sleep(Duration::from_millis(below(20)));
        child.kill().unwrap();
    }
    child.wait().unwrap();
    let rest = said(train(&bench, "killed.toml").output().unwrap());
    assert_eq!(rest.status, 0, "seed {seed}: {}", rest.stderr);
    let (expected, found) = (result(&bench, "whole"), result(&bench, "killed"));
    assert!(expected.len() >= 3 && newest_step(&run) == LONG);
    for (name, expected) in &expected {
        let same = found.get(name) == Some(expected);
        assert!(same, "seed {seed}: {} differs", name.display());
    }
    no_temporary_names(&run);
    no_temporary_names(&run.join("checkpoints"));
}

#[test]
fn an_autoencoder_killed_twenty_times_gets_the_weights_of_one_that_was_not() {
    survives_kills(&VAE.replace("steps = 60", &format!("steps = {LONG}")));
}

#[test]
fn a_unet_killed_twenty_times_gets_the_weights_of_one_that_was_not() {
    let base = models().join("sd15");
    let config = UNET.replace("BASE", base.to_str().unwrap());
    survives_kills(&config.replace("LONG", &LONG.to_string()));
}

#[test]
fn a_run_asked_to_end_saves_first() {
    let bench = Bench::new();
    let config = write_config(&bench, "asked");
    for signal in ["-INT", "-TERM"] {
        let child = train(&bench, &config).spawn().unwrap();
        // Long enough to be in the middle of it: there is a checkpoint.
        let before = newest_step(&bench.path("asked"));
        while newest_step(&bench.path("asked")) <= before {
            sleep(Duration::from_millis(2));
        }
        let killed = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        let said = said(child.wait_with_output().unwrap());
        assert_eq!(said.status, 0, "{}", said.stderr);
        for part in [
            "stopping: ",
            "saved; go on with: velatura train asked.toml --resume",
        ] {
            assert!(said.stderr.contains(part), "{}", said.stderr);
        }
        assert_eq!(said.stderr.matches("stopped").count(), 1, "{}", said.stderr);
        // What there is can be looked at.
        assert!(bench.path("asked/report.html").is_file());
    }
    let stopped = newest_step(&bench.path("asked"));
    assert!((3..STEPS).contains(&stopped), "{stopped}");
    let rest = said(train(&bench, &config).output().unwrap());
    assert_eq!(rest.status, 0, "{}", rest.stderr);
    assert!(result(&bench, "asked") == undisturbed(&bench));
}

/// The step of the newest checkpoint; 0 where there is none.
fn newest_step(run: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("step-")?.parse().ok()
        })
        .max()
        .unwrap_or(0)
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_the_last_checkpoint() {
    let bench = Bench::new();
    let config = write_config(&bench, "full");
    let short = fs::read_to_string(bench.path(&config))
        .unwrap()
        .replace("steps = 60", "steps = 4");
    fs::write(bench.path("short.toml"), short).unwrap();
    let first = said(train(&bench, "short.toml").output().unwrap());
    assert_eq!(first.status, 0, "{}", first.stderr);
    let kept = bench.path("full/checkpoints/step-000004/training.safetensors");
    let before = fs::read(&kept).unwrap();

    // No file may grow beyond sixteen blocks of 512 bytes: figures fit, the next checkpoint does not.
    let program = env!("CARGO_BIN_EXE_velatura");
    let script =
        format!("trap '' XFSZ; ulimit -f 16; exec {program} train {config} --resume --threads 2");
    let full = said(
        Command::new("sh")
            .args(["-c", &script])
            .current_dir(bench.dir.path())
            .output()
            .unwrap(),
    );
    full.fails(1, &["after step 5", "step-000004", "--resume"]);
    assert_eq!(fs::read(&kept).unwrap(), before);
    assert!(!bench.path("full/checkpoints/step-000005").exists());
    no_temporary_names(&bench.path("full/checkpoints"));

    let rest = said(train(&bench, &config).output().unwrap());
    assert_eq!(rest.status, 0, "{}", rest.stderr);
    // The cosine of the learning rate ends at another step in the short config, so only a whole run is compared.
    assert_eq!(newest_step(&bench.path("full")), STEPS);
}

#[test]
fn a_plan_is_said_and_nothing_is_made() {
    let bench = Bench::new();
    let config = write_config(&bench, "planned");
    let plan = ["train", config.as_str(), "--plan", "--threads", "2"];
    let said = bench.run(&plan);
    assert_eq!(said.status, 0, "{}", said.stderr);
    for part in ["vae", "discriminator", "60 steps of", "It fits."] {
        assert!(said.stdout.contains(part), "{part:?}: {}", said.stdout);
    }
    let plan = bench.run(&[&plan[..], &["--json"]].concat()).json();
    assert_eq!(plan["steps"], STEPS);
    assert!(
        plan["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0)
    );
    assert_eq!(bench.files(), ["planned.toml"]);
    // It is of a run that has not begun.
    bench
        .run(&["train", &config, "--plan", "--resume"])
        .fails(2, &["--resume"]);
}

#[test]
fn a_damaged_checkpoint_is_said_and_the_one_before_taken() {
    let bench = Bench::new();
    let expected = undisturbed(&bench);
    let weights = "checkpoints/step-000060/vae/diffusion_pytorch_model.safetensors";
    let path = bench.path("whole").join(weights);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, bytes).unwrap();
    let again = said(train(&bench, "whole.toml").output().unwrap());
    assert_eq!(again.status, 0, "{}", again.stderr);
    assert!(
        again.stderr.contains("checksum differs") && again.stderr.contains("from step 55"),
        "{}",
        again.stderr
    );
    assert!(result(&bench, "whole") == expected);
}
