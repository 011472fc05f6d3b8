//! Element-wise kernels, activations, resampling and the optimizer against the plain loops in f64,
//! at every tail and misalignment, in every instruction set.

mod common;

use common::*;
use velatura_kernels::activation::{self, Activation};
use velatura_kernels::optimizer::{self, AdamW};
use velatura_kernels::{elementwise, isa, pool, reference, resample};

const ACTIVATIONS: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::QuickGelu];

/// Lengths from 0 to over two of the widest vectors, and over one task of the pool.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=34).chain([100, 32 * 1024 - 1, 32 * 1024 + 1, 70_001])
}

fn scaled(len: usize, seed: u64, by: f32) -> Vec<f32> {
    random(len, seed).iter().map(|x| x * by).collect()
}

/// `kernel` of misaligned slices, in every instruction set.
fn each_isa(len: usize, offset: usize, kernel: impl Fn(&mut [f32]), check: impl Fn(&[f32], &str)) {
    for isa in isas() {
        let mut out = Misaligned::new(&vec![f32::NAN; len], offset);
        isa::with(isa, || kernel(out.get_mut()));
        check(out.get(), &format!("{isa}, {len} numbers"));
    }
}

#[test]
fn arithmetic_is_rounded_once() {
    for len in lengths() {
        let (a, b) = (
            Misaligned::new(&random(len, 1), 1),
            Misaligned::new(&random(len, 2), 3),
        );
        let (a, b) = (a.get(), b.get());
        type Binary = (fn(&[f32], &[f32], &mut [f32]), fn(f32, f32) -> f32);
        let binary: [Binary; 3] = [
            (elementwise::add, |a, b| a + b),
            (elementwise::sub, |a, b| a - b),
            (elementwise::mul, |a, b| a * b),
        ];
        for (kernel, scalar) in binary {
            let want: Vec<f32> = a.iter().zip(b).map(|(&a, &b)| scalar(a, b)).collect();
            each_isa(
                len,
                5,
                |out| kernel(a, b, out),
                |got, what| assert_eq!(got, want, "{what}"),
            );
        }
        let want: Vec<f32> = a.iter().map(|a| a * 1.7).collect();
        let scale = |out: &mut [f32]| elementwise::scale(a, 1.7, out);
        each_isa(len, 2, scale, |got, what| assert_eq!(got, want, "{what}"));

        let mut want = widen(b);
        reference::elementwise::axpy(f64::from(0.3_f32), &widen(a), &mut want);
        let axpy = |out: &mut [f32]| {
            out.copy_from_slice(b);
            elementwise::axpy(0.3, a, out);
        };
        let magnitude = vec![2.0; len];
        each_isa(len, 7, axpy, |got, what| {
            assert_close(what, got, &want, &magnitude, 2.0 * UNIT)
        });
    }
}

#[test]
fn exp_is_within_two_units() {
    let mut x: Vec<f32> = (0..40_001)
        .map(|i| -87.0 + 175.7 * i as f32 / 40_000.0)
        .collect();
    x.extend(scaled(10_000, 3, 1.0));
    let mut want = vec![0.0; x.len()];
    reference::elementwise::exp(&widen(&x), &mut want);
    let check = |got: &[f32], what: &str| assert_close(what, got, &want, &want, 4.0 * UNIT);
    each_isa(x.len(), 1, |out| elementwise::exp(&x, out), check);
}

#[test]
fn exp_of_extremes() {
    let x = [
        0.0,
        -0.0,
        89.0,
        1e30,
        f32::INFINITY,
        -1e30,
        f32::NEG_INFINITY,
        f32::NAN,
        -100.0,
    ];
    each_isa(
        x.len(),
        0,
        |out| elementwise::exp(&x, out),
        |got, what| {
            assert_eq!(
                got[..7],
                [
                    1.0,
                    1.0,
                    f32::INFINITY,
                    f32::INFINITY,
                    f32::INFINITY,
                    0.0,
                    0.0
                ]
            );
            assert!(got[7].is_nan(), "{what}");
            // Subnormal: off by at most one step of 2⁻¹⁴⁹.
            assert!(
                (f64::from(got[8]) - (-100f64).exp()).abs() <= 1.5e-45,
                "{what}: {}",
                got[8]
            );
        },
    );
}

