//! Attention without its matrix of scores: against the processor's in f32, from factors that are bf16 already. What is rounded
//! here is the probabilities and the gradients of the scores.

mod common;

use common::*;
use velatura_gpu::{Gpu, Memory, flash_attention as card};
use velatura_kernels::attention::{self as processor, AttentionShape};
use velatura_kernels::gemm::Precision;

/// As a share of the largest number of a result. Each term of a sum is rounded by up to 2⁻⁹ of itself; the roundings, of either
/// sign, add up to that share of the terms' Euclidean norm, which is about the largest sum, and the worst of thousands of
/// results is off by four times the usual. A key too few or too many is off by more.
const TOLERANCE: f32 = 1.0 / 256.0;

fn shape([batch, heads, queries, keys, head_dim]: [usize; 5], causal: bool) -> AttentionShape {
    AttentionShape {
        batch,
        heads,
        queries,
        keys,
        head_dim,
        causal,
        precision: Precision::Bf16,
    }
}

/// Tiles that are full and that are not, more keys than queries and fewer, one place; heads that fill a tile's row and that do not.
fn shapes() -> Vec<AttentionShape> {
    vec![
        shape([1, 1, 1, 1, 4], false),
        shape([2, 3, 7, 11, 12], false),
        shape([1, 2, 64, 64, 64], false),
        shape([2, 1, 130, 77, 40], false),
        shape([1, 2, 37, 150, 52], false),
        shape([1, 2, 77, 77, 48], true),
        shape([1, 1, 140, 140, 16], true),
        shape([2, 2, 9, 70, 8], true),
        shape([2, 2, 70, 9, 8], true),
    ]
}

#[track_caller]
fn assert_near(what: &str, got: &Memory, want: &[f32]) {
    let got = numbers(got);
    let largest = want.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (got - want).abs();
        assert!(
            off <= TOLERANCE * largest,
            "{what}: [{i}] is {got}, should be {want}; the largest is {largest}"
        );
    }
}

#[test]
fn results_and_gradients_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for shape in shapes() {
        let row = shape.heads * shape.head_dim;
        let [queries, keys] = [shape.queries, shape.keys].map(|places| shape.batch * places * row);
        // Larger queries, so that the probabilities differ.
        let (q, k) = (coarse(queries, 1, 2.0), coarse(keys, 2, 1.0));
        let (v, dy) = (coarse(keys, 3, 1.0), coarse(queries, 4, 1.0));
        let [q_card, k_card, v_card, dy_card] = [&q, &k, &v, &dy].map(|x| gpu.upload(x));
        let inputs = [&q_card, &k_card, &v_card];

        let f32s = AttentionShape {
            precision: Precision::F32,
            ..shape
        };
        let rows = shape.batch * shape.heads * shape.queries;
        let (mut out, mut lse) = (zeros(queries), zeros(rows));
        processor::forward(&f32s, &q, &k, &v, &mut out, Some(&mut lse));
        let [y, sums] = card::forward(&shape, &q_card, &k_card, &v_card);
        assert_near(&format!("{shape:?}"), &y, &out);

        let (mut dq, [mut dk, mut dv]) = (zeros(queries), [(); 2].map(|()| zeros(keys)));
        processor::backward(
            &f32s, &q, &k, &v, &out, &lse, &dy, &mut dq, &mut dk, &mut dv,
        );
        let got = card::backward(&shape, inputs, [&y, &sums], &dy_card);
        for (name, got, want) in [
            ("q", &got[0], &dq),
            ("k", &got[1], &dk),
            ("v", &got[2], &dv),
        ] {
            assert_near(&format!("{shape:?}: the gradient of {name}"), got, want);
        }
    }
}

#[test]
fn these_shapes_are_taken_and_others_are_not() {
    let gpu = Gpu::for_tests();
    assert!(shapes().iter().all(|shape| card::takes(&gpu, shape)));
    assert!(!card::takes(&gpu, &shape([1, 1, 4, 4, 80], false)));
    assert!(!card::takes(&gpu, &shape([1, 1, 4, 4, 6], false)));
    let exact = AttentionShape {
        precision: Precision::F32,
        ..shapes()[0]
    };
    assert!(!card::takes(&gpu, &exact));
}

#[test]
fn large_scores_overflow_nothing() {
    let gpu = Gpu::for_tests();
    let shape = shape([1, 1, 70, 90, 8], false);
    let (q, k) = (coarse(70 * 8, 1, 100.0), coarse(90 * 8, 2, 100.0));
    let v = coarse(90 * 8, 3, 1.0);
    let mut want = zeros(70 * 8);
    let f32s = AttentionShape {
        precision: Precision::F32,
        ..shape
    };
    processor::forward(&f32s, &q, &k, &v, &mut want, None);
    let [y, _] = card::forward(&shape, &gpu.upload(&q), &gpu.upload(&k), &gpu.upload(&v));
    assert_near("large scores", &y, &want);
}
