//! Writing what a person asked for: under the name given or a free one beside it, whole or not at all, and checked
//! before the work starts.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, Result, checkpoint};

/// What to do when the file exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Put the new file in its place.
    Replace,
    /// Leave it, and write to the next free name: `a.png`, `a-2.png`, `a-3.png`, …
    Keep,
}

/// Writes `bytes` to `path`, or to a free name beside it, and returns the name used.
///
/// # Errors
/// [`Error::Io`] when the folder is missing or not writable, or the disk is full; `path` is then as it was before.
pub fn write_file(path: &Path, bytes: &[u8], existing: Existing) -> Result<PathBuf> {
    if existing == Existing::Replace {
        checkpoint::write_atomically(path, |out| out.write_all(bytes))?;
        return Ok(path.to_path_buf());
    }
    let folder = folder_of(path);
    let mut file = temporary(path)?;
    // Through the plain file, whose errors do not speak of a temporary name.
    let mut out = file.as_file();
    out.write_all(bytes)
        .and_then(|()| out.sync_all())
        .map_err(Error::io("write the file", path))?;
    // Asking whether a name is free and taking it must be one act, or two programs would take the same one.
    let mut attempt = 1;
    loop {
        let candidate = numbered(folder, path, attempt);
        match file.persist_noclobber(&candidate) {
            Ok(_) => return Ok(candidate),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                file = error.file;
                attempt += 1;
            }
            Err(error) => return Err(Error::io("write the file", &candidate)(error.error)),
        }
    }
}

/// Checks that a file can be made at `path`, before work is spent on what will go into it.
///
/// # Errors
/// [`Error::Io`] when the folder is missing or not writable; [`Error::Format`] when `path` is a folder.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::format(
            path,
            "expected the name of a file to write, found a folder; add a file name",
        ));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(Error::format(
            path,
            format!(
                "cannot write here: the folder {} does not exist; make it first or choose another",
                folder.display()
            ),
        ));
    }
    // Dropping the temporary file removes it.
    temporary(path).map(drop)
}

/// An empty file in `path`'s folder, with the permissions that a new file usually gets.
fn temporary(path: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".velatura-").suffix(".tmp");
    #[cfg(unix)]
    let permissions = {
        use std::os::unix::fs::PermissionsExt;
        std::fs::Permissions::from_mode(0o666)
    };
    #[cfg(unix)]
    builder.permissions(permissions);
    builder
        .tempfile_in(folder_of(path))
        .map_err(Error::io("make the file", path))
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// `path` itself at the first attempt, then `stem-2.ext`, `stem-3.ext`, …
fn numbered(folder: &Path, path: &Path, attempt: usize) -> PathBuf {
    if attempt == 1 {
        return path.to_path_buf();
    }
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{attempt}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    if folder == Path::new(".") {
        PathBuf::from(name)
    } else {
        folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_existing_file_is_kept_or_replaced_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert_eq!(write_file(&path, b"1", Existing::Keep).unwrap(), path);
        let second = write_file(&path, b"2", Existing::Keep).unwrap();
        assert_eq!(second, folder.path().join("a-2.png"));
        let third = write_file(&path, b"3", Existing::Keep).unwrap();
        assert_eq!(third, folder.path().join("a-3.png"));
        write_file(&path, b"4", Existing::Replace).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"4");
        assert_eq!(names(folder.path()), ["a-2.png", "a-3.png", "a.png"]);
    }

    #[test]
    fn checking_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        check_writable(&folder.path().join("a.png")).unwrap();
        assert!(names(folder.path()).is_empty());
        assert!(check_writable(folder.path()).is_err());
        let missing = check_writable(&folder.path().join("no/a.png")).unwrap_err();
        assert!(missing.to_string().contains("does not exist"), "{missing}");
    }
}
