//! The latents of all pictures, encoded once and kept on disk.
//!
//! A cache is a folder named by a digest of what it depends on: the pictures and captions, their size, and the VAE's
//! config and weights. If one of these changes so does the name, so a stale cache is never read. Inside lie shards of
//! up to 256 pictures: `00000.safetensors` holds mean and logarithm of the variance in f16, `00000.json` the captions
//! and the files that could not be read. A shard appears whole or not at all, and an interrupted encoding goes on
//! with the first shard that is missing. Shards are mapped, so memory does not grow with the number of pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use velatura::checkpoint::{Component, FloatType, TensorFile, save_tensors, write_atomically};
use velatura::vae::AutoencoderKl;
use velatura_tensor::Tensor;
use velatura_tensor::tape::no_grad;

use crate::dataset::{Dataset, Item, Skipped, hex, summary};
use crate::error::{Error, Result};
use crate::loader::{Loader, MakeBatch};
use crate::picture::append_window;
use crate::progress::duration;

/// Pictures in a shard: with 32×32×4 latents 4 MB, an interruption costs at most the encoding of this many.
const SHARD: u64 = 256;
/// Pictures encoded at a time.
const CHUNK: u64 = 8;
/// Of the layout above.
const FORMAT: u32 = 1;
/// The tensor in a shard: `[N, h, w, 2·Z]`.
const MOMENTS: &str = "moments";

/// An open cache.
pub struct LatentCache {
    shards: Vec<Shard>,
    /// h, w, Z.
    shape: [usize; 3],
}

struct Shard {
    file: TensorFile,
    /// Pictures in the shards before.
    first: u64,
    notes: Notes,
}

/// What stands beside a shard.
#[derive(Serialize, Deserialize, Default)]
struct Notes {
    /// Of each picture.
    captions: Vec<Vec<String>>,
    /// Of the pictures that are not in the shard.
    skipped: Vec<(String, String)>,
}

/// What a cache depends on.
pub struct Request<'a> {
    /// The folder of caches.
    pub dir: &'a Path,
    /// The pictures; shared with the threads that draw or decode them.
    pub dataset: Arc<Dataset>,
    /// Their side in pixels.
    pub size: usize,
    /// The VAE as it lies on disk.
    pub component: &'a Component,
    /// The same, ready to encode.
    pub vae: &'a AutoencoderKl,
    /// Threads that draw or decode pictures.
    pub workers: usize,
}

impl LatentCache {
    /// Opens the cache for `request`, encoding what is missing. None if `stop` asked to leave before it was whole.
    ///
    /// # Errors
    /// Pictures cannot be read, none is left, or the disk is full.
    pub fn open(request: &Request, stop: &dyn Fn() -> bool) -> Result<Option<LatentCache>> {
        let count = request.dataset.len().unwrap_or(0);
        let dir = request.dir.join(key(request)?);
        fs::create_dir_all(&dir).map_err(Error::io("make the folder", &dir))?;
        let shape = {
            let config = request.vae.config();
            let side = request.size / config.factor();
            [side, side, config.latent_channels]
        };
        let began = Instant::now();
        let mut encoded = 0;
        let mut cache = LatentCache {
            shards: Vec::new(),
            shape,
        };
        for number in 0..count.div_ceil(SHARD) {
            let first = number * SHARD;
            let last = (first + SHARD).min(count);
            let path = dir.join(format!("{number:05}.safetensors"));
            let shard = match cache.read_shard(&path) {
                Some(shard) => shard,
                None => {
                    if stop() {
                        return Ok(None);
                    }
                    encode_shard(request, first..last, shape, &path)?;
                    encoded += last - first;
                    let each = began.elapsed().as_secs_f64() / encoded as f64;
                    eprintln!(
                        "latents: {last}/{count} pictures encoded, {:.1} a second, {} left",
                        1.0 / each,
                        duration(each * (count - last) as f64)
                    );
                    cache.read_shard(&path).ok_or_else(|| {
                        Error::run(&path, "the shard just written cannot be read back")
                    })?
                }
            };
            cache.shards.push(shard);
        }
        let skipped = cache.skipped();
        if cache.is_empty() {
            let message = format!("nothing is left to learn from; {}", summary(&skipped));
            return Err(Error::data(request.dataset.place(), message));
        }
        if !skipped.is_empty() {
            eprintln!("{}", summary(&skipped));
        }
        Ok(Some(cache))
    }

    /// A shard if it is there and whole.
    fn read_shard(&self, path: &Path) -> Option<Shard> {
        let file = TensorFile::open(path).ok()?;
        let notes: Notes = serde_json::from_slice(&fs::read(notes_path(path)).ok()?).ok()?;
        let [h, w, z] = self.shape;
        let whole = match file.tensor(MOMENTS) {
            Some(view) => {
                view.shape == [notes.captions.len(), h, w, 2 * z]
                    && view.bytes.len() == notes.captions.len() * h * w * 4 * z
            }
            None => notes.captions.is_empty(),
        };
        whole.then(|| Shard {
            file,
            first: self.len(),
            notes,
        })
    }

    /// The number of pictures.
    pub fn len(&self) -> u64 {
        self.shards
            .last()
            .map_or(0, |shard| shard.first + shard.notes.captions.len() as u64)
    }

