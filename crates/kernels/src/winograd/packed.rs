//! Weights `G g Gᵀ`, packed once.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use super::{Tile, feedback, transform};
use crate::gemm::packed;
use crate::gemm::panels::{Panel, Panels};
use crate::gemm::{Precision, tile};
use crate::isa::{self, Isa, Kernel, Simd};
use crate::memory::Memory;
use crate::pool;
use crate::scratch::{self, Buffer};
use crate::shared::SharedMut;
use std::ops::Range;

/// The transformed weight of a 3×3 convolution: for each place ξ of a tile the panels of a matrix
/// `[inputs, outputs]`, in f32 or, where the CPU has their dot product, in pairs of bf16.
#[derive(Clone, Debug)]
pub(crate) struct PackedWinograd {
    pub tile: Tile,
    pub inputs: usize,
    pub isa: Isa,
    pub panels: Panels,
    /// [`tile::F32`] or [`tile::DOT`].
    pub format: usize,
    buffer: Buffer,
}

/// Where a weight's numbers stand: `weight[output · outputs_by + input · inputs_by + tap]`, the taps
/// turned round when `turned`.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub weight: &'a [f32],
    pub outputs_by: usize,
    pub inputs_by: usize,
    pub turned: bool,
}

impl PackedWinograd {
    /// Transforms and packs. Without a bf16 dot product the numbers are kept in f32 for any `precision`.
    pub fn pack(
        tile: Tile,
        (outputs, inputs): (usize, usize),
        precision: Precision,
        source: Source,
    ) -> Self {
        assert_eq!(
            source.weight.len(),
            outputs * inputs * 9,
            "a weight of [O, I, 3, 3]"
        );
        let mut packed = Self::empty(tile, (outputs, inputs), precision);
        let PackedWinograd {
            isa,
            panels,
            format,
            ..
        } = packed;
        packed.buffer = Buffer::unspecified(packed.len());
        let steps = packed.steps();
        let shared = SharedMut::new(&mut packed.buffer);
        // A task packs some 64 inputs of one panel: 64 × 64 × 36 numbers.
        let parts = steps.div_ceil(64).max(1);
        pool::parallel_for(panels.count * parts, |task| {
            let (panel, part) = (panels.get(task / parts), task % parts);
            let task = Task {
                source,
                inputs,
                panel,
                steps: (part * steps / parts, (part + 1) * steps / parts),
                all_steps: steps,
                place_len: steps * panels.padded(),
                out: shared,
            };
            match (tile, format) {
                (Tile::F2, tile::DOT) => isa.run_bf16(Pack::<4, { tile::DOT }>(task)),
                (Tile::F4, tile::DOT) => isa.run_bf16(Pack::<6, { tile::DOT }>(task)),
                (Tile::F2, _) => isa.run(Pack::<4, { tile::F32 }>(task)),
                (Tile::F4, _) => isa.run(Pack::<6, { tile::F32 }>(task)),
            }
        });
        packed
    }

    /// A weight from the [`numbers`](PackedWinograd::numbers) of one that was packed for the same instruction set. `None`
    /// where they are not as many as such a weight has.
    pub fn from_numbers(
        tile: Tile,
        channels: (usize, usize),
        precision: Precision,
        numbers: Memory,
    ) -> Option<Self> {
        let packed = Self::empty(tile, channels, precision);
        (numbers.len() == packed.len()).then(|| PackedWinograd {
            buffer: numbers.into(),
            ..packed
        })
    }

    /// All that is known of it without its numbers.
    fn empty(tile: Tile, (outputs, inputs): (usize, usize), precision: Precision) -> Self {
        let isa = isa::active();
        let format = match precision {
            Precision::Bf16 if isa.has_bf16_dot() => tile::DOT,
            _ => tile::F32,
        };
        PackedWinograd {
            tile,
            inputs,
            isa,
            panels: packed::panels(isa, outputs, Precision::F32),
            format,
            buffer: Buffer::zeroed(0),
        }
    }

    /// The numbers as they lie.
    pub fn numbers(&self) -> &[f32] {
        &self.buffer
    }

    /// How many there are.
    fn len(&self) -> usize {
        self.tile.places() * self.place_len()
    }

    /// Steps of a product's inner loop: inputs, or pairs of them.
    pub fn steps(&self) -> usize {
        match self.format {
            tile::DOT => self.inputs.div_ceil(2),
            _ => self.inputs,
        }
    }

    /// Numbers of 32 bits in one place's matrix.
    fn place_len(&self) -> usize {
        self.steps() * self.panels.padded()
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer.len() * 4
    }

    /// How it is computed, in words.
    pub fn algorithm(&self) -> String {
        let format = if self.format == tile::DOT {
            "bf16 dot"
        } else {
            "f32"
        };
        format!("{} {format} winograd {:?}", self.isa, self.tile)
    }

    /// Place `xi`'s panel from step `step` on.
    pub fn panel(&self, xi: usize, panel: Panel, step: usize) -> &[f32] {
        let start = xi * self.place_len() + panel.start * self.steps() + step * panel.width;
        &self.buffer[start..]
    }
}

/// Steps `steps` of one panel, for all places.
struct Task<'a> {
    source: Source<'a>,
    inputs: usize,
    panel: Panel,
    steps: (usize, usize),
    all_steps: usize,
    place_len: usize,
    out: SharedMut<f32>,
}

struct Pack<'a, const N: usize, const FORMAT: usize>(Task<'a>);

