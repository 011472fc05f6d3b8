//! The weight's gradient, as the adjoint of the forward pass: `dg = Gᵀ [ (Bᵀ d B) ⊙ (A dy Aᵀ) ] G`.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::gradient_tiles::Transform;
use super::{Geometry, SKEW, Tile, transform};
use crate::elementwise::combine;
use crate::gemm::panels::Panels;
use crate::gemm::task::CHUNK_STEPS;
use crate::gemm::tile::{self, Ahead, Block, LeftView, Store};
use crate::gemm::{Precision, packed};
use crate::isa::{self, Isa, Kernel, Simd};
use crate::pool;
use crate::scratch;
use crate::shared::SharedMut;

/// Numbers of 32 bits in the transformed tiles that are multiplied at a time: 8 MiB, which stay in the third-level cache.
const BLOCK_NUMBERS: usize = 2 << 20;

/// Tiles at a time, between which the sums are read and written once: fewer would make them weigh more than the
/// products, more would bring nothing.
const BLOCK_TILES: Range<usize> = 256..1024;

/// Rows of the product per task: a multiple of the micro-kernel's six.
const BLOCK_ROWS: usize = 96;

/// Steps of the tiles per task of the first transform. The gradient of a bias is summed in pieces of as many.
const TRANSFORM_STEPS: usize = 16;

/// Inputs per task of the last transform.
const FINISH_INPUTS: usize = 32;

/// `dw: [O, I, 3, 3]` from `x: [B, H, W, I]` and `dy: [B, OH, OW, O]`, and `db: [O]`, the sums of `dy`. With
/// [`Precision::Bf16`], on a CPU with a dot product, the transformed numbers are rounded to bf16.
pub(crate) fn weight_gradient(
    geometry: &Geometry,
    tile: Tile,
    precision: Precision,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    db: Option<&mut [f32]>,
) {
    match tile {
        Tile::F2 => run::<2, 4>(geometry, precision, x, dy, dw, db),
        Tile::F4 => run::<4, 6>(geometry, precision, x, dy, dw, db),
    }
}

fn run<const M: usize, const N: usize>(
    geometry: &Geometry,
    precision: Precision,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    db: Option<&mut [f32]>,
) {
    let isa = isa::active();
    let format = match precision {
        Precision::Bf16 if isa.has_bf16_dot() => tile::DOT,
        _ => tile::F32,
    };
    let panels = packed::panels(isa, geometry.outputs, Precision::F32);
    let tiles = geometry.tiles(M);
    if tiles == 0 {
        dw.fill(0.0);
        return db.unwrap_or_default().fill(0.0);
    }
    let row_len = geometry.inputs.next_multiple_of(16);
    let per_tile = N * N * (row_len + panels.padded()) / if format == tile::DOT { 2 } else { 1 };
    let block = (BLOCK_NUMBERS / per_tile).clamp(BLOCK_TILES.start, BLOCK_TILES.end);
    // Equal blocks, of whole pairs of tiles.
    let blocks = tiles.div_ceil(block);
    let block = tiles.div_ceil(blocks).next_multiple_of(2);
    let steps = tile::steps(format, block);
    let sums_place = geometry.inputs * panels.padded();
    let x_place = steps * row_len + SKEW;
    let dy_place = (steps * panels.padded()).next_multiple_of(16) + SKEW;
    let mut sums = scratch::lease(N * N * sums_place);
    let mut scratch = scratch::lease(N * N * (x_place + dy_place));
    let (x_tiles, dy_tiles) = scratch.split_at_mut(N * N * x_place);
    let zeros = vec![0.0; row_len.max(panels.padded())];
    let bias_rows = steps.div_ceil(TRANSFORM_STEPS) * panels.padded();
    let mut bias_sums = vec![0.0; blocks * bias_rows];
    let pass = Pass::<M, N> {
        geometry,
        x,
        dy,
        zeros: &zeros,
        isa,
        format,
        panels,
        row_len,
        x_place,
        dy_place,
        sums_place,
    };
    let starts = (0..tiles).step_by(block);
    for (start, bias_sums) in starts.zip(bias_sums.chunks_exact_mut(bias_rows)) {
        let tiles = start..tiles.min(start + block);
        pass.block(tiles, x_tiles, dy_tiles, &mut sums, bias_sums);
    }
    pass.finish(&sums, dw);
    if let Some(db) = db {
        combine(&bias_sums, panels.padded(), db);
    }
}