    /// Whether there is none; an open cache has some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// h, w, Z.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Pictures that could not be read.
    pub fn skipped(&self) -> Vec<Skipped> {
        let all = self.shards.iter().flat_map(|shard| &shard.notes.skipped);
        all.map(|(file, reason)| Skipped {
            file: file.clone(),
            reason: reason.clone(),
        })
        .collect()
    }

    /// All captions.
    pub fn captions(&self) -> impl Iterator<Item = &str> {
        self.shards
            .iter()
            .flat_map(|shard| &shard.notes.captions)
            .flatten()
            .map(String::as_str)
    }

    /// The captions of picture `index`.
    ///
    /// # Panics
    /// When there is no such picture.
    pub fn captions_of(&self, index: u64) -> &[String] {
        let (shard, row) = self.find(index);
        &shard.notes.captions[row]
    }

    /// Appends mean + σ·noise of picture `index` to `out`; `noise: [h, w, Z]`.
    ///
    /// # Panics
    /// When there is no such picture, or the noise has another length.
    pub fn append_sample(&self, index: u64, noise: &[f32], out: &mut Vec<f32>) {
        let [h, w, z] = self.shape;
        assert_eq!(
            noise.len(),
            h * w * z,
            "noise for latents of {:?}",
            self.shape
        );
        let (shard, row) = self.find(index);
        // A shard that has a picture has the tensor, which `read_shard` has measured.
        let Some(view) = shard.file.tensor(MOMENTS) else {
            return;
        };
        let record = h * w * 2 * z * 2;
        let bytes = &view.bytes[row * record..][..record];
        let halves: Vec<f16> = bytes
            .chunks_exact(2)
            .map(|pair| f16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let mut moments = vec![0.0; halves.len()];
        halves.convert_to_f32_slice(&mut moments);
        for (place, noise) in moments.chunks_exact(2 * z).zip(noise.chunks_exact(z)) {
            let (mean, logvar) = place.split_at(z);
            out.extend(
                mean.iter()
                    .zip(logvar)
                    .zip(noise)
                    .map(|((mean, logvar), noise)| mean + (0.5 * logvar).exp() * noise),
            );
        }
    }

    fn find(&self, index: u64) -> (&Shard, usize) {
        assert!(index < self.len(), "picture {index} of {}", self.len());
        let shard = self.shards.partition_point(|shard| shard.first <= index) - 1;
        let shard = &self.shards[shard];
        (shard, (index - shard.first) as usize)
    }
}

fn notes_path(shard: &Path) -> PathBuf {
    shard.with_extension("json")
}

/// The name of the cache: half of a SHA-256 in hexadecimal.
fn key(request: &Request) -> Result<String> {
    let mut all = Sha256::new();
    all.update(format!("{FORMAT} {} ", request.size));
    all.update(request.dataset.fingerprint()?);
    all.update(request.vae.config().to_json().to_string());
    for file in request.component.files() {
        let mut own = Sha256::new();
        file.for_each_piece(|bytes| own.update(bytes));
        all.update(own.finalize());
    }
    Ok(hex(&all.finalize())[..32].to_string())
}

/// Encodes the pictures of `range` and writes them to `path`, the notes first: the shard is there when its tensors are.
fn encode_shard(
    request: &Request,
    range: std::ops::Range<u64>,
    shape: [usize; 3],
    path: &Path,
) -> Result<()> {
    let [h, w, z] = shape;
    let size = request.size;
    let mut notes = Notes::default();
    let mut moments = Vec::with_capacity((range.end - range.start) as usize * h * w * 2 * z);
    // The next pictures are drawn while these are encoded.
    let make: MakeBatch<Vec<Result<Item, Skipped>>> = {
        let dataset = Arc::clone(&request.dataset);
        let range = range.clone();
        Arc::new(move |chunk| {
            let first = range.start + chunk * CHUNK;
            Ok((first..(first + CHUNK).min(range.end))
                .map(|index| dataset.item(index, size))
                .collect())
        })
    };
    let chunks = (range.end - range.start).div_ceil(CHUNK);
    let mut loader = Loader::start(0, chunks, request.workers, make)?;
    while let Some(items) = loader.next_batch() {
        let mut pixels = Vec::new();
        let mut count = 0;
        for item in items? {
            match item {
                Ok(item) => {
                    append_window(&item.picture, 0, 0, size, &mut pixels);
                    notes.captions.push(item.captions);
                    count += 1;
                }
                Err(skipped) => notes.skipped.push((skipped.file, skipped.reason)),
            }
        }
        if count == 0 {
            continue;
        }
        let pixels = Tensor::from_vec(pixels, &[count, size, size, 3]);
        let latents = no_grad(|| request.vae.encode(&pixels));
        for (mean, logvar) in latents
            .mean
            .as_slice()
            .chunks_exact(z)
            .zip(latents.logvar.as_slice().chunks_exact(z))
        {
            moments.extend_from_slice(mean);
            moments.extend_from_slice(logvar);
        }
    }
    let text = serde_json::to_vec(&notes).map_err(|error| Error::run(path, error.to_string()))?;
    write_atomically(&notes_path(path), |out| {
        std::io::Write::write_all(out, &text)
    })?;
    let tensor = Tensor::from_vec(moments, &[notes.captions.len(), h, w, 2 * z]);
    save_tensors(path, [(MOMENTS.to_string(), tensor)], FloatType::F16)?;
    Ok(())
}
