//! The micro-kernel: a few rows times one panel, all sums in registers.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

pub(crate) use super::store::{Rescale, Store};
use crate::isa::{Kernel, Simd};

/// Number format of a tile's operands: f32.
pub(crate) const F32: usize = 0;
/// bf16 pairs in the panel, widened; f32 on the left.
pub(crate) const WIDENED: usize = 1;
/// bf16 pairs on both sides, for the dot product.
pub(crate) const DOT: usize = 2;
/// Fours of 8-bit integers on both sides, those on the left with 128 added.
pub(crate) const INT8: usize = 3;

/// Steps of the inner loop for `depth` numbers of the sum.
#[inline(always)]
pub(crate) fn steps(format: usize, depth: usize) -> usize {
    match format {
        F32 => depth,
        INT8 => depth.div_ceil(4),
        _ => depth.div_ceil(2),
    }
}

/// The left-hand side of some rows: number `(row, depth)` stands at
/// `start + row · row_stride + depth · depth_stride`. With [`DOT`] a number is a bf16 pair, with [`INT8`] four bytes.
#[derive(Clone, Copy)]
pub(crate) struct LeftView {
    pub start: *const f32,
    pub row_stride: usize,
    pub depth_stride: usize,
}

/// All rows of `store.rows` times a chunk of one panel.
///
/// `depth` counts numbers of the sum. `prefetch` is what will be read next.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub depth: usize,
    pub left: LeftView,
    pub panel: *const f32,
    pub vectors: usize,
    pub prefetch: *const f32,
    pub store: Store<'a>,
}

impl Block<'_> {
    /// Multiplies.
    ///
    /// # Safety
    /// The left view is valid for reading `rows × depth` numbers, the panel for `depth × width`
    /// ([`WIDENED`], [`DOT`]: pairs, an odd depth rounded up), `out`, `bias` and `residual` at every
    /// row's `columns`, `carried` for `rows × width`; with [`INT8`] `rescale` for the rows and the width. The rows of `out` are nobody else's. With [`DOT`], `simd` has it.
    #[inline(always)]
    pub unsafe fn run<S: Simd, const FORMAT: usize>(&self, simd: S) {
        debug_assert!((1..=S::TILE_VECTORS).contains(&self.vectors));
        // SAFETY: passed on.
        unsafe {
            match self.vectors {
                1 => self.rows::<S, FORMAT, 1>(simd),
                2 if S::TILE_VECTORS >= 2 => self.rows::<S, FORMAT, 2>(simd),
                3 if S::TILE_VECTORS >= 3 => self.rows::<S, FORMAT, 3>(simd),
                4 if S::TILE_VECTORS >= 4 => self.rows::<S, FORMAT, 4>(simd),
                _ => unreachable!("a panel has at most TILE_VECTORS vectors"),
            }
        }
    }

    /// # Safety
    /// As [`Block::run`].
    #[inline(always)]
    unsafe fn rows<S: Simd, const FORMAT: usize, const V: usize>(&self, simd: S) {
        // SAFETY: passed on.
        unsafe {
            match (self.left.depth_stride, FORMAT) {
                (1, _) => self.tiles::<S, FORMAT, V, true>(simd),
                (_, DOT) => self.tiles::<S, DOT, V, false>(simd),
                _ => {
                    debug_assert!(FORMAT == F32 && self.left.row_stride == 1);
                    self.tiles::<S, F32, V, false>(simd);
                }
            }
        }
    }

    /// # Safety
    /// As [`Block::run`].
    #[inline(always)]
    unsafe fn tiles<S: Simd, const FORMAT: usize, const V: usize, const BY_ROW: bool>(
        &self,
        simd: S,
    ) {
        const { assert!(S::TILE_ROWS == 6) }
        let rows = self.store.rows.len();
        let steps = steps(FORMAT, self.depth);
        let lines = steps * V * S::LANES / 16;
        let mut row = 0;
        while row + 6 <= rows {
            // The next panel's lines come in over the first tiles, one per step of the sum.
            let ahead = (row / 6 * steps).min(lines);
            let prefetch = self.prefetch.wrapping_add(ahead * 16);
            // Not in the tile itself, whose sums would then not stay in registers.
            if self.store.far {
                self.store.fetch(simd, row..row + 6);
            }
            simd.call(Tile::<6, V, FORMAT, BY_ROW> {
                block: self,
                row,
                prefetch,
            });
            row += 6;
        }
        let prefetch = self.prefetch;
        match rows - row {
            0 => {}
            1 => simd.call(Tile::<1, V, FORMAT, BY_ROW> {
                block: self,
                row,
                prefetch,
            }),
            2 => simd.call(Tile::<2, V, FORMAT, BY_ROW> {
                block: self,
                row,
                prefetch,
            }),
            3 => simd.call(Tile::<3, V, FORMAT, BY_ROW> {
                block: self,
                row,
                prefetch,
            }),
            4 => simd.call(Tile::<4, V, FORMAT, BY_ROW> {
                block: self,
                row,
                prefetch,
            }),
            _ => simd.call(Tile::<5, V, FORMAT, BY_ROW> {
                block: self,
                row,
                prefetch,
            }),
        }
    }
}

