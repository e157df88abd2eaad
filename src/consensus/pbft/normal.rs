//! The normal case: pre-prepare, prepare, commit (OSDI '99, §4.2).
//!
//! The primary orders entries one behind the other, many under way at once inside the water marks.
//! What is signed is the chain behind an entry. A backup accepts entries in their order, each only
//! behind the chain that it has itself, so a quorum's prepares of an entry are of all before it too.
//!
//! Invariants worth naming
//! - In a view a replica accepts one proposal for an entry.
//! - It sends a commit only when it has certificates of all entries before it.
//! - Of what is not committed it accepts no more bytes than it has room for; the next entry always has
//!   some, so what waits goes on when something is committed.

use super::{
    batch::{Batch, link},
    certificate::Certificate,
    group::{Group, Head, Unplaced},
    keys::Statement,
    message::{Message, PrePrepare, Vote},
    notes::Note,
    outputs::{Dropped, Write},
    ready::AfterDisk,
    slot::{Proposal, Slot, Written},
};
use crate::{
    consensus::place::Place,
    planted::{self, Bug},
};
use std::sync::Arc;

impl Group {
    /// Orders a batch as the primary.
    pub(super) fn order(&mut self, batch: Batch) {
        let (view, seq, parent) = (self.view, self.accepted.seq + 1, self.accepted.chain);
        let chain = self.next_chain(&batch);
        let signature = self.keys.sign(Statement::PrePrepare { view, seq, chain: &chain });
        let order = PrePrepare { view, seq, parent, signature, batch: batch.clone() };
        // It is on its way while this replica's disk writes: a primary that forgot what it has
        // ordered orders nothing in that view any more.
        self.tell_all(Message::PrePrepare(order));
        let proposal = Proposal::new(view, seq, parent, *batch.digest(), signature);
        self.accept(seq, proposal, batch);
    }

    pub(super) fn take_pre_prepare(&mut self, from: u64, order: PrePrepare) -> Result<(), Dropped> {
        let PrePrepare { view, seq, parent, signature, .. } = order;
        if from != self.members.primary(view) {
            return Err(Dropped::Sender);
        }
        let is_next = view > self.view || view == self.view && !self.is_active;
        if view < self.view || view > self.view + self.members.nodes().len() as u64 {
            return Err(Dropped::View);
        }
        if seq <= self.stable.seq || seq > self.high() {
            return Err(Dropped::Seq);
        }
        let proposal = Proposal::new(view, seq, parent, *order.batch.digest(), signature);
        let (has_room, is_open) =
            (order.batch.bytes() <= self.room_at(seq), seq > self.committed());
        let slot = self.slots.entry(seq).or_default();
        if !is_next {
            if is_open
                && slot.choice.is_some_and(|choice| choice.digest == proposal.digest)
                && slot.batch(&proposal.digest).is_none()
            {
                if !has_room {
                    return Err(Dropped::Full);
                }
                slot.keep(order.batch);
                return Ok(());
            }
            if slot.choice.is_some() || seq <= self.bar {
                return Err(Dropped::Duplicate);
            }
        }
        let waits = if is_next { &slot.ahead } else { &slot.waiting };
        if waits.as_ref().is_some_and(|waits| waits.view >= self.view && waits.view < view) {
            return Err(Dropped::Full);
        }
        let waits = waits.as_ref().filter(|waits| waits.view == view);
        let has_none = waits.is_none();
        let known = slot
            .accepted
            .filter(|accepted| accepted.view == view)
            .map(|accepted| accepted.chain)
            .or_else(|| waits.map(|waits| link(&waits.parent, seq, waits.batch.digest())));
        if known.is_some_and(|chain| chain == proposal.chain) {
            return Err(Dropped::Duplicate);
        }
        let comes_next = !is_next && seq == self.accepted.seq + 1;
        if has_none && !comes_next && !self.has_room_for(&order) {
            return Err(Dropped::Full);
        }
        let statement = Statement::PrePrepare { view, seq, chain: &proposal.chain };
        if !self.keys.has_signed(from, statement, &signature) {
            return Err(Dropped::Signature);
        }
        if known.is_some() {
            // It has signed two orders of one entry. The first is kept: others may have it.
            self.counters.caught += 1;
            self.suspect(view);
            return Err(Dropped::Contradiction);
        }
        let slot = self.slots.entry(seq).or_default();
        *(if is_next { &mut slot.ahead } else { &mut slot.waiting }) = Some(order);
        Ok(())
    }

