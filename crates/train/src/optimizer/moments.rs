//! What the optimiser remembers of one parameter: AdamW's two moments, as f32 or in eight bits each, or Muon's momentum.

use velatura_tensor::Tensor;

use super::eight_bit::{Code, Quantised};
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
