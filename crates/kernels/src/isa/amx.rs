//! AMX: the matrix unit of Intel's server CPUs since Sapphire Rapids, for products of bf16 numbers.
//!
//! Eight tile registers of 16 rows × 64 bytes. `tdpbf16ps` adds to 16 × 16 f32 sums the product of
//! 16 rows of 32 bf16 numbers with 32 rows of 16 columns, in 16 cycles: 1024 operations per cycle,
//! sixteen times AVX-512's f32. Right-hand tiles hold pairs of rows, as [`PackedMatrix`] packs
//! bf16.
//!
//! The compiler has no stable intrinsics for it, so that [`Block::run`] is inline assembly.
//!
//! [`PackedMatrix`]: crate::gemm::PackedMatrix

/// Rows of a tile, and columns of a tile of sums.
pub const TILE: usize = 16;

/// bf16 numbers in a tile's row: the terms that one instruction adds to each sum.
pub const DEPTH: usize = 32;

/// Rows and columns of sums that [`Block::run`] keeps in registers at most: two by two tiles, so that
/// four loads feed four products, whose 64 cycles hide the loads' 32.
pub const BLOCK: usize = 2 * TILE;

/// 32 terms of a block's sums: where its numbers stand, in bytes from the operands' starts.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Step {
    /// From [`Block::left`].
    pub left: usize,
    /// From [`Block::right`].
    pub right: usize,
}

impl Step {
    /// The steps of `terms` terms (a multiple of 32) that stand one after the other on the left, and in
    /// pairs of rows `right_stride` pairs apart on the right.
    pub fn sequence(terms: usize, right_stride: usize) -> Vec<Step> {
        let step = |i: usize| Step {
            left: 2 * DEPTH * i,
            right: 4 * (DEPTH / 2) * right_stride * i,
        };
        (0..terms / DEPTH).map(step).collect()
    }
}

