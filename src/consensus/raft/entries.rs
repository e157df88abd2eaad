//! The log of one group as raft sees it: of every entry where it lies, of recent ones the bytes.
//!
//! Invariants worth naming
//! - Entries are in a row: the point, then every index up to the last.
//! - The bytes that are in memory are those of the last entries, without a gap, and of all that
//!   may still be needed at once: whatever was not told as committed.
//! - Beyond those, what the bytes take is bounded for each group. A group has its own share
//!   instead of one cache for all, so that a busy group cannot drive out what the followers of a
//!   quiet one are about to ask for, and no group waits for a lock.

use super::{
    fetching::Fetching,
    membership::{Members, change_of},
    outputs::{HardState, Kind, Point, Stored},
};
use crate::consensus::place::Place;
use bytes::Bytes;
use raft::{
    Error, GetEntriesContext, RaftState, Result, Storage, StorageError,
    eraftpb::{self, ConfChangeV2, Entry, Snapshot},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
};

/// Counted for each entry in memory and in a message, beside its data.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;

/// What is known of every entry, sixteen bytes: a log may hold tens of millions.
#[derive(Clone, Copy, Debug)]
struct Meta {
    bytes: u32,
    offset: u32,
    /// The lowest bit tells a change of the membership.
    generation_and_kind: u64,
}

impl Meta {
    fn new(kind: Kind, stored: Stored) -> Self {
        let Stored { place, bytes } = stored;
        let is_change = u64::from(kind == Kind::Change);
        let generation_and_kind = place.generation << 1 | is_change;
        Self { bytes, offset: place.offset, generation_and_kind }
    }

    fn kind(self) -> Kind {
        if self.generation_and_kind & 1 == 1 { Kind::Change } else { Kind::Normal }
    }

    fn place(self) -> Place {
        Place { generation: self.generation_and_kind >> 1, offset: self.offset }
    }
}

/// The log of one group.
#[derive(Debug)]
pub struct Entries {
    /// The index and term of the last entry that is not held any more.
    compacted: (u64, u64),
    metas: VecDeque<Meta>,
    /// Where each term begins; terms change rarely.
    terms: VecDeque<(u64, u64)>,
    /// The data of the last entries.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    cache_bytes: usize,
    /// Entries above this were not told as committed, and stay in memory.
    told: u64,
    /// The data of all changes: raft reads them whenever it applies entries.
    changes: BTreeMap<u64, Bytes>,
    /// The membership after each change that was applied; the first is that of the point.
    history: VecDeque<(u64, Members)>,
    hard_state: HardState,
    pub(super) fetching: RefCell<Fetching>,
}

impl Entries {
    /// A log that begins behind a point and keeps up to `cache_bytes` of what was told already.
    pub(super) fn new(point: Point, hard_state: HardState, cache_bytes: usize) -> Self {
        let Point { index, term, members } = point;
        Self {
            compacted: (index, term),
            metas: VecDeque::new(),
            terms: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            cache_bytes,
            told: index,
            changes: BTreeMap::new(),
            history: VecDeque::from([(index, members)]),
            hard_state,
            fetching: RefCell::default(),
        }
    }

    /// The index of the last entry.
    pub fn last(&self) -> u64 {
        self.compacted.0 + self.metas.len() as u64
    }

    /// The index of the first entry that is held, or would be.
    pub fn first(&self) -> u64 {
        self.compacted.0 + 1
    }

