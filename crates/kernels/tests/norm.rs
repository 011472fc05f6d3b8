//! Group norm against the plain loops in f64, with gradients against central differences; and what holds for all norms.

mod common;

use common::norms::*;
use common::*;
use velatura_kernels::norm::{self, GroupNormShape};
use velatura_kernels::{isa, pool, reference};

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
