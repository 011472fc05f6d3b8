//! From the caches of latents to the batches that the denoiser learns from.

use std::ops::Range;
use std::path::Path;

use velatura::tokenizer::Tokenizer;
use velatura_tensor::Tensor;

use crate::config::{Loss, TimestepKind};
use crate::error::Result;
use crate::latents::LatentCache;
use crate::order::{Order, Place};
use crate::random::{Choices, Purpose, normals};

/// What the loader's threads need.
pub struct LatentSource {
    /// One for each source of pictures.
    pub caches: Vec<LatentCache>,
    pub order: Order,
    pub tokenizer: Tokenizer,
    pub seed: u64,
    pub batch: usize,
    pub times: Times,
    pub caption_dropout: f32,
    /// Whether half of the pictures are mirrored, of those that have a mirror image.
    pub flip: bool,
    /// Deviation of what is added to the noise of a whole channel.
    pub offset_noise: f32,
    pub shift: f32,
    pub scale: f32,
}

/// How timesteps are drawn from `0..count`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    pub count: usize,
    /// Mean and deviation of the normal number that the logistic function turns into a timestep; uniform if absent.
    pub logit_normal: Option<[f32; 2]>,
}

impl Times {
    pub fn new(loss: &Loss, count: usize) -> Times {
        Times {
            count,
            logit_normal: match loss.timesteps {
                TimestepKind::Uniform => None,
                TimestepKind::LogitNormal => Some([loss.logit_mean, loss.logit_std]),
            },
        }
    }

    /// The timestep for a standard normal number (Esser et al. 2024, eq. 19).
    fn of_normal(self, [mean, deviation]: [f32; 2], normal: f32) -> usize {
        let share = 1.0 / (1.0 + f64::from(-(mean + deviation * normal)).exp());
        ((share * self.count as f64) as usize).min(self.count - 1)
    }
}

#[derive(Clone)]
pub struct LatentBatch {
    /// The step that it is for.
    pub step: u64,
    /// `[B, h, w, Z]`
    pub latents: Tensor,
    /// `[B, h, w, Z]`
    pub noise: Tensor,
    pub timesteps: Vec<usize>,
    /// `[B, 77]`
    pub ids: Vec<u32>,
    /// What the ids say, for people.
    pub captions: Vec<String>,
    /// A factor of each sample's error; 1 for all if empty.
    pub importance: Vec<f32>,
}

impl LatentBatch {
    /// Samples in it.
    pub fn len(&self) -> usize {
        self.timesteps.len()
    }

    /// These samples and then the `others`, all alike.
    pub fn followed_by(mut self, others: LatentBatch) -> LatentBatch {
        self.latents = Tensor::concat_batch(&[&self.latents, &others.latents]);
        self.noise = Tensor::concat_batch(&[&self.noise, &others.noise]);
        self.timesteps.extend(others.timesteps);
        self.ids.extend(others.ids);
        self.captions.extend(others.captions);
        self.importance.clear();
        self
    }

    /// Some of the samples, in their order.
    pub fn part(&self, samples: Range<usize>) -> LatentBatch {
        if samples == (0..self.len()) {
            return self.clone();
        }
        let narrow = |tensor: &Tensor| tensor.narrow_batch(samples.start, samples.len());
        let length = self.ids.len() / self.len();
        LatentBatch {
            step: self.step,
            latents: narrow(&self.latents),
            noise: narrow(&self.noise),
            timesteps: self.timesteps[samples.clone()].to_vec(),
            ids: self.ids[samples.start * length..samples.end * length].to_vec(),
            captions: self.captions[samples.clone()].to_vec(),
            importance: self
                .importance
                .get(samples.clone())
                .unwrap_or_default()
                .to_vec(),
        }
    }
}

