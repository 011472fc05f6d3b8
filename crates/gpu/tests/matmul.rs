//! Linear layers, on the emulated card and on the processor.

mod common;

use common::*;
use velatura_gpu::{Gpu, matmul as card};
use velatura_kernels::gemm::{self, Epilogue, Layout, PackedMatrix, Precision};

/// Rows, inputs, outputs.
const SIZES: [[usize; 3]; 5] = [[1, 1, 1], [1, 40, 7], [7, 33, 5], [3, 5, 67], [300, 20, 9]];

#[test]
fn a_linear_layer_with_and_without_what_is_added_is_that_of_the_processor() {
    let gpu = Gpu::for_tests();
    for [rows, inputs, outputs] in SIZES {
        let (x, weight) = (random(rows * inputs, 1), random(outputs * inputs, 2));
        let (bias, residual) = (random(outputs, 3), random(rows * outputs, 4));
        let packed = PackedMatrix::from_rows(&weight, outputs, inputs, Precision::F32);
        let [on_card, w, b, r] = [&x, &weight, &bias, &residual].map(|x| gpu.upload(x));
        for (with_bias, with_residual) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let mut want = zeros(rows * outputs);
            let epilogue = Epilogue {
                bias: with_bias.then_some(&bias),
                residual: with_residual.then_some(&residual),
            };
            gemm::matmul_packed(rows, &x, &packed, &mut want, &epilogue);
            let got = card::linear(
                [rows, inputs, outputs],
                &on_card,
                &w,
                with_bias.then_some(&b),
                with_residual.then_some(&r),
                Precision::F32,
            );
            let what = format!("{rows}×{inputs}→{outputs}, {with_bias} {with_residual}");
            assert_close(&what, &got, &want);
        }
    }
}

#[test]
fn a_linear_layers_gradients_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for sizes @ [rows, inputs, outputs] in SIZES {
        let (x, weight) = (random(rows * inputs, 1), random(outputs * inputs, 2));
        let (dy, before) = (random(rows * outputs, 3), random(rows * inputs, 4));
        let [on_card, w, dy_on_card, b] = [&x, &weight, &dy, &before].map(|x| gpu.upload(x));
        let input_gradient = |before: Option<&_>| {
            card::linear_input_gradient(sizes, &dy_on_card, &w, before, Precision::F32)
        };
        let plain = Layout::Normal;
        let product = |dx: &mut [f32], onto| {
            gemm::matmul(rows, inputs, outputs, &dy, plain, &weight, plain, dx, onto);
        };

        let mut want = zeros(x.len());
        product(&mut want, false);
        assert_close("the input's gradient", &input_gradient(None), &want);
        want.copy_from_slice(&before);
        product(&mut want, true);
        assert_close("with what was before", &input_gradient(Some(&b)), &want);
        assert_same("what was before", &b, &before);

        let mut want = zeros(weight.len());
        let shape = (rows, outputs, inputs);
        gemm::weight_gradient(shape, &dy, &x, &mut want, None, Precision::F32);
        let got = card::linear_weight_gradient(sizes, &dy_on_card, &on_card, Precision::F32);
        assert_close("the weight's gradient", &got, &want);
    }
}
