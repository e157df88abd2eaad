//! What is committed is told, executed in the clients' table, and answered.
//!
//! Tentative execution (OSDI '99, §5.1; TOCS 2002): a replica answers when an entry is prepared and all
//! before it are committed. Its certificate is on the disk by then and goes with its view changes,
//! so of what a quorum has answered one correct replica tells every new view.
//!
//! Invariants worth naming
//! - An entry is committed when a quorum of one view has sent commits of its chain, and this replica
//!   has it and a certificate of that chain on its disk.
//! - An entry that is committed and does not follow the chain stops the replica.

use super::{
    batch::{Batch, link},
    group::{Group, Head, Ticket},
    keys::{Digest, Signature, Statement},
    message::{Checkpoint, Message, Reply},
    table::REMEMBERED,
};
use crate::{
    consensus::engine::{Event, Kind, Role, Stored},
    planted::{self, Bug},
};
use std::collections::BTreeMap;

/// Bytes of a block beside the data and the heads of an entry: those of the record that the heads
/// are kept in.
pub const HEADS_RECORD_BYTES: usize = 27;

/// How long the body of the block is that keeps a batch.
pub fn body_bytes(batch: &Batch) -> u32 {
    (batch.data().len() + HEADS_RECORD_BYTES + batch.heads().len()) as u32
}

impl Group {
    /// Commits what can be, in order.
    pub(super) fn commit_ready(&mut self) {
        while self.diverged.is_none() && !self.is_transferring() && self.commit_next() {}
        self.answer_tentatively(self.committed() + 1);
    }

    fn commit_next(&mut self) -> bool {
        let seq = self.committed() + 1;
        let quorum = self.members.quorum();
        let Some(slot) = self.slots.get(&seq) else { return false };
        let Some(certificate) = slot.certificate.as_ref().filter(|_| slot.is_certified) else {
            return false;
        };
        let chain = certificate.chain();
        let written = slot.written.filter(|it| it.is_durable && it.digest == certificate.digest);
        let is_proven = slot.proof.as_ref().is_some_and(|proof| proof.chain() == chain)
            || slot.commits_of(&chain) >= quorum;
        let (Some(written), true) = (written, is_proven) else {
            return false;
        };
        if certificate.parent != self.log.chain() {
            self.diverge(seq);
            return false;
        }
        let Some(batch) = slot.batch(&certificate.digest).cloned() else {
            let digest = certificate.digest;
            self.ask_for_batch(seq, digest);
            return false;
        };
        let stored = Stored { place: written.place, bytes: body_bytes(&batch) };
        // Votes of later views take the place of these, and others may still need the proof.
        let proof = slot.proof(seq, quorum);
        if let Some(slot) = self.slots.get_mut(&seq) {
            slot.proof = proof;
            // The log has it from now on, in memory or on the disk.
            slot.batches.clear();
        }
        self.commit(batch, stored);
        true
    }

    fn commit(&mut self, batch: Batch, stored: Stored) {
        let seq = self.committed() + 1;
        let chain = link(&self.log.chain(), seq, batch.digest());
        let is_another =
            |first: &Ticket| first.seq <= seq && (first.seq, first.chain) != (seq, chain);
        let leads = matches!(self.role, Role::Leader { .. });
        let leads_for_nobody = leads && batch.origin() > self.view;
        if leads_for_nobody || self.tickets.front().is_some_and(is_another) {
            // A later view has committed an entry: this replica led for nobody any more, and what it
            // proposed is lost. Who asked it must hear that before the entry.
            self.leave(self.view + 1);
        }
        self.log.push(batch.clone(), stored);
        self.is_commit_noted = false;
        let is_own = self.tickets.front().is_some_and(|first| first.seq == seq);
        let ticket = is_own.then(|| self.tickets.pop_front()).flatten();
        let eager = self.slots.get(&seq).map_or(0, |slot| slot.eager.len());
        let ticket = ticket.map(|Ticket { ticket, bytes, .. }| {
            self.ticket_bytes -= bytes;
            // A node is the client of what it proposes, and its commits are its answers.
            if eager >= self.members.quorum() {
                self.counters.fast += 1;
            } else {
                self.counters.slow += 1;
            }
            ticket
        });
        self.events.push(Event::Committed {
            index: seq,
            term: batch.origin() + 1,
            kind: Kind::Normal,
            ticket,
            data: Some(batch.data().clone()),
            place: stored.place,
        });
        for head in batch.requests().filter(|head| head.timestamp != 0) {
            self.table.execute(head.client, head.timestamp, seq);
        }
        for head in batch.requests().filter(|head| head.timestamp != 0) {
            self.requests.executed(head.client, head.timestamp, &self.table, self.now);
        }
        if self.accepted.seq < seq {
            let chain = self.log.chain();
            self.accepted = Head { seq, chain };
            self.projected = self.table.clone();
        }
        self.progress_ms = self.now;
        // What a view begins with says little of what comes behind it.
        if self.is_active && seq > self.bar && self.now >= self.began_ms + self.patience() {
            self.failures = 0;
        }
        let was_answered =
            self.slots.get(&seq).is_some_and(|slot| slot.answered == Some(self.view));
        if !was_answered {
            self.answer(seq, &batch, false);
        }
        if seq.is_multiple_of(self.settings.checkpoint_every) {
            self.make_checkpoint(seq);
        }
        self.reach_target();
    }

