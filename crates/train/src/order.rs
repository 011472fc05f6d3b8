//! Which pictures stand in the batch of a step.
//!
//! A batch has pictures of one bucket. Its pictures come from all sources, each as often as its weight says. Everything
//! is a closed formula of the step, so that a resumed run, and any thread, finds its place without what went before.

use std::sync::{Arc, Mutex, PoisonError};

use crate::random::{Choices, Purpose, mix};

/// A picture of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of the source.
    pub source: usize,
    /// The number of the picture in it.
    pub index: u64,
}

/// The pictures of a source that can share a batch.
#[derive(Debug, Clone)]
pub enum Members {
    /// Without end.
    Endless,
    /// The first so many.
    First(u64),
    /// These.
    These(Vec<u32>),
}

impl Members {
    /// How many; none where they never end.
    pub fn len(&self) -> Option<u64> {
        match self {
            Members::Endless => None,
            Members::First(count) => Some(*count),
            Members::These(indices) => Some(indices.len() as u64),
        }
    }

    fn get(&self, number: u64) -> u64 {
        match self {
            Members::Endless | Members::First(_) => number,
            Members::These(indices) => u64::from(indices[number as usize]),
        }
    }
}

/// What a source has to give.
#[derive(Debug, Clone)]
pub struct Stock {
    /// How often its pictures are taken beside those of other sources.
    pub weight: f64,
    /// Its pictures by bucket.
    pub buckets: Vec<Members>,
}

/// The endless sequence of batches that a run sees.
///
/// A bucket gets batches in proportion to its pictures, the sources' weights counted in, so over a run every picture of
/// a source is seen equally often, in small buckets as in large ones; and as every bucket's first batch comes at the very
/// beginning, none is passed over in a short run.
pub struct Order {
    batch: u64,
    shares: Shares,
    buckets: Vec<Bucket>,
}

struct Bucket {
    number: usize,
    shares: Shares,
    pools: Vec<Pool>,
}

/// The pictures of one source in one bucket.
struct Pool {
    source: usize,
    members: Members,
    shuffle: Shuffle,
}

impl Order {
    /// For batches of `batch` pictures from `sources`, which all have the same buckets and not all nothing.
    pub fn new(seed: u64, batch: usize, sources: &[Stock]) -> Order {
        let count = sources.first().map_or(0, |stock| stock.buckets.len());
        let (mut totals, mut buckets) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (mut weights, mut pools) = (Vec::new(), Vec::new());
            for (source, stock) in sources.iter().enumerate() {
                let members = &stock.buckets[number];
                let share = match (members.len(), stock.total()) {
                    (Some(0), _) => continue,
                    (Some(some), Some(all)) => some as f64 / all as f64,
                    _ => 1.0,
                };
                weights.push(stock.weight * share);
                // The first has the run's own seed, as runs with a single source have always had it.
                let pool = (number * sources.len() + source) as u64;
                let seed = if pool == 0 {
                    seed
                } else {
                    mix(seed, Purpose::Pool, pool)
                };
                pools.push(Pool {
                    source,
                    members: members.clone(),
                    shuffle: Shuffle::new(seed, members.len()),
                });
            }
            if !pools.is_empty() {
                totals.push(weights.iter().sum::<f64>());
                buckets.push(Bucket {
                    number,
                    shares: Shares::new(&weights),
                    pools,
                });
            }
        }
        Order {
            batch: batch as u64,
            shares: Shares::new(&totals),
            buckets,
        }
    }

    /// The bucket of step `step`, counted from 1, and its pictures.
    pub fn batch(&self, step: u64) -> (usize, Vec<Place>) {
        let (which, before) = self.shares.at(step - 1);
        let bucket = &self.buckets[which];
        let places = (0..self.batch).map(|slot| {
            let (which, position) = bucket.shares.at(before * self.batch + slot);
            let pool = &bucket.pools[which];
            Place {
                source: pool.source,
                index: pool.members.get(pool.shuffle.index(position)),
            }
        });
        (bucket.number, places.collect())
    }
}

impl Stock {
    /// All pictures; none where they never end.
    fn total(&self) -> Option<u64> {
        self.buckets.iter().map(Members::len).sum()
    }
}

/// Divides a sequence of positions by weight, as evenly as can be.
///
/// Of the first p positions ⌈p·w⌉ go to the one with the smallest weight w, of those left over the next gets its share
/// in the same way, and so on. So everyone has had one after as many positions as there are takers, and at any time
/// about what is due.
struct Shares(Vec<Share>);

struct Share {
    taker: usize,
    /// Of what those before leave over.
    part: f64,
}

impl Shares {
    /// For weights above 0.
    fn new(weights: &[f64]) -> Shares {
        let mut takers: Vec<usize> = (0..weights.len()).collect();
        takers.sort_by(|&a, &b| weights[a].total_cmp(&weights[b]));
        let mut left: f64 = weights.iter().sum();
        let share = |taker: usize| {
            let part = (weights[taker] / left).min(1.0);
            left -= weights[taker];
            Share { taker, part }
        };
        Shares(takers.into_iter().map(share).collect())
    }

