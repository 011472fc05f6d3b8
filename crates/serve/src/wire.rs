//! How the native API spells requests and answers.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use velatura::diffusion::{Sampler, Spacing};
use velatura::pipeline::{Model, Request};

use crate::app::{self, Shared};
use crate::jobs::View;
use crate::links::picture_path;
use crate::live::Step;
use crate::order::{MAX_SEED, Order, Wish};
use crate::problem::Problem;
use crate::settings::Limits;
use crate::store::State;

/// What the library calls otherwise than this API.
pub const NAMES: &[(&str, &str)] = &[("guidance", "guidance_scale"), ("init", "init_image")];

/// What to paint. Whatever is left out is filled in from the model's recommendation; the answer says with what.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitBody {
    /// What the picture shows.
    #[schema(example = "a red car on a beach at sunset")]
    pub prompt: String,
    /// What it shall not show.
    pub negative_prompt: Option<String>,
    /// Steps from noise to picture.
    pub steps: Option<usize>,
    /// How strongly the prompt is followed; 1 is no guidance.
    pub guidance_scale: Option<f32>,
    /// The same seed gives the same picture. With `count`, the first of as many.
    pub seed: Option<u64>,
    /// One picture for each; instead of `seed` and `count`.
    pub seeds: Option<Vec<u64>>,
    /// How many pictures, with seeds counted up from the first.
    pub count: Option<usize>,
    /// How the steps are taken; `GET /v1/model` lists the names.
    pub sampler: Option<String>,
    /// How the noise levels are spaced.
    pub schedule: Option<String>,
    /// DDIM's η, 0 to 1.
    pub eta: Option<f32>,
    /// Width in pixels.
    pub width: Option<usize>,
    /// Height in pixels.
    pub height: Option<usize>,
    /// The picture to begin with, in base64 or as a data URL: PNG, JPEG, WebP, BMP or GIF. With width and height it is
    /// scaled to them.
    pub init_image: Option<String>,
    /// Where to repaint it, of the same size: white is painted anew, black stays to the pixel.
    pub mask: Option<String>,
    /// How far to go back to noise, above 0 and up to 1. 0.8, with a mask 1, where nobody says.
    pub strength: Option<f64>,
    /// What the masked part holds before painting begins: `original` where nobody says, `fill` (the colours around it),
    /// `latent-noise` or `latent-nothing`. It matters with a strength below 1.
    pub masked_content: Option<String>,
    /// Pixels over which the edge of the mask is softened, inside it; 0 to 64.
    pub mask_blur: Option<f32>,
    /// Repaints only the field around what is masked, and this many pixels more on each side, in `width` and `height` (where
    /// nobody says, the model's own), and scales it back into the picture, which keeps its size.
    pub padding_mask_crop: Option<usize>,
}

impl SubmitBody {
    /// What the library is asked for.
    ///
    /// # Errors
    /// 422 with the field.
    pub fn wish(self) -> Result<Wish, Problem> {
        if self.seeds.is_some() && self.seed.is_some() {
            return Err(Problem::field("seeds", "seed or seeds", "both"));
        }
        if self.seeds.as_ref().is_some_and(Vec::is_empty) {
            return Err(Problem::field("seeds", "at least one", "none"));
        }
        let init = self.init_image.as_deref();
        let mask = self.mask.as_deref();
        Ok(Wish {
            seeds: self
                .seeds
                .or(self.seed.map(|seed| vec![seed]))
                .unwrap_or_default(),
            count: self.count,
            request: Request {
                prompt: self.prompt,
                negative: self.negative_prompt,
                steps: self.steps,
                guidance: self.guidance_scale,
                seed: None,
                sampler: self.sampler.map(|name| name.parse()).transpose()?,
                schedule: self.schedule.map(|name| name.parse()).transpose()?,
                eta: self.eta,
                width: self.width,
                height: self.height,
                init: init
                    .map(|text| app::picture("init_image", text))
                    .transpose()?,
                mask: mask.map(|text| app::mask("mask", text)).transpose()?,
                strength: self.strength,
                masked_content: self.masked_content.map(|name| name.parse()).transpose()?,
                mask_blur: self.mask_blur,
                padding_mask_crop: self.padding_mask_crop,
            },
        })
    }
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobBody {
    /// Its name, a UUID; later jobs have later ones.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// When it was accepted, in milliseconds since 1970.
    pub created: i64,
    /// When painting began.
    pub started: Option<i64>,
    /// When it came to its end.
    pub finished: Option<i64>,
    /// What is painted, with every default filled in.
    pub order: Order,
    /// Jobs before it, while it waits.
    pub position: Option<usize>,
    /// How far it is, while it runs.
    pub progress: Option<Step>,
    /// The pictures that are finished.
    pub pictures: Vec<PictureBody>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A finished picture.
#[derive(Debug, Serialize, ToSchema)]
pub struct PictureBody {
    /// The index of its seed.
    pub number: usize,
    /// Its seed.
    pub seed: u64,
    /// Where the PNG file can be fetched.
    pub url: String,
    /// How it was made, as it stands in the file.
    #[schema(value_type = Object)]
    pub recipe: serde_json::Value,
}

impl From<View> for JobBody {
    fn from(view: View) -> JobBody {
        let View {
            job,
            position,
            live,
        } = view;
        let progress = live.filter(|_| job.state == State::Running);
        let progress = progress.and_then(|live| live.progress());
        let pictures = job
            .pictures
            .iter()
            .map(|(number, recipe)| PictureBody {
                number: *number,
                seed: job.order.seeds.get(*number).copied().unwrap_or_default(),
                url: picture_path(job.id, *number),
                recipe: serde_json::from_str(recipe).unwrap_or_default(),
            })
            .collect();
        JobBody {
            id: job.id.to_string(),
            state: job.state,
            created: job.created,
            started: job.started,
            finished: job.finished,
            position,
            progress,
            pictures,
            order: job.order,
            error: job.error,
        }
    }
}

/// Which jobs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// How many at most, 1 to 200; 50 where nobody says.
    pub limit: Option<usize>,
    /// Only jobs before this one: the `next` of the page before.
    pub before: Option<String>,
    /// Only jobs in this state.
    pub state: Option<State>,
}

/// Jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobBody>,
    /// What to give as `before` for the next page; none on the last.
    pub next: Option<String>,
}

