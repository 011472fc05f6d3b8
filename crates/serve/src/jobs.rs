//! The queue: what waits, what runs, and who follows it. The database is the truth; this is what a running server needs to
//! know at once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::watch;
use uuid::Uuid;

use crate::live::{Event, Live};
use crate::metrics::Metrics;
use crate::order::{Attachments, Order};
use crate::problem::Problem;
use crate::settings::{Limits, Retention};
use crate::store::{Accepted, Job, Key, State, Store, StoreError};

/// A job's time where none has run yet, in seconds.
const FIRST_GUESS: f64 = 10.0;

/// The queue and the database behind it.
pub struct Jobs {
    store: Mutex<Store>,
    queue: Mutex<Queue>,
    /// Rung when something was put into the queue, and when the server stops.
    bell: Condvar,
    stopping: AtomicBool,
    /// True when the server stops, for those that wait on the event loop.
    stop: watch::Sender<bool>,
    /// What Prometheus is told.
    pub metrics: Metrics,
    limit: usize,
    retention: Retention,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Uuid>,
    running: Option<Uuid>,
    /// Places that are promised to jobs on their way to the disk.
    promised: usize,
    live: HashMap<Uuid, Arc<Live>>,
    /// Seconds that a job takes, averaged; the last ones count most.
    usual: Option<f64>,
}

/// A job and what is known of it beyond the database.
#[derive(Clone)]
pub struct View {
    /// The row.
    pub job: Job,
    /// Jobs before it, where it waits.
    pub position: Option<usize>,
    /// Its log, where it has not come to its end.
    pub live: Option<Arc<Live>>,
}

impl Jobs {
    /// Takes up what the database holds: whatever had been accepted and not finished waits again.
    ///
    /// # Errors
    /// The database's.
    pub fn new(store: Store, limits: &Limits, retention: Retention) -> Result<Jobs, StoreError> {
        store.tidy(&retention)?;
        let waiting: VecDeque<Uuid> = store.unfinished()?.into();
        for &id in &waiting {
            store.put_back(id)?;
        }
        let metrics = Metrics::default();
        metrics.queued.set(waiting.len() as i64);
        let live = waiting.iter().map(|&id| (id, Arc::default())).collect();
        Ok(Jobs {
            store: Mutex::new(store),
            queue: Mutex::new(Queue {
                waiting,
                live,
                ..Queue::default()
            }),
            bell: Condvar::new(),
            stopping: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            metrics,
            limit: limits.queue,
            retention,
        })
    }