/// Inputs whose taps are gathered at a time: 16 × 9 × 64 numbers are 36 KiB.
const GATHERED: usize = 16;

/// The side of a square that is transposed.
const SQUARE: usize = 16;

impl<const N: usize, const FORMAT: usize> Kernel for Pack<'_, N, FORMAT> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let task = self.0;
        let matrix = transform::weight_matrix::<N>();
        let width = task.panel.width;
        let (first, end) = task.steps;
        let out = task.out.rows(
            task.panel.start * task.all_steps + first * width,
            (0..N * N).map(|xi| xi * task.place_len),
            (end - first) * width,
        );
        // A square has more rows than there are taps.
        let mut taps = scratch::lease((GATHERED * 9 + SQUARE - 9) * width);
        let dotted = FORMAT == tile::DOT;
        let per_step = if dotted { 2 } else { 1 };
        let mut halves = [[[simd.zero(); 3]; N]; 2];
        let mut left = [[[simd.zero(); N]; N]; 2];
        for first in (task.steps.0..task.steps.1).step_by(GATHERED / per_step) {
            let steps = first..task.steps.1.min(first + GATHERED / per_step);
            task.gather(
                simd,
                steps.start * per_step..steps.end * per_step,
                &mut taps,
            );
            for (i, step) in steps.enumerate() {
                for column in (0..width).step_by(S::LANES) {
                    for half in 0..per_step {
                        let taps = &taps[(i * per_step + half) * 9 * width + column..];
                        let turned = task.source.turned;
                        columns(simd, &matrix, (taps, width), turned, &mut halves[half]);
                    }
                    let at = (step - task.steps.0) * width + column;
                    for turn in 0..N {
                        let row = feedback::row::<N>(turn, dotted);
                        let mut tiles = [[simd.zero(); N]; 2];
                        for half in 0..per_step {
                            let g = halves[half][row];
                            tiles[half] = transform::weight::<S, N>(simd, &matrix, g);
                            if feedback::is_for::<N>(dotted) {
                                let (tile, left) = (tiles[half], &mut left[half]);
                                tiles[half] =
                                    feedback::round(simd, turn, tile, &feedback::WEIGHT, left);
                            }
                        }
                        let [low, high] = tiles;
                        for j in 0..N {
                            let place = out.wrapping_add((row * N + j) * task.place_len + at);
                            let numbers = match dotted {
                                true => simd.pairs_bf16(low[j], high[j]),
                                false => low[j],
                            };
                            // SAFETY: a vector of the panel's row, which this task alone writes.
                            unsafe { simd.store_raw(place, numbers) }
                        }
                    }
                }
            }
        }
    }
}

impl Task<'_> {
    /// `taps: [inputs, 9, width]` of the panel's outputs, as they lie; zero past the last input or output.
    #[inline(always)]
    fn gather<S: Simd>(&self, simd: S, inputs: Range<usize>, taps: &mut [f32]) {
        let Source {
            weight,
            outputs_by,
            inputs_by,
            ..
        } = self.source;
        let Panel {
            start,
            width,
            columns,
            ..
        } = self.panel;
        let real = inputs.start..inputs.end.min(self.inputs);
        if columns < width {
            taps.fill(0.0);
        }
        // In the order in which the weight lies, squares first: of the taps of all inputs, or of an input.
        let lines = if inputs_by < outputs_by {
            1
        } else {
            real.len()
        };
        let line = 9 * real.len() / lines.max(1);
        for first in 0..lines {
            let at = start * outputs_by + (real.start + first) * inputs_by;
            let (from, to) = (&weight[at..], &mut taps[first * 9 * width..]);
            // What a square has past the taps of an input is overwritten by the next one.
            let squares = if lines == 1 { line / SQUARE } else { 1 } * SQUARE;
            let fits = |output: usize| {
                output + SQUARE <= columns
                    && (output + SQUARE - 1) * outputs_by + squares <= from.len()
            };
            for output in (0..columns).step_by(SQUARE) {
                let fits = fits(output);
                for tap in (0..squares).step_by(SQUARE).filter(|_| fits) {
                    assert!(to.len() >= (tap + SQUARE) * width && output + SQUARE <= width);
                    // SAFETY: 16 runs of numbers, the last of which lies in `from`; the columns of 16 rows of taps.
                    unsafe {
                        let from = from.as_ptr().add(output * outputs_by + tap);
                        let to = to.as_mut_ptr().add(tap * width + output);
                        simd.transpose_raw((from, outputs_by), (to, width));
                    }
                }
                let done = if fits { squares } else { 0 };
                for output in output..columns.min(output + SQUARE) {
                    for tap in done..line {
                        to[tap * width + output] = from[output * outputs_by + tap];
                    }
                }
            }
        }
        taps[real.len() * 9 * width..].fill(0.0);
    }
}

/// `G g` of a vector of outputs, whose taps are `width` numbers apart.
#[inline(always)]
fn columns<S: Simd, const N: usize>(
    simd: S,
    matrix: &[[f32; 3]; N],
    (taps, width): (&[f32], usize),
    turned: bool,
    half: &mut [[S::Vector; 3]; N],
) {
    for j in 0..3 {
        let mut g = [simd.zero(); 3];
        for i in 0..3 {
            let tap = 3 * i + j;
            g[i] = simd.load(&taps[width * if turned { 8 - tap } else { tap }..]);
        }
        let u = transform::weight::<S, N>(simd, matrix, g);
        for i in 0..N {
            half[i][j] = u[i];
        }
    }
}
