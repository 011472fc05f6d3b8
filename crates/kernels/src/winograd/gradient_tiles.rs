//! The tiles of inputs and output gradients, transformed for the weight's gradient.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::transform;
use super::weight_gradient::Pass;
use crate::gemm::panels::Panel;
use crate::gemm::tile;
use crate::isa::{Kernel, Simd};
use crate::shared::SharedMut;

/// Transforms the inputs and output gradients of some steps of the tiles `all`.
pub(super) struct Transform<'a, const M: usize, const N: usize> {
    pub pass: &'a Pass<'a, M, N>,
    pub all: Range<usize>,
    pub steps: Range<usize>,
    /// These steps of them are written.
    pub x_tiles: SharedMut<f32>,
    pub dy_tiles: SharedMut<f32>,
    /// Gets the sums of the output gradients over these steps.
    pub bias_sums: &'a mut [f32],
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
        self.bias_sums.fill(0.0);
        // A step's tile, or two of them.
        let tile = |step: usize| self.all.start + if dotted { 2 * step } else { step };
        let (geometry, zeros) = (pass.geometry, pass.zeros);
        let both = |step| [tile(step), tile(step) + 1];
        let x_sources = |step| both(step).map(|tile| geometry.sources::<M, N>(tile, pass.x, zeros));
        let dy_sources =
            |step| both(step).map(|tile| geometry.gradient_sources(tile, pass.dy, zeros));
        let mut x = x_sources(first_step);
        let mut dy: [[[_; M]; M]; 2] = dy_sources(first_step);
        let mut x_half = [[[simd.zero(); N]; N]; 2];
        let mut dy_half = [[[simd.zero(); M]; N]; 2];
        for step in self.steps.clone() {
            let next = x_sources(step + 1);
            for channel in (0..geometry.inputs).step_by(S::LANES) {
                let lanes = S::LANES.min(geometry.inputs - channel);
                let to = x_tiles.wrapping_add((step - first_step) * row_len + channel);
                for half in 0..if dotted { 2 } else { 1 } {
                    let (sources, to) = ((&x[half], &next[half]), &mut x_half[half]);
                    // SAFETY: the sources have all channels.
                    unsafe {
                        transform::input_columns::<S, M, N>(simd, sources, channel, lanes, to)
                    }
                }
                // SAFETY: a row has whole vectors, and this task alone has this step.
                unsafe {
                    put_rows(
                        simd,
                        &x_half,
                        dotted,
                        #[inline(always)]
                        |row| transform::input::<S, N>(simd, row),
                        (to, pass.x_place),
                    )
                }
            }
            x = next;
            let next = dy_sources(step + 1);
            for (index, dy_tiles) in dy_tiles.iter().enumerate() {
                let panel = pass.panels.get(index);
                for at in (0..panel.width).step_by(S::LANES) {
                    let (output, lanes) = (panel.start + at, S::LANES.min(panel.columns - at));
                    let to = dy_tiles.wrapping_add((step - first_step) * panel.width + at);
                    let bias_sums = &mut self.bias_sums[output..];
                    let mut sum = simd.load(bias_sums);
                    for half in 0..if dotted { 2 } else { 1 } {
                        let (sources, to) = ((&dy[half], &next[half]), &mut dy_half[half]);
                        // SAFETY: as above.
                        let tile =
                            unsafe { output_columns::<S, M, N>(simd, sources, output, lanes, to) };
                        sum = simd.add(sum, tile);
                    }
                    simd.store(bias_sums, sum);
                    // SAFETY: as above, a vector of the panel's row.
                    unsafe {
                        put_rows(
                            simd,
                            &dy_half,
                            dotted,
                            #[inline(always)]
                            |row| transform::output_adjoint::<S, M, N>(simd, row),
                            (to, pass.dy_place),
                        )
                    }
                }
            }
            dy = next;
        }
    }
}

/// `A dy` of `lanes` outputs from `output` on, and the sum of `dy`. What `next` names is asked for.
///
/// # Safety
/// The `sources` are valid for reading these outputs.
#[inline(always)]
unsafe fn output_columns<S: Simd, const M: usize, const N: usize>(
    simd: S,
    (sources, next): (&[[*const f32; M]; M], &[[*const f32; M]; M]),
    output: usize,
    lanes: usize,
    half: &mut [[S::Vector; M]; N],
) -> S::Vector {
    let mut sum = simd.zero();
    for j in 0..M {
        let mut y = [simd.zero(); M];
        for i in 0..M {
            simd.prefetch(next[i][j].wrapping_add(output));
            // SAFETY: by this function's contract.
            y[i] = unsafe { transform::load(simd, sources[i][j].add(output), lanes) };
        }
        let m = transform::output_adjoint::<S, M, N>(simd, y);
        for i in 0..N {
            half[i][j] = m[i];
        }
        for y in y {
            sum = simd.add(sum, y);
        }
    }
    sum
}

/// What `transform` makes of the rows of one tile, or of two (`dotted`) as pairs of bf16, to `N²` places that are `place`
/// numbers apart.
///
/// # Safety
/// `to` is valid for writing a vector at each place.
#[inline(always)]
unsafe fn put_rows<S: Simd, const L: usize, const N: usize>(
    simd: S,
    [low, high]: &[[[S::Vector; L]; N]; 2],
    dotted: bool,
    transform: impl Fn([S::Vector; L]) -> [S::Vector; N],
    (to, place): (*mut f32, usize),
) {
    for i in 0..N {
        let (to, low) = (to.wrapping_add(i * N * place), transform(low[i]));
        // SAFETY: by this function's contract.
        unsafe {
            if dotted {
                let high = transform(high[i]);
                for j in 0..N {
                    simd.store_raw(to.add(j * place), simd.pairs_bf16(low[j], high[j]));
                }
            } else {
                for j in 0..N {
                    simd.store_raw(to.add(j * place), low[j]);
                }
            }
        }
    }
}
