//! What happens to a job while it waits and runs: a numbered log of events that any number of clients may follow, from
//! the beginning or from where they were, without holding up the painting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    cancelled: AtomicBool,
    log: Mutex<Vec<Event>>,
    /// The length of the log.
    length: watch::Sender<usize>,
}

impl Default for Live {
    fn default() -> Self {
        Live {
            cancelled: AtomicBool::new(false),
            log: Mutex::new(vec![Event::Queued]),
            length: watch::Sender::new(1),
        }
    }
}

impl Live {
    /// Asks the worker to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether someone did.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Adds an event, and wakes those that follow. Only the last preview is kept in the log: whoever comes late does not
    /// need the others, and memory stays small.
    pub fn push(&self, event: Event) {
        let mut log = self.lock();
        if matches!(&event, Event::Step(step) if step.preview.is_some()) {
            let last = log.iter_mut().rev().find_map(|event| match event {
                Event::Step(step) if step.preview.is_some() => Some(step),
                _ => None,
            });
            if let Some(step) = last {
                step.preview = None;
            }
        }
        log.push(event);
        let length = log.len();
        drop(log);
        self.length.send_replace(length);
    }

    /// The events from number `from` on.
    pub fn since(&self, from: usize) -> Vec<Event> {
        self.lock().get(from..).unwrap_or_default().to_vec()
    }

    /// The last step, with the last preview.
    pub fn progress(&self) -> Option<(Step, Option<String>)> {
        let log = self.lock();
        let mut steps = log.iter().rev().filter_map(|event| match event {
            Event::Step(step) => Some(step),
            _ => None,
        });
        let last = steps.next()?.clone();
        let preview = last
            .preview
            .clone()
            .or_else(|| steps.find_map(|step| step.preview.clone()));
        Some((last, preview))
    }

    /// Tells of every change of the log's length.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.length.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize, preview: bool) -> Event {
        Event::Step(Step {
            picture: 0,
            pictures: 1,
            step,
            steps: 4,
            seconds_left: 0.0,
            preview: preview.then(|| format!("preview {step}")),
        })
    }

    #[test]
    fn the_log_keeps_every_event_and_one_preview() {
        let live = Live::default();
        let mut watch = live.watch();
        for (i, preview) in [true, true, false].into_iter().enumerate() {
            live.push(step(i + 1, preview));
        }
        assert_eq!(*watch.borrow_and_update(), 4);
        let events = live.since(0);
        assert_eq!(events[0], Event::Queued);
        assert_eq!(events[1..], [step(1, false), step(2, true), step(3, false)]);
        assert_eq!(live.since(3), [step(3, false)]);
        assert_eq!(live.since(99), []);
        let (last, preview) = live.progress().unwrap();
        assert_eq!((last.step, preview.as_deref()), (3, Some("preview 2")));
    }
}
