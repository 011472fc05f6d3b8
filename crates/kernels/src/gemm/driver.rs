//! Blocking: which task multiplies which rows by which panels.

use super::Epilogue;
use super::operands::{Left, Right};
use super::panels::Panels;
use super::task::Task;
use super::tile::{self, Ahead};
use crate::isa::Isa;
use crate::pool;
use crate::shared::SharedMut;
use crate::tiles;

/// Rows per task: 192 rows × 128 steps × 4 bytes = 96 KiB of left-hand numbers in the second-level
/// cache, and enough rows to pay for reading (or packing) a panel.
pub(super) const BLOCK_ROWS: usize = 192;

/// Bytes of a block of left-hand numbers that is rounded, to bf16 or bytes, for all panels: three quarters of the
/// second-level cache.
const ROUNDED_BYTES: usize = 768 << 10;

/// Numbers of the next block of rows that are fetched while a block is multiplied: a quarter of the second-level cache.
const AHEAD: usize = 1 << 16;

/// Products below this many multiply-adds run on the calling thread (tens of microseconds, the
/// order of waking another one).
const PARALLEL_WORK: usize = 1 << 19;

/// Where the rows of the product go in `out`.
#[derive(Clone, Copy)]
pub(crate) enum OutRows<'a> {
    /// One after the other.
    Contiguous,
    /// Row `r` goes to row `map(r)` of `out`.
    Mapped(&'a (dyn Fn(usize) -> usize + Sync)),
}

/// A piece of the sum: columns of the left matrix from `left` on meet rows of the right one from
/// `right` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub left: usize,
    pub right: usize,
    pub len: usize,
}

/// `out = left[m, k] · right[k, n]` with everything around it.
pub(crate) struct Product<'a> {
    pub m: usize,
    /// Columns of the left matrix.
    pub left_k: usize,
    /// Rows of the right matrix.
    pub right_k: usize,
    pub left: Left<'a>,
    pub right: Right<'a>,
    pub panels: Panels,
    pub segments: &'a [Segment],
    pub rows: OutRows<'a>,
    pub epilogue: Epilogue<'a>,
    pub accumulate: bool,
    /// Each panel has values and their gates, of which half as many columns are stored: see [`Store`].
    pub gated: bool,
}

/// A cut of the work; see [`Product::plan`].
#[derive(Clone, Copy)]
struct Plan {
    block_rows: usize,
    blocks: usize,
    groups: usize,
    parallel: bool,
}

impl Product<'_> {
    /// Multiplies with the instruction set that the panels were cut for.
    pub fn run(&self, isa: Isa, out: &mut [f32]) {
        let n = self.panels.n;
        if self.m == 0 || n == 0 {
            return;
        }
        if isa.has_tiles() && tiles::run(self, out) {
            return;
        }
        let format = self.right.format(isa.has_bf16_dot());
        let plan = self.plan(format);
        let Epilogue { bias, residual } = self.epilogue;
        debug_assert!(bias.is_none_or(|bias| bias.len() == n));
        debug_assert!(residual.is_none_or(|residual| residual.len() == out.len()));
        let out = SharedMut::new(out);
        let threads = pool::threads();
        let dotted = format == tile::DOT || (format == tile::INT8 && isa.has_dot_products());
        let task = |index: usize| {
            // Neighbouring tasks share panels.
            let (group, block) = (index / plan.blocks, index % plan.blocks);
            let row = block * plan.block_rows;
            // The thread's next task is likely the one after those of the others.
            let next = self.m.min((block + threads) * plan.block_rows);
            let task = Task {
                product: self,
                out,
                row,
                rows: plan.block_rows.min(self.m - row),
                panels: (
                    group * self.panels.count / plan.groups,
                    (group + 1) * self.panels.count / plan.groups,
                ),
                format,
                ahead: self.rows_from(next, format),
            };
            if dotted {
                isa.run_bf16(task)
            } else {
                isa.run(task)
            }
        };
        pool::parallel_if(plan.parallel, plan.blocks * plan.groups, task);
    }

    /// The first rows of a block that will be rounded for all panels.
    fn rows_from(&self, row: usize, format: usize) -> Ahead {
        match self.left {
            Left::Rows(a) if self.by_panels() && matches!(format, tile::DOT | tile::INT8) => {
                let a = &a[row * self.left_k..];
                Ahead::all(&a[..a.len().min(AHEAD)])
            }
            _ => Ahead::NONE,
        }
    }

    /// Whether each panel is multiplied to its end before the next one, its sums staying in a cache: where
    /// the left-hand rows lie whole. Patches are gathered piece by piece instead, each piece for all panels.
    pub(super) fn by_panels(&self) -> bool {
        matches!(self.left, Left::Rows(_)) && self.right.is_packed() && self.segments.len() == 1
    }

    /// Cuts rows and columns, never the sum: results do not depend on the number of threads.
    fn plan(&self, format: usize) -> Plan {
        let depth: usize = self.segments.iter().map(|s| s.len).sum();
        let parallel = self.m * self.panels.n * depth.max(1) >= PARALLEL_WORK;
        let threads = if parallel { pool::threads() } else { 1 };
        let most_rows = match format {
            tile::DOT if self.by_panels() => ROUNDED_BYTES / (2 * depth.max(1)),
            tile::INT8 => ROUNDED_BYTES / depth.max(1),
            _ => BLOCK_ROWS,
        };
        let most_rows = most_rows.clamp(24, BLOCK_ROWS);
        let mut blocks = self.m.div_ceil(most_rows);
        if threads > 1 && blocks * self.panels.count < threads {
            blocks = threads.min(self.m.div_ceil(6));
        } else if blocks >= threads && blocks < 8 * threads {
            blocks = blocks.next_multiple_of(threads);
        }
        let block_rows = self.m.div_ceil(blocks).next_multiple_of(6);
        let blocks = self.m.div_ceil(block_rows);
        // With few blocks of rows the columns are shared out too, four tasks per thread.
        let groups = match threads {
            1 => 1,
            _ if blocks >= 4 * threads => 1,
            _ => (4 * threads).div_ceil(blocks).min(self.panels.count),
        };
        Plan {
            block_rows,
            blocks,
            groups,
            parallel,
        }
    }
}
