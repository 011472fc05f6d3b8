//! Scenes as a folder: pictures, and a `metadata.jsonl` in the image-folder convention.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::SceneError;
use crate::plan::SceneGenerator;

/// Told after each picture: how many are done, and of how many. False stops the work.
pub type Progress<'a> = dyn FnMut(u64, u64) -> bool + 'a;

impl SceneGenerator {
    /// Writes scenes 0..`count` of `seed` to the folder `out`: `000000.png` and so on, and
    /// `metadata.jsonl` with `file_name`, `text` (the fullest caption), `captions` and `truth`.
    ///
    /// Everything is written beside `out` under a temporary name and renamed at the end: the folder
    /// is there whole or not at all.
    ///
    /// # Errors
    /// `out` exists and isn't an empty folder; a file can't be written; `progress` says stop.
    pub fn render_folder(
        &self,
        count: u64,
        seed: u64,
        out: &Path,
        progress: Option<&mut Progress<'_>>,
    ) -> Result<(), SceneError> {
        let occupied = match std::fs::read_dir(out) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => out.exists(),
        };
        if occupied {
            return Err(SceneError::OutputExists {
                path: out.to_path_buf(),
            });
        }
        let partial = Partial::create(out)?;
        self.write_all(count, seed, &partial.path, progress)?;
        partial.finish(out)
    }

    fn write_all(
        &self,
        count: u64,
        seed: u64,
        dir: &Path,
        mut progress: Option<&mut Progress<'_>>,
    ) -> Result<(), SceneError> {
        let metadata = dir.join("metadata.jsonl");
        let unwritable = |source| SceneError::Write {
            path: metadata.clone(),
            source,
        };
        let mut lines =
            std::io::BufWriter::new(std::fs::File::create(&metadata).map_err(unwritable)?);
        for index in 0..count {
            let scene = self.scene(seed, index);
            let file_name = format!("{index:06}.png");
            let path = dir.join(&file_name);
            scene.render().save(&path).map_err(|error| match error {
                image::ImageError::IoError(source) => SceneError::Write {
                    path: path.clone(),
                    source,
                },
                other => SceneError::Encode {
                    path: path.clone(),
                    reason: other.to_string(),
                },
            })?;
            let line = json!({
                "file_name": file_name,
                "text": scene.captions.first(),
                "captions": scene.captions,
                "truth": scene.truth,
            });
            writeln!(lines, "{line}").map_err(unwritable)?;
            let done = index + 1;
            if progress.as_mut().is_some_and(|tell| !tell(done, count)) && done < count {
                return Err(SceneError::Cancelled { done, count });
            }
        }
        lines.flush().map_err(unwritable)
    }
}

/// A folder under a temporary name that disappears unless it is finished.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(out: &Path) -> Result<Self, SceneError> {
        let mut name = out.file_name().unwrap_or("scenes".as_ref()).to_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let path = out.with_file_name(name);
        std::fs::create_dir_all(&path).map_err(|source| SceneError::Write {
            path: path.clone(),
            source,
        })?;
        Ok(Self { path })
    }

    fn finish(self, out: &Path) -> Result<(), SceneError> {
        let failed = |source| SceneError::Write {
            path: out.to_path_buf(),
            source,
        };
        if out.exists() {
            // Known to be empty; removing it fails if that has changed since.
            std::fs::remove_dir(out).map_err(failed)?;
        }
        std::fs::rename(&self.path, out).map_err(failed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename there is nothing left under this name; otherwise it is our half-done work,
        // and a failure to remove it can't be told to anybody from here.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
