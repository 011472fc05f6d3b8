//! What a checkpoint says of itself, and whether its files are what they were when it was written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use velatura::checkpoint::write_atomically;

use crate::dataset::hex;
use crate::error::{Error, Result};

/// The file with the state.
const STATE: &str = "state.json";
/// Of the layout.
const FORMAT: u32 = 1;

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
    /// SHA-256 of every other file; without an entry a file is believed.
    #[serde(default)]
    files: BTreeMap<String, String>,
}

impl State {
    /// Writes the state of the checkpoint whose other files are in `dir`.
    ///
    /// # Errors
    /// The disk is full or not writable.
    pub(super) fn write(dir: &Path, step: u64, identity: &Value) -> velatura::Result<()> {
        let state = State {
            format: FORMAT,
            step,
            identity: identity.clone(),
            threads: velatura_kernels::pool::threads(),
            files: digests(dir).map_err(velatura::Error::io("read back", dir))?,
        };
        let path = dir.join(STATE);
        let text = serde_json::to_string_pretty(&state)
            .map_err(|error| velatura::Error::format(&path, error.to_string()))?;
        write_atomically(&path, |out| std::io::Write::write_all(out, text.as_bytes()))
    }

    /// Reads the state of the checkpoint in `dir` and compares every file with its checksum.
    ///
    /// # Errors
    /// A file is missing or damaged, the state itself included; the layout is another.
    pub(super) fn verify(dir: &Path) -> Result<State> {
        let state: State = velatura::checkpoint::read_config(&dir.join(STATE))?;
        if state.format != FORMAT {
            return Err(Error::run(
                dir,
                format!(
                    "expected a checkpoint of format {FORMAT}, found {}",
                    state.format
                ),
            ));
        }
        let found = digests(dir).map_err(Error::io("read", dir))?;
        for (file, digest) in &state.files {
            match found.get(file) {
                Some(other) if other == digest => {}
                Some(_) => {
                    return Err(Error::run(
                        dir,
                        format!("{file} is damaged: its checksum differs"),
                    ));
                }
                None => return Err(Error::run(dir, format!("{file} is missing"))),
            }
        }
        Ok(state)
    }
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
