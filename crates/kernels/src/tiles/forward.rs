//! Products with packed bf16 weights: linear layers, convolutions and their input gradients.

use super::band::{Layout, Places};
use crate::gemm::driver::{OutRows, Product};
use crate::gemm::operands::{Left, Right};
use crate::isa::amx::{BLOCK, Block, DEPTH, Step, TILE, Tiles};
use crate::isa::{Isa, Kernel, Simd};
use crate::pool;
use crate::scratch;
use crate::shared::SharedMut;

/// bf16 numbers of a band: 512 KiB, a quarter of the second-level cache.
const BAND: usize = 1 << 18;

/// bf16 numbers of the weights that are multiplied with a band before the next are read: 1 MiB, half
/// of the second-level cache.
const GROUP: usize = 1 << 19;

/// Products below this many multiply-adds run on the calling thread: some twenty microseconds.
const PARALLEL_WORK: usize = 1 << 23;

/// `product` on the matrix unit, if it is one for it: bf16 weights, and every tap's channels start
/// on a pair.
pub(crate) fn run(product: &Product, out: &mut [f32]) -> bool {
    let Right::PackedBf16(right) = product.right else {
        return false;
    };
    let Some(places) = places(product) else {
        return false;
    };
    let task = Forward {
        layout: Layout::new(&places, places.channels),
        places,
        product,
        right,
        out: SharedMut::new(out),
    };
    task.run();
    true
}

/// The left-hand side as places and taps, with the segments' word on which rows of the right-hand
/// side they meet. `None`: a tap starts within a pair of rows, or there is nothing to add up.
fn places<'a>(product: &Product<'a>) -> Option<Places<'a>> {
    let mut places = match product.left {
        Left::Rows(x) => Places::rows(x, product.m, product.left_k),
        Left::Patches(patches) => {
            let grid = patches.grid_height * patches.grid_width;
            Places::patches(patches, product.m / grid.max(1))
        }
        Left::Columns(_) => return None,
    };
    let channels = places.channels;
    for (index, tap) in places.taps.iter_mut().enumerate() {
        let left = index * channels;
        let segment = product
            .segments
            .iter()
            .find(|s| (s.left..s.left + s.len).contains(&left))?;
        tap.right = segment.right + left - segment.left;
    }
    let aligned = places.taps.iter().all(|tap| tap.right.is_multiple_of(2));
    (aligned && channels > 0 && !places.taps.is_empty()).then_some(places)
}

struct Forward<'a> {
    product: &'a Product<'a>,
    places: Places<'a>,
    layout: Layout,
    right: &'a [u32],
    out: SharedMut<f32>,
}

impl Forward<'_> {
    fn run(&self) {
        let Product {
            panels,
            segments,
            m,
            ..
        } = *self.product;
        let depth: usize = segments.iter().map(|s| s.len).sum();
        let threads = match m * panels.n * depth >= PARALLEL_WORK {
            true => pool::threads(),
            false => 1,
        };
        let all_rows = self.layout.tall_rows(&self.places);
        let bands = all_rows.div_ceil(self.band_rows(all_rows, threads));
        let rows = all_rows.div_ceil(bands);
        let bands = all_rows.div_ceil(rows);
        // Few bands: the columns are shared out too.
        let shares = match threads {
            1 => 1,
            _ if bands >= 4 * threads => 1,
            _ => (4 * threads).div_ceil(bands).min(panels.count),
        };
        let task = |index: usize| {
            let (share, band) = (index / bands, index % bands);
            Isa::Amx.run_bf16(Task {
                forward: self,
                row: band * rows,
                rows: rows.min(all_rows - band * rows),
                panels: (
                    share * panels.count / shares,
                    (share + 1) * panels.count / shares,
                ),
            });
        };
        pool::parallel_if(threads > 1, bands * shares, task);
    }

    /// Rows of places per task: what fits, and enough tasks for all threads as long as weights are not
    /// read for less than four blocks.
    fn band_rows(&self, all_rows: usize, threads: usize) -> usize {
        let line = self.layout.all_pixels(1) - self.layout.all_pixels(0);
        let fitting = BAND / (line * self.layout.channels).max(1);
        let least = (4 * BLOCK).div_ceil(self.layout.width);
        fitting
            .min(all_rows.div_ceil(4 * threads))
            .max(least)
            .min(all_rows)
    }
}

