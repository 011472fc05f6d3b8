//! Which instruction set the kernels use: detected once, three modules with the same names in each.
//!
//! A kernel is written once, as a [`Kernel`] whose body is generic over [`Simd`]; [`Isa::run`]
//! instantiates it with the vectors of [`portable`], [`avx2`] or [`avx512`] inside a function that
//! has these CPU features enabled. Mark `Kernel::run` and the helpers it calls `#[inline(always)]`,
//! otherwise they are compiled without the features.
//!
//! ```
//! use velatura_kernels::isa::{self, Kernel, Simd};
//!
//! struct Double<'a>(&'a mut [f32]);
//! impl Kernel for Double<'_> {
//!     type Output = ();
//!     #[inline(always)]
//!     fn run<S: Simd>(self, simd: S) {
//!         let mut chunks = self.0.chunks_exact_mut(S::LANES);
//!         for chunk in &mut chunks {
//!             let x = simd.load(chunk);
//!             simd.store(chunk, simd.add(x, x));
//!         }
//!         let tail = chunks.into_remainder();
//!         let x = simd.load_partial(tail);
//!         simd.store_partial(tail, simd.add(x, x));
//!     }
//! }
//! let mut x = [1.0, 2.0, 3.0];
//! isa::active().run(Double(&mut x));
//! assert_eq!(x, [2.0, 4.0, 6.0]);
//! ```

pub(crate) mod amx;
pub mod avx2;
pub mod avx512;
pub mod portable;

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What the compile target has; 8 lanes that the compiler maps to whatever there is.
    Portable,
    /// AVX2 and FMA: 8 lanes, 16 registers.
    Avx2,
    /// AVX-512 F, BW, DQ, VL: 16 lanes, 32 registers.
    Avx512,
    /// AVX-512, and the matrix unit for products of bf16 numbers.
    Amx,
}

impl Isa {
    /// All instruction sets, weakest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Amx];

