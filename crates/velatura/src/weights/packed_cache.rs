//! Packed weights kept in a folder, for the next start.
//!
//! Packed, a model is larger than its checkpoint, and all of it is fresh memory, which the system has to clear first; on a
//! virtual machine the host may have to find it too. A file that was read lately is in memory already: mapped, it costs
//! neither clearing nor packing.
//!
//! A file holds one part of a model, and its name says what it was made from: every byte of the checkpoint, the config,
//! the number format, the instruction set, and this program. So an edited checkpoint or another build means another file,
//! never wrong numbers. Whatever in it is damaged shows in its checksums; it is then made again.
//!
//! Format: `VELAPACK`; the length and the CRC-32 of the header, 4 bytes each, little-endian; the header, JSON; then the
//! numbers of each weight, in this machine's byte order, large ones where a huge page may begin.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use velatura_kernels::isa;
use velatura_kernels::pool::parallel_for;
use velatura_tensor::{Memory, PackedForm, PackedParts, Precision, Weight};

use crate::checkpoint::Component;

const MAGIC: &[u8; 8] = b"VELAPACK";
/// What the files' names end with, and what those begin with that are not whole yet.
const KEPT: &str = "packed";
const TEMPORARY: &str = ".velatura-packed-";
/// Weights begin at multiples of a page, those of more bytes at multiples of a huge page. What is between them are holes,
/// which take no room on the disk.
const PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;
/// No header is as large: one of Stable Diffusion's UNet takes 50 KB.
const MAX_HEADER: usize = 1 << 24;
/// Checkpoints of fewer bytes are packed in no time.
const SMALLEST: u64 = 100_000_000;
/// All files together take at most so much: three models of Stable Diffusion's size in bf16, which take 4.5 GB each, or one in
/// f32. Of a part that alone would take more than half, nothing is kept.
const LIMIT: u64 = 16 << 30;

/// A folder in which packed weights are kept, at most 16 GiB of them; those that were used longest ago make way.
#[derive(Clone, Debug)]
pub struct PackedCache {
    dir: PathBuf,
    smallest: u64,
    note: fn(&str),
}

/// What [`PackedCache`] has of one part of a model, and what is to be added.
pub(super) struct Kept {
    cache: PackedCache,
    path: PathBuf,
    key: String,
    weights: Mutex<BTreeMap<String, Weight>>,
    incomplete: AtomicBool,
}

#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    weights: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    form: PackedForm,
    /// Of the numbers' first byte, counted from the first multiple of a huge page after the header.
    offset: u64,
    /// How many numbers of 32 bits.
    numbers: usize,
    /// How many scales follow them.
    rescale: usize,
    /// CRC-32 of both.
    checksum: u32,
}

impl PackedCache {
    /// A cache in the folder `dir`, which is made when it is needed. `note` is told in a sentence what is kept, and what
    /// could not be.
    pub fn new(dir: impl Into<PathBuf>, note: fn(&str)) -> PackedCache {
        PackedCache {
            dir: dir.into(),
            smallest: SMALLEST,
            note,
        }
    }

    /// Keeps parts whose checkpoint has at least so many bytes, instead of 100 MB.
    pub fn from_size(self, smallest: u64) -> PackedCache {
        PackedCache { smallest, ..self }
    }

    /// What is kept of `component` for products in `precision`; none where the part is too small.
    pub(super) fn open(&self, component: &Component, precision: Precision) -> Option<Kept> {
        let size: u64 = component.files().iter().map(|file| file.len() as u64).sum();
        if size < self.smallest {
            return None;
        }
        let key = key(component, precision);
        let part = component.dir().file_name()?.to_string_lossy();
        let path = self.dir.join(format!("{part}-{}.{KEPT}", &key[..16]));
        let weights = read(&path, &key).unwrap_or_default();
        Some(Kept {
            cache: self.clone(),
            path,
            key,
            incomplete: AtomicBool::new(weights.is_empty()),
            weights: Mutex::new(weights),
        })
    }

