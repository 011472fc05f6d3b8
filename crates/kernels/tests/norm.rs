//! Group and layer norm against the plain loops in f64, with gradients against central differences.

mod common;

use common::*;
use velatura_kernels::norm::{self, GroupNormShape};
use velatura_kernels::{isa, pool, reference};

const UNIT: f64 = f32::EPSILON as f64 / 2.0;

/// Odd sizes, channels below, at and above the vectors' widths, one task and several.
fn shapes() -> Vec<GroupNormShape> {
    [
        (1, 1, 2, 1),
        (2, 9, 6, 3),
        (1, 5, 16, 2),
        (3, 17, 34, 2),
        (2, 64, 64, 32),
        (2, 1100, 40, 8),
        (1, 300, 320, 32),
    ]
    .map(|(batch, spatial, channels, groups)| GroupNormShape {
        batch,
        spatial,
        channels,
        groups,
    })
    .to_vec()
}

struct Case {
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    dy: Vec<f32>,
}

/// Activations of deviation about 0.6 around `mean`.
fn case(len: usize, channels: usize, mean: f32) -> Case {
    Case {
        x: random(len, 1).iter().map(|x| mean + x).collect(),
        gamma: random(channels, 2).iter().map(|g| 1.0 + 0.5 * g).collect(),
        beta: random(channels, 3),
        dy: random(len, 4),
    }
}

fn len(s: &GroupNormShape) -> usize {
    s.batch * s.spatial * s.channels
}

#[test]
fn group_norm_forward() {
    for shape in shapes() {
        for (silu, mean) in [(false, 0.0), (true, 0.0), (false, 1000.0), (true, -1000.0)] {
            let Case { x, gamma, beta, .. } = case(len(&shape), shape.channels, mean);
            let mut want = vec![0.0; x.len()];
            let mut want_stats = vec![0.0; shape.batch * shape.groups * 2];
            reference::norm::group_norm(
                &shape,
                f64::from(1e-5_f32),
                &widen(&x),
                &widen(&gamma),
                &widen(&beta),
                silu,
                &mut want,
                &mut want_stats,
            );
            for isa in isas() {
                isa::with(isa, || {
                    let x = Misaligned::new(&x, 1);
                    let mut out = Misaligned::new(&vec![f32::NAN; want.len()], 3);
                    let mut stats = vec![f32::NAN; want_stats.len()];
                    norm::group_norm(
                        &shape,
                        1e-5,
                        x.get(),
                        &gamma,
                        &beta,
                        silu,
                        out.get_mut(),
                        &mut stats,
                    );
                    let what = format!("{isa}, {shape:?}, silu {silu}, mean {mean}");
                    for (got, want) in stats.chunks(2).zip(want_stats.chunks(2)) {
                        // The mean is rounded once, the deviation comes from exact moments.
                        let close = |got: f32, want: f64| (f64::from(got) - want).abs();
                        assert!(
                            close(got[0], want[0]) <= UNIT * (want[0].abs() + 4.0),
                            "{what}"
                        );
                        assert!(
                            close(got[1], want[1]) <= 40.0 * UNIT * want[1],
                            "{what}: {got:?} {want:?}"
                        );
                        // (x − mean)·rstd·gamma: the mean's rounding, magnified by rstd.
                    }
                    let largest = want_stats
                        .iter()
                        .skip(1)
                        .step_by(2)
                        .fold(0f64, |a, &b| a.max(b));
                    let magnified = largest * (f64::from(mean.abs()) + 1.0);
                    let scale: Vec<f64> = want
                        .iter()
                        .map(|w| w.abs() * 50.0 + 6.0 + 2.0 * magnified)
                        .collect();
                    assert_close(&what, out.get(), &want, &scale, UNIT);
                });
            }
        }
    }
}

/// `x + onto`
fn plus(x: &[f64], onto: Option<&[f32]>) -> Vec<f64> {
    let onto = |i: usize| onto.map_or(0.0, |onto| f64::from(onto[i]));
    x.iter().enumerate().map(|(i, x)| x + onto(i)).collect()
}

/// The norm of the difference over the norm.
fn distance(got: &[f32], want: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = got
        .iter()
        .zip(want)
        .map(|(&g, &w)| square(f64::from(g) - w))
        .sum();
    let norm: f64 = want.iter().map(|&w| square(w)).sum();
    (difference / norm.max(1e-30)).sqrt()
}

