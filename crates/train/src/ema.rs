//! The exponential moving average of the weights, which is what is sampled from and exported.

use velatura_tensor::{Tensor, ema};

use crate::optimizer::Named;

/// Averages beside the weights.
pub struct Ema {
    decay: f32,
    parameters: Vec<Named>,
    averages: Vec<Tensor>,
}

impl Ema {
    /// Starts with the weights as they are; none if `decay` is 0.
    pub fn new(decay: f32, parameters: &[Named]) -> Option<Ema> {
        let averages = || {
            parameters
                .iter()
                .map(|named| named.parameter.value().detach())
                .collect()
        };
        (decay > 0.0).then(|| Ema {
            decay,
            parameters: parameters.to_vec(),
            averages: averages(),
        })
    }

    /// Takes in the weights after step `step` (from 1).
    ///
    /// The decay rises as (1 + n) / (10 + n), as TensorFlow's and diffusers' averages do, so that the random weights
    /// of the beginning are forgotten soon.
    pub fn update(&mut self, step: u64) {
        let decay = self.decay.min((1 + step) as f32 / (10 + step) as f32);
        let weights = self.parameters.iter().map(|named| named.parameter.value());
        let mut pairs: Vec<_> = self.averages.iter_mut().zip(weights).collect();
        ema(decay, &mut pairs);
    }

    /// Runs `f` with the averages in the parameters, and puts the weights back.
    pub fn during<T>(&mut self, f: impl FnOnce() -> T) -> T {
        self.swap();
        let result = f();
        self.swap();
        result
    }

    fn swap(&mut self) {
        for (named, average) in self.parameters.iter().zip(&mut self.averages) {
            named.parameter.swap(average);
        }
    }

    /// The averages as tensors for a checkpoint.
    pub(crate) fn state(&self) -> Vec<(String, Tensor)> {
        let tensor = |(named, average): (&Named, &Tensor)| (named.key(), average.clone());
        self.parameters
            .iter()
            .zip(&self.averages)
            .map(tensor)
            .collect()
    }

    pub(crate) fn averages_mut(&mut self) -> impl Iterator<Item = (&Named, &mut Tensor)> {
        self.parameters.iter().zip(&mut self.averages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use velatura_tensor::Parameter;

    #[test]
    fn the_average_follows_and_the_weights_come_back() {
        let parameter = Parameter::new("w", Tensor::from_vec(vec![0.0], &[1]));
        let named = [Named {
            component: "vae",
            parameter: parameter.clone(),
        }];
        assert!(Ema::new(0.0, &named).is_none());
        let mut average = Ema::new(0.5, &named).unwrap();
        parameter.set(Tensor::from_vec(vec![11.0], &[1]));
        average.update(1);
        // (1 + 1) / (10 + 1) of the old, the rest of the new.
        assert!((average.averages[0].item() - 9.0).abs() < 1e-5);
        average.update(100);
        assert!((average.averages[0].item() - 10.0).abs() < 1e-5);
        let inside = average.during(|| parameter.value().item());
        assert!((inside - 10.0).abs() < 1e-5);
        assert_eq!(parameter.value().item(), 11.0);
    }
}
