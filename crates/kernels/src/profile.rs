//! Where the time goes: while switched on, each kernel that is called notes what it did and how long it
//! took. Costs a look at a variable of the thread when off.

use std::cell::RefCell;
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

thread_local! {
    // Of the thread that calls the kernels, not of the process: what others compute meanwhile is not ours.
    static EVENTS: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
}

/// Notes the calls of kernels that this thread makes during `f`; the threads that share the work of a call
/// are counted in its time.
pub fn record<T>(f: impl FnOnce() -> T) -> (T, Vec<Event>) {
    EVENTS.set(Some(Vec::new()));
    let result = f();
    (result, EVENTS.take().unwrap_or_default())
}

/// Notes the call of a kernel, from here to the end of the value's scope: name, algorithm and operations as in [`Event`].
#[inline]
pub fn note(describe: impl FnOnce() -> (String, String, f64)) -> Option<Note> {
    EVENTS.with_borrow(Option::is_some).then(|| {
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
        EVENTS.with_borrow_mut(|events| events.iter_mut().for_each(|e| e.push(self.event.clone())));
    }
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
        let [event] = &events[..] else {
            panic!("{events:?}");
        };
        assert!(event.name.contains("5×3×97"), "{event:?}");
        assert_eq!(event.flops, 2.0 * 5.0 * 3.0 * 97.0);
    }
}