    /// The term of the entry at an index; `None` when it is not held.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.compacted.0 {
            return Some(self.compacted.1);
        }
        if index < self.compacted.0 || index > self.last() {
            return None;
        }
        let after = self.terms.partition_point(|&(first, _)| first <= index);
        Some(self.terms[after - 1].1)
    }

    /// The point that the log begins behind.
    pub fn point(&self) -> Point {
        let (index, term) = self.compacted;
        Point { index, term, members: self.history[0].1.clone() }
    }

    /// The membership after the last change that was applied.
    pub fn members(&self) -> &Members {
        &self.history.back().expect("the membership of the point is always there").1
    }

    /// The index of the last change that was applied, or of the point.
    pub fn members_since(&self) -> u64 {
        self.history.back().expect("the membership of the point is always there").0
    }

    /// Whether the group has been one voter alone ever since the point: no change lies behind it,
    /// applied or not.
    pub fn is_alone(&self) -> bool {
        self.history[0].1.is_single() && self.changes.is_empty()
    }

    /// What was last set.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Bytes that entries take in memory.
    pub fn cached_bytes(&self) -> usize {
        self.recent_bytes
    }

    /// The data of an entry, when they are in memory.
    pub fn in_memory(&self, index: u64) -> Option<Bytes> {
        let place = index.checked_sub(self.recent_first())?;
        self.recent.get(place as usize).cloned()
    }

    /// Where an entry lies, of whatever kind.
    pub fn stored(&self, index: u64) -> Option<(Kind, Stored)> {
        let meta = self.meta(index)?;
        Some((meta.kind(), Stored { place: meta.place(), bytes: meta.bytes }))
    }

    fn meta(&self, index: u64) -> Option<Meta> {
        self.metas.get(index.checked_sub(self.first())? as usize).copied()
    }

    /// Appends entries in a row; whatever was at their indexes and above is cut off.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            let kind = Kind::of(entry.get_entry_type());
            let stored = Stored { place: Place::default(), bytes: entry.data.len() as u32 };
            self.push(entry.index, entry.term, kind, stored);
            self.recent_bytes += entry.data.len() + ENTRY_OVERHEAD_BYTES;
            self.recent.push_back(entry.data.clone());
            if kind == Kind::Change {
                // A copy: the data may be a slice of a large message.
                self.changes.insert(entry.index, Bytes::copy_from_slice(&entry.data));
            }
        }
        self.evict();
    }

    /// Appends an entry whose data are on the disk only; those of a change are given as well.
    pub(super) fn append_stored(
        &mut self,
        index: u64,
        term: u64,
        stored: Stored,
        change: Option<Bytes>,
    ) {
        let kind = if change.is_some() { Kind::Change } else { Kind::Normal };
        self.push(index, term, kind, stored);
        self.recent.clear();
        self.recent_bytes = 0;
        if let Some(data) = change {
            self.changes.insert(index, data);
        }
    }

    fn push(&mut self, index: u64, term: u64, kind: Kind, stored: Stored) {
        self.cut_off(index);
        assert_eq!(index, self.last() + 1, "entries are appended without a gap");
        if self.terms.back().is_none_or(|&(_, last)| last != term) {
            self.terms.push_back((index, term));
        }
        self.metas.push_back(Meta::new(kind, stored));
    }

    /// Removes the entries from an index on.
    fn cut_off(&mut self, from: u64) {
        if from > self.last() {
            return;
        }
        assert!(from >= self.first(), "what is compacted is committed");
        let removed = self.last() + 1 - from;
        self.metas.truncate((from - self.first()) as usize);
        while self.terms.back().is_some_and(|&(first, _)| first >= from) {
            self.terms.pop_back();
        }
        for _ in 0..removed.min(self.recent.len() as u64) {
            let data = self.recent.pop_back().expect("there are as many");
            self.recent_bytes -= data.len() + ENTRY_OVERHEAD_BYTES;
        }
        self.changes.split_off(&from);
        self.fetching.get_mut().forget_all();
    }

    /// Tells where an entry was written; ignored when it was cut off meanwhile.
    pub(super) fn placed(&mut self, index: u64, term: u64, place: Place) {
        if index <= self.compacted.0 || self.term_at(index) != Some(term) {
            return;
        }
        let at = (index - self.first()) as usize;
        let Meta { bytes, .. } = self.metas[at];
        self.metas[at] = Meta::new(self.metas[at].kind(), Stored { place, bytes });
    }

    /// Everything up to an index was told as committed: it may leave the memory.
    pub(super) fn told(&mut self, index: u64) {
        self.told = self.told.max(index);
        self.evict();
    }

    fn evict(&mut self) {
        // The log of a single voter is never sent to anybody.
        let keep = if self.members().is_single() { 0 } else { self.cache_bytes };
        while self.recent_bytes > keep && self.recent_first() <= self.told {
            let Some(data) = self.recent.pop_front() else { return };
            self.recent_bytes -= data.len() + ENTRY_OVERHEAD_BYTES;
        }
    }

    fn recent_first(&self) -> u64 {
        self.last() + 1 - self.recent.len() as u64
    }

    /// Forgets the entries up to an index, which were told; false when there are none.
    pub(super) fn compact(&mut self, index: u64) -> bool {
        let index = index.min(self.told);
        let Some(term) = self.term_at(index).filter(|_| index > self.compacted.0) else {
            return false;
        };
        self.metas.drain(..(index - self.compacted.0) as usize);
        self.compacted = (index, term);
        while self.terms.get(1).is_some_and(|&(first, _)| first <= index + 1) {
            self.terms.pop_front();
        }
        if self.metas.is_empty() {
            self.terms.clear();
        }
        while self.recent.len() > self.metas.len() {
            let data = self.recent.pop_front().expect("there are more than entries");
            self.recent_bytes -= data.len() + ENTRY_OVERHEAD_BYTES;
        }
        self.changes = self.changes.split_off(&(index + 1));
        while self.history.get(1).is_some_and(|&(at, _)| at <= index) {
            self.history.pop_front();
        }
        self.fetching.get_mut().forget_before(index + 1);
        true
    }

    /// Replaces the log by a point.
    pub(super) fn install(&mut self, point: Point) {
        *self = Self::new(point, self.hard_state, self.cache_bytes);
    }

    /// A change was applied.
    pub(super) fn changed(&mut self, index: u64, members: Members) {
        self.history.push_back((index, members));
    }

    /// The change that an entry carries; `None` when its data are not one.
    pub(super) fn change(&self, index: u64) -> Option<ConfChangeV2> {
        change_of(self.changes.get(&index)?)
    }

    /// The data of a change.
    pub(super) fn change_data(&self, index: u64) -> Option<Bytes> {
        self.changes.get(&index).cloned()
    }

    pub(super) fn set_cache_bytes(&mut self, cache_bytes: usize) {
        self.cache_bytes = cache_bytes;
    }

    /// The data of an entry, when they are in memory.
    fn data(&self, index: u64) -> Option<Bytes> {
        if let Some(at) = index.checked_sub(self.recent_first()) {
            return self.recent.get(at as usize).cloned();
        }
        if self.meta(index)?.bytes == 0 {
            return Some(Bytes::new());
        }
        self.change_data(index)
    }

    fn entry(&self, index: u64, data: Bytes) -> Entry {
        let meta = self.meta(index).expect("the caller asks for what is held");
        let mut entry = Entry { index, data, ..Entry::default() };
        entry.term = self.term_at(index).expect("it is held");
        entry.set_entry_type(meta.kind().entry_type());
        entry
    }

    /// Where the entries of a fetch lie, from an index on, up to a number of bytes and entries.
    pub(super) fn places(&self, first: u64, max_bytes: usize, max_entries: usize) -> Vec<Stored> {
        let mut left = max_bytes;
        let mut places = Vec::new();
        let end = self.recent_first().min(first + max_entries as u64);
        for index in first..end {
            let Some((_, stored)) = self.stored(index) else { break };
            if stored.bytes as usize > left && !places.is_empty() {
                break;
            }
            left = left.saturating_sub(stored.bytes as usize + ENTRY_OVERHEAD_BYTES);
            places.push(stored);
        }
        places
    }
}

