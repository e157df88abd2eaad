//! The nodes that are known, in the order of a ring, with sums by which two nodes find out in which
//! part of the ring they differ.
//!
//! Invariants worth naming
//! - A record's fingerprint is kept beside it, and is its own after every change.
//! - A node's place on the ring is a permutation of its id, the same everywhere. The 256 buckets are
//!   equal parts of the ring.
//! - A bucket's sum is the exclusive or of its records' fingerprints, and the root that of the sums:
//!   two rosters that know the same have the same root.
//! - Copies share the buckets that none of them has changed since.

use super::{
    NodeId,
    record::{Record, Status, mix},
};
use std::{collections::HashMap, sync::Arc};

/// Parts of the ring.
pub const BUCKETS: usize = 256;

/// The nodes of a part of the ring, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    /// The place of each record.
    places: Vec<u64>,
    /// The fingerprint of each.
    prints: Vec<u64>,
    records: Vec<Record>,
}

impl Bucket {
    /// Where a place is, or belongs. Places are spread evenly, so it is near where it would be if the
    /// distances were equal.
    fn find(&self, place: u64) -> Result<usize, usize> {
        let places = &self.places;
        let within = place & u64::MAX >> 8;
        let mut at = ((u128::from(within) * places.len() as u128) >> 56) as usize;
        while at > 0 && places[at - 1] >= place {
            at -= 1;
        }
        while at < places.len() && places[at] < place {
            at += 1;
        }
        if places.get(at) == Some(&place) { Ok(at) } else { Err(at) }
    }

    /// Its nodes.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

/// Known nodes.
#[derive(Clone, Debug)]
pub struct Roster {
    buckets: Vec<Arc<Bucket>>,
    /// Nodes of each bucket.
    lens: [u32; BUCKETS],
    sums: Vec<u64>,
    root: u64,
    len: usize,
    present: usize,
}

impl Roster {
    /// Nobody.
    pub fn new() -> Self {
        let empty = Arc::new(Bucket::default());
        Self {
            buckets: vec![empty; BUCKETS],
            lens: [0; BUCKETS],
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
        let records = self.buckets[buckets].iter().flat_map(|bucket| bucket.records.iter());
        records.filter(move |record| (first..=last).contains(&mix(record.node)))
    }

    /// All nodes.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.buckets.iter().flat_map(|bucket| bucket.records.iter())
    }

    fn place(&self, node: NodeId) -> (usize, Result<usize, usize>) {
        let place = mix(node);
        let bucket = (place >> 56) as usize;
        (bucket, self.buckets[bucket].find(place))
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<&Record> {
        let (bucket, place) = self.place(node);
        Some(&self.buckets[bucket].records[place.ok()?])
    }

    /// The fingerprint of what is known of a node.
    pub fn print(&self, node: NodeId) -> Option<u64> {
        let (bucket, place) = self.place(node);
        Some(self.buckets[bucket].prints[place.ok()?])
    }

    /// Adds a node, unless it is there.
    pub fn insert(&mut self, record: Record) {
        let (bucket, Err(place)) = self.place(record.node) else { return };
        self.len += 1;
        self.lens[bucket] += 1;
        self.present += usize::from(record.claim.status.is_present());
        let print = record.fingerprint();
        self.turn(bucket, print);
        let bucket = Arc::make_mut(&mut self.buckets[bucket]);
        bucket.places.insert(place, mix(record.node));
        bucket.prints.insert(place, print);
        bucket.records.insert(place, record);
    }

    /// Removes a node.
    pub fn remove(&mut self, node: NodeId) -> Option<Record> {
        let (bucket, Ok(place)) = self.place(node) else { return None };
        let of = Arc::make_mut(&mut self.buckets[bucket]);
        of.places.remove(place);
        let (print, record) = (of.prints.remove(place), of.records.remove(place));
        self.len -= 1;
        self.lens[bucket] -= 1;
        self.present -= usize::from(record.claim.status.is_present());
        self.turn(bucket, print);
        Some(record)
    }

    /// Changes what is known of a node.
    pub fn change<R>(&mut self, node: NodeId, how: impl FnOnce(&mut Record) -> R) -> Option<R> {
        let (bucket, Ok(place)) = self.place(node) else { return None };
        let of = Arc::make_mut(&mut self.buckets[bucket]);
        let record = &mut of.records[place];
        let was_present = record.claim.status.is_present();
        let result = how(record);
        let (after, is_present) = (record.fingerprint(), record.claim.status.is_present());
        let before = std::mem::replace(&mut of.prints[place], after);
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
        for (bucket, len) in self.buckets.iter().zip(&self.lens) {
            match number.checked_sub(*len as usize) {
                Some(beyond) => number = beyond,
                None => return bucket.records.get(number),
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
        let here = &self.buckets[bucket].records;
        let others = (1..BUCKETS).map(move |back| (bucket + BUCKETS - back) % BUCKETS);
        here[..before]
            .iter()
            .rev()
            .chain(others.flat_map(|other| self.buckets[other].records.iter().rev()))
            .chain(here[after..].iter().rev())
    }

    /// Known nodes of a status.
    pub fn of(&self, status: Status) -> impl Iterator<Item = &Record> {
        self.iter().filter(move |record| record.claim.status == status)
    }

    /// The buckets, in the order of the ring.
    pub fn buckets(&self) -> impl Iterator<Item = &Arc<Bucket>> {
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
pub struct Pool(HashMap<(usize, u64), Arc<Bucket>>);
