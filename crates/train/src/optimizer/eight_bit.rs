//! Numbers in eight bits with a scale for every block of them (Dettmers et al., "8-bit Optimizers via Block-wise
//! Quantization", 2022, arXiv:2110.02861).
//!
//! A code stands for a number in [−1, 1] by "dynamic tree quantisation": each of seven decades from 10⁻⁶ to 1 has
//! twice as many evenly spaced numbers as the one below. A block's scale is its largest absolute value. Unlike the
//! paper's table ours holds 1 and −1 exactly: so a block that is read and written again is the same to the bit, and a
//! resumed run is exact.

use std::sync::LazyLock;

use velatura_kernels::optimizer::{self, AdamW};
use velatura_kernels::pool::parallel_chunks_mut;
use velatura_tensor::{Parameter, Tensor};

/// Values that share a scale, as in the paper's later implementation.
const BLOCK: usize = 256;

/// Which table a byte is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// From −1 to 1, for means of gradients.
    Signed,
    /// From 0 to 1, for means of squares.
    Positive,
}

/// Values in eight bits.
pub(crate) struct Quantised {
    code: Code,
    len: usize,
    blocks: Vec<Block>,
}

#[derive(Clone)]
struct Block {
    scale: f32,
    codes: [u8; BLOCK],
}

impl Quantised {
    pub fn zeros(code: Code, len: usize) -> Quantised {
        let zero = code.table().nearest(0.0);
        let block = Block {
            scale: 0.0,
            codes: [zero; BLOCK],
        };
        Quantised {
            code,
            len,
            blocks: vec![block; len.div_ceil(BLOCK)],
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Expands the values from `start`, a multiple of [`BLOCK`], on.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        let table = self.code.table();
        let blocks = &self.blocks[start / BLOCK..];
        parallel_chunks_mut(out, TASK * BLOCK, |task, out| {
            for (block, out) in blocks[task * TASK..].iter().zip(out.chunks_mut(BLOCK)) {
                for (out, &code) in out.iter_mut().zip(&block.codes) {
                    *out = table.values[usize::from(code)] * block.scale;
                }
            }
        });
    }

    /// Rounds `values` to codes, from `start`, a multiple of [`BLOCK`], on.
    pub fn write(&mut self, start: usize, values: &[f32]) {
        let table = self.code.table();
        let first = start / BLOCK;
        let blocks = &mut self.blocks[first..first + values.len().div_ceil(BLOCK)];
        parallel_chunks_mut(blocks, TASK, |task, blocks| {
            let values = values[task * TASK * BLOCK..].chunks(BLOCK);
            for (block, values) in blocks.iter_mut().zip(values) {
                block.scale = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                // In a block of zeros every code means 0; 1 keeps the division harmless.
                let scale = if block.scale == 0.0 { 1.0 } else { block.scale };
                for (code, value) in block.codes.iter_mut().zip(values) {
                    *code = table.nearest(value / scale);
                }
            }
        });
    }
}

/// Values that are expanded at a time: 256 KiB of f32 for each moment, which stay in the cache.
const PIECE: usize = 256 * BLOCK;

/// Applies step `step` of AdamW to `parameter`, whose moments these are; the gradient counts `scale` times.
pub(super) fn adamw(
    options: &AdamW,
    step: u64,
    scale: f32,
    parameter: &Parameter,
    gradient: &Tensor,
    [first, second]: [&mut Quantised; 2],
) {
    parameter.update(|weights| {
        let (len, gradient) = (first.len(), gradient.as_slice());
        let (mut m, mut v) = (vec![0.0; PIECE.min(len)], vec![0.0; PIECE.min(len)]);
        for start in (0..len).step_by(PIECE) {
            let piece = start..(start + PIECE).min(len);
            let (m, v) = (&mut m[..piece.len()], &mut v[..piece.len()]);
            first.read(start, m);
            second.read(start, v);
            let (weights, gradient) = (&mut weights[piece.clone()], &gradient[piece]);
            optimizer::adamw(options, step, scale, weights, gradient, m, v);
            first.write(start, m);
            second.write(start, v);
        }
    });
}

/// Blocks that one task takes: 8192 values, some ten microseconds of work.
const TASK: usize = 32;

impl Code {
    fn table(self) -> &'static Table {
        static SIGNED: LazyLock<Table> = LazyLock::new(|| Table::new(Code::Signed));
        static POSITIVE: LazyLock<Table> = LazyLock::new(|| Table::new(Code::Positive));
        match self {
            Code::Signed => &SIGNED,
            Code::Positive => &POSITIVE,
        }
    }
}

/// The numbers that codes stand for, ascending, and a short cut to them.
struct Table {
    values: Vec<f32>,
    /// For each cell of [`cell`] the first code that can be nearest to a number in it.
    first: Vec<u8>,
}

/// Decades below 1.
const DECADES: i32 = 7;

