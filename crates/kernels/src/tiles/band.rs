//! A band of pictures as bf16 rows, laid out so that every tap of a kernel is a shift.

use crate::conv::patches::{Patches, Run};
use crate::isa::Simd;
use crate::isa::amx::{BLOCK, DEPTH};

/// A tap of the kernel: the pixel that it reads, relative to the place, and the row of the
/// right-hand matrix where its channels start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tap {
    pub row: isize,
    pub column: isize,
    pub right: usize,
}

/// A grid of places over each of a batch of pictures `x: [batch, height, width, channels]`; place
/// `(i, j)` reads the pixels `(i, j) · stride` + tap, zero outside the picture.
pub(crate) struct Places<'a> {
    pub x: &'a [f32],
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub grid_height: usize,
    pub grid_width: usize,
    pub stride: usize,
    pub taps: Vec<Tap>,
}

impl<'a> Places<'a> {
    /// The patches of `batch` pictures, each tap in turn.
    pub fn patches(patches: &Patches<'a>, batch: usize) -> Self {
        let run = |run: &Run| {
            (0..patches.taps).map({
                let run = *run;
                move |column| Tap {
                    row: run.row,
                    column: run.column + column as isize,
                    right: 0,
                }
            })
        };
        Places {
            x: patches.x,
            batch,
            height: patches.height,
            width: patches.width,
            channels: patches.channels,
            grid_height: patches.grid_height,
            grid_width: patches.grid_width,
            stride: patches.stride,
            taps: patches.runs.iter().flat_map(run).collect(),
        }
    }

    /// The rows of `x: [m, k]`: places of their own.
    pub fn rows(x: &'a [f32], m: usize, k: usize) -> Self {
        let tap = Tap {
            row: 0,
            column: 0,
            right: 0,
        };
        Places {
            x,
            batch: 1,
            height: m,
            width: 1,
            channels: k,
            grid_height: m,
            grid_width: 1,
            stride: 1,
            taps: vec![tap],
        }
    }
}

/// Where things stand in the scratch memory of a band.
///
/// The pictures of a batch stand one below the other, as one tall picture, with as many rows between
/// their grids as a kernel's taps reach on; a band is any range of the tall picture's rows. So small
/// pictures share a band, and weights are read once for all of them.
///
/// With a stride, pixels that are a stride apart must be neighbours: the band is split into phases,
/// one per rest of row and column that a tap asks for, each a picture of its own.
pub(crate) struct Layout {
    /// Of the first pixel, relative to place `(0, 0)` times the stride.
    top: isize,
    left: isize,
    stride: usize,
    /// Rest of row and column.
    phases: Vec<(usize, usize)>,
    /// Channels kept, zeros included.
    pub channels: usize,
    /// Rows that a band has beyond its rows of places, and that stand between two pictures' grids: the
    /// largest shift.
    extra_rows: usize,
    /// Rows from one picture's grid to the next one's.
    pitch: usize,
    /// Pixels of a line.
    pub width: usize,
    /// Per tap of the kernel its phase and its shift in pixels.
    taps: Vec<(usize, usize)>,
}

impl Layout {
    /// For `places`, with `channels` (of all, or a piece of them) rounded up to whole steps.
    pub fn new(places: &Places, channels: usize) -> Self {
        let top = places.taps.iter().map(|tap| tap.row).min().unwrap_or(0);
        let left = places.taps.iter().map(|tap| tap.column).min().unwrap_or(0);
        let stride = places.stride;
        let split = |tap: &Tap| {
            let (row, column) = (tap.row.abs_diff(top), tap.column.abs_diff(left));
            let phase = (row % stride, column % stride);
            (phase, (row / stride, column / stride))
        };
        let mut phases = Vec::new();
        let (mut extra_rows, mut extra_columns) = (0, 0);
        for (phase, (row, column)) in places.taps.iter().map(split) {
            if !phases.contains(&phase) {
                phases.push(phase);
            }
            extra_rows = extra_rows.max(row);
            extra_columns = extra_columns.max(column);
        }
        let width = places.grid_width + extra_columns;
        let place = |tap: &Tap| {
            let (phase, (row, column)) = split(tap);
            let index = phases.iter().position(|p| *p == phase).unwrap_or(0);
            (index, row * width + column)
        };
        Layout {
            top,
            left,
            stride,
            taps: places.taps.iter().map(place).collect(),
            phases,
            channels: channels.next_multiple_of(DEPTH),
            extra_rows,
            pitch: places.grid_height + extra_rows,
            width,
        }
    }

    /// Rows of places of the tall picture.
    pub fn tall_rows(&self, places: &Places) -> usize {
        (places.batch * self.pitch).saturating_sub(self.extra_rows)
    }

    /// The places of the grids, counted through all pictures, at the pixels from `pixel` on of the band that
    /// starts at row `row`; `None` between the grids.
    #[inline(always)]
    pub fn places_at(
        &self,
        places: &Places,
        row: usize,
        pixel: usize,
    ) -> impl Iterator<Item = Option<usize>> {
        let (batch, height) = (places.batch, places.grid_height);
        let (grid_width, width, pitch) = (places.grid_width, self.width, self.pitch);
        let (row, mut column) = (row + pixel / width, pixel % width);
        let (mut picture, mut i) = (row / pitch, row % pitch);
        std::iter::repeat_with(move || {
            let inside = picture < batch && i < height && column < grid_width;
            let place = inside.then(|| (picture * height + i) * grid_width + column);
            column += 1;
            if column == width {
                (column, i) = (0, i + 1);
                if i == pitch {
                    (i, picture) = (0, picture + 1);
                }
            }
            place
        })
    }

