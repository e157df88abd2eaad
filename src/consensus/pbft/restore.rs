//! A group's state, built again from what was written, in the order in which it was written.
//!
//! Invariants worth naming
//! - Of the entries that were written at an index, the last one before it is said to be committed is
//!   the one that is; what is said folds into the chain that was said with it.
//! - Entries and certificates above the stable checkpoint are kept; of batches those of entries that are
//!   not said to be committed, up to a number and bytes. Those that something names, which are no more than a
//!   group keeps, are given up last: others still have them.
//! - Entries that are there lie in the order of their indexes; others count as not written.

use super::{
    batch::Batch,
    certificate::{Certificate, Stable},
    execute::body_bytes,
    group::{Head, WINDOW_MAX},
    keys::Digest,
    log::{Entry, Log, Point},
    notes::{Note, View},
    slot::{Proposal, Slot, Written},
    table::Table,
};
use crate::consensus::{engine::Stored, malformed::Malformed, place::Place};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Bytes of batches that are kept, when nobody says; a group keeps half of them.
const KEPT_BYTES: usize = 32 << 20;

/// What was read back cannot be a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing.
    #[error("entry {0} was committed and is missing")]
    Missing(u64),
    /// The entries are not those that were committed.
    #[error("the entries up to {0} do not follow the chain that was written with them")]
    Chain(u64),
    /// The entries begin in the middle, and nothing tells what was before.
    #[error("the entries begin at {0}, and nothing tells what was before")]
    NoPoint(u64),
    /// An entry or a note cannot be read.
    #[error("an entry or a note is none: {0}")]
    Malformed(#[from] Malformed),
}

/// What a note means to whoever hands on what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Nothing.
    Nothing,
    /// Everything up to this entry is committed: of each index, what was written last.
    Committed(u64),
    /// The log begins behind this entry.
    Compacted(u64),
    /// What was committed is to be forgotten: the log begins behind this entry, and what was written
    /// behind it stays, and is soon said to be committed.
    Installed(u64),
}

/// An entry that was written.
#[derive(Clone, Debug)]
struct Version {
    entry: Entry,
    batch: Option<Batch>,
}

/// Collects what was written of one group.
#[derive(Clone, Debug)]
pub struct Restore {
    partition: u16,
    /// Batches that are kept, and their bytes.
    window: usize,
    bytes_max: usize,
    log: Log,
    table: Table,
    versions: BTreeMap<u64, Vec<Version>>,
    /// Of which versions the batches are kept, and how long they are.
    kept: VecDeque<(u64, Digest, usize)>,
    kept_bytes: usize,
    certificates: BTreeMap<u64, Arc<Certificate>>,
    proofs: BTreeMap<u64, Arc<Certificate>>,
    /// What was accepted last at an index, beside what views began with.
    accepted: BTreeMap<u64, Proposal>,
    stables: Vec<Stable>,
    view: View,
    /// What is said to be committed.
    committed: Head,
    numbers_below: u64,
    is_untouched: bool,
}

/// What a group goes on with.
#[derive(Debug)]
pub(super) struct Restored {
    pub log: Log,
    pub table: Table,
    pub view: u64,
    pub is_active: bool,
    pub floor: Head,
    pub bar: u64,
    pub stable: Stable,
    pub target: Option<Stable>,
    pub slots: BTreeMap<u64, Slot>,
    pub numbers_below: u64,
    /// Nothing was ever written.
    pub is_fresh: bool,
}

impl Restore {
    /// A group that begins its life; `checkpoint_every` is that of [`super::group::Settings`].
    pub fn new(partition: u16, checkpoint_every: u64) -> Self {
        Self {
            partition,
            window: 4 * checkpoint_every.min(WINDOW_MAX) as usize,
            bytes_max: KEPT_BYTES,
            log: Log::new(Point::default(), 0),
            table: Table::default(),
            versions: BTreeMap::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            certificates: BTreeMap::new(),
            proofs: BTreeMap::new(),
            accepted: BTreeMap::new(),
            stables: Vec::new(),
            view: View { is_active: true, ..View::default() },
            committed: Head::default(),
            numbers_below: 0,
            is_untouched: true,
        }
    }

