//! PyTorch's CPU random numbers, bit for bit, so that a seed means the same picture here and there.
//!
//! Source of the integers: MT19937 (Matsumoto and Nishimura, "Mersenne Twister: A 623-dimensionally
//! equidistributed uniform pseudo-random number generator", 1998), seeded from the low 32 bits of the seed.
//! Source of the normals: Box and Muller's transform, which `torch.randn` evaluates in two ways.
//! - Fewer than 16 numbers: one pair at a time in f64, the second of a pair kept for the next call.
//! - 16 or more: blocks of 16 uniforms, the first 8 as radii, the last 8 as angles, in f32 with the
//!   Cephes polynomials for logarithm, sine and cosine. A rest of fewer than 16 redraws the *last* 16.
//!
//! The second way is what PyTorch runs on every x86 processor with AVX2 (AVX-512 included). Its compiler fuses
//! multiply and add, so each `mul_add` below is load-bearing: an unfused one changes last bits.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Words of MT19937's state.
const N: usize = 624;
/// Distance of the word that each word is twisted with.
const M: usize = 397;
/// Numbers that the vectorised normals are made of at a time.
const BLOCK: usize = 16;

/// `torch.Generator("cpu")`.
///
/// ```
/// use velatura_tensor::random::TorchGenerator;
/// // torch.randn(2, generator=torch.Generator("cpu").manual_seed(42))
/// assert_eq!(TorchGenerator::new(42).randn(2), [0.33669037, 0.12880941]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TorchGenerator {
    words: [u32; N],
    /// The next word to hand out; `N` when the state has to be twisted first.
    next: usize,
    /// The second normal of the last pair that was made in f64.
    spare: Option<f64>,
}

/// A [`TorchGenerator`] at rest, for checkpoints of a training run. Integers only, so that every text format
/// keeps it exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratorState {
    words: Vec<u32>,
    next: usize,
    spare_bits: Option<u64>,
}

impl TorchGenerator {
    /// `torch.Generator("cpu").manual_seed(seed)`. As in PyTorch, seeds that agree in their low 32 bits give
    /// the same numbers.
    pub fn new(seed: u64) -> Self {
        let mut words = [0u32; N];
        words[0] = seed as u32;
        for i in 1..N {
            let previous = words[i - 1] ^ (words[i - 1] >> 30);
            words[i] = previous.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self {
            words,
            next: N,
            spare: None,
        }
    }

    /// `torch.randn(count)` in f32: standard normals. A tensor of any shape is filled in row-major order, so
    /// `count` is its number of elements.
    pub fn randn(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.normal() as f32).collect();
        }
        let mut out = self.uniform(count);
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty() {
            let tail = out.len() - BLOCK;
            let mut block = [0f32; BLOCK];
            block.fill_with(|| self.uniform_f32());
            box_muller(&mut block);
            out[tail..].copy_from_slice(&block);
        }
        out
    }

    /// `torch.rand(count)` in f32: uniform in [0, 1), multiples of 2⁻²⁴.
    pub fn uniform(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.uniform_f32()).collect()
    }

    /// `torch.randint(0, bound, (count,))`: integers in `0..bound`, such as training timesteps.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn randint(&mut self, bound: u32, count: usize) -> Vec<u32> {
        assert!(bound > 0, "randint needs at least one value to choose from");
        let bound = u64::from(bound);
        let mut one = || match bound {
            // PyTorch lets the remainder be off by 5 % at most before it spends 64 bits.
            0x1000_0000.. => self.next_u64() % bound,
            _ => u64::from(self.next_u32()) % bound,
        };
        (0..count).map(|_| one() as u32).collect()
    }

    /// What has to be stored to go on later with the same numbers.
    pub fn state(&self) -> GeneratorState {
        GeneratorState {
            words: self.words.to_vec(),
            next: self.next,
            spare_bits: self.spare.map(f64::to_bits),
        }
    }

    /// The generator that [`TorchGenerator::state`] described; `None` when the description is damaged
    /// (other than 624 words, or a position beyond them).
    pub fn from_state(state: &GeneratorState) -> Option<Self> {
        Some(Self {
            words: state.words.as_slice().try_into().ok()?,
            next: (state.next <= N).then_some(state.next)?,
            spare: state.spare_bits.map(f64::from_bits),
        })
    }

    /// The next 32 bits of MT19937.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.words[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// MT19937's recurrence, for all words at once: x[i+N] = x[i+M] ⊕ (upper bit of x[i] | rest of x[i+1])·A.
    fn twist(&mut self) {
        for i in 0..N {
            let mixed = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % N] & 0x7fff_ffff);
            let matrix = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + M) % N] ^ (mixed >> 1) ^ matrix;
        }
        self.next = 0;
    }

    fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// Two words, the high one first.
    fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }

    /// Uniform in [0, 1), multiples of 2⁻⁵³.
    fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    /// One normal in f64: the spare one, or the first of a new pair.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let theta = 2.0 * PI * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * theta.sin());
        radius * theta.cos()
    }
}