#[test]
fn channels_are_added() {
    for (batch, spatial, channels) in [(1, 1, 1), (2, 3, 5), (3, 7, 33), (2, 300, 64), (0, 4, 4)] {
        let len = batch * spatial * channels;
        let (x, e) = (random(len, 1), random(batch * channels, 2));
        let mut want = vec![0.0; len];
        reference::elementwise::add_channels(batch, spatial, channels, &x, &e, &mut want);
        let kernel =
            |out: &mut [f32]| elementwise::add_channels(batch, spatial, channels, &x, &e, out);
        each_isa(len, 3, kernel, |got, what| assert_eq!(got, want, "{what}"));
    }
}

#[test]
fn sums_over_rows() {
    for (rows, cols) in [
        (0, 3),
        (1, 1),
        (3, 17),
        (100, 31),
        (1000, 5),
        (10_000, 3),
        (700, 100),
    ] {
        let x = random(rows * cols, 4);
        let (mut want, mut scale) = (vec![0.0; cols], vec![0.0; cols]);
        reference::elementwise::sum_rows(rows, cols, &widen(&x), &mut want);
        reference::elementwise::sum_rows(rows, cols, &absolute(&widen(&x)), &mut scale);
        let kernel = |out: &mut [f32]| elementwise::sum_rows(rows, cols, &x, out);
        let check =
            |got: &[f32], what: &str| assert_close(what, got, &want, &scale, bound(rows, false));
        each_isa(cols, 1, kernel, check);
    }
}

#[test]
fn sums_in_f64() {
    for len in lengths() {
        let x = Misaligned::new(&random(len, 5), 1);
        let x = x.get();
        let sum: f64 = reference::elementwise::sum(x);
        let squares = reference::elementwise::sum_squares(x);
        for isa in isas() {
            isa::with(isa, || {
                let slack = len as f64 * f64::EPSILON * len as f64;
                assert!((elementwise::sum(x) - sum).abs() <= slack);
                assert!((elementwise::sum_squares(x) - squares).abs() <= slack);
                assert!(elementwise::all_finite(x));
            });
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, len / 2, len.saturating_sub(1)]
                .into_iter()
                .filter(|_| len > 0)
            {
                let mut x = x.to_vec();
                x[at] = bad;
                assert!(!elementwise::all_finite(&x));
            }
        }
    }
    assert!(elementwise::all_finite(&[f32::MAX, f32::MIN, 1e-45]));
}

#[test]
fn activations_match_the_formulas() {
    for len in lengths().chain([5000]) {
        let x = Misaligned::new(&scaled(len, 6, 12.0), 1);
        let x = x.get();
        for act in ACTIVATIONS {
            let mut want = vec![0.0; len];
            reference::activation::forward(act, &widen(x), &mut want);
            // Each is x times something in 0..1 that a handful of roundings make.
            let scale: Vec<f64> = x.iter().map(|x| f64::from(x.abs())).collect();
            let check =
                |got: &[f32], what: &str| assert_close(what, got, &want, &scale, 6.0 * UNIT);
            each_isa(len, 3, |out| activation::forward(act, x, out), check);

            let dy = random(len, 7);
            reference::activation::backward(act, &widen(x), &widen(&dy), &mut want);
            // Sums of terms up to 1 + |x|.
            let scale: Vec<f64> = x
                .iter()
                .zip(&dy)
                .map(|(x, dy)| f64::from((1.0 + x.abs()) * dy.abs()))
                .collect();
            let check =
                |got: &[f32], what: &str| assert_close(what, got, &want, &scale, 8.0 * UNIT);
            each_isa(len, 3, |out| activation::backward(act, x, &dy, out), check);
        }
    }
}