/// A band of places times a range of panels.
struct Task<'a> {
    forward: &'a Forward<'a>,
    row: usize,
    rows: usize,
    panels: (usize, usize),
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Forward {
            product,
            places,
            layout,
            right,
            ..
        } = self.forward;
        let numbers = layout.all_pixels(self.rows) * layout.channels;
        let mut memory = scratch::lease(BLOCK * BLOCK + numbers.div_ceil(2));
        let (sums, band) = memory.split_at_mut(BLOCK * BLOCK);
        let band = band.as_mut_ptr().cast::<u16>();
        // SAFETY: the scratch has all pixels.
        unsafe { layout.write(simd, places, (self.row, self.rows), band) }

        let tiles = Tiles::configure();
        let count = layout.band_places(places, self.rows);
        let k = product.right_k.div_ceil(2);
        let panel_numbers = |panel| 2 * k * product.panels.get(panel).width;
        let (mut steps, mut steps_width) = (Vec::new(), 0);
        let mut at = [usize::MAX; BLOCK];
        let mut next = self.panels.0;
        while next < self.panels.1 {
            // As many panels as stay in the cache while all places pass.
            let first = next;
            let mut size = panel_numbers(next);
            next += 1;
            while next < self.panels.1 && size + panel_numbers(next) <= GROUP {
                size += panel_numbers(next);
                next += 1;
            }
            for place in (0..count).step_by(BLOCK) {
                let rows = BLOCK.min(count - place);
                let at = &mut at[..rows];
                let pixels = layout.places_at(places, self.row, place);
                for (at, place) in at.iter_mut().zip(pixels) {
                    *at = place.map_or(usize::MAX, |row| match product.rows {
                        OutRows::Contiguous => row * product.panels.n,
                        OutRows::Mapped(map) => map(row) * product.panels.n,
                    });
                }
                for index in first..next {
                    let panel = product.panels.get(index);
                    if panel.width != steps_width {
                        self.steps(panel.width, &mut steps);
                        steps_width = panel.width;
                    }
                    // SAFETY: the band has a block's pixels at each place and shift, whole steps of
                    // channels in each; the packed matrix has whole steps past its last row.
                    unsafe {
                        let block = Block {
                            left: band.add(place * layout.channels),
                            left_stride: 2 * layout.channels,
                            right: right.as_ptr().add(panel.start * k),
                            right_stride: 4 * panel.width,
                            steps: &steps,
                            sums: sums.as_mut_ptr(),
                            accumulate: false,
                        };
                        block.run(&tiles, rows.div_ceil(TILE), panel.vectors);
                    }
                    self.store(simd, sums, at, panel.start, panel.columns);
                }
            }
        }
    }
}

impl Task<'_> {
    /// The steps of all taps' channels, for a panel of `width` columns.
    #[inline(always)]
    fn steps(&self, width: usize, steps: &mut Vec<Step>) {
        let Forward { places, layout, .. } = self.forward;
        steps.clear();
        for (tap, pixel) in places.taps.iter().zip(layout.tap_pixels(self.rows)) {
            for channel in (0..layout.channels).step_by(DEPTH) {
                steps.push(Step {
                    left: 2 * (pixel * layout.channels + channel),
                    right: 4 * ((tap.right + channel) / 2 * width),
                });
            }
        }
    }

    /// Adds bias and residual, and stores the rows that are in the grid.
    #[inline(always)]
    fn store<S: Simd>(&self, simd: S, sums: &[f32], at: &[usize], start: usize, columns: usize) {
        let product = self.forward.product;
        let bias = product.epilogue.bias.map(|bias| &bias[start..]);
        for (i, &at) in at.iter().enumerate().filter(|(_, at)| **at != usize::MAX) {
            for column in (0..columns).step_by(S::LANES) {
                let len = S::LANES.min(columns - column);
                let mut y = simd.load(&sums[i * BLOCK + column..]);
                if let Some(bias) = bias {
                    y = simd.add(y, simd.load_partial(&bias[column..][..len]));
                }
                let at = at + start + column;
                if let Some(residual) = product.epilogue.residual {
                    y = simd.add(y, simd.load_partial(&residual[at..][..len]));
                }
                // SAFETY: rows and columns of `out` that are no other task's.
                unsafe {
                    let to = self.forward.out.pointer(at, len);
                    if product.accumulate {
                        y = simd.add(y, simd.load_partial_raw(to, len));
                    }
                    simd.store_partial_raw(to, y, len);
                }
            }
        }
    }
}
