//! The scorer's pictures: scenes, some of them degraded, some taken through an autoencoder, some without things, and a
//! few that show nothing.

use std::path::Path;

use image::RgbImage;
use velatura::checkpoint::Component;
use velatura::image::Image;
use velatura::pipeline::PrecisionChoice;
use velatura::vae::{AutoencoderKl, VaeConfig};
use velatura::weights::{Mode, Store};
use velatura_scenes::{SceneGenerator, Truth};
use velatura_tensor::Tensor;
use velatura_tensor::tape::no_grad;

use super::degrade::Pixels;
use super::net::ScorerConfig;
use super::target::Target;
use crate::config;
use crate::error::Result;
use crate::models::component_dir;
use crate::picture::{append_window, fit};
use crate::random::{Choices, Purpose, normals};

/// What the loader's threads need.
pub(super) struct SceneSource {
    pub config: ScorerConfig,
    pub generator: SceneGenerator,
    /// The scenes' own seed.
    pub scene_seed: u64,
    /// Scenes before they come again; none where they never do.
    pub count: Option<u64>,
    /// The run's.
    pub seed: u64,
    pub batch: usize,
    pub shares: config::Scorer,
    pub vae: Option<AutoencoderKl>,
}

/// Pictures and what is to be said of them.
pub(crate) struct SceneBatch {
    /// `[B, SIZE, SIZE, 3]`
    pub pixels: Tensor,
    pub targets: Vec<Target>,
}

/// Scenes from here on are for judging the scorer, and no run reaches them.
pub(crate) const UNSEEN: u64 = 1 << 40;

impl SceneSource {
    pub fn batch(&self, step: u64) -> Result<SceneBatch> {
        let side = ScorerConfig::SIZE;
        let mut choices = Choices::new(self.seed, Purpose::Choices, step);
        let mut degrading = Choices::new(self.seed, Purpose::Degrade, step);
        let reconstructed = match self.vae {
            Some(_) => (self.shares.reconstructed * self.batch as f32).round() as usize,
            None => 0,
        };
        let (mut pictures, mut targets) = (Vec::new(), Vec::new());
        for i in 0..self.batch {
            let number = (step - 1) * self.batch as u64 + i as u64;
            let index = self.count.map_or(number, |count| number % count);
            let scene = self.generator.scene(self.scene_seed, index);
            let roll = choices.unit();
            let (nothing, empty) = (self.shares.nothing, self.shares.empty);
            let (mut pixels, target) = if roll < nothing / 2.0 {
                (
                    Pixels::noise(side, &mut degrading),
                    Target::nothing(&self.config),
                )
            } else if roll < nothing {
                let mut pixels = scaled(scene.render());
                pixels.shuffle(&mut degrading);
                (pixels, Target::nothing(&self.config))
            } else {
                let whole = roll >= nothing + empty;
                let picture = if whole {
                    scene.render()
                } else {
                    scene.render_backdrop()
                };
                let target = Target::of(&self.config, &scene.truth, whole);
                (scaled(picture), target)
            };
            if i >= reconstructed && choices.unit() < self.shares.degraded {
                pixels.degrade(&mut degrading);
            }
            pictures.extend(pixels.values);
            targets.push(target);
        }
        if let Some(vae) = self.vae.as_ref().filter(|_| reconstructed > 0) {
            let numbers = reconstructed * side * side * 3;
            let whole = Tensor::from_vec(
                pictures[..numbers].to_vec(),
                &[reconstructed, side, side, 3],
            );
            // From as the decoder gives it back to what a denoiser that is a little wrong makes of it.
            let disturbance = 0.5 * choices.unit() * choices.unit();
            let again = disturbed(vae, &whole, disturbance, (self.seed, step));
            pictures[..numbers].copy_from_slice(again.as_slice());
        }
        Ok(SceneBatch {
            pixels: Tensor::from_vec(pictures, &[self.batch, side, side, 3]),
            targets,
        })
    }

    /// Pictures that no run sees, as they are drawn, with their truths and fullest captions.
    pub fn unseen(&self, numbers: std::ops::Range<u64>) -> (Tensor, Vec<(Truth, String)>) {
        let side = ScorerConfig::SIZE;
        let (mut pictures, mut said) = (Vec::new(), Vec::new());
        for number in numbers {
            let scene = self.generator.scene(self.scene_seed, UNSEEN + number);
            pictures.extend(scaled(scene.render()).values);
            let caption = scene.captions.first().cloned().unwrap_or_default();
            said.push((scene.truth, caption));
        }
        (
            Tensor::from_vec(pictures, &[said.len(), side, side, 3]),
            said,
        )
    }
}

/// A picture of any size as the scorer sees it.
pub(crate) fn scaled(picture: RgbImage) -> Pixels {
    let side = ScorerConfig::SIZE;
    let mut values = Vec::with_capacity(side * side * 3);
    let picture = fit(picture, [side; 2], [0.5; 2]);
    append_window(&picture, [0, 0], [side; 2], &mut values);
    Pixels { side, values }
}

/// Pictures of any size as the scorer sees them: `[B, SIZE, SIZE, 3]`.
pub(crate) fn scaled_batch(pictures: Vec<RgbImage>) -> Tensor {
    let side = ScorerConfig::SIZE;
    let shape = [pictures.len(), side, side, 3];
    let values = pictures
        .into_iter()
        .flat_map(|picture| scaled(picture).values);
    Tensor::from_vec(values.collect(), &shape)
}

/// Opens the autoencoder of a model's folder, or in a folder of its own.
///
/// # Errors
/// The folder cannot be read; a tensor is missing, left over or of another shape.
pub fn open_vae(folder: &Path, precision: PrecisionChoice) -> Result<AutoencoderKl> {
    let component = Component::open(&component_dir(folder, "vae"), None)?;
    let config = VaeConfig::read(&component)?;
    let store = Store::load(&component, Mode::Inference(precision.resolve()));
    let vae = AutoencoderKl::load(&config, &store.root())?;
    store.finish()?;
    Ok(vae)
}

/// x `[B, H, W, 3]` in [-1, 1], encoded and decoded; on the way its latents, whose deviation is about 1 when scaled,
/// get normal noise of deviation `disturbance`.
fn disturbed(
    vae: &AutoencoderKl,
    x: &Tensor,
    disturbance: f32,
    (seed, step): (u64, u64),
) -> Tensor {
    no_grad(|| {
        let z = vae.encode(x).mode();
        let noise = normals(seed, Purpose::Noise, step, z.len());
        let noise = Tensor::from_vec(noise, z.shape());
        let z = z.add(&noise.scale(disturbance / vae.config().scaling_factor));
        vae.decode(&z).clamp(-1.0, 1.0)
    })
}

/// A picture, encoded to the mean of its latents and decoded, in 8 bits.
///
/// # Panics
/// When a side is no multiple of what the autoencoder divides it by.
pub(crate) fn reconstruct(vae: &AutoencoderKl, picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let original = Image::new(width as usize, height as usize, picture.as_raw().clone());
    let again = no_grad(|| vae.decode(&vae.encode(&original.to_tensor()).mode()));
    let pixels = Image::from_tensor(&again).pixels().to_vec();
    RgbImage::from_raw(width, height, pixels).unwrap_or_else(|| picture.clone())
}
