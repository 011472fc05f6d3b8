//! What one task of a product does: its rows by its panels, piece by piece of the sum.

use super::driver::{BLOCK_ROWS, OutRows, Product};
use super::operands::Window;
use super::panels::Panel;
use super::tile::{self, Ahead, Block, LeftView, Store};
use crate::isa::{Kernel, Simd};
use crate::scratch;
use crate::shared::SharedMut;

/// Steps of the sum per pass over a panel: 128 steps × 64 columns × 4 bytes = 32 KiB, about the
/// first-level cache; a step is one f32 or a pair of bf16. Between 96 and 256 the length hardly matters.
pub(crate) const CHUNK_STEPS: usize = 128;

/// The same in pairs of bf16, so that 320, 640 and 1280 channels are whole passes.
const CHUNK_PAIRS: usize = 160;

/// A block of rows times a range of panels.
pub(super) struct Task<'a> {
    pub product: &'a Product<'a>,
    pub out: SharedMut<f32>,
    pub row: usize,
    pub rows: usize,
    pub panels: (usize, usize),
    pub format: usize,
    /// What the thread will pack next.
    pub ahead: Ahead,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let product = self.product;
        assert_eq!(product.panels.lanes, S::LANES);
        let chunk = match self.format {
            tile::F32 => CHUNK_STEPS,
            // Integers are not turned into numbers before their sum is whole.
            tile::INT8 => usize::MAX,
            _ => 2 * CHUNK_PAIRS,
        };
        let widest = product
            .segments
            .iter()
            .map(|s| s.len)
            .max()
            .unwrap_or(0)
            .min(chunk);
        let by_panels = product.by_panels();
        let depth = match by_panels {
            true => product.segments[0].len,
            false => widest,
        };
        let left_scratch = product.left.scratch(self.rows, depth, self.format);
        // A panel of the right-hand matrix, or a panel's sums.
        let right_scratch = match by_panels {
            true => self.rows * S::TILE_VECTORS * S::LANES,
            false => widest * S::TILE_VECTORS * S::LANES,
        };
        // Scratch numbers keep their cache-line alignment when cut at a multiple of 16.
        let left_scratch = left_scratch.next_multiple_of(16);
        let mut places = [0; BLOCK_ROWS + 6];
        let mut scratch = scratch::lease(left_scratch + right_scratch);
        let (left, right) = scratch.split_at_mut(left_scratch);
        let places = &mut places[..self.rows];
        let first = product.panels.get(self.panels.0);
        let last = product.panels.get(self.panels.1 - 1);
        let columns = first.start..last.start + last.columns;
        // Of values and gates, half as many are stored.
        let (n, columns) = match product.gated {
            true => (product.panels.n / 2, columns.start / 2..columns.end / 2),
            false => (product.panels.n, columns),
        };
        for (i, place) in places.iter_mut().enumerate() {
            *place = n * match product.rows {
                OutRows::Contiguous => self.row + i,
                OutRows::Mapped(map) => map(self.row + i),
            };
        }
        self.out
            .rows(columns.start, places.iter().copied(), columns.len());
        if by_panels {
            self.by_panels(simd, chunk, left, right, places);
        } else {
            self.by_pieces(simd, chunk, left, right, places);
        }
    }
}

