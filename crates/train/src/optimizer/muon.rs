//! Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon):
//! a weight matrix goes along its momentum after all of that one's singular values have been made about 1, so that
//! directions in which gradients are seldom large are learnt as well as those in which they always are.

use velatura_kernels::optimizer::AdamW;
use velatura_tensor::{Parameter, Precision, Tensor, descend, nesterov};

use super::Named;

/// Coefficients of the polynomial a·s + b·s³ + c·s⁵, which takes singular values in (0, 1] to about 1 when it is
/// applied [`ITERATIONS`] times (Jordan et al., "Newton-Schulz iteration").
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;
/// As in PyTorch: a momentum of nothing stays nothing.
const EPS: f32 = 1e-7;
/// With this times the square root of the larger side, a step is as long as AdamW's and takes the same learning rate
/// and weight decay (Liu et al. 2025, arXiv:2502.16982, equation 4).
const ADAMW_RMS: f32 = 0.2;

/// Whether a parameter is a matrix between two hidden layers. A convolution's weight is one with a row for each output
/// channel. Embedding tables, the first and the last layer, biases and norms are left to AdamW.
pub(super) fn takes(named: &Named) -> bool {
    let name = named.parameter.name();
    let at_the_ends = ["conv_in.", "conv_out."]
        .iter()
        .any(|layer| name.starts_with(layer) || name.contains(&format!(".{layer}")));
    named.parameter.shape().len() >= 2 && !name.contains("embedding") && !at_the_ends
}

/// Matrices of one shape, each with its gradient and the running mean of its gradients.
#[derive(Default)]
pub(super) struct Group<'a> {
    parameters: Vec<&'a Parameter>,
    gradients: Vec<(&'a mut Tensor, &'a Tensor)>,
}

impl<'a> Group<'a> {
    pub fn push(&mut self, parameter: &'a Parameter, gradient: &'a Tensor, mean: &'a mut Tensor) {
        self.parameters.push(parameter);
        self.gradients.push((mean, gradient));
    }

    /// Moves the matrices. Learning rate and weight decay are AdamW's; the gradients count `scale` times.
    ///
    /// They go together, because a card takes less time for their products than for saying each of them.
    pub fn step(mut self, options: &AdamW, momentum: f32, scale: f32) {
        let share = scale * (1.0 - momentum);
        let directions = nesterov(momentum, share, EPS, &mut self.gradients);
        let directions = orthogonal(&directions);
        let larger = directions.dim(1).max(directions.dim(2)) as f32;
        let rate = options.learning_rate * ADAMW_RMS * larger.sqrt();
        let kept = 1.0 - options.learning_rate * options.weight_decay;
        descend(kept, rate, &self.parameters, &directions);
    }
}

/// U·Vᵀ of each x = U·S·Vᵀ of `[G, O, I]`, of norm 1, but for singular values that are anything between 0.7 and 1.2.
fn orthogonal(x: &Tensor) -> Tensor {
    // Factors of bf16 are what the iteration is made for.
    let precision = Precision::Bf16;
    let wide = x.dim(1) < x.dim(2);
    let [a, b, c] = COEFFICIENTS;
    let mut x = x.clone();
    for _ in 0..ITERATIONS {
        let gram = match wide {
            true => x.times_transposed(&x, precision),
            false => x.transposed_times(&x, precision),
        };
        let square = gram.times_transposed(&gram, precision);
        let change = gram.combined(b, &square, c);
        let changed = match wide {
            true => change.transposed_times(&x, precision),
            false => x.times_transposed(&change, precision),
        };
        x = x.combined(a, &changed, 1.0);
    }
    x
}
