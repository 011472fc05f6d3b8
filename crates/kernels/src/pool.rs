//! The threads that all kernels share: a rayon pool in which the calling thread takes part.

use crate::isa;
use crate::shared::{Region, SharedMut};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Workers besides the calling thread, `None` until first use and when one thread is all.
struct Threads {
    count: usize,
    workers: Option<Arc<ThreadPool>>,
}

static THREADS: RwLock<Threads> = RwLock::new(Threads {
    count: 0,
    workers: None,
});

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Uses `count` threads from now on, the calling one included; 0 means one per core.
pub fn set_threads(count: usize) {
    let built = build(count);
    *THREADS.write().unwrap_or_else(PoisonError::into_inner) = built;
}

/// How many threads the kernels use.
pub fn threads() -> usize {
    current().0
}

fn build(count: usize) -> Threads {
    let count = match count {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    if count == 1 {
        return Threads {
            count,
            workers: None,
        };
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(count - 1)
        .thread_name(|i| format!("velatura-{}", i + 1))
        .build();
    match pool {
        Ok(pool) => Threads {
            count,
            workers: Some(Arc::new(pool)),
        },
        // No thread to be had (a resource limit): everything still works on the calling one.
        Err(_) => Threads {
            count: 1,
            workers: None,
        },
    }
}

fn current() -> (usize, Option<Arc<ThreadPool>>) {
    let read = THREADS.read().unwrap_or_else(PoisonError::into_inner);
    if read.count > 0 {
        return (read.count, read.workers.clone());
    }
    drop(read);
    let mut write = THREADS.write().unwrap_or_else(PoisonError::into_inner);
    if write.count == 0 {
        *write = build(0);
    }
    (write.count, write.workers.clone())
}

/// Calls `task(0)`, …, `task(tasks - 1)`, each once, on all threads and in no particular order, and
/// returns when all are done. A call from inside a task runs on that task's thread alone.
///
/// The instruction set forced by [`isa::with`] holds in the tasks too.
///
/// # Panics
/// When a task does.
pub fn parallel_for(tasks: usize, task: impl Fn(usize) + Sync) {
    parallel_if(true, tasks, task);
}

/// As [`parallel_for`] where other threads `pay`, else one task after the other on the calling one.
pub(crate) fn parallel_if(pay: bool, tasks: usize, task: impl Fn(usize) + Sync) {
    let region = Region::new(tasks);
    let task = |i| region.run(i, || task(i));
    if pay {
        share_out(tasks, task);
    } else {
        (0..tasks).for_each(task);
    }
    region.check();
}

fn share_out(tasks: usize, task: impl Fn(usize) + Sync) {
    if tasks <= 1 || INSIDE.get() {
        return (0..tasks).for_each(task);
    }
    let (threads, Some(workers)) = current() else {
        return (0..tasks).for_each(task);
    };
    let next = AtomicUsize::new(0);
    let forced = isa::forced();
    let run = || {
        let _inside = Inside::enter();
        isa::with_forced(forced, || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                task(i);
            }
        });
    };
    workers.in_place_scope(|scope| {
        for _ in 1..threads.min(tasks) {
            scope.spawn(|_| run());
        }
        run();
    });
}

/// Marks this thread as working on a task until dropped.
struct Inside(bool);

impl Inside {
    fn enter() -> Self {
        Inside(INSIDE.replace(true))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

/// Cuts `data` into pieces of `chunk` elements (the last may be shorter) and calls
/// `task(index, piece)` for each, in parallel.
///
/// # Panics
/// When `chunk` is 0 or a task panics.
pub fn parallel_chunks_mut<T: Send>(
    data: &mut [T],
    chunk: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    assert!(chunk > 0, "chunks need a length");
    let len = data.len();
    let base = SharedMut::new(data);
    parallel_for(len.div_ceil(chunk), |i| {
        let start = i * chunk;
        // SAFETY: pieces with different indices do not overlap, and each index comes once.
        let piece = unsafe { base.slice(start, chunk.min(len - start)) };
        task(i, piece);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for tasks in [0, 1, 2, 3, 100, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            parallel_for(tasks, |i| {
                // Nested calls run in place.
                parallel_for(3, |_| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 3));
        }
    }

    #[test]
    fn chunks_cover_the_slice() {
        for len in [0, 1, 7, 8, 9, 1000] {
            let mut data = vec![0usize; len];
            parallel_chunks_mut(&mut data, 8, |i, piece| {
                for (j, x) in piece.iter_mut().enumerate() {
                    *x += i * 8 + j + 1;
                }
            });
            assert!(data.iter().enumerate().all(|(i, &x)| x == i + 1));
        }
    }

    #[test]
    fn a_forced_instruction_set_reaches_the_workers() {
        for isa in isa::Isa::available() {
            isa::with(isa, || parallel_for(64, |_| assert_eq!(isa::active(), isa)));
        }
    }
}
