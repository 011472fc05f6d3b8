//! From what was asked to what will be done. Every default is filled in here and nowhere else, and every impossible
//! wish is refused here, before any weights are read.

use std::hash::{BuildHasher, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::init::Init;
use super::request::Request;
use crate::diffusion::{Sampler, SamplerSchedule, SchedulerConfig, Spacing, guidance};
use crate::{Error, Result};

/// Steps where neither person nor model says how many: what diffusers takes.
const STEPS: usize = 50;
/// Guidance where neither says how much: what diffusers takes.
const GUIDANCE: f32 = 7.5;
/// The largest side in pixels. At 4096×4096 the decoder's activations alone take 40 GB in f32.
const MAX_SIDE: usize = 4096;

/// What a model's maker recommends, in an optional `velatura.json` beside `model_index.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Advice {
    /// Steps.
    pub steps: Option<usize>,
    /// The scale of guidance.
    pub guidance_scale: Option<f32>,
    /// The sampler's name.
    pub sampler: Option<String>,
    /// The spacing's name.
    pub schedule: Option<String>,
    /// Width in pixels.
    pub width: Option<usize>,
    /// Height in pixels.
    pub height: Option<usize>,
    /// What a model of a small vocabulary can paint, for people who ask it for something else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub things: Vec<String>,
    /// The licence of what a model was made from, where its pictures have to carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// What a plan has to know of a model; all of it stands in configs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The maker's recommendation.
    pub advice: Advice,
    /// The noise schedule and the sampler that belongs to it.
    pub scheduler: SchedulerConfig,
    /// Height and width of the latents that the UNet was trained with.
    pub sample_size: [usize; 2],
    /// Pixels per latent, in each direction.
    pub scale: usize,
}

impl Facts {
    /// Sides are multiples of this many pixels: every Stable Diffusion interface asks for multiples of 8, whatever a
    /// small VAE could do.
    pub fn multiple(&self) -> usize {
        self.scale * 8 / gcd(self.scale, 8)
    }
}

/// A picture to paint, with nothing left open.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the picture shows.
    pub prompt: String,
    /// What it shall not show; empty is nothing in particular.
    pub negative: String,
    /// Steps from noise to picture.
    pub steps: usize,
    /// The scale of classifier-free guidance; 1 and less is none.
    pub guidance: f32,
    /// The seed of the noise.
    pub seed: u64,
    /// How the steps are taken.
    pub sampler: Sampler,
    /// How the noise levels are spaced.
    pub schedule: Spacing,
    /// DDIM's η.
    pub eta: f32,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The picture to begin with, in this size; none is pure noise.
    pub init: Option<Init>,
}

impl Plan {
    /// The noise levels that the sampler visits.
    ///
    /// # Errors
    /// [`Error::Config`] when the model's scheduler config asks the sampler for what it cannot do.
    pub fn sampler_schedule(&self, config: &SchedulerConfig) -> Result<SamplerSchedule> {
        let config = config.in_stable_diffusion(self.sampler);
        SamplerSchedule::new(&config, self.sampler, Some(self.schedule), self.steps)
    }

    /// What kind of work it is: `txt2img`, `img2img` or `inpaint`.
    pub fn mode(&self) -> &'static str {
        match &self.init {
            None => "txt2img",
            Some(init) if init.mask.is_none() => "img2img",
            Some(_) => "inpaint",
        }
    }

    /// Whether the model is asked twice per step, with and without the prompt.
    pub fn is_guided(&self) -> bool {
        guidance::is_guided(self.guidance)
    }
}

