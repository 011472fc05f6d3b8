//! The constants of Winograd's transforms, for vectors of channels.
//!
//! They follow from interpolating at points (Toom and Cook): 0, ±1 and ∞ for `F(2×2)`; 0, ±0.6, ±1.5 and
//! ∞ for `F(4×4)`, which in bf16 and f32 alike loses half as many bits as the usual ±1, ±2.
//!
//! A tile is transformed in its columns, then in its rows. These are two loops over memory, because the numbers between
//! them, and a tile's 36 themselves, are more than there are registers.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use crate::isa::Simd;

/// The inner points of `F(4×4)`.
pub(super) const P: f32 = 0.6;
/// Its outer points.
pub(super) const Q: f32 = 1.5;

/// `G: [N, 3]`: row `p` of a point is `[1, p, p²] / Π (p − q)` over the other points `q`.
pub(super) fn weight_matrix<const N: usize>() -> [[f32; 3]; N] {
    let points: &[f64] = match N {
        4 => &[0.0, 1.0, -1.0],
        6 => &[0.0, P as f64, -P as f64, Q as f64, -Q as f64],
        _ => unreachable!("tiles have 4 or 6 places a side"),
    };
    let mut g = [[0.0; 3]; N];
    for (i, &p) in points.iter().enumerate() {
        let others = points.iter().enumerate().filter(|&(j, _)| j != i);
        let scale: f64 = others.map(|(_, q)| p - q).product();
        g[i] = [1.0 / scale, p / scale, p * p / scale].map(|x| x as f32);
    }
    g[N - 1] = [0.0, 0.0, 1.0];
    g
}

/// `Bᵀ d`.
#[inline(always)]
pub(super) fn input<S: Simd, const N: usize>(simd: S, d: [S::Vector; N]) -> [S::Vector; N] {
    let mut t = d;
    if N == 4 {
        t[0] = simd.sub(d[2], d[0]);
        t[1] = simd.add(d[2], d[1]);
        t[2] = simd.sub(d[2], d[1]);
        t[3] = simd.sub(d[3], d[1]);
    } else {
        let (pp, qq) = (P * P, Q * Q);
        let times = |a: f32, x, y| simd.mul_add(simd.splat(a), x, y);
        let (even_p, odd_p) = (times(-qq, d[2], d[4]), times(-qq, d[1], d[3]));
        let (even_q, odd_q) = (times(-pp, d[2], d[4]), times(-pp, d[1], d[3]));
        t[0] = times(pp * qq, d[0], times(-pp - qq, d[2], d[4]));
        t[1] = times(P, odd_p, even_p);
        t[2] = times(-P, odd_p, even_p);
        t[3] = times(Q, odd_q, even_q);
        t[4] = times(-Q, odd_q, even_q);
        t[5] = times(pp * qq, d[1], times(-pp - qq, d[3], d[5]));
    }
    t
}

/// `Aᵀ m`.
#[inline(always)]
pub(super) fn output<S: Simd, const M: usize, const N: usize>(
    simd: S,
    m: [S::Vector; N],
) -> [S::Vector; M] {
    let mut y = [m[0]; M];
    let (sum, difference) = (simd.add(m[1], m[2]), simd.sub(m[1], m[2]));
    if N == 4 {
        y[0] = simd.add(m[0], sum);
        y[1] = simd.add(difference, m[3]);
    } else {
        let (sum_q, difference_q) = (simd.add(m[3], m[4]), simd.sub(m[3], m[4]));
        let power = |p: f32, x, y| simd.mul_add(simd.splat(p), x, y);
        let scaled = |q: f32, x| simd.mul(simd.splat(q), x);
        y[0] = simd.add(m[0], simd.add(sum, sum_q));
        y[1] = power(P, difference, scaled(Q, difference_q));
        y[2] = power(P * P, sum, scaled(Q * Q, sum_q));
        y[3] = power(P * P * P, difference, power(Q * Q * Q, difference_q, m[5]));
    }
    y
}

/// `A y`, the adjoint of [`output`].
#[inline(always)]
pub(super) fn output_adjoint<S: Simd, const M: usize, const N: usize>(
    simd: S,
    y: [S::Vector; M],
) -> [S::Vector; N] {
    let mut m = [y[0]; N];
    m[N - 1] = y[M - 1];
    if N == 4 {
        m[1] = simd.add(y[0], y[1]);
        m[2] = simd.sub(y[0], y[1]);
    } else {
        for (i, p) in [(1, P), (3, Q)] {
            let even = simd.mul_add(simd.splat(p * p), y[2], y[0]);
            let odd = simd.mul(simd.splat(p), simd.mul_add(simd.splat(p * p), y[3], y[1]));
            m[i] = simd.add(even, odd);
            m[i + 1] = simd.sub(even, odd);
        }
    }
    m
}

/// `G g` for a matrix `G: [N, 3]`.
#[inline(always)]
pub(super) fn weight<S: Simd, const N: usize>(
    simd: S,
    matrix: &[[f32; 3]; N],
    g: [S::Vector; 3],
) -> [S::Vector; N] {
    let mut u = [g[0]; N];
    for i in 0..N {
        let [a, b, c] = matrix[i].map(|x| simd.splat(x));
        u[i] = simd.mul_add(a, g[0], simd.mul_add(b, g[1], simd.mul(c, g[2])));
    }
    u
}

/// `Gᵀ u`, the adjoint of [`weight`].
#[inline(always)]
pub(super) fn weight_adjoint<S: Simd, const N: usize>(
    simd: S,
    matrix: &[[f32; 3]; N],
    u: [S::Vector; N],
) -> [S::Vector; 3] {
    let mut g = [simd.zero(); 3];
    for i in 0..N {
        for j in 0..3 {
            g[j] = simd.mul_add(simd.splat(matrix[i][j]), u[i], g[j]);
        }
    }
    g
}

/// `Bᵀ d` of `lanes` channels from `channel` on. What `next` names is asked for: the tiles' 36 streams are too many for
/// the CPU's own prefetchers. A tile's first `N - M` columns are the last ones of the tile before it.
///
/// # Safety
/// The `sources` are valid for reading these channels.
#[inline(always)]
pub(super) unsafe fn input_columns<S: Simd, const M: usize, const N: usize>(
    simd: S,
    (sources, next): (&[[*const f32; N]; N], &[[*const f32; N]; N]),
    channel: usize,
    lanes: usize,
    half: &mut [[S::Vector; N]; N],
) {
    for j in 0..N {
        let mut d = [simd.zero(); N];
        for i in 0..N {
            if j >= N - M {
                simd.prefetch(next[i][j].wrapping_add(channel));
            }
            // SAFETY: by this function's contract.
            d[i] = unsafe { load(simd, sources[i][j].add(channel), lanes) };
        }
        let t = input::<S, N>(simd, d);
        for i in 0..N {
            half[i][j] = t[i];
        }
    }
}

/// `lanes` numbers from `from` on.
///
/// # Safety
/// They can be read.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(simd: S, from: *const f32, lanes: usize) -> S::Vector {
    // SAFETY: by this function's contract.
    unsafe {
        match lanes == S::LANES {
            true => simd.load_raw(from),
            false => simd.load_partial_raw(from, lanes),
        }
    }
}
