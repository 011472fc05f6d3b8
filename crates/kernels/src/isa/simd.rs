//! What a kernel is written in: vectors of some number of lanes.

use crate::math;

/// A computation written once for every instruction set; see the module's example.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The body. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The vectors of one instruction set. A value is the proof that the CPU has it, which is why the
/// arithmetic here is safe.
pub trait Simd: Copy + Send + Sync + 'static {
    /// `f32` lanes per vector.
    const LANES: usize;
    /// A vector of [`LANES`](Simd::LANES) numbers.
    type Vector: Copy;

    /// Rows of the matrix product's micro-kernel.
    const TILE_ROWS: usize;
    /// Vectors per row of the matrix product's micro-kernel: `TILE_ROWS × TILE_VECTORS` sums, one
    /// row of vectors and one broadcast fill the register file.
    const TILE_VECTORS: usize;

    /// Whether [`dot_bf16`](Simd::dot_bf16), and with it [`dot_i8`](Simd::dot_i8), is one instruction.
    const HAS_BF16_DOT: bool = false;

    /// Runs `kernel` as a function of its own, with this instruction set's features enabled: an
    /// inner loop compiled apart from the code around it.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::Vector;
    /// Reads `LANES` numbers.
    ///
    /// # Safety
    /// `from` is valid for reading `LANES` numbers; no alignment is needed.
    unsafe fn load_raw(self, from: *const f32) -> Self::Vector;
    /// Writes `LANES` numbers.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` numbers; no alignment is needed.
    unsafe fn store_raw(self, to: *mut f32, x: Self::Vector);
    /// Reads `count <= LANES` numbers and fills the other lanes with zero.
    ///
    /// # Safety
    /// `from` is valid for reading `count` numbers and `count <= LANES`.
    unsafe fn load_partial_raw(self, from: *const f32, count: usize) -> Self::Vector;
    /// Writes the first `count <= LANES` lanes.
    ///
    /// # Safety
    /// `to` is valid for writing `count` numbers and `count <= LANES`.
    unsafe fn store_partial_raw(self, to: *mut f32, x: Self::Vector, count: usize);

    /// `a + b`
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once where the instruction set has it.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The larger; the second operand when either is NaN.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The smaller; the second operand when either is NaN.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `√a`
    fn sqrt(self, a: Self::Vector) -> Self::Vector;
    /// `|a|`
    fn abs(self, a: Self::Vector) -> Self::Vector;
    /// `|a|` with the sign of `sign`.
    fn copysign(self, a: Self::Vector, sign: Self::Vector) -> Self::Vector;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::Vector) -> Self::Vector;
    /// `2^n` for integral `n` in `-126..=127`; other values give nonsense.
    fn exp2_integer(self, n: Self::Vector) -> Self::Vector;
    /// `x · 2^n`, where the lowest bits of `bits` hold the integer `n`; by adding to the exponent, which must not
    /// leave its range.
    fn add_exponent(self, x: Self::Vector, bits: Self::Vector) -> Self::Vector;
    /// 2ˣ for `x` in −126..=127, exact to two epsilons of itself; next to nothing below, where a softmax could not tell it from zero.
    #[inline(always)]
    fn exp2(self, x: Self::Vector) -> Self::Vector {
        math::exp2_flushed(self, x)
    }
    /// Per lane `if a < b { yes } else { no }` (`no` when either is NaN).
    fn select_less(
        self,
        a: Self::Vector,
        b: Self::Vector,
        yes: Self::Vector,
        no: Self::Vector,
    ) -> Self::Vector;
    /// The bf16 numbers in the lower halves of the lanes' bits, as f32.
    fn widen_low(self, pairs: Self::Vector) -> Self::Vector;
    /// The bf16 numbers in the upper halves of the lanes' bits, as f32.
    fn widen_high(self, pairs: Self::Vector) -> Self::Vector;
    /// `sum + low(a)·low(b) + high(a)·high(b)` of bf16 pairs.
    #[inline(always)]
    fn dot_bf16(self, sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let low = self.mul_add(self.widen_low(a), self.widen_low(b), sum);
        self.mul_add(self.widen_high(a), self.widen_high(b), low)
    }
    /// Writes `LANES` numbers rounded to bf16.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` bf16 numbers; no alignment is needed.
    #[inline(always)]
    unsafe fn store_bf16_raw(self, to: *mut u16, x: Self::Vector) {
        let mut numbers = [0.0; 16];
        debug_assert!(Self::LANES <= numbers.len());
        self.store(&mut numbers, x);
        for (i, &number) in numbers[..Self::LANES].iter().enumerate() {
            // SAFETY: the caller vouches for `LANES` numbers.
            unsafe { to.add(i).write(half::bf16::from_f32(number).to_bits()) }
        }
    }
    /// The 32-bit integers in the lanes' bits of `sum`, plus the products of the four 8-bit ones in those of `a` (without
    /// a sign) and `b` (with one).
    #[inline(always)]
    fn dot_i8(self, sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let ([mut sums, mut x, mut y], lanes) = ([[0.0; 16]; 3], Self::LANES);
        self.store(&mut sums, sum);
        self.store(&mut x, a);
        self.store(&mut y, b);
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(&y)).take(lanes) {
            let factors = x
                .to_bits()
                .to_le_bytes()
                .into_iter()
                .zip(y.to_bits().to_le_bytes());
            let products = factors.map(|(x, y)| i32::from(x) * i32::from(y as i8));
            *sum = f32::from_bits((sum.to_bits() as i32 + products.sum::<i32>()) as u32);
        }
        self.load(&sums)
    }
    /// The differences of the 32-bit integers in the lanes' bits, as f32.
    #[inline(always)]
    fn integer_difference(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let (mut x, mut y) = ([0.0; 16], [0.0; 16]);
        self.store(&mut x, a);
        self.store(&mut y, b);
        for (x, y) in x.iter_mut().zip(&y) {
            *x = (x.to_bits() as i32).wrapping_sub(y.to_bits() as i32) as f32;
        }
        self.load(&x)
    }
    /// Writes `LANES` numbers of -127 to 127, rounded to integers, plus 128.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` bytes.
    #[inline(always)]
    unsafe fn store_bytes_raw(self, to: *mut u8, x: Self::Vector) {
        let mut numbers = [0.0; 16];
        self.store(&mut numbers, self.round(x));
        for (i, &number) in numbers[..Self::LANES].iter().enumerate() {
            // SAFETY: the caller vouches for `LANES` bytes.
            unsafe { to.add(i).write((number as i32 + 128) as u8) }
        }
    }
    /// Asks for the cache line at `address` (which need not be valid) to come into the second-level
    /// cache.
    #[inline(always)]
    fn prefetch(self, _address: *const f32) {}
    /// Like [`prefetch`](Simd::prefetch), into the first-level cache.
    #[inline(always)]
    fn prefetch_near(self, _address: *const f32) {}
    /// Like [`prefetch_near`](Simd::prefetch_near), for a line that will be written.
    #[inline(always)]
    fn prefetch_to_write(self, _address: *mut f32) {}
    /// Pairs of bf16 numbers: `low` rounded in the lower halves of the lanes' bits, `high` in the
    /// upper ones.
    #[inline(always)]
    fn pairs_bf16(self, low: Self::Vector, high: Self::Vector) -> Self::Vector {
        let (mut a, mut b) = ([0.0; 16], [0.0; 16]);
        self.store(&mut a, low);
        self.store(&mut b, high);
        for (a, &b) in a.iter_mut().zip(&b) {
            let bits = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
            *a = f32::from_bits(bits(*a) | bits(b) << 16);
        }
        self.load(&a)
    }
    /// Turns 16 rows of 16 numbers into columns: number `c` of the row at `from + r · stride` goes to
    /// `to[c · to_stride + r]`.
    ///
    /// # Safety
    /// Both are valid for that, and do not overlap.
    #[inline(always)]
    unsafe fn transpose_raw(
        self,
        (from, stride): (*const f32, usize),
        (to, to_stride): (*mut f32, usize),
    ) {
        for r in 0..16 {
            for c in 0..16 {
                // SAFETY: by this function's contract.
                unsafe {
                    to.add(c * to_stride + r)
                        .write(from.add(r * stride + c).read())
                }
            }
        }
    }
    /// Turns 32 rows of 32 bf16 numbers into columns: number `c` of the row at `from + r · stride` goes to
    /// `to[c · to_stride + r]`.
    ///
    /// # Safety
    /// `from` is valid for reading 32 numbers at each of 32 strides, `to` for writing as many at its own;
    /// the two do not overlap.
    #[inline(always)]
    unsafe fn transpose_bf16(
        self,
        (from, stride): (*const u16, usize),
        (to, to_stride): (*mut u16, usize),
    ) {
        for row in 0..32 {
            for column in 0..32 {
                // SAFETY: by this function's contract.
                unsafe {
                    let number = from.add(row * stride + column).read();
                    to.add(column * to_stride + row).write(number);
                }
            }
        }
    }
    /// The sum of the lanes.
    fn reduce_add(self, a: Self::Vector) -> f32;
    /// The largest lane.
    fn reduce_max(self, a: Self::Vector) -> f32;

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::Vector {
        self.splat(0.0)
    }
    /// The first `LANES` numbers of `from`.
    ///
    /// # Panics
    /// When `from` is shorter.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::Vector {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the length was checked.
        unsafe { self.load_raw(from.as_ptr()) }
    }
    /// Overwrites the first `LANES` numbers of `to`.
    ///
    /// # Panics
    /// When `to` is shorter.
    #[inline(always)]
    fn store(self, to: &mut [f32], x: Self::Vector) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the length was checked.
        unsafe { self.store_raw(to.as_mut_ptr(), x) }
    }
    /// Up to `LANES` numbers, zero in the other lanes.
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::Vector {
        // SAFETY: the count is bounded by both the slice and the vector.
        unsafe { self.load_partial_raw(from.as_ptr(), from.len().min(Self::LANES)) }
    }
    /// Overwrites up to `LANES` numbers.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32], x: Self::Vector) {
        // SAFETY: the count is bounded by both the slice and the vector.
        unsafe { self.store_partial_raw(to.as_mut_ptr(), x, to.len().min(Self::LANES)) }
    }
}
