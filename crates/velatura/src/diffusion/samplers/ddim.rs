use velatura_tensor::Tensor;

use super::Run;
use crate::Result;

/// DDIM: Song et al., "Denoising Diffusion Implicit Models" (2020), equation 12 with σ_t(η) of equation 16: a step to
/// the predicted x₀, the rest of the way back along the predicted noise, and η times DDPM's fresh noise.
pub(super) fn ddim(run: &mut Run, mut x: Tensor) -> Result<Tensor> {
    let eta = run.options.eta;
    for i in run.evaluations() {
        let t = run.timestep(i);
        let a_t = run.schedule.alpha_bar(t);
        let a_prev = run.schedule.alpha_bar(t - run.schedule.stride());
        let variance = (1.0 - a_prev) / (1.0 - a_t) * (1.0 - a_t / a_prev);
        let sigma = eta * variance.sqrt();

        let prediction = run.predict(i, &x)?;
        // The noise stays that of the unclipped x₀, as in diffusers.
        let direction = prediction
            .epsilon()
            .scale((1.0 - a_prev - sigma * sigma).sqrt());
        x = prediction.x0().scale(a_prev.sqrt()).add(&direction);
        if eta > 0.0 {
            x = x.add(&run.noise(&x).scale(sigma));
        }
        x = run.report(i, x, &prediction)?;
    }
    Ok(x)
}
