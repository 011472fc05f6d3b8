//! How the columns of a product are cut into panels, and packing into them.

use crate::isa::{self, Kernel, Simd};
use crate::pool;
use crate::scratch;
use crate::shared::SharedMut;
use std::ops::Range;

/// The columns of a product, cut into panels of one to `TILE_VECTORS` vectors.
///
/// Packed, a panel of `w` columns is `[k][w]` numbers (bf16: `[k / 2][w]` pairs, the even row in the
/// lower half), and the panels follow one another. Columns past `n` are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panels {
    pub n: usize,
    pub lanes: usize,
    /// Vectors over all panels.
    vectors: usize,
    pub count: usize,
}

/// One panel: columns `start..start + width`, of which `columns` are real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panel {
    pub start: usize,
    pub vectors: usize,
    pub width: usize,
    pub columns: usize,
}

impl Panels {
    pub fn new(n: usize, lanes: usize, tile_vectors: usize) -> Self {
        let vectors = n.div_ceil(lanes);
        Panels {
            n,
            lanes,
            vectors,
            count: vectors.div_ceil(tile_vectors),
        }
    }

    /// Panel `index`; widths differ by at most one vector, so that none is a thin leftover.
    pub fn get(&self, index: usize) -> Panel {
        debug_assert!(index < self.count);
        let first = index * self.vectors / self.count;
        let vectors = (index + 1) * self.vectors / self.count - first;
        let (start, width) = (first * self.lanes, vectors * self.lanes);
        Panel {
            start,
            vectors,
            width,
            columns: width.min(self.n - start),
        }
    }

    /// Columns with padding.
    pub fn padded(&self) -> usize {
        self.vectors * self.lanes
    }
}

/// Where a packed number comes from: row `row` of the product's right-hand matrix is found at
/// `source[offset + column · stride]`.
#[derive(Clone, Copy)]
pub(crate) struct PackRow {
    pub row: usize,
    pub offset: usize,
}

/// A right-hand matrix inside `source`. `visit(i)` for `i` in `0..k` names each row once, in the
/// order that walks `source` best.
pub(crate) struct PackSource<'a, F> {
    pub source: &'a [f32],
    pub stride: usize,
    pub k: usize,
    pub visit: F,
}

/// Numbers that one task packs: some tens of microseconds.
const PACK_TASK: usize = 1 << 15;

/// Rows that are gathered at a time: where a column's numbers lie side by side, a cache line of each, and the side of a
/// square that is transposed.
const GATHERED: usize = 16;

/// Packs in f32: `packed` has `k · panels.padded()` numbers.
pub(crate) fn pack_f32<F: Fn(usize) -> PackRow + Sync>(
    panels: &Panels,
    from: &PackSource<F>,
    packed: &mut [f32],
) {
    assert_eq!(packed.len(), from.k * panels.padded());
    let shared = SharedMut::new(packed);
    for_each_row(panels, from, |panel, row, numbers| {
        // SAFETY: each row of each panel is visited once.
        let to = unsafe { shared.slice(panel.start * from.k + row * panel.width, panel.width) };
        to.copy_from_slice(numbers);
    });
}

/// Packs in bf16 pairs: `packed` has `k.div_ceil(2) · panels.padded() · 2` numbers. Zero is the partner of an odd last row.
pub(crate) fn pack_bf16<F: Fn(usize) -> PackRow + Sync>(
    panels: &Panels,
    from: &PackSource<F>,
    packed: &mut [u16],
) {
    let all_pairs = from.k.div_ceil(2);
    assert_eq!(packed.len(), all_pairs * panels.padded() * 2);
    if !from.k.is_multiple_of(2) {
        for panel in (0..panels.count).map(|index| panels.get(index)) {
            let last = panel.start * all_pairs + (all_pairs - 1) * panel.width;
            packed[2 * last..][..2 * panel.width].fill(0);
        }
    }
    let shared = SharedMut::new(packed);
    let isa = isa::active();
    for_each_block(panels, from, |panel, visits, numbers| {
        let rows: [usize; GATHERED] =
            std::array::from_fn(|i| (from.visit)((visits.start + i).min(visits.end - 1)).row);
        let rows = &rows[..visits.len()];
        assert!(rows.iter().all(|&row| row < from.k));
        let pairs = panel.start * all_pairs;
        if rows[0].is_multiple_of(2) && rows.iter().zip(rows[0]..).all(|(&row, next)| row == next) {
            // A partner that is not there is zero, and must not be another visit's.
            let odd = !rows.len().is_multiple_of(2);
            assert!(!odd || rows[rows.len() - 1] + 1 == from.k);
            let first = (pairs + rows[0] / 2 * panel.width) * 2;
            let len = rows.len().next_multiple_of(2) * panel.width;
            let first = shared.pointer(first, len);
            return isa.run(PairRows {
                numbers: &numbers[..rows.len() * panel.width],
                width: panel.width,
                to: first.cast(),
            });
        }
        for (&row, numbers) in rows.iter().zip(numbers.chunks_exact(panel.width)) {
            let start = (pairs + row / 2 * panel.width) * 2 + row % 2;
            // Every second number from there on; the ends are enough to tell the rows of a panel apart.
            let to = shared.rows(start, [0, 2 * (panel.width - 1)], 1);
            for (column, &x) in numbers.iter().enumerate() {
                // SAFETY: in bounds (`row < k`, `column < width`), and each number is visited once.
                unsafe { to.add(2 * column).write(half::bf16::from_f32(x).to_bits()) }
            }
        }
    });
}

