//! `velatura train` as a process: killed, interrupted, out of disk space. Whatever happens, the run goes on to the very
//! weights of one to which nothing happened.

#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Bench, said};
use serde_json::Value;

const STEPS: u64 = 60;

/// A tiny autoencoder on drawn scenes, from step 20 on against a discriminator; `DIR` is the run folder.
const CONFIG: &str = r#"
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
    fs::write(bench.path(&name), CONFIG.replace("DIR", run)).unwrap();
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

/// Everything that the run has come to: weights, averages, moments, as bytes.
fn result(bench: &Bench, run: &str) -> [Vec<u8>; 4] {
    let run = bench.path(run);
    let last = run.join(format!("checkpoints/step-{STEPS:06}"));
    [
        last.join("vae/diffusion_pytorch_model.safetensors"),
        last.join("discriminator/diffusion_pytorch_model.safetensors"),
        last.join("training.safetensors"),
        run.join("model/vae/diffusion_pytorch_model.safetensors"),
    ]
    .map(|file| fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// What a run comes to, to which nothing happens.
fn undisturbed(bench: &Bench) -> [Vec<u8>; 4] {
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

#[test]
fn a_run_killed_again_and_again_ends_with_the_weights_of_one_that_was_not() {
    let bench = Bench::new();
    let expected = undisturbed(&bench);
    let config = write_config(&bench, "killed");
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
    let mut kills = 0;
    loop {
        let mut child = train(&bench, &config).spawn().unwrap();
        // Up to fourteen steps further than the last checkpoint, so that a few kills fit; after twelve, the rest may go
        // on in peace.
        let further = if kills < 12 { below(15) } else { STEPS };
        if ends_before(&mut child, &run, newest_step(&run) + further) {
            let said = said(child.wait_with_output().unwrap());
            assert_eq!(
                said.status, 0,
                "seed {seed}, {kills} kills: {}",
                said.stderr
            );
            break;
        }
        // In the middle of a step, of a checkpoint, of the export, or before anything is done.
        sleep(Duration::from_millis(below(20)));
        // SIGKILL: nothing can be tidied up.
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 2, "seed {seed}: killed only {kills} times");
    assert!(
        result(&bench, "killed") == expected,
        "seed {seed}: other weights after {kills} kills"
    );
    no_temporary_names(&bench.path("killed"));
    no_temporary_names(&bench.path("killed/checkpoints"));
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
        assert!(said.stderr.contains("saved"), "{}", said.stderr);
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