/// Up to 32 rows times up to 32 columns.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// bf16 numbers: row `r` of a step's 32 terms starts `r · left_stride` bytes on.
    pub left: *const u16,
    pub left_stride: usize,
    /// Pairs of bf16 numbers: pair `p` of a step's 16 starts `p · right_stride` bytes on.
    pub right: *const u32,
    pub right_stride: usize,
    /// The terms.
    pub steps: &'a [Step],
    /// `[32][32]`; what is outside the block's tiles is left alone.
    pub sums: *mut f32,
    /// Whether the sums start from what `sums` has, else from zero.
    pub accumulate: bool,
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod machine {
    use super::{BLOCK, Block, Step};
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    /// Whether the CPU has AMX with bf16 and the kernel lets this process use it.
    pub fn is_available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            // CPUID leaf 7: EDX bit 22 is AMX-BF16, bit 24 AMX-TILE.
            let features = __cpuid_count(7, 0).edx;
            let has = |bit: u32| features >> bit & 1 == 1;
            has(22) && has(24) && is_x86_feature_detected!("avx512bf16") && ask_permission()
        })
    }

    /// The tiles are 8 KiB of state per thread, which Linux saves only for processes that asked.
    fn ask_permission() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        // SAFETY: the call touches no memory of ours.
        let result = unsafe {
            libc::syscall(
                libc::SYS_arch_prctl,
                ARCH_REQ_XCOMP_PERM,
                XFEATURE_XTILEDATA,
            )
        };
        result == 0
    }

    /// `TILECFG`, Intel's manual, volume 1, table 18-1.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }

    /// All eight tiles at full size.
    static FULL: Shapes = Shapes {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// The tile registers in use by this thread, until dropped.
    pub struct Tiles(());

    impl Tiles {
        /// # Panics
        /// When the machine has none.
        pub fn configure() -> Tiles {
            assert!(is_available(), "this machine has no AMX");
            // SAFETY: the CPU has the instruction, and the shapes are valid.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &FULL, options(nostack, readonly)) };
            Tiles(())
        }
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // SAFETY: configured before.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    /// One loop over the steps; tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 columns.
    macro_rules! block {
        ($block:ident, load: [$($load:literal),*], zero: [$($zero:literal),*],
         step: [$($step:literal),*], store: [$($store:literal),*]) => {
            asm!(
                "mov {p:e}, 128",
                "test {accumulate:e}, {accumulate:e}",
                "jz 3f",
                $($load,)*
                "jmp 4f",
                "3:",
                $($zero,)*
                "4:",
                "test {count}, {count}",
                "jz 5f",
                "2:",
                "mov {p}, [{steps}]",
                "mov {q}, [{steps} + 8]",
                "add {p}, {left}",
                "add {q}, {right}",
                "tileloadd tmm6, [{q} + {right_stride} * 1]",
                "tileloadd tmm4, [{p} + {left_stride} * 1]",
                $($step,)*
                "add {steps}, 16",
                "dec {count}",
                "jnz 2b",
                "5:",
                "mov {p:e}, 128",
                $($store,)*
                p = out(reg) _,
                q = out(reg) _,
                steps = inout(reg) $block.steps.as_ptr() => _,
                count = inout(reg) $block.steps.len() => _,
                left = in(reg) $block.left,
                right = in(reg) $block.right,
                left_stride = in(reg) $block.left_stride,
                right_stride = in(reg) $block.right_stride,
                // Sixteen rows on.
                lower = in(reg) 16 * $block.left_stride,
                sums = in(reg) $block.sums,
                accumulate = in(reg) usize::from($block.accumulate),
                options(nostack),
            )
        };
    }

    impl Block<'_> {
        /// Multiplies, and leaves the sums of `rows × columns` tiles in `self.sums`.
        ///
        /// # Safety
        /// `left` and `right` are valid for reading full tiles at each step's places, `sums` for
        /// reading (when accumulating) and writing `[32][32]` numbers.
        #[inline(always)]
        pub unsafe fn run(&self, _: &Tiles, rows: usize, columns: usize) {
            const { assert!(BLOCK * size_of::<f32>() == 128 && size_of::<Step>() == 16) }
            // SAFETY: passed on; a `Tiles` is the proof that the registers are configured.
            unsafe {
                match (rows, columns) {
                    (1, 1) => block!(self,
                        load: ["tileloadd tmm0, [{sums} + {p} * 1]"],
                        zero: ["tilezero tmm0"],
                        step: ["tdpbf16ps tmm0, tmm4, tmm6", "/* {lower} */"],
                        store: ["tilestored [{sums} + {p} * 1], tmm0"]),
                    (1, _) => block!(self,
                        load: ["tileloadd tmm0, [{sums} + {p} * 1]",
                               "tileloadd tmm1, [{sums} + {p} * 1 + 64]"],
                        zero: ["tilezero tmm0", "tilezero tmm1"],
                        step: ["tileloadd tmm7, [{q} + {right_stride} * 1 + 64]",
                               "tdpbf16ps tmm0, tmm4, tmm6",
                               "tdpbf16ps tmm1, tmm4, tmm7", "/* {lower} */"],
                        store: ["tilestored [{sums} + {p} * 1], tmm0",
                                "tilestored [{sums} + {p} * 1 + 64], tmm1"]),
                    (_, 1) => block!(self,
                        load: ["tileloadd tmm0, [{sums} + {p} * 1]",
                               "tileloadd tmm2, [{sums} + {p} * 1 + 2048]"],
                        zero: ["tilezero tmm0", "tilezero tmm2"],
                        step: ["add {p}, {lower}",
                               "tileloadd tmm5, [{p} + {left_stride} * 1]",
                               "tdpbf16ps tmm0, tmm4, tmm6",
                               "tdpbf16ps tmm2, tmm5, tmm6"],
                        store: ["tilestored [{sums} + {p} * 1], tmm0",
                                "tilestored [{sums} + {p} * 1 + 2048], tmm2"]),
                    _ => block!(self,
                        load: ["tileloadd tmm0, [{sums} + {p} * 1]",
                               "tileloadd tmm1, [{sums} + {p} * 1 + 64]",
                               "tileloadd tmm2, [{sums} + {p} * 1 + 2048]",
                               "tileloadd tmm3, [{sums} + {p} * 1 + 2112]"],
                        zero: ["tilezero tmm0", "tilezero tmm1",
                               "tilezero tmm2", "tilezero tmm3"],
                        step: ["tileloadd tmm7, [{q} + {right_stride} * 1 + 64]",
                               "tdpbf16ps tmm0, tmm4, tmm6",
                               "add {p}, {lower}",
                               "tdpbf16ps tmm1, tmm4, tmm7",
                               "tileloadd tmm5, [{p} + {left_stride} * 1]",
                               "tdpbf16ps tmm2, tmm5, tmm6",
                               "tdpbf16ps tmm3, tmm5, tmm7"],
                        store: ["tilestored [{sums} + {p} * 1], tmm0",
                                "tilestored [{sums} + {p} * 1 + 64], tmm1",
                                "tilestored [{sums} + {p} * 1 + 2048], tmm2",
                                "tilestored [{sums} + {p} * 1 + 2112], tmm3"]),
                }
            }
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod machine {
    use super::Block;

    /// Whether the CPU has AMX with bf16 and the system lets this process use it: not here.
    pub fn is_available() -> bool {
        false
    }

    /// The tile registers in use by this thread.
    pub struct Tiles(());

    impl Tiles {
        /// # Panics
        /// Always: this machine has none.
        pub fn configure() -> Tiles {
            panic!("this machine has no AMX");
        }
    }

    impl Block<'_> {
        /// # Safety
        /// None needed: a `Tiles` does not exist here.
        pub unsafe fn run(&self, _: &Tiles, _rows: usize, _columns: usize) {}
    }
}

pub use machine::{Tiles, is_available};
