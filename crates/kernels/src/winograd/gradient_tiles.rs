//! The tiles of inputs and output gradients, transformed for the weight's gradient.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::transform;
use super::weight_gradient::Pass;
use crate::gemm::panels::Panel;
use crate::gemm::tile;
use crate::isa::{Kernel, Simd};
use crate::scratch;
use crate::shared::SharedMut;

/// Transforms the inputs and output gradients of some steps of the tiles `all`.
pub(super) struct Transform<'a, const M: usize, const N: usize> {
    pub pass: &'a Pass<'a, M, N>,
    pub all: Range<usize>,
    pub steps: Range<usize>,
    /// These steps of them are written.
    pub x_tiles: SharedMut<f32>,
    pub dy_tiles: SharedMut<f32>,
}

impl<const M: usize, const N: usize> Kernel for Transform<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pass = self.pass;
        let dotted = pass.format == tile::DOT;
        let all_steps = tile::steps(pass.format, self.all.len());
        let (first_step, steps) = (self.steps.start, self.steps.len());
        let places = |place: usize| (0..N * N).map(move |xi| xi * place);
        let row_len = pass.row_len;
        let x_tiles =
            self.x_tiles
                .rows(first_step * row_len, places(pass.x_place), steps * row_len);
        let dy_tiles: Vec<*mut f32> = (0..pass.panels.count)
            .map(|index| {
                let Panel { start, width, .. } = pass.panels.get(index);
                let start = start * all_steps + first_step * width;
                self.dy_tiles
                    .rows(start, places(pass.dy_place), steps * width)
            })
            .collect();
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
                let to = x_tiles.wrapping_add((step - first_step) * row_len + channel);
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
            for (index, dy_tiles) in dy_tiles.iter().enumerate() {
                let panel = pass.panels.get(index);
                for at in (0..panel.width).step_by(S::LANES) {
                    let (output, lanes) = (panel.start + at, S::LANES.min(panel.columns - at));
                    let to = dy_tiles.wrapping_add((step - first_step) * panel.width + at);
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