/// Neighbouring rows of whole vectors as pairs, zero being the partner of an odd last one.
struct PairRows<'a> {
    numbers: &'a [f32],
    width: usize,
    /// Nobody else writes these rows, here and hereafter.
    to: *mut f32,
}

impl Kernel for PairRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (i, rows) in self.numbers.chunks(2 * self.width).enumerate() {
            let (low, high) = rows.split_at(self.width);
            for at in (0..self.width).step_by(S::LANES) {
                let high = simd.load_partial(high.get(at..).unwrap_or(&[]));
                let pairs = simd.pairs_bf16(simd.load(&low[at..]), high);
                // SAFETY: a panel's row has whole vectors.
                unsafe { simd.store_raw(self.to.add(i * self.width + at), pairs) }
            }
        }
    }
}

/// Packs 8-bit integers in fours of a column: `packed` has `k.div_ceil(4) · panels.padded() · 4` bytes and is zero. A
/// column's largest number becomes ±127; `rescale` receives what one means, then 128 times the column's sum (the
/// left-hand numbers have 128 added to them) as bits of 32-bit integers.
pub(crate) fn pack_int8<F: Fn(usize) -> PackRow + Sync>(
    panels: &Panels,
    from: &PackSource<F>,
    packed: &mut [u8],
    rescale: &mut [f32],
) {
    let fours = from.k.div_ceil(4);
    assert_eq!(packed.len(), fours * panels.padded() * 4);
    assert_eq!(rescale.len(), 2 * panels.padded());
    let packed = SharedMut::new(packed);
    let rescale = SharedMut::new(rescale);
    pool::parallel_for(panels.count, |index| {
        let panel = panels.get(index);
        let number = |offset: usize, column: usize| {
            from.source[offset + (panel.start + column) * from.stride]
        };
        // SAFETY: the columns of this panel, here and in both halves of `rescale`.
        let (packed, scales, corrections) = unsafe {
            (
                packed.slice(panel.start * fours * 4, panel.width * fours * 4),
                rescale.slice(panel.start, panel.width),
                rescale.slice(panels.padded() + panel.start, panel.width),
            )
        };
        let (mut largest, mut sums) = (vec![0.0f32; panel.width], vec![0i32; panel.width]);
        for i in 0..from.k {
            let offset = (from.visit)(i).offset;
            for (column, largest) in largest[..panel.columns].iter_mut().enumerate() {
                *largest = largest.max(number(offset, column).abs());
            }
        }
        for i in 0..from.k {
            let PackRow { row, offset } = (from.visit)(i);
            assert!(row < from.k);
            let line = row / 4 * panel.width * 4 + row % 4;
            for (column, &largest) in largest[..panel.columns].iter().enumerate() {
                let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                let integer = (number(offset, column) * scale).round_ties_even() as i8;
                sums[column] += 128 * i32::from(integer);
                packed[line + 4 * column] = integer as u8;
            }
        }
        for column in 0..panel.width {
            scales[column] = largest[column] / 127.0;
            corrections[column] = f32::from_bits(sums[column] as u32);
        }
    });
}

