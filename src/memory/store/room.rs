//! How many items all partitions of a node may have together.
//!
//! Each partition tells how many it has; whoever adds one looks at the sum. Two cores that look at the
//! same time may both take the last place, so the limit is exceeded by one item for each other core at
//! most.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// One partition's view of the room.
#[derive(Clone, Debug)]
pub struct Room {
    used: Arc<[AtomicUsize]>,
    own: usize,
    items_max: usize,
}

impl Room {
    /// Room for `items_max` items that so many partitions share; the view of each.
    pub fn shared(partitions: u16, items_max: usize) -> Vec<Self> {
        let used: Arc<[AtomicUsize]> = (0..partitions).map(|_| AtomicUsize::new(0)).collect();
        let view = |own| Self { used: used.clone(), own: usize::from(own), items_max };
        (0..partitions).map(view).collect()
    }

    /// The most items of all partitions together.
    pub fn items_max(&self) -> usize {
        self.items_max
    }

    /// Tells how many items this partition has, those that are on their way included.
    pub fn tell(&self, items: usize) {
        self.used[self.own].store(items, Ordering::Relaxed);
    }

    /// How many items all partitions have, those that are on their way included.
    pub fn used(&self) -> usize {
        self.used.iter().map(|items| items.load(Ordering::Relaxed)).sum()
    }

    /// Whether there is no place for another item.
    pub fn is_full(&self) -> bool {
        self.used() >= self.items_max
    }
}