impl Task<'_> {
    /// Panel after panel, each over the whole sum.
    #[inline(always)]
    fn by_panels<S: Simd>(
        &self,
        simd: S,
        chunk: usize,
        left_scratch: &mut [f32],
        sums: &mut [f32],
        places: &[usize],
    ) {
        let product = self.product;
        let segment = product.segments[0];
        let window = Window {
            row: self.row,
            rows: self.rows,
            column: segment.left,
            columns: segment.len,
        };
        let (m, k) = (product.m, product.left_k);
        let left = product
            .left
            .view(simd, m, k, window, self.format, left_scratch);
        // Where the view of integers leaves what one means, row by row.
        let row_scales = left_scratch
            .as_ptr()
            .wrapping_add(self.rows * left.row_stride);
        let piece = piece(segment.len, chunk).max(1);
        let pieces = segment.len.div_ceil(piece).max(1);
        let mut sum_rows = [0; BLOCK_ROWS + 6];
        let sum_rows = &mut sum_rows[..self.rows];
        for index in self.panels.0..self.panels.1 {
            let panel = product.panels.get(index);
            for (i, row) in sum_rows.iter_mut().enumerate() {
                *row = i * panel.width;
            }
            let mut at = 0;
            loop {
                let depth = piece.min(segment.len - at);
                let last = at + depth == segment.len;
                let carried = match at > 0 {
                    true => sums.as_ptr(),
                    false => std::ptr::null(),
                };
                let store = self.store(panel, places, at == 0, last);
                let store = match last {
                    true => Store {
                        accumulate: product.accumulate,
                        carried,
                        rescale: product.right.rescale(&product.panels, panel, row_scales),
                        far: true,
                        ..store
                    },
                    false => Store {
                        bias: store.bias,
                        ..Store::plain(sums.as_mut_ptr(), sum_rows, panel.columns, at > 0)
                    },
                };
                let start = left.start.wrapping_add(match self.format {
                    tile::DOT | tile::INT8 => tile::steps(self.format, at),
                    _ => at,
                });
                let rows = (segment.right + at, depth);
                let panels = &product.panels;
                let packed =
                    product
                        .right
                        .panel(simd, panels, product.right_k, panel, rows, &mut []);
                let view = LeftView { start, ..left };
                let part = (index - self.panels.0) * pieces + at / piece;
                let parts = (self.panels.1 - self.panels.0) * pieces;
                let ahead = self.ahead.part(part, parts);
                // SAFETY: as in `by_pieces`; `sums` has whole vectors for each row.
                unsafe { self.block(simd, depth, view, (packed, ahead), panel, store) }
                at += depth;
                if last {
                    break;
                }
            }
        }
    }

    /// Piece after piece of the sum, each for all panels.
    #[inline(always)]
    fn by_pieces<S: Simd>(
        &self,
        simd: S,
        chunk: usize,
        left_scratch: &mut [f32],
        right_scratch: &mut [f32],
        places: &[usize],
    ) {
        let product = self.product;
        let mut first = true;
        for (index, segment) in product.segments.iter().enumerate() {
            let piece = piece(segment.len, chunk);
            let mut at = 0;
            while at < segment.len || (first && segment.len == 0) {
                let depth = piece.min(segment.len - at);
                let last = index + 1 == product.segments.len() && at + depth == segment.len;
                let window = Window {
                    row: self.row,
                    rows: self.rows,
                    column: segment.left + at,
                    columns: depth,
                };
                let (m, k) = (product.m, product.left_k);
                let view = product
                    .left
                    .view(simd, m, k, window, self.format, left_scratch);
                let rows = (segment.right + at, depth);
                for index in self.panels.0..self.panels.1 {
                    let panel = product.panels.get(index);
                    let packed = product.right.panel(
                        simd,
                        &product.panels,
                        product.right_k,
                        panel,
                        rows,
                        right_scratch,
                    );
                    let store = self.store(panel, places, first, last);
                    // SAFETY: the operands gave `rows × depth` and `depth × width` numbers, the
                    // lengths of `out`, `bias` and `residual` were checked by whoever made the
                    // product, and its tasks have different rows or columns.
                    unsafe { self.block(simd, depth, view, (packed, Ahead::NONE), panel, store) }
                }
                first = false;
                at += depth.max(1);
            }
        }
    }

    /// Where a panel's sums go: the `first` piece of them with the bias, later ones on top, the `last` with the
    /// residual.
    #[inline(always)]
    fn store<'a>(&self, panel: Panel, places: &'a [usize], first: bool, last: bool) -> Store<'a> {
        let product = self.product;
        let pointer = |x: Option<&[f32]>, wanted: bool| {
            x.filter(|_| wanted)
                .map_or(std::ptr::null(), |x| x[panel.start..].as_ptr())
        };
        let accumulate = product.accumulate || !first;
        let gated = product.gated && last;
        let (start, columns) = match gated {
            true => (panel.start / 2, panel.columns / 2),
            false => (panel.start, panel.columns),
        };
        Store {
            bias: pointer(product.epilogue.bias, first),
            residual: pointer(product.epilogue.residual, last),
            gated,
            ..Store::plain(self.out.address(start), places, columns, accumulate)
        }
    }

    /// # Safety
    /// As [`Block::run`].
    #[inline(always)]
    unsafe fn block<S: Simd>(
        &self,
        simd: S,
        depth: usize,
        left: LeftView,
        (packed, ahead): (*const f32, Ahead),
        panel: Panel,
        store: Store,
    ) {
        let steps = tile::steps(self.format, depth);
        let block = Block {
            depth,
            left,
            panel: packed,
            vectors: panel.vectors,
            // A packed matrix goes on with this panel's next rows, or the next panel.
            prefetch: packed.wrapping_add(steps * panel.width),
            ahead: [ahead, Ahead::NONE],
            store,
        };
        // SAFETY: passed on.
        unsafe {
            match self.format {
                tile::F32 => block.run::<S, { tile::F32 }>(simd),
                tile::INT8 => block.run::<S, { tile::INT8 }>(simd),
                tile::DOT if S::HAS_BF16_DOT => block.run::<S, { tile::DOT }>(simd),
                _ => block.run::<S, { tile::WIDENED }>(simd),
            }
        }
    }
}

/// Equal pieces of at most `chunk` numbers, even so that bf16 pairs stay together.
fn piece(len: usize, chunk: usize) -> usize {
    len.div_ceil(len.div_ceil(chunk).max(1)).next_multiple_of(2)
}
