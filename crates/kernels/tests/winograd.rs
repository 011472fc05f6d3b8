//! Winograd's convolutions against the plain loops in f64. The bound on the error is that of the sums which the
//! algorithm forms: the same transforms with all magnitudes, in f64.

mod common;

use common::winograd::{by_tiles, transforms};
use common::*;
use velatura_kernels::conv::{self, Algorithm, ConvShape, PackedConv, Padding, Tile};
use velatura_kernels::gemm::{Epilogue, Precision};
use velatura_kernels::isa::{self, Isa};
use velatura_kernels::pool;
use velatura_kernels::reference::conv as reference;
use velatura_kernels::reference::elementwise::sum_rows;

fn shape(
    (batch, height, width): (usize, usize, usize),
    (in_channels, out_channels): (usize, usize),
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
        kernel: 3,
        stride: 1,
        padding,
    }
}

fn shapes() -> Vec<ConvShape> {
    let same = [1; 4];
    let mut shapes = vec![
        shape((2, 9, 7), (40, 36), same),
        shape((3, 10, 11), (37, 50), [1, 0, 2, 1]),
        shape((1, 12, 12), (67, 65), same),
        // Sums of several pieces, even and odd.
        shape((1, 6, 5), (261, 33), same),
        shape((2, 4, 4), (300, 130), same),
        // Tiles enough for each task to have its own: batch · 48 tiles.
        shape((9, 28, 29), (4, 5), same),
        shape((40, 16, 16), (5, 4), same),
        // Other padding, and none; tiles that are all padding.
        shape((2, 8, 9), (6, 7), [0; 4]),
        shape((1, 7, 8), (5, 6), [2, 0, 1, 2]),
        shape((1, 3, 2), (4, 6), [2, 3, 4, 2]),
        shape((1, 1, 1), (8, 8), same),
        shape((1, 3, 3), (3, 3), [0; 4]),
        shape((3, 5, 1), (33, 34), same),
    ];
    // Tails of channels and of tiles.
    for channels in 1..=34 {
        let (height, width) = (3 + channels % 5, 3 + channels % 7);
        shapes.push(shape((1, height, width), (channels, 35 - channels), same));
    }
    shapes
}

fn gradient_shapes() -> Vec<ConvShape> {
    let same = [1; 4];
    vec![
        shape((2, 9, 7), (64, 66), same),
        shape((1, 12, 12), (67, 65), same),
        shape((3, 10, 11), (65, 70), [1, 0, 2, 1]),
        shape((1, 12, 11), (100, 64), [0; 4]),
        // More tiles than are summed at once.
        shape((17, 16, 16), (64, 64), same),
        // An odd number of tiles, and channels that are no whole vectors.
        shape((1, 9, 9), (7, 100), same),
        shape((3, 3, 3), (33, 5), [2, 1, 0, 1]),
    ]
}

/// The weight for the convolution that makes the input's gradient: `[I, O, 3, 3]`, taps turned round.
fn turned(weight: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut turned = vec![0.0; weight.len()];
    for o in 0..outputs {
        for i in 0..inputs {
            for tap in 0..9 {
                turned[(i * outputs + o) * 9 + 8 - tap] = weight[(o * inputs + i) * 9 + tap];
            }
        }
    }
    turned
}

#[test]
fn the_transforms_make_convolutions() {
    let shape = shape((1, 9, 10), (2, 3), [1; 4]);
    let (x, weight) = (random(shape.input_len(), 1), random(shape.weight_len(), 2));
    let mut want = vec![0.0; shape.output_len()];
    reference::forward(&shape, &widen(&x), &widen(&weight), None, None, &mut want);
    for tile in [Tile::F2, Tile::F4] {
        for (got, want) in by_tiles(&shape, tile, &x, &weight, false).iter().zip(&want) {
            assert!((got - want).abs() < 1e-12, "{tile:?}");
        }
    }
}

/// Each transform adds a few terms to the sum over channels: six a side there and back.
fn error(terms: usize, bf16: bool) -> f64 {
    bound(terms + 4 * 6, bf16)
}

