//! Beginning a view (OSDI '99, §4.4).
//!
//! The primary of a view shows the view changes of a quorum, and orders again what follows from
//! them. Everybody works that out: behind the highest stable checkpoint, for each entry the
//! certificate of the highest view, up to the first entry that has none or whose certificate does
//! not follow the chain of the one before. Nothing is lost by that: a correct replica sends a commit,
//! or a tentative answer, only when it has certificates of all entries before; so where an entry
//! was finished, one of every quorum shows all of them, and they follow each other. No entry has to
//! be filled with a null request.
//!
//! Invariants worth naming
//! - What was finished in an earlier view is ordered again, at its place.
//! - In a view nothing is ordered at or below the stable checkpoint that it began with.

use super::{
    certificate::{Certificate, Stable, are_distinct},
    codec::new_view_digest,
    group::{Group, Head},
    keys::{Signature, Statement},
    message::{Message, NewView, ViewChange},
    notes::{Note, View},
    outputs::{Dropped, Letter},
    ready::AfterDisk,
    slot::Proposal,
    trust::Proof,
};
use crate::planted::{self, Bug};
use std::sync::Arc;

/// What follows from the view changes of a quorum: the stable checkpoint to begin with, and the
/// certificates of the entries behind it.
pub fn choose(changes: &[Arc<ViewChange>]) -> (Stable, Vec<&Certificate>) {
    let stable = changes.iter().map(|change| &change.stable).max_by_key(|stable| stable.seq);
    let stable = stable.cloned().unwrap_or_default();
    let mut chosen = Vec::new();
    let (mut seq, mut chain) = (stable.seq + 1, stable.chain);
    while let Some(certificate) = best(changes, seq).filter(|it| it.parent == chain) {
        chain = certificate.chain();
        chosen.push(certificate);
        seq += 1;
    }
    (stable, chosen)
}

/// The certificate of the highest view for an entry.
fn best(changes: &[Arc<ViewChange>], seq: u64) -> Option<&Certificate> {
    changes
        .iter()
        .filter_map(|change| {
            change.prepared.get(usize::try_from(seq.checked_sub(change.stable.seq + 1)?).ok()?)
        })
        .max_by_key(|certificate| certificate.view)
}

impl Group {
    /// Begins the view as its primary when a quorum wants it.
    pub(super) fn begin_view(&mut self) {
        if self.is_active {
            return;
        }
        let (view, quorum) = (self.view, self.members.quorum());
        // Those who want a later one have left this view as well, and who is to begin it may never do.
        let others = self.peers.values().filter_map(|peer| peer.change.as_ref());
        if others.filter(|change| change.view >= view).count() + 1 >= quorum {
            self.wanted_ms.get_or_insert(self.now);
        }
        let mut changes = self.changes();
        if changes.len() < quorum {
            return;
        }
        let is_own = self.own_change.as_ref().is_some_and(|change| change.view == view);
        if self.primary() != self.me || !is_own {
            return;
        }
        // Its own is among them.
        let own = changes.iter().position(|change| change.replica == self.me);
        if let Some(own) = own.filter(|own| *own >= quorum) {
            changes.swap(own, quorum - 1);
        }
        changes.truncate(quorum);
        changes.sort_by_key(|change| change.replica);
        let (_, chosen) = choose(&changes);
        let sign = |certificate: &&Certificate| {
            let chain = certificate.chain();
            self.keys.sign(Statement::PrePrepare { view, seq: certificate.seq, chain: &chain })
        };
        let proposals = chosen.iter().map(sign).collect();
        let signature = Signature::NONE;
        let mut new_view = NewView { view, changes, proposals, signature };
        new_view.sign(&self.keys);
        let new_view = Arc::new(new_view);
        self.enter(new_view.clone());
        let to: Vec<_> = self.peers.keys().copied().collect();
        self.after_disk.push(AfterDisk::Send(Letter { to, message: Message::NewView(new_view) }));
    }

