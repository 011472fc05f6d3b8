//! AdamW's two moments of one parameter: as f32, or in eight bits each.

use velatura_kernels::optimizer::{AdamW, adamw};
use velatura_tensor::{Parameter, Tensor};

use super::eight_bit::{BLOCK, Code, Quantised};
use crate::config::StateKind;

/// Running means of the gradient and of its square.
pub(crate) enum Moments {
    /// Four bytes a value.
    Full { first: Tensor, second: Tensor },
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
                first: Tensor::zeros(&[len]),
                second: Tensor::zeros(&[len]),
            },
            StateKind::EightBit => Moments::EightBit {
                first: Quantised::zeros(Code::Signed, len),
                second: Quantised::zeros(Code::Positive, len),
            },
        }
    }

    /// Applies step `step` of AdamW to `parameter`, whose moments these are; the gradient counts `scale` times.
    pub fn step(
        &mut self,
        options: &AdamW,
        step: u64,
        scale: f32,
        parameter: &Parameter,
        gradient: &Tensor,
    ) {
        match self {
            Moments::Full { first, second } => {
                parameter.adamw(options, step, scale, gradient, first, second);
            }
            Moments::EightBit { first, second } => parameter.update(|weights| {
                let (len, gradient) = (first.len(), gradient.as_slice());
                let (mut m, mut v) = (vec![0.0; PIECE.min(len)], vec![0.0; PIECE.min(len)]);
                for start in (0..len).step_by(PIECE) {
                    let piece = start..(start + PIECE).min(len);
                    let (m, v) = (&mut m[..piece.len()], &mut v[..piece.len()]);
                    first.read(start, m);
                    second.read(start, v);
                    let (weights, gradient) = (&mut weights[piece.clone()], &gradient[piece]);
                    adamw(options, step, scale, weights, gradient, m, v);
                    first.write(start, m);
                    second.write(start, v);
                }
            }),
        }
    }

    /// Both moments as f32.
    pub fn to_f32(&self) -> [Vec<f32>; 2] {
        match self {
            Moments::Full { first, second } => [first.to_vec(), second.to_vec()],
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
                for (moment, values) in [first, second].into_iter().zip(values) {
                    *moment = Tensor::from_vec(values.to_vec(), &[moment.len()]);
                }
            }
            Moments::EightBit { first, second } => {
                first.write(0, values[0]);
                second.write(0, values[1]);
            }
        }
    }
}
