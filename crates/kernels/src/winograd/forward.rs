//! The forward pass: input tiles → products → output tiles.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::packed::PackedWinograd;
use super::{Geometry, SKEW, Tile, feedback, transform};
use crate::gemm::Epilogue;
use crate::gemm::panels::Panel;
use crate::gemm::task::CHUNK_STEPS;
use crate::gemm::tile::{self, Ahead, Block, LeftView, Store};
use crate::isa::{Kernel, Simd};
use crate::pool;
use crate::scratch;
use crate::shared::SharedMut;

/// Tiles per block: 8 times the micro-kernel's six rows. Each step of a panel is then used 48 times,
/// which asks less than 5 GB/s of the weights' cache at the speed of f32, and the sums of 36 places
/// × 48 tiles × 64 columns (442 KB) stay in the second-level cache until they are transformed back.
const BLOCK_TILES: usize = 48;

/// `out = conv(x) + bias + residual`, the lengths having been checked.
pub(crate) fn forward(
    geometry: &Geometry,
    x: &[f32],
    weight: &PackedWinograd,
    out: &mut [f32],
    epilogue: &Epilogue,
) {
    assert_eq!(
        x.len(),
        geometry.batch * geometry.height * geometry.width * geometry.inputs
    );
    assert_eq!(
        out.len(),
        geometry.batch * geometry.out_height * geometry.out_width * geometry.outputs
    );
    assert_eq!(
        (geometry.inputs, geometry.outputs),
        (weight.inputs, weight.panels.n)
    );
    let zeros = vec![0.0; geometry.inputs];
    let pass = Pass {
        geometry,
        x,
        zeros: &zeros,
        weight,
        out: SharedMut::new(out),
        epilogue,
    };
    match weight.tile {
        Tile::F2 => pass.run::<2, 4>(),
        Tile::F4 => pass.run::<4, 6>(),
    }
}

struct Pass<'a> {
    geometry: &'a Geometry,
    x: &'a [f32],
    /// What is read outside the picture: a pixel's numbers.
    zeros: &'a [f32],
    weight: &'a PackedWinograd,
    out: SharedMut<f32>,
    epilogue: &'a Epilogue<'a>,
}

impl Pass<'_> {
    fn run<const M: usize, const N: usize>(&self) {
        let tiles = self.geometry.tiles(M);
        let panels = self.weight.panels.count;
        if tiles == 0 || panels == 0 {
            return;
        }
        let threads = pool::threads();
        let cut =
            |blocks: usize, block: usize| block * tiles / blocks..(block + 1) * tiles / blocks;
        let blocks = tiles.div_ceil(BLOCK_TILES);
        if blocks >= 4 * threads {
            // Every task has tiles of its own, from the input to the output.
            let blocks = blocks.next_multiple_of(threads);
            pool::parallel_for(blocks, |block| {
                let tiles = cut(blocks, block);
                let mut inputs = scratch::lease(self.transformed_len::<N>(tiles.len()));
                let work = Work {
                    pass: self,
                    all: tiles.clone(),
                    tiles,
                };
                self.call(Input::<M, N>(work.clone(), SharedMut::new(&mut inputs)));
                self.call(Products::<M, N>(work, &inputs, 0..panels));
            });
            return;
        }
        // Few tiles (deep levels): all of them are transformed first, then the tasks share out panels,
        // and tiles too where there are fewer panels than it takes to keep the threads busy.
        let mut inputs = scratch::lease(self.transformed_len::<N>(tiles));
        let work = |tiles: Range<usize>| Work {
            pass: self,
            all: 0..self.geometry.tiles(M),
            tiles,
        };
        let parts = (4 * threads).min(tiles);
        let shared = SharedMut::new(&mut inputs);
        pool::parallel_for(parts, |part| {
            self.call(Input::<M, N>(work(cut(parts, part)), shared));
        });
        let inputs: &[f32] = &inputs;
        let wanted = (4 * threads).div_ceil(panels).min(tiles.div_ceil(6));
        let blocks = blocks.max(wanted);
        pool::parallel_for(blocks * panels, |task| {
            let (panel, block) = (task / blocks, task % blocks);
            let work = work(cut(blocks, block));
            self.call(Products::<M, N>(work, inputs, panel..panel + 1));
        });
    }

    fn call<K: Kernel<Output = ()>>(&self, kernel: K) {
        match self.weight.format {
            tile::DOT => self.weight.isa.run_bf16(kernel),
            _ => self.weight.isa.run(kernel),
        }
    }

    /// Numbers of 32 bits in a row of the transformed input: whole vectors.
    fn row_len(&self) -> usize {
        match self.weight.format {
            tile::DOT => self.geometry.inputs.next_multiple_of(32) / 2,
            _ => self.geometry.inputs.next_multiple_of(16),
        }
    }

    /// Numbers from one place's matrix of `tiles` rows to the next one's.
    fn place_len(&self, tiles: usize) -> usize {
        tiles * self.row_len() + SKEW
    }

    fn transformed_len<const N: usize>(&self, tiles: usize) -> usize {
        N * N * self.place_len(tiles)
    }
}

