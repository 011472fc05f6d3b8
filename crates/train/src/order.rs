//! Which picture stands at which position of the run.

use std::sync::{Arc, Mutex, PoisonError};

use crate::random::{Choices, Purpose};

/// The endless sequence of pictures that a run sees: epoch after epoch, each in an order of its own.
pub struct Order {
    seed: u64,
    count: Option<u64>,
    /// The last two epochs asked for: threads that are ahead and threads that are behind find theirs.
    epochs: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

impl Order {
    /// For `count` pictures; without a count, picture i stands at position i.
    pub fn new(seed: u64, count: Option<u64>) -> Order {
        Order {
            seed,
            count,
            epochs: Mutex::default(),
        }
    }

    /// The picture at `position`, counted from the beginning of the run.
    pub fn index(&self, position: u64) -> u64 {
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

    #[test]
    fn every_epoch_holds_every_picture_once_in_another_order() {
        let order = Order::new(1, Some(10));
        let epoch = |n: u64| (0..10).map(|i| order.index(n * 10 + i)).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        assert_eq!(epoch(5).len(), 10);
        assert_eq!(epoch(0), first);
        let mut sorted = second;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_eq!(Order::new(1, None).index(77), 77);
    }
}
