//! Recycled memory. A fresh large allocation costs a page fault for every 4 KiB it touches, and a
//! UNet step makes hundreds of them; handing buffers of about equal length round avoids that and keeps
//! the memory of a long run flat after its first step.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex};
use velatura_kernels::memory::Memory;

/// Buffers shorter than this (in f32) are left to the allocator, which is quick with them.
const SMALL: usize = 4096;

/// Buffers in use and waiting buffers together may always take this many bytes: a UNet step at 512×512
/// hands round about 200 MB of activations. Beyond it, waiting buffers are kept only as long as all
/// together stay below what was once in use at a time and a [`SLACK`]th more, as in training, where each step
/// needs the same again.
const ALWAYS: usize = 768 << 20;

/// Without slack the buffers for gradients, which have no use before the peak, would go to make room for it, and each
/// step would touch fresh pages for them.
const SLACK: usize = 4;

/// A waiting buffer may serve for one that is shorter by up to this share of that one's length. Training has so many
/// lengths that there is seldom one that is equal.
const LONGER: usize = 4;

#[derive(Default)]
struct Pool {
    /// The one that has waited longest comes first.
    waiting: VecDeque<Memory>,
    by_len: HashMap<usize, Count>,
    idle: usize,
    used: usize,
    most_used: usize,
    /// As `most_used`, since somebody last wanted to know.
    peak: usize,
}

/// How many buffers of one length there are. More than were ever in use together are not kept.
#[derive(Clone, Copy, Default)]
struct Count {
    used: usize,
    most_used: usize,
    waiting: usize,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Default::default);

impl Pool {
    /// Counts a buffer of `len` numbers as used, and lets those go that have waited longest where it is one too many.
    fn take(&mut self, len: usize) {
        let count = self.by_len.entry(len).or_default();
        count.used += 1;
        count.most_used = count.most_used.max(count.used);
        self.used += len * size_of::<f32>();
        self.most_used = self.most_used.max(self.used);
        self.peak = self.peak.max(self.used);
        self.shrink();
    }

    /// The opposite: one of `len` numbers is used no more. Whether it shall wait to be used again.
    fn leave(&mut self, len: usize) -> bool {
        self.used -= len * size_of::<f32>();
        let count = self.by_len.entry(len).or_default();
        count.used -= 1;
        count.used + count.waiting < count.most_used
    }

    fn shrink(&mut self) {
        let most = (self.most_used + self.most_used / SLACK).max(ALWAYS);
        while self.idle + self.used > most
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.count_out(oldest.len());
        }
    }

    fn count_out(&mut self, len: usize) {
        self.idle -= len * size_of::<f32>();
        self.by_len.entry(len).or_default().waiting -= 1;
    }

    /// The shortest waiting buffer that has this length and not much more; of equal ones the last that came back: it may
    /// still be in the cache.
    fn find(&mut self, len: usize) -> Option<Memory> {
        let lengths = self.waiting.iter().map(|memory| memory.len()).enumerate();
        let (index, found) = lengths
            .filter(|&(_, waiting)| (len..=len + len / LONGER).contains(&waiting))
            .min_by_key(|&(index, waiting)| (waiting, Reverse(index)))?;
        self.count_out(found);
        self.waiting.remove(index)
    }
}

/// An f32 array whose memory waits to be used again when it is dropped.
pub(crate) struct Buffer(Numbers);

enum Numbers {
    /// Ours: on cache lines, and used again. The first `len` numbers of it.
    Own { memory: Memory, len: usize },
    /// From outside, and freed.
    Given(Vec<f32>),
}

impl Buffer {
    /// `len` numbers whose values are unspecified (zeros or left-overs): the caller overwrites all.
    pub fn for_output(len: usize) -> Self {
        let mut found = None;
        if len >= SMALL
            && let Ok(mut pool) = POOL.lock()
        {
            found = pool.find(len);
            pool.take(found.as_ref().map_or(len, |memory| memory.len()));
        }
        let memory = found.unwrap_or_else(|| Memory::zeroed(len));
        Buffer(Numbers::Own { memory, len })
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(data: Vec<f32>) -> Self {
        if data.len() >= SMALL
            && let Ok(mut pool) = POOL.lock()
        {
            pool.take(data.len());
        }
        Buffer(Numbers::Given(data))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let len = match &self.0 {
            Numbers::Own { memory, .. } => memory.len(),
            Numbers::Given(data) => data.len(),
        };
        if len < SMALL {
            return;
        }
        let Ok(mut pool) = POOL.lock() else { return };
        let wanted = pool.leave(len);
        if let Numbers::Own { memory, .. } = &mut self.0
            && wanted
        {
            pool.idle += len * size_of::<f32>();
            pool.by_len.entry(len).or_default().waiting += 1;
            pool.waiting
                .push_back(std::mem::replace(memory, Memory::NONE));
            pool.shrink();
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &self.0 {
            Numbers::Own { memory, len } => &memory[..*len],
            Numbers::Given(data) => data,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Numbers::Own { memory, len } => &mut memory[..*len],
            Numbers::Given(data) => data,
        }
    }
}

/// Bytes in tensors now.
pub(crate) fn in_use() -> usize {
    POOL.lock().map_or(0, |pool| pool.used)
}

/// Runs `f` and says how many bytes were in tensors at most meanwhile.
pub(crate) fn peak_during<T>(f: impl FnOnce() -> T) -> (T, usize) {
    if let Ok(mut pool) = POOL.lock() {
        pool.peak = pool.used;
    }
    let result = f();
    (result, POOL.lock().map_or(0, |pool| pool.peak))
}

/// Gives the memory that waits for reuse back to the system, for example between two models.
pub(crate) fn release_idle() {
    if let Ok(mut pool) = POOL.lock() {
        pool.waiting.clear();
        pool.by_len.retain(|_, count| {
            *count = Count {
                most_used: count.used,
                waiting: 0,
                ..*count
            };
            count.used > 0
        });
        pool.idle = 0;
        pool.most_used = pool.used;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_handed_out_again() {
        // A length that no other test uses, because the pool is shared between tests.
        let len = SMALL + 12_347;
        let mut first = Buffer::for_output(len);
        first[0] = 42.0;
        let address = first.as_ptr();
        drop(first);
        let second = Buffer::for_output(len);
        assert_eq!(second.as_ptr(), address);
    }

    #[test]
    fn one_that_is_a_little_longer_serves_too_and_keeps_its_length() {
        let len = 16 * SMALL;
        let long = Buffer::for_output(len + len / LONGER);
        let address = long.as_ptr();
        drop(long);
        let mut short = Buffer::for_output(len);
        assert_eq!((short.as_ptr(), short.len()), (address, len));
        short.fill(1.0);
        drop(short);
        // What is much longer is left for those that need it.
        let much_shorter = Buffer::for_output(len / 2);
        assert_ne!(much_shorter.as_ptr(), address);
        let again = Buffer::for_output(len + len / LONGER);
        assert_eq!((again.as_ptr(), again.len()), (address, len + len / LONGER));
    }
}
