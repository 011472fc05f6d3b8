//! AdamW and the average of the weights, on the emulated card and on the processor.

mod common;

use common::*;
use velatura_gpu::{Gpu, optimizer as card};
use velatura_kernels::optimizer::{self as processor, AdamW};

const OPTIONS: AdamW = AdamW {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 1e-2,
};

#[test]
fn steps_of_adamw_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for len in [1, 255, 1003] {
        for (step, scale) in [(1, 1.0), (2, 0.25), (1000, 1.0)] {
            let (mut weights, gradient) = (random(len, 1), random(len, 2));
            // There are no moments before the first step.
            let earlier = if step == 1 { 0.0 } else { 0.1 };
            let mut first: Vec<f32> = random(len, 3).iter().map(|x| earlier * x).collect();
            let mut second: Vec<f32> = random(len, 4).iter().map(|x| earlier * x * x).collect();
            let [mut w, g, mut m, mut v] =
                [&weights, &gradient, &first, &second].map(|x| gpu.upload(x));
            let (start, [first_before, second_before]) =
                (weights.clone(), [first.clone(), second.clone()]);

            processor::adamw(
                &OPTIONS,
                step,
                scale,
                &mut weights,
                &gradient,
                &mut first,
                &mut second,
            );
            card::adamw(&OPTIONS, step, scale, &mut w, &g, &mut m, &mut v);
            let what = |part: &str| format!("{part} of {len} after step {step}");
            assert_close(&what("first moments"), &m, &first);
            assert_close(&what("second moments"), &v, &second);
            assert_close(&what("weights"), &w, &weights);
            assert_same("the gradient", &g, &gradient);
            // What is far below the tolerance beside a weight must not hide a step that was not made.
            assert_ne!(numbers(&w), start);
            assert_ne!(numbers(&m), first_before);
            assert_ne!(numbers(&v), second_before);
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
    card::adamw(
        &options,
        1,
        1.0,
        &mut w,
        &gpu.upload(&gradient),
        &mut m,
        &mut v,
    );
    let want: Vec<f32> = gradient.iter().map(|g| -1e-3 * g.signum()).collect();
    assert_close("the first step", &w, &want);
}

#[test]
fn the_average_of_the_weights_is_that_of_the_processor() {
    let gpu = Gpu::for_tests();
    for (len, decay) in [(1, 0.9), (257, 0.9999), (700, 0.0)] {
        let (mut average, weights) = (random(len, 1), random(len, 2));
        let (mut a, w) = (gpu.upload(&average), gpu.upload(&weights));
        processor::ema(decay, &mut average, &weights);
        card::ema(decay, &mut a, &w);
        assert_close(&format!("the average, decay {decay}"), &a, &average);
        assert_same("the weights", &w, &weights);
    }
}
