//! Orders of a primary that are not settled, whatever becomes of them here.
//!
//! Behind an order that too few take part in nothing is committed, unless its primary orders something else in
//! its place: one that has given it, by design or in error, leads for nobody until then. Whoever has accepted the order waits for its commits and leaves the
//! view. Whoever has dropped it, as untrue, unfit or badly signed, would wait for nothing, and the view
//! would go on for as long as no door asks for anything. So a replica remembers that the primary has ordered
//! something, and says that this is owed when it is not settled in time, as of any other duty (`duty.rs`).
//!
//! What is waited for is the commit, not this replica's own opinion of the order. Correct replicas may
//! differ in what they make of one: their clocks, their limits and how far their tables have come do. A
//! primary is left for that only where fewer than a quorum take part, or a replica hears of no commit.
//!
//! Invariants worth naming
//! - An order counts that its primary itself has sent in the view that this replica is in, and until it is
//!   committed here or one correct other is known to have committed it: who is behind accuses nobody.
//! - The time begins anew with whatever is settled: no primary is left that gets on, however little.
//! - It doubles with each view that was left for it until something is settled, as that of a duty does.

use super::{duty::DOUBLINGS, group::Group};
use crate::planted::{self, Bug};

/// Shards of a quorum look first at what some orders say: the time for an order is so many times that for
/// what is asked of a primary.
const PATIENCES: u64 = 4;

/// What the primary of this replica's view has ordered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsettled {
    /// The highest entry that it has; 0 when there is none.
    ordered: u64,
    /// The highest entry that one correct replica is known to have committed.
    settled: u64,
    /// Since when nothing more was settled of what was ordered, milliseconds.
    since_ms: u64,
    /// Views that were left for that.
    left: u32,
}

impl Group {
    /// A member orders an entry in a view, whatever becomes of that here.
    pub fn hear_order(&mut self, from: u64, view: u64, seq: u64) {
        if self.is_active && view == self.view && from == self.primary() {
            self.unsettled.ordered = self.unsettled.ordered.max(seq);
        }
    }

    /// A view begins, whose primary has ordered nothing yet.
    pub(super) fn forget_orders(&mut self) {
        self.unsettled.ordered = 0;
        self.wait_for_orders();
    }

    /// The time for what it has ordered begins again.
    pub(super) fn wait_for_orders(&mut self) {
        self.unsettled.since_ms = self.now;
    }

    /// Looks at what is settled now.
    pub(super) fn settle_orders(&mut self) {
        let (committed, now) = (self.committed(), self.now);
        let Unsettled { ordered, settled, since_ms, left } = &mut self.unsettled;
        if committed > *settled {
            (*settled, *since_ms, *left) = (committed, now, 0);
        }
        if *ordered <= *settled {
            *since_ms = now;
            return;
        }
        let mut reported: Vec<_> = self.peers.values().map(|peer| peer.last.committed).collect();
        reported.sort_unstable_by(|one, other| other.cmp(one));
        let one_correct = reported.get(self.members.faulty()).copied().unwrap_or(0);
        if one_correct > *settled {
            (*settled, *since_ms, *left) = (one_correct, now, 0);
        }
    }

    /// The view is left for that, if it is so.
    pub(super) fn leave_unsettled(&mut self) {
        if self.is_unsettled() {
            self.unsettled.left = self.unsettled.left.saturating_add(1);
        }
    }

    /// Whether something that the primary ordered was not settled in its time.
    pub(super) fn is_unsettled(&self) -> bool {
        let Unsettled { ordered, settled, since_ms, left } = self.unsettled;
        let most_ms = self.settings.timing.patience_max_ms;
        let patience_ms = self.patience().saturating_mul(PATIENCES).min(most_ms);
        let patience_ms = patience_ms.saturating_mul(1 << left.min(DOUBLINGS));
        self.is_active
            && self.primary() != self.me
            && ordered > settled
            && self.now >= since_ms.saturating_add(patience_ms)
            && !planted::has(Bug::ForgottenOrder)
    }
}
