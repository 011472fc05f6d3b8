//! The gradient of a weight in bf16: `dw = dyᵀ · x`, a sum over rows (pixels), of which a dot product takes two.
//!
//! Both factors are packed in pairs of rows, a piece of the sum at a time, by the task that multiplies them: memory
//! is read once for each block of the result, and the pairs stay in the second-level cache. The columns of `dy` are
//! summed on the way, for the gradient of a bias.

use std::ops::Range;

use super::pairs::Rows;
use super::panels::{Panel, Panels};
use super::tile::{self, Ahead, Block, LeftView, Store};
use super::{Precision, packed};
use crate::conv::patches::Patches;
use crate::elementwise::{combine, sum_rows_unnoted};
use crate::gemm::operands::Window;
use crate::isa::{Isa, Kernel, Simd};
use crate::pool;
use crate::scratch;
use crate::shared::SharedMut;

/// Rows that are packed at a time: 128 pairs × 64 columns × 4 bytes = 32 KiB, a first-level cache, per panel.
const CHUNK: usize = 256;

/// Outputs per task: with 128 pairs 96 KiB.
const BLOCK_OUTPUTS: usize = 192;

/// Panels of columns per task: 192 KiB of pairs, and 288 KiB of sums, in a second-level cache of 1 MiB.
const GROUP_PANELS: usize = 6;

/// Tasks that the work is cut into at least, where the sum is long enough.
const TASKS: usize = 16;

/// Rows of patches that are gathered at a time.
const GATHERED: usize = 16;

/// Products below this many multiply-adds run on the calling thread.
const PARALLEL_WORK: usize = 1 << 19;

/// The second factor, `[rows, columns]`.
#[derive(Clone, Copy)]
pub(crate) enum Inputs<'a> {
    /// As it lies.
    Rows(&'a [f32]),
    /// The patches of a picture.
    Patches(&'a Patches<'a>),
}

/// `dw: [outputs, columns]` = Σ over the rows of `dy: [rows, outputs]` times `x: [rows, columns]`.
pub(crate) struct WeightGradient<'a> {
    pub rows: usize,
    pub outputs: usize,
    pub columns: usize,
    pub dy: &'a [f32],
    pub x: Inputs<'a>,
}

impl WeightGradient<'_> {
    /// Rounds both factors to bf16 and multiplies; `db: [outputs]` are the sums of `dy` as it is. All sums are cut into
    /// pieces that depend on the shape alone, and the pieces are added in order: results do not depend on the number of
    /// threads.
    ///
    /// # Panics
    /// When `isa` has no bf16 dot product.
    pub fn run(&self, isa: Isa, dw: &mut [f32], db: Option<&mut [f32]>) {
        assert_eq!(self.dy.len(), self.rows * self.outputs);
        assert_eq!(dw.len(), self.outputs * self.columns);
        if let Inputs::Rows(x) = self.x {
            assert_eq!(x.len(), self.rows * self.columns);
        }
        let chunks = self.rows.div_ceil(CHUNK);
        if dw.is_empty() || chunks == 0 {
            dw.fill(0.0);
            if let Some(db) = db {
                sum_rows_unnoted(self.rows, self.outputs, self.dy, db);
            }
            return;
        }
        let panels = packed::panels(isa, self.columns, Precision::F32);
        let blocks = self.outputs.div_ceil(BLOCK_OUTPUTS);
        let block = self.outputs.div_ceil(blocks).next_multiple_of(6);
        let blocks = self.outputs.div_ceil(block);
        let groups = panels.count.div_ceil(GROUP_PANELS);
        let slabs = TASKS.div_ceil(blocks * groups).min(chunks);
        let part = |index: usize| {
            let (slab, place) = (index / (blocks * groups), index % (blocks * groups));
            let (group, first) = (place / blocks, place % blocks * block);
            Part {
                outputs: first..self.outputs.min(first + block),
                group: group * panels.count / groups..(group + 1) * panels.count / groups,
                chunks: slab * chunks / slabs..(slab + 1) * chunks / slabs,
            }
        };
        let threads = pool::threads();
        let mut bias_sums = vec![0.0; chunks * self.outputs];
        let shared = SharedMut::new(&mut bias_sums);
        let multiply = |sums: &mut [f32]| {
            let sums = SharedMut::new(sums);
            let tasks = slabs * blocks * groups;
            let task = |index: usize| {
                let (slab, this) = (index / (blocks * groups), part(index));
                isa.run_bf16(Task {
                    work: self,
                    panels,
                    bias_sums: (this.group.start == 0).then_some(shared),
                    part: this,
                    // The thread's next task is likely the one after those of the others.
                    next: part((index + threads).min(tasks - 1)),
                    sums,
                    start: slab * self.outputs * self.columns,
                });
            };
            let pay = self.rows * self.outputs * self.columns >= PARALLEL_WORK;
            pool::parallel_if(pay, tasks, task);
        };
        if slabs == 1 {
            multiply(dw);
        } else {
            let mut partial = scratch::lease(slabs * dw.len());
            multiply(&mut partial);
            let (partial, len) = (&*partial, dw.len());
            pool::parallel_chunks_mut(dw, 1 << 14, |chunk, dw| {
                let start = chunk << 14;
                dw.copy_from_slice(&partial[start..][..dw.len()]);
                for slab in partial.chunks_exact(len).skip(1) {
                    for (sum, &x) in dw.iter_mut().zip(&slab[start..]) {
                        *sum += x;
                    }
                }
            });
        }
        if let Some(db) = db {
            combine(&bias_sums, self.outputs, db);
        }
    }
}

