use velatura_tensor::Tensor;

use super::Run;
use crate::Result;
use crate::diffusion::divide;

/// Ancestral sampling with Euler steps: to σ_down, below the next level, then σ_up of fresh noise so that the variances
/// add up to the next level's (Crowson's k-diffusion; σ_up is DDPM's posterior deviation, Ho et al. 2020, equation 7,
/// written in σ).
pub(super) fn euler_ancestral(run: &mut Run, mut x: Tensor) -> Result<Tensor> {
    for i in run.evaluations() {
        let (sigma, next) = (run.schedule.sigmas[i], run.schedule.sigmas[i + 1]);
        let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).sqrt();
        let down = (next * next - up * up).max(0.0).sqrt();
        let prediction = run.predict(i, &x)?;
        let d = divide(&x.sub(&prediction.x0()), sigma);
        x = x.add(&d.scale(down - sigma));
        // Noise is drawn for the last step too, where it counts nothing: the generator must end where PyTorch's does.
        x = x.add(&run.noise(&x).scale(up));
        x = run.report(i, x, &prediction)?;
    }
    Ok(x)
}