/// `R` rows from `row` on times `V` vectors of columns. `BY_ROW`: each row's numbers are contiguous;
/// otherwise each step's are.
struct Tile<'a, const R: usize, const V: usize, const FORMAT: usize, const BY_ROW: bool> {
    block: &'a Block<'a>,
    row: usize,
    prefetch: *const f32,
}

impl<const R: usize, const V: usize, const FORMAT: usize, const BY_ROW: bool> Kernel
    for Tile<'_, R, V, FORMAT, BY_ROW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Block { left, store, .. } = self.block;
        let steps = steps(FORMAT, self.block.depth);
        let start = left.start.wrapping_add(self.row * left.row_stride);
        let mut rows = [start; R];
        for (r, pointer) in rows.iter_mut().enumerate() {
            *pointer = start.wrapping_add(r * left.row_stride);
        }
        // SAFETY (of reads): `Block::run`'s caller vouches for `rows × depth` numbers on the left.
        let number = |r: usize, depth: usize| unsafe {
            if BY_ROW {
                rows[r].add(depth).read()
            } else {
                start.add(depth * left.depth_stride + r).read()
            }
        };
        let mut sums = [[simd.zero(); V]; R];
        let mut panel = self.block.panel;
        for step in 0..steps {
            simd.prefetch(self.prefetch.wrapping_add(step * 16));
            // The left-hand numbers come in short pieces of many rows, or of many steps, which the
            // CPU's own prefetchers do not follow. By row: a line of each of the next tile's six
            // rows (and two more) in eight steps; by step: sixteen steps (some 200 cycles) ahead.
            if BY_ROW {
                let numbers = if FORMAT == WIDENED { 16 } else { 8 };
                let ahead = (R + step % 8) * left.row_stride + step / 8 * numbers;
                simd.prefetch_near(start.wrapping_add(ahead));
            } else {
                simd.prefetch_near(start.wrapping_add((step + 16) * left.depth_stride));
            }
            let mut columns = [simd.zero(); V];
            for (v, column) in columns.iter_mut().enumerate() {
                // SAFETY: the caller vouches for `steps × V` vectors in the panel.
                *column = unsafe { simd.load_raw(panel.add(v * S::LANES)) };
            }
            panel = panel.wrapping_add(V * S::LANES);
            match FORMAT {
                WIDENED => {
                    for r in 0..R {
                        let a = simd.splat(number(r, 2 * step));
                        for v in 0..V {
                            sums[r][v] = simd.mul_add(a, simd.widen_low(columns[v]), sums[r][v]);
                        }
                    }
                    if 2 * step + 1 < self.block.depth {
                        for r in 0..R {
                            let a = simd.splat(number(r, 2 * step + 1));
                            for v in 0..V {
                                sums[r][v] =
                                    simd.mul_add(a, simd.widen_high(columns[v]), sums[r][v]);
                            }
                        }
                    }
                }
                DOT => {
                    for r in 0..R {
                        let a = simd.splat(number(r, step));
                        for v in 0..V {
                            sums[r][v] = simd.dot_bf16(sums[r][v], a, columns[v]);
                        }
                    }
                }
                INT8 => {
                    for r in 0..R {
                        let a = simd.splat(number(r, step));
                        for v in 0..V {
                            sums[r][v] = simd.dot_i8(sums[r][v], a, columns[v]);
                        }
                    }
                }
                _ => {
                    for r in 0..R {
                        let a = simd.splat(number(r, step));
                        for v in 0..V {
                            sums[r][v] = simd.mul_add(a, columns[v], sums[r][v]);
                        }
                    }
                }
            }
        }
        debug_assert!(self.row + R <= store.rows.len());
        debug_assert!(match store.gated {
            true => store.columns == V / 2 * S::LANES,
            false => store.columns <= V * S::LANES && store.columns > (V - 1) * S::LANES,
        });
        // SAFETY: the caller vouches for `columns` numbers at each row of `out` and `residual`, and
        // of `bias`.
        unsafe {
            if FORMAT == INT8 {
                let Rescale {
                    rows,
                    columns,
                    corrections,
                } = store.rescale;
                for v in 0..V {
                    let correction = simd.load_raw(corrections.add(v * S::LANES));
                    let scale = simd.load_raw(columns.add(v * S::LANES));
                    for r in 0..R {
                        let row = simd.splat(rows.add(self.row + r).read());
                        let sum = simd.integer_difference(sums[r][v], correction);
                        sums[r][v] = simd.mul(simd.mul(sum, scale), row);
                    }
                }
            }
            if !store.carried.is_null() {
                let carried = store.carried.add(self.row * V * S::LANES);
                for r in 0..R {
                    for v in 0..V {
                        let carried = simd.load_raw(carried.add((r * V + v) * S::LANES));
                        sums[r][v] = simd.add(sums[r][v], carried);
                    }
                }
            }
            store.put(simd, &store.rows[self.row..], sums)
        }
    }
}
