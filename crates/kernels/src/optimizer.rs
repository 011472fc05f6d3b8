//! AdamW and the moving average of weights.

use crate::isa::{self, Kernel, Simd};
use crate::map::{BLOCK, Map, for_each_piece, for_each_task, update};
use crate::profile;
use crate::shared::SharedMut;

/// Options of AdamW (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019), named as
/// PyTorch names them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// α
    pub learning_rate: f32,
    /// β₁, the decay of the gradient's mean.
    pub beta1: f32,
    /// β₂, the decay of its mean square.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// λ: each step first takes `learning_rate · weight_decay` of a weight away.
    pub weight_decay: f32,
}

/// One step of AdamW for `weights` with `grad_scale · grad`, in the order of operations of
/// `torch.optim.AdamW`: decay, both moments, then the corrected step. `step` counts from 1; `m` and
/// `v` are the moments, zero before the first step.
///
/// # Panics
/// When the lengths differ or `step` is 0.
pub fn adamw(
    options: &AdamW,
    step: u64,
    grad_scale: f32,
    weights: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let len = weights.len();
    assert_eq!((grad.len(), m.len(), v.len()), (len, len, len));
    assert!(step > 0, "steps count from 1");
    let _note = profile::note(|| ("AdamW".into(), isa::active().to_string(), 0.0));
    let coefficients = Coefficients::new(options, step, grad_scale);
    let isa = isa::active();
    let (weights, m, v) = (
        SharedMut::new(weights),
        SharedMut::new(m),
        SharedMut::new(v),
    );
    for_each_task(len, len.div_ceil(BLOCK), |task| {
        let start = task * BLOCK;
        let len = BLOCK.min(len - start);
        // SAFETY: each task has a range of its own.
        let (weights, m, v) = unsafe {
            (
                weights.slice(start, len),
                m.slice(start, len),
                v.slice(start, len),
            )
        };
        isa.run(Step {
            coefficients,
            weights,
            grad: &grad[start..][..len],
            m,
            v,
        });
    });
}

/// What PyTorch computes in Python's f64 before it touches a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Coefficients {
    /// Of the gradient.
    pub grad_scale: f32,
    /// Of the weight: 1 − learning rate · decay.
    pub keep: f32,
    /// 1 − β₁
    pub one_minus_beta1: f32,
    /// β₂
    pub beta2: f32,
    /// 1 − β₂
    pub one_minus_beta2: f32,
    /// √(1 − β₂ᵗ)
    pub root_correction2: f32,
    /// What is added to the root of the second moment.
    pub eps: f32,
    /// The learning rate / (1 − β₁ᵗ)
    pub step_size: f32,
}

impl Coefficients {
    /// Those of step `step`, counted from 1.
    pub fn new(options: &AdamW, step: u64, grad_scale: f32) -> Self {
        let [learning_rate, beta1, beta2, weight_decay] = [
            options.learning_rate,
            options.beta1,
            options.beta2,
            options.weight_decay,
        ]
        .map(meant);
        let steps = step as f64;
        Coefficients {
            grad_scale,
            keep: (1.0 - learning_rate * weight_decay) as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: options.beta2,
            one_minus_beta2: (1.0 - beta2) as f32,
            root_correction2: (1.0 - beta2.powf(steps)).sqrt() as f32,
            eps: options.eps,
            step_size: (learning_rate / (1.0 - beta1.powf(steps))) as f32,
        }
    }
}

/// The decimal number that `x` is the nearest f32 of: 0.999 for 0.999_f32. One minus it is then
/// PyTorch's 0.001 to all digits, where the f32 itself gives 0.00099998.
fn meant(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

struct Step<'a> {
    coefficients: Coefficients,
    weights: &'a mut [f32],
    grad: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Step {
            coefficients: k,
            weights,
            grad,
            m,
            v,
        } = self;
        for_each_piece(
            simd,
            grad.len(),
            #[inline(always)]
            |at| {
                let g = simd.mul(at.load(grad), simd.splat(k.grad_scale));
                let w = simd.mul(at.load(weights), simd.splat(k.keep));
                let old = at.load(m);
                let mean = simd.mul_add(simd.splat(k.one_minus_beta1), simd.sub(g, old), old);
                let squared = simd.mul(simd.mul(g, simd.splat(k.one_minus_beta2)), g);
                let square = simd.mul_add(at.load(v), simd.splat(k.beta2), squared);
                let root = simd.div(simd.sqrt(square), simd.splat(k.root_correction2));
                let denominator = simd.add(root, simd.splat(k.eps));
                let step = simd.div(simd.mul(mean, simd.splat(k.step_size)), denominator);
                at.store(m, mean);
                at.store(v, square);
                at.store(weights, simd.sub(w, step));
            },
        );
    }
}

#[derive(Clone, Copy)]
struct Approach(f32);
impl Map<2> for Approach {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [average, x]: [S::Vector; 2]) -> S::Vector {
        simd.mul_add(simd.splat(self.0), simd.sub(x, average), average)
    }
}

/// `ema = decay · ema + (1 − decay) · weights`
///
/// # Panics
/// When the lengths differ.
pub fn ema(decay: f32, ema: &mut [f32], weights: &[f32]) {
    update(Approach(approach(decay)), ema, weights);
}

/// How far an average of this decay approaches the weights in a step: 1 − decay.
pub fn approach(decay: f32) -> f32 {
    (1.0 - meant(decay)) as f32
}