    /// It keeps no more bytes of batches than this.
    pub fn with_bytes(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// Bytes of batches that it keeps.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// The partition.
    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// Everything up to this entry is said to be committed.
    pub fn committed(&self) -> u64 {
        self.committed.seq
    }

    /// The log begins behind this entry.
    pub fn begins_behind(&self) -> u64 {
        self.log.point().index
    }

    /// An entry.
    ///
    /// # Errors
    /// When it is none.
    pub fn entry(
        &mut self,
        index: u64,
        heads: Bytes,
        data: Bytes,
        place: Place,
    ) -> Result<(), Broken> {
        self.is_untouched = false;
        let batch = Batch::new(heads, data)?;
        let stored = Stored { place, bytes: body_bytes(&batch) };
        let (digest, bytes) = (*batch.digest(), batch.bytes());
        let versions = self.versions.entry(index).or_default();
        if versions.iter().any(|version| version.entry.digest == digest) {
            versions.retain(|version| version.entry.digest != digest);
            self.give_up(|(known, of, _)| (*known, *of) == (index, digest));
        }
        let versions = self.versions.entry(index).or_default();
        versions.push(Version { entry: Entry::new(&batch, stored), batch: Some(batch) });
        self.kept.push_back((index, digest, bytes));
        self.kept_bytes += bytes;
        while self.kept.len() > 1
            && (self.kept.len() > self.window || self.kept_bytes > self.bytes_max)
        {
            // What names the last one follows it.
            let mut older = self.kept.range(..self.kept.len() - 1);
            let unnamed = older.position(|(index, digest, _)| !self.is_named(*index, digest));
            let Some((index, digest, bytes)) = self.kept.remove(unnamed.unwrap_or(0)) else {
                break;
            };
            self.kept_bytes -= bytes;
            let versions = self.versions.get_mut(&index).into_iter().flatten();
            let versions = versions.filter(|version| version.entry.digest == digest);
            versions.for_each(|version| version.batch = None);
        }
        Ok(())
    }

    /// Whether something that was said names a batch.
    fn is_named(&self, index: u64, digest: &Digest) -> bool {
        let accepted = self.accepted.get(&index).map(|proposal| &proposal.digest);
        let certified = self.certificates.get(&index).map(|certificate| &certificate.digest);
        let mut chosen = self.view.choices.iter().filter(|(seq, _)| *seq == index);
        accepted == Some(digest)
            || certified == Some(digest)
            || chosen.any(|(_, choice)| choice.digest == *digest)
    }

    /// Gives up batches.
    fn give_up(&mut self, is_needless: impl Fn(&(u64, Digest, usize)) -> bool) {
        let Self { kept, kept_bytes, versions, .. } = self;
        kept.retain(|it| {
            if !is_needless(it) {
                return true;
            }
            let (index, digest, bytes) = *it;
            *kept_bytes -= bytes;
            let versions = versions.get_mut(&index).into_iter().flatten();
            let versions = versions.filter(|version| version.entry.digest == digest);
            versions.for_each(|version| version.batch = None);
            false
        });
    }

    /// A note.
    ///
    /// # Errors
    /// When it is none, or contradicts what was read before.
    pub fn note(&mut self, bytes: &Bytes) -> Result<Noted, Broken> {
        self.is_untouched = false;
        match Note::decode(bytes)? {
            Note::Certificate(certificate) => {
                if certificate.proves_commit() {
                    self.proofs.insert(certificate.seq, certificate.clone());
                }
                let known = self.certificates.get(&certificate.seq);
                if known.is_none_or(|known| known.view < certificate.view) {
                    self.certificates.insert(certificate.seq, certificate);
                }
            }
            Note::View(view) => self.view = view,
            Note::Stable(stable) => self.stable(Arc::unwrap_or_clone(stable)),
            Note::Committed(head) => {
                if head.seq > self.committed.seq {
                    self.committed = head;
                    self.give_up(|(index, ..)| *index <= head.seq);
                    self.fold()?;
                    return Ok(Noted::Committed(head.seq));
                }
            }
            Note::Compacted(point) => {
                let index = point.index;
                self.compacted(point)?;
                return Ok(Noted::Compacted(index));
            }
            Note::Installed(point) => {
                let (index, chain) = (point.index, point.chain);
                self.table = point.table.clone();
                self.log = Log::new(point, 0);
                self.committed = Head { seq: index, chain };
                return Ok(Noted::Installed(index));
            }
            Note::Accepted(seq, proposal) => drop(self.accepted.insert(seq, proposal)),
            Note::Numbers(below) => self.numbers_below = self.numbers_below.max(below),
        }
        Ok(Noted::Nothing)
    }

    fn stable(&mut self, stable: Stable) {
        if self.stables.iter().any(|known| known.seq == stable.seq) {
            return;
        }
        self.stables.push(stable);
        self.stables.sort_by_key(|stable| stable.seq);
        // The highest that the log has come to, and what is above.
        let last = self.log.last();
        let reached = self.stables.iter().filter(|stable| stable.seq <= last).count();
        self.stables.drain(..reached.saturating_sub(1));
        // What lies below one that the log has not come to is still shown to others when a view is left.
        let reached = self.stables.first().filter(|stable| stable.seq <= last);
        self.forget(reached.map_or(0, |stable| stable.seq));
    }

    /// Forgets what is known of entries up to one beside the log.
    fn forget(&mut self, upto: u64) {
        self.versions = self.versions.split_off(&(upto + 1));
        self.certificates = self.certificates.split_off(&(upto + 1));
        self.proofs = self.proofs.split_off(&(upto + 1));
        self.accepted = self.accepted.split_off(&(upto + 1));
        self.give_up(|(index, ..)| *index <= upto);
    }

    fn compacted(&mut self, point: Point) -> Result<(), Broken> {
        if point.index <= self.log.point().index {
            return Ok(());
        }
        if point.index <= self.log.last() {
            self.log.compact(point.index);
            return Ok(());
        }
        // Segments before were freed, so what was committed is not known from them.
        self.table = point.table.clone();
        let head = Head { seq: point.index, chain: point.chain };
        self.log = Log::new(point, 0);
        if self.committed.seq < head.seq {
            self.committed = head;
        }
        self.fold()
    }

    /// Appends what is said to be committed to the log, when its beginning is known.
    fn fold(&mut self) -> Result<(), Broken> {
        while self.log.last() < self.committed.seq {
            let seq = self.log.last() + 1;
            let version = self.versions.get(&seq).and_then(|versions| versions.last());
            // Where segments were freed, a point or a later one follows.
            let Some(Version { entry, .. }) = version else { return Ok(()) };
            self.log.push_stored(entry);
            for (client, timestamp) in &entry.executed {
                self.table.execute(*client, *timestamp, seq);
            }
        }
        if self.log.last() == self.committed.seq && self.log.chain() != self.committed.chain {
            return Err(Broken::Chain(self.committed.seq));
        }
        Ok(())
    }

    /// The group's state.
    pub(super) fn finish(mut self, cache_bytes: usize) -> Result<Restored, Broken> {
        self.fold()?;
        if self.log.last() < self.committed.seq {
            let missing = self.log.last() + 1;
            let first = self.versions.keys().find(|index| **index > missing).copied();
            return Err(match first {
                Some(first) if missing == 1 => Broken::NoPoint(first),
                _ => Broken::Missing(missing),
            });
        }
        let last = self.log.last();
        self.give_up(|(index, ..)| *index <= last);
        let stable = self.stables.iter().rev().find(|stable| stable.seq <= last);
        let stable = stable.cloned().unwrap_or_default();
        let target = self.stables.last().filter(|stable| stable.seq > last).cloned();
        self.forget(stable.seq);
        let mut slots: BTreeMap<u64, Slot> = BTreeMap::new();
        let View { view, is_active, floor, choices } = self.view;
        for (seq, certificate) in self.certificates {
            let slot = slots.entry(seq).or_default();
            (slot.certificate, slot.is_certified) = (Some(certificate), true);
        }
        for (seq, proof) in self.proofs {
            slots.entry(seq).or_default().proof = Some(proof);
        }
        let is_choice = |seq: &u64| *seq > stable.seq && is_active;
        let bar = choices.iter().map(|(seq, _)| *seq).max().unwrap_or(floor.seq);
        for (seq, choice) in choices.into_iter().filter(|(seq, _)| is_choice(seq)) {
            slots.entry(seq).or_default().choice = Some(choice);
        }
        let is_of_view = |bound: &Proposal| is_active && bound.view == view;
        for (seq, bound) in self.accepted.into_iter().filter(|(_, bound)| is_of_view(bound)) {
            slots.entry(seq).or_default().bound = Some(bound);
        }
        // Places are in the order of their indexes, or whoever frees what lies before the first would free others too: of
        // entries that were being written again, the first ones alone may have come to the disk. The others are written again.
        let mut behind = self.log.stored(last).map(|stored| stored.place);
        for (seq, versions) in self.versions {
            if seq > stable.seq + self.window as u64 {
                continue;
            }
            let slot = slots.entry(seq).or_default();
            if let Some(Version { entry, .. }) = versions.last() {
                let (digest, place) = (entry.digest, entry.stored.place);
                if behind.is_none_or(|behind| behind < place) {
                    behind = Some(place);
                    slot.written = Some(Written { digest, place, is_durable: true });
                }
            }
            slot.batches = versions.into_iter().filter_map(|version| version.batch).collect();
        }
        self.log.set_cache_bytes(cache_bytes);
        Ok(Restored {
            log: self.log,
            table: self.table,
            view,
            is_active,
            floor,
            bar,
            stable,
            target,
            slots,
            numbers_below: self.numbers_below,
            is_fresh: self.is_untouched,
        })
    }
}
