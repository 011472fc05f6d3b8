//! The loss, the optimiser and the average.

use serde::{Deserialize, Serialize};

/// `[loss]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// The VAE's reconstruction term.
    pub reconstruction: Reconstruction,
    /// The VAE's KL weight as the LDM paper counts it (sums over a picture): 1e-6 is Stable Diffusion's.
    pub kl_weight: f32,
    /// The UNet's weighting by signal-to-noise ratio (Hang et al. 2023, where γ is 5); all timesteps alike if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_snr_gamma: Option<f32>,
    /// What the UNet's error is measured by.
    pub distance: DistanceKind,
    /// Where the pseudo-Huber distance bends from a square to a straight line.
    pub huber_c: f32,
    /// Deviation of a constant added to the noise of each channel, so that the model also learns to change a picture's
    /// brightness (Guttenberg 2023); 0.1 is usual.
    pub offset_noise: f32,
    /// How timesteps are drawn.
    pub timesteps: TimestepKind,
    /// Mean of the normal number whose logistic function is the timestep (timesteps "logit_normal").
    pub logit_mean: f32,
    /// Its deviation.
    pub logit_std: f32,
}

impl Default for Loss {
    fn default() -> Self {
        Loss {
            reconstruction: Reconstruction::L1,
            kl_weight: 1e-6,
            min_snr_gamma: None,
            distance: DistanceKind::L2,
            huber_c: 0.1,
            offset_noise: 0.0,
            timesteps: TimestepKind::Uniform,
            logit_mean: 0.0,
            logit_std: 1.0,
        }
    }
}

/// The reconstruction term, a mean over pixels and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reconstruction {
    /// |x − x̂|
    L1,
    /// (x − x̂)²
    L2,
}

/// What the UNet's error is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DistanceKind {
    /// d²
    L2,
    /// 2c·(√(d² + c²) − c): outliers count less (Khrapov et al. 2024, arXiv:2403.16728).
    Huber,
}

/// How timesteps are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepKind {
    /// All alike.
    Uniform,
    /// The logistic function of a normal number: the middle more often (Esser et al. 2024, arXiv:2403.03206, eq. 19).
    LogitNormal,
}

/// `[optimizer]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// AdamW, or Muon.
    #[serde(skip_serializing_if = "OptimizerKind::is_default")]
    pub kind: OptimizerKind,
    /// The rate after the warm-up.
    pub learning_rate: f64,
    /// AdamW's β₁ and β₂.
    pub betas: [f64; 2],
    /// AdamW's ε.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps over which the rate rises from 0 linearly.
    pub warmup_steps: u64,
    /// The rate's course after the warm-up.
    pub decay: Decay,
    /// The rate at the last step as a fraction of `learning_rate` (decay "cosine" and "linear").
    pub final_fraction: f64,
    /// Gradients are scaled down to this global norm; 0 for no clipping.
    pub max_grad_norm: f64,
    /// How AdamW's two moments are kept.
    pub state: StateKind,
    /// How much of Muon's running mean of the gradients stays from step to step.
    #[serde(skip_serializing_if = "is_usual_momentum")]
    pub momentum: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            learning_rate: 1e-4,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.01,
            warmup_steps: 0,
            decay: Decay::Constant,
            final_fraction: 0.0,
            max_grad_norm: 1.0,
            state: StateKind::F32,
            kind: OptimizerKind::AdamW,
            momentum: MOMENTUM,
        }
    }
}

/// What Muon's authors use.
const MOMENTUM: f64 = 0.95;

fn is_usual_momentum(momentum: &f64) -> bool {
    *momentum == MOMENTUM
}

/// How weights follow their gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Each weight by the mean and the size of its own gradients (Loshchilov and Hutter 2019, arXiv:1711.05101).
    #[default]
    AdamW,
    /// Each matrix as a whole, in all directions alike (Jordan et al. 2024, kellerjordan.github.io/posts/muon), with steps as
    /// long as AdamW's and its learning rate (Liu et al. 2025, arXiv:2502.16982); what is no matrix between hidden layers
    /// by AdamW.
    Muon,
}

impl OptimizerKind {
    fn is_default(&self) -> bool {
        *self == OptimizerKind::AdamW
    }
}

/// The learning rate's course after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// No change.
    Constant,
    /// Half a cosine down to `final_fraction`.
    Cosine,
    /// A line down to `final_fraction`.
    Linear,
}

/// How AdamW's two moments are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateKind {
    /// As they are: eight bytes a weight.
    #[serde(rename = "f32")]
    F32,
    /// In eight bits each with a scale for every 256 (Dettmers et al. 2022, arXiv:2110.02861): two bytes a weight.
    #[serde(rename = "8bit")]
    EightBit,
}

/// `[ema]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ema {
    /// The average's decay per step; 0 keeps no average and exports the last weights.
    pub decay: f32,
}

impl Default for Ema {
    fn default() -> Self {
        Ema { decay: 0.999 }
    }
}
