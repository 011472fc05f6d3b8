//! Convolutions and their gradients against the plain loops in f64, whose own gradients are checked
//! by finite differences.

mod common;

use common::*;
use velatura_kernels::conv::{self, Algorithm, ConvShape, PackedConv, Padding};
use velatura_kernels::gemm::{Epilogue, Precision};
use velatura_kernels::isa;
use velatura_kernels::reference::conv as reference;
use velatura_kernels::reference::elementwise::sum_rows;

fn shape(
    (batch, height, width): (usize, usize, usize),
    (in_channels, out_channels): (usize, usize),
    kernel: usize,
    stride: usize,
    [top, bottom, left, right]: [usize; 4],
) -> ConvShape {
    let padding = Padding {
        top,
        bottom,
        left,
        right,
    };
    ConvShape {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        kernel,
        stride,
        padding,
    }
}

fn shapes() -> Vec<ConvShape> {
    let same = [1; 4];
    let mut shapes = vec![
        shape((2, 9, 7), (16, 20), 3, 1, same),
        shape((1, 12, 12), (67, 65), 3, 1, same),
        shape((2, 8, 8), (32, 48), 3, 2, same),
        shape((2, 9, 11), (5, 7), 3, 2, same),
        // The autoencoder's downsampling pads below and on the right only.
        shape((1, 8, 10), (12, 9), 3, 2, [0, 1, 0, 1]),
        shape((3, 5, 6), (40, 33), 1, 1, [0; 4]),
        shape((2, 7, 7), (6, 5), 1, 2, [0; 4]),
        shape((2, 5, 5), (3, 4), 1, 1, [1, 0, 2, 1]),
        shape((1, 6, 9), (3, 2), 5, 1, [2; 4]),
        shape((1, 7, 8), (4, 3), 4, 3, [2, 1, 0, 3]),
        shape((2, 3, 2), (4, 6), 3, 1, [2, 3, 4, 2]),
        // Rows and columns that no tap reaches.
        shape((1, 10, 10), (3, 3), 2, 4, [0; 4]),
        shape((1, 1, 1), (8, 8), 3, 1, same),
        shape((4, 12, 16), (3, 32), 3, 1, same),
        shape((2, 16, 16), (32, 3), 3, 1, same),
        // A long sum over pixels for the weight's gradient.
        shape((2, 40, 40), (4, 6), 3, 1, same),
    ];
    // Tails of channels.
    for channels in 1..=18 {
        shapes.push(shape((1, 4, 5), (channels, 19 - channels), 3, 1, same));
        shapes.push(shape((1, 5, 4), (channels, 19 - channels), 3, 2, same));
    }
    shapes
}

struct Case {
    x: Vec<f32>,
    weight: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn new(shape: &ConvShape) -> Self {
        Case {
            x: random(shape.input_len(), 1),
            weight: random(shape.weight_len(), 2),
            dy: random(shape.output_len(), 3),
        }
    }
}

/// The function's value in f64, and with all magnitudes.
fn both(len: usize, a: &[f32], b: &[f32], f: impl Fn(&[f64], &[f64], &mut [f64])) -> [Vec<f64>; 2] {
    let (a, b) = (widen(a), widen(b));
    let (mut want, mut scale) = (vec![0.0; len], vec![0.0; len]);
    f(&a, &b, &mut want);
    f(&absolute(&a), &absolute(&b), &mut scale);
    [want, scale]
}

#[test]
fn forward_equals_the_plain_loops() {
    for shape in shapes() {
        let Case { x, weight, .. } = Case::new(&shape);
        let (i, o, kernel) = (shape.in_channels, shape.out_channels, shape.kernel);
        let (bias, residual) = (random(o, 4), random(shape.output_len(), 5));
        let (bias64, residual64) = (widen(&bias), widen(&residual));
        let [want, scale] = both(shape.output_len(), &x, &weight, |x, w, out| {
            reference::forward(&shape, x, w, Some(&bias64), Some(&residual64), out);
        });
        // The terms' magnitudes include bias and residual, whatever their signs.
        let scale: Vec<f64> = scale.iter().map(|s| s + 4.0).collect();
        for isa in isas() {
            for precision in [Precision::F32, Precision::Bf16] {
                let packed = isa::with(isa, || {
                    PackedConv::new(&weight, (o, i, kernel), precision, Algorithm::Direct)
                });
                let x = Misaligned::new(&x, 1);
                let mut out = Misaligned::new(&vec![f32::NAN; shape.output_len()], 3);
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    residual: Some(&residual),
                };
                let bound = bound(i * kernel * kernel + 2, precision == Precision::Bf16);
                for dot in [false, true] {
                    let run = || conv::forward(&shape, x.get(), &packed, out.get_mut(), &epilogue);
                    if isa::with_bf16_dot(dot, run).is_none() {
                        continue;
                    }
                    assert_close(
                        &format!("{isa} {precision:?} {shape:?}"),
                        out.get(),
                        &want,
                        &scale,
                        bound,
                    );
                }
            }
        }
    }
}

