//! AdamW or Muon over named parameters, clipping by the global norm, and the learning rate's course.

mod eight_bit;
mod moments;
mod muon;

use std::collections::BTreeMap;
use std::f64::consts::PI;

use velatura_kernels::optimizer::AdamW as Settings;
use velatura_tensor::{AdamWStep, Gradients, Parameter, Tensor, adamw, sums_of_squares};

use self::moments::Moments;
use crate::config::{Decay, Optimizer as Config};

/// A parameter and the component it belongs to, which together name it in a checkpoint.
#[derive(Clone, Debug)]
pub struct Named {
    /// The component's folder: "unet", "text_encoder", "vae".
    pub component: &'static str,
    /// The parameter, named as diffusers does.
    pub parameter: Parameter,
}

impl Named {
    /// `component/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.component, self.parameter.name())
    }

    /// How many numbers it has.
    pub(crate) fn len(&self) -> usize {
        self.parameter.shape().iter().product()
    }
}

/// The optimiser: AdamW (Loshchilov and Hutter 2019) as `torch.optim.AdamW` computes it, in f32, or for matrices Muon as
/// `torch.optim.Muon` with `match_rms_adamw` does.
pub struct Optimizer {
    config: Config,
    /// Steps of the whole run, which the decay of the learning rate needs.
    steps: u64,
    parameters: Vec<Named>,
    moments: Vec<Moments>,
}

impl Optimizer {
    /// Starts with moments of zero for a run of `steps` steps.
    pub fn new(config: &Config, steps: u64, parameters: &[Named]) -> Optimizer {
        let zeros = |named: &Named| Moments::new(config, named);
        let moments = parameters.iter().map(zeros).collect();
        Optimizer {
            config: config.clone(),
            steps,
            parameters: parameters.to_vec(),
            moments,
        }
    }

    /// The parameters in their fixed order.
    pub fn parameters(&self) -> &[Named] {
        &self.parameters
    }

    pub(crate) fn moments_mut(&mut self) -> impl Iterator<Item = (&Named, &mut Moments)> {
        self.parameters.iter().zip(&mut self.moments)
    }

    /// Bytes that the moments take.
    pub(crate) fn state_bytes(&self) -> usize {
        self.moments.iter().map(Moments::bytes).sum()
    }