    /// Whose `position` is, and how many it has had before.
    fn at(&self, mut position: u64) -> (usize, u64) {
        let (last, others) = match self.0.split_last() {
            Some((last, others)) => (last.taker, others),
            None => (0, &[][..]),
        };
        for share in others {
            let given = |positions: u64| (positions as f64 * share.part).ceil() as u64;
            let before = given(position);
            if given(position + 1) > before {
                return (share.taker, before);
            }
            position -= before;
        }
        (last, position)
    }
}

/// An endless sequence of numbers below a count: epoch after epoch, each in an order of its own.
struct Shuffle {
    seed: u64,
    count: Option<u64>,
    /// The last two epochs asked for: threads that are ahead and threads that are behind find theirs.
    epochs: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

impl Shuffle {
    /// Without a count, number i stands at position i.
    fn new(seed: u64, count: Option<u64>) -> Shuffle {
        Shuffle {
            seed,
            count,
            epochs: Mutex::default(),
        }
    }

    fn index(&self, position: u64) -> u64 {
        let Some(count) = self.count else {
            return position;
        };
        let epoch = self.epoch(position / count, count as usize);
        u64::from(epoch[(position % count) as usize])
    }

    fn epoch(&self, epoch: u64, count: usize) -> Arc<Vec<u32>> {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = epochs.iter().find(|(known, _)| *known == epoch) {
            return Arc::clone(order);
        }
        let order = Arc::new(Choices::new(self.seed, Purpose::Order, epoch).permutation(count));
        if epochs.len() >= 2 {
            epochs.remove(0);
        }
        epochs.push((epoch, Arc::clone(&order)));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn stock(weight: f64, buckets: &[Members]) -> Stock {
        Stock {
            weight,
            buckets: buckets.to_vec(),
        }
    }

    #[test]
    fn every_epoch_holds_every_picture_once_in_another_order() {
        let order = Order::new(1, 5, &[stock(3.0, &[Members::First(10)])]);
        let epoch = |n: u64| {
            let batches = [2 * n + 1, 2 * n + 2].map(|step| order.batch(step).1);
            batches
                .concat()
                .iter()
                .map(|place| place.index)
                .collect::<Vec<_>>()
        };
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        assert_eq!(epoch(5).len(), 10);
        assert_eq!(epoch(0), first);
        let mut sorted = second;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        let endless = Order::new(1, 2, &[stock(1.0, &[Members::Endless])]);
        assert_eq!(
            endless.batch(39).1[1],
            Place {
                source: 0,
                index: 77
            }
        );
    }

    #[test]
    fn shares_are_kept_at_every_length_and_nothing_is_left_out() {
        for weights in [
            vec![1.0],
            vec![1.0, 1.0],
            vec![5.0, 3.0, 2.0],
            vec![0.9, 0.099, 0.001],
        ] {
            let shares = Shares::new(&weights);
            let total: f64 = weights.iter().sum();
            let mut had = vec![0u64; weights.len()];
            for position in 0..5000 {
                let (which, before) = shares.at(position);
                assert_eq!(before, had[which], "position {position} of {weights:?}");
                had[which] += 1;
                for (had, weight) in had.iter().zip(&weights) {
                    let due = (position + 1) as f64 * weight / total;
                    let off = (*had as f64 - due).abs();
                    assert!(off <= weights.len() as f64, "{had} of {due} at {position}");
                }
            }
            let first = (0..weights.len() as u64).map(|position| shares.at(position));
            let takers: BTreeSet<usize> = first.map(|(taker, _)| taker).collect();
            assert_eq!(takers.len(), weights.len(), "{weights:?}");
        }
    }

    #[test]
    fn a_batch_has_one_bucket_and_all_sources_and_no_picture_is_forgotten() {
        let these = |range: std::ops::Range<u32>| Members::These(range.collect());
        let sources = [
            // 30 pictures in one shape and 2 in another; 8, all of the first shape.
            stock(1.0, &[these(0..30), these(30..32)]),
            stock(3.0, &[these(0..8), these(0..0)]),
        ];
        let order = Order::new(7, 4, &sources);
        let mut seen: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        const STEPS: u64 = 3200;
        for step in 1..=STEPS {
            let (bucket, places) = order.batch(step);
            assert_eq!(places.len(), 4);
            for place in places {
                let odd = place.source == 0 && place.index >= 30;
                assert_eq!(bucket, usize::from(odd), "{place:?} in step {step}");
                *seen.entry((place.source, place.index)).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), 40);
        for ((source, index), times) in seen {
            // A quarter of all places for 32 pictures, three quarters for 8.
            let due = (STEPS * 4) as f64 * if source == 0 { 0.25 / 32.0 } else { 0.75 / 8.0 };
            assert!(
                (times as f64 / due - 1.0).abs() < 0.05,
                "{source} {index}: {times} of {due}"
            );
        }
        // The rare shape is there from the beginning.
        assert_eq!(order.batch(1).0, 1);
    }
}
