//! Arrays that several tasks write to at once, and a watch over them in debug builds.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A mutable slice that several tasks write to, each in its own places.
///
/// Debug builds check that a place lies in the slice, and that no two tasks of a [`Region`] take the same.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<T> {
    start: *mut T,
    len: usize,
    /// Whether a task made it for itself: then it is nobody else's, and its memory may be the next task's after it.
    #[cfg(debug_assertions)]
    own: bool,
}

// SAFETY: access goes through pointers whose users vouch for disjointness.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// Shares `data`; the caller keeps it borrowed while tasks use the value.
    pub fn new(data: &mut [T]) -> Self {
        SharedMut {
            start: data.as_mut_ptr(),
            len: data.len(),
            #[cfg(debug_assertions)]
            own: TAKEN.with_borrow(Option::is_some),
        }
    }

    /// `data[start..start + len]`.
    ///
    /// # Safety
    /// The range lies inside the slice, the slice is still borrowed by the one who made this value,
    /// and nobody else uses the range meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice<'a>(&self, start: usize, len: usize) -> &'a mut [T] {
        self.take(start, len);
        // SAFETY: by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// Pointer to `data[start..start + len]`, which the task takes.
    #[inline(always)]
    pub fn pointer(&self, start: usize, len: usize) -> *mut T {
        self.take(start, len);
        self.address(start)
    }

    /// Pointer to element `start`, from which on the task takes `len` elements at each of some distances.
    #[inline(always)]
    pub fn rows(
        &self,
        start: usize,
        distances: impl IntoIterator<Item = usize>,
        len: usize,
    ) -> *mut T {
        if cfg!(debug_assertions) {
            for distance in distances {
                self.take(start + distance, len);
            }
        }
        self.address(start)
    }

    /// Pointer to element `start` (which may be one past the end), where the task has taken something before, or which
    /// it only asks to come nearer.
    #[inline(always)]
    pub fn address(&self, start: usize) -> *mut T {
        debug_assert!(start <= self.len);
        self.start.wrapping_add(start)
    }

    #[inline(always)]
    fn take(&self, start: usize, len: usize) {
        debug_assert!(
            start <= self.len && len <= self.len - start,
            "{len} elements from {start} on, of an array of {}",
            self.len
        );
        #[cfg(debug_assertions)]
        if !self.own {
            let (array, size) = (self.start.addr(), size_of::<T>());
            note(Part {
                array,
                size,
                bytes: array + start * size..array + (start + len) * size,
            });
        }
    }
}

thread_local! {
    /// What the task on this thread has taken so far; `None` outside of tasks.
    static TAKEN: RefCell<Option<Vec<Part>>> = const { RefCell::new(None) };
}

/// A part of an array.
#[derive(Debug, Default)]
struct Part {
    /// Where the array begins, and the size of its elements.
    array: usize,
    size: usize,
    /// Addresses.
    bytes: Range<usize>,
}

/// Adds to what this thread's task has taken.
#[cfg_attr(not(debug_assertions), allow(dead_code))]
fn note(part: Part) {
    TAKEN.with_borrow_mut(|taken| {
        let Some(parts) = taken.as_mut().filter(|_| !part.bytes.is_empty()) else {
            return;
        };
        match parts.last_mut() {
            // Rows without gaps, and the same place again.
            Some(last)
                if last.array == part.array
                    && last.bytes.start <= part.bytes.start
                    && part.bytes.start <= last.bytes.end =>
            {
                last.bytes.end = last.bytes.end.max(part.bytes.end);
            }
            _ => parts.push(part),
        }
    });
}

/// Tasks that may run at the same time, and what each takes of shared arrays.
///
/// Nothing is compared, and no thread waits for another, before all are done: an overlap is found whoever ran the tasks
/// and when, on a single thread too, and a thread sanitizer sees them as they are without the watch. Tasks inside of a
/// task count as that one. Builds without debug assertions watch nothing.
pub(crate) struct Region {
    tasks: Vec<Mutex<Vec<Part>>>,
}

impl Region {
    pub fn new(tasks: usize) -> Self {
        let watched = cfg!(debug_assertions) && tasks > 1 && TAKEN.with_borrow(Option::is_none);
        let tasks = if watched { tasks } else { 0 };
        Region {
            tasks: (0..tasks).map(|_| Mutex::default()).collect(),
        }
    }

    /// Runs the task of this number.
    #[inline(always)]
    pub fn run(&self, index: usize, task: impl FnOnce()) {
        match self.tasks.get(index) {
            Some(parts) if cfg!(debug_assertions) => {
                let watch = Watch::begin();
                task();
                *parts.lock().unwrap_or_else(PoisonError::into_inner) = watch.end();
            }
            _ => task(),
        }
    }