impl Request {
    /// Fills in what was left open: from the model's advice, then its configs, then diffusers' defaults.
    ///
    /// # Errors
    /// [`Error::Request`] for what cannot be done: zero steps, a size that the model cannot have, a spacing that the
    /// sampler does not know.
    pub fn plan(&self, facts: &Facts) -> Result<Plan> {
        let advice = &facts.advice;
        let [rows, columns] = facts.sample_size;
        let sampler = match (self.sampler, &advice.sampler) {
            (Some(sampler), _) => sampler,
            (None, Some(name)) => name.parse()?,
            (None, None) => facts.scheduler.sampler,
        };
        let init = Init::of(self)?;
        // A picture to begin with says how large to paint, unless the person does, or only a field of it is painted.
        let own = init.as_ref().map(Init::size);
        let own = own.filter(|_| self.padding_mask_crop.is_none());
        let mut plan = Plan {
            prompt: self.prompt.clone(),
            negative: self.negative.clone().unwrap_or_default(),
            steps: self.steps.or(advice.steps).unwrap_or(STEPS),
            guidance: self.guidance.or(advice.guidance_scale).unwrap_or(GUIDANCE),
            seed: self.seed.unwrap_or_else(random_seed),
            sampler,
            schedule: self.spacing(sampler, facts)?,
            eta: self.eta.unwrap_or(0.0),
            width: self
                .width
                .or(own.map(|(width, _)| width))
                .or(advice.width)
                .unwrap_or(columns * facts.scale),
            height: self
                .height
                .or(own.map(|(_, height)| height))
                .or(advice.height)
                .unwrap_or(rows * facts.scale),
            init,
        };
        let most = facts.scheduler.num_train_timesteps;
        if plan.steps == 0 || plan.steps > most {
            return Err(Error::request(
                "steps",
                format!("a number from 1 to {most}"),
                plan.steps,
            ));
        }
        if !(plan.guidance.is_finite() && plan.guidance >= 0.0) {
            return Err(Error::request(
                "guidance",
                "a number that is not negative",
                plan.guidance,
            ));
        }
        if !(0.0..=1.0).contains(&plan.eta) {
            return Err(Error::request("eta", "a number from 0 to 1", plan.eta));
        }
        check_side("width", plan.width, facts.multiple())?;
        check_side("height", plan.height, facts.multiple())?;
        let schedule = plan.sampler_schedule(&facts.scheduler)?;
        if let Some(init) = plan.init.take() {
            schedule.begin(init.strength)?;
            let padding = self.padding_mask_crop;
            plan.init = Some(init.fitted(plan.width, plan.height, padding)?);
        }
        Ok(plan)
    }

    /// The spacing asked for, or else the model's own where the sampler can use it.
    fn spacing(&self, sampler: Sampler, facts: &Facts) -> Result<Spacing> {
        if let Some(asked) = self.schedule {
            if sampler.supports(asked) {
                return Ok(asked);
            }
            let able: Vec<&str> = Sampler::ALL
                .into_iter()
                .filter(|sampler| sampler.supports(asked))
                .map(Sampler::name)
                .collect();
            return Err(Error::request(
                "schedule",
                format!(
                    "{} with the sampler {}",
                    Spacing::Normal.name(),
                    sampler.name()
                ),
                format!("{}, which only {} can use", asked.name(), able.join(", ")),
            ));
        }
        let own = match &facts.advice.schedule {
            Some(name) => name.parse()?,
            None => facts.scheduler.spacing,
        };
        Ok(if sampler.supports(own) {
            own
        } else {
            Spacing::Normal
        })
    }
}

/// Refuses sides that the VAE cannot make or that no memory would hold.
fn check_side(field: &str, side: usize, multiple: usize) -> Result<()> {
    if side == 0 || side > MAX_SIDE || !side.is_multiple_of(multiple) {
        let most = MAX_SIDE / multiple * multiple;
        let nearest = (side.saturating_add(multiple / 2) / multiple)
            .saturating_mul(multiple)
            .clamp(multiple, most);
        return Err(Error::request(
            field,
            format!("a multiple of {multiple} from {multiple} to {most} pixels"),
            format!("{side}; the nearest is {nearest}"),
        ));
    }
    Ok(())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A seed for someone who gave none: 32 bits, because people copy it by hand. It need not be unpredictable.
fn random_seed() -> u64 {
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    hasher.finish() >> 32
}