pub(super) struct Pass<'a, const M: usize, const N: usize> {
    pub geometry: &'a Geometry,
    pub x: &'a [f32],
    pub dy: &'a [f32],
    /// What is read outside the picture: a pixel's numbers.
    pub zeros: &'a [f32],
    pub isa: Isa,
    /// [`tile::F32`] or [`tile::DOT`].
    pub format: usize,
    pub panels: Panels,
    pub row_len: usize,
    /// From one place's matrix to the next one's.
    pub x_place: usize,
    pub dy_place: usize,
    pub sums_place: usize,
}

impl<const M: usize, const N: usize> Pass<'_, M, N> {
    /// Adds what some tiles contribute to `sums`, for each place `[inputs][outputs, padded]` (the first ones set them).
    /// `x_tiles` takes `Bᵀ d B`, for each place `[steps][inputs]`, a step being a tile or a pair of tiles; `dy_tiles` takes
    /// `A dy Aᵀ`, for each place the panels of `[steps][outputs]`; `bias_sums` the sums of `dy` over each task's steps.
    fn block(
        &self,
        tiles: Range<usize>,
        x_tiles: &mut [f32],
        dy_tiles: &mut [f32],
        sums: &mut [f32],
        bias_sums: &mut [f32],
    ) {
        let steps = tile::steps(self.format, tiles.len());
        let shared = [SharedMut::new(x_tiles), SharedMut::new(dy_tiles)];
        let parts = steps.div_ceil(TRANSFORM_STEPS);
        let bias_sums = &mut bias_sums[..parts * self.panels.padded()];
        pool::parallel_chunks_mut(bias_sums, self.panels.padded(), |part, bias_sums| {
            self.call(Transform {
                pass: self,
                all: tiles.clone(),
                steps: part * TRANSFORM_STEPS..steps.min((part + 1) * TRANSFORM_STEPS),
                x_tiles: shared[0],
                dy_tiles: shared[1],
                bias_sums,
            });
        });
        let (x_tiles, dy_tiles, sums) = (&*x_tiles, &*dy_tiles, SharedMut::new(sums));
        let groups = self.geometry.inputs.div_ceil(BLOCK_ROWS);
        let tasks = N * N * groups * self.panels.count;
        pool::parallel_for(tasks, |task| {
            let (rest, panel) = (task / self.panels.count, task % self.panels.count);
            let (xi, group) = (rest / groups, rest % groups);
            self.call(Multiply {
                pass: self,
                tiles: tiles.clone(),
                xi,
                rows: group * BLOCK_ROWS..self.geometry.inputs.min((group + 1) * BLOCK_ROWS),
                panel,
                x_tiles,
                dy_tiles,
                sums,
            });
        });
    }

    /// `Gᵀ u G` of the sums.
    fn finish(&self, sums: &[f32], dw: &mut [f32]) {
        let dw = SharedMut::new(dw);
        let (inputs, outputs) = (self.geometry.inputs, self.geometry.outputs);
        let parts = inputs.div_ceil(FINISH_INPUTS);
        pool::parallel_for(outputs.div_ceil(16) * parts, |task| {
            let (first, part) = (task / parts * 16, task % parts * FINISH_INPUTS);
            self.call(Finish {
                pass: self,
                outputs: first..outputs.min(first + 16),
                inputs: part..inputs.min(part + FINISH_INPUTS),
                sums,
                dw,
            });
        });
    }

    fn call<K: Kernel<Output = ()>>(&self, kernel: K) {
        match self.format {
            tile::DOT => self.isa.run_bf16(kernel),
            _ => self.isa.run(kernel),
        }
    }
}

