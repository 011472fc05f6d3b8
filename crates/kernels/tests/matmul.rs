//! Matrix products against the plain loops in f64, at every tail, in every instruction set.

mod common;

use common::*;
use velatura_kernels::gemm::{self, Epilogue, Layout, PackedMatrix, Precision};
use velatura_kernels::{activation, isa, pool, reference};

/// Sizes around tiles of six rows and panels of up to 64 columns, sums of one piece and several.
const SHAPES: &[(usize, usize, usize)] = &[
    (1, 1, 1),
    (5, 63, 3),
    (6, 64, 8),
    (7, 65, 9),
    (13, 80, 127),
    (12, 96, 128),
    (11, 130, 129),
    (193, 33, 257),
    (200, 70, 40),
    (64, 3, 300),
    (300, 192, 64),
    (2, 500, 385),
];

struct Case {
    a: Vec<f32>,
    b: Vec<f32>,
    want: Vec<f64>,
    scale: Vec<f64>,
}

fn case(m: usize, n: usize, k: usize, layouts: (Layout, Layout)) -> Case {
    let (a, b) = (random(m * k, 1), random(k * n, 2));
    let multiply = |a: &[f64], b: &[f64]| {
        let mut out = vec![0.0; m * n];
        reference::matmul::matmul(m, n, k, a, layouts.0, b, layouts.1, &mut out, false);
        out
    };
    let want = multiply(&widen(&a), &widen(&b));
    let scale = multiply(&absolute(&widen(&a)), &absolute(&widen(&b)));
    Case { a, b, want, scale }
}

fn check_packed(m: usize, n: usize, k: usize) {
    let by_rows = case(m, n, k, (Layout::Normal, Layout::Transposed));
    let by_columns = case(m, n, k, (Layout::Normal, Layout::Normal));
    for isa in isas() {
        isa::with(isa, || {
            for precision in [Precision::F32, Precision::Bf16] {
                let rows = PackedMatrix::from_rows(&by_rows.b, n, k, precision);
                let columns = PackedMatrix::from_columns(&by_columns.b, k, n, precision);
                for (packed, case) in [(rows, &by_rows), (columns, &by_columns)] {
                    assert_eq!(
                        (packed.k(), packed.n(), packed.precision()),
                        (k, n, precision)
                    );
                    let a = Misaligned::new(&case.a, 3);
                    let mut out = Misaligned::new(&vec![f32::NAN; m * n], 1);
                    for dot in [false, true] {
                        let run = || {
                            let epilogue = Epilogue::default();
                            gemm::matmul_packed(m, a.get(), &packed, out.get_mut(), &epilogue);
                        };
                        if isa::with_bf16_dot(dot, run).is_none() {
                            continue;
                        }
                        let bound = bound(k, precision == Precision::Bf16);
                        let what = format!("{isa} {precision:?} {m}x{k}x{n} dot {dot}");
                        assert_close(&what, out.get(), &case.want, &case.scale, bound);
                    }
                }
            }
        });
    }
}

/// Integers are exact sums of exact products, so that all of the error is in rounding to them: half a step of each
/// factor, a step being the 127th of the largest number of the row or column, times the other factor.
fn check_int8(m: usize, n: usize, k: usize) {
    let case = case(m, n, k, (Layout::Normal, Layout::Transposed));
    let magnitude = |x: &[f32]| x.iter().map(|x| f64::from(x.abs())).sum::<f64>();
    let step = |x: &[f32]| x.iter().fold(0.0, |most: f64, x| most.max(x.abs().into())) / 127.0;
    let mut slack = Vec::new();
    for row in case.a.chunks(k.max(1)).take(m) {
        for column in case.b.chunks(k.max(1)).take(n) {
            let (steps, terms) = ((step(row), step(column)), k as f64);
            let rounding = steps.0 * magnitude(column) + steps.1 * magnitude(row);
            slack.push(rounding / 2.0 + steps.0 * steps.1 * terms / 4.0);
        }
    }
    slack.resize(m * n, 0.0);
    let mut first: Option<Vec<f32>> = None;
    for isa in isas() {
        isa::with(isa, || {
            let packed = PackedMatrix::from_rows(&case.b, n, k, Precision::Int8);
            let a = Misaligned::new(&case.a, 3);
            let mut out = Misaligned::new(&vec![f32::NAN; m * n], 1);
            gemm::matmul_packed(m, a.get(), &packed, out.get_mut(), &Epilogue::default());
            // The last f32 operations round too.
            let slack: Vec<f64> = slack
                .iter()
                .zip(&case.scale)
                .map(|(x, s)| x + 1e-6 * s)
                .collect();
            let what = format!("{isa} int8 {m}x{k}x{n}");
            assert_close(&what, out.get(), &case.want, &slack, 1.0 + 1e-5);
            let out = out.get().to_vec();
            // The same integers everywhere.
            let first = first.get_or_insert(out.clone());
            assert_eq!(first, &out, "{what}");
        });
    }
}

