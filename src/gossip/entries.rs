//! The map of one node: keys, values and tombstones, in the order of their versions.
//!
//! Invariants worth naming
//! - Only the owner gives versions, each once, ascending; a map at version `v` has every entry that
//!   the owner had at `v` and has not changed since.
//! - A key lies once in the map, under the version of its last change.
//! - The check is the exclusive or of a hash of every entry that is no tombstone: at the owner's version
//!   every map has the owner's check.
//! - No tombstone at or below the floor is kept. Whoever is below another's floor may hold keys whose
//!   tombstones are gone, and has to begin again.

use super::record::mix;
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

/// Counts the changes of one node's map.
pub type Version = u64;

/// Most bytes of a key, which has at least one.
pub const KEY_BYTES_MAX: usize = 64;
/// Most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// Most keys of a node.
pub const ENTRIES_MAX: usize = 16_384;
/// Most tombstones of a node; the oldest of more are collected before their time.
pub const TOMBSTONES_MAX: usize = 4_096;

/// Why a key was not set. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The key is empty or too long.
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes")]
    Key,
    /// The value is too long.
    #[error("a value has at most {VALUE_BYTES_MAX} bytes")]
    Value,
    /// The map is full.
    #[error("a node has at most {ENTRIES_MAX} entries")]
    Full,
}

#[derive(Clone, Debug, PartialEq)]
struct Slot {
    version: Version,
    /// Nothing is a tombstone.
    value: Option<Arc<[u8]>>,
}

/// A map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entries {
    slots: BTreeMap<Arc<[u8]>, Slot>,
    order: BTreeMap<Version, Arc<[u8]>>,
    version: Version,
    floor: Version,
    tombstones: usize,
    check: u64,
}

/// A hash of an entry, the same everywhere.
fn check_of(key: &[u8], version: Version, value: &[u8]) -> u64 {
    let mut hash = mix(version ^ (key.len() as u64) << 48 ^ (value.len() as u64) << 32);
    for bytes in [key, value] {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash.rotate_left(29) ^ u64::from_le_bytes(word));
        }
    }
    hash
}

impl Entries {
    /// An empty map with a floor.
    pub fn above(floor: Version) -> Self {
        Self { floor, ..Self::default() }
    }

    /// The version of the last change.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Versions at or below it have lost their tombstones.
    pub fn floor(&self) -> Version {
        self.floor
    }

    /// Identifies all entries that are no tombstones.
    pub fn check(&self) -> u64 {
        self.check
    }

    /// Keys that have a value.
    pub fn len(&self) -> usize {
        self.slots.len() - self.tombstones
    }

    /// Whether another change would be one too many.
    pub fn is_full_for(&self, key: &[u8]) -> bool {
        self.value(key).is_none() && self.len() >= ENTRIES_MAX
    }

    /// The value of a key.
    pub fn value(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.slots.get(key)?.value.as_ref()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<[u8]>)> {
        self.slots.iter().filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)))
    }

    /// Keys of which a value is there, with the version of it.
    pub fn versions(&self) -> impl Iterator<Item = (&Arc<[u8]>, Version)> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.value.is_some())
            .map(|(key, slot)| (key, slot.version))
    }

    /// The version and value of a key that is no tombstone.
    pub fn version_of(&self, key: &[u8]) -> Option<Version> {
        self.slots.get(key).filter(|slot| slot.value.is_some()).map(|slot| slot.version)
    }

    /// Changes above a version, in their order.
    pub fn since(&self, version: Version) -> impl Iterator<Item = (Version, &[u8], Option<&[u8]>)> {
        self.order.range((Excluded(version), Unbounded)).map(|(version, key)| {
            let slot = self.slots.get(key).expect("what is in order has a slot");
            (*version, &**key, slot.value.as_deref())
        })
    }

    /// Changes a key of the owner's map: gives it the next version.
    pub fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.put(self.version + 1, key, value);
        self.version += 1;
    }

    /// Takes over a change that has a version already.
    pub fn put(&mut self, version: Version, key: &[u8], value: Option<&[u8]>) {
        let key: Arc<[u8]> = match self.slots.get_key_value(key) {
            Some((key, slot)) => {
                self.order.remove(&slot.version);
                match &slot.value {
                    Some(value) => self.check ^= check_of(key, slot.version, value),
                    None => self.tombstones -= 1,
                }
                key.clone()
            }
            None => key.into(),
        };
        if value.is_none() && version <= self.floor {
            self.slots.remove(&key);
            return;
        }
        match value {
            Some(value) => self.check ^= check_of(&key, version, value),
            None => self.tombstones += 1,
        }
        self.order.insert(version, key.clone());
        self.slots.insert(key, Slot { version, value: value.map(Into::into) });
    }

    /// Says that every change up to a version has been taken over.
    pub fn reach(&mut self, version: Version) {
        self.version = self.version.max(version);
    }

    /// Collects the tombstones up to a version.
    pub fn raise_floor(&mut self, floor: Version) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        if self.tombstones == 0 {
            return;
        }
        let old = self.order.range(..=floor);
        let is_tombstone =
            |key: &Arc<[u8]>| self.slots.get(key).is_some_and(|slot| slot.value.is_none());
        let gone: Vec<_> =
            old.filter(|(_, key)| is_tombstone(key)).map(|(at, key)| (*at, key.clone())).collect();
        self.tombstones -= gone.len();
        for (version, key) in gone {
            self.order.remove(&version);
            self.slots.remove(&key);
        }
    }

    /// Loses the tombstones up to a version and tells nobody, which is wrong.
    #[cfg(feature = "planted-bugs")]
    pub fn forget_tombstones(&mut self, version: Version) {
        let floor = std::mem::replace(&mut self.floor, 0);
        self.raise_floor(version);
        self.floor = floor;
    }

    /// The same keys and values under new versions, from one on, without tombstones.
    pub fn begun_again(&self) -> Self {
        let mut again = Self::default();
        self.iter().for_each(|(key, value)| again.write(key, Some(value)));
        // Of an empty map there is something to tell as well: that it is whole.
        again.reach(1);
        again
    }

    /// Tombstones that are kept.
    pub fn tombstones(&self) -> usize {
        self.tombstones
    }
}
