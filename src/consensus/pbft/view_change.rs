//! Leaving a view (OSDI '99, §4.4).
//!
//! A replica whose primary does not do what is asked of it leaves the view, and says what it has
//! prepared. It joins others that have left when f + 1 have: one of them is correct.
//!
//! Invariants worth naming
//! - What a view change says is on the disk before it is sent, and so is that the view was left.
//! - Of each replica the view change of the highest view is kept.

use super::{
    certificate::{Certificate, are_distinct},
    codec::view_change_digest,
    group::Group,
    keys::{Keys, Signature, Statement},
    members::Members,
    message::{Message, ViewChange},
    notes::{Note, View},
    outputs::{Dropped, Letter},
    ready::AfterDisk,
    trust::Proof,
};
use crate::planted::{self, Bug};
use std::sync::Arc;

/// Whether a view change is what its replica may say: signed, and with certificates of entries in a
/// row behind a stable checkpoint.
pub(super) fn is_valid(
    change: &ViewChange,
    members: &Members,
    keys: &mut Keys,
    window: u64,
    is_known: impl Fn(&Certificate) -> bool,
) -> bool {
    let ViewChange { view, stable, prepared, replica, signature } = change;
    let digest = view_change_digest(change);
    let statement = Statement::ViewChange { view: *view, digest: &digest };
    if !are_distinct(members, [*replica].into_iter())
        || !keys.has_signed(*replica, statement, signature)
    {
        return false;
    }
    if planted::has(Bug::UncheckedCertificate) {
        return true;
    }
    // What is stable is no number that somebody made up.
    stable.seq.is_multiple_of(window / 2)
        && stable.is_valid(members, keys)
        && prepared.len() as u64 <= window
        && (stable.seq + 1..)
            .zip(prepared)
            .all(|(seq, certificate)| certificate.seq == seq && certificate.view < *view)
        && prepared.iter().all(|it| is_known(it) || it.is_valid(members, keys))
}

impl Group {
    /// The primary of a view has done what no correct one does.
    pub(super) fn suspect(&mut self, view: u64) {
        if self.is_active && view == self.view && self.primary() != self.me {
            self.leave(self.view + 1);
        }
    }

    /// How long it waits for the primary now, milliseconds.
    pub(super) fn patience(&self) -> u64 {
        let timing = self.settings.timing;
        (timing.patience_ms << self.failures.min(16)).min(timing.patience_max_ms)
    }

    /// Leaves all views below one, as one that did not last.
    pub(super) fn leave(&mut self, view: u64) {
        self.failures = self.failures.saturating_add(1);
        self.leave_willingly(view);
    }

    /// Leaves all views below one whose primary itself gives its view up: nobody has waited for it.
    fn leave_willingly(&mut self, view: u64) {
        self.counters.view_changes += 1;
        self.view = view;
        self.is_active = false;
        self.new_view = None;
        (self.is_change_said, self.is_view_said) = (false, false);
        self.wanted_ms = None;
        self.tell_role();
        let certificates = (self.stable.seq + 1..)
            .map_while(|seq| self.slots.get(&seq)?.certificate.clone())
            .map(|certificate| Certificate::clone(&certificate));
        let mut change = ViewChange {
            view,
            stable: (*self.stable).clone(),
            prepared: certificates.collect(),
            replica: self.me,
            signature: Signature::NONE,
        };
        change.sign(&self.keys);
        let change = Arc::new(change);
        self.own_change = Some(change.clone());
        self.note(&Note::View(View { view, ..View::default() }));
        let to: Vec<_> = self.peers.keys().copied().collect();
        self.after_disk.push(AfterDisk::Send(Letter { to, message: Message::ViewChange(change) }));
        self.begin_view();
    }

    /// Gives the view up as its primary, so that the next one takes over at once.
    pub fn abdicate(&mut self) {
        if self.is_primary() && self.members.nodes().len() > 1 {
            self.leave_willingly(self.view + 1);
        }
    }

    pub(super) fn take_view_change(
        &mut self,
        from: u64,
        change: Arc<ViewChange>,
    ) -> Result<(), Dropped> {
        if change.replica != from {
            return Err(Dropped::Sender);
        }
        if change.view < self.view || change.view == self.view && self.is_active {
            return Err(Dropped::View);
        }
        let known = self.peers.get(&from).and_then(|peer| peer.change.as_ref());
        if known.is_some_and(|known| known.view >= change.view) {
            return Err(Dropped::Duplicate);
        }
        self.look(from, Proof::Change)?;
        if !self.is_valid_change(&change) {
            self.distrust(from);
            return Err(Dropped::Proof);
        }
        let view = change.view;
        self.learn_stable(Arc::new(change.stable.clone()));
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.change = Some(change);
        }
        if self.is_active && from == self.primary() && view == self.view + 1 {
            // The primary itself gives the view up.
            self.leave_willingly(view);
        }
        self.join_others();
        self.begin_view();
        Ok(())
    }

    /// Whether a view change is valid; certificates that this replica has as well are.
    pub(super) fn is_valid_change(&mut self, change: &ViewChange) -> bool {
        let Self { slots, keys, members, settings, .. } = self;
        let is_known = |certificate: &Certificate| {
            let own = slots.get(&certificate.seq).and_then(|slot| slot.certificate.as_deref());
            own == Some(certificate)
        };
        is_valid(change, members, keys, 2 * settings.checkpoint_every, is_known)
    }

    /// Leaves the view when f + 1 others have left it: for the lowest that they want.
    fn join_others(&mut self) {
        let changes = self.peers.values().filter_map(|peer| peer.change.as_ref());
        let wanted = changes.map(|change| change.view).filter(|view| *view > self.view);
        let wanted: Vec<_> = wanted.collect();
        if wanted.len() >= self.members.one_correct()
            && let Some(lowest) = wanted.into_iter().min()
        {
            self.leave(lowest);
        }
    }

    /// The changes to this view, in the order of their replicas.
    pub(super) fn changes(&self) -> Vec<Arc<ViewChange>> {
        let own = self.own_change.iter();
        let others = self.peers.values().filter_map(|peer| peer.change.as_ref());
        let all = own.chain(others).filter(|change| change.view == self.view);
        let mut all: Vec<_> = all.cloned().collect();
        all.sort_by_key(|change| change.replica);
        all
    }
}