    /// Pixels of one phase's picture of a band of `rows` rows of places, with room for tiles that
    /// start at the last place.
    pub fn pixels(&self, rows: usize) -> usize {
        self.written(rows) + BLOCK
    }

    /// Those of them that are written.
    pub fn written(&self, rows: usize) -> usize {
        (rows + self.extra_rows) * self.width
    }

    /// Pictures that a band is split into.
    pub fn phases(&self) -> usize {
        self.phases.len()
    }

    /// Pixels of a band, all phases.
    pub fn all_pixels(&self, rows: usize) -> usize {
        self.phases() * self.pixels(rows)
    }

    /// Where each tap's pixel of place 0 of a band stands.
    pub fn tap_pixels(&self, rows: usize) -> impl Iterator<Item = usize> {
        let pixels = self.pixels(rows);
        self.taps()
            .map(move |(phase, shift)| phase * pixels + shift)
    }

    /// Consecutive places of a band that hold all of its places; the ones past the grid's width are
    /// dropped.
    pub fn band_places(&self, places: &Places, rows: usize) -> usize {
        (rows - 1) * self.width + places.grid_width
    }

    /// Each tap's phase, and its shift in pixels.
    pub fn taps(&self) -> impl Iterator<Item = (usize, usize)> {
        self.taps.iter().copied()
    }

    /// Writes all channels of the band of `rows` rows of places from row `row` on.
    /// The room at the end of each phase is left as it is.
    ///
    /// # Safety
    /// `to` is valid for writing `all_pixels(rows) · channels` numbers.
    #[inline(always)]
    pub unsafe fn write<S: Simd>(
        &self,
        simd: S,
        places: &Places,
        (row, rows): (usize, usize),
        to: *mut u16,
    ) {
        for phase in 0..self.phases() {
            // SAFETY: each phase has its pixels.
            unsafe {
                let to = to.add(phase * self.pixels(rows) * self.channels);
                self.write_phase(simd, places, phase, (row, rows), 0, to);
            }
        }
    }

    /// Writes one phase of a band; channels from `first` on, as many as the layout was made for or are
    /// left.
    ///
    /// # Safety
    /// `to` is valid for writing `pixels(rows) · channels` numbers.
    #[inline(always)]
    pub unsafe fn write_phase<S: Simd>(
        &self,
        simd: S,
        places: &Places,
        phase: usize,
        (row, rows): (usize, usize),
        first: usize,
        to: *mut u16,
    ) {
        let kept = self.channels.min(places.channels - first);
        let line_len = self.width * self.channels;
        // Without zeros between pixels a line is one run.
        let whole = self.stride == 1 && kept == places.channels && kept == self.channels;
        let (phase_row, phase_column) = self.phases[phase];
        let left = self.left + phase_column as isize;
        for i in 0..rows + self.extra_rows {
            let (picture, y) = ((row + i) / self.pitch, (row + i) % self.pitch);
            let y = (y * self.stride + phase_row) as isize + self.top;
            // SAFETY (of this block): the line lies in the phase's pixels, and what is written to it
            // adds up to its length.
            unsafe {
                let line = to.add(i * line_len);
                if picture >= places.batch || y < 0 || y as usize >= places.height {
                    line.write_bytes(0, line_len);
                    continue;
                }
                let y = picture * places.height + y as usize;
                let start = |x: usize| (y * places.width + x) * places.channels + first;
                if whole {
                    let width = places.width as isize;
                    let from = left.clamp(0, width);
                    let until = (left + self.width as isize).clamp(from, width);
                    let before = ((from - left) as usize * kept).min(line_len);
                    let len = (until - from) as usize * kept;
                    line.write_bytes(0, before);
                    if len > 0 {
                        round(
                            simd,
                            &places.x[start(from as usize)..][..len],
                            line.add(before),
                        );
                    }
                    line.add(before + len)
                        .write_bytes(0, line_len - before - len);
                    continue;
                }
                for j in 0..self.width {
                    let to = line.add(j * self.channels);
                    let x = (j * self.stride) as isize + left;
                    if x < 0 || x as usize >= places.width {
                        to.write_bytes(0, self.channels);
                    } else {
                        round(simd, &places.x[start(x as usize)..][..kept], to);
                        if kept < self.channels {
                            to.add(kept).write_bytes(0, self.channels - kept);
                        }
                    }
                }
            }
        }
    }
}

/// Writes `from` as bf16.
///
/// # Safety
/// `to` is valid for writing as many numbers.
#[inline(always)]
unsafe fn round<S: Simd>(simd: S, from: &[f32], to: *mut u16) {
    let whole = from.len() / S::LANES * S::LANES;
    // SAFETY: by whole vectors, then what is left by way of the stack.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            simd.store_bf16_raw(to.add(i), simd.load_raw(from.as_ptr().add(i)));
        }
        if whole < from.len() {
            let mut rest = [0; 16];
            simd.store_bf16_raw(rest.as_mut_ptr(), simd.load_partial(&from[whole..]));
            std::ptr::copy_nonoverlapping(rest.as_ptr(), to.add(whole), from.len() - whole);
        }
    }
}
