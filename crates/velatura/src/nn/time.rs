//! How a timestep becomes a vector.

use velatura_tensor::Tensor;

use super::Linear;
use crate::Result;
use crate::weights::Weights;

/// Sines and cosines of the timesteps at geometrically spaced frequencies (Ho et al. 2020, arXiv:2006.11239;
/// Vaswani et al. 2017): `[B, dim]`. `cosines_first` is diffusers' `flip_sin_to_cos`, `shift` its `freq_shift`.
///
/// In f32 and in PyTorch's order of operations: at t ≈ 1000 a rounding more or less shows in the fourth digit.
pub fn timestep_features(timesteps: &[f32], dim: usize, cosines_first: bool, shift: f32) -> Tensor {
    let half = dim / 2;
    let log_period = -(10000f64.ln()) as f32;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| (log_period * i as f32 / (half as f32 - shift)).exp())
        .collect();
    let mut features = Vec::with_capacity(timesteps.len() * dim);
    for &t in timesteps {
        let sines = frequencies.iter().map(|f| (t * f).sin());
        let cosines = frequencies.iter().map(|f| (t * f).cos());
        if cosines_first {
            features.extend(cosines.chain(sines));
        } else {
            features.extend(sines.chain(cosines));
        }
        // An odd width is filled up with a zero.
        features.extend(std::iter::repeat_n(0.0, dim % 2));
    }
    Tensor::from_vec(features, &[timesteps.len(), dim])
}

/// Two linear layers with a SiLU between them: features `[B, I]` → `[B, O]`.
#[derive(Clone, Debug)]
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub fn load(w: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(TimestepEmbedding {
            linear_1: Linear::load(&w.at("linear_1"), inputs, outputs)?,
            linear_2: Linear::load(&w.at("linear_2"), outputs, outputs)?,
        })
    }

    pub fn forward(&self, features: &Tensor) -> Tensor {
        self.linear_2
            .forward(&self.linear_1.forward(features).silu())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_all_cosine_and_odd_widths_end_in_zero() {
        assert_eq!(
            timestep_features(&[0.0], 5, true, 0.0).as_slice(),
            [1.0, 1.0, 0.0, 0.0, 0.0]
        );
        assert_eq!(
            timestep_features(&[0.0], 4, false, 1.0).as_slice(),
            [0.0, 0.0, 1.0, 1.0]
        );
    }

    #[test]
    fn the_last_frequency_is_a_ten_thousandth_with_a_shift_of_one() {
        let features = timestep_features(&[1.0], 4, false, 1.0);
        assert!((features.as_slice()[1] - 1e-4f32.sin()).abs() < 1e-10);
    }
}
