//! WebDataset: tar archives, whose members of one name and several endings make up one sample.
//!
//! `000017.jpg` and `000017.txt` (or `000017.json` with the field `text` or `caption`) are a picture and its captions.
//! Only an index of where they stand is kept in memory, so any picture can be read at any time, and the archives can be
//! as large as they like.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tar::Archive;

use super::{Item, Pictures, Skipped, captions, shards, summary};
use crate::error::{Error, Result};
use crate::picture::{self, is_ending};

/// Members of an archive begin at multiples of so many bytes.
const BLOCK: u64 = 512;

/// Pictures in tar archives.
pub struct WebDataset {
    /// As the config names it.
    pattern: PathBuf,
    shards: Vec<PathBuf>,
    samples: Vec<Sample>,
    skipped: Vec<Skipped>,
    captions_needed: bool,
}

struct Sample {
    shard: u32,
    /// The members' path up to the first dot of the file's name.
    key: Box<str>,
    picture: Span,
    captions: Option<Captions>,
}

/// Where a member's content stands in its archive.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    length: u64,
}

#[derive(Clone, Copy)]
enum Captions {
    Text(Span),
    Json(Span),
}

/// What a key has been found to have.
#[derive(Default)]
struct Members {
    picture: Option<Span>,
    text: Option<Span>,
    json: Option<Span>,
}

impl WebDataset {
    /// Goes through the members of all archives, without reading their contents. Samples without a picture, and with
    /// `captions_needed` without a caption, are passed over and named by [`Pictures::skipped`], as is whatever comes
    /// after the place where an archive is cut short or damaged.
    ///
    /// # Errors
    /// An archive is missing, or nothing is left.
    pub fn scan(pattern: &Path, captions_needed: bool) -> Result<WebDataset> {
        let mut dataset = WebDataset {
            pattern: pattern.to_path_buf(),
            shards: shards::find(pattern, "tar")?,
            samples: Vec::new(),
            skipped: Vec::new(),
            captions_needed,
        };
        for shard in 0..dataset.shards.len() {
            dataset.index(shard)?;
        }
        if dataset.samples.is_empty() {
            let message = format!(
                "nothing is left to learn from; {}",
                summary(&dataset.skipped)
            );
            return Err(Error::data(dataset.place(), message));
        }
        Ok(dataset)
    }

