//! Many small values, each found by a number; the memory grows by a chunk at a time, so that
//! nothing is ever copied.

use super::list::{Arena, Link, Linked};
use std::ops::{Index, IndexMut};

/// Values of one chunk.
const CHUNK: usize = 4096;
/// The end of the list of vacant slots.
const NONE: u32 = u32::MAX;

/// Values by their slots. A vacant slot holds the default and uses its link for the list of
/// vacant ones.
pub(super) struct Slab<T> {
    chunks: Vec<Box<[T]>>,
    vacant: u32,
    /// Slots that were in use at some time.
    slots: u32,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), vacant: NONE, slots: 0, len: 0 }
    }
}

impl<T: Default + Linked> Slab<T> {
    /// Values that are there.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Slots, vacant ones among them; every value's slot is below.
    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.vacant != NONE {
            let slot = self.vacant;
            self.vacant = self[slot].link().first();
            self[slot] = value;
            return slot;
        }
        let slot = self.slots;
        if slot as usize == self.chunks.len() * CHUNK {
            self.chunks.push((0..CHUNK).map(|_| T::default()).collect());
        }
        self.slots += 1;
        self[slot] = value;
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> T {
        let value = std::mem::take(&mut self[slot]);
        self.len -= 1;
        if self.len == 0 {
            // What a long queue took is given back when it has gone.
            self.chunks.truncate(1);
            (self.vacant, self.slots) = (NONE, 0);
        } else {
            *self[slot].link() = Link::pair(self.vacant, NONE);
            self.vacant = slot;
        }
        value
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: u32) -> &T {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

impl<T: Linked> Arena for Slab<T> {
    #[inline]
    fn link(&mut self, key: u32) -> &mut Link {
        self[key].link()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Value(u32, Link);

    impl Linked for Value {
        fn link(&mut self) -> &mut Link {
            &mut self.1
        }
    }

    #[test]
    fn slots_are_used_again_and_an_empty_slab_gives_its_memory_back() {
        let mut slab = Slab::default();
        let count = 3 * CHUNK as u32;
        for value in 0..count {
            assert_eq!(slab.insert(Value(value, Link::NONE)), value);
        }
        assert_eq!(slab.remove(5).0, 5);
        assert_eq!(slab.remove(9).0, 9);
        let slots = [50, 90].map(|value| slab.insert(Value(value, Link::NONE)));
        assert_eq!(slots, [9, 5]);
        assert_eq!((slab[9].0, slab[5].0, slab.len()), (50, 90, count as usize));
        assert_eq!((slab.slots(), slab.chunks.len()), (count, 3));
        for slot in 0..count {
            slab.remove(slot);
        }
        assert_eq!((slab.len(), slab.chunks.len()), (0, 1));
        assert_eq!(slab.insert(Value(1, Link::NONE)), 0);
    }
}
