//! Memory that starts on a cache line: owned, or kept by each thread for one call's intermediates.

use memmap2::MmapMut;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::Mutex;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Buffers of at least this many bytes, the size of a huge page, are mapped by themselves.
const MAPPED: usize = 2 << 20;

/// Numbers of 32 bits (or twice as many of 16) that start on a cache line.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Lines(Vec<Line>),
    /// Zeros that the system provides when they are first touched, so that whoever fills the buffer shares that
    /// work out with it; in huge pages where it has them, which are fewer to provide and to look up.
    Pages(MmapMut),
}

/// The last buffer that was given back: training packs a weight again as soon as it has let go of the old form, and fresh
/// memory would take as long as packing.
static SPARE: Mutex<Option<Buffer>> = Mutex::new(None);

/// Buffers of fewer numbers are not worth keeping.
const SPARED: usize = 1 << 12;

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len >= SPARED {
            let (memory, len) = (std::mem::replace(&mut self.memory, Memory::NONE), self.len);
            let old = SPARE
                .lock()
                .map(|mut spare| spare.replace(Buffer { memory, len }));
            // Freed after the lock is, and not spared again.
            if let Ok(Some(mut old)) = old {
                old.len = 0;
            }
        }
    }
}

impl Memory {
    const NONE: Memory = Memory::Lines(Vec::new());
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Buffer::unspecified(self.len);
        copy.as_f32_mut().copy_from_slice(self.as_f32());
        copy
    }
}

// SAFETY of the casts below: a `Line` is 64 bytes without padding, a page is a multiple of that, every bit pattern is
// a valid number of each type, and `len` numbers of 32 bits fit into the memory.
impl Buffer {
    /// `len` zeros of 32 bits.
    pub fn zeroed(len: usize) -> Self {
        if len * 4 >= MAPPED
            && let Ok(pages) = MmapMut::map_anon(len * 4)
        {
            // Advice that is not taken does no harm.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            let memory = Memory::Pages(pages);
            return Buffer { memory, len };
        }
        let memory = Memory::Lines(vec![Line([0; 16]); len.div_ceil(16)]);
        Buffer { memory, len }
    }

    /// `len` numbers of 32 bits, zeros or left over from earlier use.
    pub fn unspecified(len: usize) -> Self {
        let spare = match SPARE.lock() {
            Ok(mut spare) => spare.take_if(|spare| spare.len == len),
            Err(_) => None,
        };
        spare.unwrap_or_else(|| Buffer::zeroed(len))
    }

    fn start(&self) -> *const u8 {
        match &self.memory {
            Memory::Lines(lines) => lines.as_ptr().cast(),
            Memory::Pages(pages) => pages.as_ptr(),
        }
    }

    fn start_mut(&mut self) -> *mut u8 {
        match &mut self.memory {
            Memory::Lines(lines) => lines.as_mut_ptr().cast(),
            Memory::Pages(pages) => pages.as_mut_ptr(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_f32(&self) -> &[f32] {
        unsafe { slice::from_raw_parts(self.start().cast(), self.len) }
    }

    pub fn as_u32(&self) -> &[u32] {
        unsafe { slice::from_raw_parts(self.start().cast(), self.len) }
    }

    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        unsafe { slice::from_raw_parts_mut(self.start_mut().cast(), self.len) }
    }

    pub fn as_u8_mut(&mut self) -> &mut [u8] {
        unsafe { slice::from_raw_parts_mut(self.start_mut(), 4 * self.len) }
    }

    pub fn as_u16_mut(&mut self) -> &mut [u16] {
        unsafe { slice::from_raw_parts_mut(self.start_mut().cast(), 2 * self.len) }
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
    fn large_buffers_are_zero_and_copied_whole() {
        let len = super::MAPPED / 4 + 3;
        let mut large = super::Buffer::zeroed(len);
        assert!(large.as_f32().iter().all(|&x| x == 0.0));
        large.as_f32_mut()[len - 1] = 7.0;
        let copy = large.clone();
        assert_eq!((copy.len(), copy.as_f32()[len - 1]), (len, 7.0));
        assert_eq!(copy.as_f32().as_ptr() as usize % 64, 0);
    }

    #[test]
    fn a_buffer_is_handed_out_again_whole() {
        // A length that no other test uses, because the spare one is shared between tests.
        let len = super::SPARED + 1234;
        let mut first = super::Buffer::zeroed(len);
        first.as_f32_mut()[len - 1] = 7.0;
        drop(first);
        // Another test may have given one back meanwhile.
        let second = super::Buffer::unspecified(len);
        assert_eq!(second.len(), len);
        assert!([0.0, 7.0].contains(&second.as_f32()[len - 1]));
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
