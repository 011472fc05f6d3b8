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
        let mut taps = scratch::lease(GATHERED * 9 * width);
        let per_step = if FORMAT == tile::F32 { 1 } else { 2 };
        for first in (task.steps.0..task.steps.1).step_by(GATHERED / per_step) {
            let steps = first..task.steps.1.min(first + GATHERED / per_step);
            task.gather(steps.start * per_step..steps.end * per_step, &mut taps);
            for (i, step) in steps.enumerate() {
                for column in (0..width).step_by(S::LANES) {
                    let at = (step - task.steps.0) * width + column;
                    let place = |xi: usize| out.wrapping_add(xi * task.place_len + at);
                    let taps = &taps[i * per_step * 9 * width + column..];
                    let low = transformed::<S, N, FORMAT>(simd, &matrix, taps, width);
                    if FORMAT == tile::F32 {
                        for xi in 0..N * N {
                            // SAFETY: a vector of the panel's row, which this task alone writes.
                            unsafe { simd.store_raw(place(xi), low[xi / N][xi % N]) }
                        }
                    } else {
                        let taps = &taps[9 * width..];
                        let high = transformed::<S, N, FORMAT>(simd, &matrix, taps, width);
                        for xi in 0..N * N {
                            let (low, high) = (low[xi / N][xi % N], high[xi / N][xi % N]);
                            // SAFETY: as above.
                            unsafe { simd.store_raw(place(xi), simd.pairs_bf16(low, high)) }
                        }
                    }
                }
            }
        }
    }
}

impl Task<'_> {
    /// `taps: [inputs, 9, width]` of the panel's outputs; zero past the last input or output.
    fn gather(&self, inputs: Range<usize>, taps: &mut [f32]) {
        let Source {
            weight,
            outputs_by,
            inputs_by,
            turned,
        } = self.source;
        let Panel {
            start,
            width,
            columns,
            ..
        } = self.panel;
        let real = inputs.start..inputs.end.min(self.inputs);
        if columns < width || real.len() < inputs.len() {
            taps.fill(0.0);
        }
        let mut copy = |input: usize, output: usize| {
            let from = &weight[(start + output) * outputs_by + input * inputs_by..][..9];
            let to = (input - inputs.start) * 9 * width + output;
            for (tap, &x) in from.iter().enumerate() {
                taps[to + width * if turned { 8 - tap } else { tap }] = x;
            }
        };
        // In the order in which the weight lies.
        if inputs_by < outputs_by {
            (0..columns).for_each(|output| real.clone().for_each(|input| copy(input, output)));
        } else {
            real.for_each(|input| (0..columns).for_each(|output| copy(input, output)));
        }
    }
}

/// `G g Gᵀ` of a vector of outputs, whose taps are `width` numbers apart; rounded where that is not done alike for each
/// place.
#[inline(always)]
fn transformed<S: Simd, const N: usize, const FORMAT: usize>(
    simd: S,
    matrix: &[[f32; 3]; N],
    taps: &[f32],
    width: usize,
) -> [[S::Vector; N]; N] {
    let mut g = [[simd.zero(); 3]; 3];
    for tap in 0..9 {
        g[tap / 3][tap % 3] = simd.load(&taps[tap * width..]);
    }
    let tile = transform::weight_tile::<S, N>(simd, matrix, g);
    match FORMAT == tile::DOT && N == 6 {
        true => feedback::round(simd, &tile, &feedback::WEIGHT),
        false => tile,
    }
}
