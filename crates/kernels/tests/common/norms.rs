//! What tests of norms share: inputs, and gradients by differences.

use super::random;

/// What a norm and its gradients work on.
pub struct Case {
    pub x: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub dy: Vec<f32>,
}

/// Activations of deviation about 0.6 around `mean`.
pub fn case(len: usize, channels: usize, mean: f32) -> Case {
    Case {
        x: random(len, 1).iter().map(|x| mean + x).collect(),
        gamma: random(channels, 2).iter().map(|g| 1.0 + 0.5 * g).collect(),
        beta: random(channels, 3),
        dy: random(len, 4),
    }
}

/// `x + onto`
pub fn plus(x: &[f64], onto: Option<&[f32]>) -> Vec<f64> {
    let onto = |i: usize| onto.map_or(0.0, |onto| f64::from(onto[i]));
    x.iter().enumerate().map(|(i, x)| x + onto(i)).collect()
}

/// The norm of the difference over the norm.
pub fn distance(got: &[f32], want: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = got
        .iter()
        .zip(want)
        .map(|(&g, &w)| square(f64::from(g) - w))
        .sum();
    let norm: f64 = want.iter().map(|&w| square(w)).sum();
    (difference / norm.max(1e-30)).sqrt()
}

/// Central differences of `loss` at `x`, each place in turn.
pub fn numeric(x: &[f64], mut loss: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    // The error is of the order of STEP² and of f64's epsilon / STEP: 1e-10.
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let middle = x[i];
            x[i] = middle + STEP;
            let above = loss(&x);
            x[i] = middle - STEP;
            let below = loss(&x);
            x[i] = middle;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

pub fn weighted(y: &[f64], dy: &[f64]) -> f64 {
    y.iter().zip(dy).map(|(y, dy)| y * dy).sum()
}