#[test]
fn group_norm_backward() {
    for shape in shapes() {
        for silu in [false, true] {
            let Case { x, gamma, beta, dy } = case(len(&shape), shape.channels, 0.3);
            let [wx, wg, wb, wdy] = [&x, &gamma, &beta, &dy].map(|x| widen(x));
            let mut want_stats = vec![0.0; shape.batch * shape.groups * 2];
            let (mut dx, mut dgamma, mut dbeta) = (
                vec![0.0; x.len()],
                vec![0.0; gamma.len()],
                vec![0.0; gamma.len()],
            );
            let mut y = vec![0.0; x.len()];
            let eps = f64::from(1e-5_f32);
            reference::norm::group_norm(&shape, eps, &wx, &wg, &wb, silu, &mut y, &mut want_stats);
            reference::norm::group_norm_backward(
                &shape,
                &wx,
                &wg,
                &wb,
                &want_stats,
                silu,
                &wdy,
                &mut dx,
                &mut dgamma,
                &mut dbeta,
            );
            for isa in isas() {
                isa::with(isa, || {
                    let mut stats = vec![0.0; want_stats.len()];
                    let mut out = vec![0.0; x.len()];
                    norm::group_norm(&shape, 1e-5, &x, &gamma, &beta, silu, &mut out, &mut stats);
                    for onto in [None, Some(&x[..])] {
                        let (mut gx, mut gg, mut gb) = (
                            vec![f32::NAN; x.len()],
                            vec![f32::NAN; gamma.len()],
                            vec![f32::NAN; gamma.len()],
                        );
                        norm::group_norm_backward(
                            &shape, &x, &gamma, &beta, &stats, silu, &dy, onto, &mut gx, &mut gg,
                            &mut gb,
                        );
                        // Sums of random signs over n terms in blocks: √n roundings at worst seen as n.
                        let bound = 200.0 * UNIT;
                        let dx = plus(&dx, onto);
                        for (name, got, want) in [
                            ("dx", &gx, &dx),
                            ("dgamma", &gg, &dgamma),
                            ("dbeta", &gb, &dbeta),
                        ] {
                            let error = distance(got, want);
                            assert!(
                                error <= bound || want.iter().all(|w| w.abs() < 1e-2),
                                "{isa}, {shape:?}, silu {silu}: {name} off by {error:e}"
                            );
                        }
                    }
                });
            }
        }
    }
}

