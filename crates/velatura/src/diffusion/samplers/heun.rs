use velatura_tensor::Tensor;

use super::Run;
use crate::Result;
use crate::diffusion::divide;

/// Heun's method: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022),
/// algorithm 1: an Euler step, then the same step with the mean of the slopes at both ends. The last step, to σ = 0,
/// stays Euler's. Each σ after the first stands twice in the schedule: as the end of one step and the start of the next.
pub(super) fn heun(run: &mut Run, mut x: Tensor) -> Result<Tensor> {
    let mut i = run.options.begin;
    loop {
        let (sigma, next) = (run.schedule.sigmas[i], run.schedule.sigmas[i + 1]);
        let prediction = run.predict(i, &x)?;
        let d = divide(&x.sub(&prediction.x0()), sigma);
        let end = x.add(&d.scale(next - sigma));
        let end = run.report(i, end, &prediction)?;
        i += 1;
        if i == run.len() {
            return Ok(end);
        }
        let prediction = run.predict(i, &end)?;
        let d_end = divide(&end.sub(&prediction.x0()), next);
        x = x.add(&d.add(&d_end).scale(0.5).scale(next - sigma));
        x = run.report(i, x, &prediction)?;
        i += 1;
    }
}
