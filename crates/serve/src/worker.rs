//! The one thread that paints. It takes jobs in the order in which they came, keeps each picture as soon as it is finished,
//! and goes on after a job that failed.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use uuid::Uuid;
use velatura::Error;
use velatura::image::Image;
use velatura::pipeline::{Painted, Pipeline, Plan, Preview};

use crate::jobs::Jobs;
use crate::links::picture_path;
use crate::live::{Event, Live, Step};
use crate::metrics::Stage;
use crate::store::{Job, State, StoreError, now};

/// Previews come no oftener than this.
const PREVIEW_INTERVAL: Duration = Duration::from_millis(250);
/// While no weights for previews are known, a whole decoding is spent on one after this part of the steps.
const FIRST_PREVIEW: f64 = 0.3;

/// Why a job was not painted to its end.
enum Stop {
    Cancelled,
    /// The server stops.
    Leaving,
    Failed(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error.to_string())
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Failed(error.to_string())
    }
}

/// Paints until the server stops.
pub(crate) struct Worker {
    jobs: Arc<Jobs>,
    pipeline: Arc<Pipeline>,
    preview: Preview,
}

impl Worker {
    pub fn new(jobs: Arc<Jobs>, pipeline: Arc<Pipeline>) -> Worker {
        let channels = pipeline.painter().vae.config().latent_channels;
        Worker {
            jobs,
            pipeline,
            preview: Preview::new(channels),
        }
    }

    /// Takes one job after the other.
    pub fn run(mut self) {
        while let Some((id, live)) = self.jobs.clone().next() {
            let start = Instant::now();
            // A panic is a bug of ours; it costs its job and not the server.
            let result = catch_unwind(AssertUnwindSafe(|| self.job(id, &live)));
            let ended = match result {
                Ok(Ok(())) => {
                    self.jobs.took(start.elapsed());
                    self.jobs.end(id, State::Done, None)
                }
                Ok(Err(Stop::Cancelled)) => self.jobs.end(id, State::Cancelled, None),
                Ok(Err(Stop::Leaving)) => self.jobs.leave(id),
                Ok(Err(Stop::Failed(error))) => {
                    tracing::error!(job = %id, %error, "job failed");
                    self.jobs.end(id, State::Failed, Some(&error))
                }
                Err(_) => {
                    tracing::error!(job = %id, "painting panicked");
                    let error =
                        "painting failed in a way it should not; the server's log says more";
                    self.jobs.end(id, State::Failed, Some(error))
                }
            };
            if let Err(error) = ended {
                // The disk is full or gone. The job stays where the database last saw it, for the next start.
                tracing::error!(job = %id, %error, "the end of a job could not be written down");
            }
        }
    }

    fn job(&mut self, id: Uuid, live: &Live) -> Result<(), Stop> {
        let (job, attachments) = {
            let store = self.jobs.store();
            store.begin(id)?;
            let job = store.job(id)?;
            (job, store.attachments(id)?)
        };
        let Some(job) = job else {
            return Err(Stop::Failed(
                "the job is gone from the database".to_string(),
            ));
        };
        let waited = (now() - job.created).max(0) as u64;
        self.jobs
            .metrics
            .stage(Stage::Wait, Duration::from_millis(waited));
        live.push(Event::Started);
        for (number, &seed) in job.order.seeds.iter().enumerate() {
            if job.pictures.iter().any(|(there, _)| *there == number) {
                continue;
            }
            let plan = self
                .pipeline
                .model()
                .plan(&job.order.request(&attachments, seed)?)?;
            let painted = self.paint(&plan, &job, number, live)?;
            self.keep(&plan, &job, number, painted, live)?;
        }
        Ok(())
    }

    fn paint(
        &mut self,
        plan: &Plan,
        job: &Job,
        number: usize,
        live: &Live,
    ) -> Result<Painted, Stop> {
        let Worker {
            jobs,
            pipeline,
            preview,
        } = self;
        let pictures = job.order.seeds.len();
        let (mut last, start) = (Instant::now(), Instant::now());
        let mut previewed: Option<Instant> = None;
        let mut why = None;
        let painted = pipeline.paint(plan, None, &mut |step| {
            jobs.metrics.steps.inc();
            jobs.metrics.stage(Stage::Step, last.elapsed());
            last = Instant::now();
            let (done, total) = (step.done(), step.total());
            if live.is_cancelled() {
                why = Some(Stop::Cancelled);
                return ControlFlow::Break(());
            }
            if jobs.is_stopping() {
                why = Some(Stop::Leaving);
                return ControlFlow::Break(());
            }
            let due = previewed.is_none_or(|at| at.elapsed() >= PREVIEW_INTERVAL);
            let small = (due && done < total).then(|| {
                let latents = step.predicted();
                preview.of(&latents).or_else(|| {
                    if (done as f64) < FIRST_PREVIEW * total as f64 {
                        return None;
                    }
                    let image = step.preview().ok()?;
                    preview.learn(&latents, &image);
                    preview.of(&latents)
                })
            });
            let small = small.flatten().and_then(|image| data_url(&image));
            if small.is_some() {
                previewed = Some(Instant::now());
            }
            let per_step = start.elapsed().as_secs_f64() / done as f64;
            let steps_left = (total - done) + (pictures - number - 1) * total;
            live.push(Event::Step(Step {
                picture: number,
                pictures,
                step: done,
                steps: total,
                seconds_left: (per_step * steps_left as f64 * 100.0).round() / 100.0,
                preview: small,
            }));
            ControlFlow::Continue(())
        });
        match (painted, why) {
            (Ok(painted), _) => Ok(painted),
            (Err(_), Some(why)) => Err(why),
            (Err(error), None) => Err(error.into()),
        }
    }

    fn keep(
        &mut self,
        plan: &Plan,
        job: &Job,
        number: usize,
        painted: Painted,
        live: &Live,
    ) -> Result<(), Stop> {
        let metrics = &self.jobs.metrics;
        metrics.stage(Stage::TextEncoder, painted.text_encoder);
        metrics.stage(Stage::VaeDecode, painted.vae_decode);
        // A repainted picture is partly not what its latents say.
        if plan.init.as_ref().is_none_or(|init| init.mask.is_none()) {
            self.preview.learn(&painted.latents, &painted.image);
        }
        let start = Instant::now();
        let mut image = painted.image;
        if let Some(init) = &plan.init
            && let Some(mask) = &init.mask
            && job.order.mask_blur > 0.0
        {
            image.feather(mask, &init.image, job.order.mask_blur);
        }
        let recipe = self.pipeline.recipe(plan);
        let png = image
            .encode_png(&recipe.text_chunks())
            .map_err(|error| Stop::Failed(format!("cannot encode the PNG: {error}")))?;
        let text = serde_json::to_string(&recipe)
            .map_err(|error| Stop::Failed(format!("cannot write the recipe: {error}")))?;
        self.jobs
            .store()
            .keep_picture(job.id, number, &text, &png)?;
        metrics.stage(Stage::Keep, start.elapsed());
        metrics.pictures.inc();
        live.push(Event::Picture {
            number,
            seed: plan.seed,
            url: picture_path(job.id, number),
        });
        Ok(())
    }
}

/// A picture as a URL that carries it.
fn data_url(image: &Image) -> Option<String> {
    let png = image.encode_png(&[]).ok()?;
    Some(format!("data:image/png;base64,{}", BASE64.encode(png)))
}