#[test]
fn input_gradient_equals_the_plain_loops() {
    for shape in shapes() {
        let Case { weight, dy, .. } = Case::new(&shape);
        let (i, o, kernel) = (shape.in_channels, shape.out_channels, shape.kernel);
        let [want, scale] = both(shape.input_len(), &dy, &weight, |dy, w, dx| {
            reference::backward_input(&shape, dy, w, dx);
        });
        for isa in isas() {
            for precision in [Precision::F32, Precision::Bf16] {
                let packed = isa::with(isa, || {
                    PackedConv::for_input_gradient(
                        &weight,
                        (o, i, kernel),
                        precision,
                        Algorithm::Direct,
                    )
                });
                let mut dx = vec![f32::NAN; shape.input_len()];
                let bound = bound(o * kernel * kernel, precision == Precision::Bf16);
                for dot in [false, true] {
                    let run = || conv::backward_input(&shape, &dy, &packed, &mut dx);
                    if isa::with_bf16_dot(dot, run).is_none() {
                        continue;
                    }
                    assert_close(
                        &format!("{isa} {precision:?} {shape:?}"),
                        &dx,
                        &want,
                        &scale,
                        bound,
                    );
                }
            }
        }
    }
}

#[test]
fn weight_gradient_equals_the_plain_loops() {
    for shape in shapes() {
        let Case { x, dy, .. } = Case::new(&shape);
        let [want, scale] = both(shape.weight_len(), &x, &dy, |x, dy, dw| {
            reference::backward_weight(&shape, x, dy, dw);
        });
        let [want_db, scale_db] = both(shape.out_channels, &dy, &dy, |_, dy, db| {
            sum_rows(dy.len() / db.len(), db.len(), dy, db)
        });
        let pixels = shape.output_len() / shape.out_channels;
        for isa in isas() {
            for precision in [Precision::F32, Precision::Bf16] {
                let mut dw = vec![f32::NAN; shape.weight_len()];
                let mut db = vec![f32::NAN; shape.out_channels];
                for dot in [false, true] {
                    let direct = Algorithm::Direct;
                    let run = || {
                        isa::with(isa, || {
                            let (dw, db) = (&mut dw, Some(&mut db[..]));
                            conv::backward_weight_by(direct, &shape, &x, &dy, dw, db, precision)
                        })
                    };
                    if isa::with_bf16_dot(dot, run).is_none() {
                        continue;
                    }
                    let what = format!("{isa} {precision:?} dot {dot} {shape:?}");
                    let bf16 = precision == Precision::Bf16;
                    assert_close(&what, &dw, &want, &scale, bound(pixels, bf16));
                    assert_close(&what, &db, &want_db, &scale_db, bound(pixels, false));
                }
            }
        }
    }
}

/// `Σ dy · forward(x, weight)` is linear in each of `x` and `weight`, so that its central difference
/// is its derivative up to rounding, for any step: `(f(x + 1) − f(x − 1)) / 2`.
#[test]
fn reference_gradients_equal_finite_differences() {
    for shape in shapes()
        .into_iter()
        .filter(|s| s.input_len() * s.output_len() < 60_000)
    {
        let case = Case::new(&shape);
        let (x, weight, dy) = (widen(&case.x), widen(&case.weight), widen(&case.dy));
        let loss = |x: &[f64], weight: &[f64]| -> f64 {
            let mut y = vec![0.0; dy.len()];
            reference::forward(&shape, x, weight, None, None, &mut y);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let difference = |at: &[f64], i: usize, f: &dyn Fn(&[f64]) -> f64| {
            let (mut above, mut below) = (at.to_vec(), at.to_vec());
            above[i] += 1.0;
            below[i] -= 1.0;
            (f(&above) - f(&below)) / 2.0
        };
        // Rounding of a sum of at most this many terms of magnitude below 4.
        let tolerance = 4.0 * f64::EPSILON * (y_terms(&shape) as f64);
        let mut dx = vec![0.0; x.len()];
        reference::backward_input(&shape, &dy, &weight, &mut dx);
        for i in (0..x.len()).step_by(x.len().div_ceil(40)) {
            let want = difference(&x, i, &|x| loss(x, &weight));
            assert!(
                (dx[i] - want).abs() <= tolerance,
                "dx[{i}] {} {want} {shape:?}",
                dx[i]
            );
        }
        let mut dw = vec![0.0; weight.len()];
        reference::backward_weight(&shape, &x, &dy, &mut dw);
        for i in (0..weight.len()).step_by(weight.len().div_ceil(40)) {
            let want = difference(&weight, i, &|weight| loss(&x, weight));
            assert!(
                (dw[i] - want).abs() <= tolerance,
                "dw[{i}] {} {want} {shape:?}",
                dw[i]
            );
        }
    }
}

fn y_terms(shape: &ConvShape) -> usize {
    shape.output_len() * shape.in_channels * shape.kernel * shape.kernel
}
