//! The gradient of a weight: a sum over places, of the pixel that a tap reads times the gradient of
//! the place's output.

use super::band::{Layout, Places};
use crate::isa::amx::{BLOCK, Block, DEPTH, Step, TILE, Tiles};
use crate::isa::{Isa, Kernel, Simd};
use crate::pool;
use crate::scratch;

/// Places per band: with 32 channels, and 32 outputs, 32 KiB each.
const BAND_PLACES: usize = 512;

/// Input channels per task: the rows of a block of sums.
const CHANNELS: usize = BLOCK;

/// Tasks that the work is cut into at least, where there are as many bands.
const TASKS: usize = 16;

/// `dw: [outputs, channels, taps]` = Σ over all places of `x` (at each tap) · `dy: [places, outputs]`,
/// factors rounded to bf16, sums in f32.
///
/// A left-hand row is a channel's pixels, one after the other, so that a tap is a shift here too; the
/// right-hand side is `dy` in pairs of places, zero at the places past the edge of the grid.
///
/// Bands are added up in slabs that depend on the shape alone, and the slabs in order: results do not
/// depend on the number of threads.
pub(crate) fn weight_gradient(places: &Places, outputs: usize, dy: &[f32], dw: &mut [f32]) {
    let taps = places.taps.len();
    if dw.is_empty() {
        return;
    }
    let layout = Layout::new(places, CHANNELS);
    let all_rows = layout.tall_rows(places);
    let rows = (BAND_PLACES / layout.width).clamp(1, all_rows.max(1));
    let bands = all_rows.div_ceil(rows);
    let blocks = places.channels.div_ceil(CHANNELS);
    let work = Work {
        places,
        rows,
        bands,
        count: (rows * layout.width).next_multiple_of(DEPTH),
        outputs,
        padded: outputs.next_multiple_of(BLOCK),
        blocks,
        slabs: TASKS.div_ceil(blocks).min(bands).max(1),
        layout,
    };
    // A pair of bf16 numbers takes the room of an f32.
    let mut pairs = scratch::lease(bands * work.count / 2 * work.padded);
    let per_task = taps * work.padded * BLOCK;
    let mut partial = scratch::lease(blocks * work.slabs * per_task);
    if bands == 0 {
        partial.fill(0.0);
    } else {
        pool::parallel_chunks_mut(&mut pairs, work.count / 2 * work.padded, |band, pairs| {
            Isa::Amx.run_bf16(Pairs {
                work: &work,
                dy,
                band,
                pairs,
            });
        });
        let pairs: &[f32] = &pairs;
        pool::parallel_chunks_mut(&mut partial, per_task, |task, sums| {
            Isa::Amx.run_bf16(Task {
                work: &work,
                block: task % blocks,
                slab: task / blocks,
                pairs,
                sums,
            });
        });
    }
    work.add_up(&partial, per_task, dw);
}

struct Work<'a> {
    places: &'a Places<'a>,
    layout: Layout,
    /// Rows of places per band.
    rows: usize,
    bands: usize,
    /// Places per band, zeros included.
    count: usize,
    outputs: usize,
    /// Outputs, zeros included.
    padded: usize,
    /// Blocks of channels.
    blocks: usize,
    slabs: usize,
}

/// `dy` of one band as pairs: per panel of 32 columns `[count / 2][32]`, so that tiles are read in the
/// order in which they lie.
struct Pairs<'a> {
    work: &'a Work<'a>,
    dy: &'a [f32],
    band: usize,
    pairs: &'a mut [f32],
}

impl Kernel for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Work {
            places,
            layout,
            rows,
            count,
            outputs,
            padded,
            ..
        } = self.work;
        // Pixels past the band's rows are the next band's.
        let own = rows * layout.width;
        let mut lines = layout
            .places_at(places, self.band * rows, 0)
            .enumerate()
            .map(|(pixel, place)| {
                let place = place.filter(|_| pixel < own)?;
                Some(&self.dy[place * outputs..][..*outputs])
            });
        for pair in 0..count / 2 {
            let mut line = || lines.next().flatten();
            let (low, high) = (line(), line());
            for column in (0..*padded).step_by(S::LANES) {
                let number = |line: Option<&[f32]>| match line {
                    Some(line) => simd.load_partial(line.get(column..).unwrap_or(&[])),
                    None => simd.zero(),
                };
                let panel = column / BLOCK * BLOCK;
                let at = panel * count / 2 + pair * BLOCK + column - panel;
                let pairs = simd.pairs_bf16(number(low), number(high));
                simd.store(&mut self.pairs[at..], pairs);
            }
        }
    }
}

