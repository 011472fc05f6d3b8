//! What can go wrong while training, each as one paragraph that names file, field, expected and found.

use std::path::{Path, PathBuf};

/// Everything that stops a training run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be used.
    #[error("{file}: {message}", file = file.display())]
    Config {
        /// The TOML file.
        file: PathBuf,
        /// Field (or line), what was expected, what was found.
        message: String,
    },
    /// The training data cannot be used.
    #[error("data in {place}: {message}")]
    Data {
        /// The folder, or the name of the source.
        place: String,
        /// What is wrong with it.
        message: String,
    },
    /// The run folder, or a checkpoint inside it, cannot be used.
    #[error("run folder {folder}: {message}", folder = folder.display())]
    Run {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The loss or a gradient stopped being a number.
    #[error(
        "step {step}: {what}. The run stops here and writes no checkpoint of this state; {last}, and the batch that led \
         here is {batch}. A lower [optimizer] learning_rate, a longer warmup_steps or a smaller max_grad_norm usually \
         helps",
        last = last.as_ref().map_or("there is none before it".into(), |last| format!("the last good one is {}", last.display()))
    )]
    NotFinite {
        /// The step whose numbers are bad; its update was not applied.
        step: u64,
        /// Loss or gradient, and where.
        what: String,
        /// Where the batch lies, or why there is none.
        batch: String,
        /// The checkpoint to go back to.
        last: Option<PathBuf>,
    },
    /// Something outside the arithmetic ended a run that was under way: a full disk, say.
    #[error(
        "after step {step}: {source}. The run stops here; {last} once the cause is gone",
        last = last.as_ref().map_or("there is no checkpoint yet, so `--resume` begins again".into(), |last| {
            format!("the last whole checkpoint is {}, and `--resume` goes on from it", last.display())
        })
    )]
    CutShort {
        /// The last step done.
        step: u64,
        /// What happened.
        source: Box<Error>,
        /// The checkpoint to go on from.
        last: Option<PathBuf>,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}{advice}", path = path.display(), advice = advice(source))]
    Io {
        /// Verb: "read", "write", "rename", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The graphics card.
    #[error(transparent)]
    Gpu(#[from] velatura_tensor::GpuError),
    /// A model, tokenizer or checkpoint of the library.
    #[error(transparent)]
    Model(#[from] velatura::Error),
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Error + 'a {
        move |source| Error::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn data(place: impl std::fmt::Display, message: impl Into<String>) -> Error {
        Error::Data {
            place: place.to_string(),
            message: message.into(),
        }
    }

    pub(crate) fn run(folder: &Path, message: impl Into<String>) -> Error {
        Error::Run {
            folder: folder.to_path_buf(),
            message: message.into(),
        }
    }

    pub(crate) fn config(file: &Path, message: impl Into<String>) -> Error {
        Error::Config {
            file: file.to_path_buf(),
            message: message.into(),
        }
    }
}

/// What to do about the system's answer, where there is something to do.
fn advice(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull => "; free some space or choose another disk",
        _ => "",
    }
}
