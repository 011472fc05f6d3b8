//! The weight's gradient, as the adjoint of the forward pass: `dg = Gᵀ [ (Bᵀ d B) ⊙ (A dy Aᵀ) ] G`.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::{Geometry, SKEW, transform};
use crate::gemm::panels::Panels;
use crate::gemm::tile::{self, Block, LeftView, Store};
use crate::gemm::{Precision, packed};
use crate::isa::{self, Isa, Kernel, Simd};
use crate::pool::{self, SharedMut};
use crate::scratch;

/// Outputs per side of a tile, and places: `F(4×4, 3×3)`.
const M: usize = 4;
const N: usize = 6;

/// Tiles that are transformed before they are multiplied: the length of one pass over the sums, whose
/// 36 matrices of 256 tiles × 128 channels (4.7 MB) stay in the third-level cache.
const BLOCK_TILES: usize = 256;

/// Rows of the product per task: a multiple of the micro-kernel's six.
const BLOCK_ROWS: usize = 96;

/// `dw: [O, I, 3, 3]` from `x: [B, H, W, I]` and `dy: [B, OH, OW, O]`, in f32.
pub(crate) fn weight_gradient(geometry: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let isa = isa::active();
    let panels = packed::panels(isa, geometry.outputs, Precision::F32);
    let tiles = geometry.tiles(M);
    let block = BLOCK_TILES.min(tiles);
    let row_len = geometry.inputs.next_multiple_of(16);
    let sums_place = geometry.inputs * panels.padded();
    let mut sums = scratch::lease(N * N * sums_place);
    if tiles == 0 {
        return dw.fill(0.0);
    }
    let x_place = block * row_len + SKEW;
    let dy_place = (block * panels.padded()).next_multiple_of(16) + SKEW;
    let mut scratch = scratch::lease(N * N * (x_place + dy_place));
    let (x_tiles, dy_tiles) = scratch.split_at_mut(N * N * x_place);
    let pass = Pass {
        geometry,
        x,
        dy,
        isa,
        panels,
        row_len,
        x_place,
        dy_place,
        sums_place,
        x_tiles: SharedMut::new(x_tiles),
        dy_tiles: SharedMut::new(dy_tiles),
        sums: SharedMut::new(&mut sums),
    };
    for start in (0..tiles).step_by(block) {
        pass.block(start..tiles.min(start + block));
    }
    pass.finish(dw);
}

struct Pass<'a> {
    geometry: &'a Geometry,
    x: &'a [f32],
    dy: &'a [f32],
    isa: Isa,
    panels: Panels,
    row_len: usize,
    /// From one place's matrix to the next one's.
    x_place: usize,
    dy_place: usize,
    sums_place: usize,
    /// `Bᵀ d B`: for each place `[tiles][inputs]`.
    x_tiles: SharedMut<f32>,
    /// `A dy Aᵀ`: for each place the panels of `[tiles][outputs]`.
    dy_tiles: SharedMut<f32>,
    /// For each place `[inputs][outputs, padded]`.
    sums: SharedMut<f32>,
}

impl Pass<'_> {
    /// Adds what some tiles contribute to the sums (the first ones set them).
    fn block(&self, tiles: Range<usize>) {
        let parts = (4 * pool::threads()).min(tiles.len());
        pool::parallel_for(parts, |part| {
            let cut = |part: usize| tiles.start + part * tiles.len() / parts;
            self.isa.run(Transform {
                pass: self,
                all: tiles.clone(),
                tiles: cut(part)..cut(part + 1),
            });
        });
        let groups = self.geometry.inputs.div_ceil(BLOCK_ROWS);
        let tasks = N * N * groups * self.panels.count;
        pool::parallel_for(tasks, |task| {
            let (rest, panel) = (task / self.panels.count, task % self.panels.count);
            let (xi, group) = (rest / groups, rest % groups);
            self.isa.run(Multiply {
                pass: self,
                tiles: tiles.clone(),
                xi,
                rows: group * BLOCK_ROWS..self.geometry.inputs.min((group + 1) * BLOCK_ROWS),
                panel,
            });
        });
    }

    /// `Gᵀ u G` of the sums.
    fn finish(&self, dw: &mut [f32]) {
        let dw = SharedMut::new(dw);
        pool::parallel_for(self.geometry.inputs, |input| {
            self.isa.run(Finish {
                pass: self,
                input,
                dw,
            });
        });
    }
}

/// Transforms the inputs and output gradients of `tiles`, which are some of `all`.
struct Transform<'a> {
    pass: &'a Pass<'a>,
    all: Range<usize>,
    tiles: Range<usize>,
}

impl Kernel for Transform<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for tile in self.tiles.clone() {
            self.input(simd, tile);
            self.output_gradient(simd, tile);
        }
    }
}