    /// Whether an order may be kept that cannot be accepted yet. Each primary has room of its own, and
    /// all together have as much as f of them and a correct one.
    fn has_room_for(&self, order: &PrePrepare) -> bool {
        let room = self.settings.early_bytes;
        let early = self.slots.values().flat_map(|slot| slot.waiting.iter().chain(&slot.ahead));
        let (mut of_primary, mut all) = (0, 0);
        for known in early {
            let bytes = known.batch.bytes();
            all += bytes;
            if self.members.primary(known.view) == self.members.primary(order.view) {
                of_primary += bytes;
            }
        }
        let bytes = order.batch.bytes();
        of_primary + bytes <= room && all + bytes <= self.members.one_correct() * room
    }

    /// Bytes of batches that are kept of entries behind the one that is to be committed next.
    pub(super) fn accepted_bytes(&self) -> usize {
        let open = self.slots.range(self.committed() + 2..);
        open.flat_map(|(_, slot)| &slot.batches).map(Batch::bytes).sum()
    }

    /// Bytes of batches that are kept of committed entries beside the log's.
    pub(super) fn committed_bytes(&self) -> usize {
        let done = self.slots.range(..=self.committed());
        done.flat_map(|(_, slot)| &slot.batches).map(Batch::bytes).sum()
    }

    /// How many bytes more may be kept of an entry. The one that is to be committed next always has
    /// room, so what waits for some waits for commits.
    pub(super) fn room_at(&self, seq: u64) -> usize {
        if seq <= self.committed() + 1 {
            return usize::MAX;
        }
        self.settings.accepted_bytes.saturating_sub(self.accepted_bytes())
    }

    /// Accepts what can be, in order.
    pub(super) fn accept_waiting(&mut self) {
        while self.is_active
            && !self.is_transferring()
            && self.committed() >= self.floor.seq.max(self.stable.seq)
        {
            let seq = self.accepted.seq + 1;
            let order = self.slots.get(&seq).and_then(|slot| slot.waiting.as_ref());
            let bytes = order.map_or(0, |order| order.batch.bytes());
            if seq > self.high() || bytes > self.room_at(seq) || !self.accept_next(seq) {
                return;
            }
        }
    }

    fn accept_next(&mut self, seq: u64) -> bool {
        let (view, is_mine) = (self.view, self.primary() == self.me);
        let Some(slot) = self.slots.get_mut(&seq) else { return false };
        if let Some(choice) = slot.choice.filter(|choice| choice.view == view) {
            let committed = self.log.chain_at(seq);
            if committed.is_some_and(|chain| chain != choice.chain) {
                self.diverge(seq);
                return false;
            }
            let recent = self.log.in_memory(seq).filter(|it| *it.digest() == choice.digest);
            let Some(batch) = slot.batch(&choice.digest).or(recent).cloned() else {
                if committed.is_some() {
                    // Nobody needs this replica's vote for what it has not got any more.
                    self.accepted = Head { seq, chain: choice.chain };
                    return true;
                }
                self.ask_for_batch(seq, choice.digest);
                return false;
            };
            self.accept(seq, choice, batch);
            return true;
        }
        if seq <= self.bar {
            return false;
        }
        let (committed, parent) = (self.log.chain_at(seq), self.accepted.chain);
        let bound = slot.bound.filter(|bound| bound.view == view);
        let is_fit = |bound: &Proposal| {
            bound.parent == parent && committed.is_none_or(|chain| chain == bound.chain)
        };
        if let Some(bound) = bound.filter(is_fit)
            && let Some(batch) = slot.batch(&bound.digest).cloned()
        {
            // It was accepted before a restart.
            self.accept(seq, bound, batch);
            return true;
        }
        let order = slot.waiting.take().filter(|order| order.view == view && !is_mine);
        let Some(PrePrepare { parent, signature, batch, .. }) = order else {
            if let Some(chain) = committed {
                // Nobody needs its vote for that any more.
                self.accepted = Head { seq, chain };
            } else if let Some(Proposal { digest, .. }) = bound {
                self.ask_for_batch(seq, digest);
            }
            return committed.is_some();
        };
        let proposal = Proposal::new(view, seq, parent, *batch.digest(), signature);
        if parent != self.accepted.chain || !self.may_order(&batch) {
            self.counters.caught += 1;
            self.suspect(view);
            return false;
        }
        if bound.is_some_and(|bound| bound.chain != proposal.chain)
            || committed.is_some_and(|chain| chain != proposal.chain)
        {
            // This replica has accepted another one before it was started again, or knows better.
            self.suspect(view);
            return false;
        }
        self.accept(seq, proposal, batch);
        true
    }

