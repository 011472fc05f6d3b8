//! What happens to a job while it waits and runs: a numbered log of events that any number of clients may follow, from
//! the beginning or from where they were, without holding up the painting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::store::State;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The job waits.
    Queued,
    /// Painting began; after a restart of the server once more.
    Started,
    /// A step was taken.
    Step(Step),
    /// A picture is finished and kept.
    Picture {
        /// The index of its seed.
        number: usize,
        /// Its seed.
        seed: u64,
        /// Where it can be fetched.
        url: String,
    },
    /// All pictures are there.
    Done,
    /// Something went wrong.
    Failed {
        /// What.
        error: String,
    },
    /// Someone stopped the job.
    Cancelled,
}

/// How far a picture is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Step {
    /// The index of the picture's seed.
    pub picture: usize,
    /// Pictures in all.
    pub pictures: usize,
    /// Steps behind us, from 1. With samplers that ask the model twice per step, each time counts.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// How much of the whole job is done, 0 to 1. Pictures of one job may be painted at once.
    pub progress: f64,
    /// Seconds until the whole job is done, as far as can be told.
    pub seconds_left: f64,
    /// What the picture looks like by now, as a data URL of a small PNG; not with every step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
}

impl Event {
    /// Its name, as server-sent events have it.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Queued => "queued",
            Event::Started => "started",
            Event::Step(_) => "step",
            Event::Picture { .. } => "picture",
            Event::Done => "done",
            Event::Failed { .. } => "failed",
            Event::Cancelled => "cancelled",
        }
    }

    /// The end of a job in this state; none if it has not come to one.
    pub fn end(state: State, error: Option<&str>) -> Option<Event> {
        match state {
            State::Queued | State::Running => None,
            State::Done => Some(Event::Done),
            State::Cancelled => Some(Event::Cancelled),
            State::Failed => Some(Event::Failed {
                error: error.unwrap_or_default().to_string(),
            }),
        }
    }

    /// Whether it is the last one.
    pub fn is_end(&self) -> bool {
        matches!(self, Event::Done | Event::Failed { .. } | Event::Cancelled)
    }
}

/// A job that has not come to its end.
pub struct Live {
    /// Pictures in all, and those that are still to be painted in this run of the server.
    pictures: usize,
    missing: usize,
    cancelled: AtomicBool,
    log: Mutex<Log>,
    /// The length of the log.
    length: watch::Sender<usize>,
}

struct Log {
    events: Vec<Event>,
    begun: Option<Instant>,
    /// Steps taken, of all pictures.
    steps: usize,
}

impl Live {
    /// A job of so many pictures, of which `missing` are still to be painted.
    pub fn new(pictures: usize, missing: usize) -> Live {
        Live {
            pictures,
            missing,
            cancelled: AtomicBool::new(false),
            log: Mutex::new(Log {
                events: vec![Event::Queued],
                begun: None,
                steps: 0,
            }),
            length: watch::Sender::new(1),
        }
    }

    /// Asks the worker to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether someone did.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Adds an event, and wakes those that follow.
    pub fn push(&self, event: Event) {
        self.add(self.lock(), event);
    }

    /// Adds that a picture has taken step `step` of `steps`. Only the last preview is kept in the log: whoever comes late
    /// does not need the others, and memory stays small.
    pub fn step(&self, picture: usize, step: usize, steps: usize, preview: Option<String>) {
        let mut log = self.lock();
        log.steps += 1;
        let left = (self.missing * steps).saturating_sub(log.steps) as f64;
        let per_step = log.begun.map_or(0.0, |begun| {
            begun.elapsed().as_secs_f64() / log.steps as f64
        });
        if preview.is_some() {
            let last = log.events.iter_mut().rev().find_map(|event| match event {
                Event::Step(step) if step.preview.is_some() => Some(step),
                _ => None,
            });
            if let Some(step) = last {
                step.preview = None;
            }
        }
        let event = Event::Step(Step {
            picture,
            pictures: self.pictures,
            step,
            steps,
            progress: rounded(1.0 - left / (self.pictures * steps) as f64, 1e4),
            seconds_left: rounded(per_step * left, 1e2),
            preview,
        });
        self.add(log, event);
    }

    fn add(&self, mut log: MutexGuard<Log>, event: Event) {
        if event == Event::Started {
            log.begun = Some(Instant::now());
        }
        log.events.push(event);
        // Under the log's lock, so that lengths are told in order.
        self.length.send_replace(log.events.len());
    }

    /// The events from number `from` on.
    pub fn since(&self, from: usize) -> Vec<Event> {
        let log = self.lock();
        log.events.get(from..).unwrap_or_default().to_vec()
    }

    /// The last step, with the last preview.
    pub fn progress(&self) -> Option<Step> {
        let log = self.lock();
        let mut steps = log.events.iter().rev().filter_map(|event| match event {
            Event::Step(step) => Some(step),
            _ => None,
        });
        let last = steps.next()?.clone();
        let before = || steps.find_map(|step| step.preview.clone());
        let preview = last.preview.clone().or_else(before);
        Some(Step { preview, ..last })
    }

    /// Tells of every change of the log's length.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.length.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rounded(value: f64, to: f64) -> f64 {
    (value * to).round() / to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_every_event_and_one_preview() {
        let live = Live::new(2, 2);
        let mut watch = live.watch();
        live.push(Event::Started);
        for (picture, step, preview) in [(0, 1, true), (1, 1, true), (0, 2, false)] {
            let preview = preview.then(|| format!("preview {picture}"));
            live.step(picture, step, 2, preview);
        }
        assert_eq!(*watch.borrow_and_update(), 5);
        let events = live.since(0);
        assert_eq!(events[..2], [Event::Queued, Event::Started]);
        let told: Vec<(usize, usize, f64, Option<&str>)> = events[2..]
            .iter()
            .map(|event| match event {
                Event::Step(s) => (s.picture, s.step, s.progress, s.preview.as_deref()),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [
            (0, 1, 0.25, None),
            (1, 1, 0.5, Some("preview 1")),
            (0, 2, 0.75, None),
        ];
        assert_eq!(told, expected);
        assert_eq!(live.since(4), events[4..]);
        assert_eq!(live.since(99), []);
        let last = live.progress().unwrap();
        assert_eq!((last.step, last.preview.as_deref()), (2, Some("preview 1")));
    }

    #[test]
    fn a_picture_that_was_there_before_counts() {
        // Of four pictures two were painted before the server was started again.
        let live = Live::new(4, 2);
        live.step(2, 1, 10, None);
        assert!((live.progress().unwrap().progress - 0.525).abs() < 1e-9);
    }
}
