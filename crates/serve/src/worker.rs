//! The threads that paint. Each takes one picture after the other, keeps it as soon as it is finished, and goes on after one
//! that failed; pictures of one size that are painted at once share the UNet's batches (`velatura::pipeline::Batcher`).

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use velatura::Error;
use velatura::image::Image;
use velatura::pipeline::{self, Painted, Pipeline, Plan, Preview};
use velatura_tensor::{Gpu, device};

use crate::jobs::Jobs;
use crate::links::picture_path;
use crate::live::Event;
use crate::metrics::Stage;
use crate::queue::{Size, Stop, Turn};
use crate::store::{Job, StoreError, now};

/// Previews come no oftener than this.
const PREVIEW_INTERVAL: Duration = Duration::from_millis(250);
/// While no weights for previews are known, a whole decoding is spent on one after this part of the steps.
const FIRST_PREVIEW: f64 = 0.3;

/// The most pictures that are painted at once, of any size: eight are hardly faster than four (docs/serving.md has the
/// measurements), and each of them comes later.
const MOST_AT_ONCE: usize = 4;

/// Latents of all pictures that are painted at once. With so many the UNet's products have enough to do for every weight that
/// they read; a larger batch takes longer by as much as it is larger.
const LATENTS: usize = 2048;

/// How many pictures of this size are painted at once, with `scale` pixels per latent.
fn at_once((width, height): Size, scale: usize) -> usize {
    let latents = (width / scale) * (height / scale);
    (LATENTS / latents.max(1)).clamp(1, MOST_AT_ONCE)
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

/// What the painting threads share.
pub(crate) struct Worker {
    jobs: Arc<Jobs>,
    pipeline: Arc<Pipeline>,
    preview: Mutex<Preview>,
}

impl Worker {
    pub fn new(jobs: Arc<Jobs>, pipeline: Arc<Pipeline>) -> Worker {
        let channels = pipeline.painter().vae_config.latent_channels;
        Worker {
            jobs,
            pipeline,
            preview: Mutex::new(Preview::new(channels)),
        }
    }

    /// Paints until the server stops, on as many threads as there are ever pictures at once.
    pub fn run(&self) {
        // Threads compute where this one does.
        let gpu = device::current();
        thread::scope(|scope| {
            for number in 1..MOST_AT_ONCE {
                let thread = thread::Builder::new().name(format!("painter-{number}"));
                if let Err(error) = thread
                    .spawn_scoped(scope, || device::maybe_on(gpu.as_ref(), || self.paint_on()))
                {
                    tracing::warn!(%error, "fewer pictures are painted at once than might be");
                    break;
                }
            }
            self.paint_on();
        });
    }

    /// Takes one picture after the other.
    fn paint_on(&self) {
        let scale = self.pipeline.model().facts().scale;
        while let Some(turn) = self.jobs.next(|size| at_once(size, scale)) {
            // A panic is a bug of ours; it costs its job and not the server.
            let result = catch_unwind(AssertUnwindSafe(|| {
                Gpu::catch(|| self.picture(&turn))
                    .unwrap_or_else(|error| Err(Stop::Failed(error.to_string())))
            }));
            let result = result.unwrap_or_else(|_| {
                let error = "painting failed in a way it should not; the server's log says more";
                Err(Stop::Failed(error.to_string()))
            });
            if let Err(Stop::Failed(error)) = &result {
                tracing::error!(job = %turn.id, picture = turn.number, %error, "painting failed");
            }
            if let Err(error) = self.jobs.painted(turn.id, result) {
                // The disk is full or gone. The job stays where the database last saw it, for the next start.
                tracing::error!(job = %turn.id, %error, "the end of a job could not be written down");
            }
        }
    }

    fn picture(&self, turn: &Turn) -> Result<(), Stop> {
        let (job, attachments) = {
            let store = self.jobs.store();
            if turn.first {
                store.begin(turn.id)?;
            }
            (store.job(turn.id)?, store.attachments(turn.id)?)
        };
        let Some(job) = job else {
            let error = "the job is gone from the database";
            return Err(Stop::Failed(error.to_string()));
        };
        if turn.first {
            let waited = (now() - job.created).max(0) as u64;
            let waited = Duration::from_millis(waited);
            self.jobs.metrics.stage(Stage::Wait, waited);
        }
        let seed = job.order.seeds[turn.number];
        let request = job.order.request(&attachments, seed)?;
        let plan = self.pipeline.model().plan(&request)?;
        let painted = self.paint(&plan, turn)?;
        self.keep(&plan, &job, turn, painted)
    }

    fn paint(&self, plan: &Plan, turn: &Turn) -> Result<Painted, Stop> {
        let jobs = &self.jobs;
        let mut last = Instant::now();
        let mut previewed: Option<Instant> = None;
        let mut why = None;
        let painted = self.pipeline.paint(plan, None, &mut |step| {
            jobs.metrics.steps.inc();
            jobs.metrics.stage(Stage::Step, last.elapsed());
            last = Instant::now();
            if turn.live.is_cancelled() {
                why = Some(Stop::Cancelled);
                return ControlFlow::Break(());
            }
            if jobs.is_stopping() {
                why = Some(Stop::Leaving);
                return ControlFlow::Break(());
            }
            let (done, total) = (step.done(), step.total());
            let due = previewed.is_none_or(|at| at.elapsed() >= PREVIEW_INTERVAL);
            let small = (due && done < total).then(|| self.look(step)).flatten();
            if small.is_some() {
                previewed = Some(Instant::now());
            }
            turn.live.step(turn.number, done, total, small);
            ControlFlow::Continue(())
        });
        match (painted, why) {
            (Ok(painted), _) => Ok(painted),
            (Err(_), Some(why)) => Err(why),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// What the picture looks like by now, as a data URL.
    fn look(&self, step: &pipeline::Step) -> Option<String> {
        let latents = step.predicted();
        let known = self.preview().of(&latents);
        let image = known.or_else(|| {
            if (step.done() as f64) < FIRST_PREVIEW * step.total() as f64 {
                return None;
            }
            let image = step.preview().ok()?;
            let mut preview = self.preview();
            preview.learn(&latents, &image);
            preview.of(&latents)
        });
        data_url(&image?)
    }

    fn preview(&self) -> MutexGuard<'_, Preview> {
        self.preview.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, plan: &Plan, job: &Job, turn: &Turn, painted: Painted) -> Result<(), Stop> {
        let metrics = &self.jobs.metrics;
        metrics.stage(Stage::TextEncoder, painted.text_encoder);
        metrics.stage(Stage::VaeDecode, painted.vae_decode);
        // A repainted picture is partly not what its latents say.
        if plan.init.as_ref().is_none_or(|init| init.mask.is_none()) {
            self.preview().learn(&painted.latents, &painted.image);
        }
        let start = Instant::now();
        let recipe = self.pipeline.recipe(plan);
        let png = painted
            .image
            .encode_png(&recipe.text_chunks())
            .map_err(|error| Stop::Failed(format!("cannot encode the PNG: {error}")))?;
        let text = serde_json::to_string(&recipe)
            .map_err(|error| Stop::Failed(format!("cannot write the recipe: {error}")))?;
        self.jobs
            .store()
            .keep_picture(job.id, turn.number, &text, &png)?;
        metrics.stage(Stage::Keep, start.elapsed());
        metrics.pictures.inc();
        turn.live.push(Event::Picture {
            number: turn.number,
            seed: plan.seed,
            url: picture_path(job.id, turn.number),
        });
        Ok(())
    }
}

/// A picture as a URL that carries it.
fn data_url(image: &Image) -> Option<String> {
    let png = image.encode_png(&[]).ok()?;
    Some(format!("data:image/png;base64,{}", BASE64.encode(png)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pictures_are_painted_at_once_and_large_ones_alone() {
        let sides = [8, 64, 128, 256, 320, 512, 2048];
        let counts = sides.map(|side| at_once((side, side), 8));
        assert_eq!(counts, [4, 4, 4, 2, 1, 1, 1]);
    }
}
