//! Numbers from a seed, and comparison within bounds derived from the sums' condition.
#![allow(dead_code)]

pub mod norms;
pub mod winograd;

use velatura_kernels::isa::Isa;

/// Numbers in −1..1 from `seed` (a 64-bit multiplicative generator's upper bits).
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state = state
            .wrapping_mul(0xd129_0129_f1c6_2d45)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x.into()).collect()
}

pub fn absolute(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.abs()).collect()
}

/// A copy of `data` that starts `offset` numbers after where the allocator put it, so that vectors
/// straddle cache lines.
pub struct Misaligned {
    buffer: Vec<f32>,
    offset: usize,
}

impl Misaligned {
    pub fn new(data: &[f32], offset: usize) -> Self {
        let mut buffer = vec![f32::NAN; offset];
        buffer.extend_from_slice(data);
        Misaligned { buffer, offset }
    }
    pub fn get(&self) -> &[f32] {
        &self.buffer[self.offset..]
    }
    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.offset..]
    }
}

/// How far a sum may be off, as a share of the sum of its terms' magnitudes: `terms` roundings of
/// f32 sums (Higham, Accuracy and Stability, eq. 3.5), and of each factor to bf16 when `bf16`.
pub fn bound(terms: usize, bf16: bool) -> f64 {
    let unit = f64::from(f32::EPSILON) / 2.0;
    let sums = (terms + 3) as f64 * unit;
    // Eight significant bits.
    let factor = 1.0 / 256.0;
    sums + if bf16 {
        2.0 * factor + factor * factor
    } else {
        0.0
    }
}

/// Every `got` within `bound · scale` of `want`, where `scale` is the sum of the terms' magnitudes.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f64], scale: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (&y, (&w, &s))) in got.iter().zip(want.iter().zip(scale)).enumerate() {
        let error = (f64::from(y) - w).abs();
        assert!(
            error <= bound * s,
            "{what}: [{i}] is {y}, should be {w}, off by {error:e} (sums {s})"
        );
    }
}

pub fn isas() -> Vec<Isa> {
    Isa::available().collect()
}

/// Half a unit in the last place of numbers near 1: one rounding.
pub const UNIT: f64 = f32::EPSILON as f64 / 2.0;
