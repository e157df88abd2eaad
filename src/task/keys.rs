//! The keys that make submissions idempotent: for a time each stands for the task that it was
//! first submitted with.

use super::{
    index::Index,
    list::{Link, Linked, List},
    place::Spot,
    slab::Slab,
};
use crate::{config::AGENT_NAME_BYTES_MAX, wire::api::Priority};
use sha2::{Digest, Sha256};
use std::hash::{BuildHasher, RandomState};

/// A key expires at a multiple of this, so that many do at a time, milliseconds.
pub(super) const EXPIRY_STEP_MS: u64 = 1_000;

/// Longest key that a submitter may choose, bytes.
pub const CHOSEN_KEY_BYTES_MAX: usize = 256;

/// Longest key, bytes: its scope, which is the name of an agent type, a zero byte, and what the
/// submitter chose.
pub const KEY_BYTES_MAX: usize = AGENT_NAME_BYTES_MAX + 1 + CHOSEN_KEY_BYTES_MAX;

/// A key as it comes with a submission.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// What the submitter chose, in its scope.
    pub bytes: &'a [u8],
    /// Tells whether a second submission is the same as the first: the [`Fingerprint::hash`],
    /// or [`Fingerprint::digest`] where nodes agree on it.
    pub body_hash: u64,
}

/// What two submissions with one key must agree in, as their submitters gave it.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint<'a> {
    /// The agent type's name.
    pub agent_type: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// The priority.
    pub priority: Priority,
    /// How long an attempt may take, milliseconds; 0 for the node's default.
    pub timeout_ms: u64,
    /// Attempts; 0 for the node's default.
    pub max_attempts: u32,
    /// The delay, milliseconds.
    pub delay_ms: u64,
}

impl Fingerprint<'_> {
    /// A number that is the same in every process, since the log keeps it.
    pub fn hash(&self) -> u64 {
        let mut state = 0x2545_f491_4f6c_dd1d;
        self.numbers().iter().for_each(|number| state = fold(state, *number));
        for bytes in [self.agent_type.as_bytes(), self.payload] {
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                state = fold(state, u64::from_le_bytes(word));
            }
        }
        fold(state, 0)
    }

    /// What is no text, and how long the texts are.
    fn numbers(&self) -> [u64; 6] {
        [
            self.priority as u64,
            self.timeout_ms,
            self.max_attempts.into(),
            self.delay_ms,
            self.agent_type.len() as u64,
            self.payload.len() as u64,
        ]
    }

    /// The same where nodes may lie: nobody can find another submission that has the number of this one.
    pub fn digest(&self) -> u64 {
        let mut hasher = Sha256::new_with_prefix(b"coreflow submission 1\0");
        self.numbers().iter().for_each(|number| hasher.update(number.to_le_bytes()));
        hasher.update(self.agent_type);
        hasher.update(self.payload);
        u64::from_le_bytes(*hasher.finalize().first_chunk().expect("a digest has 32 bytes"))
    }
}

/// Mixes a word in: both halves of a product, as wyhash does.
fn fold(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * 0x9e37_79b9_7f4a_7c15;
    (product as u64 ^ (product >> 64) as u64).rotate_left(23) ^ word
}

/// A key and the task that it stands for.
#[derive(Default)]
pub(super) struct KeyEntry {
    bytes: Box<[u8]>,
    body_hash: u64,
    /// In halves, so that nothing is lost to alignment.
    random: [u64; 2],
    /// Milliseconds of the node.
    expires_ms: u64,
    /// Where the log has it; nowhere while it is not committed, or of a transient task.
    spot: Spot,
    link: Link,
}

const _: () = assert!(size_of::<KeyEntry>() == 64);

impl KeyEntry {
    /// A key that stands for a task until a time, or up to [`EXPIRY_STEP_MS`] longer.
    pub(super) fn new(key: Key<'_>, random: u128, expires_ms: u64, spot: Spot) -> Self {
        Self {
            bytes: key.bytes.into(),
            body_hash: key.body_hash,
            random: [random as u64, (random >> 64) as u64],
            expires_ms: expires_ms.div_ceil(EXPIRY_STEP_MS).saturating_mul(EXPIRY_STEP_MS),
            spot,
            link: Link::NONE,
        }
    }

    /// The same until exactly a time.
    pub(super) fn exact(key: Key<'_>, random: u128, expires_ms: u64, spot: Spot) -> Self {
        Self { expires_ms, ..Self::new(key, random, 0, spot) }
    }

    /// The task that it stands for.
    pub(super) fn random(&self) -> u128 {
        u128::from(self.random[1]) << 64 | u128::from(self.random[0])
    }

    pub(super) fn key(&self) -> Key<'_> {
        Key { bytes: &self.bytes, body_hash: self.body_hash }
    }

    pub(super) fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    pub(super) fn spot(&self) -> Spot {
        self.spot
    }

    /// Whether the slot is in use: no key is empty.
    pub(super) fn is_there(&self) -> bool {
        !self.bytes.is_empty()
    }
}

impl Linked for KeyEntry {
    #[inline]
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

/// A partition's keys.
#[derive(Default)]
pub(super) struct Keys {
    slab: Slab<KeyEntry>,
    index: Index,
    /// The one that expires first comes first.
    order: List,
    hasher: RandomState,
}

impl Keys {
    /// Keys that are there.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Slots, vacant ones among them.
    pub(super) fn slots(&self) -> u32 {
        self.slab.slots()
    }

    /// A slot; vacant when it is none.
    pub(super) fn get(&self, slot: u32) -> &KeyEntry {
        &self.slab[slot]
    }