    /// Adds the samples of one archive.
    fn index(&mut self, shard: usize) -> Result<()> {
        let path = self.shards[shard].clone();
        let file = File::open(&path).map_err(Error::io("read", &path))?;
        let end = file.metadata().map_err(Error::io("read", &path))?.len();
        let mut archive = Archive::new(file);
        let mut keys: Vec<(String, Members)> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let entries = archive
            .entries_with_seek()
            .map_err(Error::io("read", &path))?;
        // Where the last member ends.
        let mut reached = 0;
        let mut cut = false;
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if reached == 0 => {
                    let reason = format!("not a tar archive: {error}{}", compressed(&path));
                    self.skip(shard, "", reason);
                    return Ok(());
                }
                Err(error) => {
                    self.skip(shard, "", format!("cannot be read to its end: {error}"));
                    break;
                }
            };
            let content = entry.raw_file_position();
            let whole = content.saturating_add(entry.size());
            reached = whole.checked_next_multiple_of(BLOCK).unwrap_or(whole);
            cut |= whole > end;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some((key, ending)) = split(&name) else {
                continue;
            };
            let span = Span {
                start: content,
                length: entry.size(),
            };
            if span.start.saturating_add(span.length) > end {
                let reason = "the archive was cut short within it; what came after is missing";
                self.skip(shard, &name, reason);
                continue;
            }
            let number = *known.entry(key.to_owned()).or_insert_with(|| {
                keys.push((key.to_owned(), Members::default()));
                keys.len() - 1
            });
            let members = &mut keys[number].1;
            let place = match ending {
                "txt" | "caption" => &mut members.text,
                "json" => &mut members.json,
                _ if is_ending(ending) => &mut members.picture,
                _ => continue,
            };
            if place.is_some() {
                self.skip(shard, &name, "this sample has had one already");
            } else {
                *place = Some(span);
            }
        }
        // Whole archives go on with blocks of zeros.
        if reached >= end && end > 0 && !cut {
            let reason = "no end mark: it may have been cut short between two members";
            self.skip(shard, "", reason);
        }
        if keys.iter().all(|(_, members)| members.picture.is_none()) {
            self.skip(shard, "", "no pictures in it");
            return Ok(());
        }
        for (key, members) in keys {
            let Some(picture) = members.picture else {
                let endings = picture::EXTENSIONS.join(", ");
                self.skip(shard, &key, format!("no picture (endings: {endings})"));
                continue;
            };
            let text = members.text.map(Captions::Text);
            let captions = text.or(members.json.map(Captions::Json));
            if captions.is_none() && self.captions_needed {
                self.skip(shard, &key, "no caption: neither a .txt nor a .json member");
                continue;
            }
            self.samples.push(Sample {
                shard: shard as u32,
                key: key.into(),
                picture,
                captions,
            });
        }
        Ok(())
    }

    fn skip(&mut self, shard: usize, member: &str, reason: impl Into<String>) {
        self.skipped.push(Skipped {
            file: self.name(shard, member),
            reason: reason.into(),
        });
    }

    /// How messages call a member of a shard, or the whole one.
    fn name(&self, shard: usize, member: &str) -> String {
        let shard = self.shards[shard].display();
        if member.is_empty() {
            shard.to_string()
        } else {
            format!("{shard}:{member}")
        }
    }

    fn read(&self, sample: &Sample) -> Result<Item, String> {
        let path = &self.shards[sample.shard as usize];
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let mut bytes = |span: Span| span.read(&mut file).map_err(|error| error.to_string());
        let captions = match sample.captions {
            None => Vec::new(),
            Some(Captions::Text(span)) => captions::lines(bytes(span)?)?,
            Some(Captions::Json(span)) => fields(&bytes(span)?)?,
        };
        if captions.is_empty() && self.captions_needed {
            return Err("its caption is empty".into());
        }
        Ok(Item {
            picture: picture::decode_bytes(&bytes(sample.picture)?)?,
            captions,
        })
    }
}

impl Pictures for WebDataset {
    fn len(&self) -> Option<u64> {
        Some(self.samples.len() as u64)
    }

    fn item(&self, index: u64) -> Result<Item, Skipped> {
        let sample = &self.samples[index as usize];
        self.read(sample).map_err(|reason| Skipped {
            file: self.name(sample.shard as usize, &sample.key),
            reason,
        })
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn place(&self) -> String {
        self.pattern.display().to_string()
    }

    fn fingerprint(&self) -> Result<String> {
        shards::digest(&self.shards)
    }
}

impl Span {
    fn read(self, file: &mut File) -> io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(self.start))?;
        let mut bytes = vec![0; self.length as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A member's key and ending: the name is divided at the first dot of its last part. Hidden files have none.
fn split(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].find('.').filter(|&dot| dot > 0)?;
    Some((&name[..base + dot], &name[base + dot + 1..]))
}

/// The captions in a JSON object.
fn fields(bytes: &[u8]) -> Result<Vec<String>, String> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| format!("its .json member is not JSON: {error}"))?;
    let text = value.get("text").or_else(|| value.get("caption"));
    let all = match text {
        Some(Value::String(caption)) => vec![caption.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(Vec::new()),
    };
    Ok(captions::trimmed(all))
}

/// A hint where an archive is packed as a whole, which forbids reading from its middle.
fn compressed(path: &Path) -> &'static str {
    let mut magic = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match (read, magic) {
        (Ok(()), [0x1f, 0x8b]) => "; it is packed with gzip, expected a plain tar archive",
        _ => "",
    }
}