/// A block of channels, over a slab of bands.
struct Task<'a> {
    work: &'a Work<'a>,
    block: usize,
    slab: usize,
    pairs: &'a [f32],
    /// `[taps][padded / 32][32][32]`
    sums: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Work {
            places,
            layout,
            rows,
            bands,
            count,
            outputs,
            padded,
            slabs,
            ..
        } = self.work;
        let pixels = layout.pixels(*rows);
        let phases = layout.phases();
        // Room for a tile's row past the last shift; an odd number of cache lines, so that a tile's
        // rows do not share the sets of the cache.
        let lines = (pixels + layout.width).div_ceil(DEPTH) + 1;
        let stride = DEPTH * (lines | 1);
        let mut memory = scratch::lease((phases + 1) * stride * CHANNELS / 2);
        let (turned, written) = memory.split_at_mut(phases * stride * CHANNELS / 2);
        let (turned, written) = (
            turned.as_mut_ptr().cast::<u16>(),
            written.as_mut_ptr().cast::<u16>(),
        );
        let steps = Step::sequence(*count, BLOCK);
        let tiles = Tiles::configure();
        let slab = self.slab * bands / slabs..(self.slab + 1) * bands / slabs;
        let first_band = slab.start;
        let channel = self.block * CHANNELS;
        for band in slab {
            let band_rows = (band * rows, *rows);
            for phase in 0..phases {
                // SAFETY: `written` has room for `stride >= pixels` pixels of 32 channels, `turned` for
                // as many per phase.
                unsafe {
                    let real = layout.written(*rows);
                    layout.write_phase(simd, places, phase, band_rows, channel, written);
                    written
                        .add(real * CHANNELS)
                        .write_bytes(0, (stride - real) * CHANNELS);
                    for pixel in (0..stride).step_by(DEPTH) {
                        let to = turned.add(phase * stride * CHANNELS + pixel);
                        simd.transpose_bf16(
                            (written.add(pixel * CHANNELS), CHANNELS),
                            (to, stride),
                        );
                    }
                }
            }
            let right = self.pairs[band * count / 2 * padded..]
                .as_ptr()
                .cast::<u32>();
            let panels = padded / BLOCK;
            for panel in 0..panels {
                for (tap, (phase, shift)) in layout.taps().enumerate() {
                    let sums =
                        &mut self.sums[(tap * panels + panel) * BLOCK * BLOCK..][..BLOCK * BLOCK];
                    let columns = (outputs - panel * BLOCK).min(BLOCK).div_ceil(TILE);
                    // SAFETY: 32 rows of `stride` pixels, of which the steps read `count` from the
                    // shift on; `count / 2` pairs of 32 columns.
                    unsafe {
                        let block = Block {
                            left: turned.add(phase * stride * CHANNELS + shift),
                            left_stride: 2 * stride,
                            right: right.add(panel * BLOCK * count / 2),
                            right_stride: 4 * BLOCK,
                            steps: &steps,
                            sums: sums.as_mut_ptr(),
                            accumulate: band > first_band,
                        };
                        block.run(&tiles, 2, columns);
                    }
                }
            }
        }
    }
}

impl Work<'_> {
    /// `dw[o, i, tap]` = the slabs' sums.
    fn add_up(&self, partial: &[f32], per_task: usize, dw: &mut [f32]) {
        let (taps, channels) = (self.places.taps.len(), self.places.channels);
        let panels = self.padded / BLOCK;
        let row = channels * taps;
        pool::parallel_chunks_mut(dw, TILE * row, |group, dw| {
            let (panel, column) = (group * TILE / BLOCK, group * TILE % BLOCK);
            let outputs = dw.len() / row;
            for i in 0..channels {
                let (block, line) = (i / CHANNELS, i % CHANNELS);
                for tap in 0..taps {
                    let start = ((tap * panels + panel) * BLOCK + line) * BLOCK + column;
                    let mut sums = [0.0; TILE];
                    for slab in 0..self.slabs {
                        let from =
                            &partial[(slab * self.blocks + block) * per_task + start..][..TILE];
                        sums.iter_mut().zip(from).for_each(|(sum, x)| *sum += x);
                    }
                    for (o, sum) in sums[..outputs].iter().enumerate() {
                        dw[o * row + i * taps + tap] = *sum;
                    }
                }
            }
        });
    }
}
