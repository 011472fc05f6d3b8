//! What forward and backward share: a strip of queries in the lanes, and products with it.

use crate::gemm::tile::{Ahead, Block, DOT, F32, LeftView, Store};
use crate::isa::Simd;
use crate::map::for_each_piece;
use crate::shared::SharedMut;

/// A score that no key has: far below all others, and finite, so that differences stay numbers.
const MASKED: f32 = -1e30;

/// Depth of the products with queries that is worked on at once: 128 × 64 lanes are 32 KiB, which
/// stay in the first-level cache while the rows go by.
const DEPTH: usize = 128;

/// Rows and columns that are transposed at a time.
const SIDE: usize = 16;

/// Numbers in a cache line.
const LINE: usize = 16;

/// Up to `TILE_VECTORS` vectors of neighbouring queries of one head.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    /// The first query.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// Vectors that hold them.
    pub vectors: usize,
    /// Lanes of these vectors, `count` or a few more.
    pub lanes: usize,
}

impl Strip {
    /// The longest strip from `first` on, of queries before `end`.
    #[inline(always)]
    pub fn new<S: Simd>(first: usize, end: usize) -> Self {
        let count = (end - first).min(S::TILE_VECTORS * S::LANES);
        let vectors = count.div_ceil(S::LANES);
        Strip {
            first,
            count,
            vectors,
            lanes: vectors * S::LANES,
        }
    }

    /// Fills `to: [d, lanes]` with `factor · x`, transposed: `x` holds the rows of the strip's head
    /// from its first query on, `stride` apart. Lanes without a query get zeros.
    #[inline(always)]
    pub fn transpose<S: Simd>(
        &self,
        simd: S,
        x: &[f32],
        stride: usize,
        d: usize,
        factor: f32,
        to: &mut [f32],
    ) {
        let to = &mut to[..d * self.lanes];
        if self.count < self.lanes {
            to.fill(0.0);
        }
        let blocks = self.blocks(d);
        for lane in (0..blocks).step_by(SIDE) {
            for c in (0..d).step_by(SIDE) {
                let c = c.min(d - SIDE);
                debug_assert!(x.len() >= (lane + SIDE - 1) * stride + c + SIDE);
                let from = x[lane * stride + c..].as_ptr();
                // SAFETY: 16 rows of `x`, and as many lanes of 16 rows of `to`.
                unsafe {
                    let to = to.as_mut_ptr().add(c * self.lanes + lane);
                    simd.transpose_raw((from, stride), (to, self.lanes));
                }
            }
        }
        for lane in blocks..self.count {
            let row = &x[lane * stride..][..d];
            for (column, &x) in to.chunks_exact_mut(self.lanes).zip(row) {
                column[lane] = x;
            }
        }
        let factor = simd.splat(factor);
        for to in to.chunks_exact_mut(S::LANES) {
            simd.store(to, simd.mul(simd.load(to), factor));
        }
    }

    /// As [`Strip::transpose`], 16×16 numbers at a time, for vectors of 16 lanes: of `to`, rows up to the next multiple of
    /// 16 are overwritten.
    #[inline(always)]
    pub fn turn_in<S: Simd>(
        &self,
        simd: S,
        x: &[f32],
        stride: usize,
        d: usize,
        factor: f32,
        to: &mut [f32],
    ) {
        assert!(S::LANES == SIDE && to.len() >= d.next_multiple_of(SIDE) * self.lanes);
        let factor = simd.splat(factor);
        let mut square = [0.0; SIDE * SIDE];
        for lane in (0..self.lanes).step_by(SIDE) {
            for column in (0..d).step_by(SIDE) {
                for (i, to) in square.chunks_exact_mut(SIDE).enumerate() {
                    let row = match lane + i < self.count {
                        true => &x[(lane + i) * stride..][column..d],
                        false => &[],
                    };
                    simd.store(to, simd.mul(simd.load_partial(row), factor));
                }
                // SAFETY: both have 16 rows of 16, as was checked.
                unsafe {
                    let to = to.as_mut_ptr().add(column * self.lanes + lane);
                    simd.transpose_raw((square.as_ptr(), SIDE), (to, self.lanes));
                }
            }
        }
    }

