//! Sums of many arrays in one launch, on the emulated card and on the processor.

mod common;

use common::*;
use velatura_gpu::{Gpu, multi as card};
use velatura_kernels::elementwise as processor;

#[test]
fn sums_over_everything_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    // With empty arrays at both ends and together, and of one piece of 8192 numbers, less, and more than one.
    let lengths = [0, 1, 0, 0, 8192, 255, 8193, 70001, 16384, 3, 0];
    let arrays: Vec<Vec<f32>> = (1..).zip(lengths).map(|(i, len)| random(len, i)).collect();
    let on_card: Vec<_> = arrays.iter().map(|x| gpu.upload(x)).collect();
    let references: Vec<_> = on_card.iter().collect();
    for squared in [false, true] {
        let got = card::sums(&gpu, &references, squared);
        assert_eq!(got.len(), arrays.len());
        for (got, x) in got.into_iter().zip(&arrays) {
            let want = match squared {
                true => processor::sum_squares(x),
                false => processor::sum(x),
            };
            // Of the terms' magnitudes: those of a plain sum cancel.
            let scale: f64 = x.iter().map(|x| f64::from(x.abs())).sum();
            assert!(
                (got - want).abs() <= 1e-6 * scale,
                "{got}, should be {want}"
            );
        }
    }
}

#[test]
fn no_arrays_have_no_sums_and_empty_ones_zeros() {
    let gpu = Gpu::for_tests();
    assert!(card::sums(&gpu, &[], true).is_empty());
    let none = gpu.upload(&[]);
    assert_eq!(card::sums(&gpu, &[&none, &none], true), [0.0; 2]);
}
