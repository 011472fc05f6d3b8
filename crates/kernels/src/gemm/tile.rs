//! The micro-kernel: a few rows times one panel, all sums in registers.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use crate::isa::{Kernel, Simd};
use crate::math;

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

/// What happens to the sums of a block of rows × one panel.
#[derive(Clone, Copy)]
pub(crate) struct Store<'a> {
    pub out: *mut f32,
    /// For each row of the block, where in `out` (and `residual`) the panel's first column stands.
    pub rows: &'a [usize],
    /// Real columns of the panel.
    pub columns: usize,
    /// Add to what `out` has.
    pub accumulate: bool,
    /// Sums of earlier steps, added to these: for each row of the block the panel's vectors; or null.
    pub carried: *const f32,
    /// What integers mean.
    pub rescale: Rescale,
    /// The panel's biases, or null.
    pub bias: *const f32,
    /// Added at the same places as `out`, or null.
    pub residual: *const f32,
    /// The panel's first half are values and its second half their gates: `value · gelu(gate)` is stored, which are
    /// half as many `columns`, all of them real.
    pub gated: bool,
}

impl<'a> Store<'a> {
    /// To `out` and nothing else.
    #[inline(always)]
    pub fn plain(out: *mut f32, rows: &'a [usize], columns: usize, accumulate: bool) -> Self {
        Store {
            out,
            rows,
            columns,
            accumulate,
            carried: std::ptr::null(),
            rescale: Rescale::NONE,
            bias: std::ptr::null(),
            residual: std::ptr::null(),
            gated: false,
        }
    }
}

/// With [`INT8`], how sums become numbers: `(sum − correction of the column) · scale of the row · scale of the column`;
/// null otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Rescale {
    /// For each row of the block.
    pub rows: *const f32,
    /// For each column of the panel.
    pub columns: *const f32,
    /// The same, as bits of 32-bit integers.
    pub corrections: *const f32,
}

