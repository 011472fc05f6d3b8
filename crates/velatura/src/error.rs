//! The library's one error type. Every message is one paragraph that a person can act on: which file, which
//! field or tensor, what was expected, what was found, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by what a caller may want to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused: a file is missing, not readable, not writable, or the disk is full.
    #[error("{}: cannot {action}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was being done, as a verb and its object: `"read the config"`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// A field of a JSON file is missing, of the wrong type, or has a value that cannot be.
    #[error("{}field `{field}`: expected {expected}, found {found}", prefix(file))]
    Config {
        /// The file; empty until [`Error::in_file`] names it.
        file: PathBuf,
        /// The field, with its path when it is nested: `block_out_channels[2]`.
        field: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A tensor is missing, left over, misshapen, of a type that cannot be weights, or not finite.
    #[error(
        "{}tensor `{tensor}`: expected {expected}, found {found}",
        prefix(file)
    )]
    Tensor {
        /// The file; empty until [`Error::in_file`] names it.
        file: PathBuf,
        /// The tensor's name as the file has it.
        tensor: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A file or folder is not what it should be as a whole: cut short, not JSON, of another format.
    #[error("{}{message}", prefix(file))]
    Format {
        /// The file; empty until [`Error::in_file`] names it.
        file: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The caller asked for something impossible: zero steps, a size not divisible by 8, an unknown sampler.
    #[error("{field}: expected {expected}, found {found}")]
    Request {
        /// The option, as the person wrote it: `steps`.
        field: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A value became NaN or infinite while a model ran.
    #[error("{place}: the result is not finite (NaN or infinity); {advice}")]
    NotFinite {
        /// Which layer or step.
        place: String,
        /// What to do.
        advice: String,
    },
    /// The callback asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Wraps an [`io::Error`]; for `map_err(Error::io("read the config", path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }

    /// A config field with a wrong value; [`Error::in_file`] adds the file.
    pub fn config(
        field: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Error {
        Error::Config {
            file: PathBuf::new(),
            field: field.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// A tensor that is not as expected; [`Error::in_file`] adds the file.
    pub fn tensor(
        tensor: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Error {
        Error::Tensor {
            file: PathBuf::new(),
            tensor: tensor.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// A file that is wrong as a whole.
    pub fn format(file: impl AsRef<Path>, message: impl Into<String>) -> Error {
        Error::Format {
            file: file.as_ref().to_path_buf(),
            message: message.into(),
        }
    }

    /// A request that cannot be fulfilled.
    pub fn request(
        field: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Error {
        Error::Request {
            field: field.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// A NaN or infinity at `place`.
    pub fn not_finite(place: impl Into<String>, advice: impl Into<String>) -> Error {
        Error::NotFinite {
            place: place.into(),
            advice: advice.into(),
        }
    }

    /// Names the file in an error which does not name one yet.
    pub fn in_file(mut self, path: impl AsRef<Path>) -> Error {
        if let Error::Config { file, .. } | Error::Tensor { file, .. } | Error::Format { file, .. } =
            &mut self
            && file.as_os_str().is_empty()
        {
            *file = path.as_ref().to_path_buf();
        }
        self
    }

    /// Whether the fault lies in what was asked (exit status 2) and not in files or machine (1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Request { .. })
    }
}

/// `"path: "`, or nothing where no file is known.
fn prefix(file: &Path) -> String {
    if file.as_os_str().is_empty() {
        String::new()
    } else {
        format!("{}: ", file.display())
    }
}

/// What to do about an I/O error, where there is something to do.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => "; free some space or choose another disk",
        io::ErrorKind::PermissionDenied => "; check the permissions of the file and its folder",
        io::ErrorKind::NotFound => "; check the path",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_file_field_expected_and_found() {
        let error =
            Error::config("norm_num_groups", "a divisor of 320", 33).in_file("unet/config.json");
        assert_eq!(
            error.to_string(),
            "unet/config.json: field `norm_num_groups`: expected a divisor of 320, found 33"
        );
        // The innermost file stays.
        assert!(
            error
                .in_file("model_index.json")
                .to_string()
                .starts_with("unet/config.json")
        );
    }

    #[test]
    fn a_full_disk_is_said_plainly() {
        let error = Error::io("write", "a.png")(io::Error::from_raw_os_error(28));
        assert!(
            error.to_string().contains("No space left on device"),
            "{error}"
        );
        assert!(!error.is_usage());
    }
}