    pub(super) fn take_new_view(
        &mut self,
        from: u64,
        new_view: Arc<NewView>,
    ) -> Result<(), Dropped> {
        let view = new_view.view;
        if view < self.view || view == self.view && self.is_active {
            return Err(Dropped::View);
        }
        let primary = self.members.primary(view);
        if primary == self.me {
            return Err(Dropped::Sender);
        }
        self.look(from, Proof::NewView)?;
        let digest = new_view_digest(&new_view);
        let statement = Statement::NewView { view, digest: &digest };
        if !self.keys.has_signed(primary, statement, &new_view.signature) {
            return Err(Dropped::Signature);
        }
        if !self.is_valid_new_view(&new_view) {
            self.distrust(from);
            return Err(Dropped::Proof);
        }
        self.enter(new_view);
        self.is_view_said = true;
        Ok(())
    }

    fn is_valid_new_view(&mut self, new_view: &NewView) -> bool {
        let NewView { view, changes, proposals, .. } = new_view;
        let primary = self.members.primary(*view);
        if changes.len() != self.members.quorum()
            || !are_distinct(&self.members, changes.iter().map(|change| change.replica))
        {
            return false;
        }
        for change in changes {
            let known = self.peers.get(&change.replica).and_then(|peer| peer.change.as_ref());
            let own = self.own_change.as_ref().filter(|own| own.replica == change.replica);
            let is_known = known == Some(change) || own == Some(change);
            let is_unchecked = planted::has(Bug::UncheckedCertificate);
            let is_valid = is_known || is_unchecked || self.is_valid_change(change);
            if change.view != *view || !is_valid {
                return false;
            }
        }
        let (_, chosen) = choose(changes);
        chosen.len() == proposals.len()
            && chosen.iter().zip(proposals).all(|(certificate, signature)| {
                let (seq, chain) = (certificate.seq, certificate.chain());
                let statement = Statement::PrePrepare { view: *view, seq, chain: &chain };
                self.keys.has_signed(primary, statement, signature)
            })
    }

    /// Begins a view with what was shown for it.
    fn enter(&mut self, new_view: Arc<NewView>) {
        let view = new_view.view;
        let (stable, chosen) = choose(&new_view.changes);
        let (seq, chain) = (stable.seq, stable.chain);
        let choices: Vec<_> = chosen
            .iter()
            .zip(&new_view.proposals)
            .map(|(it, sign)| (it.seq, Proposal::new(view, it.seq, it.parent, it.digest, *sign)))
            .collect();
        self.learn_stable(Arc::new(stable));
        let floor = Head { seq, chain };
        let bar = seq + choices.len() as u64;
        self.note(&Note::View(View { view, is_active: true, floor, choices: choices.clone() }));
        self.new_view = Some(new_view);
        self.wanted_ms = None;
        self.begin(view, floor, bar, &choices);
    }

    /// A view begins for this replica.
    fn begin(&mut self, view: u64, floor: Head, bar: u64, choices: &[(u64, Proposal)]) {
        (self.view, self.is_active, self.floor, self.bar) = (view, true, floor, bar);
        for slot in self.slots.values_mut() {
            (slot.choice, slot.accepted, slot.bound) = (None, None, None);
            slot.waiting = slot.ahead.take_if(|order| order.view <= view);
            slot.waiting = slot.waiting.take().filter(|order| order.view == view);
        }
        for (seq, choice) in choices.iter().filter(|(seq, _)| *seq > self.stable.seq) {
            self.slots.entry(*seq).or_default().choice = Some(*choice);
        }
        self.accepted = if self.stable.seq >= floor.seq {
            Head { seq: self.stable.seq, chain: self.stable.chain }
        } else {
            floor
        };
        if !planted::has(Bug::KeptTentative) {
            self.projected = self.table.clone();
        }
        self.prepared = self.accepted.seq;
        self.progress_ms = self.now;
        (self.primary_ms, self.began_ms) = (self.now, self.now);
        self.requests.begin(self.now);
        self.wait_for_duty();
        self.forget_orders();
        self.client.follow(view);
    }

    /// Goes on in the view that was on the disk.
    pub(super) fn resume(&mut self, is_fresh: bool) {
        self.projected = self.table.clone();
        if !self.is_active {
            let view = self.view;
            self.leave(view);
        } else if !is_fresh && self.primary() == self.me {
            // It may have ordered what its disk does not have, so it orders nothing any more.
            self.leave(self.view + 1);
        } else if is_fresh {
            // So that a next life knows that there was one.
            self.note(&Note::View(View { is_active: true, ..View::default() }));
            self.after_disk.push(AfterDisk::Begun);
        }
        self.make_checkpoints_again();
        self.tell_role();
        self.send_commits();
        self.accept_waiting();
    }
}
