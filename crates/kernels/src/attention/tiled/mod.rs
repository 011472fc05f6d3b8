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

use crate::isa::amx::{Block, Step, Tiles};

/// Queries per strip, the step in all sizes.
const SIDE: usize = super::rounded::SIDE;

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
