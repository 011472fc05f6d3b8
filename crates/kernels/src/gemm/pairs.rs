//! Rows of numbers as pairs of bf16, for sums over the rows: two loads, one rounding and one permutation for 32 numbers.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use crate::isa::Simd;

/// Rows of `columns` numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub numbers: &'a [f32],
    pub stride: usize,
    pub columns: usize,
}

impl Rows<'_> {
    /// As [`Rows::pair`]; `sums: [columns]` become the sums over the rows.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn pair_and_sum<S: Simd>(
        &self,
        simd: S,
        rows: usize,
        to: *mut f32,
        to_stride: usize,
        sums: Option<&mut [f32]>,
    ) {
        let Some(sums) = sums else {
            // SAFETY: passed on.
            return unsafe { self.pair(simd, rows, to, to_stride) };
        };
        // A few columns of all rows at a time, so that their sums stay in registers.
        let some = 4 * S::LANES;
        for (index, sums) in sums.chunks_mut(some).enumerate() {
            let (to, numbers) = (to.wrapping_add(index * some), &self.numbers[index * some..]);
            let block = Rows {
                numbers,
                stride: self.stride,
                columns: sums.len(),
            };
            // SAFETY: passed on.
            unsafe { block.pair_some_and_sum(simd, rows, to, to_stride, sums) }
        }
    }

    /// The same of at most four vectors of columns.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn pair_some_and_sum<S: Simd>(
        &self,
        simd: S,
        rows: usize,
        to: *mut f32,
        to_stride: usize,
        sums: &mut [f32],
    ) {
        let mut totals = [simd.zero(); 4];
        let row = |row: usize| &self.numbers[row * self.stride..][..self.columns];
        for pair in 0..rows.div_ceil(2) {
            let low = row(2 * pair);
            let high = match 2 * pair + 1 < rows {
                true => row(2 * pair + 1),
                false => &[],
            };
            for v in 0..4 {
                let at = v * S::LANES;
                if at < self.columns {
                    let (low, high) = (
                        simd.load_partial(&low[at..]),
                        simd.load_partial(high.get(at..).unwrap_or(&[])),
                    );
                    totals[v] = simd.add(totals[v], simd.add(low, high));
                    // SAFETY: by this function's contract.
                    unsafe {
                        let to = to.add(pair * to_stride + at);
                        simd.store_raw(to, simd.pairs_bf16(low, high));
                    }
                }
            }
        }
        for (sums, total) in sums.chunks_mut(S::LANES).zip(totals) {
            simd.store_partial(sums, total);
        }
    }

    /// Writes `rows` rows as pairs of bf16, `to_stride` numbers from pair to pair; zero is the partner of an odd last one.
    ///
    /// # Safety
    /// `to` is valid for writing whole vectors of `columns` numbers at each pair.
    #[inline(always)]
    pub unsafe fn pair<S: Simd>(&self, simd: S, rows: usize, to: *mut f32, to_stride: usize) {
        if rows == 0 {
            return;
        }
        assert!(self.numbers.len() >= (rows - 1) * self.stride + self.columns);
        let whole = self.columns / S::LANES * S::LANES;
        let rest = self.columns - whole;
        for pair in 0..rows.div_ceil(2) {
            let low = self.numbers.as_ptr().wrapping_add(2 * pair * self.stride);
            let to = to.wrapping_add(pair * to_stride);
            // SAFETY: both rows lie in `numbers`, the last one ending where was checked; the caller vouches for `to`.
            unsafe {
                if 2 * pair + 1 < rows {
                    let high = low.wrapping_add(self.stride);
                    for at in (0..whole).step_by(S::LANES) {
                        let (low, high) = (simd.load_raw(low.add(at)), simd.load_raw(high.add(at)));
                        simd.store_raw(to.add(at), simd.pairs_bf16(low, high));
                    }
                    if rest > 0 {
                        let low = simd.load_partial_raw(low.add(whole), rest);
                        let high = simd.load_partial_raw(high.add(whole), rest);
                        simd.store_raw(to.add(whole), simd.pairs_bf16(low, high));
                    }
                } else {
                    for at in (0..self.columns).step_by(S::LANES) {
                        let count = S::LANES.min(self.columns - at);
                        let low = simd.load_partial_raw(low.add(at), count);
                        simd.store_raw(to.add(at), simd.pairs_bf16(low, simd.zero()));
                    }
                }
            }
        }
    }
}