/// What the server can do.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelBody {
    /// The model's name.
    pub name: String,
    /// The first ten digits of its weights' SHA-256; none while it is being loaded.
    pub hash: Option<String>,
    /// Whether it has been loaded.
    pub ready: bool,
    /// The numbers that it computes with; none while it is being loaded.
    pub precision: Option<String>,
    /// The program's version.
    pub version: String,
    /// What is painted where a request says nothing but the prompt.
    pub defaults: Order,
    /// The samplers.
    pub samplers: Vec<SamplerBody>,
    /// The spacings.
    pub schedules: Vec<NameBody>,
    /// Sides are multiples of this many pixels.
    pub multiple: usize,
    /// What a request may ask for.
    pub limits: LimitsBody,
}

/// A sampler.
#[derive(Debug, Serialize, ToSchema)]
pub struct SamplerBody {
    /// Its name in requests.
    pub name: String,
    /// Its name for people.
    pub label: String,
    /// The spacings that it can use.
    pub schedules: Vec<String>,
}

/// A name and what people call it.
#[derive(Debug, Serialize, ToSchema)]
pub struct NameBody {
    /// The name in requests.
    pub name: String,
    /// The name for people.
    pub label: String,
}

/// What a request may ask for.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitsBody {
    /// The larger side, in pixels.
    pub side: usize,
    /// Steps.
    pub steps: usize,
    /// Characters of a prompt.
    pub prompt_chars: usize,
    /// Pictures of one job.
    pub pictures: usize,
    /// Jobs that wait.
    pub queue: usize,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// The largest seed.
    pub seed: u64,
}

impl From<&Limits> for LimitsBody {
    fn from(limits: &Limits) -> LimitsBody {
        LimitsBody {
            side: limits.side,
            steps: limits.steps,
            prompt_chars: limits.prompt_chars,
            pictures: limits.pictures,
            queue: limits.queue,
            body_bytes: limits.body_bytes,
            seed: MAX_SEED,
        }
    }
}

/// What this server can do.
///
/// # Errors
/// The model's own recommendation is impossible.
pub fn model_body(app: &Shared) -> Result<ModelBody, Problem> {
    let model: &Model = &app.model;
    let request = Request {
        seed: Some(0),
        ..Request::default()
    };
    let plan = model.plan(&request)?;
    let pipeline = app.pipeline.get();
    let wish = Wish {
        request,
        ..Wish::default()
    };
    let samplers = Sampler::ALL.into_iter().map(|sampler| SamplerBody {
        name: sampler.name().to_string(),
        label: sampler.label().to_string(),
        schedules: Spacing::ALL
            .into_iter()
            .filter(|&spacing| sampler.supports(spacing))
            .map(|spacing| spacing.name().to_string())
            .collect(),
    });
    let schedules = Spacing::ALL.into_iter().map(|spacing| NameBody {
        name: spacing.name().to_string(),
        label: spacing.label().to_string(),
    });
    Ok(ModelBody {
        name: model.name(),
        hash: pipeline.map(|pipeline| pipeline.recipe(&plan).model.hash),
        ready: pipeline.is_some(),
        precision: pipeline.map(|pipeline| pipeline.precision_name().to_string()),
        version: env!("CARGO_PKG_VERSION").to_string(),
        defaults: wish.order(model, &app.limits)?.0,
        samplers: samplers.collect(),
        schedules: schedules.collect(),
        multiple: model.facts().multiple(),
        limits: LimitsBody::from(&app.limits),
    })
}