#[test]
fn forward_equals_the_plain_loops() {
    for shape in shapes() {
        let (x, weight) = (random(shape.input_len(), 1), random(shape.weight_len(), 2));
        let sizes = (shape.out_channels, shape.in_channels, 3);
        let (bias, residual) = (random(sizes.0, 4), random(shape.output_len(), 5));
        let (bias64, residual64) = (widen(&bias), widen(&residual));
        let mut want = vec![0.0; shape.output_len()];
        let (x64, weight64) = (widen(&x), widen(&weight));
        reference::forward(
            &shape,
            &x64,
            &weight64,
            Some(&bias64),
            Some(&residual64),
            &mut want,
        );
        for tile in [Tile::F2, Tile::F4] {
            let scale = by_tiles(&shape, tile, &x, &weight, true);
            let scale: Vec<f64> = scale.iter().map(|s| s + 4.0).collect();
            let algorithm = Algorithm::Winograd(tile);
            for isa in isas() {
                for (precision, dot) in [
                    (Precision::F32, false),
                    (Precision::Bf16, false),
                    (Precision::Bf16, true),
                ] {
                    let x = Misaligned::new(&x, 1);
                    let mut out = Misaligned::new(&vec![f32::NAN; shape.output_len()], 3);
                    let epilogue = Epilogue {
                        bias: Some(&bias),
                        residual: Some(&residual),
                    };
                    let run = || {
                        let packed = isa::with(isa, || {
                            PackedConv::new(&weight, sizes, precision, algorithm)
                        });
                        conv::forward(&shape, x.get(), &packed, out.get_mut(), &epilogue);
                    };
                    if isa::with_bf16_dot(dot, run).is_none() {
                        continue;
                    }
                    let what = format!("{isa} {precision:?} {dot} {tile:?} {shape:?}");
                    assert_close(&what, out.get(), &want, &scale, error(sizes.1, dot));
                }
            }
        }
    }
}

#[test]
fn input_gradient_equals_the_plain_loops() {
    for shape in shapes() {
        // Where padding is wider than the kernel, some outputs see no input: nothing to turn round.
        if shape.padding.bottom > 2 || shape.padding.left > 2 {
            continue;
        }
        let (weight, dy) = (random(shape.weight_len(), 2), random(shape.output_len(), 3));
        let sizes = (shape.out_channels, shape.in_channels, 3);
        let mut want = vec![0.0; shape.input_len()];
        reference::backward_input(&shape, &widen(&dy), &widen(&weight), &mut want);
        let back = ConvShape {
            height: shape.out_height(),
            width: shape.out_width(),
            in_channels: shape.out_channels,
            out_channels: shape.in_channels,
            padding: Padding {
                top: 2 - shape.padding.top,
                bottom: 2 - shape.padding.bottom,
                left: 2 - shape.padding.left,
                right: 2 - shape.padding.right,
            },
            ..shape
        };
        let turned = turned(&weight, sizes.0, sizes.1);
        for tile in [Tile::F2, Tile::F4] {
            let scale = by_tiles(&back, tile, &dy, &turned, true);
            let algorithm = Algorithm::Winograd(tile);
            for isa in isas() {
                for (precision, dot) in [(Precision::F32, false), (Precision::Bf16, true)] {
                    let mut dx = vec![f32::NAN; shape.input_len()];
                    let run = || {
                        let packed = isa::with(isa, || {
                            PackedConv::for_input_gradient(&weight, sizes, precision, algorithm)
                        });
                        conv::backward_input(&shape, &dy, &packed, &mut dx);
                    };
                    if isa::with_bf16_dot(dot, run).is_none() {
                        continue;
                    }
                    let what = format!("{isa} {precision:?} {tile:?} {shape:?}");
                    assert_close(&what, &dx, &want, &scale, error(sizes.0, dot));
                }
            }
        }
    }
}

/// By how much the transforms for the weight's gradient, with all constants taken without their signs, can enlarge a
/// product of two numbers.
fn amplification(tile: Tile) -> f64 {
    let t = transforms(tile);
    let rows = |x: &[Vec<f64>]| -> f64 {
        let magnitude = |row: &Vec<f64>| row.iter().map(|x| x.abs()).sum();
        x.iter().map(magnitude).fold(0.0, f64::max)
    };
    let columns = |x: &[Vec<f64>]| {
        let magnitude = |j: usize| x.iter().map(|row| row[j].abs()).sum::<f64>();
        (0..x[0].len()).map(magnitude).fold(0.0, f64::max)
    };
    (rows(&t.b) * columns(&t.a) * columns(&t.g)).powi(2)
}

