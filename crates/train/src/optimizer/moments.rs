//! AdamW's two moments of one parameter: as f32, or in eight bits each.

use super::eight_bit::{BLOCK, Code, Quantised};
use crate::config::StateKind;

/// Running means of the gradient and of its square.
pub(crate) enum Moments {
    /// Four bytes a value.
    Full { first: Vec<f32>, second: Vec<f32> },
    /// One byte a value, and a scale for each block.
    EightBit { first: Quantised, second: Quantised },
}

/// Values that are expanded at a time: 256 KiB of f32 for each moment, which stay in the cache.
const PIECE: usize = 256 * BLOCK;

impl Moments {
    /// `len` zeros.
    pub fn new(kind: StateKind, len: usize) -> Moments {
        match kind {
            StateKind::F32 => Moments::Full {
                first: vec![0.0; len],
                second: vec![0.0; len],
            },
            StateKind::EightBit => Moments::EightBit {
                first: Quantised::zeros(Code::Signed, len),
                second: Quantised::zeros(Code::Positive, len),
            },
        }
    }

    /// Hands `change` the moments for writing, in pieces: where a piece begins, its first and its second moments.
    pub fn update(&mut self, mut change: impl FnMut(usize, &mut [f32], &mut [f32])) {
        match self {
            Moments::Full { first, second } => change(0, first, second),
            Moments::EightBit { first, second } => {
                let len = first.len();
                let (mut m, mut v) = (vec![0.0; PIECE.min(len)], vec![0.0; PIECE.min(len)]);
                for start in (0..len).step_by(PIECE) {
                    let size = PIECE.min(len - start);
                    let (m, v) = (&mut m[..size], &mut v[..size]);
                    first.read(start, m);
                    second.read(start, v);
                    change(start, m, v);
                    first.write(start, m);
                    second.write(start, v);
                }
            }
        }
    }

    /// Both moments as f32.
    pub fn to_f32(&self) -> [Vec<f32>; 2] {
        match self {
            Moments::Full { first, second } => [first.clone(), second.clone()],
            Moments::EightBit { first, second } => [first, second].map(|quantised| {
                let mut values = vec![0.0; quantised.len()];
                quantised.read(0, &mut values);
                values
            }),
        }
    }

    /// Takes both moments from f32; what [`Moments::to_f32`] gave becomes the very same state again.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn set(&mut self, values: [&[f32]; 2]) {
        match self {
            Moments::Full { first, second } => {
                first.copy_from_slice(values[0]);
                second.copy_from_slice(values[1]);
            }
            Moments::EightBit { first, second } => {
                first.write(0, values[0]);
                second.write(0, values[1]);
            }
        }
    }
}
