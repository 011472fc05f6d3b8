//! Rounding the tiles of `F(4×4)` to bf16 so that most of the errors cancel.
//!
//! If `E` is what rounding adds to a transformed weight `U`, the result is off by `Aᵀ[E ⊙ V]A`. For inputs whose
//! neighbours correlate as `C`, the expected square of that is a form of the 36 errors,
//!
//! ```text
//! eᵀ (Q ⊗ Q) e        Q = (A Aᵀ) ⊙ (Bᵀ C B)        (for rounded inputs and the weights' C: G C Gᵀ)
//! ```
//!
//! far from diagonal: 36 numbers lead to 16. So each number is rounded with what those before it have left taken off,
//! in the share that the form's factors `Q = L D Lᵀ` give: Babai's nearest plane ("On Lovász' lattice reduction and the
//! nearest lattice point problem", 1986). As `L ⊗ L` factorises too, it is done first for the rows before, then in the row.
//! Of the errors' squares 36 % are left where weights and neighbours in the picture are independent, less where they are not.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use super::transform::{P, Q};
use crate::isa::Simd;

/// Places a side.
const SIDE: usize = 6;

/// The finite points; the last place is that of ∞.
const POINTS: [f64; SIDE - 1] = [0.0, P as f64, -P as f64, Q as f64, -Q as f64];

/// The order in which places are rounded: of all orders the one that leaves least, for weights and inputs.
const ORDER: [usize; SIDE] = [3, 1, 0, 2, 5, 4];

/// How much neighbours are taken to correlate, weights and pixels. Between 0 and 0.6 it hardly matters; with 0,
/// smooth pictures would gain nothing.
const CORRELATION: f64 = 0.3;

type Square = [[f64; SIDE]; SIDE];

/// For rounding transformed weights: how much of the error at place `k` is taken off at `i`, `[k][i]`.
pub(super) const WEIGHT: [[f32; SIDE]; SIDE] = shares(form(input_rows()));

/// The same for transformed inputs.
pub(super) const INPUT: [[f32; SIDE]; SIDE] = shares(form(weight_rows()));

/// Whether tiles of `N × N` places are rounded so: those that are `dotted`, in bf16, where there are enough places.
#[inline(always)]
pub(super) fn is_for<const N: usize>(dotted: bool) -> bool {
    dotted && N == SIDE
}

/// The row of a tile whose turn it is.
#[inline(always)]
pub(super) fn row<const N: usize>(turn: usize, dotted: bool) -> usize {
    match is_for::<N>(dotted) {
        true => ORDER[turn],
        false => turn,
    }
}

/// Rounds row `ORDER[turn]` of a tile to numbers that bf16 has, which are returned as f32. `left` keeps what the errors
/// of the rows in turns before come to.
#[inline(always)]
pub(super) fn round<S: Simd, const N: usize>(
    simd: S,
    turn: usize,
    row: [S::Vector; N],
    shares: &[[f32; SIDE]; SIDE],
    left: &mut [[S::Vector; N]; N],
) -> [S::Vector; N] {
    debug_assert!(N == SIDE);
    let i = ORDER[turn];
    let mut before = [simd.zero(); N];
    for &k in &ORDER[..turn] {
        let share = simd.splat(shares[k][i]);
        for j in 0..N {
            before[j] = simd.mul_add(share, left[k][j], before[j]);
        }
    }
    let (mut rounded, mut errors) = (row, row);
    for b in 0..N {
        let j = ORDER[b];
        let mut within = simd.zero();
        for l in 0..N {
            // A loop of constant length unrolls.
            if l < b {
                let l = ORDER[l];
                within = simd.mul_add(simd.splat(shares[l][j]), errors[l], within);
            }
        }
        let exact = simd.sub(row[j], simd.add(before[j], within));
        rounded[j] = nearest(simd, exact);
        errors[j] = simd.sub(rounded[j], row[j]);
        left[i][j] = simd.add(errors[j], within);
    }
    rounded
}

/// `x` to eight significant bits, as bf16 has (Veltkamp 1968: what is left when the rest is cut off).
#[inline(always)]
fn nearest<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let scaled = simd.mul(simd.splat(65537.0), x); // 1 + 2¹⁶
    simd.sub(scaled, simd.sub(scaled, x))
}