/// The lower tail of Φ comes without cancellation, but for the rounding of x² in its exponent.
#[test]
fn gelu_keeps_its_lower_tail() {
    let x: Vec<f32> = (0..1000).map(|i| -8.0 * i as f32 / 1000.0).collect();
    let want: Vec<f64> = x
        .iter()
        .map(|&x| f64::from(x) * 0.5 * libm::erfc(-f64::from(x) / 2f64.sqrt()))
        .collect();
    let scale: Vec<f64> = want
        .iter()
        .zip(&x)
        .map(|(w, &x)| w.abs() * (8.0 + f64::from(x * x)))
        .collect();
    let check = |got: &[f32], what: &str| assert_close(what, got, &want, &scale, 2.0 * UNIT);
    each_isa(
        x.len(),
        0,
        |out| activation::forward(Activation::Gelu, &x, out),
        check,
    );
}

#[test]
fn activations_of_extremes() {
    let x = [
        -1e30, -1e10, -1000.0, -100.0, -0.0, 0.0, 100.0, 1000.0, 1e10, 1e30,
    ];
    for act in ACTIVATIONS {
        each_isa(
            x.len(),
            0,
            |out| activation::forward(act, &x, out),
            |got, what| {
                for (&x, &y) in x.iter().zip(got) {
                    let want = x.max(0.0);
                    assert!(
                        (y - want).abs() <= 1e-30 + want * 1e-6,
                        "{what}: {act:?}({x}) = {y}"
                    );
                }
            },
        );
        let ones = vec![1.0; x.len()];
        each_isa(
            x.len(),
            0,
            |out| activation::backward(act, &x, &ones, out),
            |got, what| {
                for (&x, &y) in x.iter().zip(got) {
                    let want = if x == 0.0 { 0.5 } else { f32::from(x > 0.0) };
                    assert!((y - want).abs() < 1e-6, "{what}: {act:?}'({x}) = {y}");
                }
            },
        );
    }
}

#[test]
fn geglu_matches_the_formula() {
    for (rows, cols) in [
        (0, 4),
        (1, 1),
        (3, 15),
        (2, 16),
        (5, 17),
        (7, 33),
        (100, 400),
    ] {
        let (x, dy) = (scaled(2 * rows * cols, 8, 4.0), random(rows * cols, 9));
        let mut want = vec![0.0; rows * cols];
        reference::activation::geglu(rows, cols, &widen(&x), &mut want);
        let scale = vec![16.0; want.len()];
        let kernel = |out: &mut [f32]| activation::geglu(rows, cols, &x, out);
        let check = |got: &[f32], what: &str| assert_close(what, got, &want, &scale, 8.0 * UNIT);
        each_isa(want.len(), 1, kernel, check);

        let mut want = vec![0.0; 2 * rows * cols];
        reference::activation::geglu_backward(rows, cols, &widen(&x), &widen(&dy), &mut want);
        let scale = vec![20.0; want.len()];
        let kernel = |out: &mut [f32]| activation::geglu_backward(rows, cols, &x, &dy, out);
        let check = |got: &[f32], what: &str| assert_close(what, got, &want, &scale, 8.0 * UNIT);
        each_isa(want.len(), 1, kernel, check);
    }
}

#[test]
fn upsampling_copies_and_collects() {
    for (batch, h, w, c) in [(1, 1, 1, 1), (2, 3, 5, 7), (1, 4, 4, 32), (2, 40, 30, 17)] {
        let len = batch * h * w * c;
        let (x, dy) = (random(len, 1), random(4 * len, 2));
        let mut want = vec![0.0; 4 * len];
        reference::resample::upsample_nearest2x(batch, h, w, c, &x, &mut want);
        let kernel = |out: &mut [f32]| resample::upsample_nearest2x(batch, h, w, c, &x, out);
        each_isa(4 * len, 1, kernel, |got, what| {
            assert_eq!(got, want, "{what}")
        });

        let mut want = vec![0.0; len];
        reference::resample::upsample_nearest2x_backward(batch, h, w, c, &widen(&dy), &mut want);
        let kernel =
            |out: &mut [f32]| resample::upsample_nearest2x_backward(batch, h, w, c, &dy, out);
        let scale = vec![4.0; len];
        let check = |got: &[f32], what: &str| assert_close(what, got, &want, &scale, 3.0 * UNIT);
        each_isa(len, 1, kernel, check);
    }
}

