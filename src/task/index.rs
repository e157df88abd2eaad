//! Finds slots by what they hold.

use hashbrown::HashTable;

/// Tables of an index. Each grows by itself, so that no growth takes long.
const PARTS: usize = 64;

/// Slots by the hash of what they hold: five to nine bytes each.
#[derive(Default)]
pub(super) struct Index {
    /// None while it is empty.
    parts: Vec<HashTable<u32>>,
    len: usize,
}

/// The table of a hash: by bits that no table of a sensible size looks at.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

impl Index {
    /// Slots in it.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The slot of that hash that is the right one.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.parts.get(part(hash))?.find(hash, |slot| is_it(*slot)).copied()
    }

    /// Adds a slot, which must not be in it; `rehash` gives the hash of any.
    pub(super) fn insert(&mut self, hash: u64, slot: u32, rehash: impl Fn(u32) -> u64) {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, HashTable::new);
        }
        self.parts[part(hash)].insert_unique(hash, slot, |slot| rehash(*slot));
        self.len += 1;
    }

    /// Removes a slot, which must be in it.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let found = self.parts[part(hash)].find_entry(hash, |there| *there == slot);
        found.expect("what is removed was inserted").remove();
        self.len -= 1;
        if self.len == 0 {
            self.parts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_found_until_it_is_removed() {
        let hash = |slot: u32| u64::from(slot / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut index = Index::default();
        for slot in 0..10_000 {
            index.insert(hash(slot), slot, hash);
        }
        assert_eq!(index.len(), 10_000);
        for slot in 0..10_000 {
            assert_eq!(index.find(hash(slot), |there| there == slot), Some(slot));
            index.remove(hash(slot), slot);
            assert_eq!(index.find(hash(slot), |there| there == slot), None);
        }
        assert_eq!(index.len(), 0);
        assert_eq!(index.find(7, |_| true), None);
    }
}
