//! Checkpoints of a run: everything that the next step depends on, written whole or not at all.
//!
//! `checkpoints/step-000500/` holds the components as diffusers folders in f32, `training.safetensors` (moments of
//! the optimiser and averages of the weights) and `state.json` with the step and the SHA-256 of every other file.
//! Random numbers and the order of the data are functions of seed and step (see `random.rs`), so the step is the
//! data cursor and the whole state of the random numbers.

mod state;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use velatura::checkpoint::{FloatType, TensorFile, save_tensors, write_folder_atomically};

pub use self::state::State;
use crate::config::first_difference;
use velatura_tensor::Tensor;

use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;

/// The file beside the components.
const TRAINING: &str = "training.safetensors";

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
        optimizers: &[Optimizer],
        ema: Option<&Ema>,
        components: impl FnOnce(&Path) -> velatura::Result<()>,
    ) -> Result<()> {
        write_folder_atomically(&self.path(step), |dir| {
            components(dir)?;
            let mut tensors: Vec<_> = optimizers.iter().flat_map(Optimizer::state).collect();
            if let Some(ema) = ema {
                tensors.extend(
                    ema.state()
                        .into_iter()
                        .map(|(name, tensor)| (format!("{name}#average"), tensor)),
                );
            }
            save_tensors(&dir.join(TRAINING), tensors, FloatType::F32)?;
            State::write(dir, step, identity)
        })?;
        let steps = self.steps()?;
        for old in &steps[..steps.len().saturating_sub(keep)] {
            let path = self.path(*old);
            fs::remove_dir_all(&path).map_err(Error::io("remove the old checkpoint", &path))?;
        }
        Ok(())
    }

    /// The newest checkpoint that is whole, after checking that it belongs to this config. A damaged one is set aside
    /// under another name, with a word to the person, and the one before is taken.
    ///
    /// # Errors
    /// All are damaged; the config differs in what the weights depend on.
    pub fn newest(&self, identity: &Value) -> Result<Option<(PathBuf, State)>> {
        let mut faults = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            let dir = self.path(step);
            let state = match State::verify(&dir) {
                Ok(state) => state,
                Err(fault) => {
                    eprintln!("note: {fault}");
                    faults.push((dir, fault));
                    continue;
                }
            };
            if let Some((field, before, now)) = first_difference(&state.identity, identity, "") {
                return Err(Error::run(
                    &dir,
                    format!(
                        "the run was started with {field} = {before}, the config now says {now}; a resumed run cannot \
                         change that. Restore the field, or choose another [run] dir"
                    ),
                ));
            }
            for (damaged, _) in &faults {
                let aside = self.set_aside(damaged)?;
                eprintln!(
                    "note: the damaged checkpoint is now {}; the run goes on from step {step}",
                    aside.display()
                );
            }
            return Ok(Some((dir, state)));
        }
        match faults.into_iter().next() {
            None => Ok(None),
            Some((_, fault)) => Err(Error::run(
                &self.dir,
                format!(
                    "no checkpoint in it is whole. The newest: {fault}. Restore the file from a copy, or remove the \
                     folder to begin again"
                ),
            )),
        }
    }

    /// Renames a damaged checkpoint, so that it neither counts as one nor is lost.
    fn set_aside(&self, damaged: &Path) -> Result<PathBuf> {
        let name = damaged.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.dir.join(format!("damaged-{name}"));
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(Error::io("remove", &aside))?;
        }
        fs::rename(damaged, &aside).map_err(Error::io("rename", damaged))?;
        Ok(aside)
    }

    /// Removes what interrupted writes have left, here and in the run folder.
    pub fn clean(&self) {
        for dir in [Some(self.dir.as_path()), self.dir.parent()] {
            let Some(Ok(entries)) = dir.map(fs::read_dir) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let bytes = name.as_encoded_bytes();
                if bytes.starts_with(b".") && bytes.ends_with(b".tmp") {
                    // What cannot be removed does no harm: it is never read.
                    let _ = fs::remove_dir_all(entry.path());
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }
}

/// Fills moments and averages from the checkpoint in `dir`.
///
/// # Errors
/// A tensor is missing or of another size.
pub fn restore(dir: &Path, optimizers: &mut [Optimizer], ema: Option<&mut Ema>) -> Result<()> {
    let file = TensorFile::open(&dir.join(TRAINING))?;
    let read = |name: String, len: usize| -> Result<Vec<f32>> {
        let Some(view) = file.tensor(&name) else {
            return Err(Error::run(dir, format!("{TRAINING} has no tensor {name}")));
        };
        let values = view.to_f32()?;
        if values.len() != len {
            let message = format!(
                "{TRAINING}: {name}: expected {len} values, found {}",
                values.len()
            );
            return Err(Error::run(dir, message));
        }
        Ok(values)
    };
    for (named, moments) in optimizers.iter_mut().flat_map(Optimizer::moments_mut) {
        let (key, len) = (named.key(), named.len());
        let names = moments.names().iter();
        let values = names.map(|name| read(format!("{key}#{name}"), len));
        moments.set(&values.collect::<Result<Vec<_>>>()?);
    }
    for (named, average) in ema.into_iter().flat_map(Ema::averages_mut) {
        let values = read(format!("{}#average", named.key()), named.len())?;
        *average = Tensor::from_vec(values, named.parameter.shape());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Optimizer as Config;
    use crate::optimizer::Named;
    use serde_json::json;
    use velatura_tensor::Parameter;

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
        let (_, moments) = optimizer.moments_mut().next().unwrap();
        moments.set(&[vec![0.0; 2], vec![0.0, step as f32]]);
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
                &[optimizer],
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
        fs::create_dir(run.path().join(".model.abc.tmp")).unwrap();
        fs::write(run.path().join(".metrics.jsonl.abc.tmp"), "").unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [10, 15]);
        checkpoints.clean();
        assert_eq!(
            fs::read_dir(run.path().join("checkpoints"))
                .unwrap()
                .count(),
            2
        );
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);

        let (dir, state) = checkpoints.newest(&json!({"seed": 1})).unwrap().unwrap();
        assert_eq!(state.step, 15);
        let (optimizer, mut ema) = parts();
        let mut optimizers = [optimizer];
        restore(&dir, &mut optimizers, Some(&mut ema)).unwrap();
        let (_, moments) = optimizers[0].moments_mut().next().unwrap();
        assert_eq!(moments.to_f32()[1], [0.0, 15.0]);
        assert_eq!(ema.averages_mut().next().unwrap().1.as_slice(), [1.0, 2.0]);
    }

    #[test]
    fn a_damaged_checkpoint_gives_way_to_the_one_before() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(run.path());
        let identity = json!({"seed": 1});
        save(&checkpoints, 3);
        save(&checkpoints, 6);
        let message = |identity: Value| checkpoints.newest(&identity).err().unwrap().to_string();
        assert!(message(json!({"seed": 2})).contains("seed = 1"));
        fs::write(checkpoints.path(6).join("unet/x"), "weighty").unwrap();
        let (dir, state) = checkpoints.newest(&identity).unwrap().unwrap();
        assert_eq!((dir, state.step), (checkpoints.path(3), 3));
        // It does not count any more, and can be looked at.
        assert_eq!(checkpoints.steps().unwrap(), [3]);
        assert!(
            run.path()
                .join("checkpoints/damaged-step-000006/unet/x")
                .is_file()
        );

        fs::remove_file(checkpoints.path(3).join("unet/x")).unwrap();
        let error = message(identity.clone());
        assert!(
            error.contains("no checkpoint in it is whole") && error.contains("unet/x is missing"),
            "{error}"
        );
        // The state itself can be what is damaged.
        save(&checkpoints, 9);
        let state = checkpoints.path(9).join("state.json");
        let text = fs::read_to_string(&state).unwrap();
        fs::write(&state, &text[..text.len() / 2]).unwrap();
        assert!(message(identity.clone()).contains("state.json"));
        // Checkpoints without checksums are believed.
        let mut value: Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().remove("files");
        fs::write(&state, value.to_string()).unwrap();
        assert_eq!(checkpoints.newest(&identity).unwrap().unwrap().1.step, 9);
    }
}
