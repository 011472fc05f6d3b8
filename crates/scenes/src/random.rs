//! A small random-number generator with the same output on every machine, for ever.
//!
//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): one
//! 64-bit word of state, three multiplications. A library's generator may change its stream from one
//! version to the next; a scene's number must keep its picture.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The generator.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The stream of `(seed, index, purpose)`. The three are mixed one after the other, so that
    /// neighbouring indices, and the purposes of one scene, have unrelated streams.
    pub(crate) fn new(seed: u64, index: u64, purpose: u64) -> Self {
        let state = mix(mix(mix(seed.wrapping_add(GOLDEN)) ^ index) ^ purpose.wrapping_mul(GOLDEN));
        Self { state }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴, which is exact in f32.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [low, high).
    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `share`.
    pub(crate) fn chance(&mut self, share: f32) -> bool {
        self.unit() < share
    }

    /// Uniform in 0..count.
    ///
    /// # Panics
    /// When `count` is 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "a choice among nothing");
        // The high half of a 128-bit product; its bias, count / 2⁶⁴, is nothing here.
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When `items` is empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_splitmix64() {
        // The published first outputs for state 1234567.
        let mut random = Random { state: 1_234_567 };
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn units_fill_the_interval() {
        let mut random = Random::new(1, 2, 3);
        let units: Vec<f32> = (0..10_000).map(|_| random.unit()).collect();
        assert!(units.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = units.iter().sum::<f32>() / units.len() as f32;
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
    }
}
