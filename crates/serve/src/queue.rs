//! Who is painted next: jobs in the order in which they came, and pictures of one size at once where that is faster. This
//! knows nothing of threads, models or the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::live::{Event, Live};

/// A job is overtaken by at most this many pictures, which are of the size that is being painted when it is not.
const PATIENCE: usize = 16;

/// Width and height in pixels.
pub(crate) type Size = (usize, usize);

/// Why a picture was not painted to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// Someone stopped its job.
    Cancelled,
    /// The server stops.
    Leaving,
    /// Something went wrong.
    Failed(String),
}

/// The jobs that have been accepted and not finished, oldest first.
#[derive(Default)]
pub(crate) struct Queue {
    entries: Vec<Entry>,
}

/// A job.
pub(crate) struct Entry {
    pub id: Uuid,
    pub live: Arc<Live>,
    size: Size,
    /// The numbers of the pictures that nobody paints yet.
    pending: VecDeque<usize>,
    /// Pictures that are being painted.
    painting: usize,
    begun: Option<Instant>,
    /// What went wrong first.
    stop: Option<Stop>,
    /// Pictures of later jobs that were begun before this one's.
    passed: usize,
    /// Somebody has been told to bring it to its end.
    closing: bool,
}

/// A picture to be painted now.
pub(crate) struct Turn {
    pub id: Uuid,
    /// The index of its seed.
    pub number: usize,
    pub live: Arc<Live>,
    /// Whether it is the first one of its job in this run of the server.
    pub first: bool,
}

/// How a job ended.
pub(crate) struct Closed {
    /// What went wrong.
    pub stop: Option<Stop>,
    /// When painting began.
    pub begun: Option<Instant>,
}

impl Queue {
    /// Adds a job, of whose pictures those with the numbers `pending` are missing.
    pub fn push(&mut self, id: Uuid, size: Size, pending: VecDeque<usize>, live: Arc<Live>) {
        self.entries.push(Entry {
            id,
            live,
            size,
            pending,
            painting: 0,
            begun: None,
            stop: None,
            passed: 0,
            closing: false,
        });
    }

    /// The picture to begin now, if any: the oldest one, and beside others the oldest of their size, as long as there are
    /// fewer than `at_once` says of this size. Nobody is overtaken for ever.
    pub fn next(&mut self, at_once: impl Fn(Size) -> usize) -> Option<Turn> {
        let mut wait = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| !entry.pending.is_empty());
        let (first, oldest) = wait.next()?;
        let at = match self.entries.iter().find(|entry| entry.painting > 0) {
            None => first,
            Some(now) if self.painting() >= at_once(now.size) => return None,
            Some(now) if oldest.size == now.size => first,
            Some(_) if oldest.passed >= PATIENCE => return None,
            Some(now) => wait.find(|(_, entry)| entry.size == now.size)?.0,
        };
        for entry in &mut self.entries[..at] {
            entry.passed += 1;
        }
        let entry = &mut self.entries[at];
        let number = entry.pending.pop_front()?;
        entry.painting += 1;
        let first = entry.begun.is_none();
        if first {
            entry.begun = Some(Instant::now());
            entry.live.push(Event::Started);
        }
        Some(Turn {
            id: entry.id,
            number,
            live: entry.live.clone(),
            first,
        })
    }

    /// Notes that a picture was painted or not. Where that was the last one of its job, how the job ended.
    pub fn painted(&mut self, id: Uuid, result: Result<(), Stop>) -> Option<Closed> {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id)?;
        entry.painting -= 1;
        if let Err(stop) = result {
            // The job's other pictures need not be painted any more.
            entry.halt(stop);
        }
        entry.close()
    }

    /// Stops a job. Where none of its pictures is being painted, it ends now.
    pub fn cancel(&mut self, id: Uuid) -> Option<Closed> {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id)?;
        if entry.pending.is_empty() {
            // Those that are being painted stop after their step, and say so.
            entry.live.cancel();
        } else {
            entry.halt(Stop::Cancelled);
        }
        entry.close()
    }

    /// Takes a job out.
    pub fn remove(&mut self, id: Uuid) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        Some(self.entries.remove(at))
    }

    /// The log of a job.
    pub fn live(&self, id: Uuid) -> Option<&Arc<Live>> {
        let entry = self.entries.iter().find(|entry| entry.id == id)?;
        Some(&entry.live)
    }

    /// Jobs before this one, while it waits.
    pub fn position(&self, id: Uuid) -> Option<usize> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        self.entries[at].begun.is_none().then_some(at)
    }

    /// Jobs of which nothing has been painted.
    pub fn waiting(&self) -> usize {
        let waits = |entry: &&Entry| entry.begun.is_none() && !entry.closing;
        self.entries.iter().filter(waits).count()
    }

    /// Jobs that were begun, oldest first.
    pub fn running(&self) -> impl Iterator<Item = Uuid> {
        let begun = self.entries.iter().filter(|entry| entry.begun.is_some());
        begun.map(|entry| entry.id)
    }

    /// Pictures that are being painted.
    pub fn painting(&self) -> usize {
        self.entries.iter().map(|entry| entry.painting).sum()
    }
}