    /// Whether the primary of this view may order a batch behind what is accepted.
    fn may_order(&mut self, batch: &Batch) -> bool {
        if batch.origin() != self.view {
            return false;
        }
        if batch.is_own(self.primary()) {
            return true;
        }
        let mut seen = std::collections::BTreeSet::new();
        let is_fresh = batch.requests().all(|head| {
            self.projected.is_fresh(head.client, head.timestamp)
                && seen.insert((head.client, head.timestamp))
        });
        let Self { keys, requests, .. } = self;
        is_fresh && batch.is_signed(keys, |request| requests.knows(request))
    }

    fn accept(&mut self, seq: u64, proposal: Proposal, batch: Batch) {
        self.write(seq, &batch);
        let slot = self.slots.entry(seq).or_default();
        slot.accepted = Some(proposal);
        let is_new = slot.choice != Some(proposal) && slot.bound != Some(proposal);
        if is_new {
            slot.bound = Some(proposal);
            self.note(&Note::Accepted(seq, proposal));
        }
        if seq > self.log.last() {
            for head in batch.requests().filter(|head| head.timestamp != 0) {
                self.projected.execute(head.client, head.timestamp, seq);
            }
            let slot = self.slots.entry(seq).or_default();
            slot.keep(batch);
            slot.prune();
        }
        self.accepted = Head { seq, chain: proposal.chain };
        let Proposal { view, chain, .. } = proposal;
        self.after_disk.push(AfterDisk::Accepted { view, seq, chain });
        self.certify(seq);
    }

    /// Writes the entry of a batch, unless it was the last that was written there. What was written
    /// above is written again when it is accepted again: the places of committed entries ascend with
    /// their indexes, so that whoever frees what lies before the first of them frees none.
    pub(super) fn write(&mut self, seq: u64, batch: &Batch) {
        let slot = self.slots.entry(seq).or_default();
        let digest = *batch.digest();
        if slot.written.is_none_or(|written| written.digest != digest) {
            let (term, place) = (batch.origin() + 1, Place::default());
            slot.written = Some(Written { digest, place, is_durable: false });
            let (heads, data) = (batch.heads().clone(), batch.data().clone());
            self.writes.push(Write::Entry { term, index: seq, heads, data });
            self.unplaced.push_back(Unplaced { index: seq, term, transfer: None });
            self.slots.range_mut(seq + 1..).for_each(|(_, slot)| slot.written = None);
        }
        self.after_disk.push(AfterDisk::Written { seq, digest });
    }

    /// An entry is on the disk.
    pub(super) fn written_durably(&mut self, seq: u64, digest: super::keys::Digest) {
        let written = self.slots.get_mut(&seq).and_then(|slot| slot.written.as_mut());
        if let Some(written) = written.filter(|written| written.digest == digest) {
            written.is_durable = true;
        }
        self.commit_ready();
    }

    /// An accepted proposal is on the disk: this replica may say so.
    pub(super) fn accepted_durably(&mut self, view: u64, seq: u64, chain: super::keys::Digest) {
        let me = self.me;
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        let is_accepted = slot.accepted.is_some_and(|accepted| accepted.chain == chain);
        if !is_accepted || !self.is_active || self.view != view {
            return;
        }
        if self.members.primary(view) != me {
            let signature = self.keys.sign(Statement::Prepare { view, seq, chain: &chain });
            let vote = Vote { view, seq, chain, signature };
            slot.prepares.insert(me, vote);
            self.tell_all(Message::Prepare(vote));
            self.certify(seq);
        }
        self.commit_ready();
    }

    /// The place for a vote; `None` when it is there.
    fn check_vote(&mut self, vote: &Vote) -> Result<&mut Slot, Dropped> {
        // Of views that are far no votes are kept: whoever is behind hears how a view begins first.
        if vote.view < self.view || vote.view > self.view + self.members.nodes().len() as u64 {
            return Err(Dropped::View);
        }
        if vote.seq <= self.stable.seq || vote.seq > self.high() {
            return Err(Dropped::Seq);
        }
        Ok(self.slots.entry(vote.seq).or_default())
    }

