//! What a primary owes the service beside the order of requests.
//!
//! A primary may order all that is asked of it and still withhold what only it may write. Of that the
//! service of each replica has its own proof, and tells the oldest thing that is owed; the replica leaves
//! a view in which the same is owed for longer than the service waits for it. One that is alone with that is
//! joined by nobody; when f + 1 have left, all do (OSDI '99, §4.5.2).
//!
//! Invariants worth naming
//! - A clock runs for one thing in one view: who begins a view has its whole time, and whoever does one thing
//!   after the other is not left.
//! - The time doubles with each view that was left for the same thing, so that somebody has enough, and a
//!   replica that waits for what nobody can do leaves ever fewer.

use super::group::Group;
use crate::consensus::engine::Duty;

/// The time for a duty is at most two to the power of this times what the service says.
const DOUBLINGS: u32 = 6;

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

    /// Whether the primary has owed something for too long; that is counted.
    pub(super) fn withholds(&mut self) -> bool {
        let Some(owed) = self.owed.as_mut().filter(|owed| self.now >= owed.due_ms()) else {
            return false;
        };
        owed.left = owed.left.saturating_add(1);
        true
    }
}
