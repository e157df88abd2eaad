//! The committed log of a group: of every entry where it lies and the chain behind it, of recent
//! ones the batch.
//!
//! Invariants worth naming
//! - Entries are in a row: the point, then every index up to the last.
//! - The batches in memory are those of the last entries, without a gap, and of a bounded number of bytes,
//!   however far the stable checkpoint is: the disk has all of them.
//! - The table of the point and the executions behind it make the table of every later point.

use super::{
    batch::{Batch, link},
    keys::Digest,
    table::Table,
};
use crate::consensus::engine::Stored;
use std::collections::VecDeque;

/// What is known of every entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meta {
    digest: Digest,
    chain: Digest,
    stored: Stored,
}

/// An entry to append, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The digest of its batch.
    pub digest: Digest,
    /// Its term.
    pub term: u64,
    /// Requests of clients in it: who, which.
    pub executed: Vec<(u64, u64)>,
    /// Where it lies.
    pub stored: Stored,
}

impl Entry {
    /// The entry of a batch.
    pub fn new(batch: &Batch, stored: Stored) -> Self {
        let requests = batch.requests().filter(|head| head.timestamp != 0);
        let executed = requests.map(|head| (head.client, head.timestamp)).collect();
        Self { digest: *batch.digest(), term: batch.origin() + 1, executed, stored }
    }
}

/// What must be known of a log's beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The last entry that is not held any more; 0 when all are.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The chain behind it.
    pub chain: Digest,
    /// The clients' table behind it.
    pub table: Table,
}

/// The committed log.
#[derive(Clone, Debug)]
pub struct Log {
    point: Point,
    metas: VecDeque<Meta>,
    /// Where each term begins.
    terms: VecDeque<(u64, u64)>,
    /// Requests of clients that were executed behind the point: the entry, who, which.
    executions: VecDeque<(u64, u64, u64)>,
    recent: VecDeque<Batch>,
    recent_bytes: usize,
    cache_bytes: usize,
}

impl Log {
    /// A log that begins behind a point.
    pub fn new(point: Point, cache_bytes: usize) -> Self {
        Self {
            point,
            metas: VecDeque::new(),
            terms: VecDeque::new(),
            executions: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            cache_bytes,
        }
    }

    /// Where it begins.
    pub fn point(&self) -> &Point {
        &self.point
    }

    /// The index of the last entry.
    pub fn last(&self) -> u64 {
        self.point.index + self.metas.len() as u64
    }

    /// The chain behind the last entry.
    pub fn chain(&self) -> Digest {
        self.metas.back().map_or(self.point.chain, |meta| meta.chain)
    }

    fn meta(&self, index: u64) -> Option<&Meta> {
        self.metas.get(index.checked_sub(self.point.index + 1)? as usize)
    }

    /// The chain behind an entry, or the point.
    pub fn chain_at(&self, index: u64) -> Option<Digest> {
        if index == self.point.index {
            return Some(self.point.chain);
        }
        self.meta(index).map(|meta| meta.chain)
    }

    /// The digests of entries from an index on, some at most.
    pub fn digests(&self, first: u64, last: u64, count: usize) -> Vec<Digest> {
        let metas = (first..=last.min(self.last())).map_while(|index| self.meta(index));
        metas.take(count).map(|meta| meta.digest).collect()
    }

    /// The digest of an entry.
    pub fn digest_at(&self, index: u64) -> Option<Digest> {
        self.meta(index).map(|meta| meta.digest)
    }

    /// Where an entry lies.
    pub fn stored(&self, index: u64) -> Option<Stored> {
        self.meta(index).map(|meta| meta.stored)
    }

    /// The term of an entry, or of the point.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.point.index {
            return Some(self.point.term);
        }
        self.meta(index)?;
        let after = self.terms.partition_point(|&(first, _)| first <= index);
        Some(self.terms[after - 1].1)
    }

    /// Appends an entry.
    pub fn push(&mut self, batch: Batch, stored: Stored) {
        self.append(&Entry::new(&batch, stored));
        self.recent_bytes += batch.bytes();
        self.recent.push_back(batch);
        while self.recent_bytes > self.cache_bytes
            && let Some(first) = self.recent.pop_front()
        {
            self.recent_bytes -= first.bytes();
        }
    }

    /// Appends an entry that is on the disk only.
    pub fn push_stored(&mut self, entry: &Entry) {
        self.append(entry);
        self.recent.clear();
        self.recent_bytes = 0;
    }

    fn append(&mut self, entry: &Entry) {
        let Entry { digest, term, executed, stored } = entry;
        let index = self.last() + 1;
        let chain = link(&self.chain(), index, digest);
        let executed = executed.iter().map(|(client, timestamp)| (index, *client, *timestamp));
        self.executions.extend(executed);
        if self.terms.back().is_none_or(|(_, last)| last != term) {
            self.terms.push_back((index, *term));
        }
        self.metas.push_back(Meta { digest: *digest, chain, stored: *stored });
    }

    /// The batch of an entry, when it is in memory.
    pub fn in_memory(&self, index: u64) -> Option<&Batch> {
        let first = self.last() + 1 - self.recent.len() as u64;
        self.recent.get(index.checked_sub(first)? as usize)
    }

    /// Bytes of batches in memory.
    pub fn cached_bytes(&self) -> usize {
        self.recent_bytes
    }

    /// Forgets entries up to an index; whether there were any.
    pub fn compact(&mut self, index: u64) -> bool {
        let index = index.min(self.last());
        let (Some(chain), Some(term)) = (self.chain_at(index), self.term_at(index)) else {
            return false;
        };
        if index <= self.point.index {
            return false;
        }
        while let Some((seq, client, timestamp)) =
            self.executions.front().copied().filter(|(seq, ..)| *seq <= index)
        {
            self.executions.pop_front();
            self.point.table.execute(client, timestamp, seq);
        }
        self.metas.drain(..(index - self.point.index) as usize);
        while self.recent.len() > self.metas.len()
            && let Some(first) = self.recent.pop_front()
        {
            self.recent_bytes -= first.bytes();
        }
        (self.point.index, self.point.chain, self.point.term) = (index, chain, term);
        while self.terms.get(1).is_some_and(|(first, _)| *first <= index + 1) {
            self.terms.pop_front();
        }
        true
    }

    /// The clients' table behind an entry that is held, or the point.
    pub fn table_at(&self, index: u64) -> Table {
        let mut table = self.point.table.clone();
        let executed = self.executions.iter().take_while(|(seq, ..)| *seq <= index);
        executed.for_each(|(seq, client, timestamp)| table.execute(*client, *timestamp, *seq));
        table
    }

    /// Where entries from an index on lie, as many as fit into some bytes.
    pub fn places(&self, first: u64, last: u64, bytes_max: usize) -> Vec<Stored> {
        let mut bytes = 0;
        let stored = (first..=last.min(self.last())).map_while(|index| self.stored(index));
        let fits = stored.take_while(|stored| {
            bytes += stored.bytes as usize;
            bytes <= bytes_max || bytes == stored.bytes as usize
        });
        fits.collect()
    }

    /// Batches in memory may take this many bytes.
    pub(super) fn set_cache_bytes(&mut self, cache_bytes: usize) {
        self.cache_bytes = cache_bytes;
    }
}