impl Rescale {
    /// For other formats.
    pub const NONE: Rescale = Rescale {
        rows: std::ptr::null(),
        columns: std::ptr::null(),
        corrections: std::ptr::null(),
    };
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

impl Store<'_> {
    /// Stores the sums of the first `R` of `rows`.
    ///
    /// # Safety
    /// As [`Block::run`].
    #[inline(always)]
    unsafe fn put<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        rows: &[usize],
        sums: [[S::Vector; V]; R],
    ) {
        let rows = &rows[..R];
        let whole = self.columns == V * S::LANES;
        // SAFETY: passed on. The common cases come first, written so that the sums never leave
        // their registers: with short sums the stores weigh as much as the products.
        unsafe {
            if self.gated {
                return self.put_gated(simd, rows, sums);
            }
            if !self.residual.is_null() {
                return match whole && !self.accumulate {
                    true => self.put_onto(simd, rows, sums),
                    false => self.put_any(simd, rows, sums),
                };
            }
            match (whole, self.bias.is_null(), self.accumulate) {
                (true, true, false) => {
                    for r in 0..R {
                        let to = self.out.add(rows[r]);
                        for v in 0..V {
                            simd.store_raw(to.add(v * S::LANES), sums[r][v]);
                        }
                    }
                }
                (true, true, true) => {
                    for r in 0..R {
                        let to = self.out.add(rows[r]);
                        for v in 0..V {
                            let to = to.add(v * S::LANES);
                            simd.store_raw(to, simd.add(sums[r][v], simd.load_raw(to)));
                        }
                    }
                }
                (true, false, false) => {
                    let mut bias = [simd.zero(); V];
                    for v in 0..V {
                        bias[v] = simd.load_raw(self.bias.add(v * S::LANES));
                    }
                    for r in 0..R {
                        let to = self.out.add(rows[r]);
                        for v in 0..V {
                            simd.store_raw(to.add(v * S::LANES), simd.add(sums[r][v], bias[v]));
                        }
                    }
                }
                _ => self.put_any(simd, rows, sums),
            }
        }
    }

    /// The panel's bias at vector `v`, or zeros.
    ///
    /// # Safety
    /// As [`Block::run`], for whole vectors.
    #[inline(always)]
    unsafe fn bias_or_zero<S: Simd>(&self, simd: S, v: usize) -> S::Vector {
        match self.bias.is_null() {
            true => simd.zero(),
            // SAFETY: passed on.
            false => unsafe { simd.load_raw(self.bias.add(v * S::LANES)) },
        }
    }

    /// # Safety
    /// As [`Block::run`], for whole panels.
    #[inline(always)]
    unsafe fn put_onto<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        rows: &[usize],
        sums: [[S::Vector; V]; R],
    ) {
        // SAFETY: passed on.
        unsafe {
            let mut bias = [simd.zero(); V];
            for v in 0..V {
                bias[v] = self.bias_or_zero(simd, v);
            }
            for r in 0..R {
                let (to, residual) = (self.out.add(rows[r]), self.residual.add(rows[r]));
                for v in 0..V {
                    // The residual last, as if it were added to the product's result.
                    let residual = simd.load_raw(residual.add(v * S::LANES));
                    let y = simd.add(simd.add(sums[r][v], bias[v]), residual);
                    simd.store_raw(to.add(v * S::LANES), y);
                }
            }
        }
    }

    /// # Safety
    /// As [`Block::run`].
    #[inline(always)]
    unsafe fn put_gated<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        rows: &[usize],
        sums: [[S::Vector; V]; R],
    ) {
        // By way of memory: the gate is too much code to be there for each sum, and where there is a loop over sums
        // they do not stay in registers, not even while they are summed.
        let mut lines = [0.0; 6 * 64];
        const { assert!(R <= 6 && V * S::LANES <= 64) }
        for r in 0..R {
            for v in 0..V {
                // SAFETY: by the assertion.
                unsafe {
                    simd.store_raw(lines.as_mut_ptr().add((r * V + v) * S::LANES), sums[r][v])
                }
            }
        }
        simd.call(Gate {
            store: self,
            rows,
            lines: &lines[..R * V * S::LANES],
        });
    }

    /// # Safety
    /// As [`Block::run`].
    #[inline(always)]
    unsafe fn put_any<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        rows: &[usize],
        sums: [[S::Vector; V]; R],
    ) {
        for (&row, sums) in rows.iter().zip(&sums) {
            for (v, &sum) in sums.iter().enumerate() {
                let (at, count) = (v * S::LANES, (self.columns - v * S::LANES).min(S::LANES));
                // SAFETY: passed on; `at + count <= columns`.
                unsafe {
                    let mut y = sum;
                    if !self.bias.is_null() {
                        y = simd.add(y, simd.load_partial_raw(self.bias.add(at), count));
                    }
                    let to = self.out.add(row + at);
                    if self.accumulate {
                        y = simd.add(y, simd.load_partial_raw(to, count));
                    }
                    // Last, as if it were added to the product's result.
                    if !self.residual.is_null() {
                        let residual = self.residual.add(row + at);
                        y = simd.add(y, simd.load_partial_raw(residual, count));
                    }
                    simd.store_partial_raw(to, y, count);
                }
            }
        }
    }
}

/// The values and gates of some rows' sums, as [`Store::gated`] says.
struct Gate<'a> {
    store: &'a Store<'a>,
    rows: &'a [usize],
    /// The sums of each row, one after the other.
    lines: &'a [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.lines.len() / self.rows.len();
        let half = width / 2;
        debug_assert!(half == self.store.columns && half.is_multiple_of(S::LANES));
        for at in (0..half).step_by(S::LANES) {
            let (v, gate) = (at / S::LANES, (half + at) / S::LANES);
            // SAFETY: a gated panel has `width` biases, if any, and `half` columns at each row of `out`.
            unsafe {
                let value_bias = self.store.bias_or_zero(simd, v);
                let gate_bias = self.store.bias_or_zero(simd, gate);
                for (line, &row) in self.lines.chunks_exact(width).zip(self.rows) {
                    let value = simd.add(simd.load(&line[at..]), value_bias);
                    let gate = simd.add(simd.load(&line[half + at..]), gate_bias);
                    let y = simd.mul(value, math::gelu(simd, gate));
                    simd.store_raw(self.store.out.add(row + at), y);
                }
            }
        }
    }
}
