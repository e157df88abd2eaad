//! A group's log, built again from what was written, in the order in which it was written.

use super::{
    entries::Entries,
    membership::{Members, change_of},
    outputs::{HardState, Point, Stored},
};
use bytes::Bytes;

/// What was read back cannot be a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing.
    #[error("entry {expected} is missing, entry {found} follows")]
    Gap {
        /// The one that should come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// Entries that were committed are missing at the end.
    #[error("entries up to {commit} were committed, the last one is {last}")]
    Short {
        /// What the hard state says.
        commit: u64,
        /// The last entry.
        last: u64,
    },
    /// A committed entry is overwritten.
    #[error("entry {0} was compacted and is written again")]
    Compacted(u64),
    /// The entries begin in the middle, and nothing tells what was before.
    #[error("the entries begin at {0}, and nothing tells what was before")]
    NoPoint(u64),
    /// A change of the membership cannot be read.
    #[error("entry {0} is no change of the membership")]
    Change(u64),
}

/// Collects what was written of one group.
#[derive(Debug)]
pub struct Restore {
    partition: u16,
    entries: Entries,
    /// The entries begin in the middle: those before were compacted, which is still to come.
    is_floating: bool,
    /// Nothing was read yet.
    is_untouched: bool,
    told: u64,
}

impl Restore {
    /// A group that begins its life with these voters. Its log begins behind a first entry that
    /// nobody holds, so that a node that joins later is told the membership with that point.
    pub fn with_voters(partition: u16, voters: &[u64]) -> Self {
        let members = Members::of_voters(voters);
        let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
        Self::new(partition, Point { index: 1, term: 1, members }, hard_state)
    }

    /// A group that this node knows nothing of: it waits to be told.
    pub fn empty(partition: u16) -> Self {
        Self::new(partition, Point::default(), HardState::default())
    }

    fn new(partition: u16, point: Point, hard_state: HardState) -> Self {
        let entries = Entries::new(point, hard_state, 0);
        Self { partition, entries, is_floating: false, is_untouched: true, told: 0 }
    }

    /// The partition.
    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// An entry; `change` are the data of one that is a change of the membership.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn entry(
        &mut self,
        index: u64,
        term: u64,
        stored: Stored,
        change: Option<&[u8]>,
    ) -> Result<(), Broken> {
        if change.is_some_and(|data| change_of(data).is_none()) {
            return Err(Broken::Change(index));
        }
        let expected = self.entries.last() + 1;
        if index > expected && self.is_untouched || index < self.entries.first() && self.is_floating
        {
            // Segments before were freed; what was before tells the compaction that follows.
            let point = Point { index: index.saturating_sub(1), ..Point::default() };
            self.entries = Entries::new(point, self.entries.hard_state(), 0);
            self.is_floating = true;
        } else if index > expected {
            return Err(Broken::Gap { expected, found: index });
        } else if index < self.entries.first() {
            return Err(Broken::Compacted(index));
        }
        self.is_untouched = false;
        self.entries.append_stored(index, term, stored, change.map(Bytes::copy_from_slice));
        Ok(())
    }

    /// Whether what is written by this node is committed with that: it has been the only voter ever
    /// since the point. `None` while the point is not known.
    pub fn is_alone(&self, node: u64) -> Option<bool> {
        let is_voter = self.entries.members().is_voter(node);
        (!self.is_floating).then(|| is_voter && self.entries.is_alone())
    }

    /// A hard state.
    pub fn hard_state(&mut self, state: HardState) {
        self.entries.set_hard_state(state);
    }

    /// A point that the log begins behind.
    ///
    /// # Errors
    /// When entries between the point and the first one are missing.
    pub fn compacted(&mut self, point: Point) -> Result<(), Broken> {
        let first = self.entries.first();
        if point.index == 0 && self.is_untouched {
            // It was taken out of the group in segments that were freed.
            self.begin_behind(point);
            return Ok(());
        }
        if point.index < first && !self.is_floating {
            // A log tells its point again before what it was told in first is freed.
            return Ok(());
        }
        if point.index + 1 < first {
            // It was told again when the entries behind it were still there; a later one follows.
            return Ok(());
        }
        let kept = self.after(&point);
        // Where segments before were freed, it may be a point of which all entries are gone as
        // well, and a later one follows.
        let is_untouched = self.is_untouched && kept.is_empty();
        self.installed(point);
        self.is_untouched = is_untouched;
        for (index, term, stored, change) in kept {
            self.entries.append_stored(index, term, stored, change);
        }
        Ok(())
    }

    /// The log was replaced by a point.
    pub fn installed(&mut self, point: Point) {
        (self.is_untouched, self.is_floating) = (false, false);
        self.begin_behind(point);
    }

    fn begin_behind(&mut self, point: Point) {
        let mut state = self.entries.hard_state();
        if point.index == 0 {
            // It was taken out of the group, and knows of nothing that is committed.
            state.commit = 0;
        }
        self.entries = Entries::new(point, state, 0);
    }

    /// The entries above a point.
    fn after(&self, point: &Point) -> Vec<(u64, u64, Stored, Option<Bytes>)> {
        (point.index + 1..=self.entries.last())
            .filter_map(|index| {
                let (_, stored) = self.entries.stored(index)?;
                Some((index, self.entries.term_at(index)?, stored, self.entries.change_data(index)))
            })
            .collect()
    }

    /// Committed entries up to this index were read together with the rest and need not be told.
    pub fn told(&mut self, index: u64) {
        self.told = index;
    }

    /// What [`Restore::told`] said.
    pub fn told_upto(&self) -> u64 {
        self.told
    }

    /// The last hard state.
    pub fn state(&self) -> HardState {
        self.entries.hard_state()
    }

    /// The index of the last entry.
    pub fn last(&self) -> u64 {
        self.entries.last()
    }

    /// The log, its hard state made whole; and the index up to which nothing is to be told.
    pub(super) fn finish(mut self, cache_bytes: usize) -> Result<(Entries, u64), Broken> {
        if self.is_floating {
            return Err(Broken::NoPoint(self.entries.first()));
        }
        let mut state = self.entries.hard_state();
        // What is compacted was committed, also when that was not written on its own.
        state.commit = state.commit.max(self.entries.first() - 1);
        if state.commit > self.entries.last() {
            return Err(Broken::Short { commit: state.commit, last: self.entries.last() });
        }
        self.entries.set_hard_state(state);
        self.entries.set_cache_bytes(cache_bytes);
        Ok((self.entries, self.told))
    }
}