    /// As [`Strip::write_rows`], 16×16 numbers at a time, for vectors of 16 lanes.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn turn_out<S: Simd>(
        &self,
        simd: S,
        x: &[f32],
        factors: &[f32],
        to: SharedMut<f32>,
        start: usize,
        stride: usize,
    ) {
        assert!(S::LANES == SIDE && factors.len() >= self.lanes);
        let d = x.len() / self.lanes;
        let (mut columns, mut rows) = ([0.0; SIDE * SIDE], [0.0; SIDE * SIDE]);
        for lane in (0..self.lanes).step_by(SIDE) {
            let factors = simd.load(&factors[lane..]);
            for column in (0..d).step_by(SIDE) {
                let count = SIDE.min(d - column);
                for (i, to) in columns.chunks_exact_mut(SIDE).take(count).enumerate() {
                    let x = simd.load(&x[(column + i) * self.lanes + lane..]);
                    simd.store(to, simd.mul(x, factors));
                }
                // SAFETY: both are 16 rows of 16; the caller vouches for the strip's rows, which do not overlap.
                unsafe {
                    simd.transpose_raw((columns.as_ptr(), SIDE), (rows.as_mut_ptr(), SIDE));
                    for (i, row) in rows.chunks_exact(SIDE).enumerate() {
                        if lane + i < self.count {
                            let to = to.slice(start + (lane + i) * stride + column, count);
                            simd.store_partial(to, simd.load(row));
                        }
                    }
                }
            }
        }
    }

    /// Asks for as many rows as the strip has to come into the second-level cache: rows of `d` numbers from `x` on,
    /// `stride` apart, of which the processor sees no pattern when each head is a part of longer ones. None need be there.
    #[inline(always)]
    pub fn fetch<S: Simd>(&self, simd: S, x: *const f32, stride: usize, d: usize) {
        for lane in 0..self.count {
            let row = x.wrapping_add(lane * stride);
            for at in (0..d).step_by(LINE) {
                simd.prefetch(row.wrapping_add(at));
            }
            simd.prefetch(row.wrapping_add(d - 1));
        }
    }

    /// The inverse: writes `x: [d, lanes]`, each lane times its factor, as rows of `d` numbers to
    /// `to`, `stride` apart from `start` on. `x` is spent.
    ///
    /// # Safety
    /// These rows lie inside `to` and are nobody else's.
    #[inline(always)]
    pub unsafe fn write_rows<S: Simd>(
        &self,
        simd: S,
        x: &mut [f32],
        factors: &[f32],
        to: SharedMut<f32>,
        start: usize,
        stride: usize,
    ) {
        let d = x.len() / self.lanes;
        for x in x.chunks_exact_mut(self.lanes) {
            for (x, factors) in x
                .chunks_exact_mut(S::LANES)
                .zip(factors.chunks_exact(S::LANES))
            {
                simd.store(x, simd.mul(simd.load(x), simd.load(factors)));
            }
        }
        let blocks = self.blocks(d);
        let rows = to.rows(start, (0..blocks).map(|lane| lane * stride), d);
        for lane in (0..blocks).step_by(SIDE) {
            for c in (0..d).step_by(SIDE) {
                let c = c.min(d - SIDE);
                debug_assert!(x.len() >= (c + SIDE - 1) * self.lanes + lane + SIDE);
                let from = x[c * self.lanes + lane..].as_ptr();
                // SAFETY: 16 lanes of 16 rows of `x`, and as many rows that the caller vouches for.
                unsafe {
                    let to = rows.add(lane * stride + c);
                    simd.transpose_raw((from, self.lanes), (to, stride));
                }
            }
        }
        for lane in blocks..self.count {
            // SAFETY: the caller vouches for the rows, which do not overlap.
            let row = unsafe { to.slice(start + lane * stride, d) };
            for (to, column) in row.iter_mut().zip(x.chunks_exact(self.lanes)) {
                *to = column[lane];
            }
        }
    }

    /// Queries that are transposed in squares of [`SIDE`]; the last square of channels may begin inside the one before.
    #[inline(always)]
    fn blocks(&self, d: usize) -> usize {
        match d >= SIDE {
            true => self.count / SIDE * SIDE,
            false => 0,
        }
    }

    /// `scores: [keys, lanes] = left: [keys, d] · panel: [d, lanes]`, where `left` holds the head's
    /// rows `stride` apart. `rows` are multiples of `lanes`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub fn scores<S: Simd>(
        &self,
        simd: S,
        keys: usize,
        d: usize,
        left: &[f32],
        stride: usize,
        panel: &[f32],
        rows: &[usize],
        scores: &mut [f32],
    ) {
        assert!(left.len() >= (keys - 1) * stride + d && panel.len() >= d * self.lanes);
        assert!(rows[keys - 1] + self.lanes <= scores.len());
        for done in (0..d).step_by(DEPTH) {
            let panel = panel[done * self.lanes..].as_ptr();
            let block = Block {
                depth: DEPTH.min(d - done),
                left: LeftView {
                    start: left[done..].as_ptr(),
                    row_stride: stride,
                    depth_stride: 1,
                },
                panel,
                vectors: self.vectors,
                prefetch: panel,
                ahead: [Ahead::NONE; 2],
                store: Store::plain(scores.as_mut_ptr(), &rows[..keys], self.lanes, done > 0),
            };
            // SAFETY: the lengths were checked above; rows grow, so the last bounds them all.
            unsafe { block.run::<S, F32>(simd) };
        }
    }

    /// `sums: [d, lanes] += leftᵀ: [d, keys] · panel: [keys, lanes]`, where `left` holds the head's
    /// rows `stride` apart. `rows` are multiples of `lanes`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub fn accumulate<S: Simd>(
        &self,
        simd: S,
        keys: usize,
        d: usize,
        left: &[f32],
        stride: usize,
        panel: &[f32],
        rows: &[usize],
        sums: &mut [f32],
    ) {
        assert!(left.len() >= (keys - 1) * stride + d && panel.len() >= keys * self.lanes);
        assert!(rows[d - 1] + self.lanes <= sums.len());
        let block = Block {
            depth: keys,
            left: LeftView {
                start: left.as_ptr(),
                row_stride: 1,
                depth_stride: stride,
            },
            panel: panel.as_ptr(),
            vectors: self.vectors,
            prefetch: panel.as_ptr(),
            ahead: [Ahead::NONE; 2],
            store: Store::plain(sums.as_mut_ptr(), &rows[..d], self.lanes, true),
        };
        // SAFETY: as above.
        unsafe { block.run::<S, F32>(simd) };
    }

    /// `out: [rows, lanes] = left: [rows, depth] · panel: [depth, lanes]`, or `+=`, of bf16 pairs on both sides; a
    /// missing last partner is zero. `rows` are multiples of `lanes`.
    ///
    /// # Safety
    /// `left` is valid for reading pairs of `depth` numbers at each row.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn product_bf16<S: Simd>(
        &self,
        simd: S,
        left: LeftView,
        depth: usize,
        panel: &[f32],
        rows: &[usize],
        out: &mut [f32],
        accumulate: bool,
    ) {
        assert!(panel.len() >= depth.div_ceil(2) * self.lanes);
        assert!(rows[rows.len() - 1] + self.lanes <= out.len());
        for done in (0..depth).step_by(2 * DEPTH) {
            let panel = panel[done / 2 * self.lanes..].as_ptr();
            let block = Block {
                depth: (2 * DEPTH).min(depth - done),
                left: LeftView {
                    start: left.start.wrapping_add(done / 2),
                    ..left
                },
                panel,
                vectors: self.vectors,
                prefetch: panel,
                ahead: [Ahead::NONE; 2],
                store: Store::plain(out.as_mut_ptr(), rows, self.lanes, accumulate || done > 0),
            };
            // SAFETY: the caller vouches for `left`, the rest was checked above.
            unsafe { block.run::<S, DOT>(simd) };
        }
    }

    /// Hides the keys `first_key..` of `scores: [keys, lanes]` from the queries before them.
    #[inline(always)]
    pub fn mask(&self, first_key: usize, keys: usize, scores: &mut [f32]) {
        for (j, scores) in scores.chunks_exact_mut(self.lanes).take(keys).enumerate() {
            let hidden = (first_key + j).saturating_sub(self.first);
            scores[..hidden.min(self.lanes)].fill(MASKED);
        }
    }

    /// The smallest running maximum.
    pub const LOWEST: f32 = MASKED;
}

/// Distance of the rows that [`skew`] writes: an odd number of cache lines, so that a column of them
/// spreads over the whole first-level cache, where rows of 256 or 512 numbers would share few sets.
pub(super) fn skewed(d: usize) -> usize {
    d.next_multiple_of(16) | 16
}

/// Copies `count` rows of `d` numbers, `stride` apart, to rows that are [`skewed`] apart. Rows are
/// short: vectors, because a call of the library's copy would take longer than the copy.
#[inline(always)]
pub(super) fn skew<S: Simd>(
    simd: S,
    x: &[f32],
    stride: usize,
    count: usize,
    d: usize,
    to: &mut [f32],
) {
    for (i, row) in to.chunks_exact_mut(skewed(d)).take(count).enumerate() {
        let x = &x[i * stride..][..d];
        for_each_piece(
            simd,
            d,
            #[inline(always)]
            |at| at.store(row, at.load(x)),
        );
    }
}

/// `0, stride, 2·stride, …`
pub(super) fn multiples(stride: usize, count: usize, to: &mut Vec<usize>) {
    to.clear();
    to.extend((0..count).map(|i| i * stride));
}
