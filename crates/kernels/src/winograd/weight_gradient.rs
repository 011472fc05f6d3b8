//! The weight's gradient, as the adjoint of the forward pass: `dg = Gᵀ [ (Bᵀ d B) ⊙ (A dy Aᵀ) ] G`.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::{Geometry, SKEW, Tile, transform};
use crate::gemm::driver::CHUNK_STEPS;
use crate::gemm::panels::Panels;
use crate::gemm::tile::{self, Block, LeftView, Store};
use crate::gemm::{Precision, packed};
use crate::isa::{self, Isa, Kernel, Simd};
use crate::pool::{self, SharedMut};
use crate::scratch;

/// Numbers of 32 bits in the transformed tiles that are multiplied at a time: 8 MiB, which stay in the third-level cache.
const BLOCK_NUMBERS: usize = 2 << 20;

/// Tiles at a time, between which the sums are read and written once: fewer would make them weigh more than the
/// products, more would bring nothing.
const BLOCK_TILES: Range<usize> = 256..1024;

/// Rows of the product per task: a multiple of the micro-kernel's six.
const BLOCK_ROWS: usize = 96;

/// Inputs per task of the last transform.
const FINISH_INPUTS: usize = 32;

/// `dw: [O, I, 3, 3]` from `x: [B, H, W, I]` and `dy: [B, OH, OW, O]`. With [`Precision::Bf16`], on a CPU with a dot
/// product, the transformed numbers are rounded to bf16.
pub(crate) fn weight_gradient(
    geometry: &Geometry,
    tile: Tile,
    precision: Precision,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    match tile {
        Tile::F2 => run::<2, 4>(geometry, precision, x, dy, dw),
        Tile::F4 => run::<4, 6>(geometry, precision, x, dy, dw),
    }
}

fn run<const M: usize, const N: usize>(
    geometry: &Geometry,
    precision: Precision,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let isa = isa::active();
    let format = match precision {
        Precision::Bf16 if isa.has_bf16_dot() => tile::DOT,
        _ => tile::F32,
    };
    let panels = packed::panels(isa, geometry.outputs, Precision::F32);
    let tiles = geometry.tiles(M);
    if tiles == 0 {
        return dw.fill(0.0);
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
        x_tiles: SharedMut::new(x_tiles),
        dy_tiles: SharedMut::new(dy_tiles),
        sums: SharedMut::new(&mut sums),
    };
    for start in (0..tiles).step_by(block) {
        pass.block(start..tiles.min(start + block));
    }
    pass.finish(dw);
}

struct Pass<'a, const M: usize, const N: usize> {
    geometry: &'a Geometry,
    x: &'a [f32],
    dy: &'a [f32],
    /// What is read outside the picture: a pixel's numbers.
    zeros: &'a [f32],
    isa: Isa,
    /// [`tile::F32`] or [`tile::DOT`].
    format: usize,
    panels: Panels,
    row_len: usize,
    /// From one place's matrix to the next one's.
    x_place: usize,
    dy_place: usize,
    sums_place: usize,
    /// `Bᵀ d B`: for each place `[steps][inputs]`, a step being a tile or a pair of tiles.
    x_tiles: SharedMut<f32>,
    /// `A dy Aᵀ`: for each place the panels of `[steps][outputs]`.
    dy_tiles: SharedMut<f32>,
    /// For each place `[inputs][outputs, padded]`.
    sums: SharedMut<f32>,
}