    /// Compares what the tasks have taken.
    ///
    /// # Panics
    /// When two of them have taken the same element.
    pub fn check(self) {
        let mut parts: Vec<(usize, Part)> = Vec::new();
        for (task, taken) in self.tasks.into_iter().enumerate() {
            let taken = taken.into_inner().unwrap_or_else(PoisonError::into_inner);
            parts.extend(taken.into_iter().map(|part| (task, part)));
        }
        parts.sort_unstable_by_key(|(task, part)| (part.bytes.start, *task));
        let mut furthest = (0, Part::default());
        for (task, part) in parts {
            // Of the parts before, all that reach beyond this one's start are of one task, or two of them would have
            // been found to overlap: the one that reaches furthest stands for them.
            if part.bytes.start < furthest.1.bytes.end && task != furthest.0 {
                let elements = |of: &Part| {
                    let place = |address: usize| {
                        (address as isize - part.array as isize) / part.size as isize
                    };
                    place(of.bytes.start)..place(of.bytes.end)
                };
                panic!(
                    "two tasks that may run at the same time take the same elements of an array: task {} takes {:?}, task {task} {:?}",
                    furthest.0,
                    elements(&furthest.1),
                    elements(&part),
                );
            }
            if part.bytes.end > furthest.1.bytes.end {
                furthest = (task, part);
            }
        }
    }
}

/// While it lives, what this thread takes is noted.
struct Watch;

impl Watch {
    fn begin() -> Self {
        TAKEN.replace(Some(Vec::new()));
        Watch
    }

    fn end(self) -> Vec<Part> {
        TAKEN.take().unwrap_or_default()
    }
}

impl Drop for Watch {
    /// After a panic too.
    fn drop(&mut self) {
        TAKEN.take();
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use crate::pool::{parallel_chunks_mut, parallel_for, parallel_if};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// What is said when `tasks` tasks take what `take` takes of 100 numbers, on all threads or on one.
    fn complaint(
        parallel: bool,
        tasks: usize,
        take: impl Fn(&SharedMut<u32>, usize) + Sync,
    ) -> Option<String> {
        let mut numbers = [0; 100];
        let shared = SharedMut::new(&mut numbers);
        let run = || parallel_if(parallel, tasks, |task| take(&shared, task));
        let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
        Some(panic.downcast_ref::<String>().unwrap().clone())
    }

    #[test]
    fn tasks_that_take_the_same_are_found() {
        for parallel in [false, true] {
            // Nothing is written: two references to the same number would be wrong in themselves.
            let found = complaint(parallel, 10, |shared, task| {
                let len = if task == 3 { 11 } else { 10 };
                shared.pointer(10 * task, len);
            });
            let found = found.expect("the overlap is found");
            assert!(
                found.ends_with("task 3 takes 30..41, task 4 40..50"),
                "{found}"
            );
            // One part inside another, found from rows with gaps between them.
            let found = complaint(parallel, 2, |shared, task| {
                match task {
                    0 => shared.rows(5, [0, 20, 40], 10),
                    _ => shared.pointer(47, 3),
                };
            });
            let found = found.expect("the overlap is found");
            assert!(
                found.ends_with("task 0 takes 45..55, task 1 47..50"),
                "{found}"
            );
        }
    }

    #[test]
    fn tasks_with_places_of_their_own_may_take_them_as_often_as_they_like() {
        for parallel in [false, true] {
            let found = complaint(parallel, 5, |shared, task| {
                for _ in 0..3 {
                    // Columns of a matrix: the rows of one task lie between those of the others.
                    shared.rows(2 * task, (0..10).map(|row| 10 * row), 2);
                    shared.pointer(2 * task, 1);
                }
                shared.pointer(50, 0);
            });
            assert_eq!(found, None);
        }
    }

    #[test]
    fn what_a_task_shares_out_among_tasks_of_its_own_is_one_tasks() {
        let mut numbers = [0; 64];
        parallel_chunks_mut(&mut numbers, 16, |_, piece| {
            // The same memory for each task of a thread.
            crate::scratch::with(16, |scratch| {
                parallel_chunks_mut(scratch, 4, |i, part| part.fill(i as f32));
                parallel_chunks_mut(piece, 4, |_, part| part.fill(1));
            });
        });
        assert_eq!(numbers, [1; 64]);
    }

    #[test]
    fn after_a_panic_in_a_task_the_watch_goes_on() {
        for _ in 0..2 {
            let found = complaint(false, 2, |_, _| panic!("{}", "a task's own"));
            assert_eq!(found.as_deref(), Some("a task's own"));
            let found = complaint(false, 2, |shared, _| {
                shared.pointer(0, 1);
            });
            assert!(found.is_some());
        }
    }

    #[test]
    #[should_panic(expected = "5 elements from 96 on, of an array of 100")]
    fn places_past_the_end_are_found() {
        let mut numbers = [0; 100];
        let shared = SharedMut::new(&mut numbers);
        parallel_for(1, |_| {
            shared.pointer(96, 5);
        });
    }
}
