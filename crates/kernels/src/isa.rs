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
mod detect;
pub mod portable;
mod simd;

pub use detect::detected;
pub use simd::{Kernel, Simd};

use detect::{fast_bf16_dot, machine_has_bf16_dot};

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
        assert!(self.has_dot_products(), "no bf16 dot product in {self}");
        // SAFETY: availability was asserted above.
        #[cfg(target_arch = "x86_64")]
        return unsafe { avx512::run_bf16(kernel) };
        #[cfg(not(target_arch = "x86_64"))]
        self.run(kernel)
    }

    /// Whether [`Isa::run_bf16`] can be called.
    pub(crate) fn has_dot_products(self) -> bool {
        self >= Isa::Avx512 && machine_has_bf16_dot()
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