impl Entry {
    fn halt(&mut self, stop: Stop) {
        self.pending.clear();
        self.live.cancel();
        self.stop.get_or_insert(stop);
    }

    fn close(&mut self) -> Option<Closed> {
        if self.painting > 0 || !self.pending.is_empty() || self.closing {
            return None;
        }
        self.closing = true;
        Some(Closed {
            stop: self.stop.take(),
            begun: self.begun,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = (64, 64);
    const LARGE: Size = (512, 512);

    fn at_once(size: Size) -> usize {
        if size == SMALL { 3 } else { 1 }
    }

    fn push(queue: &mut Queue, size: Size, pictures: usize) -> Uuid {
        let id = Uuid::now_v7();
        queue.push(
            id,
            size,
            (0..pictures).collect(),
            Arc::new(Live::new(pictures, pictures)),
        );
        id
    }

    fn next(queue: &mut Queue) -> Option<(Uuid, usize)> {
        let turn = queue.next(at_once)?;
        Some((turn.id, turn.number))
    }

    #[test]
    fn pictures_of_one_size_are_painted_at_once() {
        let mut queue = Queue::default();
        let (a, large, b) = (
            push(&mut queue, SMALL, 2),
            push(&mut queue, LARGE, 1),
            push(&mut queue, SMALL, 2),
        );
        assert_eq!((queue.waiting(), queue.position(b)), (3, Some(2)));
        assert_eq!(next(&mut queue), Some((a, 0)));
        assert_eq!(next(&mut queue), Some((a, 1)));
        assert_eq!(next(&mut queue), Some((b, 0)), "the large one is overtaken");
        assert_eq!(next(&mut queue), None, "three are as many as there may be");
        assert_eq!(queue.running().collect::<Vec<_>>(), [a, b]);
        assert!(queue.painted(a, Ok(())).is_none());
        assert_eq!(next(&mut queue), Some((b, 1)), "a place is free again");
        assert_eq!(queue.painted(a, Ok(())).unwrap().stop, None);
        queue.remove(a);
        assert_eq!(next(&mut queue), None, "the large one cannot join");
        assert!(queue.painted(b, Ok(())).is_none());
        assert!(queue.painted(b, Ok(())).is_some());
        queue.remove(b);
        assert_eq!(next(&mut queue), Some((large, 0)));
        push(&mut queue, LARGE, 1);
        assert_eq!(next(&mut queue), None, "of this size one at a time");
    }

    #[test]
    fn nobody_is_overtaken_for_ever() {
        let mut queue = Queue::default();
        push(&mut queue, SMALL, 1);
        next(&mut queue);
        let large = push(&mut queue, LARGE, 1);
        let mut passed = 0;
        loop {
            let id = push(&mut queue, SMALL, 1);
            let Some(turn) = next(&mut queue) else { break };
            assert_eq!(turn.0, id);
            passed += 1;
            queue.painted(id, Ok(()));
            queue.remove(id);
        }
        assert_eq!(passed, PATIENCE);
        assert!(queue.live(large).is_some_and(|live| !live.is_cancelled()));
    }

    #[test]
    fn a_job_ends_once_and_with_what_went_wrong_first() {
        let mut queue = Queue::default();
        let job = push(&mut queue, SMALL, 5);
        for number in 0..3 {
            assert_eq!(next(&mut queue), Some((job, number)));
        }
        assert!(queue.painted(job, Ok(())).is_none());
        let failed = || Stop::Failed("a bug".to_string());
        assert!(
            queue.painted(job, Err(failed())).is_none(),
            "one is still at it"
        );
        assert!(queue.live(job).unwrap().is_cancelled(), "and told to stop");
        assert_eq!(next(&mut queue), None);
        let closed = queue.painted(job, Err(Stop::Cancelled)).unwrap();
        assert_eq!(closed.stop, Some(failed()));
        assert!(queue.cancel(job).is_none(), "it has ended already");

        // One that waits ends at once, one that runs when its picture does.
        let (running, waiting) = (push(&mut queue, LARGE, 1), push(&mut queue, LARGE, 1));
        assert_eq!(next(&mut queue), Some((running, 0)));
        assert_eq!(queue.cancel(waiting).unwrap().stop, Some(Stop::Cancelled));
        assert!(queue.cancel(running).is_none());
        // It was finished before it saw that it should stop.
        assert_eq!(queue.painted(running, Ok(())).unwrap().stop, None);
    }
}
