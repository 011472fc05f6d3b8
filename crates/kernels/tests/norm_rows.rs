//! Layer norm and rows of length one against the plain loops in f64, with gradients against central differences.

mod common;

use common::norms::*;
use common::*;
use velatura_kernels::norm;
use velatura_kernels::{isa, reference};

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
