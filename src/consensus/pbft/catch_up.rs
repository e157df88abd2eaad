//! Time: reports of how far replicas are, what is sent again for them, and patience with a primary
//! (TOCS 2002, message retransmission; OSDI '99, §4.5.2).
//!
//! Links lose messages. Every replica reports regularly how far it is, and whoever is ahead sends
//! again what it said itself and the other misses. One report of each is dealt with between two of
//! this replica's own, so nobody is made to send more than that.

use super::{
    batch::Batch,
    certificate::Certificate,
    group::Group,
    message::{Message, PrePrepare, StatusReport},
    notes::Note,
    outputs::Dropped,
    ready::AfterDisk,
    trust::Proof,
};
use std::sync::Arc;

/// Entries whose messages are sent again for one report.
pub(super) const AGAIN_ENTRIES: u64 = 64;
/// Bytes of batches that are sent again for one report; one is always sent.
pub(super) const AGAIN_BYTES: usize = 2 << 20;

impl Group {
    /// Tells the time, milliseconds from any beginning. Time in which nobody listened is none.
    pub fn tick(&mut self, now: u64) {
        self.now = now;
        if !self.has_begun {
            self.has_begun = true;
            (self.primary_ms, self.progress_ms, self.began_ms) = (now, now, now);
            self.wanted_ms = self.wanted_ms.map(|_| now);
            self.wait_for_duty();
            self.wait_for_orders();
        }
        if self.diverged.is_some() {
            return;
        }
        self.client.tick(now);
        self.serve_deferred();
        self.settle_orders();
        self.lose_patience();
        if now >= self.status_due_ms {
            self.status_due_ms = now + self.settings.timing.status_ms;
            self.report();
            self.ask_reads();
            self.hand_on_again();
            self.note_commit();
        }
        self.tend_transfer();
        self.settle();
    }

    /// Leaves a view whose primary does not do what is asked of it.
    fn lose_patience(&mut self) {
        let (now, patience) = (self.now, self.patience());
        if !self.is_active {
            if self.wanted_ms.is_some_and(|since| now >= since + patience) {
                self.leave(self.view + 1);
            }
            return;
        }
        let is_waiting = self.accepted.seq > self.committed()
            || self.slots.values().any(|slot| slot.waiting.is_some());
        if !is_waiting {
            self.progress_ms = now;
        }
        if self.primary() == self.me {
            self.wait_for_duty();
            if self.is_unconfirmed() {
                self.leave(self.view + 1);
            }
            return;
        }
        let is_silent = now >= self.primary_ms + patience;
        let is_stuck = is_waiting && now >= self.progress_ms + patience;
        let is_starved = self.requests.since(self.me).is_some_and(|since| now >= since + patience);
        if is_silent || is_stuck || is_starved {
            self.leave(self.view + 1);
            return;
        }
        self.leave_for_duty();
    }

    /// Says how far it is, and helps those who have said it.
    fn report(&mut self) {
        let report = StatusReport {
            view: self.view,
            is_active: self.is_active,
            point: self.log.point().index,
            stable: self.stable.seq,
            committed: self.committed(),
            accepted: self.accepted.seq,
            prepared: self.prepared,
        };
        self.tell_all(Message::Status(report));
        self.say_what_is_owed();
        self.begin_looks();
        let nodes: Vec<_> = self.peers.keys().copied().collect();
        for node in nodes {
            let report = self.peers.get_mut(&node).and_then(|peer| peer.report.take());
            if let Some(report) = report {
                self.help(node, report);
            }
        }
    }

    pub(super) fn take_status(&mut self, from: u64, report: StatusReport) -> Result<(), Dropped> {
        let peer = self.peers.get_mut(&from).ok_or(Dropped::Sender)?;
        let StatusReport { view, is_active, committed, .. } = peer.last;
        peer.is_stalled =
            (report.view, report.is_active, report.committed) == (view, is_active, committed);
        (peer.report, peer.last, peer.heard_ms) = (Some(report), report, Some(self.now));
        Ok(())
    }

