//! From the cache of latents to the batches that the denoiser learns from.

use std::path::Path;

use velatura::tokenizer::Tokenizer;
use velatura_tensor::Tensor;

use crate::error::Result;
use crate::latents::LatentCache;
use crate::order::Order;
use crate::random::{Choices, Purpose, normals};

/// What the loader's threads need.
pub struct LatentSource {
    pub cache: LatentCache,
    pub order: Order,
    pub tokenizer: Tokenizer,
    pub seed: u64,
    pub batch: usize,
    pub timesteps: usize,
    pub caption_dropout: f32,
    pub shift: f32,
    pub scale: f32,
}

pub struct LatentBatch {
    pub latents: Tensor,
    pub noise: Tensor,
    pub timesteps: Vec<usize>,
    pub ids: Vec<u32>,
}

impl LatentSource {
    /// The batch of `step`: a function of the run's seed and the step alone.
    pub fn batch(&self, step: u64) -> Result<LatentBatch> {
        let mut choices = Choices::new(self.seed, Purpose::Choices, step);
        let [h, w, z] = self.cache.shape();
        let shape = [self.batch, h, w, z];
        let each = h * w * z;
        let posterior = normals(self.seed, Purpose::Posterior, step, self.batch * each);
        let noise = normals(self.seed, Purpose::Noise, step, self.batch * each);
        let mut latents = Vec::with_capacity(self.batch * each);
        let (mut timesteps, mut ids) = (Vec::new(), Vec::new());
        for (slot, noise) in posterior.chunks_exact(each).enumerate() {
            let index = self
                .order
                .index((step - 1) * self.batch as u64 + slot as u64);
            self.cache.append_sample(index, noise, &mut latents);
            timesteps.push(choices.below(self.timesteps));
            // Both numbers are drawn whatever the first says, so that one choice does not shift the others.
            let (drop, which) = (choices.unit() < self.caption_dropout, choices.bits());
            let captions = self.cache.captions_of(index);
            let caption = match captions.len() {
                0 => "",
                _ if drop => "",
                count => captions[(which % count as u64) as usize].as_str(),
            };
            ids.extend(self.tokenizer.encode(caption)?.ids);
        }
        for value in &mut latents {
            *value = (*value - self.shift) * self.scale;
        }
        Ok(LatentBatch {
            latents: Tensor::from_vec(latents, &shape),
            noise: Tensor::from_vec(noise, &shape),
            timesteps,
            ids,
        })
    }

    /// Says so if the latents are far from deviation 1, for which noise schedules are made.
    pub fn check_scale(&self, vae: &Path) {
        let [h, w, z] = self.cache.shape();
        let zeros = vec![0.0; h * w * z];
        let mut values = Vec::new();
        for index in 0..self.cache.len().min(64) {
            self.cache.append_sample(index, &zeros, &mut values);
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