    pub(super) fn take_prepare(&mut self, from: u64, vote: Vote) -> Result<(), Dropped> {
        let Vote { view, seq, chain, signature } = vote;
        if from == self.members.primary(view) {
            return Err(Dropped::Sender);
        }
        let slot = self.check_vote(&vote)?;
        if slot.certificate.as_ref().is_some_and(|known| known.view >= view) {
            return Err(Dropped::Duplicate);
        }
        check_against(slot.prepares.get(&from), &vote)?;
        if !self.keys.has_signed(from, Statement::Prepare { view, seq, chain: &chain }, &signature)
        {
            return Err(Dropped::Signature);
        }
        self.slots.entry(seq).or_default().prepares.insert(from, vote);
        self.certify(seq);
        Ok(())
    }

    /// Makes the certificate of an entry when its prepares are there.
    fn certify(&mut self, seq: u64) {
        let (view, needed) = (self.view, self.members.prepares());
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        let Some(accepted) = slot.accepted.filter(|accepted| accepted.view == view) else { return };
        if !self.is_active || slot.certificate.as_ref().is_some_and(|known| known.view >= view) {
            return;
        }
        let prepares: Vec<_> = slot.prepares_of(&accepted).take(needed).collect();
        if prepares.len() < needed {
            if planted::has(Bug::EarlyTentative) {
                self.answer_tentatively(seq);
            }
            return;
        }
        let Proposal { parent, digest, signature: primary, .. } = accepted;
        let certificate =
            Certificate { view, seq, parent, digest, primary, prepares, commits: Vec::new() };
        let certificate = Arc::new(certificate);
        slot.certificate = Some(certificate.clone());
        slot.is_certified = false;
        slot.prune();
        self.note(&Note::Certificate(certificate));
        if planted::has(Bug::UnsyncedAnswer) {
            self.answer_tentatively(seq);
        }
        self.after_disk.push(AfterDisk::Certified { view, seq });
    }

    /// A certificate is on the disk.
    pub(super) fn certified_durably(&mut self, view: u64, seq: u64) {
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        if slot.certificate.as_ref().is_none_or(|known| known.view != view) {
            return;
        }
        slot.is_certified = true;
        if self.is_active && self.view == view && seq <= self.prepared {
            self.send_commit(seq);
        }
        self.send_commits();
        self.commit_ready();
    }

    /// Sends the commits of all entries in a row that are prepared.
    pub(super) fn send_commits(&mut self) {
        while self.is_active {
            let seq = self.prepared + 1;
            if !self.send_commit(seq) && seq > self.committed() {
                return;
            }
            self.prepared = seq;
        }
    }

    /// Sends the commit of an entry, if it has a certificate of this view.
    fn send_commit(&mut self, seq: u64) -> bool {
        let (view, me) = (self.view, self.me);
        let Some(slot) = self.slots.get_mut(&seq) else { return false };
        let certificate = slot.certificate.as_ref().filter(|known| known.view == view);
        let Some(certificate) = certificate.filter(|_| slot.is_certified) else { return false };
        if slot.commits.get(&me).is_some_and(|vote| vote.view == view) {
            return true;
        }
        let chain = certificate.chain();
        let signature = self.keys.sign(Statement::Commit { view, seq, chain: &chain });
        let vote = Vote { view, seq, chain, signature };
        slot.commits.insert(me, vote);
        let committed = self.log.last();
        if committed + 1 >= seq {
            slot.eager.insert(me);
        }
        self.tell_all(Message::Commit(vote, committed));
        true
    }

    pub(super) fn take_commit(
        &mut self,
        from: u64,
        vote: Vote,
        has_committed: u64,
    ) -> Result<(), Dropped> {
        let Vote { view, seq, chain, signature } = vote;
        let committed = self.committed();
        let slot = self.check_vote(&vote)?;
        if seq <= committed {
            return Err(Dropped::Duplicate);
        }
        check_against(slot.commits.get(&from), &vote)?;
        if !self.keys.has_signed(from, Statement::Commit { view, seq, chain: &chain }, &signature) {
            return Err(Dropped::Signature);
        }
        let slot = self.slots.entry(seq).or_default();
        slot.commits.insert(from, vote);
        if has_committed.saturating_add(1) >= seq {
            slot.eager.insert(from);
        }
        self.commit_ready();
        Ok(())
    }
}

/// Whether a vote may take the place of one of the same sender.
fn check_against(known: Option<&Vote>, vote: &Vote) -> Result<(), Dropped> {
    match known {
        Some(known) if known.view > vote.view => Err(Dropped::View),
        Some(known) if known.view == vote.view && known.chain == vote.chain => {
            Err(Dropped::Duplicate)
        }
        Some(known) if known.view == vote.view => Err(Dropped::Contradiction),
        _ => Ok(()),
    }
}