impl LatentSource {
    /// The batch of `step`: a function of the run's seed and the step alone.
    pub fn batch(&self, step: u64) -> Result<LatentBatch> {
        let mut choices = Choices::new(self.seed, Purpose::Choices, step);
        let mut flips = Choices::new(self.seed, Purpose::Flip, step);
        let (bucket, places) = self.order.batch(step);
        let [h, w, z] = self.caches[0].shape(bucket);
        let shape = [self.batch, h, w, z];
        let each = h * w * z;
        let posterior = normals(self.seed, Purpose::Posterior, step, self.batch * each);
        let mut latents = Vec::with_capacity(self.batch * each);
        let (mut timesteps, mut ids, mut said) = (Vec::new(), Vec::new(), Vec::new());
        for (Place { source, index }, noise) in places.into_iter().zip(posterior.chunks_exact(each))
        {
            let cache = &self.caches[source];
            let mirrored = self.flip && flips.below(2) == 1;
            cache.append_sample(index, mirrored, noise, &mut latents);
            timesteps.push(choices.below(self.times.count));
            // Both numbers are drawn whatever the first says, so that one choice does not shift the others.
            let (drop, which) = (choices.unit() < self.caption_dropout, choices.bits());
            let captions = cache.captions_of(index)?;
            let caption = match captions.len() {
                0 => "",
                _ if drop => "",
                count => captions[(which % count as u64) as usize].as_str(),
            };
            ids.extend(self.tokenizer.encode(caption)?.ids);
            said.push(caption.to_owned());
        }
        for value in &mut latents {
            *value = (*value - self.shift) * self.scale;
        }
        if let Some(shape) = self.times.logit_normal {
            let normals = normals(self.seed, Purpose::Timesteps, step, self.batch);
            timesteps = normals
                .into_iter()
                .map(|normal| self.times.of_normal(shape, normal))
                .collect();
        }
        Ok(LatentBatch {
            step,
            latents: Tensor::from_vec(latents, &shape),
            noise: Tensor::from_vec(self.noise(step, shape), &shape),
            timesteps,
            ids,
            captions: said,
            importance: Vec::new(),
        })
    }

    /// Standard normal numbers, with an offset of each channel where there is one.
    fn noise(&self, step: u64, shape: [usize; 4]) -> Vec<f32> {
        let mut noise = normals(self.seed, Purpose::Noise, step, shape.iter().product());
        if self.offset_noise > 0.0 {
            let [samples, .., z] = shape;
            let offsets = normals(self.seed, Purpose::Offset, step, samples * z);
            add_offsets(&mut noise, &offsets, z, self.offset_noise);
        }
        noise
    }

    /// Says so if the latents are far from deviation 1, for which noise schedules are made.
    pub fn check_scale(&self, vae: &Path) {
        let mut values = Vec::new();
        for cache in &self.caches {
            for index in 0..cache.len().min(64) {
                let zeros = vec![0.0; cache.shape(cache.bucket(index)).iter().product()];
                cache.append_sample(index, false, &zeros, &mut values);
            }
        }
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = values
            .iter()
            .map(|&x| (f64::from(x) - mean).powi(2))
            .sum::<f64>()
            / n;
        let deviation = variance.sqrt() * f64::from(self.scale);
        if !(0.7..=1.4).contains(&deviation) {
            eprintln!(
                "note: with the scaling_factor of {} the latents' deviation is {deviation:.2} and not about 1; noise \
                 schedules are made for 1",
                vae.join("config.json").display()
            );
        }
    }
}

/// Adds `deviation · offsets[b, c]` to every place of `noise[b, …, c]` (Guttenberg 2023, "Diffusion with Offset
/// Noise"): noise of every frequency, the lowest included, so that the model learns to change it.
pub fn add_offsets(noise: &mut [f32], offsets: &[f32], channels: usize, deviation: f32) {
    let sample = noise.len() / (offsets.len() / channels);
    let samples = noise.chunks_exact_mut(sample);
    for (noise, offsets) in samples.zip(offsets.chunks_exact(channels)) {
        for place in noise.chunks_exact_mut(channels) {
            for (noise, offset) in place.iter_mut().zip(offsets) {
                *noise += deviation * offset;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logit_normal_times_gather_where_they_are_told() {
        let times = Times {
            count: 1000,
            logit_normal: None,
        };
        let share = |mean: f32, deviation: f32| {
            let drawn = normals(1, Purpose::Timesteps, 1, 20_000)
                .into_iter()
                .map(|normal| times.of_normal([mean, deviation], normal));
            drawn.filter(|&t| t < 500).count() as f64 / 20_000.0
        };
        // Half of the numbers are below the mean; Φ(1) = 0.841 of them below the mean plus a deviation.
        assert!((share(0.0, 1.0) - 0.5).abs() < 0.015);
        assert!((share(-1.0, 1.0) - 0.841).abs() < 0.015);
        // The ends stay inside the schedule.
        assert_eq!(times.of_normal([0.0, 1.0], 100.0), 999);
        assert_eq!(times.of_normal([0.0, 1.0], -100.0), 0);
    }

    #[test]
    fn offsets_are_one_number_for_a_channel_of_a_sample() {
        let mut noise = vec![0.0; 2 * 3 * 2];
        add_offsets(&mut noise, &[1.0, 2.0, 3.0, 4.0], 2, 0.5);
        assert_eq!(
            noise,
            [0.5, 1.0, 0.5, 1.0, 0.5, 1.0, 1.5, 2.0, 1.5, 2.0, 1.5, 2.0]
        );
    }
}
