//! AdamW, the average of the weights and Muon's steps, on the emulated card and on the processor.

mod common;

use common::*;
use velatura_gpu::{Gpu, Memory, optimizer as card};
use velatura_kernels::optimizer::{self as processor, AdamW};

const OPTIONS: AdamW = AdamW {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 1e-2,
};

/// With none, and beside a block's piece of 8192 numbers.
const LENGTHS: [usize; 8] = [0, 1, 255, 0, 8193, 1003, 20_000, 0];

fn upload(gpu: &Gpu, arrays: &[Vec<f32>]) -> Vec<Memory> {
    arrays.iter().map(|x| gpu.upload(x)).collect()
}

/// Arrays of [`LENGTHS`], of random numbers taken through `change`.
fn arrays(seed: u64, change: impl Fn(f32) -> f32) -> Vec<Vec<f32>> {
    let lengths = (1..).zip(LENGTHS);
    let random = lengths.map(|(i, len)| random(len, 100 * seed + i));
    random
        .map(|x| x.into_iter().map(&change).collect())
        .collect()
}

#[test]
fn steps_of_adamw_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for (step, scale) in [(1, 1.0), (2, 0.25), (1000, 1.0)] {
        // There are no moments before the first step.
        let earlier = if step == 1 { 0.0 } else { 0.1 };
        let (mut weights, gradients) = (arrays(1, |x| x), arrays(2, |x| x));
        let (mut first, mut second) = (arrays(3, |x| earlier * x), arrays(4, |x| earlier * x * x));
        let [mut w, g, mut m, mut v] =
            [&weights, &gradients, &first, &second].map(|x| upload(&gpu, x));
        let before = (weights.clone(), first.clone(), second.clone());

        let moving = w.iter_mut().zip(&g).zip(m.iter_mut().zip(&mut v));
        let mut moving: Vec<_> = moving
            .map(|((weights, gradient), (first, second))| card::AdamWArrays {
                weights,
                gradient,
                first,
                second,
            })
            .collect();
        card::adamw(&gpu, &OPTIONS, step, scale, &mut moving);
        for (i, len) in LENGTHS.into_iter().enumerate() {
            processor::adamw(
                &OPTIONS,
                step,
                scale,
                &mut weights[i],
                &gradients[i],
                &mut first[i],
                &mut second[i],
            );
            let what = |part: &str| format!("{part} of {len} after step {step}");
            assert_close(&what("first moments"), &m[i], &first[i]);
            assert_close(&what("second moments"), &v[i], &second[i]);
            assert_close(&what("weights"), &w[i], &weights[i]);
            assert_same("the gradient", &g[i], &gradients[i]);
            // What is far below the tolerance beside a weight must not hide a step that was not made.
            if len > 0 {
                assert_ne!(numbers(&w[i]), before.0[i]);
                assert_ne!(numbers(&m[i]), before.1[i]);
                assert_ne!(numbers(&v[i]), before.2[i]);
            }
        }
    }
}

#[test]
fn a_first_step_is_as_large_as_the_learning_rate() {
    let gpu = Gpu::for_tests();
    let gradient = random(300, 1);
    let options = AdamW {
        learning_rate: 1e-3,
        // Beside the smallest gradient 1e-8 would show.
        eps: 1e-12,
        weight_decay: 0.0,
        ..OPTIONS
    };
    let [mut w, mut m, mut v] = [(); 3].map(|()| gpu.filled(300, 0.0));
    let arrays = card::AdamWArrays {
        weights: &mut w,
        gradient: &gpu.upload(&gradient),
        first: &mut m,
        second: &mut v,
    };
    card::adamw(&gpu, &options, 1, 1.0, &mut [arrays]);
    let want: Vec<f32> = gradient.iter().map(|g| -1e-3 * g.signum()).collect();
    assert_close("the first step", &w, &want);
}

#[test]
fn the_average_of_the_weights_is_that_of_the_processor() {
    let gpu = Gpu::for_tests();
    for decay in [0.9, 0.9999, 0.0] {
        let (mut averages, weights) = (arrays(1, |x| x), arrays(2, |x| x));
        let (mut a, w) = (upload(&gpu, &averages), upload(&gpu, &weights));
        let mut pairs: Vec<_> = a.iter_mut().zip(&w).collect();
        card::ema(&gpu, decay, &mut pairs);
        for (i, average) in averages.iter_mut().enumerate() {
            processor::ema(decay, average, &weights[i]);
            assert_close(&format!("the average, decay {decay}"), &a[i], average);
            assert_same("the weights", &w[i], &weights[i]);
        }
    }
}

#[test]
fn directions_are_nesterovs_and_of_norm_one() {
    let gpu = Gpu::for_tests();
    let [momentum, share, eps] = [0.95, 0.05, 1e-7];
    for len in [1, 255, 8192, 20_001] {
        let make = |seed: u64| [0, 1, 2].map(|i| random(len, seed + i)).to_vec();
        let (mut means, mut gradients) = (make(1), make(4));
        // A direction of nothing stays nothing.
        means[1].fill(0.0);
        gradients[1].fill(0.0);
        let (mut m, g) = (upload(&gpu, &means), upload(&gpu, &gradients));
        let mut pairs: Vec<_> = m.iter_mut().zip(&g).collect();
        let got = card::nesterov(&gpu, [momentum, share, eps], &mut pairs);

        let mut want = Vec::new();
        for (i, (mean, gradient)) in means.iter_mut().zip(&gradients).enumerate() {
            for (m, g) in mean.iter_mut().zip(gradient) {
                *m = momentum * *m + share * g;
            }
            assert_close(&format!("mean {i} of {len}"), &m[i], mean);
            let pairs = mean.iter().zip(gradient);
            let direction: Vec<f32> = pairs.map(|(m, g)| momentum * m + share * g).collect();
            let squares: f64 = direction.iter().map(|&x| f64::from(x).powi(2)).sum();
            let norm = squares.sqrt().max(f64::from(eps)) as f32;
            want.extend(direction.iter().map(|x| x / norm));
        }
        assert_close(&format!("directions of {len}"), &got, &want);
    }
}

#[test]
fn weights_go_along_their_directions() {
    let gpu = Gpu::for_tests();
    let (kept, rate) = (0.99, 0.3);
    for len in [0, 1, 257, 8193] {
        let weights = [1, 2, 3].map(|seed| random(len, seed));
        let directions = random(3 * len, 4);
        let mut w = upload(&gpu, &weights);
        let mut references: Vec<_> = w.iter_mut().collect();
        card::descend([kept, rate], &mut references, &gpu.upload(&directions));
        for (i, weights) in weights.iter().enumerate() {
            let pairs = weights.iter().zip(&directions[i * len..]);
            let want: Vec<f32> = pairs.map(|(w, d)| kept * w - rate * d).collect();
            assert_close(&format!("weights {i} of {len}"), &w[i], &want);
        }
    }
}
