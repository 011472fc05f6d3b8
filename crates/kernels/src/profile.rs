//! Where the time goes: while switched on, each kernel that is called notes what it did and how long it
//! took. Costs one relaxed load when off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One call of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What was computed, with its sizes; equal calls have equal names.
    pub name: String,
    /// How: the algorithm, number format and instruction set.
    pub algorithm: String,
    /// Floating-point operations, a multiply-add counting two; zero where bytes are what counts.
    pub flops: f64,
    /// How long it took.
    pub time: Duration,
}

static ON: AtomicBool = AtomicBool::new(false);
static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

/// Notes the calls of all kernels during `f`, on whichever thread.
pub fn record<T>(f: impl FnOnce() -> T) -> (T, Vec<Event>) {
    lock().clear();
    ON.store(true, Ordering::Relaxed);
    let result = f();
    ON.store(false, Ordering::Relaxed);
    (result, std::mem::take(&mut *lock()))
}

/// Notes the call of a kernel, from here to the end of the value's scope: name, algorithm and operations as in [`Event`].
#[inline]
pub fn note(describe: impl FnOnce() -> (String, String, f64)) -> Option<Note> {
    ON.load(Ordering::Relaxed).then(|| {
        let (name, algorithm, flops) = describe();
        Note {
            event: Event {
                name,
                algorithm,
                flops,
                time: Duration::ZERO,
            },
            start: Instant::now(),
        }
    })
}

/// See [`note`].
pub struct Note {
    event: Event,
    start: Instant,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.event.time = self.start.elapsed();
        lock().push(self.event.clone());
    }
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Event>> {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use crate::gemm::{Epilogue, PackedMatrix, Precision, matmul_packed};

    #[test]
    fn calls_are_noted_only_inside() {
        let matrix = PackedMatrix::from_rows(&[1.0; 97 * 3], 97, 3, Precision::F32);
        let multiply = || {
            let mut out = [0.0; 5 * 97];
            matmul_packed(5, &[1.0; 15], &matrix, &mut out, &Epilogue::default());
        };
        multiply();
        let ((), events) = super::record(multiply);
        multiply();
        // Other tests of this process may be noted too.
        let ours: Vec<_> = events
            .iter()
            .filter(|e| e.name.contains("5×3×97"))
            .collect();
        assert_eq!(ours.len(), 1, "{events:?}");
        assert_eq!(ours[0].flops, 2.0 * 5.0 * 3.0 * 97.0);
    }
}
