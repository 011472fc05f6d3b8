//! Matrices of bf16 numbers made from f32 ones: rows, their transposes, and pairs of rows.

use crate::isa::Simd;

/// The step in all sizes.
pub(super) const SIDE: usize = 32;

pub(super) fn round_up(n: usize) -> usize {
    n.next_multiple_of(SIDE)
}

/// Distance of transposed rows of `n` numbers: an odd number of cache lines, which spread over the
/// sets of the cache.
pub(super) fn turned_stride(n: usize) -> usize {
    SIDE * (n.div_ceil(SIDE) | 1)
}

/// Writes `factor · x` as bf16 rows of `round_up(d)` numbers: `count` rows of `d` numbers, `stride` apart,
/// then zeros up to `round_up(count)` rows. Each place of `to` takes two.
#[inline(always)]
pub(super) fn round_rows<S: Simd>(
    simd: S,
    x: &[f32],
    stride: usize,
    (count, d): (usize, usize),
    factor: f32,
    to: &mut [f32],
) {
    let (width, factor) = (round_up(d), simd.splat(factor));
    assert!(2 * to.len() >= round_up(count) * width);
    let to = to.as_mut_ptr().cast::<u16>();
    for i in 0..count {
        let row = &x[i * stride..][..d];
        for at in (0..width).step_by(S::LANES) {
            let x = simd.load_partial(row.get(at..).unwrap_or(&[]));
            // SAFETY: whole vectors fit into the row, which fits into `to`, as was checked.
            unsafe { simd.store_bf16_raw(to.add(i * width + at), simd.mul(x, factor)) }
        }
    }
    // SAFETY: the rows after the last, as was checked too.
    unsafe {
        to.add(count * width)
            .write_bytes(0, (round_up(count) - count) * width)
    }
}

/// Transposes bf16 rows `[rows, columns]` (multiples of 32) to `[columns]` rows `stride` apart.
///
/// # Safety
/// `to` is valid for that.
#[inline(always)]
pub(super) unsafe fn turn<S: Simd>(
    simd: S,
    from: &[f32],
    (rows, columns): (usize, usize),
    to: *mut u16,
    stride: usize,
) {
    assert!(2 * from.len() >= rows * columns);
    let from = from.as_ptr().cast::<u16>();
    for row in (0..rows).step_by(SIDE) {
        for column in (0..columns).step_by(SIDE) {
            // SAFETY: by this function's contract.
            unsafe {
                let from = from.add(row * columns + column);
                simd.transpose_bf16((from, columns), (to.add(column * stride + row), stride));
            }
        }
    }
}

/// Makes pairs of neighbouring rows of `lanes` numbers, rounded, in place: `[rows / 2][lanes]`, zero for the
/// partner that a last odd row has not.
#[inline(always)]
pub(super) fn pair_rows<S: Simd>(simd: S, x: &mut [f32], rows: usize, lanes: usize) {
    for pair in 0..rows.div_ceil(2) {
        for at in (0..lanes).step_by(S::LANES) {
            let low = simd.load(&x[2 * pair * lanes + at..]);
            let high = match 2 * pair + 1 < rows {
                true => simd.load(&x[(2 * pair + 1) * lanes + at..]),
                false => simd.zero(),
            };
            // Written where, or before where, it was read; whole rows of later pairs come after.
            simd.store(&mut x[pair * lanes + at..], simd.pairs_bf16(low, high));
        }
    }
}
