//! Eight lanes in plain Rust, which the compiler maps to what the compile target has.

use super::{Kernel, Simd};

/// Lanes per vector: a cache line holds two, and 8 maps to one AVX or two SSE/NEON registers.
pub const LANES: usize = 8;

/// The portable vectors; every CPU has them.
#[derive(Clone, Copy)]
pub struct Vectors(());

impl Vectors {
    /// The proof is trivial.
    #[inline(always)]
    pub fn new() -> Self {
        Vectors(())
    }
}

impl Default for Vectors {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `kernel` as a function of its own.
#[inline(never)]
pub fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Vectors::new())
}

#[inline(always)]
fn map(a: [f32; LANES], f: impl Fn(f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Vectors {
    const LANES: usize = LANES;
    type Vector = [f32; LANES];
    // 6 × 8 sums, 8 columns and a broadcast in SSE2's sixteen registers of four lanes.
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        run(kernel)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::Vector {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_raw(self, from: *const f32) -> Self::Vector {
        // SAFETY: the caller vouches for `LANES` numbers.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_raw(self, to: *mut f32, x: Self::Vector) {
        // SAFETY: the caller vouches for `LANES` numbers.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_partial_raw(self, from: *const f32, count: usize) -> Self::Vector {
        debug_assert!(count <= LANES);
        // SAFETY: only the `count` numbers that the caller vouches for are read.
        std::array::from_fn(|i| {
            if i < count {
                unsafe { from.add(i).read() }
            } else {
                0.0
            }
        })
    }
    #[inline(always)]
    unsafe fn store_partial_raw(self, to: *mut f32, x: Self::Vector, count: usize) {
        debug_assert!(count <= LANES);
        for (i, value) in x.into_iter().enumerate().take(count) {
            // SAFETY: only the `count` numbers that the caller vouches for are written.
            unsafe { to.add(i).write(value) }
        }
    }
    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // `f32::mul_add` would be a library call where the target has no FMA.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::Vector) -> Self::Vector {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: Self::Vector) -> Self::Vector {
        map(a, f32::abs)
    }
    #[inline(always)]
    fn copysign(self, a: Self::Vector, sign: Self::Vector) -> Self::Vector {
        zip(a, sign, f32::copysign)
    }
    #[inline(always)]
    fn round(self, a: Self::Vector) -> Self::Vector {
        // Adding and taking away 1.5·2²³ rounds to an integer for |a| < 2²²; larger ones have no
        // fraction worth keeping apart from those below 2²³, which the library call handles.
        map(a, |x| {
            const MAGIC: f32 = 12_582_912.0;
            if x.abs() < 4_194_304.0 {
                (x + MAGIC) - MAGIC
            } else {
                x.round_ties_even()
            }
        })
    }
    #[inline(always)]
    fn exp2_integer(self, n: Self::Vector) -> Self::Vector {
        map(n, |n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn add_exponent(self, x: Self::Vector, bits: Self::Vector) -> Self::Vector {
        std::array::from_fn(|i| {
            f32::from_bits(x[i].to_bits().wrapping_add(bits[i].to_bits() << 23))
        })
    }
    #[inline(always)]
    fn select_less(
        self,
        a: Self::Vector,
        b: Self::Vector,
        yes: Self::Vector,
        no: Self::Vector,
    ) -> Self::Vector {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn widen_low(self, pairs: Self::Vector) -> Self::Vector {
        map(pairs, |x| f32::from_bits(x.to_bits() << 16))
    }
    #[inline(always)]
    fn widen_high(self, pairs: Self::Vector) -> Self::Vector {
        map(pairs, |x| f32::from_bits(x.to_bits() & 0xffff_0000))
    }
    #[inline(always)]
    fn reduce_add(self, a: Self::Vector) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::Vector) -> f32 {
        a.into_iter()
            .fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }
}