impl<const M: usize, const N: usize> Pass<'_, M, N> {
    /// Adds what some tiles contribute to the sums (the first ones set them).
    fn block(&self, tiles: Range<usize>) {
        let steps = tile::steps(self.format, tiles.len());
        let parts = (4 * pool::threads()).min(steps);
        pool::parallel_for(parts, |part| {
            self.call(Transform {
                pass: self,
                all: tiles.clone(),
                steps: part * steps / parts..(part + 1) * steps / parts,
            });
        });
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
            });
        });
    }

    /// `Gᵀ u G` of the sums.
    fn finish(&self, dw: &mut [f32]) {
        let dw = SharedMut::new(dw);
        let (inputs, outputs) = (self.geometry.inputs, self.geometry.outputs);
        let parts = inputs.div_ceil(FINISH_INPUTS);
        pool::parallel_for(outputs.div_ceil(16) * parts, |task| {
            let (first, part) = (task / parts * 16, task % parts * FINISH_INPUTS);
            self.call(Finish {
                pass: self,
                outputs: first..outputs.min(first + 16),
                inputs: part..inputs.min(part + FINISH_INPUTS),
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

/// Transforms the inputs and output gradients of some steps of the tiles `all`.
struct Transform<'a, const M: usize, const N: usize> {
    pass: &'a Pass<'a, M, N>,
    all: Range<usize>,
    steps: Range<usize>,
}

impl<const M: usize, const N: usize> Kernel for Transform<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pass = self.pass;
        let dotted = pass.format == tile::DOT;
        let all_steps = tile::steps(pass.format, self.all.len());
        // What a transform of columns leaves for that of rows, of two tiles: each L1-resident.
        let mut memory = scratch::lease(2 * N * N * S::LANES);
        let (first, second) = memory.split_at_mut(N * N * S::LANES);
        let halves = (first.as_mut_ptr(), dotted.then_some(second.as_mut_ptr()));
        for step in self.steps.clone() {
            let tile = self.all.start + if dotted { 2 * step } else { step };
            let next = Some(tile + 1).filter(|&tile| tile < self.all.end);
            let (low, high) = (pass.inputs(Some(tile)), pass.inputs(next));
            for channel in (0..pass.geometry.inputs).step_by(S::LANES) {
                let lanes = S::LANES.min(pass.geometry.inputs - channel);
                let to = pass.x_tiles.pointer(step * pass.row_len + channel);
                // SAFETY: the sources have all channels; a row has whole vectors, and this task alone has this step.
                unsafe {
                    input_columns::<S, N>(simd, &low, channel, lanes, halves.0);
                    if dotted {
                        input_columns::<S, N>(simd, &high, channel, lanes, second.as_mut_ptr());
                    }
                    input_rows::<S, N>(simd, halves, to, pass.x_place);
                }
            }
            let low = pass.output_gradients(Some(tile));
            let high = pass.output_gradients(next);
            for index in 0..pass.panels.count {
                let panel = pass.panels.get(index);
                for at in (0..panel.width).step_by(S::LANES) {
                    let (output, lanes) = (panel.start + at, S::LANES.min(panel.columns - at));
                    let to = panel.start * all_steps + step * panel.width + at;
                    let to = pass.dy_tiles.pointer(to);
                    // SAFETY: as above, a vector of the panel's row.
                    unsafe {
                        output_columns::<S, M, N>(simd, &low, output, lanes, halves.0);
                        if dotted {
                            let half = second.as_mut_ptr();
                            output_columns::<S, M, N>(simd, &high, output, lanes, half);
                        }
                        output_rows::<S, M, N>(simd, halves, to, pass.dy_place);
                    }
                }
            }
        }
    }
}

impl<const M: usize, const N: usize> Pass<'_, M, N> {
    /// Where the inputs of a tile stand: zeros outside the picture, and where there is no tile.
    #[inline(always)]
    fn inputs(&self, tile: Option<usize>) -> [[*const f32; N]; N] {
        let mut sources = [[self.zeros.as_ptr(); N]; N];
        let Some(tile) = tile else { return sources };
        let geometry = self.geometry;
        let (picture, row, column) = geometry.place(M, tile);
        for i in 0..N {
            let y = (row + i).wrapping_add_signed(-geometry.top);
            if y >= geometry.height {
                continue;
            }
            let line = (picture * geometry.height + y) * geometry.width;
            for j in 0..N {
                let x = (column + j).wrapping_add_signed(-geometry.left);
                if x < geometry.width {
                    let at = (line + x) * geometry.inputs;
                    debug_assert!(at + geometry.inputs <= self.x.len());
                    sources[i][j] = self.x.as_ptr().wrapping_add(at);
                }
            }
        }
        sources
    }

    /// The same of the gradients of a tile's outputs.
    #[inline(always)]
    fn output_gradients(&self, tile: Option<usize>) -> [[*const f32; M]; M] {
        let mut sources = [[self.zeros.as_ptr(); M]; M];
        let Some(tile) = tile else { return sources };
        let geometry = self.geometry;
        let (picture, row, column) = geometry.place(M, tile);
        for i in 0..M.min(geometry.out_height - row) {
            let line = (picture * geometry.out_height + row + i) * geometry.out_width;
            for j in 0..M.min(geometry.out_width - column) {
                let at = (line + column + j) * geometry.outputs;
                debug_assert!(at + geometry.outputs <= self.dy.len());
                sources[i][j] = self.dy.as_ptr().wrapping_add(at);
            }
        }
        sources
    }
}

/// `lanes` numbers from `from` on.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, from: *const f32, lanes: usize) -> S::Vector {
    // SAFETY: by this function's contract.
    unsafe {
        match lanes == S::LANES {
            true => simd.load_raw(from),
            false => simd.load_partial_raw(from, lanes),
        }
    }
}

// The transforms of columns and of rows are loops of their own over memory, because the numbers between them are more
// than there are registers.

/// `Bᵀ d` of `lanes` channels from `channel` on, to `half: [N, N]` vectors.
///
/// # Safety
/// The sources are valid for reading these channels, `half` for writing.
#[inline(always)]
unsafe fn input_columns<S: Simd, const N: usize>(
    simd: S,
    sources: &[[*const f32; N]; N],
    channel: usize,
    lanes: usize,
    half: *mut f32,
) {
    for j in 0..N {
        let mut d = [simd.zero(); N];
        // SAFETY: by this function's contract.
        unsafe {
            for i in 0..N {
                d[i] = load(simd, sources[i][j].add(channel), lanes);
            }
            let t = transform::input::<S, N>(simd, d);
            for i in 0..N {
                simd.store_raw(half.add((i * N + j) * S::LANES), t[i]);
            }
        }
    }
}

