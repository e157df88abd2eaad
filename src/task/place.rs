//! Where the log holds a task's submission.

use super::list::Link;
use std::collections::VecDeque;

/// Where a committed record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which segment of the log: the number that no other segment ever has.
    pub generation: u64,
    /// Where the record begins in it, bytes.
    pub offset: u32,
}

/// The generation of no place.
const NOWHERE: u32 = u32::MAX;

/// A [`Place`], or none, in eight bytes.
///
/// An entry without a place may keep the links of a list in the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot(Link);

impl Spot {
    /// No place.
    pub(super) const NONE: Self = Self(Link::pair(NOWHERE, NOWHERE));

    #[inline]
    pub(super) fn place(self) -> Option<Place> {
        let (generation, offset) = (self.0.first(), self.0.second());
        (generation != NOWHERE).then(|| Place { generation: generation.into(), offset })
    }

    /// The links that an entry without a place keeps in its stead.
    #[inline]
    pub(super) fn link(&mut self) -> &mut Link {
        &mut self.0
    }

    /// Keeps the key of an entry.
    pub(super) fn from_key(key: u32) -> Self {
        Self(Link::pair(NOWHERE, key))
    }

    /// What [`Spot::from_key`] kept.
    pub(super) fn key(self) -> u32 {
        self.0.second()
    }
}

impl Default for Spot {
    fn default() -> Self {
        Self::NONE
    }
}

impl From<Place> for Spot {
    #[inline]
    fn from(place: Place) -> Self {
        // Four billion segments of the least size are thousands of terabytes.
        let generation = u32::try_from(place.generation).ok().filter(|number| *number != NOWHERE);
        let generation = generation.expect("a log does not live to see that many segments");
        Self(Link::pair(generation, place.offset))
    }
}

/// How many records of each segment are needed, so that a segment is freed only when none is.
#[derive(Default)]
pub(super) struct Generations {
    first: u64,
    counts: VecDeque<u32>,
}

impl Generations {
    /// A record is needed.
    #[inline]
    pub(super) fn add(&mut self, spot: Spot) {
        let Some(Place { generation, .. }) = spot.place() else { return };
        if self.counts.is_empty() {
            self.first = generation;
        }
        while generation < self.first {
            self.counts.push_front(0);
            self.first -= 1;
        }
        let index = (generation - self.first) as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
    }

    /// A record is no longer needed.
    #[inline]
    pub(super) fn remove(&mut self, spot: Spot) {
        let Some(Place { generation, .. }) = spot.place() else { return };
        let index = (generation - self.first) as usize;
        self.counts[index] -= 1;
        while self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.first += 1;
        }
    }

    /// Whether a segment below a generation has more records than these.
    pub(super) fn has_more_than(&self, others: &Self, generation: u64) -> bool {
        (self.first..generation).zip(&self.counts).any(|(at, count)| *count > others.count(at))
    }

    fn count(&self, generation: u64) -> u32 {
        let index = generation.checked_sub(self.first);
        let count = index.and_then(|index| self.counts.get(index as usize));
        count.copied().unwrap_or(0)
    }

    /// Whether no segment below a generation has a record that is needed.
    pub(super) fn is_clear_before(&self, generation: u64) -> bool {
        self.counts.is_empty() || self.first >= generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(generation: u64) -> Spot {
        Place { generation, offset: 7 }.into()
    }

    #[test]
    fn a_place_survives_its_packed_form() {
        let place = Place { generation: 5, offset: u32::MAX };
        assert_eq!(Spot::from(place).place(), Some(place));
        assert_eq!(Spot::NONE.place(), None);
        assert_eq!(Spot::from_key(9).key(), 9);
        assert_eq!(Spot::from_key(9).place(), None);
    }

    #[test]
    fn what_is_only_remembered_needs_no_segment() {
        let (mut all, mut remembered) = (Generations::default(), Generations::default());
        assert!(!all.has_more_than(&remembered, u64::MAX));
        for generation in [4, 5, 5, 7] {
            all.add(at(generation));
        }
        assert!(!all.has_more_than(&remembered, 4) && all.has_more_than(&remembered, 5));
        for generation in [4, 5] {
            remembered.add(at(generation));
        }
        assert!(!all.has_more_than(&remembered, 5) && all.has_more_than(&remembered, 6));
        remembered.add(at(5));
        assert!(!all.has_more_than(&remembered, 7) && all.has_more_than(&remembered, 8));
    }

    #[test]
    fn a_generation_is_clear_when_its_last_record_is() {
        let mut generations = Generations::default();
        assert!(generations.is_clear_before(u64::MAX));
        for generation in [7, 7, 9, 5] {
            generations.add(at(generation));
        }
        assert!(generations.is_clear_before(5) && !generations.is_clear_before(6));
        generations.remove(at(5));
        assert!(generations.is_clear_before(7) && !generations.is_clear_before(8));
        generations.remove(at(7));
        assert!(!generations.is_clear_before(8));
        generations.remove(at(7));
        assert!(generations.is_clear_before(9) && !generations.is_clear_before(10));
        generations.remove(at(9));
        generations.add(at(12));
        assert!(generations.is_clear_before(12) && !generations.is_clear_before(13));
    }
}
