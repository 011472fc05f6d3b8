//! What the optimiser remembers of one parameter: AdamW's two moments, as f32 or in eight bits each, or Muon's momentum.

use velatura_kernels::optimizer::{AdamW, adamw};
use velatura_tensor::{Parameter, Tensor};

use super::eight_bit::{BLOCK, Code, Quantised};
use super::{Named, muon};
use crate::config::{Optimizer as Config, OptimizerKind, StateKind};

/// Running means of the gradient and, for AdamW, of its square.
pub(crate) enum Moments {
    /// Four bytes a value.
    Full { first: Tensor, second: Tensor },
    /// One byte a value, and a scale for each block.
    EightBit { first: Quantised, second: Quantised },
    /// Of the gradient alone: `[O, I]`.
    Momentum(Tensor),
}

/// Values that are expanded at a time: 256 KiB of f32 for each moment, which stay in the cache.
const PIECE: usize = 256 * BLOCK;

impl Moments {
    /// Zeros.
    pub fn new(config: &Config, named: &Named) -> Moments {
        let len = named.len();
        if config.kind == OptimizerKind::Muon && muon::takes(named) {
            let rows = named.parameter.shape()[0];
            return Moments::Momentum(Tensor::zeros(&[rows, len / rows]));
        }
        match config.state {
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
    ///
    /// # Panics
    /// When they are Muon's.
    pub fn adamw(
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
            Moments::Momentum(_) => panic!("a step of AdamW for a parameter of Muon's"),
        }
    }

    /// What they are called in a checkpoint.
    pub fn names(&self) -> &'static [&'static str] {
        match self {
            Moments::Full { .. } | Moments::EightBit { .. } => &["first", "second"],
            Moments::Momentum(_) => &["momentum"],
        }
    }

    /// Bytes in memory, but for the scales of what is kept in eight bits.
    pub fn bytes(&self) -> usize {
        match self {
            Moments::Full { first, second } => 4 * (first.len() + second.len()),
            Moments::EightBit { first, second } => first.len() + second.len(),
            Moments::Momentum(mean) => 4 * mean.len(),
        }
    }

    /// As f32, in the order of [`Moments::names`].
    pub fn to_f32(&self) -> Vec<Vec<f32>> {
        match self {
            Moments::Full { first, second } => vec![first.to_vec(), second.to_vec()],
            Moments::EightBit { first, second } => {
                let values = |quantised: &Quantised| {
                    let mut values = vec![0.0; quantised.len()];
                    quantised.read(0, &mut values);
                    values
                };
                vec![values(first), values(second)]
            }
            Moments::Momentum(mean) => vec![mean.to_vec()],
        }
    }

    /// Takes them from f32; what [`Moments::to_f32`] gave becomes the very same state again.
    ///
    /// # Panics
    /// When their number or a length differs.
    pub fn set(&mut self, values: &[Vec<f32>]) {
        assert_eq!(values.len(), self.names().len(), "moments of one parameter");
        let take = |moment: &mut Tensor, values: &[f32]| {
            *moment = Tensor::from_vec(values.to_vec(), moment.shape());
        };
        match self {
            Moments::Full { first, second } => {
                take(first, &values[0]);
                take(second, &values[1]);
            }
            Moments::EightBit { first, second } => {
                first.write(0, &values[0]);
                second.write(0, &values[1]);
            }
            Moments::Momentum(mean) => take(mean, &values[0]),
        }
    }
}
