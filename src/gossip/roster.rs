//! The nodes that are known, in the order of a ring, with sums by which two nodes find out in which
//! part of the ring they differ.
//!
//! Invariants worth naming
//! - A node's place on the ring is a permutation of its id, the same everywhere. The 256 buckets are
//!   equal parts of the ring.
//! - A bucket's sum is the exclusive or of its records' fingerprints, and the root that of the sums:
//!   two rosters that know the same have the same root.
//! - Copies share the buckets that none of them has changed since.
//! - A bucket is one piece of memory: a node is found with two steps, however many there are.

use super::{
    NodeId,
    record::{Record, Status, mix},
};
use std::{collections::HashMap, hint, sync::Arc};

/// Parts of the ring.
pub const BUCKETS: usize = 256;

/// The nodes of a part of the ring, in its order.
pub type Bucket = Arc<[Record]>;

/// Where a place would be among so many of a bucket if the distances were equal.
fn guess(len: usize, place: u64) -> usize {
    let within = place & u64::MAX >> 8;
    ((u128::from(within) * len as u128) >> 56) as usize
}

/// Where a place is in a bucket, or belongs. Places are spread evenly, so it is near the guess.
fn find(records: &[Record], place: u64) -> Result<usize, usize> {
    let mut at = guess(records.len(), place);
    while at > 0 && mix(records[at - 1].node) >= place {
        at -= 1;
    }
    while at < records.len() && mix(records[at].node) < place {
        at += 1;
    }
    let is_there = records.get(at).is_some_and(|record| mix(record.node) == place);
    if is_there { Ok(at) } else { Err(at) }
}

/// Known nodes.
#[derive(Clone, Debug)]
pub struct Roster {
    buckets: Vec<Bucket>,
    sums: Vec<u64>,
    root: u64,
    len: usize,
    present: usize,
}

impl Roster {
    /// Nobody.
    pub fn new() -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS],
            sums: vec![0; BUCKETS],
            root: 0,
            len: 0,
            present: 0,
        }
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
        let place = mix(node);
        let bucket = (place >> 56) as usize;
        (bucket, find(&self.buckets[bucket], place))
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<&Record> {
        let (bucket, place) = self.place(node);
        Some(&self.buckets[bucket][place.ok()?])
    }

    /// Touches what is known of some nodes, so that memory brings it all at the same time and not one
    /// after the other when it is needed.
    pub fn touch(&self, nodes: impl Iterator<Item = NodeId>) {
        let places = nodes.map(mix);
        let touched = places.filter_map(|place| {
            let bucket = &self.buckets[(place >> 56) as usize];
            bucket.get(guess(bucket.len(), place)).map(|record| record.node)
        });
        hint::black_box(touched.fold(0, |all, node| all ^ node));
    }

    /// The fingerprint of what is known of a node.
    pub fn print(&self, node: NodeId) -> Option<u64> {
        self.get(node).map(Record::fingerprint)
    }

    /// Adds a node, unless it is there.
    pub fn insert(&mut self, record: Record) {
        let (bucket, Err(place)) = self.place(record.node) else { return };
        self.len += 1;
        self.present += usize::from(record.claim.status.is_present());
        self.turn(bucket, record.fingerprint());
        let (before, after) = self.buckets[bucket].split_at(place);
        let one = std::iter::once(record);
        self.buckets[bucket] =
            before.iter().cloned().chain(one).chain(after.iter().cloned()).collect();
    }

    /// Removes a node.
    pub fn remove(&mut self, node: NodeId) -> Option<Record> {
        let (bucket, Ok(place)) = self.place(node) else { return None };
        let mut records = self.buckets[bucket].to_vec();
        let record = records.remove(place);
        self.buckets[bucket] = records.into();
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
            match number.checked_sub(bucket.len()) {
                Some(beyond) => number = beyond,
                None => return bucket.get(number),
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

    /// The buckets, in the order of the ring.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter()
    }

    /// Takes the buckets of others that have the same content in place of its own.
    pub fn share(&mut self, pool: &mut Pool) {
        for (place, bucket) in self.buckets.iter_mut().enumerate() {
            let known = pool.0.entry((place, self.sums[place])).or_insert_with(|| bucket.clone());
            if !Arc::ptr_eq(known, bucket) && **known == **bucket {
                *bucket = known.clone();
            }
        }
    }
}

/// Buckets of many rosters, by their places and sums.
#[derive(Default)]
pub struct Pool(HashMap<(usize, u64), Bucket>);