    /// Removes what was used longest ago until there is room for so many bytes, and what a process left behind that was killed.
    fn make_room(&self, needed: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let path = entry.path();
            let kept = path.extension().is_some_and(|end| end == KEPT);
            let name = entry.file_name();
            let temporary = name.to_string_lossy().starts_with(TEMPORARY);
            if let (true, Ok(meta)) = (kept || temporary, entry.metadata()) {
                files.push((meta.modified()?, meta.len(), path, temporary));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, ..)| len).sum();
        for (_, len, path, temporary) in files {
            // Whoever writes one holds its lock.
            let abandoned = temporary && File::open(&path)?.try_lock().is_ok();
            if abandoned || total + needed > LIMIT {
                fs::remove_file(path)?;
                total -= len;
            }
        }
        // A disk that this would nearly fill is left alone.
        match fs4::available_space(&self.dir)? / 2 < needed {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl Kept {
    /// A weight that was kept.
    pub fn get(&self, name: &str, shape: &[usize]) -> Option<Weight> {
        let weight = self.weights().get(name).cloned();
        weight.filter(|weight| weight.shape() == shape)
    }

    /// A weight to be kept.
    pub fn add(&self, name: &str, weight: &Weight) {
        self.weights().insert(name.to_owned(), weight.clone());
        self.incomplete.store(true, Ordering::Relaxed);
    }

    /// Writes the file, if it was not there as it should be. To be called when all weights have been added. Where that is
    /// not possible, it is noted and nothing else.
    pub fn write(&self) {
        if !self.incomplete.load(Ordering::Relaxed) {
            return;
        }
        let weights = self.weights();
        let parts: Option<Vec<(&str, &Weight, PackedParts)>> = weights
            .iter()
            .map(|(name, weight)| Some((name.as_str(), weight, weight.packed_parts()?)))
            .collect();
        // Weights for a graphics card are not packed.
        let Some(parts) = parts else { return };
        let (header, size) = self.header(&parts);
        if size > LIMIT / 2 {
            return;
        }
        let dir = &self.cache.dir;
        let attempt = || -> io::Result<()> {
            fs::create_dir_all(dir)?;
            self.cache.make_room(size)?;
            let file = tempfile::Builder::new()
                .prefix(TEMPORARY)
                .tempfile_in(dir)?;
            file.as_file().lock()?;
            // What a power cut leaves of it is known by its checksums, so nothing waits for the disk.
            write(file.as_file(), &header, &parts)?;
            file.persist(&self.path)?;
            Ok(())
        };
        let megabytes = size / 1_000_000;
        (self.cache.note)(&match attempt() {
            Ok(()) => format!(
                "{megabytes} MB of packed weights are kept in {}, from where the next start takes them",
                self.path.display()
            ),
            Err(error) => format!(
                "{megabytes} MB of packed weights were not kept in {}: {error}; the next start takes as long as this one",
                dir.display()
            ),
        });
    }

    fn weights(&self) -> MutexGuard<'_, BTreeMap<String, Weight>> {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header, and how many bytes its weights take.
    fn header(&self, parts: &[(&str, &Weight, PackedParts)]) -> (Header, u64) {
        let mut checksums = vec![0; parts.len()];
        velatura_kernels::pool::parallel_chunks_mut(&mut checksums, 1, |i, checksum| {
            checksum[0] = crc(parts[i].2.numbers, parts[i].2.rescale);
        });
        let mut end = 0_u64;
        let entry = |(&(name, weight, parts), checksum): (&(&str, &Weight, PackedParts), u32)| {
            let (numbers, rescale) = (parts.numbers.len(), parts.rescale.len());
            let bytes = 4 * (numbers + rescale) as u64;
            let offset = end.next_multiple_of(if bytes < HUGE_PAGE { PAGE } else { HUGE_PAGE });
            end = offset + bytes;
            Entry {
                name: name.to_owned(),
                shape: weight.shape().to_vec(),
                form: parts.form,
                offset,
                numbers,
                rescale,
                checksum,
            }
        };
        let header = Header {
            key: self.key.clone(),
            weights: parts.iter().zip(checksums).map(entry).collect(),
        };
        (header, end)
    }
}

/// Everything that decides what the packed weights are.
fn key(component: &Component, precision: Precision) -> String {
    // A build that packs otherwise is another file.
    let program = std::env::current_exe().and_then(|path| path.metadata());
    let program = program.and_then(|meta| Ok((meta.len(), meta.modified()?)));
    let isa = isa::active();
    let mut hash = Sha256::new();
    hash.update(format!(
        "{} {:?} {precision:?} {isa} {} {}",
        env!("CARGO_PKG_VERSION"),
        program.ok(),
        isa.has_bf16_dot(),
        component.config_text(),
    ));
    for file in component.files() {
        hash.update(file.fingerprint());
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn crc(numbers: &[f32], rescale: &[f32]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytemuck::cast_slice(numbers));
    hasher.update(bytemuck::cast_slice(rescale));
    hasher.finalize()
}

/// The weights in the file at `path`, if it is one with this key and undamaged.
fn read(path: &Path, key: &str) -> Option<BTreeMap<String, Weight>> {
    let mut file = File::open(path).ok()?;
    let mut head = [0; 16];
    file.read_exact(&mut head).ok()?;
    let number = |at: usize| head[at..].first_chunk().map(|n| u32::from_le_bytes(*n));
    let (len, checksum) = (number(8)? as usize, number(12)?);
    if !head.starts_with(MAGIC) || len > MAX_HEADER {
        return None;
    }
    let mut text = vec![0; len];
    file.read_exact(&mut text).ok()?;
    if crc32fast::hash(&text) != checksum {
        return None;
    }
    let header: Header = serde_json::from_slice(&text).ok()?;
    if header.key != key {
        return None;
    }
    let start = ((16 + len) as u64).next_multiple_of(HUGE_PAGE);
    let map = |entry: Entry| {
        let at = start + entry.offset;
        let numbers = Memory::mapped(&file, at, entry.numbers).ok()?;
        let after = Memory::mapped(&file, at, entry.numbers + entry.rescale).ok()?;
        let rescale = after[entry.numbers..].to_vec();
        Some((entry, numbers, rescale))
    };
    let mapped: Vec<_> = header.weights.into_iter().map(map).collect::<Option<_>>()?;
    let whole = AtomicBool::new(true);
    parallel_for(mapped.len(), |i| {
        let (entry, numbers, rescale) = &mapped[i];
        if crc(numbers, rescale) != entry.checksum {
            whole.store(false, Ordering::Relaxed);
        }
    });
    if !whole.into_inner() {
        return None;
    }
    // The time of the last use; where it cannot be set, that of the first has to do.
    let _ = file.set_modified(SystemTime::now());
    let weight = |(entry, numbers, rescale): (Entry, Memory, Vec<f32>)| {
        let weight = Weight::from_packed(&entry.shape, entry.form, numbers, rescale)?;
        Some((entry.name, weight))
    };
    mapped.into_iter().map(weight).collect()
}

fn write(
    mut file: &File,
    header: &Header,
    parts: &[(&str, &Weight, PackedParts)],
) -> io::Result<()> {
    let text = serde_json::to_vec(header)?;
    let head = [
        MAGIC,
        &(text.len() as u32).to_le_bytes()[..],
        &crc32fast::hash(&text).to_le_bytes(),
        &text,
    ]
    .concat();
    file.write_all(&head)?;
    let start = (head.len() as u64).next_multiple_of(HUGE_PAGE);
    for (entry, (_, _, parts)) in header.weights.iter().zip(parts) {
        file.seek(SeekFrom::Start(start + entry.offset))?;
        file.write_all(bytemuck::cast_slice(parts.numbers))?;
        file.write_all(bytemuck::cast_slice(parts.rescale))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let cache = PackedCache::new(dir.path(), |_| ());
        // Files of holes take no room on the disk.
        let make = |name: &str, age: u64| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_len(LIMIT / 4).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age);
            file.set_modified(time).unwrap();
            file
        };
        make("somebody-elses.tmp", 900);
        make("newest.packed", 1);
        make("oldest.packed", 300);
        make("older.packed", 200);
        let writing = make(&format!("{TEMPORARY}being-written"), 250);
        writing.lock().unwrap();
        let names = || {
            let entries = fs::read_dir(dir.path()).unwrap();
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
            let mut names: Vec<_> = entries.map(name).collect();
            names.sort();
            names
        };
        cache.make_room(0).unwrap();
        assert_eq!(names().len(), 5, "all fit");
        let abandoned = dir.path().join(format!("{TEMPORARY}abandoned"));
        let file = File::create(&abandoned).unwrap();
        file.lock().unwrap();
        cache.make_room(0).unwrap();
        assert!(abandoned.exists(), "somebody writes it");
        drop(file);
        cache.make_room(0).unwrap();
        assert!(!abandoned.exists());
        cache.make_room(1).unwrap();
        assert_eq!(names().len(), 4);
        assert!(!dir.path().join("oldest.packed").exists());
        let too_much = cache.make_room(u64::MAX / 2).unwrap_err();
        assert_eq!(too_much.kind(), io::ErrorKind::StorageFull);
        assert_eq!(names(), ["somebody-elses.tmp"]);
    }
}
