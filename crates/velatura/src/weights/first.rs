//! The first values of new weights.

/// The first values of a tensor in a new model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in `[-bound, bound]`.
    Uniform(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Normal with mean 1 and this standard deviation.
    Around1(f32),
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
}

impl Init {
    /// What PyTorch gives `nn.Linear` and `nn.Conv2d`, weight and bias alike: uniform within `1/sqrt(fan_in)`, where
    /// `fan_in` is the number of inputs to each output, kernel included.
    pub fn torch(fan_in: usize) -> Init {
        Init::Uniform(1.0 / (fan_in as f32).sqrt())
    }
}

/// `count` numbers for the tensor `name`.
pub(super) fn random(seed: u64, name: &str, count: usize, init: Init) -> Vec<f32> {
    let mut numbers = SplitMix::new(seed, name);
    match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Uniform(bound) => (0..count)
            .map(|_| (2.0 * numbers.uniform() - 1.0) as f32 * bound)
            .collect(),
        Init::Normal(std) => (0..count).map(|_| numbers.normal() as f32 * std).collect(),
        Init::Around1(std) => (0..count)
            .map(|_| 1.0 + numbers.normal() as f32 * std)
            .collect(),
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014): good enough for first weights, and cheap to start once per tensor.
pub(super) struct SplitMix(u64);

impl SplitMix {
    /// FNV-1a turns the name into 64 bits.
    pub(super) fn new(seed: u64, name: &str) -> SplitMix {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut numbers = SplitMix(seed);
        SplitMix(numbers.next() ^ hash)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal, by Box and Muller's cosine branch.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_weights_have_the_wanted_distribution_whatever_the_order() {
        let count = 100_000;
        let normal = random(7, "a", count, Init::Normal(0.5));
        let mean = normal.iter().map(|&x| f64::from(x)).sum::<f64>() / count as f64;
        let square = normal.iter().map(|&x| f64::from(x * x)).sum::<f64>() / count as f64;
        // Standard errors: 0.5/sqrt(n) = 0.0016 of the mean, 0.25·sqrt(2/n) = 0.0011 of the mean square.
        assert!(
            mean.abs() < 0.008 && (square - 0.25).abs() < 0.006,
            "{mean} {square}"
        );
        let uniform = random(7, "a", count, Init::Uniform(2.0));
        assert!(uniform.iter().all(|x| x.abs() <= 2.0));
        let square = uniform.iter().map(|&x| f64::from(x * x)).sum::<f64>() / count as f64;
        assert!((square - 4.0 / 3.0).abs() < 0.03, "{square}");
        assert_ne!(
            random(7, "a", 4, Init::Normal(1.0)),
            random(7, "b", 4, Init::Normal(1.0))
        );
        assert_ne!(
            random(7, "a", 4, Init::Normal(1.0)),
            random(8, "a", 4, Init::Normal(1.0))
        );
    }
}
