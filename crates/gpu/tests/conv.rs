//! Convolutions, on the emulated card and on the processor.

mod common;

use common::*;
use velatura_gpu::{Gpu, conv as card};
use velatura_kernels::conv::{self, Algorithm, ConvShape, PackedConv};
use velatura_kernels::gemm::{Epilogue, Precision};

const F32: Precision = Precision::F32;

fn shapes() -> Vec<ConvShape> {
    let same = [1; 4];
    vec![
        shape((1, 1, 1), (1, 1), (3, 1), same),
        shape((2, 5, 7), (3, 4), (3, 1), same),
        shape((1, 6, 6), (4, 33), (3, 1), same),
        shape((2, 9, 8), (5, 3), (3, 2), same),
        // The autoencoder's downsampling pads below and on the right only.
        shape((3, 8, 6), (4, 5), (3, 2), [0, 1, 0, 1]),
        shape((1, 7, 9), (2, 3), (3, 2), [0, 1, 0, 1]),
        shape((2, 5, 4), (7, 6), (1, 1), [0; 4]),
        shape((2, 7, 5), (3, 2), (1, 2), [0; 4]),
        // Every side another, and places that no tap reaches.
        shape((2, 7, 8), (3, 2), (4, 3), [2, 1, 0, 3]),
        shape((1, 10, 10), (2, 2), (2, 4), [0; 4]),
    ]
}

fn sizes(shape: &ConvShape) -> (usize, usize, usize) {
    (shape.out_channels, shape.in_channels, shape.kernel)
}

#[test]
fn a_convolution_with_and_without_what_is_added_is_that_of_the_processor() {
    let gpu = Gpu::for_tests();
    for shape in shapes() {
        let (x, weight) = (random(shape.input_len(), 1), random(shape.weight_len(), 2));
        let (bias, residual) = (random(shape.out_channels, 3), random(shape.output_len(), 4));
        let packed = PackedConv::new(&weight, sizes(&shape), F32, Algorithm::Direct);
        let [on_card, w, b, r] = [&x, &weight, &bias, &residual].map(|x| gpu.upload(x));
        for (with_bias, with_residual) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let mut want = zeros(shape.output_len());
            let epilogue = Epilogue {
                bias: with_bias.then_some(&bias),
                residual: with_residual.then_some(&residual),
            };
            conv::forward(&shape, &x, &packed, &mut want, &epilogue);
            let (b, r) = (with_bias.then_some(&b), with_residual.then_some(&r));
            let got = card::forward(&shape, &on_card, &w, b, r, F32);
            assert_close(
                &format!("{shape:?}, {with_bias} {with_residual}"),
                &got,
                &want,
            );
        }
    }
}

#[test]
fn a_convolutions_gradients_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for shape in shapes() {
        let (x, weight) = (random(shape.input_len(), 1), random(shape.weight_len(), 2));
        let dy = random(shape.output_len(), 3);
        let [on_card, w, dy_on_card] = [&x, &weight, &dy].map(|x| gpu.upload(x));

        let packed = PackedConv::for_input_gradient(&weight, sizes(&shape), F32, Algorithm::Direct);
        let mut want = zeros(x.len());
        conv::backward_input(&shape, &dy, &packed, &mut want);
        let got = card::backward_input(&shape, &dy_on_card, &w, F32);
        assert_close(&format!("{shape:?}: the input's gradient"), &got, &want);

        let mut want = zeros(weight.len());
        conv::backward_weight_by(Algorithm::Direct, &shape, &x, &dy, &mut want, None, F32);
        let got = card::backward_weight(&shape, &on_card, &dy_on_card, F32);
        assert_close(&format!("{shape:?}: the weight's gradient"), &got, &want);
    }
}
