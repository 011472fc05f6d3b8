//! Batches made ahead of time by background threads, handed out strictly in the order of the steps.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// Makes the batch of a step; a function of the step alone, so that it does not matter which thread runs it.
pub type MakeBatch<B> = Arc<dyn Fn(u64) -> Result<B> + Send + Sync>;

/// Background threads, each with a bounded queue.
///
/// Thread w of W makes the steps first+w, first+w+W, …; reading the queues in turn gives the steps in order without
/// a sorting buffer, and the bounds keep memory flat.
pub struct Loader<B> {
    queues: Vec<Receiver<Result<B>>>,
    threads: Vec<JoinHandle<()>>,
    turn: usize,
}

/// Batches that each thread may be ahead. Two: one ready while the next is made.
const AHEAD: usize = 2;

impl<B: Send + 'static> Loader<B> {
    /// Starts `workers` threads for the steps `first..end`.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(first: u64, end: u64, workers: usize, make: MakeBatch<B>) -> Result<Loader<B>> {
        let workers = workers.max(1);
        let mut loader = Loader {
            queues: Vec::new(),
            threads: Vec::new(),
            turn: 0,
        };
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(AHEAD);
            let make = Arc::clone(&make);
            let steps = (first + worker as u64..end).step_by(workers);
            let thread = std::thread::Builder::new()
                .name(format!("loader-{worker}"))
                .spawn(move || fill(steps, &make, &sender))
                .map_err(|source| Error::Io {
                    action: "start",
                    path: "a loader thread".into(),
                    source,
                })?;
            loader.queues.push(receiver);
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// The next step's batch; `None` after the last.
    ///
    /// # Errors
    /// What the maker of the batch reported.
    pub fn next_batch(&mut self) -> Option<Result<B>> {
        let queue = &self.queues[self.turn];
        self.turn = (self.turn + 1) % self.queues.len();
        queue.recv().ok()
    }
}

fn fill<B>(steps: impl Iterator<Item = u64>, make: &MakeBatch<B>, sender: &SyncSender<Result<B>>) {
    for step in steps {
        let batch = make(step);
        let failed = batch.is_err();
        // A closed queue means that the run has ended early.
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

impl<B> Drop for Loader<B> {
    fn drop(&mut self) {
        // Closing the queues wakes threads that wait for room; only then can they be joined.
        self.queues.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_order_from_any_number_of_threads() {
        for workers in 1..5 {
            let make: MakeBatch<u64> = Arc::new(|step| {
                std::thread::sleep(std::time::Duration::from_micros(step * 37 % 200));
                Ok(step)
            });
            let mut loader = Loader::start(3, 40, workers, make).unwrap();
            for expected in 3..40 {
                assert_eq!(loader.next_batch().unwrap().unwrap(), expected);
            }
            assert!(loader.next_batch().is_none());
        }
    }

    #[test]
    fn an_error_arrives_at_its_step_and_an_early_end_does_not_hang() {
        let make: MakeBatch<u64> = Arc::new(|step| {
            if step == 5 {
                Err(Error::data("here", "broken"))
            } else {
                Ok(step)
            }
        });
        let mut loader = Loader::start(0, 1_000_000, 2, make).unwrap();
        for _ in 0..5 {
            assert!(loader.next_batch().unwrap().is_ok());
        }
        assert!(loader.next_batch().unwrap().is_err());
        drop(loader);
    }
}
