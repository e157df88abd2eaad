//! What a primary owes the service beside the order of requests.
//!
//! A primary may order all that is asked of it and still withhold what only it may write. Of that the
//! service of each replica has its own proof, and tells the oldest thing that is owed. A replica that is owed
//! the same for longer than the service waits for it says so with its reports; one that is not says it when
//! f + 1 others do, one of whom is correct. All leave the view when 2f + 1 say so (Bracha's double echo). Who
//! is alone with it goes on in the view, since others may have no reason to leave it.
//!
//! Invariants worth naming
//! - A clock runs for one thing in one view: who begins a view has its whole time, and whoever does one thing
//!   after the other is not left.
//! - The time doubles with each view that was left for the same thing, so that somebody has enough, and a
//!   replica that waits for what nobody can do says so ever less.
//! - A correct replica leaves a view for a duty only when f + 1 correct ones, itself among them, have said in
//!   it that something is owed, or have left it: so all hear of f + 1, say it as well, and leave.
//! - A word counts for a few reports of its sender's: what was owed once is no reason later.

use super::{
    group::{Group, Peer},
    message::Message,
    outputs::Dropped,
};
use crate::{
    consensus::engine::Duty,
    planted::{self, Bug},
};

/// The time for a duty is at most two to the power of this times what the service says.
pub(super) const DOUBLINGS: u32 = 6;
/// What somebody said counts for so many reports: some of them may be lost.
const COUNTS_FOR_REPORTS: u64 = 5;

/// A duty that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    duty: Duty,
    /// Since when its clock runs, milliseconds.
    since_ms: u64,
    /// Views that were left for it.
    left: u32,
}

impl Owed {
    fn due_ms(&self) -> u64 {
        let patience_ms = self.duty.patience_ms.saturating_mul(1 << self.left.min(DOUBLINGS));
        self.since_ms.saturating_add(patience_ms)
    }
}

impl Group {
    /// Tells the oldest thing that the primary owes, or that it owes nothing.
    pub fn owed(&mut self, duty: Option<Duty>) {
        let known = self.owed.map(|owed| owed.duty);
        if known.map(|known| known.number) != duty.map(|duty| duty.number) {
            let since_ms = self.now;
            self.owed = duty.map(|duty| Owed { duty, since_ms, left: 0 });
        } else if let (Some(owed), Some(duty)) = (&mut self.owed, duty) {
            owed.duty = duty;
        }
    }

    /// The time of the primary begins again: of a new one, of one that is not heard of yet, and of this
    /// replica, which does not leave itself.
    pub(super) fn wait_for_duty(&mut self) {
        let now = self.now;
        self.owed.iter_mut().for_each(|owed| owed.since_ms = now);
    }

    /// Whether the primary has owed something for too long.
    fn is_withheld(&self) -> bool {
        self.is_active && self.owed.is_some_and(|owed| self.now >= owed.due_ms())
    }

    /// Whether it has waited for the primary too long: for what the service is owed, or its own orders.
    fn has_reason(&self) -> bool {
        self.is_withheld() || self.is_unsettled()
    }

    /// Others that say that the primary owes something, or have left its view. Who has left is heard of
    /// again and again, and who was owed something before it left is not.
    fn others_owed(&self) -> usize {
        let (view, now) = (self.view, self.now);
        let counts_ms = COUNTS_FOR_REPORTS * self.settings.timing.status_ms;
        let has_reason = |peer: &&Peer| {
            let has_left = peer.change.as_ref().is_some_and(|change| change.view > view);
            let says_so = |(of, at_ms)| of == view && now < at_ms + counts_ms;
            has_left || peer.owed_in.is_some_and(says_so)
        };
        self.peers.values().filter(has_reason).count()
    }

    /// Whether it says that the primary owes something: this replica is owed it, or a correct one is.
    fn says_owed(&self, others: usize) -> bool {
        let is_one_correct = others >= self.members.one_correct();
        self.has_reason() || self.is_active && is_one_correct
    }

    /// Says that the primary owes something for too long, for whoever did not hear it as well.
    pub(super) fn say_what_is_owed(&mut self) {
        if self.says_owed(self.others_owed()) {
            self.tell_all(Message::Owed(self.view));
        }
    }

    pub(super) fn take_owed(&mut self, from: u64, view: u64) -> Result<(), Dropped> {
        let peer = self.peers.get_mut(&from).ok_or(Dropped::Sender)?;
        if !self.is_active || view != self.view {
            return Err(Dropped::View);
        }
        peer.owed_in = Some((view, self.now));
        self.leave_for_duty();
        Ok(())
    }

    /// Leaves the view when a quorum says that its primary owes something, or has left it.
    pub(super) fn leave_for_duty(&mut self) {
        let (view, others) = (self.view, self.others_owed());
        let quorum = if planted::has(Bug::LoneDuty) { 2 } else { self.members.quorum() };
        if !self.is_active || !self.says_owed(others) || others + 1 < quorum {
            return;
        }
        self.tell_all(Message::Owed(view));
        if self.is_withheld() {
            self.owed.iter_mut().for_each(|owed| owed.left = owed.left.saturating_add(1));
        }
        self.leave_unsettled();
        self.counters.duties += 1;
        self.leave(view + 1);
    }
}
