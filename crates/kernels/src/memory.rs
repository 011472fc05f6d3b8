//! Numbers that start on a cache line, so that no vector of them lies across two, in huge pages where they are many.

use memmap2::{MmapMut, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::slice;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Memory of at least this many bytes, the size of a huge page, is mapped by itself.
const MAPPED: usize = 2 << 20;

/// Numbers of 32 bits (or twice as many of 16) that start on a cache line.
#[derive(Debug)]
pub struct Memory {
    pages: Pages,
    len: usize,
}

#[derive(Debug)]
enum Pages {
    Lines(Vec<Line>),
    /// Of a file; or zeros that the system provides when they are first touched, so that whoever fills the memory shares
    /// that work out with it; in huge pages where it has them, which are fewer to provide and to look up.
    Mapped(MmapMut),
}

// SAFETY of the casts below: a `Line` is 64 bytes without padding, a page is a multiple of that, every bit pattern is
// a valid number of each type, and `len` numbers of 32 bits fit into the memory.
impl Memory {
    /// No numbers.
    pub const NONE: Memory = Memory {
        pages: Pages::Lines(Vec::new()),
        len: 0,
    };

    /// `len` zeros of 32 bits.
    pub fn zeroed(len: usize) -> Self {
        if len * 4 >= MAPPED
            && let Ok(pages) = MmapMut::map_anon(len * 4)
        {
            // Advice that is not taken does no harm.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            let pages = Pages::Mapped(pages);
            return Memory { pages, len };
        }
        let pages = Pages::Lines(vec![Line([0; 16]); len.div_ceil(16)]);
        Memory { pages, len }
    }

    /// The `len` numbers of 32 bits that lie in `file` from byte `offset` on, a multiple of 64. They are the system's own
    /// pages of the file, neither read nor cleared again; what is written here does not reach the file.
    ///
    /// # Errors
    /// The file ends before, the offset is no such multiple, or the system does not map it.
    pub fn mapped(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Ok(Memory::NONE);
        }
        let bytes = len.checked_mul(4).ok_or(io::ErrorKind::InvalidInput)?;
        if !offset.is_multiple_of(64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if offset.saturating_add(bytes as u64) > file.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the range is inside the file, and nobody else writes to this map. As with every map of a file, another
        // process that shortens the file meanwhile ends this one with a signal.
        let pages = unsafe { MmapOptions::new().offset(offset).len(bytes).map_copy(file) }?;
        // Some systems have huge pages for files too.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        let pages = Pages::Mapped(pages);
        Ok(Memory { pages, len })
    }

    fn start(&self) -> *const u8 {
        match &self.pages {
            Pages::Lines(lines) => lines.as_ptr().cast(),
            Pages::Mapped(pages) => pages.as_ptr(),
        }
    }

    fn start_mut(&mut self) -> *mut u8 {
        match &mut self.pages {
            Pages::Lines(lines) => lines.as_mut_ptr().cast(),
            Pages::Mapped(pages) => pages.as_mut_ptr(),
        }
    }

    pub(crate) fn as_u32(&self) -> &[u32] {
        unsafe { slice::from_raw_parts(self.start().cast(), self.len) }
    }

    pub(crate) fn as_u8_mut(&mut self) -> &mut [u8] {
        unsafe { slice::from_raw_parts_mut(self.start_mut(), 4 * self.len) }
    }

    pub(crate) fn as_u16_mut(&mut self) -> &mut [u16] {
        unsafe { slice::from_raw_parts_mut(self.start_mut().cast(), 2 * self.len) }
    }
}

impl Deref for Memory {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        unsafe { slice::from_raw_parts(self.start().cast(), self.len) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [f32] {
        unsafe { slice::from_raw_parts_mut(self.start_mut().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_are_zero_and_begin_on_a_cache_line() {
        for len in [0, 1, 17, 4096, MAPPED / 4, MAPPED / 4 + 3] {
            let mut memory = Memory::zeroed(len);
            assert_eq!(memory.len(), len);
            assert_eq!(memory.as_ptr() as usize % 64, 0, "{len}");
            assert!(memory.iter().all(|&x| x == 0.0));
            memory.fill(7.0);
            assert!(memory.iter().all(|&x| x == 7.0));
        }
    }

    #[test]
    fn what_lies_in_a_file_is_read_and_never_written() {
        let path = std::env::temp_dir().join(format!("velatura-memory-{}", std::process::id()));
        let numbers: Vec<u8> = (0..8192_u32).flat_map(u32::to_ne_bytes).collect();
        std::fs::write(&path, &numbers).unwrap();
        let file = File::open(&path).unwrap();
        let mut memory = Memory::mapped(&file, 64, 8176).unwrap();
        assert_eq!(memory.as_ptr() as usize % 64, 0);
        assert_eq!((memory.as_u32()[0], memory.as_u32()[8175]), (16, 8191));
        memory.fill(7.0);
        assert!(Memory::mapped(&file, 64, 8177).is_err());
        assert!(Memory::mapped(&file, 63, 1).is_err());
        assert!(Memory::mapped(&file, 0, usize::MAX).is_err());
        assert_eq!(Memory::mapped(&file, 0, 0).unwrap().len(), 0);
        assert!(std::fs::read(&path).unwrap() == numbers);
        std::fs::remove_file(&path).unwrap();
    }
}
