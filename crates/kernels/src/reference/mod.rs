//! The kernels as plain loops: oracle of the tests, fallback, documentation.
//!
//! Generic over [`Real`], so that the tests can run them in `f64`. The formulas stand here as in
//! the literature; nothing is blocked, fused or reordered.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod elementwise;
pub mod matmul;
pub mod norm;
pub mod optimizer;
pub mod resample;

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// `f32` or `f64`.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + Sum
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + SubAssign
    + Mul<Output = Self>
    + MulAssign
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// −∞
    const NEG_INFINITY: Self;
    /// The nearest value.
    fn from_f64(x: f64) -> Self;
    /// The same value.
    fn to_f64(self) -> f64;
    /// eˣ
    fn exp(self) -> Self;
    /// ln x
    fn ln(self) -> Self;
    /// √x
    fn sqrt(self) -> Self;
    /// tanh x
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// xⁿ
    fn powi(self, n: i32) -> Self;
    /// |x|
    fn abs(self) -> Self;
    /// The larger; the other one when one is NaN.
    fn max(self, other: Self) -> Self;

    /// The value nearest to an integer.
    fn from_usize(n: usize) -> Self {
        Self::from_f64(n as f64)
    }
}

macro_rules! real {
    ($type:ty, $erf:path) => {
        impl Real for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = <$type>::NEG_INFINITY;
            fn from_f64(x: f64) -> Self {
                x as $type
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn exp(self) -> Self {
                <$type>::exp(self)
            }
            fn ln(self) -> Self {
                <$type>::ln(self)
            }
            fn sqrt(self) -> Self {
                <$type>::sqrt(self)
            }
            fn tanh(self) -> Self {
                <$type>::tanh(self)
            }
            fn erf(self) -> Self {
                $erf(self)
            }
            fn powi(self, n: i32) -> Self {
                <$type>::powi(self, n)
            }
            fn abs(self) -> Self {
                <$type>::abs(self)
            }
            fn max(self, other: Self) -> Self {
                <$type>::max(self, other)
            }
        }
    };
}

real!(f32, libm::erff);
real!(f64, libm::erf);
