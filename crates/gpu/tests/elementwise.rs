//! Arithmetic, activations and sums, on the emulated card and on the processor.

mod common;

use common::*;
use velatura_gpu::{Gpu, elementwise as card};
use velatura_kernels::activation::{self, Activation};
use velatura_kernels::elementwise as processor;

/// Below, at and above a block's 256 threads.
const LENGTHS: [usize; 5] = [1, 31, 256, 257, 1003];

#[test]
fn arithmetic_is_that_of_the_processor() {
    let gpu = Gpu::for_tests();
    for len in LENGTHS {
        let (x, y) = (random(len, 1), random(len, 2));
        let (on_card, other) = (gpu.upload(&x), gpu.upload(&y));
        let mut want = zeros(len);

        processor::add(&x, &y, &mut want);
        assert_close("sum", &card::combine(1.0, &on_card, 1.0, &other), &want);
        let mut sum = on_card.duplicate();
        card::accumulate(&mut sum, &other);
        assert_close("sum in place", &sum, &want);
        assert_same("a copy's original", &on_card, &x);

        processor::sub(&x, &y, &mut want);
        assert_close(
            "difference",
            &card::combine(1.0, &on_card, -1.0, &other),
            &want,
        );

        want.copy_from_slice(&y);
        processor::axpy(0.7, &x, &mut want);
        assert_close(
            "combination",
            &card::combine(0.7, &on_card, 1.0, &other),
            &want,
        );

        processor::scale(&x, -2.5, &mut want);
        assert_close("multiple", &card::scale(&on_card, -2.5, 0.0), &want);
        let raised: Vec<f32> = want.iter().map(|x| x + 0.3).collect();
        assert_close(
            "multiple and more",
            &card::scale(&on_card, -2.5, 0.3),
            &raised,
        );

        processor::mul(&x, &y, &mut want);
        assert_close("product", &card::multiply(1.0, &on_card, &other), &want);
        let half: Vec<f32> = want.iter().map(|x| 0.5 * x).collect();
        assert_close(
            "half a product",
            &card::multiply(0.5, &on_card, &other),
            &half,
        );
    }
}

#[test]
fn samples_have_factors_of_their_own() {
    let gpu = Gpu::for_tests();
    for (batch, sample) in [(1, 300), (3, 101), (3, 64), (5, 1)] {
        let (x, factors) = (random(batch * sample, 1), random(batch, 2));
        let want: Vec<f32> = (0..x.len()).map(|i| x[i] * factors[i / sample]).collect();
        let got = card::scale_samples(&gpu.upload(&x), &factors);
        assert_close("samples times factors", &got, &want);
    }
}

#[test]
fn a_vector_per_sample_is_added_and_has_its_gradient() {
    let gpu = Gpu::for_tests();
    for (batch, places, channels) in [
        (1, 1, 1),
        (2, 9, 33),
        (3, 300, 5),
        (1, 40, 70),
        (2, 80, 136),
    ] {
        let len = batch * places * channels;
        let (x, e) = (random(len, 1), random(batch * channels, 2));
        let mut want = zeros(len);
        processor::add_channels(batch, places, channels, &x, &e, &mut want);
        let (on_card, vectors) = (gpu.upload(&x), gpu.upload(&e));
        let got = card::add_channels(&on_card, &vectors, places, channels);
        assert_close("vectors added", &got, &want);

        let mut want = zeros(batch * channels);
        for (x, sums) in x.chunks(places * channels).zip(want.chunks_mut(channels)) {
            processor::sum_rows(places, channels, x, sums);
        }
        let got = card::add_channels_gradient(&on_card, batch, places, channels);
        assert_close("vectors' gradient", &got, &want);
    }
}

#[test]
fn nothing_has_vectors_of_zeros_as_gradient() {
    let none = Gpu::for_tests().upload(&[]);
    assert_same(
        "no places",
        &card::add_channels_gradient(&none, 2, 0, 3),
        &zeros(6),
    );
    assert_same(
        "no samples",
        &card::add_channels_gradient(&none, 0, 4, 3),
        &[],
    );
    assert_same("no rows", &card::sum_rows(&none, 0, 3), &zeros(3));
}

#[test]
fn sums_over_rows_go_through_as_many_chunks_as_it_takes() {
    let gpu = Gpu::for_tests();
    for (rows, channels) in [(1, 1), (7, 33), (256, 3), (257, 32), (600, 65), (300, 132)] {
        let x = random(rows * channels, 1);
        let mut want = zeros(channels);
        processor::sum_rows(rows, channels, &x, &mut want);
        let got = card::sum_rows(&gpu.upload(&x), rows, channels);
        assert_close(&format!("sum over {rows} rows"), &got, &want);
    }
}

#[test]
fn the_chunks_of_a_sum_over_many_rows_are_summed_in_chunks_too() {
    // One row more than 256 chunks of 256. The processor's own sums of f32 are less exact here.
    let x = random(65537, 1);
    let want: f64 = x.iter().map(|&x| f64::from(x)).sum();
    let got = card::sum_rows(&Gpu::for_tests().upload(&x), x.len(), 1);
    assert_close("sum over 65537 rows", &got, &[want as f32]);
}

#[test]
fn activations_and_their_gradients_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for act in [Activation::Silu, Activation::Gelu, Activation::QuickGelu] {
        for len in LENGTHS {
            let x: Vec<f32> = random(len, 1).iter().map(|x| 6.0 * x).collect();
            let dy = random(len, 2);
            let mut want = zeros(len);
            activation::forward(act, &x, &mut want);
            let on_card = gpu.upload(&x);
            let got = card::activation(act, &on_card);
            assert_close(&format!("{act:?}"), &got, &want);
            activation::backward(act, &x, &dy, &mut want);
            let got = card::activation_backward(act, &on_card, &gpu.upload(&dy));
            assert_close(&format!("{act:?}'s gradient"), &got, &want);
        }
    }
}

#[test]
fn activations_of_large_numbers_are_numbers() {
    let gpu = Gpu::for_tests();
    let x = [-1e4, -200.0, -88.0, 0.0, 88.0, 200.0, 1e4];
    for act in [Activation::Silu, Activation::Gelu, Activation::QuickGelu] {
        let mut want = zeros(x.len());
        activation::forward(act, &x, &mut want);
        let on_card = gpu.upload(&x);
        assert_close(&format!("{act:?}"), &card::activation(act, &on_card), &want);
        activation::backward(act, &x, &[1.0; 7], &mut want);
        let ones = gpu.filled(x.len(), 1.0);
        let got = card::activation_backward(act, &on_card, &ones);
        assert_close(&format!("{act:?}'s gradient"), &got, &want);
    }
}

#[test]
fn geglu_and_its_gradient_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for (rows, columns) in [(1, 1), (5, 33), (17, 64)] {
        let x: Vec<f32> = random(2 * rows * columns, 1)
            .iter()
            .map(|x| 3.0 * x)
            .collect();
        let dy = random(rows * columns, 2);
        let mut want = zeros(rows * columns);
        activation::geglu(rows, columns, &x, &mut want);
        let on_card = gpu.upload(&x);
        assert_close("geglu", &card::geglu(&on_card, columns), &want);
        let mut want = zeros(x.len());
        activation::geglu_backward(rows, columns, &x, &dy, &mut want);
        let got = card::geglu_backward(&on_card, &gpu.upload(&dy), columns);
        assert_close("geglu's gradient", &got, &want);
    }
}
