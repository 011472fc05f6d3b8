//! Classifier-free guidance (Ho and Salimans, 2022, equation 6): away from what the model paints for the negative
//! prompt, towards what it paints for the prompt.

use velatura_tensor::Tensor;

use crate::Result;

/// A model that also sees a context: x `[B, h, w, C]`, B times t, context `[B, S, D]`.
pub type ConditionedModel<'a> = &'a mut dyn FnMut(&Tensor, &[f32], &Tensor) -> Result<Tensor>;

/// Whether `scale` asks for guidance at all. At 1 the formula is the prompt's own prediction, which then costs half;
/// below 1 diffusers leaves guidance away too.
pub fn is_guided(scale: f32) -> bool {
    scale > 1.0
}

/// The model at one (x, t), guided. Both halves go through the model in one batch, the negative first, so
/// `context` is `[2B, S, D]` for x `[B, …]`. Without guidance (see [`is_guided`]) it is the prompt's half alone,
/// `[B, S, D]`.
///
/// # Errors
/// The model's own.
///
/// # Panics
/// When the batch of `context` is not as said.
pub fn predict(
    model: ConditionedModel,
    x: &Tensor,
    t: f32,
    context: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    let batch = x.dim(0);
    if !is_guided(scale) {
        assert_eq!(
            context.dim(0),
            batch,
            "without guidance one context for each sample"
        );
        return model(x, &vec![t; batch], context);
    }
    assert_eq!(
        context.dim(0),
        2 * batch,
        "with guidance two contexts for each sample"
    );
    let both = model(&Tensor::concat_batch(&[x, x]), &vec![t; 2 * batch], context)?;
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
        let mut model = |x: &Tensor, t: &[f32], context: &Tensor| {
            calls.push((x.dim(0), t.to_vec()));
            Ok(x.scale_samples(context.as_slice()))
        };
        let x = Tensor::full(&[1, 1, 1, 2], 2.0);
        let context = Tensor::from_vec(vec![1.0, 3.0], &[2, 1, 1]);
        let guided = predict(&mut model, &x, 7.0, &context, 1.5).unwrap();
        // 2·1 + 1.5·(2·3 − 2·1)
        assert_eq!(guided.as_slice(), [8.0, 8.0]);
        let alone = predict(&mut model, &x, 7.0, &context.narrow_batch(1, 1), 1.0).unwrap();
        assert_eq!(alone.as_slice(), [6.0, 6.0]);
        assert_eq!(calls, [(2, vec![7.0; 2]), (1, vec![7.0])]);
    }
}
