//! Winograd's convolutions against the plain loops in f64. The bound on the error is that of the sums which the
//! algorithm forms: the same transforms with all magnitudes, in f64.

mod common;

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

/// `Aᵀ`, `G` and `Bᵀ` in f64, of the points that the kernels' documentation names.
struct Transforms {
    a: Vec<Vec<f64>>,
    g: Vec<Vec<f64>>,
    b: Vec<Vec<f64>>,
}

/// Coefficients of Π (x − q), the constant one first.
fn polynomial(roots: impl Iterator<Item = f64>) -> Vec<f64> {
    roots.fold(vec![1.0], |p, q| {
        let mut next = vec![0.0; p.len() + 1];
        for (i, &c) in p.iter().enumerate() {
            next[i] -= q * c;
            next[i + 1] += c;
        }
        next
    })
}

/// Toom and Cook: a row of `G` evaluates the kernel at a point, divided by Π (p − q); a row of `Bᵀ` has the
/// coefficients of Π (x − q) over the other points; a column of `Aᵀ` the powers of its point.
fn transforms(tile: Tile) -> Transforms {
    let (outputs, points): (usize, &[f64]) = match tile {
        Tile::F2 => (2, &[0.0, 1.0, -1.0]),
        Tile::F4 => (4, &[0.0, 0.6, -0.6, 1.5, -1.5]),
    };
    let n = outputs + 2;
    let mut t = Transforms {
        a: vec![vec![0.0; n]; outputs],
        g: vec![vec![0.0; 3]; n],
        b: vec![vec![0.0; n]; n],
    };
    for (i, &p) in points.iter().enumerate() {
        let others = || points.iter().enumerate().filter(|o| o.0 != i).map(|o| *o.1);
        let scale: f64 = others().map(|q| p - q).product();
        t.g[i] = vec![1.0 / scale, p / scale, p * p / scale];
        t.b[i][..n - 1].copy_from_slice(&polynomial(others()));
        for (power, row) in t.a.iter_mut().enumerate() {
            row[i] = p.powi(power as i32);
        }
    }
    t.g[n - 1] = vec![0.0, 0.0, 1.0];
    t.b[n - 1] = polynomial(points.iter().copied());
    t.a[outputs - 1][n - 1] = 1.0;
    t
}

/// `left · x · leftᵀ`.
fn both_sides(left: &[Vec<f64>], x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let product = |left: &[Vec<f64>], x: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let column = |row: &Vec<f64>, j: usize| row.iter().zip(x).map(|(l, x)| l * x[j]).sum();
        left.iter()
            .map(|row| (0..x[0].len()).map(|j| column(row, j)).collect())
            .collect()
    };
    let turn = |x: &[Vec<f64>]| -> Vec<Vec<f64>> {
        (0..x[0].len())
            .map(|j| x.iter().map(|row| row[j]).collect())
            .collect()
    };
    turn(&product(left, &turn(&product(left, x))))
}

fn map(x: &[Vec<f64>], f: impl Fn(f64) -> f64) -> Vec<Vec<f64>> {
    x.iter()
        .map(|row| row.iter().map(|&x| f(x)).collect())
        .collect()
}

/// The convolution by tiles, plain loops: with `magnitudes`, all constants and numbers without their signs.
fn by_tiles(
    shape: &ConvShape,
    tile: Tile,
    x: &[f32],
    weight: &[f32],
    magnitudes: bool,
) -> Vec<f64> {
    let sign = |x: f64| if magnitudes { x.abs() } else { x };
    let t = transforms(tile);
    let (a, g, b) = (map(&t.a, sign), map(&t.g, sign), map(&t.b, sign));
    let (m, n) = (a.len(), b.len());
    let (inputs, outputs) = (shape.in_channels, shape.out_channels);
    let (height, width) = (shape.out_height(), shape.out_width());
    let weights: Vec<_> = weight
        .chunks_exact(9)
        .map(|taps| {
            let rows: Vec<Vec<f64>> = taps
                .chunks(3)
                .map(|row| row.iter().map(|&x| sign(x.into())).collect())
                .collect();
            both_sides(&g, &rows)
        })
        .collect();
    let mut out = vec![0.0; shape.output_len()];
    for picture in 0..shape.batch {
        for (row, column) in (0..height)
            .step_by(m)
            .flat_map(|y| (0..width).step_by(m).map(move |x| (y, x)))
        {
            let mut sums = vec![vec![vec![0.0; n]; n]; outputs];
            for i in 0..inputs {
                let number = |y: usize, x_: usize| {
                    let y = (row + y).wrapping_sub(shape.padding.top);
                    let x_ = (column + x_).wrapping_sub(shape.padding.left);
                    if y >= shape.height || x_ >= shape.width {
                        return 0.0;
                    }
                    let pixel = (picture * shape.height + y) * shape.width + x_;
                    sign(x[pixel * inputs + i].into())
                };
                let d: Vec<Vec<f64>> = (0..n)
                    .map(|y| (0..n).map(|x_| number(y, x_)).collect())
                    .collect();
                let v = both_sides(&b, &d);
                for (o, sums) in sums.iter_mut().enumerate() {
                    let u = &weights[o * inputs + i];
                    let products = u.iter().flatten().zip(v.iter().flatten());
                    for (sum, (u, v)) in sums.iter_mut().flatten().zip(products) {
                        *sum += u * v;
                    }
                }
            }
            for (o, sums) in sums.iter().enumerate() {
                let y = both_sides(&a, sums);
                for (dy, line) in y.iter().enumerate().take(height - row) {
                    for (dx, &number) in line.iter().enumerate().take(width - column) {
                        let pixel = (picture * height + row + dy) * width + column + dx;
                        out[pixel * outputs + o] = number;
                    }
                }
            }
        }
    }
    out
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
