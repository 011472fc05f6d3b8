//! What the database holds, as the rest of the server speaks of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::order::Order;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waiting.
    Queued,
    /// Being painted.
    Running,
    /// All pictures are there.
    Done,
    /// Something went wrong; the job says what.
    Failed,
    /// Someone stopped it. Pictures that were finished are kept.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [State; 5] = [
        State::Queued,
        State::Running,
        State::Done,
        State::Failed,
        State::Cancelled,
    ];

    /// The name, as clients and the database have it.
    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn of_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing will happen to the job any more.
    pub fn is_final(self) -> bool {
        !matches!(self, State::Queued | State::Running)
    }
}

/// A job as it is stored, without its pictures' bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its name.
    pub id: Uuid,
    /// Where it stands.
    pub state: State,
    /// When it was accepted, in milliseconds since 1970.
    pub created: i64,
    /// When painting began.
    pub started: Option<i64>,
    /// When it came to its end.
    pub finished: Option<i64>,
    /// What is to be painted.
    pub order: Order,
    /// Why it failed.
    pub error: Option<String>,
    /// The pictures that are there: number and recipe.
    pub pictures: Vec<(usize, String)>,
}

impl Job {
    /// The numbers of the pictures that are not there yet.
    pub fn missing(&self) -> Vec<usize> {
        let there = |number: &usize| self.pictures.iter().any(|(known, _)| known == number);
        (0..self.order.seeds.len())
            .filter(|number| !there(number))
            .collect()
    }
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// A new job.
    New,
    /// The idempotency key has brought this job before.
    Again(Uuid),
    /// The idempotency key has brought another request before.
    Conflict,
}

/// An idempotency key, and what the request that came with it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The client's word.
    pub key: String,
    /// A hash of the request.
    pub fingerprint: Vec<u8>,
}
