//! Convolutions on the matrix units. Their factors are bf16 here from the start, so nothing is lost in rounding them, and
//! results are those of f32.

mod common;

use common::*;
use velatura_gpu::elementwise::round_bf16;
use velatura_gpu::{Gpu, conv_product as card};
use velatura_kernels::conv::{self, Algorithm, ConvShape, PackedConv};
use velatura_kernels::gemm::{Epilogue, Precision};

const F32: Precision = Precision::F32;
const BF16: Precision = Precision::Bf16;

/// Fewer places and channels than a tile has, and more; several samples in a tile, and several tiles in a sample.
fn shapes() -> Vec<ConvShape> {
    let same = [1; 4];
    vec![
        shape((1, 1, 1), (8, 8), (3, 1), same),
        shape((2, 5, 7), (16, 24), (3, 1), same),
        shape((3, 9, 8), (40, 72), (3, 1), same),
        shape((1, 23, 14), (72, 40), (3, 1), same),
        shape((2, 30, 18), (104, 136), (3, 1), same),
        shape((1, 1, 300), (40, 72), (1, 1), [0; 4]),
        shape((1, 6, 5), (8, 16), (3, 1), [0, 2, 2, 0]),
        shape((2, 10, 8), (24, 16), (3, 2), same),
        shape((2, 8, 12), (16, 24), (3, 2), [0, 1, 0, 1]),
    ]
}

#[test]
fn these_shapes_are_taken_and_others_are_not() {
    let gpu = Gpu::for_tests();
    let of = |channels| shape((1, 5, 5), channels, (3, 1), [1; 4]);
    assert!(shapes().iter().all(|s| card::takes(&gpu, s, BF16)));
    assert!(!card::takes(&gpu, &of((8, 8)), F32));
    assert!(!card::takes(&gpu, &of((4, 8)), BF16));
    // A last convolution to three colours or four latents.
    for (outputs, forward) in [(3, false), (4, true)] {
        let s = of((32, outputs));
        assert_eq!(card::takes(&gpu, &s, BF16), forward);
        assert!(!card::takes_backward_input(&gpu, &s, BF16));
        assert!(!card::takes_backward_weight(&gpu, &s, BF16));
    }
}

#[test]
fn products_on_the_matrix_units_are_convolutions() {
    let gpu = Gpu::for_tests();
    for s in shapes() {
        let places = s.batch * s.out_height() * s.out_width();
        let taps = s.kernel * s.kernel;
        let x = coarse(s.batch * s.height * s.width * s.in_channels, 1, 1.0);
        let weight = coarse(s.out_channels * s.in_channels * taps, 2, 1.0);
        let (bias, residual) = (
            random(s.out_channels, 3),
            random(places * s.out_channels, 4),
        );
        let sizes = (s.out_channels, s.in_channels, s.kernel);
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
            let got = card::forward(&s, &round_bf16(&xs), &w, b, r);
            assert_close(&format!("{s:?}"), &got, &want);
        }
    }
}

#[test]
fn their_gradients_are_those_of_convolutions() {
    let gpu = Gpu::for_tests();
    for s in shapes() {
        let places = s.batch * s.out_height() * s.out_width();
        let x = coarse(s.batch * s.height * s.width * s.in_channels, 1, 1.0);
        let weight = coarse(s.out_channels * s.in_channels * s.kernel * s.kernel, 2, 1.0);
        let dy = coarse(places * s.out_channels, 5, 1.0);
        let sizes = (s.out_channels, s.in_channels, s.kernel);
        let packed = PackedConv::for_input_gradient(&weight, sizes, F32, Algorithm::Direct);
        let (mut dx, mut dw) = (zeros(x.len()), zeros(weight.len()));
        conv::backward_input(&s, &dy, &packed, &mut dx);
        let mut db = zeros(s.out_channels);
        conv::backward_weight(&s, &x, &dy, &mut dw, Some(&mut db), F32);
        let w = gpu.upload(&weight);
        let [xs, dys] = [&x, &dy].map(|values| round_bf16(&gpu.upload(values)));
        if s.stride == 1 {
            let got = card::backward_input(&s, &dys, &w, None);
            assert_close(&format!("dx of {s:?}"), &got, &dx);
            let before = random(x.len(), 6);
            let sum: Vec<f32> = dx.iter().zip(&before).map(|(dx, x)| dx + x).collect();
            let got = card::backward_input(&s, &dys, &w, Some(&gpu.upload(&before)));
            assert_close(&format!("dx of {s:?}, added"), &got, &sum);
        }
        let [got, got_db] = card::backward_weight(&s, &xs, &dys);
        assert_close(&format!("dw of {s:?}"), &got, &dw);
        assert_close(&format!("db of {s:?}"), &got_db, &db);
    }
}

/// Many places are summed in several parts.
#[test]
fn a_weight_gradient_of_many_places_is_a_sum_of_parts() {
    let gpu = Gpu::for_tests();
    let s = shape((3, 40, 37), (16, 8), (3, 1), [1; 4]);
    let x = coarse(s.batch * s.height * s.width * s.in_channels, 1, 1.0);
    let dy = coarse(s.batch * s.height * s.width * s.out_channels, 2, 1.0);
    let (mut dw, mut db) = (zeros(s.out_channels * s.in_channels * 9), zeros(8));
    conv::backward_weight(&s, &x, &dy, &mut dw, Some(&mut db), F32);
    let [x, dy] = [&x, &dy].map(|values| round_bf16(&gpu.upload(values)));
    let [got, got_db] = card::backward_weight(&s, &x, &dy);
    assert_close("dw", &got, &dw);
    assert_close("db", &got_db, &db);
}

/// What is rounded is rounded as PyTorch does, to the nearest and, between two, to the even one.
#[test]
fn factors_are_rounded_to_the_nearest_even_bf16() {
    let gpu = Gpu::for_tests();
    let s = shape((1, 1, 1), (8, 8), (3, 1), [1; 4]);
    // Between 1 and the next bf16, 1 + 2⁻⁷: below, at and above the middle; and in the middle with an odd lower neighbour.
    let between = [0.9, 1.0, 1.1, 3.0].map(|share| 1.0 + share / 256.0);
    let next = 1.0 + 1.0 / 128.0;
    let rounded = [1.0, 1.0, next, 1.0 + 2.0 / 128.0];
    let diagonal = |values: &[f32]| {
        let mut weight = zeros(8 * 8 * 9);
        for (i, &value) in values.iter().enumerate() {
            weight[(i * 8 + i) * 9 + 4] = value;
        }
        gpu.upload(&weight)
    };
    let (ones, none) = ([1.0; 8], [0.0; 4]);
    let [x, one] = [&[between, none].concat()[..], &ones].map(|x| round_bf16(&gpu.upload(x)));
    let want = [rounded, none].concat();
    let of_x = card::forward(&s, &x, &diagonal(&ones), None, None);
    assert_same("x", &of_x, &want);
    let of_weight = card::forward(&s, &one, &diagonal(&between), None, None);
    assert_same("weight", &of_weight, &want);
}
