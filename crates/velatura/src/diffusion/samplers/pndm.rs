use velatura_tensor::Tensor;

use super::Run;
use crate::Result;
use crate::diffusion::denoiser::NoiseLevel;
use crate::diffusion::divide;

/// PNDM: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds" (2022), equation 12: Adams and
/// Bashforth's four-step formula on the model's outputs, transferred by equation 9. The first outputs are missing, so
/// the start is either Runge–Kutta steps (equation 13, the paper's) or formulas of lower order (`skip_prk_steps`,
/// which Stable Diffusion calls PLMS).
pub(super) fn pndm(run: &mut Run, mut x: Tensor) -> Result<Tensor> {
    let skip = run.schedule.settings.skip_prk_steps;
    let mut outputs = Vec::new();
    let begin = run.options.begin;
    let first = if skip {
        begin
    } else {
        runge_kutta(run, &mut x, &mut outputs)?
    };
    let stride = run.schedule.stride();
    let mut start = x.clone();
    for i in first..run.len() {
        let t = run.timestep(i);
        let prediction = run.predict(i, &x)?;
        let output = prediction.output.clone();
        if i == begin + 1 && skip {
            // The second evaluation repeats the first step, with the mean of the outputs at its two ends. From the
            // middle of a schedule it is taken so too, as diffusers does, whatever timestep stands there.
            let mean = output.add(&outputs[0]).scale(0.5);
            x = transfer(run, &start, t + stride, t, &mean);
        } else {
            start = x.clone();
            outputs.push(output);
            outputs.drain(..outputs.len().saturating_sub(4));
            x = transfer(run, &x, t, t - stride, &adams_bashforth(&outputs));
        }
        x = run.report(i, x, &prediction)?;
    }
    Ok(x)
}

/// The first three steps by the classical Runge–Kutta method, four evaluations each. Returns how many there were.
fn runge_kutta(run: &mut Run, x: &mut Tensor, outputs: &mut Vec<Tensor>) -> Result<usize> {
    let half = run.schedule.stride() / 2;
    for step in 0..3 {
        let start = x.clone();
        let t = run.timestep(4 * step);
        let mut sum = Tensor::zeros(x.shape());
        for (stage, weight) in [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0]
            .into_iter()
            .enumerate()
        {
            let i = 4 * step + stage;
            let prediction = run.predict(i, x)?;
            let output = &prediction.output;
            sum = sum.add(&output.scale(weight));
            if stage == 0 {
                outputs.push(output.clone());
            }
            // Stages 0 and 2 lead half a stride and a whole one ahead of where they stand; the last takes the mean.
            let ahead = run.timestep(i) - if stage % 2 == 0 { half } else { 0 };
            let slope = if stage == 3 { &sum } else { output };
            *x = transfer(run, &start, t, ahead, slope);
            *x = run.report(i, x.clone(), &prediction)?;
        }
    }
    Ok(12)
}

/// The formula of the highest order that the outputs, oldest first, allow.
fn adams_bashforth(outputs: &[Tensor]) -> Tensor {
    let (weights, divisor): (&[f32], f32) = match outputs.len() {
        1 => (&[1.0], 1.0),
        2 => (&[3.0, -1.0], 2.0),
        3 => (&[23.0, -16.0, 5.0], 12.0),
        _ => (&[55.0, -59.0, 37.0, -9.0], 24.0),
    };
    let newest_first = outputs.iter().rev().zip(weights);
    let sum = newest_first
        .map(|(output, &weight)| output.scale(weight))
        .reduce(|sum, term| sum.add(&term));
    divide(&sum.unwrap_or_else(|| Tensor::zeros(&[0])), divisor)
}

/// φ of equation 9: from x at timestep t to timestep `to`, along the model's `output`.
fn transfer(run: &Run, x: &Tensor, t: i64, to: i64, output: &Tensor) -> Tensor {
    let (a_t, a_to) = (run.schedule.alpha_bar(t), run.schedule.alpha_bar(to));
    let level = NoiseLevel::variance_preserving(t as f32, a_t);
    let epsilon = run.denoiser.kind.epsilon(output, x, &level);
    let divisor = a_t * (1.0 - a_to).sqrt() + (a_t * (1.0 - a_t) * a_to).sqrt();
    x.scale((a_to / a_t).sqrt())
        .sub(&divide(&epsilon.scale(a_to - a_t), divisor))
}
