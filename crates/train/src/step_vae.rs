//! Training the autoencoder: pictures in, the same pictures out, through latents kept near a normal distribution.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use image::RgbImage;
use velatura::checkpoint::FloatType;
use velatura::vae::{AutoencoderKl, VaeConfig};
use velatura_tensor::tape::no_grad;
use velatura_tensor::{Parameter, Tensor};

use crate::config::{self, Config};
use crate::critics::{self, Adversary, DISCRIMINATOR};
use crate::dataset::{Dataset, Item, Skipped};
use crate::error::{Error, Result};
use crate::inspection::Inspection;
use crate::live::say;
use crate::loader::MakeBatch;
use crate::mirror::may_be_mirrored;
use crate::models;
use crate::objective::{Losses, Objective, first_not_finite};
use crate::optimizer::Named;
use crate::order::{Members, Order, Place, Stock};
use crate::picture::{append_window, fit, grid, mirrored, pictures_of, to_rgb};
use crate::random::{Choices, Purpose, normals};
use crate::run_folder::RunFolder;
use crate::trainer;
use crate::vae_loss::VaeLoss;
use crate::{Options, Outcome};

/// Runs the training of a VAE.
///
/// # Errors
/// See [`crate::train`].
pub fn train(config: &Config, run: &RunFolder, options: &Options) -> Result<Outcome> {
    let objective = VaeObjective::new(config, run)?;
    trainer::run(&objective, config, &run.start(), options)
}

pub(crate) struct VaeObjective {
    vae: AutoencoderKl,
    /// Whether the config leaves the scaling of the latents to be measured.
    measure_scaling: bool,
    parameters: Vec<Parameter>,
    loss: VaeLoss,
    adversary: Option<Adversary>,
    source: Arc<PixelSource>,
    samples: usize,
}

/// What the loader's threads need.
struct PixelSource {
    datasets: Vec<Arc<Dataset>>,
    order: Order,
    seed: u64,
    batch: usize,
    size: usize,
    crop: usize,
    flip: bool,
    random_crop: bool,
    /// Shape of a batch's latents.
    latents: [usize; 4],
    broken: Mutex<Vec<Skipped>>,
}

pub(crate) struct PixelBatch {
    step: u64,
    pixels: Tensor,
    noise: Tensor,
}

/// Pictures by which the latents' deviation is measured: with 16×16 latents some 16 000 values a channel.
const MEASURED: u64 = 64;

impl VaeObjective {
    pub fn new(config: &Config, run: &RunFolder) -> Result<VaeObjective> {
        let component = models::open(config, run, "vae")?;
        let vae_config = match &component {
            Some(component) => VaeConfig::read(component)?,
            None => {
                let value = models::table(config.vae.as_ref());
                VaeConfig::from_json(&value).map_err(models::in_table(run, "vae"))?
            }
        };
        // A base model's factor is what its UNet expects; a fresh model's is unknown until it has learnt.
        let given = config
            .vae
            .as_ref()
            .is_some_and(|table| table.contains_key("scaling_factor"));
        let measure_scaling = config.model.base.is_none() && !given;
        let store = models::store(config, "vae", component.as_ref());
        let vae = AutoencoderKl::load(&vae_config, &store.root())?;
        store.finish()?;
        if component.is_none() {
            start_certain(&store.parameters(), vae_config.latent_channels);
        }

        let data = &config.data;
        let crop = data.crop.unwrap_or(data.size);
        let factor = vae_config.factor();
        if vae_config.in_channels != 3 || vae_config.out_channels != 3 {
            return Err(Error::config(
                run.config_file(),
                "[vae] in_channels, out_channels: expected 3 (pictures are RGB)",
            ));
        }
        if !crop.is_multiple_of(factor) || !data.size.is_multiple_of(factor) {
            let message = format!(
                "[data] size, crop: expected multiples of {factor}, by which the VAE divides them"
            );
            return Err(Error::config(run.config_file(), message));
        }
        let (loss, adversary) = critics::loss(config, run, crop)?;
        let datasets = Dataset::open_all(config)?;
        let batch = config.run.batch_size;
        let stock = |dataset: &Arc<Dataset>| Stock {
            weight: f64::from(dataset.weight()),
            buckets: vec![dataset.len().map_or(Members::Endless, Members::First)],
        };
        let source = PixelSource {
            order: Order::new(
                config.run.seed,
                batch,
                &datasets.iter().map(stock).collect::<Vec<_>>(),
            ),
            datasets,
            seed: config.run.seed,
            batch,
            size: data.size,
            crop,
            flip: data.flip,
            random_crop: data.random_crop,
            latents: [
                batch,
                crop / factor,
                crop / factor,
                vae_config.latent_channels,
            ],
            broken: Mutex::default(),
        };
        Ok(VaeObjective {
            vae,
            measure_scaling,
            parameters: store.parameters(),
            loss,
            adversary,
            source: Arc::new(source),
            samples: config.sample.count,
        })
    }

