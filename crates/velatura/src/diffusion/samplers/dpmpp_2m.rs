use velatura_tensor::Tensor;

use super::Run;
use crate::Result;
use crate::diffusion::config::FinalSigma;
use crate::diffusion::denoiser::NoiseLevel;

/// DPM-Solver++(2M): Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"
/// (2022), algorithm 2: x = (σ_t/σ_s)·x − α_t·(e^{−h} − 1)·D with D extrapolated from the last two predictions of x₀.
/// The first step has only one of them; the last uses only one where that is steadier.
pub(super) fn dpmpp_2m(run: &mut Run, mut x: Tensor) -> Result<Tensor> {
    let steps = run.len();
    let settings = &run.schedule.settings;
    let first_order_end = settings.euler_at_final
        || (settings.lower_order_final && steps < 15)
        || settings.final_sigmas_type == FinalSigma::Zero;
    let mut last: Option<(Tensor, f32)> = None;
    for i in run.evaluations() {
        let s = run.schedule.level(i);
        let t = NoiseLevel::of_ratio(0.0, run.schedule.sigmas[i + 1]);
        let h = t.lambda() - s.lambda();
        let prediction = run.predict(i, &x)?;
        let x0 = prediction.x0();
        let step = t.alpha * ((-h).exp() - 1.0);
        x = x.scale(t.sigma / s.sigma).sub(&x0.scale(step));
        if let Some((x0_last, lambda_last)) = &last
            && !(i + 1 == steps && first_order_end)
        {
            let r = (s.lambda() - lambda_last) / h;
            let slope = x0.sub(x0_last).scale(1.0 / r);
            x = x.sub(&slope.scale(0.5 * step));
        }
        last = Some((x0, s.lambda()));
        x = run.report(i, x, &prediction)?;
    }
    Ok(x)
}
