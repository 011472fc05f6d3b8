//! Memory that starts on a cache line: owned, or kept by each thread for one call's intermediates.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::slice;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Numbers of 32 bits (or twice as many of 16) that start on a cache line.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

// SAFETY of the casts below: a `Line` is 64 bytes without padding, every bit pattern is a valid
// number of each type, and `len` numbers of 32 bits fit into the lines.
impl Buffer {
    /// `len` zeros of 32 bits.
    pub fn zeroed(len: usize) -> Self {
        Buffer {
            lines: vec![Line([0; 16]); len.div_ceil(16)],
            len,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_f32(&self) -> &[f32] {
        unsafe { slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub fn as_u32(&self) -> &[u32] {
        unsafe { slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        unsafe { slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    pub fn as_u8_mut(&mut self) -> &mut [u8] {
        unsafe { slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), 4 * self.len) }
    }

    pub fn as_u16_mut(&mut self) -> &mut [u16] {
        unsafe { slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), 2 * self.len) }
    }
}

thread_local! {
    static FREE: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Gives `f` a buffer of `len` numbers that starts on a cache line. Its contents are left over from
/// earlier use. Calls nest.
pub fn with<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    f(&mut lease(len))
}

/// As [`with`], for code that is compiled for an instruction set of its own: a closure would not
/// inherit that, a guard needs none.
pub fn lease(len: usize) -> Lease {
    let buffer = FREE.with_borrow_mut(|free| take(free, len));
    Lease { buffer, len }
}

/// A buffer on loan from the thread's free list.
pub struct Lease {
    buffer: Buffer,
    len: usize,
}

impl Deref for Lease {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.buffer.as_f32()[..self.len]
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer.as_f32_mut()[..self.len]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let buffer = std::mem::replace(&mut self.buffer, Buffer::zeroed(0));
        FREE.with_borrow_mut(|free| free.push(buffer));
    }
}

/// The smallest free buffer that is large enough; else a new one in place of the largest.
fn take(free: &mut Vec<Buffer>, len: usize) -> Buffer {
    let best = (0..free.len()).min_by_key(|&i| match free[i].len() {
        enough if enough >= len => (0, enough),
        short => (1, usize::MAX - short),
    });
    match best.map(|i| free.swap_remove(i)) {
        Some(buffer) if buffer.len() >= len => buffer,
        _ => Buffer::zeroed(len),
    }
}

#[cfg(test)]
mod tests {
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
