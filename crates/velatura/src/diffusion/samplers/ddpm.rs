use velatura_tensor::Tensor;

use super::Run;
use crate::Result;
use crate::diffusion::config::Variance;

/// DDPM: Ho et al., "Denoising Diffusion Probabilistic Models" (2020), algorithm 2 in the form of equation 7: the
/// mean of the posterior q(x_{t−1} | x_t, x₀) with x₀ from the model, plus its noise. With fewer steps than in
/// training, "t−1" is the next timestep visited.
pub(super) fn ddpm(run: &mut Run, mut x: Tensor) -> Result<Tensor> {
    for i in run.evaluations() {
        let t = run.timestep(i);
        let previous = if i + 1 < run.len() {
            run.timestep(i + 1)
        } else {
            -1
        };
        let (a_t, a_prev) = (run.schedule.alpha_bar(t), run.schedule.alpha_bar(previous));
        let alpha = a_t / a_prev;
        let beta = 1.0 - alpha;

        let prediction = run.predict(i, &x)?;
        let mean_x0 = a_prev.sqrt() * beta / (1.0 - a_t);
        let mean_x = alpha.sqrt() * (1.0 - a_prev) / (1.0 - a_t);
        x = prediction.x0().scale(mean_x0).add(&x.scale(mean_x));
        if t > 0 {
            let posterior = ((1.0 - a_prev) / (1.0 - a_t) * beta).max(1e-20);
            let deviation = match run.schedule.settings.variance_type {
                Variance::FixedSmall => posterior.sqrt(),
                Variance::FixedSmallLog => (0.5 * posterior.ln()).exp(),
                Variance::FixedLarge => beta.sqrt(),
            };
            x = x.add(&run.noise(&x).scale(deviation));
        }
        x = run.report(i, x, &prediction)?;
    }
    Ok(x)
}
