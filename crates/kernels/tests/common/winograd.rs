//! Winograd's convolution in f64, from its points.

use velatura_kernels::conv::{ConvShape, Tile};

/// `Aᵀ`, `G` and `Bᵀ` in f64, of the points that the kernels' documentation names.
pub struct Transforms {
    pub a: Vec<Vec<f64>>,
    pub g: Vec<Vec<f64>>,
    pub b: Vec<Vec<f64>>,
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
pub fn transforms(tile: Tile) -> Transforms {
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
pub fn by_tiles(
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