    /// The name that `VELATURA_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    /// The instruction set called `name`.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        self <= detected()
    }

    /// The instruction sets of this machine, weakest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Like [`run`](Isa::run), but with the bf16 dot product in [`Simd::dot_bf16`] and
    /// [`Simd::store_bf16_raw`].
    ///
    /// # Panics
    /// When the machine lacks it: call only where [`has_bf16_dot`] says so.
    #[inline]
    pub(crate) fn run_bf16<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(
            self >= Isa::Avx512 && machine_has_bf16_dot(),
            "no bf16 dot product in {self}"
        );
        // SAFETY: availability was asserted above.
        #[cfg(target_arch = "x86_64")]
        return unsafe { avx512::run_bf16(kernel) };
        #[cfg(not(target_arch = "x86_64"))]
        self.run(kernel)
    }

    /// Whether products of bf16 numbers go to the matrix unit.
    pub(crate) fn has_tiles(self) -> bool {
        self == Isa::Amx
    }

    /// Whether bf16 weights make products faster, not only smaller: on the matrix unit or with a
    /// fast dot product.
    pub fn has_fast_bf16(self) -> bool {
        self.has_tiles() || self.has_bf16_dot()
    }

    /// Whether this is AVX-512 on a CPU with a fast bf16 dot product (`vdpbf16ps`), or inside
    /// [`with_bf16_dot`] on one that has it at all.
    pub fn has_bf16_dot(self) -> bool {
        self == Isa::Avx512 && BF16_DOT.get().unwrap_or_else(fast_bf16_dot)
    }

    /// Runs `kernel` compiled for this instruction set.
    ///
    /// # Panics
    /// When the machine lacks it.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(self.is_available(), "this machine has no {self}");
        match self {
            Isa::Portable => kernel.run(portable::Vectors::new()),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: availability was asserted above.
            Isa::Avx2 => unsafe { avx2::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: availability was asserted above.
            Isa::Avx512 | Isa::Amx => unsafe { avx512::run(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => kernel.run(portable::Vectors::new()),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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

    /// Whether [`dot_bf16`](Simd::dot_bf16) is one instruction.
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
    /// Asks for the cache line at `address` (which need not be valid) to come into the second-level
    /// cache.
    #[inline(always)]
    fn prefetch(self, _address: *const f32) {}
    /// Like [`prefetch`](Simd::prefetch), into the first-level cache.
    #[inline(always)]
    fn prefetch_near(self, _address: *const f32) {}
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

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
    static BF16_DOT: Cell<Option<bool>> = const { Cell::new(None) };
}

/// The instruction set in force on this thread: the one of the enclosing [`with`], else the one
/// named by the environment's `VELATURA_ISA` (`portable`, `avx2`, `avx512`, `amx`), else the machine's
/// best. A name that is unknown or that the machine lacks is ignored.
pub fn active() -> Isa {
    static DEFAULT: OnceLock<Isa> = OnceLock::new();
    FORCED.get().unwrap_or_else(|| {
        *DEFAULT.get_or_init(|| {
            let named = std::env::var("VELATURA_ISA")
                .ok()
                .and_then(|n| Isa::from_name(&n));
            named
                .filter(|isa| isa.is_available())
                .unwrap_or_else(detected)
        })
    })
}

/// Runs `f` with `isa` in force on this thread and in the tasks that it hands to [`crate::pool`].
///
/// # Panics
/// When the machine lacks `isa`.
pub fn with<T>(isa: Isa, f: impl FnOnce() -> T) -> T {
    assert!(isa.is_available(), "this machine has no {isa}");
    with_forced(Some(isa), f)
}

/// Runs `f` with bf16 products on this thread forced onto the dot product or away from it; returns
/// `None` without running it when the machine has no such instruction and `on` asks for it.
pub fn with_bf16_dot<T>(on: bool, f: impl FnOnce() -> T) -> Option<T> {
    struct Restore(Option<bool>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BF16_DOT.set(self.0);
        }
    }
    if on && !machine_has_bf16_dot() {
        return None;
    }
    let _restore = Restore(BF16_DOT.replace(Some(on)));
    Some(f())
}

/// What [`with`] has set on this thread; the pool hands it on to its workers.
pub(crate) fn forced() -> Option<Isa> {
    FORCED.get()
}

pub(crate) fn with_forced<T>(isa: Option<Isa>, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Isa>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(isa));
    f()
}

/// Whether [`active`] [gains from bf16 weights](Isa::has_fast_bf16).
pub fn has_fast_bf16() -> bool {
    active().has_fast_bf16()
}

/// AMD's `vdpbf16ps` multiplies two pairs in the time of one f32 multiply-add. Intel's (measured on
/// the fifth Xeon generation) takes more than four times as long, so that widening the weights and
/// multiplying in f32 is faster there, and more exact.
#[cfg(target_arch = "x86_64")]
fn fast_bf16_dot() -> bool {
    static DETECTED: OnceLock<bool> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        let vendor = std::arch::x86_64::__cpuid(0);
        let amd = vendor.ebx.to_le_bytes() == *b"Auth";
        machine_has_bf16_dot() && amd
    })
}

#[cfg(target_arch = "x86_64")]
fn machine_has_bf16_dot() -> bool {
    detected() >= Isa::Avx512 && is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn machine_has_bf16_dot() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn fast_bf16_dot() -> bool {
    false
}

/// The best instruction set of this machine.
#[cfg(target_arch = "x86_64")]
pub fn detected() -> Isa {
    static DETECTED: OnceLock<Isa> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx512, avx2) {
            (true, _) if amx::is_available() => Isa::Amx,
            (true, _) => Isa::Avx512,
            (false, true) => Isa::Avx2,
            (false, false) => Isa::Portable,
        }
    })
}

/// The best instruction set of this machine.
#[cfg(not(target_arch = "x86_64"))]
pub fn detected() -> Isa {
    Isa::Portable
}
