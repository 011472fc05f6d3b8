//! Convolutions on the matrix units. Their factors are bf16 here from the start, so nothing is lost in rounding them, and
//! results are those of f32.

mod common;

use common::*;
use velatura_gpu::{Gpu, conv as card, conv_product};
use velatura_kernels::conv::{self, Algorithm, ConvShape, PackedConv};
use velatura_kernels::gemm::{Epilogue, Precision};

const F32: Precision = Precision::F32;
const BF16: Precision = Precision::Bf16;

/// Numbers that bf16 has.
fn coarse(len: usize, seed: u64) -> Vec<f32> {
    let cut = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    random(len, seed).into_iter().map(cut).collect()
}

/// Fewer places and channels than a tile has, and more; several samples in a tile, and several tiles in a sample.
fn shapes() -> Vec<ConvShape> {
    let same = [1; 4];
    vec![
        shape((1, 1, 1), (4, 4), (3, 1), same),
        shape((2, 5, 7), (8, 12), (3, 1), same),
        shape((3, 9, 8), (36, 68), (3, 1), same),
        shape((1, 13, 11), (68, 36), (3, 1), same),
        shape((2, 30, 18), (40, 20), (3, 1), same),
        shape((1, 6, 5), (4, 8), (3, 1), [0, 2, 2, 0]),
        shape((2, 10, 8), (12, 16), (3, 2), same),
        shape((2, 8, 12), (16, 12), (3, 2), [0, 1, 0, 1]),
    ]
}

#[test]
fn these_shapes_are_taken_and_others_are_not() {
    let gpu = Gpu::for_tests();
    assert!(conv_product::takes(&gpu, &[4, 68], BF16));
    assert!(!conv_product::takes(&gpu, &[4, 68], F32));
    assert!(!conv_product::takes(&gpu, &[3], BF16));
}

#[test]
fn products_on_the_matrix_units_are_convolutions() {
    let gpu = Gpu::for_tests();
    for s in shapes() {
        let (places, taps) = (s.batch * s.out_height() * s.out_width(), 9);
        let x = coarse(s.batch * s.height * s.width * s.in_channels, 1);
        let weight = coarse(s.out_channels * s.in_channels * taps, 2);
        let (bias, residual) = (
            random(s.out_channels, 3),
            random(places * s.out_channels, 4),
        );
        let sizes = (s.out_channels, s.in_channels, 3);
        let packed = PackedConv::new(&weight, sizes, F32, Algorithm::Direct);
        let [xs, w, b, r] = [&x, &weight, &bias, &residual].map(|values| gpu.upload(values));
        for added in [false, true] {
            let mut want = zeros(places * s.out_channels);
            let epilogue = Epilogue {
                bias: added.then_some(&bias),
                residual: added.then_some(&residual),
            };
            conv::forward(&s, &x, &packed, &mut want, &epilogue);
            let (b, r) = (added.then_some(&b), added.then_some(&r));
            let got = card::forward(&s, &xs, &w, b, r, BF16);
            assert_close(&format!("{s:?}"), &got, &want);
        }
    }
}

#[test]
fn their_gradients_are_those_of_convolutions() {
    let gpu = Gpu::for_tests();
    for s in shapes() {
        let places = s.batch * s.out_height() * s.out_width();
        let x = coarse(s.batch * s.height * s.width * s.in_channels, 1);
        let weight = coarse(s.out_channels * s.in_channels * 9, 2);
        let dy = coarse(places * s.out_channels, 5);
        let sizes = (s.out_channels, s.in_channels, 3);
        let packed = PackedConv::for_input_gradient(&weight, sizes, F32, Algorithm::Direct);
        let (mut dx, mut dw) = (zeros(x.len()), zeros(weight.len()));
        conv::backward_input(&s, &dy, &packed, &mut dx);
        conv::backward_weight(&s, &x, &dy, &mut dw, None, F32);
        let [xs, w, dys] = [&x, &weight, &dy].map(|values| gpu.upload(values));
        let got = card::backward_input(&s, &dys, &w, BF16);
        assert_close(&format!("dx of {s:?}"), &got, &dx);
        let got = card::backward_weight(&s, &xs, &dys, BF16);
        assert_close(&format!("dw of {s:?}"), &got, &dw);
    }
}

/// Many places are summed in several parts.
#[test]
fn a_weight_gradient_of_many_places_is_a_sum_of_parts() {
    let gpu = Gpu::for_tests();
    let s = shape((3, 40, 37), (8, 4), (3, 1), [1; 4]);
    let x = coarse(s.batch * s.height * s.width * s.in_channels, 1);
    let dy = coarse(s.batch * s.height * s.width * s.out_channels, 2);
    let mut dw = zeros(s.out_channels * s.in_channels * 9);
    conv::backward_weight(&s, &x, &dy, &mut dw, None, F32);
    let got = card::backward_weight(&s, &gpu.upload(&x), &gpu.upload(&dy), BF16);
    assert_close("dw", &got, &dw);
}

/// What is rounded is rounded as PyTorch does, to the nearest and, between two, to the even one.
#[test]
fn factors_are_rounded_to_the_nearest_even_bf16() {
    let gpu = Gpu::for_tests();
    let s = shape((1, 1, 1), (4, 4), (3, 1), [1; 4]);
    // Between 1 and the next bf16, 1 + 2⁻⁷: below, at and above the middle; and in the middle with an odd lower neighbour.
    let between = [
        1.0 + 0.9 / 256.0,
        1.0 + 1.0 / 256.0,
        1.0 + 1.1 / 256.0,
        1.0 + 3.0 / 256.0,
    ];
    let mut weight = zeros(4 * 4 * 9);
    for i in 0..4 {
        weight[(i * 4 + i) * 9 + 4] = 1.0;
    }
    let got = card::forward(
        &s,
        &gpu.upload(&between),
        &gpu.upload(&weight),
        None,
        None,
        BF16,
    );
    let next = 1.0 + 1.0 / 128.0;
    assert_same("rounded", &got, &[1.0, 1.0, next, 1.0 + 2.0 / 128.0]);
}