#[test]
fn int8_products_are_as_near_as_their_steps() {
    for &(m, n, k) in SHAPES {
        check_int8(m, n, k);
    }
    for k in 0..=34 {
        check_int8(3, 18, k);
    }
    for m in 0..=14 {
        check_int8(m, 35, 70);
    }
}

#[test]
fn what_integers_lose_is_measured() {
    let (n, k) = (130, 70);
    let mut weight = random(n * k, 1);
    let lost = |weight: &[f32]| {
        let (mut error, mut squares) = (0.0, 0.0);
        for row in weight.chunks(k) {
            let step = row.iter().fold(0.0f64, |m, &x| m.max(f64::from(x).abs())) / 127.0;
            for &x in row {
                let x = f64::from(x);
                error += (x - (x / step).round() * step).powi(2);
                squares += x * x;
            }
        }
        (error / squares).sqrt()
    };
    let even = gemm::int8_error(&weight, k);
    assert!((even / lost(&weight) - 1.0).abs() < 1e-4, "{even}");
    weight.iter_mut().step_by(k).for_each(|x| *x = 100.0);
    let outliers = gemm::int8_error(&weight[..], k);
    assert!((outliers / lost(&weight) - 1.0).abs() < 1e-4, "{outliers}");
    assert_eq!(gemm::int8_error(&[0.0; 12], 4), 0.0);
}

#[test]
fn int8_products_pass_on_what_is_no_number() {
    let (m, n, k) = (3, 20, 33);
    let case = case(m, n, k, (Layout::Normal, Layout::Transposed));
    for isa in isas() {
        isa::with(isa, || {
            let packed = PackedMatrix::from_rows(&case.b, n, k, Precision::Int8);
            for none in [f32::NAN, f32::INFINITY] {
                let mut a = case.a.clone();
                a[k + 32] = none;
                let mut out = vec![0.0; m * n];
                gemm::matmul_packed(m, &a, &packed, &mut out, &Epilogue::default());
                assert!(out[n..2 * n].iter().all(|x| x.is_nan()), "{isa}");
                let others = out[..n].iter().chain(&out[2 * n..]);
                assert!(others.into_iter().all(|x| x.is_finite()), "{isa}");
            }
        });
    }
}

#[test]
fn packed_products_of_all_shapes() {
    for &(m, n, k) in SHAPES {
        check_packed(m, n, k);
    }
}

#[test]
fn packed_products_at_every_tail() {
    for n in 0..=34 {
        check_packed(7, n, 5);
    }
    for m in 0..=14 {
        check_packed(m, 17, 4);
    }
    for k in 0..=34 {
        check_packed(3, 18, k);
    }
}

#[test]
fn bias_and_residual_are_added() {
    for &(m, n, k) in SHAPES {
        let mut case = case(m, n, k, (Layout::Normal, Layout::Normal));
        let (bias, residual) = (random(n, 3), random(m * n, 4));
        for (i, (y, s)) in case.want.iter_mut().zip(&mut case.scale).enumerate() {
            let (b, r) = (f64::from(bias[i % n]), f64::from(residual[i]));
            *y += b + r;
            *s += b.abs() + r.abs();
        }
        for isa in isas() {
            let packed = isa::with(isa, || {
                PackedMatrix::from_columns(&case.b, k, n, Precision::F32)
            });
            let epilogue = Epilogue {
                bias: Some(&bias),
                residual: Some(&residual),
            };
            let mut out = vec![f32::NAN; m * n];
            // The matrix remembers its instruction set.
            gemm::matmul_packed(m, &case.a, &packed, &mut out, &epilogue);
            assert_close(
                &format!("{isa}"),
                &out,
                &case.want,
                &case.scale,
                bound(k, false),
            );
        }
    }
}

#[test]
fn transposed_and_accumulated_products() {
    let long = [(17, 20, 5000), (100, 90, 2100), (700, 5, 30), (3, 2, 0)];
    for &(m, n, k) in SHAPES.iter().chain(&long) {
        for a_layout in [Layout::Normal, Layout::Transposed] {
            for b_layout in [Layout::Normal, Layout::Transposed] {
                let Case { a, b, want, scale } = case(m, n, k, (a_layout, b_layout));
                for isa in isas() {
                    let what = format!("{isa} {m}x{k}x{n} {a_layout:?} {b_layout:?}");
                    isa::with(isa, || {
                        let (a, b) = (Misaligned::new(&a, 1), Misaligned::new(&b, 5));
                        let (a, b) = (a.get(), b.get());
                        let mut out = vec![f32::NAN; m * n];
                        gemm::matmul(m, n, k, a, a_layout, b, b_layout, &mut out, false);
                        assert_close(&what, &out, &want, &scale, bound(k, false));
                        gemm::matmul(m, n, k, a, a_layout, b, b_layout, &mut out, true);
                        let twice: Vec<f64> = want.iter().map(|x| 2.0 * x).collect();
                        let double: Vec<f64> = scale.iter().map(|x| 2.0 * x).collect();
                        assert_close(&what, &out, &twice, &double, bound(k, false));
                    });
                }
            }
        }
    }
}