#[test]
fn pooling_takes_the_largest_and_gives_it_the_gradient() {
    for (batch, h, w, c) in [(1, 2, 2, 1), (2, 4, 6, 17), (1, 5, 3, 4), (2, 64, 64, 16)] {
        let (len, out_len) = (batch * h * w * c, batch * (h / 2) * (w / 2) * c);
        // Few different values, so that some windows have two largest.
        let x: Vec<f32> = random(len, 1).iter().map(|x| (x * 4.0).round()).collect();
        let dy = random(out_len, 2);
        let mut want = vec![0.0; out_len];
        reference::resample::max_pool2x2(batch, h, w, c, &x, &mut want);
        let kernel = |out: &mut [f32]| resample::max_pool2x2(batch, h, w, c, &x, out);
        each_isa(out_len, 1, kernel, |got, what| {
            assert_eq!(got, want, "{what}")
        });
        let mut want = vec![0.0; len];
        reference::resample::max_pool2x2_backward(batch, h, w, c, &x, &dy, &mut want);
        let kernel = |out: &mut [f32]| resample::max_pool2x2_backward(batch, h, w, c, &x, &dy, out);
        each_isa(len, 1, kernel, |got, what| assert_eq!(got, want, "{what}"));
    }
}

#[test]
fn leaky_relu_bends_at_zero() {
    for len in lengths() {
        let mut x = random(len, 1);
        if let Some(first) = x.first_mut() {
            *first = 0.0;
        }
        let dy = random(len, 2);
        for slope in [0.0, 0.2] {
            let mut want = vec![0.0; len];
            reference::activation::leaky_relu(slope, &x, &mut want);
            let kernel = |out: &mut [f32]| activation::leaky_relu(slope, &x, out);
            each_isa(len, 1, kernel, |got, what| assert_eq!(got, want, "{what}"));
            reference::activation::leaky_relu_backward(slope, &x, &dy, &mut want);
            let kernel = |out: &mut [f32]| activation::leaky_relu_backward(slope, &x, &dy, out);
            each_isa(len, 1, kernel, |got, what| assert_eq!(got, want, "{what}"));
        }
    }
}

#[test]
fn adamw_steps_as_the_formula_says() {
    for len in [1, 15, 16, 17, 33, 40_000] {
        for isa in isas() {
            let options = AdamW {
                learning_rate: 1e-2,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.01,
            };
            let exact = reference::optimizer::AdamW {
                learning_rate: 1e-2,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.01,
            };
            let mut weights = random(len, 1);
            let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
            let mut want = widen(&weights);
            let (mut want_m, mut want_v) = (vec![0.0; len], vec![0.0; len]);
            for step in 1..=20 {
                let grad = random(len, 100 + step);
                isa::with(isa, || {
                    optimizer::adamw(&options, step, 0.5, &mut weights, &grad, &mut m, &mut v);
                });
                let grad = widen(&grad);
                reference::optimizer::adamw(
                    &exact,
                    step,
                    0.5,
                    &mut want,
                    &grad,
                    &mut want_m,
                    &mut want_v,
                );
            }
            // Twenty steps round a weight of magnitude 1 three times each, and take at most
            // 20 · 0.01 with relative errors of a dozen roundings and the moments' twenty.
            let ones = vec![1.0; len];
            assert_close("weights", &weights, &want, &ones, 60.0 * UNIT);
            assert_close("m", &m, &want_m, &ones, 40.0 * UNIT);
            assert_close("v", &v, &want_v, &want_v, 80.0 * UNIT);

            let mut average = random(len, 2);
            let mut want_average = widen(&average);
            isa::with(isa, || optimizer::ema(0.9999, &mut average, &weights));
            reference::optimizer::ema(0.9999, &mut want_average, &widen(&weights));
            assert_close("ema", &average, &want_average, &ones, 3.0 * UNIT);
        }
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let x = random(100_000, 1);
    let run = || {
        let mut rows = vec![0.0; 50];
        elementwise::sum_rows(2000, 50, &x, &mut rows);
        (
            rows,
            elementwise::sum(&x).to_bits(),
            elementwise::sum_squares(&x).to_bits(),
        )
    };
    let before = pool::threads();
    let results: Vec<_> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            pool::set_threads(threads);
            run()
        })
        .collect();
    pool::set_threads(before);
    assert!(results.windows(2).all(|r| r[0] == r[1]));
}