    /// Accepts a job: when this returns, it is on the disk. With an idempotency key, the job that the key brought before.
    /// True when it is new.
    ///
    /// # Errors
    /// 429 when the queue is full, 422 when the key came with another request, 503 when the server stops.
    pub fn submit(
        &self,
        order: Order,
        attachments: Attachments,
        key: Option<Key>,
    ) -> Result<(Uuid, bool), Problem> {
        if self.is_stopping() {
            return Err(Problem::unavailable("the server is stopping", 10));
        }
        let full = {
            let mut queue = self.queue();
            let full = queue.waiting.len() + queue.promised >= self.limit;
            if !full {
                queue.promised += 1;
            }
            full
        };
        if full {
            // Asking again for a job that is there costs nothing.
            if let Some(key) = &key
                && let Some(id) = self.known(key)?
            {
                return Ok((id, false));
            }
            self.metrics.job("refused");
            let seconds = self.usual_seconds().ceil().clamp(1.0, 600.0) as u64;
            return Err(Problem {
                retry_after: Some(seconds),
                ..Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    format!(
                        "{} jobs are waiting, which is as many as there may be; try again later",
                        self.limit
                    ),
                )
            });
        }
        let id = Uuid::now_v7();
        let accepted = self.store().accept(id, &order, &attachments, key.as_ref());
        let mut queue = self.queue();
        queue.promised -= 1;
        match accepted {
            Ok(Accepted::New) => {
                queue.waiting.push_back(id);
                queue.live.insert(id, Arc::default());
                self.metrics.queued.set(queue.waiting.len() as i64);
                drop(queue);
                self.metrics.job("accepted");
                self.bell.notify_all();
                Ok((id, true))
            }
            Ok(Accepted::Again(id)) => Ok((id, false)),
            Ok(Accepted::Conflict) => Err(Problem::field(
                "Idempotency-Key",
                "a key that no other request came with",
                "one that came with another request",
            )),
            Err(error) => Err(Problem::internal(error)),
        }
    }

    /// The job that `key` has brought, if any.
    fn known(&self, key: &Key) -> Result<Option<Uuid>, Problem> {
        let store = self.store();
        store.id_of_key(key).map_err(Problem::internal)
    }

    /// A job.
    ///
    /// # Errors
    /// 404.
    pub fn view(&self, id: Uuid) -> Result<View, Problem> {
        let job = self.store().job(id).map_err(Problem::internal)?;
        let job = job.ok_or_else(|| Problem::not_found(format!("job {id}")))?;
        Ok(self.with_place(job))
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn list(
        &self,
        limit: usize,
        before: Option<Uuid>,
        state: Option<State>,
    ) -> Result<Vec<View>, Problem> {
        let jobs = self.store().list(limit, before, state);
        let jobs = jobs.map_err(Problem::internal)?;
        Ok(jobs.into_iter().map(|job| self.with_place(job)).collect())
    }

    fn with_place(&self, job: Job) -> View {
        let queue = self.queue();
        let position = queue.waiting.iter().position(|&id| id == job.id);
        View {
            position: position.map(|at| at + usize::from(queue.running.is_some())),
            live: queue.live.get(&job.id).cloned(),
            job,
        }
    }

    /// The PNG file of a picture.
    ///
    /// # Errors
    /// 404.
    pub fn picture(&self, id: Uuid, number: usize) -> Result<Vec<u8>, Problem> {
        let png = self
            .store()
            .picture(id, number)
            .map_err(Problem::internal)?;
        png.ok_or_else(|| Problem::not_found(format!("picture {number} of job {id}")))
    }

    /// Stops a job: at once when it waits, within a step when it runs. A job that has come to its end stays as it is.
    ///
    /// # Errors
    /// 404.
    pub fn cancel(&self, id: Uuid) -> Result<(), Problem> {
        let waited = {
            let mut queue = self.queue();
            if let Some(live) = queue.live.get(&id) {
                live.cancel();
            }
            let before = queue.waiting.len();
            queue.waiting.retain(|&waiting| waiting != id);
            self.metrics.queued.set(queue.waiting.len() as i64);
            queue.waiting.len() < before
        };
        if waited {
            return self
                .end(id, State::Cancelled, None)
                .map_err(Problem::internal);
        }
        self.view(id).map(drop)
    }

    /// The job that is being painted.
    pub fn running(&self) -> Option<Uuid> {
        self.queue().running
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// Forgets a job that has come to its end.
    ///
    /// # Errors
    /// 404; 409 when it has not.
    pub fn forget(&self, id: Uuid) -> Result<(), Problem> {
        if self.store().forget(id).map_err(Problem::internal)? {
            return Ok(());
        }
        let state = self.view(id)?.job.state.name();
        let detail = format!("the job is {state}; cancel it first");
        Err(Problem::new(StatusCode::CONFLICT, detail))
    }

    /// Waits for a job's end on the event loop.
    ///
    /// # Errors
    /// 503 when the server stops before.
    pub async fn wait(&self, id: Uuid) -> Result<(), Problem> {
        let mut stop = self.stop.subscribe();
        let live = self.queue().live.get(&id).cloned();
        let Some(live) = live else { return Ok(()) };
        let mut length = live.watch();
        loop {
            let seen = *length.borrow_and_update();
            if live.since(seen.saturating_sub(1)).iter().any(Event::is_end) {
                return Ok(());
            }
            tokio::select! {
                changed = length.changed() => if changed.is_err() { return Ok(()) },
                _ = stop.wait_for(|stop| *stop) => {
                    return Err(Problem::unavailable(
                        format!("the server is stopping; job {id} is kept and goes on when it starts again"),
                        10,
                    ));
                }
            }
        }
    }

    // What the worker needs.

    /// The next job, as soon as there is one; none when the server stops.
    pub(crate) fn next(&self) -> Option<(Uuid, Arc<Live>)> {
        let mut queue = self.queue();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(id) = queue.waiting.pop_front() {
                queue.running = Some(id);
                self.metrics.queued.set(queue.waiting.len() as i64);
                self.metrics.running.set(1);
                let live = queue.live.entry(id).or_default().clone();
                return Some((id, live));
            }
            let woken = self.bell.wait_timeout(queue, Duration::from_secs(60));
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Brings a job to its end and tells those that follow it.
    ///
    /// # Errors
    /// The database's.
    pub(crate) fn end(
        &self,
        id: Uuid,
        state: State,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        // Those that wait are told in any case, also when the disk is full.
        let written = {
            let store = self.store();
            let written = store.finish(id, state, error);
            written.and_then(|_| store.tidy(&self.retention))
        };
        self.metrics.job(state.name());
        let live = {
            let mut queue = self.queue();
            if queue.running == Some(id) {
                queue.running = None;
                self.metrics.running.set(0);
            }
            queue.live.remove(&id)
        };
        let unwritten = written.as_ref().err().map(StoreError::to_string);
        let end = match &unwritten {
            None => Event::end(state, error),
            Some(error) => Event::end(State::Failed, Some(error)),
        };
        if let (Some(live), Some(event)) = (live, end) {
            live.push(event);
        }
        written.map(drop)
    }

    /// Notes how long a whole job took.
    pub(crate) fn took(&self, time: Duration) {
        let mut queue = self.queue();
        let seconds = time.as_secs_f64();
        queue.usual = Some(
            queue
                .usual
                .map_or(seconds, |usual| 0.8 * usual + 0.2 * seconds),
        );
    }

    /// Seconds that a job usually takes.
    pub fn usual_seconds(&self) -> f64 {
        self.queue().usual.unwrap_or(FIRST_GUESS)
    }

    /// Lets go of a job that shall wait for the next start of the server.
    pub(crate) fn leave(&self, id: Uuid) -> Result<(), StoreError> {
        self.store().put_back(id)
    }

    /// The database.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has everything come to rest: the worker after its step, those that wait with an answer.
    pub fn stop(&self) {
        // Under the queue's lock, or the worker could miss the bell.
        let queue = self.queue();
        self.stopping.store(true, Ordering::Relaxed);
        drop(queue);
        self.stop.send_replace(true);
        self.bell.notify_all();
    }

    /// Whether the server stops.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Becomes true when the server stops.
    pub fn stops(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }
}
