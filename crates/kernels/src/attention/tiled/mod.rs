//! Attention with bf16 products on the matrix unit.
//!
//! As elsewhere 32 queries stand in the columns and keys in the rows, but the scores of all keys are
//! kept for one strip of queries at a time: `Sᵀ = K·Qᵀ`, an ordinary softmax down the columns, and
//! `Oᵀ = Vᵀ·Pᵀ`. At 4096 keys that is half a megabyte in the second-level cache.
//!
//! Left-hand sides are rows of bf16 (keys, or channels after a transposition), right-hand ones pairs
//! of rows; all sizes are rounded up to 32 with zeros.

mod backward;
mod forward;

pub(super) use backward::backward;
pub(super) use forward::forward;

use crate::isa::Simd;
use crate::isa::amx::{Block, Step, Tiles};

/// Queries per strip, the step in all sizes.
const SIDE: usize = 32;

fn round_up(n: usize) -> usize {
    n.next_multiple_of(SIDE)
}

/// Distance of transposed rows of `n` numbers: an odd number of cache lines, which spread over the
/// sets of the cache.
fn turned_stride(n: usize) -> usize {
    SIDE * (n.div_ceil(SIDE) | 1)
}

/// Writes `factor · x` as bf16 rows of `round_up(d)` numbers: `count` rows of `d` numbers, `stride` apart,
/// then zeros up to `round_up(count)` rows.
///
/// # Safety
/// `to` is valid for writing `round_up(count) · round_up(d)` numbers.
#[inline(always)]
unsafe fn round_rows<S: Simd>(
    simd: S,
    x: &[f32],
    stride: usize,
    (count, d): (usize, usize),
    factor: f32,
    to: *mut u16,
) {
    let (width, factor) = (round_up(d), simd.splat(factor));
    for i in 0..count {
        let row = &x[i * stride..][..d];
        for at in (0..width).step_by(S::LANES) {
            let x = simd.load_partial(row.get(at..).unwrap_or(&[]));
            // SAFETY: whole vectors fit into the row.
            unsafe { simd.store_bf16_raw(to.add(i * width + at), simd.mul(x, factor)) }
        }
    }
    // SAFETY: the rows after the last.
    unsafe {
        to.add(count * width)
            .write_bytes(0, (round_up(count) - count) * width)
    }
}

/// Transposes bf16 rows `[rows, columns]` (multiples of 32) to `[columns]` rows `stride` apart.
///
/// # Safety
/// `from` and `to` are valid for that.
#[inline(always)]
unsafe fn turn<S: Simd>(
    simd: S,
    from: *const u16,
    (rows, columns): (usize, usize),
    to: *mut u16,
    stride: usize,
) {
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

/// Pairs of neighbouring numbers of 32 bf16 rows of `width` numbers, transposed: `[width / 2][32]`.
///
/// # Safety
/// `from` is valid for reading `32 · width` numbers, `to` for writing `width / 2 · 32` pairs.
#[inline(always)]
unsafe fn turn_pairs(from: *const u16, width: usize, to: *mut u32) {
    let from = from.cast::<u32>();
    for row in 0..SIDE {
        for pair in 0..width / 2 {
            // SAFETY: by this function's contract; a pair of 16-bit numbers need not be aligned.
            unsafe {
                let x = from.add(row * (width / 2) + pair).read_unaligned();
                to.add(pair * SIDE + row).write(x);
            }
        }
    }
}

/// Pairs of f32 rows of 32 numbers, rounded: `[rows / 2][32]`. `to` may be `from`.
///
/// # Safety
/// `from` is valid for reading `rows · 32` numbers, `to` for writing half as many pairs.
#[inline(always)]
unsafe fn pair_rows<S: Simd>(simd: S, from: *const f32, rows: usize, to: *mut f32) {
    for pair in 0..rows / 2 {
        // SAFETY: by this function's contract; in place, a pair is written where or before it was read.
        unsafe {
            let mut both = [[simd.zero(); 4]; 2];
            for (i, at) in (0..SIDE).step_by(S::LANES).enumerate() {
                both[0][i] = simd.load_raw(from.add(2 * pair * SIDE + at));
                both[1][i] = simd.load_raw(from.add((2 * pair + 1) * SIDE + at));
            }
            for (i, at) in (0..SIDE).step_by(S::LANES).enumerate() {
                simd.store_raw(
                    to.add(pair * SIDE + at),
                    simd.pairs_bf16(both[0][i], both[1][i]),
                );
            }
        }
    }
}

/// A product of a left-hand matrix of bf16 rows, `stride` apart, with pairs of rows of 32 columns
/// that are `right_stride` pairs apart.
#[derive(Clone, Copy)]
struct Product {
    left: *const u16,
    stride: usize,
    right: *const u32,
    right_stride: usize,
}

impl Product {
    /// `sums: [rows][32]` (a multiple of 32 rows) from `steps` times 32 terms.
    ///
    /// # Safety
    /// The operands are valid for `rows` and `steps`, and `sums` for reading and writing.
    #[inline(always)]
    unsafe fn run(
        &self,
        tiles: &Tiles,
        rows: usize,
        steps: &[Step],
        sums: *mut f32,
        accumulate: bool,
    ) {
        for row in (0..rows).step_by(SIDE) {
            // SAFETY: passed on.
            unsafe {
                let block = Block {
                    left: self.left.add(row * self.stride),
                    left_stride: 2 * self.stride,
                    right: self.right,
                    right_stride: 4 * self.right_stride,
                    steps,
                    sums: sums.add(row * SIDE),
                    accumulate,
                };
                block.run(tiles, 2, 2);
            }
        }
    }
}