/// Some outputs and some panels of columns, over a slab of the sum.
struct Part {
    outputs: Range<usize>,
    group: Range<usize>,
    chunks: Range<usize>,
}

/// Computes a part.
struct Task<'a> {
    work: &'a WeightGradient<'a>,
    panels: Panels,
    part: Part,
    /// What the thread will do next.
    next: Part,
    /// Each task writes rows and columns of its own slab's sums, which begin at `start`.
    sums: SharedMut<f32>,
    start: usize,
    /// Where the sums of each chunk's `dy` go, if this task is the one to make them.
    bias_sums: Option<SharedMut<f32>>,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let work = self.work;
        let Part {
            outputs,
            group,
            chunks,
        } = &self.part;
        let first = self.panels.get(group.start);
        let last = self.panels.get(group.end - 1);
        let columns = self.columns(group);
        let width = last.start + last.width - first.start;
        let left_stride = outputs.len().next_multiple_of(16);
        let gathered = match work.x {
            Inputs::Rows(_) => 0,
            Inputs::Patches(_) => GATHERED * columns.len(),
        };
        let mut memory = scratch::lease(CHUNK / 2 * (left_stride + width) + gathered);
        let (left, rest) = memory.split_at_mut(CHUNK / 2 * left_stride);
        let (right, gathered) = rest.split_at_mut(CHUNK / 2 * width);
        let mut places = [0; BLOCK_OUTPUTS + 6];
        let places = &mut places[..outputs.len()];
        for (place, output) in places.iter_mut().zip(outputs.clone()) {
            *place = self.start + output * work.columns;
        }
        let out = self
            .sums
            .rows(columns.start, places.iter().copied(), columns.len());
        for chunk in chunks.clone() {
            let ahead = match chunk + 1 < chunks.end {
                true => self.ahead(chunk + 1, &self.part),
                false => self.ahead(self.next.chunks.start, &self.next),
            };
            let row = chunk * CHUNK;
            let rows = CHUNK.min(work.rows - row);
            let pairs = rows.div_ceil(2);
            let dy = Rows {
                numbers: &work.dy[row * work.outputs + outputs.start..],
                stride: work.outputs,
                columns: outputs.len(),
            };
            let bias_sums = self.bias_sums.map(|sums| {
                let start = chunk * work.outputs + outputs.start;
                // SAFETY: of the tasks with this chunk and these outputs one has the sums.
                unsafe { sums.slice(start, outputs.len()) }
            });
            // SAFETY: the left-hand scratch has `left_stride` numbers, whole vectors, for each pair.
            unsafe { dy.pair_and_sum(simd, rows, left.as_mut_ptr(), left_stride, bias_sums) }
            self.pack_inputs(simd, (row, rows), columns.clone(), right, gathered);
            for index in group.clone() {
                let panel = self.panels.get(index);
                let packed = &right[(panel.start - first.start) * pairs..][..pairs * panel.width];
                let out = out.wrapping_add(panel.start - columns.start);
                let block = Block {
                    depth: rows,
                    left: LeftView {
                        start: left.as_ptr(),
                        row_stride: 1,
                        depth_stride: left_stride,
                    },
                    panel: packed.as_ptr(),
                    vectors: panel.vectors,
                    // The next panel is in the second-level cache.
                    prefetch: std::ptr::null(),
                    ahead: ahead.map(|ahead| ahead.part(index - group.start, group.len())),
                    store: Store::plain(out, places, panel.columns, chunk > chunks.start),
                };
                // SAFETY: both sides have `pairs` steps, and the sums' rows and columns are this task's own.
                unsafe { block.run::<S, { tile::DOT }>(simd) }
            }
        }
    }
}