/// Central differences of `loss` at `x`, each place in turn.
fn numeric(x: &[f64], mut loss: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    // The error is of the order of STEP² and of f64's epsilon / STEP: 1e-10.
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let middle = x[i];
            x[i] = middle + STEP;
            let above = loss(&x);
            x[i] = middle - STEP;
            let below = loss(&x);
            x[i] = middle;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

fn weighted(y: &[f64], dy: &[f64]) -> f64 {
    y.iter().zip(dy).map(|(y, dy)| y * dy).sum()
}

#[test]
fn group_norm_gradients_are_those_of_the_forward_pass() {
    let shape = GroupNormShape {
        batch: 2,
        spatial: 7,
        channels: 18,
        groups: 3,
    };
    for silu in [false, true] {
        let Case { x, gamma, beta, dy } = case(len(&shape), shape.channels, 0.5);
        let mut stats = vec![0.0; 12];
        let mut out = vec![0.0; x.len()];
        norm::group_norm(&shape, 1e-5, &x, &gamma, &beta, silu, &mut out, &mut stats);
        let (mut dx, mut dgamma, mut dbeta) = (
            vec![0.0; x.len()],
            vec![0.0; gamma.len()],
            vec![0.0; gamma.len()],
        );
        norm::group_norm_backward(
            &shape,
            &x,
            &gamma,
            &beta,
            &stats,
            silu,
            &dy,
            None,
            &mut dx,
            &mut dgamma,
            &mut dbeta,
        );
        let [x, gamma, beta, dy] = [x, gamma, beta, dy].map(|x| widen(&x));
        let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| {
            let (mut y, mut stats) = (vec![0.0; x.len()], vec![0.0; 12]);
            reference::norm::group_norm(&shape, 1e-5, x, gamma, beta, silu, &mut y, &mut stats);
            weighted(&y, &dy)
        };
        let bound = 100.0 * UNIT;
        assert!(distance(&dx, &numeric(&x, |x| loss(x, &gamma, &beta))) < bound);
        assert!(distance(&dgamma, &numeric(&gamma, |gamma| loss(&x, gamma, &beta))) < bound);
        assert!(distance(&dbeta, &numeric(&beta, |beta| loss(&x, &gamma, beta))) < bound);
    }
}

#[test]
fn layer_norm_matches_the_formula() {
    for (rows, cols) in [
        (1, 1),
        (3, 2),
        (2, 15),
        (5, 16),
        (4, 17),
        (3, 33),
        (40, 320),
        (900, 77),
    ] {
        for mean in [0.0, 1000.0] {
            let Case { x, gamma, beta, dy } = case(rows * cols, cols, mean);
            let [wx, wg, wb, wdy] = [&x, &gamma, &beta, &dy].map(|x| widen(x));
            let (mut y, mut want_stats) = (vec![0.0; x.len()], vec![0.0; 2 * rows]);
            let eps = f64::from(1e-5_f32);
            reference::norm::layer_norm(rows, cols, eps, &wx, &wg, &wb, &mut y, &mut want_stats);
            let (mut dx, mut dgamma, mut dbeta) =
                (vec![0.0; x.len()], vec![0.0; cols], vec![0.0; cols]);
            reference::norm::layer_norm_backward(
                rows,
                cols,
                &wx,
                &wg,
                &want_stats,
                &wdy,
                &mut dx,
                &mut dgamma,
                &mut dbeta,
            );
            for isa in isas() {
                isa::with(isa, || {
                    let what = format!("{isa}, {rows}×{cols}, mean {mean}");
                    let mut out = Misaligned::new(&vec![f32::NAN; x.len()], 1);
                    let mut stats = vec![f32::NAN; 2 * rows];
                    norm::layer_norm(
                        rows,
                        cols,
                        1e-5,
                        &x,
                        &gamma,
                        &beta,
                        out.get_mut(),
                        &mut stats,
                    );
                    let scale: Vec<f64> = (0..x.len())
                        .map(|i| {
                            let magnified = want_stats[i / cols * 2 + 1] * f64::from(mean + 1.0);
                            y[i].abs() * 50.0 + 6.0 + 2.0 * magnified
                        })
                        .collect();
                    assert_close(&what, out.get(), &y, &scale, UNIT);
                    if mean != 0.0 || cols < 3 {
                        return;
                    }
                    for onto in [None, Some(&x[..])] {
                        let mut gx = Misaligned::new(&vec![f32::NAN; x.len()], 1);
                        let (mut gg, mut gb) = (vec![f32::NAN; cols], vec![f32::NAN; cols]);
                        norm::layer_norm_backward(
                            rows,
                            cols,
                            &x,
                            &gamma,
                            &stats,
                            &dy,
                            onto,
                            gx.get_mut(),
                            &mut gg,
                            &mut gb,
                        );
                        let dx = plus(&dx, onto);
                        for (got, want) in [(gx.get(), &dx), (&gg, &dgamma), (&gb, &dbeta)] {
                            assert!(distance(got, want) <= 100.0 * UNIT, "{what}");
                        }
                    }
                });
            }
        }
    }
}

#[test]
fn layer_norm_gradients_are_those_of_the_forward_pass() {
    let (rows, cols) = (6, 21);
    let Case { x, gamma, beta, dy } = case(rows * cols, cols, 0.5);
    let (mut out, mut stats) = (vec![0.0; x.len()], vec![0.0; 2 * rows]);
    norm::layer_norm(rows, cols, 1e-5, &x, &gamma, &beta, &mut out, &mut stats);
    let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], vec![0.0; cols], vec![0.0; cols]);
    norm::layer_norm_backward(
        rows,
        cols,
        &x,
        &gamma,
        &stats,
        &dy,
        None,
        &mut dx,
        &mut dgamma,
        &mut dbeta,
    );
    let [x, gamma, beta, dy] = [x, gamma, beta, dy].map(|x| widen(&x));
    let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| {
        let (mut y, mut stats) = (vec![0.0; x.len()], vec![0.0; 2 * rows]);
        reference::norm::layer_norm(rows, cols, 1e-5, x, gamma, beta, &mut y, &mut stats);
        weighted(&y, &dy)
    };
    let bound = 100.0 * UNIT;
    assert!(distance(&dx, &numeric(&x, |x| loss(x, &gamma, &beta))) < bound);
    assert!(distance(&dgamma, &numeric(&gamma, |gamma| loss(&x, gamma, &beta))) < bound);
    assert!(distance(&dbeta, &numeric(&beta, |beta| loss(&x, &gamma, beta))) < bound);
}