/// The mean square of the weight gradient's error along one axis, relative to that of the gradient, where each
/// transformed number is off by 1 in relation to itself and all numbers of `x` and `dy` are independent: a place `i` then
/// has the mean square `‖b_i‖²` of the one factor and `‖a_i‖²` of the other, of what lies in the picture; `G` takes it to
/// the taps; a tap of the gradient is a sum over the outputs whose input is in the picture.
fn enlargement(tile: Tile, inputs: usize, outputs: usize, before: usize) -> f64 {
    let t = transforms(tile);
    let (m, n) = (t.a.len(), t.b.len());
    let inside = |place: usize| (before..before + inputs).contains(&place);
    let (mut errors, mut gradient) = (0.0, 0.0);
    for first in (0..outputs).step_by(m) {
        let real = m.min(outputs - first);
        for tap in 0..3 {
            for i in 0..n {
                let input = |j: &usize| inside(first + j);
                let b: f64 = (0..n).filter(input).map(|j| t.b[i][j].powi(2)).sum();
                let a: f64 = (0..real).map(|j| t.a[j][i].powi(2)).sum();
                errors += t.g[i][tap].powi(2) * a * b;
            }
            gradient += (0..real).filter(|j| inside(first + j + tap)).count() as f64;
        }
    }
    errors / gradient
}

/// `dw` is linear in `x` and `dy`, so each tile contributes at most the product of its largest numbers; the
/// constants of the three transforms enter with the sums of their magnitudes.
#[test]
fn weight_gradient_equals_the_plain_loops() {
    for shape in gradient_shapes() {
        let (x, dy) = (random(shape.input_len(), 1), random(shape.output_len(), 3));
        let mut want = vec![0.0; shape.weight_len()];
        reference::backward_weight(&shape, &widen(&x), &widen(&dy), &mut want);
        let pixels = shape.output_len() / shape.out_channels;
        let mut want_db = vec![0.0; shape.out_channels];
        sum_rows(pixels, shape.out_channels, &widen(&dy), &mut want_db);
        for tile in [Tile::F2, Tile::F4] {
            let side = if tile == Tile::F2 { 2 } else { 4 };
            let across = shape.out_height().div_ceil(side) * shape.out_width().div_ceil(side);
            let tiles = shape.batch * across;
            let scale = vec![amplification(tile) * tiles as f64; want.len()];
            let Padding { top, left, .. } = shape.padding;
            let square = enlargement(tile, shape.height, shape.out_height(), top)
                * enlargement(tile, shape.width, shape.out_width(), left);
            for isa in isas() {
                for (precision, dot) in [
                    (Precision::F32, false),
                    (Precision::Bf16, false),
                    (Precision::Bf16, true),
                ] {
                    let mut dw = vec![f32::NAN; shape.weight_len()];
                    let mut db = vec![f32::NAN; shape.out_channels];
                    let algorithm = Algorithm::Winograd(tile);
                    let run = || {
                        isa::with(isa, || {
                            let (dw, db) = (&mut dw, Some(&mut db[..]));
                            conv::backward_weight_by(algorithm, &shape, &x, &dy, dw, db, precision)
                        })
                    };
                    if isa::with_bf16_dot(dot, run).is_none() {
                        continue;
                    }
                    let rounded = dot && isa == Isa::Avx512;
                    let what = format!("{isa} {precision:?} dot {dot} {tile:?} {shape:?}");
                    assert_close(&what, &dw, &want, &scale, error(tiles, rounded));
                    // Of numbers below one, and not rounded.
                    let scale = vec![pixels as f64; db.len()];
                    assert_close(&what, &db, &want_db, &scale, bound(pixels, false));
                    // That bound is wide; the error's norm shows what is usual. Two factors are rounded, evenly
                    // within half a step, 2⁻⁸ at most.
                    let norm =
                        |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
                    let off = norm(&mut dw.iter().zip(&want).map(|(&a, b)| f64::from(a) - b));
                    let relative = off / norm(&mut want.iter().copied());
                    let limit = match rounded {
                        true => (square * 2.0 / 3.0).sqrt() / 256.0,
                        false => 1e-5,
                    };
                    assert!(
                        relative < limit,
                        "{what}: relative error {relative:e}, {limit:e}"
                    );
                }
            }
        }
    }
}

/// The same bits whatever the number of threads.
#[test]
fn weight_gradients_do_not_depend_on_threads() {
    let shape = shape((5, 32, 32), (64, 66), [1; 4]);
    let (x, dy) = (random(shape.input_len(), 1), random(shape.output_len(), 3));
    let gradients = |threads| {
        pool::set_threads(threads);
        let run = |tile| {
            let (mut dw, mut db) = (vec![0.0; shape.weight_len()], vec![0.0; 66]);
            let (by, out) = (Algorithm::Winograd(tile), (&mut dw, Some(&mut db[..])));
            conv::backward_weight_by(by, &shape, &x, &dy, out.0, out.1, Precision::Bf16);
            [dw, db].map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        };
        [Tile::F2, Tile::F4].map(run)
    };
    let one = gradients(1);
    for threads in [2, 3, 8] {
        assert!(one == gradients(threads), "{threads} threads");
    }
    pool::set_threads(0);
}
