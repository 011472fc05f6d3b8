//! Group and layer normalisation, on the emulated card and on the processor.

mod common;

use common::*;
use velatura_gpu::Gpu;
use velatura_gpu::norm::{self as card, Affine};
use velatura_kernels::norm::{self as processor, GroupNormShape};

const EPS: f32 = 1e-5;

/// Numbers whose mean is not 0 and whose variance is not 1.
fn activations(len: usize, seed: u64) -> Vec<f32> {
    random(len, seed).iter().map(|x| 2.0 * x + 0.7).collect()
}

/// Both ways, with SiLU and without, with a gradient before and without.
fn group_norm_is_that_of_the_processor(
    batch: usize,
    spatial: usize,
    channels: usize,
    groups: usize,
) {
    let gpu = Gpu::for_tests();
    let shape = GroupNormShape {
        batch,
        spatial,
        channels,
        groups,
    };
    let len = batch * spatial * channels;
    let (x, dy, before) = (activations(len, 1), random(len, 2), random(len, 3));
    let (gamma, beta) = (activations(channels, 4), random(channels, 5));
    let [on_card, dy_on_card, b] = [&x, &dy, &before].map(|x| gpu.upload(x));
    let [g, o] = [&gamma, &beta].map(|x| gpu.upload(x));
    let affine = Affine {
        gamma: &g,
        beta: &o,
    };
    for silu in [false, true] {
        let what = |part: &str| format!("{part}, {shape:?}, SiLU: {silu}");
        let (mut out, mut stats) = (zeros(len), zeros(batch * groups * 2));
        processor::group_norm(&shape, EPS, &x, &gamma, &beta, silu, &mut out, &mut stats);
        let [y, s] = card::group_norm(&shape, EPS, &on_card, affine, silu);
        assert_close(&what("moments"), &s, &stats);
        assert_close(&what("norm"), &y, &out);

        for onto in [false, true] {
            let (mut dx, [mut d_gamma, mut d_beta]) =
                (zeros(len), [(); 2].map(|()| zeros(channels)));
            processor::group_norm_backward(
                &shape,
                &x,
                &gamma,
                &beta,
                &stats,
                silu,
                &dy,
                onto.then_some(&before),
                &mut dx,
                &mut d_gamma,
                &mut d_beta,
            );
            let b = onto.then_some(&b);
            let got = card::group_norm_backward(&shape, &on_card, &s, affine, silu, &dy_on_card, b);
            assert_close(&what("dx"), &got.dx, &dx);
            assert_close(&what("gamma's gradient"), &got.d_gamma, &d_gamma);
            assert_close(&what("beta's gradient"), &got.d_beta, &d_beta);
        }
    }
    assert_same("what was before", &b, &before);
}

#[test]
fn a_norm_of_several_groups_is_that_of_the_processor() {
    group_norm_is_that_of_the_processor(2, 35, 40, 8);
    group_norm_is_that_of_the_processor(1, 300, 64, 32);
    // Channels for several tiles: groups that four channels in a row do not fall into evenly, then a number of channels that is
    // no multiple of four.
    group_norm_is_that_of_the_processor(2, 70, 320, 32);
    group_norm_is_that_of_the_processor(2, 70, 130, 10);
    // Places enough for more than one piece.
    group_norm_is_that_of_the_processor(2, 1100, 36, 12);
}

#[test]
fn a_norm_of_one_group_is_that_of_the_processor() {
    group_norm_is_that_of_the_processor(2, 17, 36, 1);
}

#[test]
fn a_norm_of_groups_of_one_channel_is_that_of_the_processor() {
    group_norm_is_that_of_the_processor(3, 9, 33, 33);
}

#[test]
fn a_norm_of_one_place_is_that_of_the_processor() {
    group_norm_is_that_of_the_processor(1, 1, 35, 5);
}

#[test]
fn a_layer_norm_and_its_gradients_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for (rows, columns) in [(1, 5), (7, 33), (3, 100), (300, 40), (9, 320), (2, 1303)] {
        let len = rows * columns;
        let (x, dy, before) = (activations(len, 1), random(len, 2), random(len, 3));
        let (gamma, beta) = (activations(columns, 4), random(columns, 5));
        let [on_card, dy_on_card, b] = [&x, &dy, &before].map(|x| gpu.upload(x));
        let [g, o] = [&gamma, &beta].map(|x| gpu.upload(x));
        let what = |part: &str| format!("{part}, {rows}×{columns}");

        let (mut out, mut stats) = (zeros(len), zeros(rows * 2));
        processor::layer_norm(rows, columns, EPS, &x, &gamma, &beta, &mut out, &mut stats);
        let affine = Affine {
            gamma: &g,
            beta: &o,
        };
        let [y, s] = card::layer_norm(rows, columns, EPS, &on_card, affine);
        assert_close(&what("moments"), &s, &stats);
        assert_close(&what("norm"), &y, &out);

        for onto in [false, true] {
            let (mut dx, [mut d_gamma, mut d_beta]) =
                (zeros(len), [(); 2].map(|()| zeros(columns)));
            processor::layer_norm_backward(
                rows,
                columns,
                &x,
                &gamma,
                &stats,
                &dy,
                onto.then_some(&before),
                &mut dx,
                &mut d_gamma,
                &mut d_beta,
            );
            let b = onto.then_some(&b);
            let got = card::layer_norm_backward(rows, columns, &on_card, &g, &s, &dy_on_card, b);
            assert_close(&what("dx"), &got.dx, &dx);
            assert_close(&what("gamma's gradient"), &got.d_gamma, &d_gamma);
            assert_close(&what("beta's gradient"), &got.d_beta, &d_beta);
        }
        assert_same("what was before", &b, &before);
    }
}
