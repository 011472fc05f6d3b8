//! The latents of all pictures of a source, encoded once and kept on disk.
//!
//! A cache is a folder named by a digest of what it depends on: the pictures and captions, the shapes they are brought
//! to and how, and the VAE's config and weights. If one of these changes so does the name, so a stale cache is never
//! read. Inside lie shards of up to 256 pictures: `00000.safetensors` holds mean and logarithm of the variance in f16, a
//! tensor for each shape; `00000.jsonl` a line for each picture with its captions. A shard appears whole or not at all,
//! and an interrupted encoding goes on with the first shard that is missing. Tensors are mapped and captions are read
//! when they are wanted; what stays in memory is where each picture is.

mod encode;
mod notes;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use half::f16;
use half::slice::HalfFloatSliceExt;
use sha2::{Digest, Sha256};
use velatura::checkpoint::{Component, TensorFile};
use velatura::vae::AutoencoderKl;
use velatura_tensor::Precision;

use self::encode::encode_shard;
use self::notes::{Entry, Notes};
use crate::buckets::Buckets;
use crate::dataset::{Dataset, Skipped, hex, summary};
use crate::error::{Error, Result};
use crate::order::{Members, Stock};
use crate::progress::duration;

/// Pictures in a shard: with 32×32×4 latents 4 MB, an interruption costs at most the encoding of this many.
const SHARD: u64 = 256;
/// To be raised when the layout above changes, or the way in which pictures are cut and mirrored.
const FORMAT: u32 = 2;

/// An open cache.
pub struct LatentCache {
    shards: Vec<Shard>,
    /// h, w, Z of each bucket.
    shapes: Vec<[usize; 3]>,
    /// How often its pictures are wanted beside those of other caches.
    weight: f32,
}

struct Shard {
    tensors: TensorFile,
    /// Pictures in the shards before.
    first: u64,
    notes: Notes,
}

/// What a cache depends on.
pub struct Request<'a> {
    /// The folder of caches.
    pub dir: &'a Path,
    /// The pictures; shared with the threads that draw or decode them.
    pub dataset: Arc<Dataset>,
    /// How pictures are brought to their shape.
    pub framing: Framing,
    /// The VAE as it lies on disk.
    pub component: &'a Component,
    /// The same, ready to encode.
    pub vae: &'a AutoencoderKl,
    /// The numbers that it takes its products in.
    pub precision: Precision,
    /// Threads that draw or decode pictures.
    pub workers: usize,
}

/// How pictures are brought to their shape.
#[derive(Debug, Clone)]
pub struct Framing {
    /// The shapes there are.
    pub buckets: Buckets,
    /// Whether the mirrored picture is encoded as well, where captions allow it.
    pub flip: bool,
    /// The seed by which sides are cut off; in equal parts if absent.
    pub random_crop: Option<u64>,
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
        let config = request.vae.config();
        let shape = |[width, height]: &[usize; 2]| {
            let factor = config.factor();
            [height / factor, width / factor, config.latent_channels]
        };
        let began = Instant::now();
        let mut encoded = 0;
        let mut cache = LatentCache {
            shards: Vec::new(),
            shapes: request.framing.buckets.shapes().iter().map(shape).collect(),
            weight: request.dataset.weight(),
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
                    encode_shard(request, first..last, &cache.shapes, &path)?;
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
        let skipped: Vec<Skipped> = cache.skipped().cloned().collect();
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
        let tensors = TensorFile::open(path).ok()?;
        let notes = Notes::read(&notes_path(path), self.shapes.len())?;
        let whole = self.shapes.iter().enumerate().all(|(bucket, &shape)| {
            let [h, w, z] = shape;
            let rows = notes.rows[bucket];
            match tensors.tensor(&tensor_name(shape)) {
                Some(view) => {
                    view.shape == [rows, h, w, 2 * z] && view.bytes.len() == rows * h * w * 4 * z
                }
                None => rows == 0,
            }
        });
        whole.then(|| Shard {
            tensors,
            first: self.len(),
            notes,
        })
    }

    /// The number of pictures.
    pub fn len(&self) -> u64 {
        self.shards
            .last()
            .map_or(0, |shard| shard.first + shard.notes.pictures.len() as u64)
    }