/// Coefficients of `Π (x − q)` over all points but the one at `skip`, the constant one first.
const fn product_without(skip: usize) -> [f64; SIDE] {
    let mut product = [0.0; SIDE];
    product[0] = 1.0;
    let mut point = 0;
    while point < POINTS.len() {
        if point != skip {
            let mut i = SIDE - 1;
            while i > 0 {
                product[i] = product[i - 1] - POINTS[point] * product[i];
                i -= 1;
            }
            product[0] *= -POINTS[point];
        }
        point += 1;
    }
    product
}

/// The powers of a point, `[1, p, p², …]`, as far as `count`; of ∞ the last one.
const fn powers(place: usize, count: usize) -> [f64; SIDE] {
    let mut powers = [0.0; SIDE];
    if place == SIDE - 1 {
        powers[count - 1] = 1.0;
        return powers;
    }
    powers[0] = 1.0;
    let mut i = 1;
    while i < count {
        powers[i] = powers[i - 1] * POINTS[place];
        i += 1;
    }
    powers
}

/// `Bᵀ`.
const fn input_rows() -> Square {
    let mut rows = [[0.0; SIDE]; SIDE];
    let mut i = 0;
    while i < SIDE {
        rows[i] = product_without(i);
        i += 1;
    }
    rows
}

/// `G`, with three more columns of zeros.
const fn weight_rows() -> Square {
    let mut rows = [[0.0; SIDE]; SIDE];
    let mut i = 0;
    while i < SIDE {
        rows[i] = powers(i, 3);
        if i < SIDE - 1 {
            let scale = dot(&product_without(i), &powers(i, SIDE));
            let mut k = 0;
            while k < 3 {
                rows[i][k] /= scale;
                k += 1;
            }
        }
        i += 1;
    }
    rows
}

const fn dot(a: &[f64; SIDE], b: &[f64; SIDE]) -> f64 {
    let mut sum = 0.0;
    let mut i = 0;
    while i < SIDE {
        sum += a[i] * b[i];
        i += 1;
    }
    sum
}

/// `(A Aᵀ) ⊙ (R C Rᵀ)` for the `rows` of the other factor's transform.
const fn form(rows: Square) -> Square {
    let mut form = [[0.0; SIDE]; SIDE];
    let mut i = 0;
    while i < SIDE {
        // C times row i.
        let mut spread = [0.0; SIDE];
        let mut to = 0;
        while to < SIDE {
            let mut from = 0;
            while from < SIDE {
                let (mut weight, mut distance) = (rows[i][from], to.abs_diff(from));
                while distance > 0 {
                    weight *= CORRELATION;
                    distance -= 1;
                }
                spread[to] += weight;
                from += 1;
            }
            to += 1;
        }
        let mut j = 0;
        while j < SIDE {
            form[i][j] = dot(&powers(i, 4), &powers(j, 4)) * dot(&rows[j], &spread);
            j += 1;
        }
        i += 1;
    }
    form
}