fn check_weight_gradient((m, o, i): (usize, usize, usize)) {
    let (t, normal) = (Layout::Transposed, Layout::Normal);
    let Case { a, b, want, scale } = case(o, i, m, (t, normal));
    let mut want_db = vec![0.0; o];
    reference::elementwise::sum_rows(m, o, &widen(&a), &mut want_db);
    for isa in isas() {
        isa::with(isa, || {
            for (precision, dot) in [
                (Precision::F32, false),
                (Precision::Bf16, false),
                (Precision::Bf16, true),
            ] {
                let (dy, x) = (Misaligned::new(&a, 1), Misaligned::new(&b, 3));
                let mut dw = Misaligned::new(&vec![f32::NAN; o * i], 5);
                let mut db = Misaligned::new(&vec![f32::NAN; o], 1);
                let run = || {
                    let (dy, x, dw, db) = (dy.get(), x.get(), dw.get_mut(), Some(db.get_mut()));
                    gemm::weight_gradient((m, o, i), dy, x, dw, db, precision);
                };
                if isa::with_bf16_dot(dot, run).is_none() {
                    continue;
                }
                let what = format!("{isa} {precision:?} dot {dot} {m}x{o}x{i}");
                let bf16 = precision == Precision::Bf16;
                assert_close(&what, dw.get(), &want, &scale, bound(m, bf16));
                // Of numbers below one, and not rounded.
                let scale = vec![m as f64; o];
                assert_close(&what, db.get(), &want_db, &scale, bound(m, false));
            }
        });
    }
}

#[test]
fn weight_gradients_at_every_tail() {
    // Around pieces of 256 rows, blocks of 192 outputs, groups of 384 columns and slabs of long sums.
    for shape in [
        (255, 13, 65),
        (257, 7, 64),
        (513, 193, 70),
        (300, 20, 400),
        (2000, 400, 33),
        (5001, 33, 18),
        (9000, 12, 20),
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
    ] {
        check_weight_gradient(shape);
    }
    for m in 0..=9 {
        check_weight_gradient((m, 7, 18));
    }
    for o in 1..=14 {
        check_weight_gradient((5, o, 17));
    }
    for i in 1..=34 {
        check_weight_gradient((4, 3, i));
    }
}

/// The same bits whatever the number of threads.
#[test]
fn results_do_not_depend_on_threads() {
    let shapes = [
        (500, 70, 300),
        (64, 64, 5000),
        (3, 700, 500),
        (1000, 20, 40),
    ];
    let products = || -> Vec<Vec<u32>> {
        let product = |&(m, n, k): &(usize, usize, usize)| {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let mut out = vec![0.0; m * n];
            let (t, normal) = (Layout::Transposed, Layout::Normal);
            gemm::matmul(m, n, k, &a, t, &b, normal, &mut out, false);
            out.iter().map(|x| x.to_bits()).collect()
        };
        let gradient = |&(m, n, k): &(usize, usize, usize)| {
            let (dy, x) = (random(k * m, 1), random(k * n, 2));
            let (mut dw, mut db) = (vec![0.0; m * n], vec![0.0; m]);
            let out = (&mut dw[..], Some(&mut db[..]));
            gemm::weight_gradient((k, m, n), &dy, &x, out.0, out.1, Precision::Bf16);
            dw.iter().chain(&db).map(|x| x.to_bits()).collect()
        };
        let gradients = shapes.iter().map(gradient);
        shapes.iter().map(product).chain(gradients).collect()
    };
    pool::set_threads(1);
    let one = products();
    for threads in [2, 3, 8] {
        pool::set_threads(threads);
        assert!(one == products(), "{threads} threads");
    }
    pool::set_threads(0);
}

/// The very numbers that the product and the gate give one after the other.
#[test]
fn gated_products_are_products_and_their_gates() {
    let mut paired = 0;
    for (m, n, k) in [(1, 32, 5), (7, 64, 40), (50, 96, 321), (13, 160, 700)] {
        let (a, weight) = (random(m * k, 1), random(2 * n * k, 2));
        let bias = random(2 * n, 3);
        for isa in isas() {
            isa::with(isa, || {
                for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
                    let Some(gated) = PackedMatrix::gated(&weight, n, k, precision) else {
                        continue;
                    };
                    paired += 1;
                    let plain = PackedMatrix::from_rows(&weight, 2 * n, k, precision);
                    for bias in [None, Some(&bias[..])] {
                        let epilogue = Epilogue {
                            bias,
                            residual: None,
                        };
                        let mut both = vec![f32::NAN; 2 * m * n];
                        gemm::matmul_packed(m, &a, &plain, &mut both, &epilogue);
                        let mut want = vec![0.0; m * n];
                        activation::geglu(m, n, &both, &mut want);

                        let bias = bias.map(|bias| gated.gated_bias(bias));
                        let mut out = Misaligned::new(&vec![f32::NAN; m * n], 1);
                        gemm::matmul_geglu(m, &a, &gated, bias.as_deref(), out.get_mut());
                        assert_eq!(out.get(), want, "{isa} {precision:?} {m}x{k}x{n}");
                    }
                }
            });
        }
    }
    assert!(paired >= 4 * 3 * 2, "{paired} products could be paired");
}
