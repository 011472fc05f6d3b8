//! AVX-512 (F, BW, DQ, VL): sixteen lanes, masks for the tails.
#![cfg(target_arch = "x86_64")]

use super::{Kernel, Simd};
use std::arch::x86_64::*;
use std::mem::transmute;

/// Lanes per vector.
pub const LANES: usize = 16;

/// The vectors of AVX-512, with the dot products of bf16 and 8-bit numbers when `BF16`.
#[derive(Clone, Copy)]
pub struct Vectors<const BF16: bool>(());

impl<const BF16: bool> Vectors<BF16> {
    /// The proof that the CPU has AVX-512 F, BW, DQ and VL, and BF16 and VNNI when `BF16`.
    ///
    /// # Safety
    /// It has them.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Vectors(())
    }
}

/// Runs `kernel` with these features enabled.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: by this function's contract.
    kernel.run(unsafe { Vectors::<false>::new() })
}

/// Runs `kernel` with these features and the dot products of bf16 and 8-bit numbers enabled.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ, VL, BF16 and VNNI, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma")]
pub unsafe fn run_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: by this function's contract.
    kernel.run(unsafe { Vectors::<true>::new() })
}

/// Bits whose upper halves are `x` as bf16, to nearest, ties to even.
#[inline]
#[target_feature(enable = "avx512f")]
fn rounded_bits(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)))
}

/// `i` in both halves of each lane `i`.
#[target_feature(enable = "avx512f,avx512bw")]
fn ramp() -> __m512i {
    _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32(0x0001_0001),
    )
}

/// The columns of sixteen rows of sixteen lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut columns = rows;
    let mut twos = rows;
    for i in 0..8 {
        twos[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        twos[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Quarter q of `fours[4 i + j]` has column 4 q + j of rows 4 i to 4 i + 3.
    let mut fours = rows;
    for i in (0..16).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
    }
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    for j in 0..4 {
        let even = [
            _mm512_shuffle_i32x4::<EVEN>(fours[j], fours[4 + j]),
            _mm512_shuffle_i32x4::<EVEN>(fours[8 + j], fours[12 + j]),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<ODD>(fours[j], fours[4 + j]),
            _mm512_shuffle_i32x4::<ODD>(fours[8 + j], fours[12 + j]),
        ];
        columns[j] = _mm512_shuffle_i32x4::<EVEN>(even[0], even[1]);
        columns[4 + j] = _mm512_shuffle_i32x4::<EVEN>(odd[0], odd[1]);
        columns[8 + j] = _mm512_shuffle_i32x4::<ODD>(even[0], even[1]);
        columns[12 + j] = _mm512_shuffle_i32x4::<ODD>(odd[0], odd[1]);
    }
    columns
}

/// `2^(i/32)`.
static ROOTS: [f32; 32] = {
    const ROOT: f64 = 1.021_897_148_654_116_7;
    let (mut roots, mut power, mut i) = ([0.0; 32], 1.0, 0);
    while i < 32 {
        roots[i] = power as f32;
        power *= ROOT;
        i += 1;
    }
    roots
};

/// Ones for the first `count` lanes.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    debug_assert!(count <= LANES);
    ((1u32 << count) - 1) as __mmask16
}

