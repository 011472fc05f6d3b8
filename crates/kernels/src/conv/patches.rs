//! The patches under a convolution's kernel, as a matrix that is never stored whole.

use crate::gemm::operands::{Window, copy};
use crate::isa::Simd;

/// Kernel taps that lie side by side in a picture's row: the pixels from `(row, column)` on, relative
/// to the patch's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub row: isize,
    pub column: isize,
}

/// A matrix of one row per place of a grid over each picture, `[batch · grid_height · grid_width,
/// runs · taps · channels]`: the pixels under the kernel at that place, zero outside the picture.
///
/// The pixels of one kernel row are neighbours in memory (channels last), so that a row of this
/// matrix is a few contiguous runs whatever the number of channels.
pub(crate) struct Patches<'a> {
    /// `[batch, height, width, channels]`.
    pub x: &'a [f32],
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub grid_height: usize,
    pub grid_width: usize,
    /// Pixels between neighbouring places.
    pub stride: usize,
    pub runs: Vec<Run>,
    /// Pixels per run.
    pub taps: usize,
}

impl Patches<'_> {
    /// Copies `window` of the matrix to `to`, its rows `stride` numbers apart.
    ///
    /// # Safety
    /// `to` is valid for writing the window's columns at each of its rows.
    #[inline(always)]
    pub unsafe fn copy<S: Simd>(&self, simd: S, window: Window, to: *mut f32, stride: usize) {
        let run_len = self.taps * self.channels;
        if run_len == 0 {
            return;
        }
        let row_len = self.width * self.channels;
        let end = window.column + window.columns;
        debug_assert!(end <= self.runs.len() * run_len && stride >= window.columns);
        let (first, last) = (window.column / run_len, end.div_ceil(run_len));
        let mut grid_x = window.row % self.grid_width;
        let mut grid_y = window.row / self.grid_width % self.grid_height;
        let mut batch = window.row / self.grid_width / self.grid_height;
        for i in 0..window.rows {
            for (index, run) in self.runs[first..last].iter().enumerate() {
                let run_start = (first + index) * run_len;
                // The part of the run that lies in the window: `from..until` numbers of the run.
                let from = window.column.saturating_sub(run_start);
                let until = run_len.min(end - run_start);
                let len = until - from;
                let target = to.wrapping_add(i * stride + run_start + from - window.column);
                let y = (grid_y * self.stride).wrapping_add_signed(run.row);
                let x = (grid_x * self.stride) as isize + run.column;
                // Where the run starts in the picture's row, in numbers; may be negative.
                let start = x * self.channels as isize + from as isize;
                // SAFETY: the target lies in the window's row; the source was clipped to a row of
                // the picture, whose place in `x` is in bounds.
                unsafe {
                    if y >= self.height {
                        zero(simd, target, len);
                        continue;
                    }
                    let line = (batch * self.height + y) * row_len;
                    debug_assert!(line + row_len <= self.x.len());
                    let line = self.x.as_ptr().add(line);
                    if start >= 0 && start as usize + len <= row_len {
                        copy(simd, line.offset(start), target, len);
                    } else {
                        let left = start.min(0).unsigned_abs().min(len);
                        let inside = (start + len as isize).clamp(0, row_len as isize) as usize;
                        let begin = start.max(0) as usize;
                        let inside = inside.saturating_sub(begin);
                        zero(simd, target, left);
                        if inside > 0 {
                            copy(simd, line.add(begin), target.add(left), inside);
                        }
                        zero(simd, target.add(left + inside), len - left - inside);
                    }
                }
            }
            grid_x += 1;
            if grid_x == self.grid_width {
                (grid_x, grid_y) = (0, grid_y + 1);
                if grid_y == self.grid_height {
                    (grid_y, batch) = (0, batch + 1);
                }
            }
        }
    }
}

/// Writes `len` zeros.
///
/// # Safety
/// `to` is valid for writing them.
#[inline(always)]
unsafe fn zero<S: Simd>(simd: S, to: *mut f32, len: usize) {
    let mut i = 0;
    // SAFETY: `i + LANES <= len`, then `len - i < LANES` numbers are left.
    unsafe {
        while i + S::LANES <= len {
            simd.store_raw(to.add(i), simd.zero());
            i += S::LANES;
        }
        simd.store_partial_raw(to.add(i), simd.zero(), len - i);
    }
}