impl Table {
    fn new(code: Code) -> Table {
        let mut magnitudes = Vec::new();
        for decade in 0..DECADES {
            let count = match code {
                Code::Signed => 1 << decade,
                Code::Positive => 2 << decade,
            };
            let unit = 10f64.powi(decade - (DECADES - 1));
            // The middles of equal parts of a decade, from 0.1 to 1 of its unit.
            let middle = |i: i32| unit * (0.1 + 0.9 * (f64::from(i) + 0.5) / f64::from(count));
            magnitudes.extend((0..count).map(middle));
        }
        if let Some(last) = magnitudes.last_mut() {
            *last = 1.0;
        }
        let mut values = vec![0.0f32];
        for magnitude in magnitudes {
            values.push(magnitude as f32);
            if code == Code::Signed {
                values.push(-magnitude as f32);
            }
        }
        values.sort_by(f32::total_cmp);
        let mut table = Table {
            values,
            first: Vec::new(),
        };
        table.first = (0..=LAST_CELL)
            .map(|cell| {
                let lowest = lowest_of(cell);
                table.search(lowest)
            })
            .collect();
        table
    }

    /// The code of the value nearest to `x`, found by going through all.
    fn search(&self, x: f32) -> u8 {
        let above = self.values.partition_point(|&value| value < x);
        let above = above.min(self.values.len() - 1);
        let below = above.saturating_sub(1);
        if x - self.values[below] <= self.values[above] - x {
            below as u8
        } else {
            above as u8
        }
    }

    /// The code of the value nearest to `x` in [−1, 1].
    fn nearest(&self, x: f32) -> u8 {
        let mut code = usize::from(self.first[cell(x)]);
        while let Some(&next) = self.values.get(code + 1)
            && x - self.values[code] > next - x
        {
            code += 1;
        }
        code as u8
    }
}

/// Cells of [−1, 1] in ascending order: a sign, an exponent from 2⁻²⁴ to 2⁰, and five bits of mantissa, so that no
/// cell holds more than a few values of a table.
fn cell(x: f32) -> usize {
    let magnitude = (x.abs().to_bits() >> (23 - MANTISSA)).saturating_sub(SMALLEST) as usize;
    let magnitude = magnitude.min(HALF);
    if x < 0.0 {
        HALF - magnitude
    } else {
        HALF + magnitude
    }
}

/// The lowest number of a cell.
fn lowest_of(cell: usize) -> f32 {
    let magnitude = |steps: usize| f32::from_bits((steps as u32 + SMALLEST) << (23 - MANTISSA));
    match cell.checked_sub(HALF) {
        // The cell of zero reaches from the smallest negative magnitude on.
        Some(0) => -magnitude(1),
        Some(steps) => magnitude(steps),
        // Numbers below zero: the cell ends at its magnitude and begins a step further down.
        None => -magnitude(HALF - cell + 1),
    }
}

const MANTISSA: u32 = 5;
/// 2⁻²⁴ and less are all one cell.
const SMALLEST: u32 = (127 - 24) << MANTISSA;
/// Cells of the positive numbers up to 1.
const HALF: usize = 24 << MANTISSA;
const LAST_CELL: usize = 2 * HALF;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normals};

    #[test]
    fn the_tables_have_room_in_a_byte_and_hold_the_ends() {
        for (code, low, count) in [(Code::Signed, -1.0, 255), (Code::Positive, 0.0, 255)] {
            let values = &code.table().values;
            assert_eq!(values.len(), count);
            assert_eq!((values[0], values[values.len() - 1]), (low, 1.0));
            assert!(values.contains(&0.0) && values.is_sorted());
        }
    }

    #[test]
    fn the_short_cut_finds_what_the_search_finds() {
        for code in [Code::Signed, Code::Positive] {
            let table = code.table();
            for x in normals(1, Purpose::Noise, 1, 20_000) {
                // Of all sizes.
                let x = (x * x * x * 0.05).clamp(-1.0, 1.0);
                let x = if code == Code::Positive { x.abs() } else { x };
                let (found, expected) = (table.nearest(x), table.search(x));
                let distance = |code: u8| (x - table.values[usize::from(code)]).abs();
                assert_eq!(distance(found), distance(expected), "{code:?} {x}");
            }
            for value in &table.values {
                assert_eq!(table.values[usize::from(table.nearest(*value))], *value);
            }
        }
    }

    #[test]
    fn reading_and_writing_again_changes_nothing() {
        // Neither a multiple of the block nor of a task's blocks.
        let values: Vec<f32> = normals(2, Purpose::Noise, 1, 20_001)
            .iter()
            .enumerate()
            .map(|(i, x)| if i / BLOCK == 3 { 0.0 } else { x * 1e-4 })
            .collect();
        let mut quantised = Quantised::zeros(Code::Signed, values.len());
        quantised.write(0, &values);
        let mut once = vec![0.0; values.len()];
        quantised.read(0, &mut once);
        let mut again = Quantised::zeros(Code::Signed, values.len());
        again.write(0, &once);
        let mut twice = vec![1.0; values.len()];
        again.read(0, &mut twice);
        assert_eq!(once, twice);
        // In the highest decade a step is 0.9/64 of the scale, and the last one half as long again.
        let worst = values
            .chunks(BLOCK)
            .zip(once.chunks(BLOCK))
            .map(|(values, rounded)| {
                let scale = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let errors = values.iter().zip(rounded).map(|(a, b)| (a - b).abs());
                errors.fold(0.0, f32::max) / scale.max(1e-20)
            })
            .fold(0.0, f32::max);
        assert!(worst <= 0.9 / 64.0 * 0.76, "{worst}");
    }
}
