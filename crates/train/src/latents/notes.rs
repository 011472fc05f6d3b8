//! What stands beside a shard: a line for each picture of the source, in their order.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::Skipped;
use crate::error::{Error, Result};

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A picture whose latents are in the shard.
    Picture {
        captions: Vec<String>,
        bucket: u16,
        /// Whether the latents of its mirror image follow its own.
        mirrored: bool,
    },
    /// One that could not be read.
    Skipped { file: String, reason: String },
}

/// What of the lines is kept in memory.
#[derive(Default)]
pub struct Notes {
    pub pictures: Vec<Entry>,
    pub skipped: Vec<Skipped>,
    /// Of each bucket's tensor.
    pub rows: Vec<usize>,
}

/// Where a picture is.
pub struct Entry {
    /// Where its line begins.
    line: u64,
    pub bucket: u16,
    /// Of the bucket's tensor.
    pub row: u16,
    /// Whether the next row is its mirror image.
    pub mirrored: bool,
}

impl Notes {
    /// Reads the lines at `path`; none if they are missing or damaged.
    pub fn read(path: &Path, buckets: usize) -> Option<Notes> {
        let text = fs::read_to_string(path).ok()?;
        let mut notes = Notes {
            rows: vec![0; buckets],
            ..Notes::default()
        };
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            match serde_json::from_str(line).ok()? {
                Line::Picture {
                    bucket, mirrored, ..
                } => {
                    let rows = notes.rows.get_mut(bucket as usize)?;
                    notes.pictures.push(Entry {
                        line: start,
                        bucket,
                        row: u16::try_from(*rows).ok()?,
                        mirrored,
                    });
                    *rows += 1 + usize::from(mirrored);
                }
                Line::Skipped { file, reason } => notes.skipped.push(Skipped { file, reason }),
            }
            start += line.len() as u64;
        }
        Some(notes)
    }
}

/// The captions of all pictures, from the lines at `path`.
///
/// # Errors
/// They cannot be read.
pub fn all_captions(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mut all = Vec::new();
    for line in text.lines() {
        if let Ok(Line::Picture { captions, .. }) = serde_json::from_str(line) {
            all.extend(captions);
        }
    }
    Ok(all)
}

/// The captions of a picture, from the lines at `path`.
///
/// # Errors
/// They are not as they were when the cache was opened.
pub fn captions(path: &Path, entry: &Entry) -> Result<Vec<String>> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io("read", path))?);
    let mut text = String::new();
    file.seek(SeekFrom::Start(entry.line))
        .and_then(|_| file.read_line(&mut text))
        .map_err(Error::io("read", path))?;
    match serde_json::from_str(&text) {
        Ok(Line::Picture { captions, .. }) => Ok(captions),
        _ => Err(Error::run(
            path,
            format!(
                "expected the captions of a picture at byte {}, found something else; remove the cache, which is then \
                 made again",
                entry.line
            ),
        )),
    }
}
