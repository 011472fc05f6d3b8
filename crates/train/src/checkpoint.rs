//! Checkpoints of a run: everything that the next step depends on, written whole or not at all.
//!
//! `checkpoints/step-000500/` holds the components as diffusers folders in f32, `training.safetensors` (moments of
//! the optimiser and averages of the weights) and `state.json` with the step and the SHA-256 of every other file.
//! Random numbers and the order of the data are functions of seed and step (see `random.rs`), so the step is the
//! data cursor and the whole state of the random numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use velatura::checkpoint::{
    FloatType, TensorFile, save_tensors, write_atomically, write_folder_atomically,
};

use crate::config::first_difference;
use crate::dataset::hex;
use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;

/// The file beside the components.
const STATE: &str = "state.json";
const TRAINING: &str = "training.safetensors";

/// What `state.json` holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Of this layout.
    pub format: u32,
    /// Steps done.
    pub step: u64,
    /// The part of the config that must not change.
    pub identity: Value,
    /// The threads it ran with; sums may come out differently with another number.
    pub threads: usize,
    /// SHA-256 of every other file.
    files: BTreeMap<String, String>,
}

const FORMAT: u32 = 1;

/// The checkpoints of a run folder.
pub struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Those of the run in `run`.
    pub fn of(run: &Path) -> Checkpoints {
        Checkpoints {
            dir: run.join("checkpoints"),
        }
    }

    /// Where the checkpoint of `step` lies.
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("step-{step:06}"))
    }

    /// The steps there are checkpoints of, ascending. Temporary folders are not among them.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>> {
        if !self.dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(Error::io("read the folder", &self.dir))? {
            let name = entry
                .map_err(Error::io("read the folder", &self.dir))?
                .file_name();
            let step: Option<u64> = name
                .to_str()
                .and_then(|name| name.strip_prefix("step-"))
                .and_then(|step| step.parse().ok());
            steps.extend(step);
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Writes the checkpoint of `step` and removes all but the newest `keep`. `components` writes the model's folders
    /// into the one it is given.
    ///
    /// # Errors
    /// The disk is full or not writable; the checkpoints before stay as they are.
    pub fn save(
        &self,
        step: u64,
        identity: &Value,
        keep: usize,
        optimizer: &Optimizer,
        ema: Option<&Ema>,
        components: impl FnOnce(&Path) -> velatura::Result<()>,
    ) -> Result<()> {
        write_folder_atomically(&self.path(step), |dir| {
            components(dir)?;
            let mut tensors = optimizer.state();
            if let Some(ema) = ema {
                tensors.extend(
                    ema.state()
                        .into_iter()
                        .map(|(name, tensor)| (format!("{name}#average"), tensor)),
                );
            }
            save_tensors(&dir.join(TRAINING), tensors, FloatType::F32)?;
            let threads = velatura_kernels::pool::threads();
            let files = digests(dir).map_err(velatura::Error::io("read back", dir))?;
            let state = State {
                format: FORMAT,
                step,
                identity: identity.clone(),
                threads,
                files,
            };
            let path = dir.join(STATE);
            let text = serde_json::to_string_pretty(&state)
                .map_err(|error| velatura::Error::format(&path, error.to_string()))?;
            write_atomically(&path, |out| std::io::Write::write_all(out, text.as_bytes()))
        })?;
        let steps = self.steps()?;
        for old in &steps[..steps.len().saturating_sub(keep)] {
            let path = self.path(*old);
            fs::remove_dir_all(&path).map_err(Error::io("remove the old checkpoint", &path))?;
        }
        Ok(())
    }

    /// The newest checkpoint, after checking that it is whole and belongs to this config.
    ///
    /// # Errors
    /// A file is damaged or missing; the config differs in what the weights depend on.
    pub fn newest(&self, identity: &Value) -> Result<Option<(PathBuf, State)>> {
        let Some(&step) = self.steps()?.last() else {
            return Ok(None);
        };
        let dir = self.path(step);
        let path = dir.join(STATE);
        let state: State = velatura::checkpoint::read_config(&path)?;
        let redo = format!(
            "remove {} to go on from the checkpoint before",
            dir.display()
        );
        if state.format != FORMAT {
            return Err(Error::run(
                &dir,
                format!("expected format {FORMAT}, found {}; {redo}", state.format),
            ));
        }
        if let Some((field, before, now)) = first_difference(&state.identity, identity, "") {
            return Err(Error::run(
                &dir,
                format!(
                    "the run was started with {field} = {before}, the config now says {now}; a resumed run cannot \
                     change that. Restore the field, or choose another [run] dir"
                ),
            ));
        }
        let found = digests(&dir).map_err(Error::io("read", &dir))?;
        for (file, digest) in &state.files {
            match found.get(file) {
                Some(other) if other == digest => {}
                Some(_) => {
                    return Err(Error::run(
                        &dir,
                        format!("{file} is damaged: its checksum differs; {redo}"),
                    ));
                }
                None => return Err(Error::run(&dir, format!("{file} is missing; {redo}"))),
            }
        }
        Ok(Some((dir, state)))
    }

    /// Removes what an interrupted write has left.
    pub fn clean(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b".step-") && bytes.ends_with(b".tmp") {
                // What cannot be removed does no harm: it is never read.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Fills moments and averages from the checkpoint in `dir`.
///
/// # Errors
/// A tensor is missing or of another size.
pub fn restore(dir: &Path, optimizer: &mut Optimizer, ema: Option<&mut Ema>) -> Result<()> {
    let file = TensorFile::open(&dir.join(TRAINING))?;
    let fill = |name: String, into: &mut [f32]| -> Result<()> {
        let Some(view) = file.tensor(&name) else {
            return Err(Error::run(dir, format!("{TRAINING} has no tensor {name}")));
        };
        let values = view.to_f32()?;
        if values.len() != into.len() {
            let message = format!(
                "{TRAINING}: {name}: expected {} values, found {}",
                into.len(),
                values.len()
            );
            return Err(Error::run(dir, message));
        }
        into.copy_from_slice(&values);
        Ok(())
    };
    let keys: Vec<String> = optimizer
        .parameters()
        .iter()
        .map(|named| named.key())
        .collect();
    for (key, moments) in keys.iter().zip(optimizer.moments_mut()) {
        fill(format!("{key}#first"), &mut moments.first)?;
        fill(format!("{key}#second"), &mut moments.second)?;
    }
    if let Some(ema) = ema {
        for (key, average) in keys.iter().zip(ema.averages_mut()) {
            fill(format!("{key}#average"), average)?;
        }
    }
    Ok(())
}

/// SHA-256 of every file below `dir` but the state itself, by relative path.
fn digests(dir: &Path) -> std::io::Result<BTreeMap<String, String>> {
    fn walk(dir: &Path, below: &str, found: &mut BTreeMap<String, String>) -> std::io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), &format!("{name}/"), found)?;
            } else if name != STATE {
                let mut hasher = Sha256::new();
                std::io::copy(&mut fs::File::open(entry.path())?, &mut hasher)?;
                found.insert(name, hex(&hasher.finalize()));
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Optimizer as Config;
    use crate::optimizer::Named;
    use serde_json::json;
    use velatura_tensor::{Parameter, Tensor};

    fn parts() -> (Optimizer, Ema) {
        let parameter = Parameter::new("w", Tensor::from_vec(vec![1.0, 2.0], &[2]));
        let named = [Named {
            component: "unet",
            parameter,
        }];
        (
            Optimizer::new(&Config::default(), 9, &named),
            Ema::new(0.9, &named).unwrap(),
        )
    }

    fn save(checkpoints: &Checkpoints, step: u64) {
        let (mut optimizer, ema) = parts();
        optimizer.moments_mut()[0].second[1] = step as f32;
        let components = |dir: &Path| {
            fs::create_dir(dir.join("unet"))
                .and_then(|()| fs::write(dir.join("unet/x"), "weights"))
                .unwrap();
            Ok(())
        };
        checkpoints
            .save(
                step,
                &json!({"seed": 1}),
                2,
                &optimizer,
                Some(&ema),
                components,
            )
            .unwrap();
    }

    #[test]
    fn the_last_few_are_kept_and_the_newest_comes_back() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(run.path());
        assert!(checkpoints.newest(&json!({})).unwrap().is_none());
        for step in [5, 10, 15] {
            save(&checkpoints, step);
        }
        // What a killed process leaves behind is no checkpoint.
        fs::create_dir(run.path().join("checkpoints/.step-000020.abc.tmp")).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [10, 15]);
        checkpoints.clean();
        assert_eq!(
            fs::read_dir(run.path().join("checkpoints"))
                .unwrap()
                .count(),
            2
        );

        let (dir, state) = checkpoints.newest(&json!({"seed": 1})).unwrap().unwrap();
        assert_eq!(state.step, 15);
        let (mut optimizer, mut ema) = parts();
        restore(&dir, &mut optimizer, Some(&mut ema)).unwrap();
        assert_eq!(optimizer.moments_mut()[0].second, [0.0, 15.0]);
        assert_eq!(ema.averages_mut()[0], [1.0, 2.0]);
    }

    #[test]
    fn a_damaged_or_foreign_checkpoint_is_refused() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(run.path());
        save(&checkpoints, 3);
        let message = |identity: Value| checkpoints.newest(&identity).err().unwrap().to_string();
        assert!(message(json!({"seed": 2})).contains("seed = 1"));
        fs::write(checkpoints.path(3).join("unet/x"), "weighty").unwrap();
        assert!(message(json!({"seed": 1})).contains("unet/x is damaged"));
        fs::remove_file(checkpoints.path(3).join("unet/x")).unwrap();
        assert!(message(json!({"seed": 1})).contains("unet/x is missing"));
    }
}