/// Some `tiles`, which are kept, transformed, together with the others of `all`.
#[derive(Clone)]
struct Work<'a> {
    pass: &'a Pass<'a>,
    all: Range<usize>,
    tiles: Range<usize>,
}

/// `Bᵀ d B`, and where it goes.
struct Input<'a, const M: usize, const N: usize>(Work<'a>, SharedMut<f32>);

impl<const M: usize, const N: usize> Kernel for Input<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Work { pass, all, tiles } = self.0;
        let (place, row) = (pass.place_len(all.len()), pass.row_len());
        let places = (0..N * N).map(|xi| xi * place);
        let start = (tiles.start - all.start) * row;
        let to = self.1.rows(start, places, tiles.len() * row);
        let sources = |tile| pass.geometry.sources::<M, N>(tile, pass.x, pass.zeros);
        let mut current = sources(tiles.start);
        for (i, tile) in tiles.enumerate() {
            let next = sources(tile + 1);
            pass.input::<S, M, N>(simd, (&current, &next), to.wrapping_add(i * row), place);
            current = next;
        }
    }
}

/// The products of the transformed tiles with some panels of the weight, and `Aᵀ m A`.
struct Products<'a, const M: usize, const N: usize>(Work<'a>, &'a [f32], Range<usize>);

impl<const M: usize, const N: usize> Kernel for Products<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Work { pass, all, tiles } = self.0;
        let place = pass.place_len(all.len());
        let from = &self.1[(tiles.start - all.start) * pass.row_len()..];
        debug_assert!(from.len() >= (N * N - 1) * place + tiles.len() * pass.row_len());
        for panel in self.2 {
            let panel = pass.weight.panels.get(panel);
            pass.products::<S, M, N>(simd, (from, place), &tiles, panel);
        }
    }
}