    fn is_adversarial(&self, batch: &PixelBatch) -> bool {
        (self.adversary.as_ref()).is_some_and(|adversary| batch.step >= adversary.start)
    }

    /// 1 / deviation of the latents of a few pictures.
    fn measured_scaling(&self) -> Result<f32> {
        let (mut sum, mut squares, mut count) = (0.0f64, 0.0f64, 0usize);
        for index in 0..self.source.count().min(MEASURED) {
            let pixels = self.source.whole(index)?;
            let mean = no_grad(|| self.vae.encode(&pixels)).mode();
            sum += mean.as_slice().iter().map(|&z| f64::from(z)).sum::<f64>();
            squares += mean
                .as_slice()
                .iter()
                .map(|&z| f64::from(z) * f64::from(z))
                .sum::<f64>();
            count += mean.len();
        }
        let mean = sum / count as f64;
        let deviation = (squares / count as f64 - mean * mean).max(0.0).sqrt();
        // Latents that are all alike have no scale; 1 keeps the config valid.
        Ok(if deviation > 1e-6 {
            (1.0 / deviation) as f32
        } else {
            1.0
        })
    }
}

/// The variance a fresh encoder gives its latents, as a logarithm: σ = e⁻³.
///
/// With PyTorch's initial values σ is about 1 and the means about 0.1, so the decoder sees little but noise, and
/// learning stays long at a blurred picture in two colours (measured: L1 0.20 after 900 steps).
const FRESH_LOGVAR: f32 = -6.0;

/// Sets the bias of the log-variances, the last thing before the latents, of a fresh VAE.
fn start_certain(parameters: &[Parameter], latent_channels: usize) {
    let last = ["quant_conv.bias", "encoder.conv_out.bias"];
    let bias = last.iter().find_map(|name| {
        parameters
            .iter()
            .find(|parameter| parameter.name() == *name)
    });
    if let Some(bias) = bias {
        bias.update(|values| values[latent_channels..].fill(FRESH_LOGVAR));
    }
}

impl PixelSource {
    /// The picture at `place`, or the next of its source that is not broken.
    fn item(&self, place: Place) -> Result<Item> {
        let mut broken = |skipped: Skipped| {
            let mut known = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.contains(&skipped) {
                say(&format!("skipped: {skipped}"));
                known.push(skipped);
            }
        };
        self.datasets[place.source].usable_item(place.index, &mut broken)
    }

    /// The number of pictures of all sources; the greatest there is where they never end.
    fn count(&self) -> u64 {
        let counts = self.datasets.iter().map(|dataset| dataset.len());
        counts.sum::<Option<u64>>().unwrap_or(u64::MAX)
    }

    fn batch(&self, step: u64) -> Result<PixelBatch> {
        let mut choices = Choices::new(self.seed, Purpose::Choices, step);
        let mut flips = Choices::new(self.seed, Purpose::Flip, step);
        let mut cuts = Choices::new(self.seed, Purpose::Cut, step);
        let mut pixels = Vec::with_capacity(self.batch * self.crop * self.crop * 3);
        for place in self.order.batch(step).1 {
            let item = self.item(place)?;
            let (x, y, flip) = (cuts.unit(), cuts.unit(), flips.below(2) == 1);
            let cut = if self.random_crop { [x, y] } else { [0.5; 2] };
            let mut picture = fit(item.picture, [self.size; 2], cut);
            if self.flip && flip && may_be_mirrored(&item.captions) {
                picture = mirrored(&picture);
            }
            let room = self.size - self.crop + 1;
            let corner = [choices.below(room), choices.below(room)];
            append_window(&picture, corner, [self.crop; 2], &mut pixels);
        }
        let noise = normals(
            self.seed,
            Purpose::Posterior,
            step,
            self.latents.iter().product(),
        );
        Ok(PixelBatch {
            step,
            pixels: Tensor::from_vec(pixels, &[self.batch, self.crop, self.crop, 3]),
            noise: Tensor::from_vec(noise, &self.latents),
        })
    }

