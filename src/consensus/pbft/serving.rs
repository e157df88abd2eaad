//! What members that are behind are given of what is committed here (OSDI '99, §4.4).
//!
//! Batches that are no longer in memory are read from the disk: the caller is asked for them, and the member is
//! answered when they are there.
//!
//! Invariants worth naming
//! - For each member there is one read at a time, and of its questions in a turn a bounded number of bytes is
//!   answered. What is read is bounded in a tick, over all partitions; a question that has to wait for the
//!   next tick is the only one of its member that does.
//! - What the disk gives is compared with what is committed before it is sent.

use super::{
    batch::Batch,
    catch_up::{AGAIN_BYTES, AGAIN_ENTRIES},
    certificate::Certificate,
    codec::{DIGESTS_MAX, ENTRIES_MAX},
    group::Group,
    keys::Digest,
    message::{Digests, Entries, Message, StatusReport},
    outputs::Dropped,
    table::Table,
};
use crate::consensus::engine::Stored;
use std::sync::Arc;

/// Bytes of entries in one answer, when they are more than one.
pub(super) const ANSWER_BYTES: usize = 1 << 20;
/// Bytes of batches that a member is given on its questions in one turn; one more is.
const GIVEN_BYTES: usize = 4 << 20;

/// What a member is told when it was read.
#[derive(Clone, Debug)]
enum Told {
    /// Entries, on its question with this number.
    Entries { id: u64, point: Option<(u64, Digest, Arc<Table>)> },
    /// Entries with these proofs.
    Proven(Vec<Arc<Certificate>>),
    /// The batch of an entry.
    Batch,
}

/// What is being read for a member.
#[derive(Clone, Debug)]
pub struct Serving {
    fetch: u64,
    /// The first entry of it.
    first: u64,
    told: Told,
    since_ms: u64,
}

impl Group {
    /// A caller that never answers is asked anew.
    pub(super) fn forget_serving(&mut self) {
        let (now, patience_ms) = (self.now, self.settings.timing.patience_ms);
        self.serving.retain(|_, serving| now < serving.since_ms + patience_ms);
    }

    /// Asks the caller for entries from an index on, which lie there.
    fn fetch(&mut self, to: u64, first: u64, places: Vec<Stored>, told: Told) {
        self.last_question += 1;
        let (fetch, since_ms) = (self.last_question, self.now);
        self.serving.insert(to, Serving { fetch, first, told, since_ms });
        self.fetches.push((fetch, first, places));
    }

    /// The last entry that can be told of those that a member asks for.
    fn may_serve(&self, first: u64, last: u64) -> Result<u64, Dropped> {
        let last = last.min(self.committed());
        if first == 0 || first > last { Err(Dropped::Seq) } else { Ok(last) }
    }

    /// Tells a member that is behind which entries it misses.
    pub(super) fn serve_digests(
        &mut self,
        from: u64,
        id: u64,
        first: u64,
        last: u64,
    ) -> Result<(), Dropped> {
        let last = self.may_serve(first, last)?;
        if self.given.contains_key(&from) {
            return Err(Dropped::Full);
        }
        self.given.insert(from, 0);
        let begins = self.log.point();
        let point = (first <= begins.index).then_some((begins.index, begins.chain));
        let first = first.max(begins.index + 1);
        let digests = self.log.digests(first, last, DIGESTS_MAX);
        self.tell(from, Message::Digests(Digests { id, point, first, digests }));
        Ok(())
    }

    /// Answers a member that is behind.
    pub(super) fn serve(
        &mut self,
        from: u64,
        id: u64,
        first: u64,
        last: u64,
    ) -> Result<(), Dropped> {
        let asked = (id, first, last);
        let last = self.may_serve(first, last)?;
        if self.serving.contains_key(&from) || self.given.contains_key(&from) {
            return Err(Dropped::Full);
        }
        let begins = self.log.point();
        let point = (first <= begins.index)
            .then(|| (begins.index, begins.chain, Arc::new(begins.table.clone())));
        let first = first.max(begins.index + 1);
        let (mut bytes, mut batches) = (0, Vec::new());
        for seq in first..=last {
            let Some(batch) = self.log.in_memory(seq) else { break };
            bytes += batch.bytes();
            if bytes > ANSWER_BYTES && !batches.is_empty() || batches.len() == ENTRIES_MAX {
                break;
            }
            batches.push(batch.clone());
        }
        if !batches.is_empty() || first > last {
            self.given.insert(from, 0);
            self.tell(from, Message::Entries(Entries { id, point, first, batches }));
            return Ok(());
        }
        if self.read_bytes == 0 {
            self.deferred.insert(from, asked);
            return Ok(());
        }
        self.given.insert(from, 0);
        let mut places = self.log.places(first, last, ANSWER_BYTES);
        places.truncate(ENTRIES_MAX);
        let bytes: usize = places.iter().map(|stored| stored.bytes as usize).sum();
        self.read_bytes = self.read_bytes.saturating_sub(bytes);
        self.fetch(from, first, places, Told::Entries { id, point });
        Ok(())
    }

