use velatura_tensor::Tensor;

use super::Run;
use crate::Result;
use crate::diffusion::divide;

/// Euler's method on dx/dσ = (x − D(x; σ))/σ: Karras et al., "Elucidating the Design Space of Diffusion-Based
/// Generative Models" (2022), algorithm 1 without its second-order correction; D is the predicted x₀.
pub(super) fn euler(run: &mut Run, mut x: Tensor) -> Result<Tensor> {
    for i in run.evaluations() {
        let (sigma, next) = (run.schedule.sigmas[i], run.schedule.sigmas[i + 1]);
        let prediction = run.predict(i, &x)?;
        let d = divide(&x.sub(&prediction.x0()), sigma);
        x = x.add(&d.scale(next - sigma));
        x = run.report(i, x, &prediction)?;
    }
    Ok(x)
}
