//! Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon):
//! a weight matrix goes along its momentum after all of that one's singular values have been made about 1, so that
//! directions in which gradients are seldom large are learnt as well as those in which they always are.

use std::collections::BTreeMap;

use velatura_kernels::optimizer::AdamW;
use velatura_tensor::{Parameter, Precision, Tensor, sums_of_squares};

use super::Named;

/// Coefficients of the polynomial a·s + b·s³ + c·s⁵, which takes singular values in (0, 1] to about 1 when it is
/// applied [`ITERATIONS`] times (Jordan et al., "Newton-Schulz iteration").
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;
/// As in PyTorch: a momentum of nothing stays nothing.
const EPS: f64 = 1e-7;
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

/// Takes a gradient, which counts `scale` times, into the running mean of a parameter's gradients, and says where to go:
/// Nesterov's direction, the mean as it would be if the next gradient were as this one.
pub(super) fn direction(momentum: f32, scale: f32, gradient: &Tensor, mean: &mut Tensor) -> Tensor {
    let gradient = gradient.reshape(mean.shape());
    let share = scale * (1.0 - momentum);
    *mean = mean.combined(momentum, &gradient, share);
    mean.combined(momentum, &gradient, share)
}

/// Moves parameters along their directions, `[O, I]` each. Learning rate and weight decay are AdamW's.
///
/// Those of one shape go together, because a card takes less time for their products than for saying each of them.
pub(super) fn step(options: &AdamW, moves: Vec<(&Parameter, Tensor)>) {
    let mut by_shape: BTreeMap<[usize; 2], Vec<(&Parameter, Tensor)>> = BTreeMap::new();
    for (parameter, direction) in moves {
        let shape = [direction.dim(0), direction.dim(1)];
        by_shape
            .entry(shape)
            .or_default()
            .push((parameter, direction));
    }
    for ([rows, columns], moves) in by_shape {
        let directions: Vec<&Tensor> = moves.iter().map(|(_, direction)| direction).collect();
        let norms = sums_of_squares(&directions).into_iter().map(f64::sqrt);
        let factors: Vec<f32> = norms.map(|norm| (1.0 / norm.max(EPS)) as f32).collect();
        let directions = Tensor::concat_batch(&directions)
            .reshape(&[moves.len(), rows, columns])
            .scale_samples(&factors);
        let directions = orthogonal(&directions);
        let rate = options.learning_rate * ADAMW_RMS * (rows.max(columns) as f32).sqrt();
        let kept = 1.0 - options.learning_rate * options.weight_decay;
        for (index, (parameter, _)) in moves.iter().enumerate() {
            let direction = directions.narrow_batch(index, 1).reshape(parameter.shape());
            parameter.set(parameter.value().combined(kept, &direction, -rate));
        }
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
