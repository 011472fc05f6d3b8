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

/// Numbers that are wanted soon, `rows` of `columns` that begin `stride` apart. They are asked for in strips of two cache
/// lines, a line at each step of a product that is computed meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub start: *const f32,
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
}

/// Numbers in two cache lines.
const STRIP: usize = 32;

impl Ahead {
    pub const NONE: Ahead = Ahead {
        start: std::ptr::null(),
        stride: STRIP,
        rows: 0,
        columns: STRIP,
    };

    /// All of `numbers`.
    pub fn all(numbers: &[f32]) -> Self {
        Ahead {
            start: numbers.as_ptr(),
            rows: numbers.len().div_ceil(STRIP),
            ..Ahead::NONE
        }
    }

    /// Some of the rows: part `index` of `count`.
    pub fn part(self, index: usize, count: usize) -> Self {
        let (first, end) = (index * self.rows / count, (index + 1) * self.rows / count);
        Ahead {
            start: self.start.wrapping_add(first * self.stride),
            rows: end - first,
            ..self
        }
    }

    /// What is asked for in the given turn of so many steps.
    #[inline(always)]
    fn fetch(areas: &[Ahead; 2], mut turn: usize, steps: usize) -> Option<Fetch> {
        let height = (steps / 2).max(1);
        for area in areas.iter().filter(|area| area.rows > 0) {
            let strips = area.columns.div_ceil(STRIP);
            let turns = area.rows.div_ceil(height) * strips;
            if turn < turns {
                let start = turn / strips * height * area.stride + turn % strips * STRIP;
                return Some(Fetch {
                    start: area.start.wrapping_add(start),
                    stride: area.stride,
                });
            }
            turn -= turns;
        }
        None
    }
}

/// Two lines at each stride.
#[derive(Clone, Copy)]
struct Fetch {
    start: *const f32,
    stride: usize,
}

impl Fetch {
    /// One line after the other.
    #[inline(always)]
    fn lines(start: *const f32) -> Self {
        Fetch {
            start,
            stride: STRIP,
        }
    }

    #[inline(always)]
    fn line(&self, step: usize) -> *const f32 {
        self.start
            .wrapping_add(step / 2 * self.stride + step % 2 * (STRIP / 2))
    }
}

/// All rows of `store.rows` times a chunk of one panel.
///
/// `depth` counts numbers of the sum. `prefetch` is the panel that will be read next, `ahead` what will be packed next.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub depth: usize,
    pub left: LeftView,
    pub panel: *const f32,
    pub vectors: usize,
    pub prefetch: *const f32,
    pub ahead: [Ahead; 2],
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
        // The next panel's lines come in over the first tiles, one per step of the sum, then what will be packed.
        let turns = match self.prefetch.is_null() {
            true => 0,
            false => (V * S::LANES).div_ceil(16),
        };
        let fetch = |tile: usize| match tile < turns {
            true => Fetch::lines(self.prefetch.wrapping_add(tile * steps * 16)),
            // Nothing more: what is in a cache already costs least.
            false => {
                Ahead::fetch(&self.ahead, tile - turns, steps).unwrap_or(Fetch::lines(self.panel))
            }
        };
        let mut row = 0;
        while row + 6 <= rows {
            // Not in the tile itself, whose sums would then not stay in registers.
            if self.store.far {
                self.store.fetch(simd, row..row + 6);
            }
            simd.call(Tile::<6, V, FORMAT, BY_ROW> {
                block: self,
                row,
                fetch: fetch(row / 6),
            });
            row += 6;
        }
        let fetch = fetch(row / 6);
        match rows - row {
            0 => {}
            1 => simd.call(Tile::<1, V, FORMAT, BY_ROW> {
                block: self,
                row,
                fetch,
            }),
            2 => simd.call(Tile::<2, V, FORMAT, BY_ROW> {
                block: self,
                row,
                fetch,
            }),
            3 => simd.call(Tile::<3, V, FORMAT, BY_ROW> {
                block: self,
                row,
                fetch,
            }),
            4 => simd.call(Tile::<4, V, FORMAT, BY_ROW> {
                block: self,
                row,
                fetch,
            }),
            _ => simd.call(Tile::<5, V, FORMAT, BY_ROW> {
                block: self,
                row,
                fetch,
            }),
        }
    }
}

/// `R` rows from `row` on times `V` vectors of columns. `BY_ROW`: each row's numbers are contiguous;
/// otherwise each step's are.
struct Tile<'a, const R: usize, const V: usize, const FORMAT: usize, const BY_ROW: bool> {
    block: &'a Block<'a>,
    row: usize,
    fetch: Fetch,
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
            simd.prefetch(self.fetch.line(step));
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