impl Storage for Entries {
    fn initial_state(&self) -> Result<RaftState> {
        let HardState { term, vote, commit, .. } = self.hard_state;
        let mut hard_state = eraftpb::HardState::default();
        (hard_state.term, hard_state.vote, hard_state.commit) = (term, vote, commit);
        Ok(RaftState::new(hard_state, self.history[0].1.to_conf_state()))
    }

    /// To send them, entries must be whole: those that are on the disk only are asked for. In all
    /// other cases raft looks at terms, indexes and changes alone: data that are not in memory are
    /// left out.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        let must_be_whole = context.can_async();
        let mut left = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        let fetching = self.fetching.borrow();
        for index in low..high {
            let data = match self.data(index).or_else(|| fetching.data(index)) {
                Some(data) => data,
                None if must_be_whole => break,
                None => Bytes::new(),
            };
            let bytes = (data.len() + ENTRY_OVERHEAD_BYTES) as u64;
            if bytes > left && !entries.is_empty() {
                return Ok(entries);
            }
            left = left.saturating_sub(bytes);
            entries.push(self.entry(index, data));
        }
        if entries.is_empty() && low < high {
            drop(fetching);
            self.fetching.borrow_mut().want(low, context);
            return Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        self.term_at(index).ok_or(Error::Store(if index < self.compacted.0 {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// The log is the state: a snapshot is the point alone. A peer that joined after the point is
    /// no member there and would refuse it; a learner more in its own view changes no quorum, and
    /// the entries after the point tell it when it really joined.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let (index, term) = self.compacted;
        if index < request_index || index == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut members = self.history[0].1.clone();
        members.know(to);
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(members.to_conf_state());
        Ok(snapshot)
    }
}