/// Eight pairs of uniforms to eight pairs of normals, in place.
fn box_muller(block: &mut [f32; BLOCK]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        // 1 − u lies in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * ln(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos((2.0 * PI) as f32 * *b);
        // Adding the mean turns −0 into +0.
        *a = radius * cos + 0.0;
        *b = radius * sin + 0.0;
    }
}

/// Natural logarithm of a normal number in (0, 1], by Cephes' `logf`: x = 2ᵉ·m with m around 1, then a
/// polynomial in m − 1 and e·ln 2 in two parts.
fn ln(x: f32) -> f32 {
    const P: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_87e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let mut e = ((x.to_bits() >> 23) as i32 - 126) as f32;
    let mut m = f32::from_bits((x.to_bits() & 0x007f_ffff) | 0x3f00_0000);
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        m = (m - 1.0) + m;
    } else {
        m -= 1.0;
    }
    let z = m * m;
    let p = P[1..].iter().fold(P[0], |y, &p| y.mul_add(m, p)) * m;
    let y = p.mul_add(z, e * LN2_LOW);
    e.mul_add(LN2_HIGH, m + z.mul_add(-0.5, y))
}

/// Sine and cosine of an angle in [0, 2π], by Cephes' `sinf`: reduce to ±π/4 by multiples of π/4 in three
/// parts, evaluate both polynomials, and let the octant say which is which.
fn sin_cos(x: f32) -> (f32, f32) {
    const PI_4: [f32; 3] = [0.785_156_25, 2.418_756_5e-4, 3.774_895e-8];
    const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
    const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
    let octant = ((x * (4.0 / PI) as f32) as i32 + 1) & !1;
    let r = PI_4
        .iter()
        .fold(x, |r, &part| (octant as f32).mul_add(-part, r));
    let z = r * r;
    let c = COS[0].mul_add(z, COS[1]).mul_add(z, COS[2]) * z;
    let cos = c.mul_add(z, -(z * 0.5)) + 1.0;
    let s = SIN[0].mul_add(z, SIN[1]).mul_add(z, SIN[2]) * z;
    let sin = r.mul_add(s, r);
    let (sin, cos) = if octant & 2 == 0 {
        (sin, cos)
    } else {
        (cos, sin)
    };
    (
        if octant & 4 == 0 { sin } else { -sin },
        if (octant - 2) & 4 == 0 { -cos } else { cos },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousandth_word_is_the_standards() {
        // C++ [rand.predef]: the 10000th number of a default-seeded mt19937 is 4123659995.
        let mut generator = TorchGenerator::new(5489);
        let last = (0..10_000).map(|_| generator.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn a_damaged_state_is_refused() {
        let mut state = TorchGenerator::new(1).state();
        state.next = N + 1;
        assert!(TorchGenerator::from_state(&state).is_none());
        state.next = 3;
        state.words.pop();
        assert!(TorchGenerator::from_state(&state).is_none());
    }
}
