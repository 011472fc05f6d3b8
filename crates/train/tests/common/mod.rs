//! What the tests of whole runs share: tiny configs, and weights by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use velatura::checkpoint::Component;
use velatura_train::{Options, Outcome, Result, train};

/// Writes `text` with `DIR` replaced by the run folder, and returns the file.
pub fn config(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    let run = dir.join(name);
    std::fs::write(&file, text.replace("DIR", &run.display().to_string())).unwrap();
    file
}

/// Trains on two threads until the end, or until `steps` have been done.
pub fn run(file: &Path, resume: bool, steps: Option<usize>) -> Result<Outcome> {
    let asked = std::cell::Cell::new(0);
    let stop = || {
        // Asked once before every step.
        asked.set(asked.get() + 1);
        steps.is_some_and(|steps| asked.get() > steps)
    };
    train(
        file,
        &Options {
            resume,
            threads: Some(2),
            stop: &stop,
        },
    )
}

/// The tensors of a component as bits, by name.
pub fn weights(component: &Path) -> BTreeMap<String, Vec<u32>> {
    let component = Component::open(component, None).unwrap();
    let bits = |name: &str| {
        component
            .tensor(name)
            .unwrap()
            .to_f32()
            .unwrap()
            .iter()
            .map(|x| x.to_bits())
            .collect()
    };
    component
        .names()
        .map(|name| (name.to_string(), bits(name)))
        .collect()
}

/// The losses in a run's `metrics.jsonl`.
pub fn losses(run: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["loss"].as_f64().unwrap()
    };
    text.lines().map(loss).collect()
}
