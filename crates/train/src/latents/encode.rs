//! Encoding a shard: pictures are decoded, cut and mirrored on background threads while others go through the VAE.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use velatura::checkpoint::{FloatType, save_tensors, write_atomically};
use velatura_tensor::Tensor;
use velatura_tensor::tape::no_grad;

use super::notes::Line;
use super::{Framing, Request, notes_path, tensor_name};
use crate::dataset::{Dataset, Skipped};
use crate::error::{Error, Result};
use crate::loader::{Loader, MakeBatch};
use crate::mirror::may_be_mirrored;
use crate::picture::{append_window, fit, mirrored};
use crate::random::{Choices, Purpose};

/// Pictures encoded at a time.
const CHUNK: u64 = 8;

/// A picture in its shape.
struct Prepared {
    captions: Vec<String>,
    bucket: usize,
    /// `[1, height, width, 3]` in [-1, 1], or 2 if the mirror image follows.
    pixels: Vec<f32>,
    mirrored: bool,
}

/// Encodes the pictures of `range` and writes them to `path`, the notes first: the shard is there when its tensors are.
/// `shapes` are those of the buckets' latents.
pub fn encode_shard(
    request: &Request,
    range: Range<u64>,
    shapes: &[[usize; 3]],
    path: &Path,
) -> Result<()> {
    let mut lines = Vec::new();
    let mut moments: Vec<Vec<f32>> = vec![Vec::new(); shapes.len()];
    // The next pictures are drawn while these are encoded.
    let make: MakeBatch<Vec<Result<Prepared, Skipped>>> = {
        let (dataset, framing) = (Arc::clone(&request.dataset), request.framing.clone());
        let range = range.clone();
        Arc::new(move |chunk| {
            let first = range.start + chunk * CHUNK;
            Ok((first..(first + CHUNK).min(range.end))
                .map(|index| prepare(&dataset, &framing, index))
                .collect())
        })
    };
    let chunks = (range.end - range.start).div_ceil(CHUNK);
    let mut loader = Loader::start(0, chunks, request.workers, make)?;
    while let Some(pictures) = loader.next_batch() {
        let mut pixels: Vec<Vec<f32>> = vec![Vec::new(); shapes.len()];
        for picture in pictures? {
            lines.push(match picture {
                Ok(picture) => {
                    pixels[picture.bucket].extend(picture.pixels);
                    Line::Picture {
                        captions: picture.captions,
                        bucket: picture.bucket as u16,
                        mirrored: picture.mirrored,
                    }
                }
                Err(Skipped { file, reason }) => Line::Skipped { file, reason },
            });
        }
        for (bucket, pixels) in pixels.into_iter().enumerate() {
            encode(request, bucket, pixels, &mut moments[bucket]);
        }
    }
    let mut text = Vec::new();
    for line in &lines {
        serde_json::to_writer(&mut text, line)
            .map_err(|error| Error::run(path, error.to_string()))?;
        text.push(b'\n');
    }
    write_atomically(&notes_path(path), |out| out.write_all(&text))?;
    let full = shapes
        .iter()
        .zip(moments)
        .filter(|(_, moments)| !moments.is_empty());
    let tensors = full.map(|(&shape, moments)| {
        let [h, w, z] = shape;
        let rows = moments.len() / (h * w * 2 * z);
        (
            tensor_name(shape),
            Tensor::from_vec(moments, &[rows, h, w, 2 * z]),
        )
    });
    Ok(save_tensors(path, tensors, FloatType::F16)?)
}

/// Reads picture `index` and brings it to the nearest shape.
fn prepare(dataset: &Dataset, framing: &Framing, index: u64) -> Result<Prepared, Skipped> {
    let item = dataset.item(index)?;
    let bucket = framing
        .buckets
        .nearest(item.picture.width(), item.picture.height());
    let shape = framing.buckets.shapes()[bucket];
    let place = framing.random_crop.map_or([0.5; 2], |seed| {
        let mut choices = Choices::new(seed, Purpose::Cut, index);
        [choices.unit(), choices.unit()]
    });
    let picture = fit(item.picture, shape, place);
    let mut prepared = Prepared {
        mirrored: framing.flip && may_be_mirrored(&item.captions),
        captions: item.captions,
        bucket,
        pixels: Vec::with_capacity(2 * shape[0] * shape[1] * 3),
    };
    append_window(&picture, [0, 0], shape, &mut prepared.pixels);
    if prepared.mirrored {
        append_window(&mirrored(&picture), [0, 0], shape, &mut prepared.pixels);
    }
    Ok(prepared)
}

/// Appends the moments of pictures of one bucket to `out`.
fn encode(request: &Request, bucket: usize, pixels: Vec<f32>, out: &mut Vec<f32>) {
    let [width, height] = request.framing.buckets.shapes()[bucket];
    let picture = height * width * 3;
    for pixels in pixels.chunks(CHUNK as usize * picture) {
        let count = pixels.len() / picture;
        let pixels = Tensor::from_vec(pixels.to_vec(), &[count, height, width, 3]);
        let latents = no_grad(|| request.vae.encode(&pixels));
        let z = request.vae.config().latent_channels;
        let means = latents.mean.as_slice().chunks_exact(z);
        for (mean, logvar) in means.zip(latents.logvar.as_slice().chunks_exact(z)) {
            out.extend_from_slice(mean);
            out.extend_from_slice(logvar);
        }
    }
}
