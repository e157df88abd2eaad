//! The nodes that are known, in the order of a ring, with sums by which two nodes find out in which
//! part of the ring they differ.
//!
//! Invariants worth naming
//! - A node's place on the ring is a permutation of its id, the same everywhere. The 256 buckets are
//!   equal parts of the ring.
//! - A bucket's sum is the exclusive or of its records' fingerprints, and the root that of the sums:
//!   two rosters that know the same have the same root.
//! - Copies share the buckets that none of them has changed since.

use super::{
    NodeId,
    record::{Record, Status, mix},
};
use std::sync::Arc;

/// Parts of the ring.
pub const BUCKETS: usize = 256;

/// Known nodes.
#[derive(Clone, Debug)]
pub struct Roster {
    buckets: Vec<Arc<Vec<Record>>>,
    sums: Vec<u64>,
    root: u64,
    len: usize,
    present: usize,
}

/// The bucket that a node lies in.
pub fn bucket_of(node: NodeId) -> usize {
    (mix(node) >> 56) as usize
}

impl Roster {
    /// Nobody.
    pub fn new() -> Self {
        let empty = Arc::new(Vec::new());
        Self { buckets: vec![empty; BUCKETS], sums: vec![0; BUCKETS], root: 0, len: 0, present: 0 }
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many of them are alive or suspect.
    pub fn present(&self) -> usize {
        self.present
    }

    /// Identifies all that is known.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Identifies what is known of a bucket's nodes, in half of the bits.
    pub fn sum(&self, bucket: usize) -> u32 {
        (self.sums[bucket] ^ self.sums[bucket] >> 32) as u32
    }

    /// The nodes of a part of the ring, in its order.
    pub fn range(&self, first: u64, last: u64) -> impl Iterator<Item = &Record> {
        let buckets = (first >> 56) as usize..=(last >> 56) as usize;
        let records = self.buckets[buckets].iter().flat_map(|bucket| bucket.iter());
        records.filter(move |record| (first..=last).contains(&mix(record.node)))
    }

    /// All nodes.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }

    fn place(&self, node: NodeId) -> (usize, Result<usize, usize>) {
        let (bucket, place) = (bucket_of(node), mix(node));
        (bucket, self.buckets[bucket].binary_search_by_key(&place, |record| mix(record.node)))
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<&Record> {
        let (bucket, place) = self.place(node);
        Some(&self.buckets[bucket][place.ok()?])
    }

    /// Adds a node, unless it is there.
    pub fn insert(&mut self, record: Record) {
        let (bucket, Err(place)) = self.place(record.node) else { return };
        self.len += 1;
        self.present += usize::from(record.claim.status.is_present());
        self.turn(bucket, record.fingerprint());
        Arc::make_mut(&mut self.buckets[bucket]).insert(place, record);
    }

    /// Removes a node.
    pub fn remove(&mut self, node: NodeId) -> Option<Record> {
        let (bucket, Ok(place)) = self.place(node) else { return None };
        let record = Arc::make_mut(&mut self.buckets[bucket]).remove(place);
        self.len -= 1;
        self.present -= usize::from(record.claim.status.is_present());
        self.turn(bucket, record.fingerprint());
        Some(record)
    }

    /// Changes what is known of a node.
    pub fn change<R>(&mut self, node: NodeId, how: impl FnOnce(&mut Record) -> R) -> Option<R> {
        let (bucket, Ok(place)) = self.place(node) else { return None };
        let record = &mut Arc::make_mut(&mut self.buckets[bucket])[place];
        let (before, was_present) = (record.fingerprint(), record.claim.status.is_present());
        let result = how(record);
        let (after, is_present) = (record.fingerprint(), record.claim.status.is_present());
        debug_assert_eq!(record.node, node, "a record stays that of its node");
        self.present = self.present + usize::from(is_present) - usize::from(was_present);
        self.turn(bucket, before ^ after);
        Some(result)
    }

    fn turn(&mut self, bucket: usize, bits: u64) {
        self.sums[bucket] ^= bits;
        self.root ^= bits;
    }

    /// The node of a number below [`Self::len`].
    pub fn nth(&self, mut number: usize) -> Option<&Record> {
        for bucket in &self.buckets {
            match bucket.get(number) {
                Some(record) => return Some(record),
                None => number -= bucket.len(),
            }
        }
        None
    }

    /// The nodes that lie before a node on the ring, the nearest first, once around.
    pub fn before(&self, node: NodeId) -> impl Iterator<Item = &Record> {
        let (bucket, place) = self.place(node);
        let (before, after) = match place {
            Ok(place) => (place, place + 1),
            Err(place) => (place, place),
        };
        let here = &self.buckets[bucket];
        let others = (1..BUCKETS).map(move |back| (bucket + BUCKETS - back) % BUCKETS);
        here[..before]
            .iter()
            .rev()
            .chain(others.flat_map(|other| self.buckets[other].iter().rev()))
            .chain(here[after..].iter().rev())
    }

    /// Known nodes of a status.
    pub fn of(&self, status: Status) -> impl Iterator<Item = &Record> {
        self.iter().filter(move |record| record.claim.status == status)
    }
}