    /// Whether there is none; an open cache has some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// h, w, Z of the latents in a bucket.
    pub fn shape(&self, bucket: usize) -> [usize; 3] {
        self.shapes[bucket]
    }

    /// The pictures by bucket, and how often they are wanted.
    pub fn stock(&self) -> Stock {
        let buckets = if self.shapes.len() == 1 {
            vec![Members::First(self.len())]
        } else {
            let mut members = vec![Vec::new(); self.shapes.len()];
            let pictures = self.shards.iter().flat_map(|shard| &shard.notes.pictures);
            for (index, entry) in (0u32..).zip(pictures) {
                members[entry.bucket as usize].push(index);
            }
            members.into_iter().map(Members::These).collect()
        };
        Stock {
            weight: f64::from(self.weight),
            buckets,
        }
    }

    /// Pictures that could not be read.
    fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.shards.iter().flat_map(|shard| &shard.notes.skipped)
    }

    /// Hands all captions to `each`.
    ///
    /// # Errors
    /// The cache cannot be read any more.
    pub fn captions(&self, mut each: impl FnMut(&str)) -> Result<()> {
        for shard in &self.shards {
            let captions = notes::all_captions(&notes_path(shard.tensors.path()))?;
            captions.iter().for_each(|caption| each(caption));
        }
        Ok(())
    }

    /// The captions of picture `index`.
    ///
    /// # Errors
    /// The cache cannot be read any more.
    ///
    /// # Panics
    /// When there is no such picture.
    pub fn captions_of(&self, index: u64) -> Result<Vec<String>> {
        let (shard, entry) = self.find(index);
        notes::captions(&notes_path(shard.tensors.path()), entry)
    }

    /// The bucket of picture `index`.
    ///
    /// # Panics
    /// When there is no such picture.
    pub fn bucket(&self, index: u64) -> usize {
        self.find(index).1.bucket as usize
    }

    /// Appends mean + σ·noise of picture `index` to `out`, of its mirror image where that is `mirrored` and there is
    /// one; `noise: [h, w, Z]` in the shape of its bucket.
    ///
    /// # Panics
    /// When there is no such picture, or the noise has another length.
    pub fn append_sample(&self, index: u64, mirrored: bool, noise: &[f32], out: &mut Vec<f32>) {
        let (shard, entry) = self.find(index);
        let shape = self.shapes[entry.bucket as usize];
        let [h, w, z] = shape;
        assert_eq!(noise.len(), h * w * z, "noise for latents of {shape:?}");
        // A shard that has a picture has the tensor, which `read_shard` has measured.
        let Some(view) = shard.tensors.tensor(&tensor_name(shape)) else {
            return;
        };
        let row = entry.row as usize + usize::from(mirrored && entry.mirrored);
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

    fn find(&self, index: u64) -> (&Shard, &Entry) {
        assert!(index < self.len(), "picture {index} of {}", self.len());
        let shard = self.shards.partition_point(|shard| shard.first <= index) - 1;
        let shard = &self.shards[shard];
        (shard, &shard.notes.pictures[(index - shard.first) as usize])
    }
}

fn notes_path(shard: &Path) -> PathBuf {
    shard.with_extension("jsonl")
}

/// What a bucket's tensor is called: `[N, h, w, 2·Z]`.
fn tensor_name([h, w, _]: [usize; 3]) -> String {
    format!("moments.{h}x{w}")
}

/// The name of the cache: half of a SHA-256 in hexadecimal.
fn key(request: &Request) -> Result<String> {
    let mut all = Sha256::new();
    all.update(format!("{FORMAT} {:?} ", request.framing));
    // Those of f32 keep the names that they had before there were others.
    if request.precision != Precision::F32 {
        all.update(format!("{:?} ", request.precision));
    }
    all.update(request.dataset.fingerprint()?);
    all.update(request.vae.config().to_json().to_string());
    for file in request.component.files() {
        let mut own = Sha256::new();
        file.for_each_piece(|bytes| own.update(bytes));
        all.update(own.finalize());
    }
    Ok(hex(&all.finalize())[..32].to_string())
}