    /// Sends a replica what it misses.
    fn help(&mut self, node: u64, report: StatusReport) {
        let is_behind = report.view < self.view || report.view == self.view && !report.is_active;
        // What this replica itself says of a view is on its disk first.
        if is_behind && self.is_active {
            let new_view = self.new_view.clone().filter(|_| self.is_view_said);
            new_view.into_iter().for_each(|it| self.tell(node, Message::NewView(it)));
        } else if is_behind {
            let change = self.own_change.clone().filter(|_| self.is_change_said);
            change.into_iter().for_each(|it| self.tell(node, Message::ViewChange(it)));
        }
        if report.stable < self.stable.seq {
            self.tell(node, Message::Stable(self.stable.clone()));
        }
        let (stable, own) = (report.stable, self.own_checkpoints.clone());
        for checkpoint in own.into_iter().filter(|checkpoint| checkpoint.seq > stable) {
            self.tell(node, Message::Checkpoint(checkpoint));
        }
        if !self.peers.get(&node).is_some_and(|peer| peer.is_stalled) {
            return;
        }
        self.prove(node, report);
        if self.is_active && report.is_active && report.view == self.view {
            self.say_again(node, report);
        }
    }

    /// Takes committed entries with their proofs.
    pub(super) fn take_proven(
        &mut self,
        from: u64,
        entries: Vec<(Arc<Certificate>, Batch)>,
    ) -> Result<(), Dropped> {
        let committed = self.committed();
        if self.is_transferring() {
            return Err(Dropped::Duplicate);
        }
        let (mut chain, mut last) = (self.log.chain(), committed);
        let new = entries.into_iter().filter(|(proof, _)| proof.seq > committed);
        let new: Vec<_> = new.collect();
        if new.is_empty() {
            return Err(Dropped::Duplicate);
        }
        self.look(from, Proof::Proven)?;
        for (seq, (proof, batch)) in (committed + 1..).zip(new) {
            let is_next = proof.seq == seq && proof.parent == chain;
            if seq > self.high() || !is_next {
                self.write_again(last + 1);
                return Err(Dropped::Seq);
            }
            if batch.bytes() > self.room_at(seq) {
                // The rest comes again.
                break;
            }
            let known = self.slots.get(&seq).and_then(|slot| slot.proof.as_ref());
            let is_known = known == Some(&proof);
            let is_true = proof.proves_commit() && proof.digest == *batch.digest();
            if !is_true || !(is_known || proof.is_valid(&self.members, &mut self.keys)) {
                self.write_again(last + 1);
                self.distrust(from);
                return Err(Dropped::Proof);
            }
            (chain, last) = (proof.chain(), seq);
            self.learn(seq, proof, batch);
        }
        self.write_again(last + 1);
        Ok(())
    }

    /// An entry is surely committed.
    fn learn(&mut self, seq: u64, proof: Arc<Certificate>, batch: Batch) {
        self.write(seq, &batch);
        let slot = self.slots.entry(seq).or_default();
        slot.proof = Some(proof.clone());
        slot.keep(batch);
        let view = proof.view;
        if slot.certificate.as_ref().is_none_or(|known| known.view < view) {
            slot.certificate = Some(proof.clone());
            slot.is_certified = false;
            self.note(&Note::Certificate(proof));
            self.after_disk.push(AfterDisk::Certified { view, seq });
        }
    }

    /// Sends again what this replica said about entries that another has not committed.
    fn say_again(&mut self, node: u64, report: StatusReport) {
        let (view, me, is_primary) = (self.view, self.me, self.is_primary());
        let first = report.committed.max(self.committed()).saturating_add(1);
        let mut bytes = 0;
        let mut messages = Vec::new();
        for (seq, slot) in self.slots.range(first..first.saturating_add(AGAIN_ENTRIES)) {
            let accepted = slot.accepted.filter(|accepted| accepted.view == view);
            if is_primary
                && *seq > report.accepted
                && bytes < AGAIN_BYTES
                && let Some(accepted) = accepted
                && let Some(batch) = slot.batch(&accepted.digest).cloned()
            {
                bytes += batch.bytes();
                let (seq, parent, signature) = (*seq, accepted.parent, accepted.signature);
                let order = PrePrepare { view, seq, parent, signature, batch };
                messages.push(Message::PrePrepare(order));
            }
            let own = |vote: &&super::message::Vote| vote.view == view;
            messages.extend(slot.prepares.get(&me).filter(own).map(|vote| Message::Prepare(*vote)));
            let committed = self.log.last();
            let commit = slot.commits.get(&me).filter(own);
            messages.extend(commit.map(|vote| Message::Commit(*vote, committed)));
        }
        messages.into_iter().for_each(|message| self.tell(node, message));
    }
}