impl Task<'_> {
    /// The columns of some panels.
    fn columns(&self, group: &Range<usize>) -> Range<usize> {
        let last = self.panels.get(group.end - 1);
        self.panels.get(group.start).start..last.start + last.columns
    }

    /// What will be packed of a chunk.
    fn ahead(&self, chunk: usize, part: &Part) -> [Ahead; 2] {
        let work = self.work;
        let row = chunk * CHUNK;
        let rows = |x: &[f32], stride: usize, columns: Range<usize>| Ahead {
            start: x[row * stride + columns.start..].as_ptr(),
            stride,
            rows: CHUNK.min(work.rows - row),
            columns: columns.len(),
        };
        let x = match work.x {
            Inputs::Rows(x) => rows(x, work.columns, self.columns(&part.group)),
            Inputs::Patches(_) => Ahead::NONE,
        };
        [rows(work.dy, work.outputs, part.outputs.clone()), x]
    }

    /// Packs the group's columns of some rows of the inputs, panel after panel.
    #[inline(always)]
    fn pack_inputs<S: Simd>(
        &self,
        simd: S,
        (row, rows): (usize, usize),
        columns: Range<usize>,
        to: &mut [f32],
        gathered: &mut [f32],
    ) {
        let (all, pairs) = (self.work.columns, rows.div_ceil(2));
        match self.work.x {
            Inputs::Rows(x) => {
                let source = Rows {
                    numbers: &x[row * all + columns.start..],
                    stride: all,
                    columns: columns.len(),
                };
                self.pack_panels(simd, source, (0, rows), pairs, to);
            }
            Inputs::Patches(patches) => {
                for first in (0..rows).step_by(GATHERED) {
                    let count = GATHERED.min(rows - first);
                    let window = Window {
                        row: row + first,
                        rows: count,
                        column: columns.start,
                        columns: columns.len(),
                    };
                    debug_assert!(gathered.len() >= count * columns.len());
                    // SAFETY: there is room for as many rows of the group's columns.
                    unsafe { patches.copy(simd, window, gathered.as_mut_ptr(), columns.len()) }
                    let source = Rows {
                        numbers: gathered,
                        stride: columns.len(),
                        columns: columns.len(),
                    };
                    self.pack_panels(simd, source, (first, count), pairs, to);
                }
            }
        }
    }

    /// Packs rows `first..first + count` of a chunk of `pairs` pairs, the source holding the group's columns of them.
    #[inline(always)]
    fn pack_panels<S: Simd>(
        &self,
        simd: S,
        source: Rows,
        (first, count): (usize, usize),
        pairs: usize,
        to: &mut [f32],
    ) {
        let start = self.panels.get(self.part.group.start).start;
        for pair in 0..count.div_ceil(2) {
            for index in self.part.group.clone() {
                let Panel {
                    start: column,
                    width,
                    columns,
                    ..
                } = self.panels.get(index);
                let at = (column - start) * pairs + (first / 2 + pair) * width;
                let to = &mut to[at..][..width];
                let source = Rows {
                    numbers: &source.numbers[2 * pair * source.stride + column - start..],
                    columns,
                    ..source
                };
                // SAFETY: a panel's row has whole vectors.
                unsafe { source.pair(simd, 2.min(count - 2 * pair), to.as_mut_ptr(), width) }
            }
        }
    }
}