// SAFETY of all blocks below: a `Vectors` exists only where the CPU has AVX-512 F, BW, DQ and VL,
// and memory is touched only where the caller vouches for it (masked lanes do not fault).
impl<const BF16: bool> Simd for Vectors<BF16> {
    const LANES: usize = LANES;
    type Vector = __m512;
    // 6 × 4 sums, 4 vectors of columns and a broadcast in 32 registers. Per step of the sum 10 loads
    // stand against 24 multiply-adds, of which the CPU starts two each per cycle.
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 4;
    const HAS_BF16_DOT: bool = BF16;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        if BF16 {
            unsafe { run_bf16(kernel) }
        } else {
            unsafe { run(kernel) }
        }
    }
    #[inline(always)]
    fn dot_bf16(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        if BF16 {
            // SAFETY: also that 512 bits are 512 bits.
            unsafe {
                let (a, b) = (
                    transmute::<__m512, __m512bh>(a),
                    transmute::<__m512, __m512bh>(b),
                );
                _mm512_dpbf16_ps(sum, a, b)
            }
        } else {
            let low = self.mul_add(self.widen_low(a), self.widen_low(b), sum);
            self.mul_add(self.widen_high(a), self.widen_high(b), low)
        }
    }
    #[inline(always)]
    fn dot_i8(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        unsafe {
            let [sum, a, b] = [sum, a, b].map(|x| _mm512_castps_si512(x));
            _mm512_castsi512_ps(if BF16 {
                _mm512_dpbusd_epi32(sum, a, b)
            } else {
                // Bytes as 16-bit numbers, the even ones and the odd ones, whose pairs of products fit 32 bits.
                let bytes = _mm512_set1_epi16(0xff);
                let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b));
                let even = _mm512_madd_epi16(_mm512_and_si512(a, bytes), even);
                let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
                _mm512_add_epi32(sum, _mm512_add_epi32(even, odd))
            })
        }
    }
    #[inline(always)]
    fn integer_difference(self, a: __m512, b: __m512) -> __m512 {
        unsafe {
            let difference = _mm512_sub_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b));
            _mm512_cvtepi32_ps(difference)
        }
    }
    #[inline(always)]
    unsafe fn store_bytes_raw(self, to: *mut u8, x: __m512) {
        unsafe {
            let integers = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(128));
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(integers));
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_raw(self, to: *mut u16, x: __m512) {
        unsafe {
            let rounded = if BF16 {
                transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x))
            } else {
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded_bits(x)))
            };
            _mm256_storeu_si256(to.cast(), rounded);
        }
    }
    #[inline(always)]
    fn pairs_bf16(self, low: __m512, high: __m512) -> __m512 {
        unsafe {
            if BF16 {
                // Lane i of the lower half beside lane i of the upper one.
                let order = _mm512_add_epi16(ramp(), _mm512_set1_epi32(16 << 16));
                let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, both))
            } else {
                let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
                let low = _mm512_srli_epi32::<16>(rounded_bits(low));
                let high = _mm512_and_si512(rounded_bits(high), upper);
                _mm512_castsi512_ps(_mm512_or_si512(low, high))
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose_raw(
        self,
        (from, stride): (*const f32, usize),
        (to, to_stride): (*mut f32, usize),
    ) {
        unsafe {
            let mut rows = [_mm512_setzero_si512(); 16];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_si512(from.add(r * stride).cast());
            }
            for (c, column) in transpose(rows).into_iter().enumerate() {
                _mm512_storeu_si512(to.add(c * to_stride).cast(), column);
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose_bf16(
        self,
        (from, stride): (*const u16, usize),
        (to, to_stride): (*mut u16, usize),
    ) {
        unsafe {
            let order = _mm512_add_epi16(ramp(), _mm512_set1_epi32(32 << 16));
            for half in 0..2 {
                // Columns 0 to 15, then 16 to 31: lane c has column c of two rows.
                let order = _mm512_add_epi16(order, _mm512_set1_epi16(16 * half as i16));
                let mut pairs = [_mm512_setzero_si512(); 16];
                for (p, pair) in pairs.iter_mut().enumerate() {
                    let row = |r: usize| _mm512_loadu_si512(from.add(stride * r).cast());
                    *pair = _mm512_permutex2var_epi16(row(2 * p), order, row(2 * p + 1));
                }
                for (c, column) in transpose(pairs).into_iter().enumerate() {
                    _mm512_storeu_si512(to.add((16 * half + c) * to_stride).cast(), column);
                }
            }
        }
    }
    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    #[inline(always)]
    fn prefetch_near(self, address: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    fn prefetch_to_write(self, address: *mut f32) {
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_raw(self, from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store_raw(self, to: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn load_partial_raw(self, from: *const f32, count: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask(count), from) }
    }
    #[inline(always)]
    unsafe fn store_partial_raw(self, to: *mut f32, x: __m512, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, mask(count), x) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn copysign(self, a: __m512, sign: __m512) -> __m512 {
        unsafe {
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, a), _mm512_and_ps(bit, sign))
        }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn exp2_integer(self, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }
    #[inline(always)]
    fn add_exponent(self, x: __m512, bits: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(bits));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), exponent))
        }
    }
    #[inline(always)]
    fn exp2(self, x: __m512) -> __m512 {
        // Multiply-adds are what the products beside it wait for, so most of it is other work: x in steps of 1/32 by
        // adding 1.5·2¹⁸, whose last five bits look up a root; for the rest, least largest relative error of
        // (2ʳ − 1)/r on ±1/64 as a line.
        const STEPS: f32 = 393_216.0;
        unsafe {
            let steps = self.splat(STEPS);
            let shifted = _mm512_add_ps(x, steps);
            let near = _mm512_sub_ps(shifted, steps);
            let rest = _mm512_sub_ps(x, near);
            let root = _mm512_permutex2var_ps(
                _mm512_loadu_ps(ROOTS.as_ptr()),
                _mm512_castps_si512(shifted),
                _mm512_loadu_ps(ROOTS.as_ptr().add(16)),
            );
            let slope = _mm512_fmadd_ps(self.splat(0.240_226_5), rest, self.splat(0.693_157_3));
            let more = _mm512_mul_ps(slope, rest);
            // Which takes the whole part, and gives zero where nothing is left.
            _mm512_scalef_ps(_mm512_fmadd_ps(more, root, root), near)
        }
    }
    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    fn widen_low(self, pairs: __m512) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(pairs))) }
    }
    #[inline(always)]
    fn widen_high(self, pairs: __m512) -> __m512 {
        unsafe {
            let upper = _mm512_castsi512_ps(_mm512_set1_epi32(0xffff_0000_u32 as i32));
            _mm512_and_ps(pairs, upper)
        }
    }
    #[inline(always)]
    fn reduce_add(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn reduce_max(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
}