    /// The moments as tensors for a checkpoint: `unet/conv_in.bias#first` and so on.
    pub(crate) fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::with_capacity(2 * self.parameters.len());
        for (named, moments) in self.parameters.iter().zip(&self.moments) {
            let shape = named.parameter.shape();
            for (name, values) in moments.names().iter().zip(moments.to_f32()) {
                let values = Tensor::from_vec(values, shape);
                state.push((format!("{}#{name}", named.key()), values));
            }
        }
        state
    }

    /// The learning rate of step `step`, counted from 1.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let Config {
            learning_rate,
            warmup_steps,
            decay,
            final_fraction,
            ..
        } = self.config;
        if step < warmup_steps {
            return learning_rate * step as f64 / warmup_steps as f64;
        }
        let length = self.steps.saturating_sub(warmup_steps).max(1);
        let progress = ((step - warmup_steps) as f64 / length as f64).min(1.0);
        let course = match decay {
            Decay::Constant => 1.0,
            Decay::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            Decay::Linear => 1.0 - progress,
        };
        let floor = if decay == Decay::Constant {
            0.0
        } else {
            final_fraction
        };
        learning_rate * (floor + (1.0 - floor) * course)
    }

    /// The Euclidean norm of all gradients together.
    pub fn gradient_norm(&self, gradients: &Gradients) -> f64 {
        let all: Vec<&Tensor> = self
            .parameters
            .iter()
            .filter_map(|named| gradients.get(&named.parameter))
            .collect();
        sums_of_squares(&all).iter().sum::<f64>().sqrt()
    }

    /// The first parameter whose gradient is not finite.
    pub fn first_not_finite(&self, gradients: &Gradients) -> Option<String> {
        let bad = |named: &&Named| {
            gradients
                .get(&named.parameter)
                .is_some_and(|gradient| !gradient.is_finite())
        };
        self.parameters.iter().find(bad).map(Named::key)
    }

    /// Applies step `step` (from 1). `norm` is what [`Optimizer::gradient_norm`] said; a parameter that the loss did
    /// not reach stays as it is.
    pub fn step(&mut self, step: u64, gradients: &Gradients, norm: f64) {
        // torch.nn.utils.clip_grad_norm_ has the same 1e-6.
        let clip = self.config.max_grad_norm;
        let scale = if clip > 0.0 {
            (clip / (norm + 1e-6)).min(1.0)
        } else {
            1.0
        };
        let settings = Settings {
            learning_rate: self.learning_rate(step) as f32,
            beta1: self.config.betas[0] as f32,
            beta2: self.config.betas[1] as f32,
            eps: self.config.eps as f32,
            weight_decay: self.config.weight_decay as f32,
        };
        let (momentum, scale) = (self.config.momentum as f32, scale as f32);
        let mut steps = Vec::new();
        let mut matrices: BTreeMap<[usize; 2], muon::Group> = BTreeMap::new();
        for (named, moments) in self.parameters.iter().zip(&mut self.moments) {
            let Some(gradient) = gradients.get(&named.parameter) else {
                continue;
            };
            let parameter = &named.parameter;
            match moments {
                Moments::Momentum(mean) => {
                    let group = matrices.entry([mean.dim(0), mean.dim(1)]).or_default();
                    group.push(parameter, gradient, mean);
                }
                Moments::Full { first, second } => steps.push(AdamWStep {
                    parameter,
                    gradient,
                    first,
                    second,
                }),
                Moments::EightBit { first, second } => {
                    let moments = [first, second];
                    eight_bit::adamw(&settings, step, scale, parameter, gradient, moments);
                }
            }
        }
        adamw(&settings, step, scale, &mut steps);
        for group in matrices.into_values() {
            group.step(&settings, momentum, scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StateKind;

    fn optimizer(config: Config, steps: u64) -> (Optimizer, Parameter) {
        let parameter = Parameter::new("w", Tensor::from_vec(vec![1.0, -2.0], &[2]));
        let named = Named {
            component: "unet",
            parameter: parameter.clone(),
        };
        (Optimizer::new(&config, steps, &[named]), parameter)
    }

    #[test]
    fn the_rate_warms_up_and_decays() {
        let config = Config {
            learning_rate: 1.0,
            warmup_steps: 10,
            ..Config::default()
        };
        let rates = |decay, final_fraction| {
            let (optimizer, _) = optimizer(
                Config {
                    decay,
                    final_fraction,
                    ..config.clone()
                },
                110,
            );
            [1, 5, 10, 60, 110].map(|step| (optimizer.learning_rate(step) * 1e6).round() / 1e6)
        };
        assert_eq!(rates(Decay::Constant, 0.0), [0.1, 0.5, 1.0, 1.0, 1.0]);
        assert_eq!(rates(Decay::Cosine, 0.0), [0.1, 0.5, 1.0, 0.5, 0.0]);
        assert_eq!(rates(Decay::Linear, 0.1), [0.1, 0.5, 1.0, 0.55, 0.1]);
    }

    #[test]
    fn the_first_step_goes_by_the_learning_rate_whatever_the_clipping() {
        // At step 1 Adam's direction is the gradient's sign, so clipping must not change the weights.
        for max_grad_norm in [0.0, 1e-3] {
            let config = Config {
                learning_rate: 0.1,
                weight_decay: 0.0,
                max_grad_norm,
                ..Config::default()
            };
            let (mut optimizer, parameter) = optimizer(config, 10);
            let gradients = parameter
                .value()
                .mul(&Tensor::from_vec(vec![3.0, 4.0], &[2]))
                .sum()
                .backward();
            let norm = optimizer.gradient_norm(&gradients);
            assert!((norm - 5.0).abs() < 1e-6);
            optimizer.step(1, &gradients, norm);
            let after = parameter.value().to_vec();
            assert!(
                (after[0] - 0.9).abs() < 1e-4 && (after[1] + 2.1).abs() < 1e-4,
                "{after:?}"
            );
            // Moments do remember the clipped gradient.
            let first = optimizer.moments[0].to_f32()[0][1];
            let expected = if max_grad_norm == 0.0 {
                0.4
            } else {
                0.4 * 2e-4
            };
            assert!((first / expected - 1.0).abs() < 1e-3, "{first}");
        }
    }

    #[test]
    fn moments_in_eight_bits_lead_to_the_same_place() {
        // A bowl with its bottom at −1.5; the state's rounding must neither stop nor deflect the way there.
        let end = |state| {
            let start: Vec<f32> = (0..1000).map(|i| i as f32 / 500.0).collect();
            let parameter = Parameter::new("w", Tensor::from_vec(start, &[1000]));
            let named = Named {
                component: "unet",
                parameter: parameter.clone(),
            };
            let config = Config {
                learning_rate: 0.03,
                betas: [0.9, 0.95],
                weight_decay: 0.0,
                max_grad_norm: 0.0,
                decay: Decay::Linear,
                state,
                ..Config::default()
            };
            let mut optimizer = Optimizer::new(&config, 400, &[named]);
            for step in 1..=400 {
                let loss = parameter.value().add_scalar(1.5).square().sum();
                let gradients = loss.backward();
                let norm = optimizer.gradient_norm(&gradients);
                optimizer.step(step, &gradients, norm);
            }
            parameter.value().to_vec()
        };
        for state in [StateKind::F32, StateKind::EightBit] {
            let worst = end(state)
                .iter()
                .fold(0.0f32, |most, w| most.max((w + 1.5).abs()));
            assert!(worst < 0.01, "{state:?}: {worst}");
        }
    }

    #[test]
    fn a_bad_gradient_is_named() {
        let (optimizer, parameter) = optimizer(Config::default(), 1);
        let gradients = parameter.value().scale(f32::NAN).sum().backward();
        assert!(optimizer.gradient_norm(&gradients).is_nan());
        assert_eq!(
            optimizer.first_not_finite(&gradients).as_deref(),
            Some("unet/w")
        );
    }
}