/// `(Bᵀ d) B` of one tile, or of two as pairs of bf16, to `N²` places that are `place` numbers apart.
///
/// # Safety
/// The halves are valid for reading `[N, N]` vectors, `to` for writing a vector at each place.
#[inline(always)]
unsafe fn input_rows<S: Simd, const N: usize>(
    simd: S,
    (low, high): (*mut f32, Option<*mut f32>),
    to: *mut f32,
    place: usize,
) {
    for i in 0..N {
        let (mut a, mut b) = ([simd.zero(); N], [simd.zero(); N]);
        // SAFETY: by this function's contract.
        unsafe {
            for j in 0..N {
                a[j] = simd.load_raw(low.add((i * N + j) * S::LANES));
            }
            let a = transform::input::<S, N>(simd, a);
            let to = to.add(i * N * place);
            let Some(high) = high else {
                for j in 0..N {
                    simd.store_raw(to.add(j * place), a[j]);
                }
                continue;
            };
            for j in 0..N {
                b[j] = simd.load_raw(high.add((i * N + j) * S::LANES));
            }
            let b = transform::input::<S, N>(simd, b);
            for j in 0..N {
                simd.store_raw(to.add(j * place), simd.pairs_bf16(a[j], b[j]));
            }
        }
    }
}

/// `A dy` of `lanes` outputs from `output` on, to `half: [N, M]` vectors.
///
/// # Safety
/// As [`input_columns`].
#[inline(always)]
unsafe fn output_columns<S: Simd, const M: usize, const N: usize>(
    simd: S,
    sources: &[[*const f32; M]; M],
    output: usize,
    lanes: usize,
    half: *mut f32,
) {
    for j in 0..M {
        let mut y = [simd.zero(); M];
        // SAFETY: by this function's contract.
        unsafe {
            for i in 0..M {
                y[i] = load(simd, sources[i][j].add(output), lanes);
            }
            let m = transform::output_adjoint::<S, M, N>(simd, y);
            for i in 0..N {
                simd.store_raw(half.add((i * M + j) * S::LANES), m[i]);
            }
        }
    }
}

/// `(A dy) Aᵀ`, as [`input_rows`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn output_rows<S: Simd, const M: usize, const N: usize>(
    simd: S,
    (low, high): (*mut f32, Option<*mut f32>),
    to: *mut f32,
    place: usize,
) {
    for i in 0..N {
        let (mut a, mut b) = ([simd.zero(); M], [simd.zero(); M]);
        // SAFETY: by this function's contract.
        unsafe {
            for j in 0..M {
                a[j] = simd.load_raw(low.add((i * M + j) * S::LANES));
            }
            let a = transform::output_adjoint::<S, M, N>(simd, a);
            let to = to.add(i * N * place);
            let Some(high) = high else {
                for j in 0..N {
                    simd.store_raw(to.add(j * place), a[j]);
                }
                continue;
            };
            for j in 0..M {
                b[j] = simd.load_raw(high.add((i * M + j) * S::LANES));
            }
            let b = transform::output_adjoint::<S, M, N>(simd, b);
            for j in 0..N {
                simd.store_raw(to.add(j * place), simd.pairs_bf16(a[j], b[j]));
            }
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
        let x = pass
            .x_tiles
            .pointer(self.xi * pass.x_place + self.rows.start);
        let dy = pass
            .dy_tiles
            .pointer(self.xi * pass.dy_place + panel.start * steps);
        let sums = pass.sums.pointer(self.xi * pass.sums_place + panel.start);
        for start in (0..steps).step_by(CHUNK_STEPS) {
            let chunk = CHUNK_STEPS.min(steps - start);
            let packed = dy.wrapping_add(start * panel.width);
            let accumulate = self.tiles.start > 0 || start > 0;
            let block = Block {
                depth: match pass.format {
                    tile::DOT => 2 * chunk,
                    _ => chunk,
                },
                left: LeftView {
                    start: x.wrapping_add(start * pass.row_len),
                    row_stride: 1,
                    depth_stride: pass.row_len,
                },
                panel: packed,
                vectors: panel.vectors,
                prefetch: packed.wrapping_add(chunk * panel.width),
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
                let mut u = [[simd.zero(); N]; N];
                for xi in 0..N * N {
                    let at = xi * pass.sums_place + input * pass.panels.padded() + output;
                    // SAFETY: rows are padded to whole vectors, and no task writes the sums any more.
                    u[xi / N][xi % N] = unsafe { simd.load_raw(pass.sums.pointer(at)) };
                }
                let g = transform::weight_tile_adjoint::<S, N>(simd, &matrix, u);
                let mut taps = [[0.0; 16]; 9];
                for tap in 0..9 {
                    simd.store(&mut taps[tap], g[tap / 3][tap % 3]);
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
