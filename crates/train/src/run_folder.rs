//! The run folder: taken by one process at a time, new unless the run is resumed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::checkpoint::{Checkpoints, State};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::trainer::Start;

/// An open run folder. The lock in it is freed when the process ends, however it ends.
pub struct RunFolder {
    dir: PathBuf,
    config_file: PathBuf,
    checkpoint: Option<(PathBuf, State)>,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder, or opens the one of the run that is resumed. `file` is the config, of which a copy is kept.
    ///
    /// # Errors
    /// The folder exists and the run is not resumed; another process trains in it; its newest checkpoint is damaged
    /// or belongs to another config.
    pub fn open(config: &Config, file: &Path, resume: bool) -> Result<RunFolder> {
        let dir = &config.run.dir;
        if dir.exists() && !resume {
            return Err(Error::run(
                dir,
                "it exists already. `--resume` goes on with the run in it; for a new run choose another [run] dir, or \
                 remove the folder",
            ));
        }
        fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
        let path = dir.join("run.lock");
        let lock = File::create(&path).map_err(Error::io("make", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::run(
                    dir,
                    "another process is training in it; wait for it or stop it",
                ));
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io {
                    action: "lock",
                    path,
                    source,
                });
            }
        }
        let checkpoints = Checkpoints::of(dir);
        checkpoints.clean();
        let checkpoint = checkpoints.newest(&config.identity())?;
        if let Some((path, state)) = &checkpoint {
            if state.step > config.run.steps {
                let message = format!(
                    "its newest checkpoint, {}, is of step {}, but the config ends at {}",
                    path.display(),
                    state.step,
                    config.run.steps
                );
                return Err(Error::run(dir, message));
            }
            let threads = velatura_kernels::pool::threads();
            if state.threads != threads {
                eprintln!(
                    "note: the run was saved with {} threads and goes on with {threads}; the weights will differ in \
                     their last bits from those of an uninterrupted run",
                    state.threads
                );
            }
        }
        let copy = dir.join("config.toml");
        fs::copy(file, &copy).map_err(Error::io("write", &copy))?;
        Ok(RunFolder {
            dir: dir.clone(),
            config_file: file.to_path_buf(),
            checkpoint,
            _lock: lock,
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the run is called: the folder's last part.
    pub fn name(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        if name.is_empty() || name == "pytorch_lora_weights" {
            "lora".into()
        } else {
            name.into_owned()
        }
    }

    /// The config file, for errors about its values.
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// The folder of the checkpoint to go on from.
    pub fn checkpoint(&self) -> Option<&Path> {
        self.checkpoint.as_ref().map(|(dir, _)| dir.as_path())
    }

    pub(crate) fn start(&self) -> Start {
        match &self.checkpoint {
            Some((dir, state)) => Start {
                step: state.step,
                checkpoint: Some(dir.clone()),
            },
            None => Start {
                step: 0,
                checkpoint: None,
            },
        }
    }
}

impl Drop for RunFolder {
    /// Removes the folder if nothing but what [`RunFolder::open`] made is in it, so that a config with a mistake can
    /// be mended and started again.
    fn drop(&mut self) {
        const MADE: [&str; 2] = ["config.toml", "run.lock"];
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        if names
            .iter()
            .all(|name| MADE.iter().any(|made| name == made))
        {
            // What cannot be removed is only in the way of the next start, which says so.
            for name in MADE {
                let _ = fs::remove_file(self.dir.join(name));
            }
            let _ = fs::remove_dir(&self.dir);
        }
    }
}
