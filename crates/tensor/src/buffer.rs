//! Recycled memory. A fresh large allocation costs a page fault for every 4 KiB it touches, and a
//! UNet step makes hundreds of them; handing buffers of equal length round avoids that and keeps
//! the memory of a long run flat after its first step.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex};

/// Buffers shorter than this (in f32) are left to the allocator, which is quick with them.
const SMALL: usize = 4096;

/// This many bytes may always wait for reuse. A UNet step at 512×512 recycles about 200 MB of
/// activations. More wait only as long as all buffers together stay below what was once in use at a
/// time, as in training, where each step needs the same again.
const IDLE_BYTES: usize = 768 << 20;

#[derive(Default)]
struct Pool {
    by_len: HashMap<usize, Idle>,
    /// Counts what is handed out.
    clock: u64,
    idle: usize,
    used: usize,
    most_used: usize,
    /// As `most_used`, since somebody last wanted to know.
    peak: usize,
}

/// Buffers of one length that wait for reuse.
#[derive(Default)]
struct Idle {
    buffers: Vec<Vec<f32>>,
    /// When one was last wanted, by the pool's clock.
    wanted: u64,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Default::default);

impl Pool {
    fn take(&mut self, bytes: usize) {
        self.used += bytes;
        self.most_used = self.most_used.max(self.used);
        self.peak = self.peak.max(self.used);
    }

    /// A buffer of `len` numbers that waits, if there is one.
    fn reuse(&mut self, len: usize) -> Option<Vec<f32>> {
        self.clock += 1;
        let idle = self.by_len.entry(len).or_default();
        idle.wanted = self.clock;
        let data = idle.buffers.pop()?;
        self.idle -= len * size_of::<f32>();
        Some(data)
    }

    /// Gives back what nobody has wanted for the longest time until `bytes` more may wait. Such buffers wait for
    /// something that may be over: a UNet's, when the autoencoder's turn has come.
    fn make_room_for(&mut self, bytes: usize) {
        while !self.has_room_for(bytes) {
            let waiting = self.by_len.iter_mut();
            let oldest = waiting
                .filter(|(_, idle)| !idle.buffers.is_empty())
                .min_by_key(|(_, idle)| idle.wanted);
            let Some((len, idle)) = oldest else {
                return;
            };
            let len = *len;
            idle.buffers.pop();
            self.idle -= len * size_of::<f32>();
            if idle.buffers.is_empty() {
                self.by_len.remove(&len);
            }
        }
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        let idle = self.idle + bytes;
        idle <= IDLE_BYTES || idle + self.used <= self.most_used
    }
}

/// An f32 array that returns to the pool when it is dropped.
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// `len` numbers whose values are unspecified (zeros or left-overs): the caller overwrites all.
    pub fn for_output(len: usize) -> Self {
        if len >= SMALL
            && let Ok(mut pool) = POOL.lock()
        {
            let bytes = len * size_of::<f32>();
            pool.take(bytes);
            if let Some(data) = pool.reuse(len) {
                return Buffer(data);
            }
        }
        Buffer(vec![0.0; len])
    }

    pub fn into_vec(mut self) -> Vec<f32> {
        let data = std::mem::take(&mut self.0);
        if data.len() >= SMALL
            && let Ok(mut pool) = POOL.lock()
        {
            pool.used -= data.len() * size_of::<f32>();
        }
        data
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(data: Vec<f32>) -> Self {
        if data.len() >= SMALL
            && let Ok(mut pool) = POOL.lock()
        {
            pool.take(data.len() * size_of::<f32>());
        }
        Buffer(data)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let len = self.0.len();
        let bytes = len * size_of::<f32>();
        if len < SMALL {
            return;
        }
        if let Ok(mut pool) = POOL.lock() {
            pool.used -= bytes;
            if self.0.capacity() != len {
                return;
            }
            pool.make_room_for(bytes);
            if pool.has_room_for(bytes) {
                pool.idle += bytes;
                let data = std::mem::take(&mut self.0);
                pool.by_len.entry(len).or_default().buffers.push(data);
            }
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
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
        pool.by_len.clear();
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
}
