//! Memory for one call's intermediates, kept by each thread, and for packed weights.

use crate::memory::Memory;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Memory that is spared for whoever wants as much again.
#[derive(Debug)]
pub(crate) struct Buffer(Memory);

/// What the last buffer had that was given back: training packs a weight again as soon as it has let go of the old form,
/// and fresh memory would take as long as packing.
static SPARE: Mutex<Option<Memory>> = Mutex::new(None);

/// Buffers of fewer numbers are not worth keeping.
const SPARED: usize = 1 << 12;

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.len() >= SPARED {
            let memory = std::mem::replace(&mut self.0, Memory::NONE);
            let old = SPARE.lock().map(|mut spare| spare.replace(memory));
            // Freed after the lock is.
            drop(old);
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Buffer::unspecified(self.0.len());
        copy.0.copy_from_slice(&self.0);
        copy
    }
}

impl Buffer {
    /// `len` zeros of 32 bits.
    pub fn zeroed(len: usize) -> Self {
        Buffer(Memory::zeroed(len))
    }

    /// `len` numbers of 32 bits, zeros or left over from earlier use.
    pub fn unspecified(len: usize) -> Self {
        let spare = match SPARE.lock() {
            Ok(mut spare) => spare.take_if(|spare| spare.len() == len),
            Err(_) => None,
        };
        Buffer(spare.unwrap_or_else(|| Memory::zeroed(len)))
    }
}

impl From<Memory> for Buffer {
    fn from(memory: Memory) -> Self {
        Buffer(memory)
    }
}

impl Deref for Buffer {
    type Target = Memory;
    fn deref(&self) -> &Memory {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Memory {
        &mut self.0
    }
}

thread_local! {
    static FREE: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

/// Gives `f` a buffer of `len` numbers that starts on a cache line. Its contents are left over from
/// earlier use. Calls nest.
pub fn with<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    f(&mut lease(len))
}

/// As [`with`], for code that is compiled for an instruction set of its own: a closure would not
/// inherit that, a guard needs none.
pub fn lease(len: usize) -> Lease {
    let memory = FREE.with_borrow_mut(|free| take(free, len));
    Lease { memory, len }
}

/// A buffer on loan from the thread's free list.
pub struct Lease {
    memory: Memory,
    len: usize,
}

impl Deref for Lease {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Memory::NONE);
        FREE.with_borrow_mut(|free| free.push(memory));
    }
}

/// The smallest free buffer that is large enough; else a new one in place of the largest.
fn take(free: &mut Vec<Memory>, len: usize) -> Memory {
    let best = (0..free.len()).min_by_key(|&i| match free[i].len() {
        enough if enough >= len => (0, enough),
        short => (1, usize::MAX - short),
    });
    match best.map(|i| free.swap_remove(i)) {
        Some(memory) if memory.len() >= len => memory,
        _ => Memory::zeroed(len),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_buffer_is_handed_out_again_whole() {
        // A length that no other test uses, because the spare one is shared between tests.
        let len = super::SPARED + 1234;
        let mut first = super::Buffer::zeroed(len);
        first[len - 1] = 7.0;
        let copy = first.clone();
        assert_eq!((copy.len(), copy[len - 1]), (len, 7.0));
        drop((first, copy));
        // Another test may have given one back meanwhile.
        let second = super::Buffer::unspecified(len);
        assert_eq!(second.len(), len);
        assert!([0.0, 7.0].contains(&second[len - 1]));
    }

    #[test]
    fn buffers_are_aligned_and_nest() {
        super::with(100, |a| {
            a.fill(1.0);
            super::with(33, |b| {
                b.fill(2.0);
                assert_eq!(b.as_ptr() as usize % 64, 0);
            });
            assert!(a.iter().all(|&x| x == 1.0));
        });
    }
}
