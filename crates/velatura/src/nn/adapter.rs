//! A low-rank adapter beside a layer whose own weight stays: y = W·x + (α/r)·B·A·x (Hu et al. 2021,
//! arXiv:2106.09685).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use velatura_tensor::random::TorchGenerator;
use velatura_tensor::{Parameter, Precision, Tensor, Weight};

/// What all adapters of a model share.
#[derive(Clone, Debug)]
pub struct Adaptation {
    /// r: rows of A and columns of B.
    pub rank: usize,
    /// α
    pub alpha: f32,
    /// Share of a layer's inputs that A does not see in a training step.
    pub dropout: f32,
    /// The layers that get one, by the end of their path: `to_q`, `attn2.to_k`.
    pub targets: Vec<String>,
    /// From which A's first values and the dropped inputs follow; B begins at zero.
    pub seed: u64,
    /// Which inputs are dropped: the same ones for as long as this number stays. At 0 none are.
    pub clock: Arc<AtomicU64>,
}

impl Adaptation {
    /// Whether the layer at `path` gets an adapter.
    pub fn covers(&self, path: &str) -> bool {
        self.targets.iter().any(|target| {
            path.strip_suffix(target.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    }
}

/// The adapter of one layer.
#[derive(Clone, Debug)]
pub struct Adapter {
    down: Weight,
    up: Weight,
    scale: f32,
    dropout: f32,
    seed: u64,
    clock: Arc<AtomicU64>,
}

impl Adapter {
    /// Of A `[r, I]` and B `[O, r]`; products are taken in f32.
    pub fn new(shared: &Adaptation, seed: u64, down: Parameter, up: Parameter) -> Adapter {
        Adapter {
            down: Weight::trainable_in(down, Precision::F32),
            up: Weight::trainable_in(up, Precision::F32),
            scale: shared.alpha / shared.rank as f32,
            dropout: shared.dropout,
            seed,
            clock: Arc::clone(&shared.clock),
        }
    }

    /// x `[…, I]` → what is added to the layer's result, `[…, O]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let seen = self.drop_some(x);
        let inner = seen.as_ref().unwrap_or(x).linear(&self.down, None);
        inner.linear(&self.up, None).scale(self.scale)
    }

    /// x with a share of its values set to 0 and the others raised accordingly; none where nothing is dropped. The
    /// choice is a function of seed and clock, so that a block which is run again for the gradient sees the same.
    fn drop_some(&self, x: &Tensor) -> Option<Tensor> {
        let clock = self.clock.load(Ordering::Relaxed);
        if self.dropout == 0.0 || clock == 0 {
            return None;
        }
        let mut numbers =
            TorchGenerator::new(self.seed ^ clock.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kept = 1.0 / (1.0 - self.dropout);
        let mask = numbers.uniform(x.len()).into_iter();
        let mask = mask.map(|u| if u < self.dropout { 0.0 } else { kept });
        Some(x.mul(&Tensor::from_vec(mask.collect(), x.shape())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptation(targets: &[&str]) -> Adaptation {
        Adaptation {
            rank: 2,
            alpha: 4.0,
            dropout: 0.5,
            targets: targets.iter().map(|&target| target.to_owned()).collect(),
            seed: 1,
            clock: Arc::default(),
        }
    }

    #[test]
    fn targets_are_ends_of_paths_at_whole_segments() {
        let shared = adaptation(&["to_q", "attn2.to_out.0"]);
        assert!(shared.covers("a.attn1.to_q") && shared.covers("to_q"));
        assert!(shared.covers("a.attn2.to_out.0") && !shared.covers("a.attn1.to_out.0"));
        assert!(!shared.covers("a.not_to_q") && !shared.covers("a.to_q.b"));
    }

    #[test]
    fn some_inputs_are_dropped_while_the_clock_runs_and_always_the_same() {
        let shared = adaptation(&[]);
        let one = |shape: &[usize]| Parameter::new("w", Tensor::full(shape, 1.0));
        let adapter = Adapter::new(&shared, 7, one(&[2, 1000]), one(&[1, 2]));
        let x = Tensor::full(&[1, 1000], 1.0);
        let value = || adapter.forward(&x).item();
        // 1000 inputs, two of the rank, a scale of two.
        assert_eq!(value(), 4000.0);
        shared.clock.store(1, Ordering::Relaxed);
        let first = value();
        // The mean stays; six standard deviations of a thousand tosses are 95, each worth 8.
        assert!(first != 4000.0 && (first - 4000.0).abs() < 760.0, "{first}");
        assert_eq!(value(), first);
        shared.clock.store(2, Ordering::Relaxed);
        assert_ne!(value(), first);
    }
}