    /// When the first key expires, milliseconds.
    #[inline]
    pub(super) fn next_expiry_ms(&self) -> Option<u64> {
        self.order.first().map(|slot| self.slab[slot].expires_ms)
    }

    /// The slot of a key that has not expired.
    pub(super) fn find(&self, bytes: &[u8], now_ms: u64) -> Option<u32> {
        let slot = self.lookup(bytes)?;
        (self.slab[slot].expires_ms > now_ms).then_some(slot)
    }

    /// The slot of a key, expired or not.
    pub(super) fn lookup(&self, bytes: &[u8]) -> Option<u32> {
        self.index.find(self.hasher.hash_one(bytes), |slot| *self.slab[slot].bytes == *bytes)
    }

    /// Adds a key in the place of what it stood for; that is given back.
    pub(super) fn insert(&mut self, entry: KeyEntry) -> (u32, Option<KeyEntry>) {
        let hash = self.hasher.hash_one(&*entry.bytes);
        let replaced = self.lookup(&entry.bytes).map(|slot| self.remove(slot));
        let slot = self.slab.insert(entry);
        let rehash = |slot| self.hasher.hash_one(&*self.slab[slot].bytes);
        self.index.insert(hash, slot, rehash);
        self.order.push(&mut self.slab, slot);
        (slot, replaced)
    }

    /// Removes a key that is there.
    pub(super) fn remove(&mut self, slot: u32) -> KeyEntry {
        self.index.remove(self.hasher.hash_one(&*self.slab[slot].bytes), slot);
        self.order.remove(&mut self.slab, slot);
        self.slab.remove(slot)
    }

    /// Removes the first key if it has expired.
    pub(super) fn expire(&mut self, now_ms: u64) -> Option<KeyEntry> {
        let slot = self.order.first().filter(|slot| self.slab[*slot].expires_ms <= now_ms)?;
        Some(self.remove(slot))
    }

    /// Says where the log has a key; where it was before, unless the key is gone.
    pub(super) fn set_spot(&mut self, slot: u32, random: u128, spot: Spot) -> Option<Spot> {
        if slot >= self.slab.slots() {
            return None;
        }
        let entry = &mut self.slab[slot];
        let is_it = entry.is_there() && entry.random() == random;
        is_it.then(|| std::mem::replace(&mut entry.spot, spot))
    }

    /// Brings keys that came in any order into the order in which they expire.
    pub(super) fn sort(&mut self) {
        let mut slots: Vec<u32> = Vec::with_capacity(self.slab.len());
        let first = self.order.first();
        let mut next = first;
        while let Some(slot) = next {
            slots.push(slot);
            next = self.order.after(&mut self.slab, slot);
        }
        slots.sort_by_key(|slot| self.slab[*slot].expires_ms);
        self.order = List::default();
        for slot in slots {
            self.order.push(&mut self.slab, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::place::Place;

    fn entry(name: &str, random: u128, expires_ms: u64) -> KeyEntry {
        let key = Key { bytes: name.as_bytes(), body_hash: 5 };
        KeyEntry::new(key, random, expires_ms, Spot::NONE)
    }

    #[test]
    fn a_key_is_found_until_it_expires_and_another_may_take_its_place() {
        let mut keys = Keys::default();
        for (name, random, expires_ms) in [("a", 1, 2_999), ("b", 2, 1_000), ("c", 3, 1_001)] {
            assert!(keys.insert(entry(name, random, expires_ms)).1.is_none());
        }
        assert_eq!(keys.expire(1_500).map(|entry| entry.random()), None, "not sorted yet");
        keys.sort();
        assert_eq!(keys.next_expiry_ms(), Some(1_000));
        assert!(keys.find(b"b", 999).is_some() && keys.find(b"b", 1_000).is_none());
        let (slot, replaced) = keys.insert(entry("b", u128::MAX - 4, 4_000));
        assert_eq!(replaced.map(|entry| entry.random()), Some(2));
        assert_eq!(keys.get(slot).random(), u128::MAX - 4);
        let spot = Spot::from(Place { generation: 1, offset: 2 });
        assert_eq!(keys.set_spot(slot, 2, spot), None, "the key of another task");
        assert_eq!(keys.set_spot(slot, u128::MAX - 4, spot), Some(Spot::NONE));
        let expired: Vec<u128> =
            std::iter::from_fn(|| keys.expire(3_000)).map(|entry| entry.random()).collect();
        assert_eq!((expired, keys.len()), (vec![3, 1], 1));
    }

    #[test]
    fn submissions_that_differ_in_anything_have_different_fingerprints() {
        let one = Fingerprint {
            agent_type: "echo",
            payload: b"payload",
            priority: Priority::Normal,
            timeout_ms: 5,
            max_attempts: 0,
            delay_ms: 0,
        };
        let others = [
            Fingerprint { agent_type: "echop", payload: b"ayload", ..one },
            Fingerprint { payload: b"payloae", ..one },
            Fingerprint { payload: b"payload\0", ..one },
            Fingerprint { priority: Priority::High, ..one },
            Fingerprint { timeout_ms: 0, max_attempts: 5, ..one },
            Fingerprint { delay_ms: 5, ..one },
        ];
        for other in others {
            assert_ne!(other.hash(), one.hash(), "{other:?}");
            assert_ne!(other.digest(), one.digest(), "{other:?}");
        }
        // The log keeps these numbers: they may never change.
        assert_eq!(one.hash(), Fingerprint { ..one }.hash());
        assert_eq!(one.digest(), Fingerprint { ..one }.digest());
    }
}