    /// A whole picture for samples and measurements: `[1, size, size, 3]`, of each source in turn. Of scenes that never
    /// end, ones that training does not reach.
    fn whole(&self, number: u64) -> Result<Tensor> {
        const UNSEEN: u64 = 1 << 40;
        let sources = self.datasets.len() as u64;
        let (source, index) = ((number % sources) as usize, number / sources);
        let index = match self.datasets[source].len() {
            None => UNSEEN + index,
            Some(count) => index % count,
        };
        let picture = self.item(Place { source, index })?.picture;
        let mut pixels = Vec::with_capacity(self.size * self.size * 3);
        let picture = fit(picture, [self.size; 2], [0.5; 2]);
        append_window(&picture, [0, 0], [self.size; 2], &mut pixels);
        Ok(Tensor::from_vec(pixels, &[1, self.size, self.size, 3]))
    }
}

impl Objective for VaeObjective {
    type Batch = PixelBatch;

    fn parameters(&self) -> Vec<Named> {
        models::named("vae", &self.parameters)
    }

    fn opponent(&self) -> Option<(config::Optimizer, Vec<Named>)> {
        let adversary = self.adversary.as_ref()?;
        let parameters = models::named(DISCRIMINATOR, &adversary.parameters);
        Some((adversary.settings.clone(), parameters))
    }

    fn frozen(&self) -> Vec<(&'static str, usize)> {
        let lpips = self.loss.lpips.as_ref();
        lpips
            .map(|(lpips, _)| ("lpips", lpips.len()))
            .into_iter()
            .collect()
    }

    fn batches(&self) -> MakeBatch<PixelBatch> {
        let source = Arc::clone(&self.source);
        Arc::new(move |step| source.batch(step))
    }

    fn batch_size(&self) -> usize {
        self.source.batch
    }

    fn loss(&self, batch: &PixelBatch, samples: Range<usize>) -> Losses {
        let narrow = |tensor: &Tensor| tensor.narrow_batch(samples.start, samples.len());
        let (pixels, noise) = if samples.len() == self.source.batch {
            (batch.pixels.clone(), batch.noise.clone())
        } else {
            (narrow(&batch.pixels), narrow(&batch.noise))
        };
        let adversarial = self.is_adversarial(batch);
        self.loss.of(&self.vae, &pixels, &noise, adversarial)
    }

    fn save(&self, dir: &Path, dtype: FloatType) -> velatura::Result<()> {
        models::save(
            &dir.join("vae"),
            &self.vae.config().to_json(),
            &self.parameters,
            dtype,
        )?;
        let discriminator = self
            .loss
            .discriminator
            .as_ref()
            .zip(self.adversary.as_ref());
        if let Some(((discriminator, _), adversary)) = discriminator {
            let config = discriminator.sizes().to_json();
            let dir = dir.join(DISCRIMINATOR);
            models::save(&dir, &config, &adversary.parameters, dtype)?;
        }
        Ok(())
    }

    fn export(&self, dir: &Path, dtype: FloatType) -> Result<()> {
        let mut config = self.vae.config().clone();
        if self.measure_scaling {
            config.scaling_factor = self.measured_scaling()?;
        }
        config.sample_size = Some([self.source.size; 2]);
        Ok(models::save(
            &dir.join("vae"),
            &config.to_json(),
            &self.parameters,
            dtype,
        )?)
    }

    fn samples(&self) -> Result<Option<(RgbImage, String)>> {
        let count = self.source.count().min(self.samples as u64);
        if count == 0 {
            return Ok(None);
        }
        let side = self.source.size as u32;
        let (mut above, mut below, mut error) = (Vec::new(), Vec::new(), 0.0);
        for index in 0..count {
            let pixels = self.source.whole(index)?;
            let again =
                no_grad(|| self.vae.decode(&self.vae.encode(&pixels).mode())).clamp(-1.0, 1.0);
            error += again.sub(&pixels).square().mean().item() / count as f32;
            above.extend(to_rgb(pixels.as_slice(), side, side));
            below.extend(to_rgb(again.as_slice(), side, side));
        }
        // Values span 2, so the peak's square is 4.
        let remark = format!(
            " (originals above, PSNR {:.2} dB)",
            10.0 * (4.0 / error.max(1e-12)).log10()
        );
        above.append(&mut below);
        Ok(Some((grid(&above, count as usize), remark)))
    }

    fn diagnose(&self, batch: &PixelBatch) -> Option<String> {
        let (pixels, noise) = (&batch.pixels, &batch.noise);
        let adversarial = self.is_adversarial(batch);
        let again = || no_grad(|| self.loss.of(&self.vae, pixels, noise, adversarial));
        first_not_finite("vae", again).err()
    }

    fn inspect(&self, batch: &PixelBatch, pictures: usize) -> Inspection {
        Inspection {
            tensors: vec![
                ("pixels", batch.pixels.clone()),
                ("noise", batch.noise.clone()),
            ],
            texts: Vec::new(),
            pictures: pictures_of(&batch.pixels, pictures),
        }
    }
}