impl Transform<'_> {
    #[inline(always)]
    fn input<S: Simd>(&self, simd: S, tile: usize) {
        let pass = self.pass;
        let channels = pass.geometry.inputs;
        let sources = pass.geometry.sources::<M, N>(tile);
        let row = (tile - self.all.start) * pass.row_len;
        for channel in (0..channels).step_by(S::LANES) {
            let lanes = S::LANES.min(channels - channel);
            let mut d = [[simd.zero(); N]; N];
            for i in 0..N {
                for j in 0..N {
                    if let Some(at) = sources[i][j] {
                        d[i][j] = simd.load_partial(&pass.x[at + channel..][..lanes]);
                    }
                }
            }
            let v = transform::input_tile::<S, N>(simd, d);
            for xi in 0..N * N {
                let to = pass.x_tiles.pointer(xi * pass.x_place + row + channel);
                // SAFETY: a row has whole vectors, and this task alone has this tile.
                unsafe { simd.store_raw(to, v[xi / N][xi % N]) }
            }
        }
    }

    #[inline(always)]
    fn output_gradient<S: Simd>(&self, simd: S, tile: usize) {
        let pass = self.pass;
        let Geometry {
            out_height,
            out_width,
            outputs,
            ..
        } = *pass.geometry;
        let (picture, row, column) = pass.geometry.place(M, tile);
        for index in 0..pass.panels.count {
            let panel = pass.panels.get(index);
            let at = panel.start * self.all.len() + (tile - self.all.start) * panel.width;
            for v in 0..panel.vectors {
                let start = v * S::LANES;
                let lanes = S::LANES.min(panel.columns - start);
                let mut y = [[simd.zero(); M]; M];
                for i in 0..M.min(out_height - row) {
                    for j in 0..M.min(out_width - column) {
                        let pixel = (picture * out_height + row + i) * out_width + column + j;
                        let from = pixel * outputs + panel.start + start;
                        y[i][j] = simd.load_partial(&pass.dy[from..][..lanes]);
                    }
                }
                let m = transform::output_tile_adjoint::<S, M, N>(simd, y);
                for xi in 0..N * N {
                    let to = pass.dy_tiles.pointer(xi * pass.dy_place + at + start);
                    // SAFETY: a vector of this tile's row in the panel.
                    unsafe { simd.store_raw(to, m[xi / N][xi % N]) }
                }
            }
        }
    }
}

/// `sums[xi][rows, panel] += x_tiles[xi]ᵀ · dy_tiles[xi]` over a block of tiles.
struct Multiply<'a> {
    pass: &'a Pass<'a>,
    tiles: Range<usize>,
    xi: usize,
    rows: Range<usize>,
    panel: usize,
}

impl Kernel for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pass = self.pass;
        let panel = pass.panels.get(self.panel);
        let mut places = [0; BLOCK_ROWS];
        let places = &mut places[..self.rows.len()];
        for (place, row) in places.iter_mut().zip(self.rows.clone()) {
            *place = row * pass.panels.padded();
        }
        let x = pass
            .x_tiles
            .pointer(self.xi * pass.x_place + self.rows.start);
        let depth = self.tiles.len();
        let dy = pass
            .dy_tiles
            .pointer(self.xi * pass.dy_place + panel.start * depth);
        let block = Block {
            depth,
            left: LeftView {
                start: x,
                row_stride: 1,
                depth_stride: pass.row_len,
            },
            panel: dy,
            vectors: panel.vectors,
            prefetch: dy.wrapping_add(depth * panel.width),
            store: Store {
                out: pass.sums.pointer(self.xi * pass.sums_place + panel.start),
                rows: places,
                columns: panel.width,
                accumulate: self.tiles.start > 0,
                carried: std::ptr::null(),
                bias: std::ptr::null(),
                residual: std::ptr::null(),
            },
        };
        // SAFETY: both matrices have a row for each tile; the sums' rows and columns are this task's.
        unsafe { block.run::<S, { tile::F32 }>(simd) }
    }
}

/// One input's row of sums back to the taps of all outputs.
struct Finish<'a> {
    pass: &'a Pass<'a>,
    input: usize,
    dw: SharedMut<f32>,
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pass = self.pass;
        let matrix = transform::weight_matrix::<N>();
        let outputs = pass.geometry.outputs;
        for output in (0..outputs).step_by(S::LANES) {
            let mut u = [[simd.zero(); N]; N];
            for xi in 0..N * N {
                let at = xi * pass.sums_place + self.input * pass.panels.padded() + output;
                // SAFETY: rows are padded to whole vectors, and no task writes the sums any more.
                u[xi / N][xi % N] = unsafe { simd.load_raw(pass.sums.pointer(at)) };
            }
            let g = transform::weight_tile_adjoint::<S, N>(simd, &matrix, u);
            let mut taps = [[0.0; 16]; 9];
            for tap in 0..9 {
                simd.store(&mut taps[tap], g[tap / 3][tap % 3]);
            }
            for lane in 0..S::LANES.min(outputs - output) {
                let at = ((output + lane) * pass.geometry.inputs + self.input) * 9;
                // SAFETY: the nine taps of one output and this task's input.
                let to = unsafe { self.dw.slice(at, 9) };
                for tap in 0..9 {
                    to[tap] = taps[tap][lane];
                }
            }
        }
    }
}
