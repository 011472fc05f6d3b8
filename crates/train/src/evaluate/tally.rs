//! Counting yes and no, and how far such a count can be trusted.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::scorer::Aspect;

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    pub yes: u64,
    pub of: u64,
}

impl Share {
    pub fn count(&mut self, yes: bool) {
        self.yes += u64::from(yes);
        self.of += 1;
    }

    /// 0 to 1; none where nothing was asked.
    pub fn value(self) -> Option<f64> {
        (self.of > 0).then(|| self.yes as f64 / self.of as f64)
    }

    /// Where the true share lies with 95 % confidence (Wilson 1927); none where nothing was asked.
    ///
    /// The counts are taken as independent, which pictures of one prompt are not quite.
    pub fn interval(self) -> Option<[f64; 2]> {
        const Z: f64 = 1.959_963_984_540_054;
        let p = self.value()?;
        let n = self.of as f64;
        let middle = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let whole = 1.0 + Z * Z / n;
        Some([
            ((middle - half) / whole).max(0.0),
            ((middle + half) / whole).min(1.0),
        ])
    }
}

/// A share for each aspect that was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Tally(BTreeMap<Aspect, Share>);

impl Tally {
    pub fn count(&mut self, aspect: Aspect, yes: bool) {
        self.0.entry(aspect).or_default().count(yes);
    }

    pub fn add(&mut self, verdicts: &[(Aspect, bool)]) {
        for &(aspect, yes) in verdicts {
            self.count(aspect, yes);
        }
    }

    /// Nothing of nothing where it was not asked.
    pub fn of(&self, aspect: Aspect) -> Share {
        self.0.get(&aspect).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        // 8 of 10: Wilson's interval as statsmodels' proportion_confint(8, 10, method="wilson") gives it.
        let [low, high] = Share { yes: 8, of: 10 }.interval().unwrap();
        assert!((low - 0.490_162_471_5).abs() < 1e-9, "{low}");
        assert!((high - 0.943_317_848_5).abs() < 1e-9, "{high}");
        let [low, high] = Share { yes: 5, of: 5 }.interval().unwrap();
        assert!(low > 0.5 && high == 1.0);
        assert_eq!(Share::default().interval(), None);
    }
}