/// The shares of `L` in `form = L D Lᵀ`, where the place rounded last is eliminated first.
const fn shares(mut form: Square) -> [[f32; SIDE]; SIDE] {
    let mut shares = [[0.0; SIDE]; SIDE];
    let mut at = SIDE;
    while at > 0 {
        at -= 1;
        let i = ORDER[at];
        let mut b = 0;
        while b < at {
            let k = ORDER[b];
            let share = form[k][i] / form[i][i];
            shares[k][i] = share as f32;
            let mut c = 0;
            while c < at {
                form[k][ORDER[c]] -= share * form[i][ORDER[c]];
                c += 1;
            }
            b += 1;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{self, Kernel};

    /// Sum of squares of what rounding a number per lane and place leaves in the results.
    fn loss(form: &Square, errors: &[[f64; SIDE]; SIDE]) -> f64 {
        let mut sum = 0.0;
        for (i, j, k, l) in (0..SIDE.pow(4)).map(|n| (n / 216, n / 36 % 6, n / 6 % 6, n % 6)) {
            sum += errors[i][j] * errors[k][l] * form[i][k] * form[j][l];
        }
        sum
    }

    struct Rounded<'a>(&'a [f32], &'a [[f32; SIDE]; SIDE]);

    impl Kernel for Rounded<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut x = [[simd.zero(); SIDE]; SIDE];
            for (place, numbers) in self.0.chunks_exact(16).enumerate() {
                x[place / SIDE][place % SIDE] = simd.load(numbers);
            }
            let mut left = x;
            let mut out = vec![0.0; SIDE * SIDE * 16];
            for turn in 0..SIDE {
                let i = ORDER[turn];
                let row = round(simd, turn, x[i], self.1, &mut left);
                for (j, rounded) in row.into_iter().enumerate() {
                    simd.store(&mut out[(i * SIDE + j) * 16..], rounded);
                }
            }
            out
        }
    }

    #[test]
    fn results_lose_less_than_by_rounding_each_number_alone() {
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for (name, shares, rows, other) in [
            ("weights", &WEIGHT, weight_rows(), input_rows()),
            ("inputs", &INPUT, input_rows(), weight_rows()),
        ] {
            let form = form(other);
            let (mut alone, mut together) = (0.0, 0.0);
            for _ in 0..20 {
                // A transformed tile of independent numbers in the first lane.
                let tile: Vec<f32> = (0..SIDE * SIDE).map(|_| random()).collect();
                let mut x = vec![0.0; SIDE * SIDE * 16];
                for (i, j) in (0..SIDE * SIDE).map(|n| (n / SIDE, n % SIDE)) {
                    let terms = (0..SIDE * SIDE).map(|n| {
                        let (k, l) = (n / SIDE, n % SIDE);
                        rows[i][k] * rows[j][l] * f64::from(tile[n])
                    });
                    x[(i * SIDE + j) * 16] = terms.sum::<f64>() as f32;
                }
                let rounded = isa::active().run(Rounded(&x, shares));
                let (mut apart, mut fed_back) = ([[0.0; SIDE]; SIDE], [[0.0; SIDE]; SIDE]);
                for place in 0..SIDE * SIDE {
                    let (exact, got) = (x[place * 16], rounded[place * 16]);
                    assert_eq!(half::bf16::from_f32(got).to_f32(), got);
                    let near = half::bf16::from_f32(exact).to_f32();
                    apart[place / SIDE][place % SIDE] = f64::from(near) - f64::from(exact);
                    fed_back[place / SIDE][place % SIDE] = f64::from(got) - f64::from(exact);
                }
                alone += loss(&form, &apart);
                together += loss(&form, &fed_back);
            }
            assert!(together < 0.5 * alone, "{name}: {together} of {alone}");
        }
    }

    /// What all orders leave, relative to the one in use.
    #[test]
    fn no_order_of_places_is_better() {
        for (rounded, other) in [(weight_rows(), input_rows()), (input_rows(), weight_rows())] {
            // In units of each place's typical rounding error.
            let size: Vec<f64> = rounded.iter().map(|row| dot(row, row).sqrt()).collect();
            let mut scaled = form(other);
            for (i, j) in (0..SIDE * SIDE).map(|n| (n / SIDE, n % SIDE)) {
                scaled[i][j] *= size[i] * size[j];
            }
            let left = |order: &[usize]| {
                let (mut form, mut sum) = (scaled, 0.0);
                for at in (0..SIDE).rev() {
                    let i = order[at];
                    sum += form[i][i];
                    for &k in &order[..at] {
                        for &l in &order[..at] {
                            form[k][l] -= form[k][i] / form[i][i] * form[i][l];
                        }
                    }
                }
                sum
            };
            let ours = left(&ORDER);
            for code in 0..SIDE.pow(SIDE as u32) {
                let order: Vec<usize> = (0..SIDE as u32)
                    .map(|n| code / SIDE.pow(n) % SIDE)
                    .collect();
                if (0..SIDE).all(|place| order.contains(&place)) {
                    assert!(left(&order) > 0.999 * ours, "{order:?}");
                }
            }
        }
    }
}
