//! Elementary functions on whole vectors, to f32 accuracy.

use crate::isa::Simd;
use std::f32::consts::{LN_2, LOG2_E};

/// `c[0] + c[1]·x + c[2]·x² + …`
#[inline(always)]
pub(crate) fn polynomial<S: Simd>(simd: S, x: S::Vector, coefficients: &[f32]) -> S::Vector {
    let mut sum = simd.splat(coefficients[coefficients.len() - 1]);
    for &c in coefficients[..coefficients.len() - 1].iter().rev() {
        sum = simd.mul_add(sum, x, simd.splat(c));
    }
    sum
}

/// eˣ within 2 ulp; infinite from 88.73 on, subnormal below −87.3, zero below −104.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // x = n·ln 2 + r with |r| ≤ ln 2 / 2. ln 2 is split so that n times its upper part is exact.
    const LN2_UPPER: f32 = 0.693_359_4;
    const LN2_LOWER: f32 = -2.121_944_4e-4;
    // Least largest relative error of (eʳ − 1 − r)/r² on that interval: 3.3e-9 of eʳ.
    const COEFFICIENTS: [f32; 7] = [
        1.0,
        1.0,
        0.499_999_94,
        0.166_665_15,
        0.041_668_456,
        0.008_369_42,
        0.001_381_314_2,
    ];
    // Where the result is surely 0 or ∞; NaN comes through, because min and max return their second
    // operand.
    let x = simd.max(simd.splat(-110.0), simd.min(simd.splat(90.0), x));
    let n = simd.round(simd.mul(x, simd.splat(LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN2_UPPER), x);
    let r = simd.mul_add(n, simd.splat(-LN2_LOWER), r);
    // n runs from −159 to 130, more than one exponent holds, so it is applied in two halves.
    let half = simd.round(simd.mul(n, simd.splat(0.5)));
    let p = simd.mul(polynomial(simd, r, &COEFFICIENTS), simd.exp2_integer(half));
    simd.mul(p, simd.exp2_integer(simd.sub(n, half)))
}

/// 2ˣ within 2 ulp for x in [−126, 127]; smaller ones give 2⁻¹²⁶, which a softmax, whose largest
/// term is about 1, cannot tell from zero. Larger ones are the caller's error.
#[inline(always)]
pub(crate) fn exp2_flushed<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // Least largest relative error of (2ʳ − 1 − r·ln 2)/r² on ±½: 1.05e-7 of 2ʳ.
    const COEFFICIENTS: [f32; 6] = [
        1.0,
        LN_2,
        0.240_222_81,
        0.055_505_6,
        0.009_669_71,
        0.001_330_026_8,
    ];
    // Added and taken away again, it rounds to an integer, which stays in the lowest bits of the sum: additions, where
    // the multipliers have the polynomial to do.
    const INTEGERS: f32 = 12_582_912.0; // 1.5·2²³
    let x = simd.max(simd.splat(-126.0), x);
    let shifted = simd.add(x, simd.splat(INTEGERS));
    let r = simd.sub(x, simd.sub(shifted, simd.splat(INTEGERS)));
    // A product, so that a NaN in the polynomial stays one.
    let power = simd.add_exponent(simd.splat(1.0), shifted);
    simd.mul(polynomial(simd, r, &COEFFICIENTS), power)
}

/// The logistic function, 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let one = simd.splat(1.0);
    simd.div(one, simd.add(one, exp(simd, simd.sub(simd.zero(), x))))
}

/// x · sigmoid(x)
#[inline(always)]
pub(crate) fn silu<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let one = simd.splat(1.0);
    simd.div(x, simd.add(one, exp(simd, simd.sub(simd.zero(), x))))
}

/// The derivative of x · sigmoid(k·x).
#[inline(always)]
pub(crate) fn silu_derivative<S: Simd>(simd: S, x: S::Vector, k: f32) -> S::Vector {
    let (one, kx) = (simd.splat(1.0), simd.mul(x, simd.splat(k)));
    let s = sigmoid(simd, kx);
    // s·(1 + kx·(1 − s))
    simd.mul(s, simd.mul_add(kx, simd.sub(one, s), one))
}

/// The normal distribution's Φ(x), cumulative, and e^(−x²/2), which is √(2π) times its density.
#[inline(always)]
pub(crate) fn normal<S: Simd>(simd: S, x: S::Vector) -> (S::Vector, S::Vector) {
    // Φ(−a) = e^(−a²/2)·t·P(t) with t = 1/(1 + 0.35·a), the form of Abramowitz & Stegun 7.1.26;
    // coefficients of least largest relative error for 0 ≤ a ≤ 13: 3.2e-8. Both tails come from
    // there, so that the lower one keeps its relative accuracy.
    const SLOPE: f32 = 0.35;
    const COEFFICIENTS: [f32; 9] = [
        0.139_621_82,
        0.139_854_76,
        0.119_882_68,
        0.105_317_175,
        -0.022_671_256,
        0.158_552_7,
        -0.255_182_27,
        0.143_719_45,
        -0.029_095_044,
    ];
    let one = simd.splat(1.0);
    let a = simd.abs(x);
    let bell = exp(simd, simd.mul(simd.mul(x, x), simd.splat(-0.5)));
    let t = simd.div(one, simd.mul_add(a, simd.splat(SLOPE), one));
    let tail = simd.mul(simd.mul(bell, t), polynomial(simd, t, &COEFFICIENTS));
    let cumulative = simd.select_less(x, simd.zero(), tail, simd.sub(one, tail));
    (cumulative, bell)
}

/// x · Φ(x), the exact GELU.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    simd.mul(x, normal(simd, x).0)
}

/// GELU and its derivative, Φ(x) + x·φ(x).
#[inline(always)]
pub(crate) fn gelu_with_derivative<S: Simd>(simd: S, x: S::Vector) -> (S::Vector, S::Vector) {
    const DENSITY: f32 = 0.398_942_3; // 1/√(2π)
    let (cumulative, bell) = normal(simd, x);
    let slope = simd.mul_add(simd.mul(x, bell), simd.splat(DENSITY), cumulative);
    (simd.mul(x, cumulative), slope)
}

#[cfg(test)]
mod tests {
    use crate::isa::{Isa, Kernel, Simd};

    struct Exp2<'a>(&'a [f32]);

    impl Kernel for Exp2<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut out = vec![f32::NAN; self.0.len()];
            for (out, x) in out.chunks_mut(S::LANES).zip(self.0.chunks(S::LANES)) {
                simd.store_partial(out, simd.exp2(simd.load_partial(x)));
            }
            out
        }
    }

    #[test]
    fn exp2_is_exact_to_two_epsilons() {
        let mut x: Vec<f32> = (0..40_001)
            .map(|i| -126.0 + 253.0 * i as f32 / 40_000.0)
            .collect();
        x.extend((0..10_000).map(|i| -2.0 + 4.0 * i as f32 / 10_000.0));
        for isa in Isa::available() {
            for (&x, got) in x.iter().zip(isa.run(Exp2(&x))) {
                let exact = f64::from(x).exp2();
                let error = (f64::from(got) / exact - 1.0).abs();
                assert!(
                    error < 2.0 * f64::from(f32::EPSILON),
                    "{isa}: 2^{x} = {got}"
                );
            }
            let [low, far, none] = isa.run(Exp2(&[-200.0, -1e30, f32::NAN]))[..] else {
                unreachable!()
            };
            assert!(low < 1e-37 && far < 1e-37 && none.is_nan(), "{isa}");
        }
    }
}