    /// Answers those whose questions had to wait for this tick.
    pub(super) fn serve_deferred(&mut self) {
        for (from, (id, first, last)) in std::mem::take(&mut self.deferred) {
            // Who asks for nothing that is there any more asks again.
            let _ = self.serve(from, id, first, last);
        }
    }

    /// Answers a fetch with the batches of its entries; `None` when they cannot be read.
    pub fn fetched(&mut self, fetch: u64, batches: Option<Vec<Batch>>) {
        let asked = self.serving.iter().find(|(_, serving)| serving.fetch == fetch);
        let Some(node) = asked.map(|(node, _)| *node) else { return };
        let Some(serving) = self.serving.remove(&node) else { return };
        let Serving { first, told, .. } = serving;
        let Some(batches) = batches else { return };
        // The log may have gone on behind a point meanwhile.
        let is_so = |(seq, batch): (u64, &Batch)| self.log.digest_at(seq) == Some(*batch.digest());
        if !(first..).zip(&batches).all(is_so) {
            return;
        }
        match told {
            Told::Entries { id, point } => {
                self.tell(node, Message::Entries(Entries { id, point, first, batches }));
            }
            Told::Proven(proofs) => {
                let entries = proofs.into_iter().zip(batches).collect();
                self.tell(node, Message::Proven(entries));
            }
            Told::Batch => {
                let batches = batches.into_iter();
                batches.for_each(|batch| self.tell(node, Message::BatchTell(first, batch)));
            }
        }
    }

    /// Sends a replica entries that are committed, with their proofs: it believes those whatever view
    /// it is in.
    pub(super) fn prove(&mut self, node: u64, report: StatusReport) {
        if report.committed < self.stable.seq {
            return;
        }
        let (quorum, mut bytes, mut proofs) = (self.members.quorum(), 0, Vec::new());
        let first = report.committed.saturating_add(1);
        for seq in (first..=self.committed()).take(AGAIN_ENTRIES as usize) {
            let proof = self.slots.get(&seq).and_then(|slot| slot.proof(seq, quorum));
            let (Some(proof), Some(stored)) = (proof, self.log.stored(seq)) else { break };
            bytes += stored.bytes as usize;
            if bytes > AGAIN_BYTES && !proofs.is_empty() {
                break;
            }
            proofs.push(proof);
        }
        if proofs.is_empty() {
            return;
        }
        let in_memory = proofs.iter().map(|proof| self.log.in_memory(proof.seq).cloned());
        if let Some(batches) = in_memory.collect::<Option<Vec<_>>>() {
            let entries = proofs.into_iter().zip(batches).collect();
            self.tell(node, Message::Proven(entries));
        } else if !self.serving.contains_key(&node) && self.read_bytes > 0 {
            self.read_bytes = self.read_bytes.saturating_sub(bytes);
            let last = first + proofs.len() as u64 - 1;
            let places = (first..=last).filter_map(|seq| self.log.stored(seq)).collect();
            self.fetch(node, first, places, Told::Proven(proofs));
        }
    }

    /// Gives a member the batch of an entry that its view began with.
    pub(super) fn answer_batch(
        &mut self,
        from: u64,
        seq: u64,
        digest: &Digest,
    ) -> Result<(), Dropped> {
        if self.given.get(&from).is_some_and(|given| *given > GIVEN_BYTES) {
            return Err(Dropped::Full);
        }
        let kept = self.slots.get(&seq).and_then(|slot| slot.batch(digest));
        let batch = kept.or_else(|| self.log.in_memory(seq).filter(|it| it.digest() == digest));
        if let Some(batch) = batch.cloned() {
            *self.given.entry(from).or_default() += batch.bytes();
            self.tell(from, Message::BatchTell(seq, batch));
            return Ok(());
        }
        // Who misses what is below has a checkpoint to come to.
        let is_committed = seq > self.stable.seq && self.log.digest_at(seq) == Some(*digest);
        let stored = self.log.stored(seq).filter(|_| is_committed).ok_or(Dropped::Seq)?;
        if self.serving.contains_key(&from) || self.read_bytes == 0 {
            return Err(Dropped::Full);
        }
        self.read_bytes = self.read_bytes.saturating_sub(stored.bytes as usize);
        *self.given.entry(from).or_default() += stored.bytes as usize;
        self.fetch(from, seq, vec![stored], Told::Batch);
        Ok(())
    }
}