impl Pass<'_> {
    /// Transforms a tile, whose inputs stand at `sources` and the next one's at the others, to `to`, each place `place`
    /// numbers after the one before.
    #[inline(always)]
    fn input<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        sources: (&[[*const f32; N]; N], &[[*const f32; N]; N]),
        to: *mut f32,
        place: usize,
    ) {
        let channels = self.geometry.inputs;
        let dotted = self.weight.format == tile::DOT;
        let mut half = [[simd.zero(); N]; N];
        let mut left = [[simd.zero(); N]; N];
        for channel in (0..channels).step_by(S::LANES) {
            let lanes = S::LANES.min(channels - channel);
            // SAFETY: the sources have all their channels.
            unsafe { transform::input_columns::<S, M, N>(simd, sources, channel, lanes, &mut half) }
            for turn in 0..N {
                let i = feedback::row::<N>(turn, dotted);
                let mut v = transform::input::<S, N>(simd, half[i]);
                if feedback::is_for::<N>(dotted) {
                    v = feedback::round(simd, turn, v, &feedback::INPUT, &mut left);
                }
                for j in 0..N {
                    // SAFETY: a row has whole vectors, and the caller gave one for each place.
                    unsafe {
                        let row = to.add((i * N + j) * place);
                        if dotted {
                            simd.store_bf16_raw(row.cast::<u16>().add(channel), v[j]);
                        } else {
                            simd.store_raw(row.add(channel), v[j]);
                        }
                    }
                }
            }
        }
    }

    /// The products of all places with one panel, and their way back to `out`.
    #[inline(always)]
    fn products<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        (inputs, place): (&[f32], usize),
        tiles: &Range<usize>,
        panel: Panel,
    ) {
        let mut rows = [0; BLOCK_TILES];
        debug_assert!(tiles.len() <= rows.len());
        let rows = &mut rows[..tiles.len()];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = i * panel.width;
        }
        let sums_place = (rows.len() * panel.width).next_multiple_of(16) + SKEW;
        let mut sums = scratch::lease(N * N * sums_place);
        let steps = self.weight.steps();
        let pieces = steps.div_ceil(CHUNK_STEPS).max(1);
        let piece = steps.div_ceil(pieces);
        for xi in 0..N * N {
            for start in (0..steps).step_by(piece) {
                let depth = piece.min(steps - start);
                let weight = self.weight.panel(xi, panel, start);
                let next = match (start + depth < steps, xi + 1 < N * N) {
                    (true, _) => weight[depth * panel.width..].as_ptr(),
                    (false, true) => self.weight.panel(xi + 1, panel, 0).as_ptr(),
                    (false, false) => {
                        self.weight.panel(0, panel, 0)[depth * panel.width..].as_ptr()
                    }
                };
                debug_assert!(weight.len() >= depth * panel.width && steps <= self.row_len());
                let block = Block {
                    depth: if self.weight.format == tile::DOT {
                        2 * depth
                    } else {
                        depth
                    },
                    left: LeftView {
                        start: inputs[xi * place + start..].as_ptr(),
                        row_stride: self.row_len(),
                        depth_stride: 1,
                    },
                    panel: weight.as_ptr(),
                    vectors: panel.vectors,
                    prefetch: next,
                    ahead: [Ahead::NONE; 2],
                    store: Store::plain(
                        sums[xi * sums_place..].as_mut_ptr(),
                        rows,
                        panel.width,
                        start > 0,
                    ),
                };
                // SAFETY: the transformed input has a row of at least `steps` numbers for each tile,
                // the panel `depth` steps from `start` on, and the sums are this call's own.
                unsafe {
                    if self.weight.format == tile::DOT {
                        block.run::<S, { tile::DOT }>(simd);
                    } else {
                        block.run::<S, { tile::F32 }>(simd);
                    }
                }
            }
        }
        for (i, tile) in tiles.clone().enumerate() {
            let sums = &sums[i * panel.width..];
            if tile + 1 < tiles.end {
                self.fetch_output::<S, M>(simd, tile + 1, panel);
            }
            self.output::<S, M, N>(simd, tile, (sums, sums_place), panel);
        }
    }

    /// Asks for the lines of `out` and of the residual that a tile will be written to.
    #[inline(always)]
    fn fetch_output<S: Simd, const M: usize>(&self, simd: S, tile: usize, panel: Panel) {
        let Geometry {
            out_height,
            out_width,
            outputs,
            ..
        } = *self.geometry;
        let (picture, row, column) = self.geometry.place(M, tile);
        for i in 0..M.min(out_height - row) {
            for j in 0..M.min(out_width - column) {
                let pixel = (picture * out_height + row + i) * out_width + column + j;
                let start = pixel * outputs + panel.start;
                for at in (0..panel.columns).step_by(16) {
                    simd.prefetch(self.out.address(start + at));
                    if let Some(residual) = self.epilogue.residual {
                        simd.prefetch(residual[start + at..].as_ptr());
                    }
                }
            }
        }
    }

    /// Transforms one tile's sums and writes what of it lies in the picture.
    #[inline(always)]
    fn output<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        tile: usize,
        (sums, place): (&[f32], usize),
        panel: Panel,
    ) {
        let Geometry {
            out_height,
            out_width,
            outputs,
            ..
        } = *self.geometry;
        let (picture, row, column) = self.geometry.place(M, tile);
        for v in 0..panel.vectors {
            let at = v * S::LANES;
            let lanes = S::LANES.min(panel.columns - at);
            let mut half = [[simd.zero(); N]; M];
            for j in 0..N {
                let mut m = [simd.zero(); N];
                for i in 0..N {
                    m[i] = simd.load(&sums[(i * N + j) * place + at..]);
                }
                let y = transform::output::<S, M, N>(simd, m);
                for i in 0..M {
                    half[i][j] = y[i];
                }
            }
            let bias = match self.epilogue.bias {
                Some(bias) => simd.load_partial(&bias[panel.start + at..][..lanes]),
                None => simd.zero(),
            };
            for i in 0..M.min(out_height - row) {
                let y = transform::output::<S, M, N>(simd, half[i]);
                for j in 0..M.min(out_width - column) {
                    let pixel = (picture * out_height + row + i) * out_width + column + j;
                    let start = pixel * outputs + panel.start + at;
                    let mut sum = simd.add(y[j], bias);
                    if let Some(residual) = self.epilogue.residual {
                        sum = simd.add(sum, simd.load_partial(&residual[start..][..lanes]));
                    }
                    // SAFETY: `lanes` channels of a pixel of `out`; no other task has this tile and
                    // panel.
                    unsafe { simd.store_partial_raw(self.out.pointer(start, lanes), sum, lanes) }
                }
            }
        }
    }
}