/// `sums[xi][rows, panel] += x_tiles[xi]ᵀ · dy_tiles[xi]` over a block of tiles.
struct Multiply<'a, const M: usize, const N: usize> {
    pass: &'a Pass<'a, M, N>,
    tiles: Range<usize>,
    xi: usize,
    rows: Range<usize>,
    panel: usize,
    x_tiles: &'a [f32],
    dy_tiles: &'a [f32],
    sums: SharedMut<f32>,
}

impl<const M: usize, const N: usize> Kernel for Multiply<'_, M, N> {
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
        let steps = tile::steps(pass.format, self.tiles.len());
        let x = &self.x_tiles[self.xi * pass.x_place + self.rows.start..];
        let dy = &self.dy_tiles[self.xi * pass.dy_place + panel.start * steps..];
        debug_assert!(x.len() >= (steps - 1) * pass.row_len + self.rows.len());
        debug_assert!(dy.len() >= steps * panel.width);
        let start = self.xi * pass.sums_place + panel.start;
        let sums = self.sums.rows(start, places.iter().copied(), panel.width);
        for start in (0..steps).step_by(CHUNK_STEPS) {
            let chunk = CHUNK_STEPS.min(steps - start);
            let packed = dy[start * panel.width..].as_ptr();
            let accumulate = self.tiles.start > 0 || start > 0;
            let block = Block {
                depth: match pass.format {
                    tile::DOT => 2 * chunk,
                    _ => chunk,
                },
                left: LeftView {
                    start: x[start * pass.row_len..].as_ptr(),
                    row_stride: 1,
                    depth_stride: pass.row_len,
                },
                panel: packed,
                vectors: panel.vectors,
                prefetch: packed.wrapping_add(chunk * panel.width),
                ahead: [Ahead::NONE; 2],
                store: Store::plain(sums, places, panel.width, accumulate),
            };
            // SAFETY: both matrices have a row for each step; the sums' rows and columns are this task's.
            unsafe {
                match pass.format {
                    tile::DOT => block.run::<S, { tile::DOT }>(simd),
                    _ => block.run::<S, { tile::F32 }>(simd),
                }
            }
        }
    }
}

/// Some sums back to the taps of their weights.
struct Finish<'a, const M: usize, const N: usize> {
    pass: &'a Pass<'a, M, N>,
    /// At most 16.
    outputs: Range<usize>,
    inputs: Range<usize>,
    sums: &'a [f32],
    dw: SharedMut<f32>,
}

impl<const M: usize, const N: usize> Kernel for Finish<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pass = self.pass;
        let matrix = transform::weight_matrix::<N>();
        for input in self.inputs.clone() {
            for output in self.outputs.clone().step_by(S::LANES) {
                let mut half = [[simd.zero(); N]; 3];
                for j in 0..N {
                    let mut u = [simd.zero(); N];
                    for i in 0..N {
                        let xi = i * N + j;
                        let at = xi * pass.sums_place + input * pass.panels.padded() + output;
                        debug_assert!(at + S::LANES <= self.sums.len());
                        // SAFETY: rows are padded to whole vectors.
                        u[i] = unsafe { simd.load_raw(self.sums.as_ptr().add(at)) };
                    }
                    let g = transform::weight_adjoint::<S, N>(simd, &matrix, u);
                    for i in 0..3 {
                        half[i][j] = g[i];
                    }
                }
                let mut taps = [[0.0; 16]; 9];
                for i in 0..3 {
                    let g = transform::weight_adjoint::<S, N>(simd, &matrix, half[i]);
                    for j in 0..3 {
                        simd.store(&mut taps[3 * i + j], g[j]);
                    }
                }
                for lane in 0..S::LANES.min(self.outputs.end - output) {
                    let at = ((output + lane) * pass.geometry.inputs + input) * 9;
                    // SAFETY: the nine taps of one of this task's weights.
                    let to = unsafe { self.dw.slice(at, 9) };
                    for tap in 0..9 {
                        to[tap] = taps[tap][lane];
                    }
                }
            }
        }
    }
}
