//! Where the micro-kernel's sums go, and what is done to them on the way.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use crate::isa::{Kernel, Simd};
use crate::math;
use std::ops::Range;

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
    /// `out` is large, and likely in no cache: its lines are asked for while the sums are made.
    pub far: bool,
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
            far: false,
        }
    }

    /// Asks for the lines of `out` and `residual` that some of the block's rows go to.
    #[inline(always)]
    pub fn fetch<S: Simd>(&self, simd: S, rows: Range<usize>) {
        for &row in &self.rows[rows] {
            for column in (0..self.columns).step_by(16) {
                simd.prefetch_to_write(self.out.wrapping_add(row + column));
                if !self.residual.is_null() {
                    simd.prefetch_near(self.residual.wrapping_add(row + column));
                }
            }
        }
    }
}

/// With [`INT8`](super::tile::INT8), how sums become numbers: `(sum − correction of the column) · scale of the row · scale of the column`;
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

impl Store<'_> {
    /// Stores the sums of the first `R` of `rows`.
    ///
    /// # Safety
    /// As [`Block::run`](super::tile::Block::run).
    #[inline(always)]
    pub unsafe fn put<S: Simd, const R: usize, const V: usize>(
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
    /// As [`Block::run`](super::tile::Block::run), for whole vectors.
    #[inline(always)]
    unsafe fn bias_or_zero<S: Simd>(&self, simd: S, v: usize) -> S::Vector {
        match self.bias.is_null() {
            true => simd.zero(),
            // SAFETY: passed on.
            false => unsafe { simd.load_raw(self.bias.add(v * S::LANES)) },
        }
    }

    /// # Safety
    /// As [`Block::run`](super::tile::Block::run), for whole panels.
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
    /// As [`Block::run`](super::tile::Block::run).
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
    /// As [`Block::run`](super::tile::Block::run).
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