#[test]
fn rows_get_length_one() {
    // A row of one number has no slope but rounding, and nothing to compare.
    for (rows, cols) in [(1, 2), (3, 5), (7, 34), (700, 64)] {
        let mut x = random(rows * cols, 1);
        // A rectifier leaves rows of nothing.
        if rows > 1 {
            x[cols..2 * cols].fill(0.0);
        }
        let dy = random(rows * cols, 2);
        let (exact_x, exact_dy) = (widen(&x), widen(&dy));
        let eps = f64::from(1e-10_f32);
        let mut want = vec![0.0; x.len()];
        let mut want_dx = vec![0.0; x.len()];
        reference::norm::unit_rows(cols, eps, &exact_x, &mut want);
        reference::norm::unit_rows_backward(cols, eps, &exact_x, &exact_dy, &mut want_dx);
        for isa in isas() {
            let (mut out, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            isa::with(isa, || {
                norm::unit_rows(cols, 1e-10, &x, &mut out);
                norm::unit_rows_backward(cols, 1e-10, &x, &dy, &mut dx);
            });
            let (error, slope_error) = (distance(&out, &want), distance(&dx, &want_dx));
            assert!(error < 20.0 * UNIT && slope_error < 100.0 * UNIT, "{isa}");
        }
    }
    let (x, dy) = (widen(&random(3 * 7, 3)), widen(&random(3 * 7, 4)));
    let mut dx = vec![0.0; x.len()];
    reference::norm::unit_rows_backward(7, 1e-3, &x, &dy, &mut dx);
    let loss = |x: &[f64]| {
        let mut y = vec![0.0; x.len()];
        reference::norm::unit_rows(7, 1e-3, x, &mut y);
        weighted(&y, &dy)
    };
    let dx: Vec<f32> = dx.iter().map(|&dx| dx as f32).collect();
    assert!(distance(&dx, &numeric(&x, loss)) < 100.0 * UNIT);
}

#[test]
fn constant_input_gives_beta() {
    let shape = GroupNormShape {
        batch: 1,
        spatial: 50,
        channels: 32,
        groups: 4,
    };
    let x = vec![3.7e4; 1600];
    let (gamma, beta) = (vec![2.0; 32], random(32, 1));
    let (mut out, mut stats) = (vec![0.0; 1600], vec![0.0; 8]);
    for isa in isas() {
        isa::with(isa, || {
            norm::group_norm(&shape, 1e-5, &x, &gamma, &beta, false, &mut out, &mut stats);
            assert!(out.chunks(32).all(|row| row == beta));
            norm::layer_norm(50, 32, 1e-5, &x, &gamma, &beta, &mut out, &mut [0.0; 100]);
            assert!(out.chunks(32).all(|row| row == beta));
        });
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let shape = GroupNormShape {
        batch: 2,
        spatial: 1500,
        channels: 64,
        groups: 8,
    };
    let Case { x, gamma, beta, dy } = case(len(&shape), 64, 1.0);
    let before = pool::threads();
    let results: Vec<_> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            pool::set_threads(threads);
            let (mut out, mut stats) = (vec![0.0; x.len()], vec![0.0; 32]);
            norm::group_norm(&shape, 1e-5, &x, &gamma, &beta, true, &mut out, &mut stats);
            let (mut dx, mut dgamma, mut dbeta) =
                (vec![0.0; x.len()], vec![0.0; 64], vec![0.0; 64]);
            norm::group_norm_backward(
                &shape,
                &x,
                &gamma,
                &beta,
                &stats,
                true,
                &dy,
                None,
                &mut dx,
                &mut dgamma,
                &mut dbeta,
            );
            (out, stats, dx, dgamma, dbeta)
        })
        .collect();
    pool::set_threads(before);
    assert!(results.windows(2).all(|r| r[0] == r[1]));
}
