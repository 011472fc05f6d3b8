//! Classifier-free guidance (Ho and Salimans, 2022, equation 6): away from what the model paints for the negative
//! prompt, towards what it paints for the prompt.

use velatura_tensor::Tensor;

use super::denoiser::Model;
use crate::Result;

/// Whether `scale` asks for guidance at all. At 1 the formula is the prompt's own prediction, which then costs half;
/// below 1 diffusers leaves guidance away too.
pub fn is_guided(scale: f32) -> bool {
    scale > 1.0
}

/// The model at one (x, t), guided. For x `[B, …]` it is given both halves in one batch `[2B, …]`, the first to be
/// painted for the negative prompts, the second for the prompts. Without guidance (see [`is_guided`]) it is given x
/// as it is, for the prompts.
///
/// # Errors
/// The model's own.
pub fn predict(model: Model, x: &Tensor, t: f32, scale: f32) -> Result<Tensor> {
    if !is_guided(scale) {
        return model(x, t);
    }
    let batch = x.dim(0);
    let both = model(&Tensor::concat_batch(&[x, x]), t)?;
    let negative = both.narrow_batch(0, batch);
    let prompt = both.narrow_batch(batch, batch);
    Ok(negative.add(&prompt.sub(&negative).scale(scale)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_negative_half_comes_first_and_one_batch_serves_both() {
        let mut calls = Vec::new();
        let mut model = |x: &Tensor, t: f32| {
            calls.push((x.dim(0), t));
            // The last sample is the prompt's.
            Ok(x.scale_samples(&[1.0, 3.0][2 - x.dim(0)..]))
        };
        let x = Tensor::full(&[1, 1, 1, 2], 2.0);
        let guided = predict(&mut model, &x, 7.0, 1.5).unwrap();
        // 2·1 + 1.5·(2·3 − 2·1)
        assert_eq!(guided.as_slice(), [8.0, 8.0]);
        let alone = predict(&mut model, &x, 7.0, 1.0).unwrap();
        assert_eq!(alone.as_slice(), [6.0, 6.0]);
        assert_eq!(calls, [(2, 7.0), (1, 7.0)]);
    }
}
