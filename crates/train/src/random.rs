//! Random choices that are a function of (seed, purpose, position) and nothing else.
//!
//! No generator lives through the run, so none has to be saved: a resumed run asks for the numbers of step N and
//! gets the ones an uninterrupted run would have got, whichever thread asks and in whichever order.

use velatura_tensor::random::TorchGenerator;

/// What the numbers are for; keeps streams apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The order of an epoch.
    Order = 1,
    /// Crops, choice among captions, dropout, timesteps.
    Choices = 2,
    /// Noise added to latents.
    Noise = 3,
    /// Noise of the VAE's latent sample.
    Posterior = 4,
    /// Fresh weights.
    Weights = 5,
    /// Timesteps that are not uniform.
    Timesteps = 6,
    /// What is added to the noise of whole channels.
    Offset = 7,
    /// Everything about the pictures of a class that is learnt beside a subject.
    Prior = 8,
    /// Which pictures are mirrored.
    Flip = 9,
    /// Which sides of a picture are cut off.
    Cut = 10,
    /// The order of one source, or one bucket, among several.
    Pool = 11,
    /// What is done to a scorer's pictures.
    Degrade = 12,
}

/// SplitMix64 (Steele, Lea and Flood 2014): one addition and two xor-multiplies a number.
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// The stream for `position` (a step or an epoch) of the run with this `seed`.
    pub fn new(seed: u64, purpose: Purpose, position: u64) -> Choices {
        Choices(mix(seed, purpose, position))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    /// A number in 0..bound, unbiased up to 2⁻⁶⁴·bound (Lemire's multiply-shift).
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "an empty range has no element");
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// A permutation of 0..n (Fisher–Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

/// `n` standard normal numbers for `position`, drawn as `torch.randn` draws them.
pub fn normals(seed: u64, purpose: Purpose, position: u64, n: usize) -> Vec<f32> {
    TorchGenerator::new(mix(seed, purpose, position)).randn(n)
}

/// A seed for `position` of the stream of `purpose`.
pub fn mix(seed: u64, purpose: Purpose, position: u64) -> u64 {
    let mut value = finish(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    value = finish(value ^ (purpose as u64).wrapping_mul(0xd1b5_4a32_d192_ed03));
    finish(
        value
            ^ position
                .wrapping_mul(0x8cb9_2ba7_2f3d_8dd7)
                .wrapping_add(0x2545_f491_4f6c_dd1d),
    )
}

fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_everything_and_only_on_that() {
        let first = |seed, purpose, position| Choices::new(seed, purpose, position).bits();
        assert_eq!(first(1, Purpose::Order, 2), first(1, Purpose::Order, 2));
        assert_ne!(first(1, Purpose::Order, 2), first(2, Purpose::Order, 2));
        assert_ne!(first(1, Purpose::Order, 2), first(1, Purpose::Choices, 2));
        assert_ne!(first(1, Purpose::Order, 2), first(1, Purpose::Order, 3));
    }

    #[test]
    fn numbers_below_a_bound_reach_all_of_it() {
        let mut choices = Choices::new(0, Purpose::Choices, 0);
        let mut seen = [0usize; 7];
        for _ in 0..7000 {
            seen[choices.below(7)] += 1;
        }
        // Standard deviation about 29; six of them.
        assert!(seen.iter().all(|&n| (824..=1176).contains(&n)), "{seen:?}");
        let unit = choices.unit();
        assert!((0.0..1.0).contains(&unit));
    }

    #[test]
    fn a_permutation_holds_everything_once() {
        let mut order = Choices::new(3, Purpose::Order, 1).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