/// Calls `pack` with each row of each panel: its index and its numbers, the columns past the end zero.
fn for_each_row<F: Fn(usize) -> PackRow + Sync>(
    panels: &Panels,
    from: &PackSource<F>,
    pack: impl Fn(Panel, usize, &[f32]) + Sync,
) {
    for_each_block(panels, from, |panel, visits, numbers| {
        for (i, numbers) in visits.zip(numbers.chunks_exact(panel.width)) {
            let PackRow { row, .. } = (from.visit)(i);
            assert!(row < from.k);
            pack(panel, row, numbers);
        }
    });
}

/// Calls `pack` with up to [`GATHERED`] visits, beginning at a multiple of that, for each panel: which, and their numbers.
fn for_each_block<F: Fn(usize) -> PackRow + Sync>(
    panels: &Panels,
    from: &PackSource<F>,
    pack: impl Fn(Panel, Range<usize>, &[f32]) + Sync,
) {
    let blocks = from.k.div_ceil(GATHERED);
    let parts = (from.k * panels.padded())
        .div_ceil(PACK_TASK * panels.count.max(1))
        .max(1);
    pool::parallel_for(panels.count * parts, |task| {
        let panel = panels.get(task / parts);
        let part = task % parts;
        let mut numbers = scratch::lease(GATHERED * panel.width);
        numbers.fill(0.0);
        for block in part * blocks / parts..(part + 1) * blocks / parts {
            let visits = block * GATHERED..from.k.min((block + 1) * GATHERED);
            from.gather(&panel, visits.start, visits.len(), &mut numbers);
            pack(panel, visits, &numbers);
        }
    });
}

impl<F: Fn(usize) -> PackRow> PackSource<'_, F> {
    /// Copies the panel's columns of visits `first..first + count` into the rows of `block`.
    fn gather(&self, panel: &Panel, first: usize, count: usize, block: &mut [f32]) {
        let start = panel.start * self.stride;
        let offset = |i: usize| (self.visit)(first + i).offset + start;
        let rows = block.chunks_exact_mut(panel.width).take(count);
        if self.stride == 1 {
            for (i, row) in rows.enumerate() {
                row[..panel.columns].copy_from_slice(&self.source[offset(i)..][..panel.columns]);
            }
        } else if (1..count).all(|i| offset(i) == offset(0) + i) {
            isa::active().run(Transposed {
                from: &self.source[offset(0)..],
                stride: self.stride,
                count,
                columns: panel.columns,
                to: block,
                width: panel.width,
            });
        } else {
            for (i, row) in rows.enumerate() {
                let numbers = self.source[offset(i)..].iter().step_by(self.stride);
                for (to, &x) in row[..panel.columns].iter_mut().zip(numbers) {
                    *to = x;
                }
            }
        }
    }
}

/// Copies `columns` runs of `count` numbers, `stride` from one to the next, to the columns of rows of `width`.
struct Transposed<'a> {
    from: &'a [f32],
    stride: usize,
    count: usize,
    columns: usize,
    to: &'a mut [f32],
    width: usize,
}

impl Kernel for Transposed<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let squares = match self.count == GATHERED {
            true => self.columns / GATHERED * GATHERED,
            false => 0,
        };
        assert!(self.columns <= self.width && self.to.len() >= self.count * self.width);
        assert!(squares == 0 || self.from.len() >= (squares - 1) * self.stride + GATHERED);
        for first in (0..squares).step_by(GATHERED) {
            let from = self.from.as_ptr().wrapping_add(first * self.stride);
            let to = self.to.as_mut_ptr().wrapping_add(first);
            // SAFETY: 16 runs of 16 numbers, the last of which ends where was checked, and 16 columns of 16 rows.
            unsafe { simd.transpose_raw((from, self.stride), (to, self.width)) }
        }
        for column in squares..self.columns {
            let numbers = &self.from[column * self.stride..][..self.count];
            let places = self.to[column..].iter_mut().step_by(self.width);
            for (to, &x) in places.zip(numbers) {
                *to = x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_the_columns() {
        for lanes in [8, 16] {
            for tile_vectors in [1, 2, 4] {
                for n in 0..300 {
                    let panels = Panels::new(n, lanes, tile_vectors);
                    let mut next = 0;
                    for panel in (0..panels.count).map(|p| panels.get(p)) {
                        assert_eq!(panel.start, next);
                        assert!((1..=tile_vectors).contains(&panel.vectors));
                        assert!(panel.columns > panel.width - lanes);
                        next += panel.width;
                    }
                    assert_eq!(next, panels.padded());
                    assert!(next >= n && next < n + lanes);
                }
            }
        }
    }
}
