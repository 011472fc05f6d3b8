//! Attention, on the emulated card and on the processor.

mod common;

use common::*;
use velatura_gpu::{Gpu, attention as card};
use velatura_kernels::attention::{self as processor, AttentionShape};
use velatura_kernels::gemm::Precision;

fn shape([batch, heads, queries, keys, head_dim]: [usize; 5], causal: bool) -> AttentionShape {
    AttentionShape {
        batch,
        heads,
        queries,
        keys,
        head_dim,
        causal,
        precision: Precision::F32,
    }
}

fn attention_is_that_of_the_processor(shape: AttentionShape) {
    let gpu = Gpu::for_tests();
    let row = shape.heads * shape.head_dim;
    let [queries, keys] = [shape.queries, shape.keys].map(|places| shape.batch * places * row);
    // Larger queries, so that the probabilities differ.
    let q: Vec<f32> = random(queries, 1).iter().map(|x| 3.0 * x).collect();
    let (k, v, dy) = (random(keys, 2), random(keys, 3), random(queries, 4));
    let [q_card, k_card, v_card, dy_card] = [&q, &k, &v, &dy].map(|x| gpu.upload(x));

    let (mut out, mut lse) = (
        zeros(queries),
        zeros(shape.batch * shape.heads * shape.queries),
    );
    processor::forward(&shape, &q, &k, &v, &mut out, Some(&mut lse));
    let [y, p] = card::forward(&shape, &q_card, &k_card, &v_card);
    assert_close(&format!("{shape:?}"), &y, &out);
    for (i, row) in numbers(&p).chunks(shape.keys).enumerate() {
        let sum: f32 = row.iter().sum();
        assert!(
            (sum - 1.0).abs() < 1e-5,
            "{shape:?}: probabilities of row {i} sum to {sum}"
        );
    }

    let (mut dq, [mut dk, mut dv]) = (zeros(queries), [(); 2].map(|()| zeros(keys)));
    processor::backward(
        &shape, &q, &k, &v, &out, &lse, &dy, &mut dq, &mut dk, &mut dv,
    );
    let got = card::backward(&shape, [&q_card, &k_card, &v_card], [&y, &p], &dy_card);
    for (name, got, want) in [
        ("q", &got[0], &dq),
        ("k", &got[1], &dk),
        ("v", &got[2], &dv),
    ] {
        assert_close(&format!("{shape:?}: the gradient of {name}"), got, want);
    }
}

#[test]
fn attention_between_other_places_is_that_of_the_processor() {
    attention_is_that_of_the_processor(shape([2, 3, 7, 11, 5], false));
    attention_is_that_of_the_processor(shape([1, 2, 40, 33, 8], false));
    attention_is_that_of_the_processor(shape([3, 1, 5, 77, 4], false));
}

#[test]
fn attention_to_the_same_places_is_that_of_the_processor() {
    attention_is_that_of_the_processor(shape([2, 2, 35, 35, 6], false));
    attention_is_that_of_the_processor(shape([1, 1, 1, 1, 1], false));
}

#[test]
fn attention_to_earlier_places_is_that_of_the_processor() {
    attention_is_that_of_the_processor(shape([2, 3, 40, 40, 5], true));
    attention_is_that_of_the_processor(shape([1, 1, 77, 77, 4], true));
}

#[test]
fn attention_to_earlier_of_other_places_is_that_of_the_processor() {
    attention_is_that_of_the_processor(shape([2, 2, 9, 5, 3], true));
    attention_is_that_of_the_processor(shape([2, 2, 5, 9, 3], true));
}

#[test]
fn later_places_are_not_seen() {
    let gpu = Gpu::for_tests();
    let shape = shape([2, 2, 35, 35, 3], true);
    let [q, k, v] = [1, 2, 3].map(|seed| gpu.upload(&random(2 * 35 * 6, seed)));
    let [_, p] = card::forward(&shape, &q, &k, &v);
    for (i, row) in numbers(&p).chunks(35).enumerate() {
        let later = &row[i % 35 + 1..];
        assert!(
            later.iter().all(|&p| p == 0.0),
            "row {i} sees a later place: {row:?}"
        );
    }
}

#[test]
fn large_scores_overflow_nothing() {
    let gpu = Gpu::for_tests();
    let shape = shape([1, 1, 4, 6, 2], false);
    let large = |len, seed| -> Vec<f32> { random(len, seed).iter().map(|x| 100.0 * x).collect() };
    let (q, k, v) = (large(8, 1), large(12, 2), random(12, 3));
    let mut want = zeros(8);
    processor::forward(&shape, &q, &k, &v, &mut want, None);
    let [y, _] = card::forward(&shape, &gpu.upload(&q), &gpu.upload(&k), &gpu.upload(&v));
    assert_close("large scores", &y, &want);
}
