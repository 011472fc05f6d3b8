//! The queue: what waits, what runs, and who follows it. The database is the truth; this is what a running server needs to
//! know at once.

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
use crate::queue::{Closed, Queue, Size, Stop, Turn};
use crate::settings::{Limits, Retention};
use crate::store::{Accepted, Job, Key, State, Store, StoreError};

/// A job's time where none has run yet, in seconds.
const FIRST_GUESS: f64 = 10.0;

/// The queue and the database behind it.
pub struct Jobs {
    store: Mutex<Store>,
    waiting: Mutex<Waiting>,
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
struct Waiting {
    queue: Queue,
    /// Places that are promised to jobs on their way to the disk.
    promised: usize,
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
        let mut queue = Queue::default();
        for id in store.unfinished()? {
            store.put_back(id)?;
            let Some(job) = store.job(id)? else { continue };
            let missing = job.missing();
            if missing.is_empty() {
                // The last thing before a crash was its last picture.
                store.finish(id, State::Done, None)?;
                continue;
            }
            let pictures = job.order.seeds.len();
            let live = Arc::new(Live::new(pictures, missing.len()));
            queue.push(id, job.order.size(), missing.into(), live);
        }
        let jobs = Jobs {
            store: Mutex::new(store),
            waiting: Mutex::new(Waiting {
                queue,
                ..Waiting::default()
            }),
            bell: Condvar::new(),
            stopping: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            metrics: Metrics::default(),
            limit: limits.queue,
            retention,
        };
        jobs.count(&jobs.lock().queue);
        Ok(jobs)
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
            let mut waiting = self.lock();
            let full = waiting.queue.waiting() + waiting.promised >= self.limit;
            if !full {
                waiting.promised += 1;
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
            let usual = self.lock().usual.unwrap_or(FIRST_GUESS);
            let seconds = usual.ceil().clamp(1.0, 600.0) as u64;
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
        let mut waiting = self.lock();
        waiting.promised -= 1;
        match accepted {
            Ok(Accepted::New) => {
                let pictures = order.seeds.len();
                let live = Arc::new(Live::new(pictures, pictures));
                let queue = &mut waiting.queue;
                queue.push(id, order.size(), (0..pictures).collect(), live);
                self.count(queue);
                drop(waiting);
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
        let waiting = self.lock();
        View {
            position: waiting.queue.position(job.id),
            live: waiting.queue.live(job.id).cloned(),
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
        let closed = self.lock().queue.cancel(id);
        // The others may have waited for this one.
        self.bell.notify_all();
        match closed {
            Some(closed) => self.close(id, closed).map_err(Problem::internal),
            None => self.view(id).map(drop),
        }
    }

    /// The job that is being painted; the oldest of several.
    pub fn running(&self) -> Option<Uuid> {
        self.lock().queue.running().next()
    }

    /// How many have been accepted and not finished.
    pub fn unfinished(&self) -> usize {
        let waiting = self.lock();
        waiting.queue.waiting() + waiting.queue.running().count()
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
        let live = self.lock().queue.live(id).cloned();
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

    // What the painters need.

    /// The next picture to paint, as soon as there is one; `at_once` says how many of a size are painted at once. None
    /// when the server stops.
    pub(crate) fn next(&self, at_once: impl Fn(Size) -> usize) -> Option<Turn> {
        let mut waiting = self.lock();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(turn) = waiting.queue.next(&at_once) {
                self.count(&waiting.queue);
                return Some(turn);
            }
            let woken = self.bell.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes note of what became of a picture; with the last one of a job the job ends.
    ///
    /// # Errors
    /// The database's.
    pub(crate) fn painted(&self, id: Uuid, result: Result<(), Stop>) -> Result<(), StoreError> {
        let closed = {
            let mut waiting = self.lock();
            let closed = waiting.queue.painted(id, result);
            self.count(&waiting.queue);
            closed
        };
        // There may be room for another one now.
        self.bell.notify_all();
        closed.map_or(Ok(()), |closed| self.close(id, closed))
    }

    /// Brings a job to its end.
    fn close(&self, id: Uuid, Closed { stop, begun }: Closed) -> Result<(), StoreError> {
        match stop {
            None => {
                if let Some(begun) = begun {
                    self.took(begun.elapsed());
                }
                self.end(id, State::Done, None)
            }
            Some(Stop::Cancelled) => self.end(id, State::Cancelled, None),
            Some(Stop::Failed(error)) => self.end(id, State::Failed, Some(&error)),
            // The database has it among the unfinished ones, for the next start.
            Some(Stop::Leaving) => Ok(()),
        }
    }

    /// Writes down a job's end and tells those that follow it.
    fn end(&self, id: Uuid, state: State, error: Option<&str>) -> Result<(), StoreError> {
        // Those that wait are told in any case, also when the disk is full.
        let written = {
            let store = self.store();
            let written = store.finish(id, state, error);
            written.and_then(|_| store.tidy(&self.retention))
        };
        self.metrics.job(state.name());
        let entry = {
            let mut waiting = self.lock();
            let entry = waiting.queue.remove(id);
            self.count(&waiting.queue);
            entry
        };
        let unwritten = written.as_ref().err().map(StoreError::to_string);
        let end = match &unwritten {
            None => Event::end(state, error),
            Some(error) => Event::end(State::Failed, Some(error)),
        };
        if let (Some(entry), Some(event)) = (entry, end) {
            entry.live.push(event);
        }
        written.map(drop)
    }

    /// Notes how long a whole job took.
    fn took(&self, time: Duration) {
        let mut waiting = self.lock();
        let seconds = time.as_secs_f64();
        let usual = waiting.usual;
        waiting.usual = Some(usual.map_or(seconds, |usual| 0.8 * usual + 0.2 * seconds));
    }

    fn count(&self, queue: &Queue) {
        self.metrics.queued.set(queue.waiting() as i64);
        self.metrics.running.set(queue.running().count() as i64);
        self.metrics.painting.set(queue.painting() as i64);
    }

    /// The database.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has everything come to rest: the painters after their step, those that wait with an answer.
    pub fn stop(&self) {
        // Under the queue's lock, or a painter could miss the bell.
        let waiting = self.lock();
        self.stopping.store(true, Ordering::Relaxed);
        drop(waiting);
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