    /// Says that everything up to an entry is committed here.
    fn make_checkpoint(&mut self, seq: u64) {
        self.say_checkpoint(seq, self.log.chain(), self.table.digest());
    }

    /// Makes the checkpoints again that are not stable: the messages of an earlier life may be lost.
    pub(super) fn make_checkpoints_again(&mut self) {
        let every = self.settings.checkpoint_every;
        let first = self.stable.seq + every;
        for seq in (first..=self.committed()).step_by(every as usize) {
            let Some(chain) = self.log.chain_at(seq) else { continue };
            let table = self.log.table_at(seq).digest();
            self.say_checkpoint(seq, chain, table);
        }
    }

    fn say_checkpoint(&mut self, seq: u64, chain: Digest, table: Digest) {
        let signature = self.keys.sign(Statement::Checkpoint { seq, chain: &chain, table: &table });
        let checkpoint = Checkpoint { seq, chain, table, signature };
        self.own_checkpoints.push_back(checkpoint);
        if self.own_checkpoints.len() > super::checkpoint::CHECKPOINTS_KEPT {
            self.own_checkpoints.pop_front();
        }
        self.tell_all(Message::Checkpoint(checkpoint));
        self.find_stable(seq);
    }

    /// Answers the clients of an entry tentatively, when it is the next to be committed and is
    /// prepared in this view.
    pub(super) fn answer_tentatively(&mut self, seq: u64) {
        let is_next = seq == self.committed() + 1;
        if !self.settings.is_tentative || !self.is_active || !is_next {
            return;
        }
        let view = self.view;
        let prepared = self.prepared;
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        let Some(accepted) = slot.accepted.filter(|accepted| accepted.view == view) else { return };
        let has_certificate = slot.certificate.as_ref().is_some_and(|known| known.view == view);
        let is_early = planted::has(Bug::EarlyTentative)
            || has_certificate && planted::has(Bug::UnsyncedAnswer);
        if slot.answered == Some(view) || prepared < seq && !is_early {
            return;
        }
        let Some(batch) = slot.batch(&accepted.digest).cloned() else { return };
        slot.answered = Some(view);
        self.answer(seq, &batch, true);
    }

    /// Answers the clients whose requests are in an entry.
    fn answer(&mut self, seq: u64, batch: &Batch, is_tentative: bool) {
        let mut clients: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for head in batch.requests().filter(|head| head.timestamp != 0) {
            clients.entry(head.client).or_default().push(head.timestamp);
        }
        if clients.is_empty() {
            return;
        }
        let known = self.log.chain_at(seq);
        let chain = known.unwrap_or_else(|| link(&self.log.chain(), seq, batch.digest()));
        for (client, timestamps) in clients {
            for timestamps in timestamps.chunks(REMEMBERED) {
                self.reply(client, timestamps.to_vec(), Head { seq, chain }, is_tentative);
            }
        }
    }

    /// Answers a client.
    pub(super) fn reply(
        &mut self,
        client: u64,
        timestamps: Vec<u64>,
        Head { seq, chain }: Head,
        is_tentative: bool,
    ) {
        let (view, signature) = (self.view, Signature::NONE);
        let mut reply = Reply { view, client, timestamps, seq, chain, is_tentative, signature };
        reply.sign(&self.keys);
        if client == self.me {
            self.hear_reply(self.me, &reply);
        } else {
            self.tell(client, Message::Reply(reply));
        }
    }
}
