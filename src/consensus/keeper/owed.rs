//! What whoever leads owes this node's disk, where nodes may lie: that the log's oldest part is written
//! again, so that it can be forgotten; and that the log does not become ever longer all the same.
//!
//! Invariants worth naming
//! - Only what this node sees itself counts: its log is far beyond its limit, and its oldest segments hold
//!   entries of the partition. Whoever compacts in time is not left for that.
//! - The log of a node that does not lie is bounded, whatever whoever leads writes or leaves undone: in one
//!   reign it becomes half as long again as it was allowed to be when that began, and by what is written in
//!   the patience for it. The writer raises its limit with each segment that is freed, to what is in use
//!   then, so whoever frees a little of much would have as much room as it wants; the limit of the
//!   beginning rises for nobody. Where more lives than that, whoever leads is left with nothing to
//!   reproach it for, once for each half.

use super::Keeper;
use crate::consensus::{
    disk::Disk,
    engine::{Duty, Engine},
    links::Links,
};

/// How long a leader has to compact the log further when it is half as long again as its limit,
/// milliseconds: it heeds others every ten seconds.
const PATIENCE_MS: u64 = 30_000;
/// The number of the duty not to let the log become ever longer; others have that of an entry.
const ENDLESS: u64 = u64::MAX;
/// And a millisecond more for so many bytes of the log: a quarter of it may have to be moved.
const BYTES_A_MS: u64 = 64 * 1024;

/// How long the log may become while somebody leads a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Its limit when that began, bytes; the least since. 0 before it was looked at.
    limit_bytes: u64,
}

impl Allowed {
    /// Somebody else leads.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    /// Whether the log is half as long again as it may be.
    fn is_beyond(&mut self, in_use_bytes: u64, limit_bytes: u64) -> bool {
        self.limit_bytes = match self.limit_bytes {
            // What others left behind is not held against whoever comes next.
            0 => limit_bytes.max(in_use_bytes),
            known => known.min(limit_bytes),
        };
        2 * in_use_bytes > 3 * self.limit_bytes
    }
}

impl<D: Disk, L: Links<E::Message>, E: Engine> Keeper<D, L, E> {
    /// Tells each group whether its leader owes that nothing of the partition lies below a generation; 0
    /// when nobody owes anything.
    pub(super) fn tell_owed(&mut self, target: u64) {
        if !E::NODES_MAY_LIE {
            return;
        }
        let (in_use_bytes, limit_bytes) = (self.writer.in_use_bytes(), self.writer.limit_bytes());
        let is_long = target > 0 && self.writer.is_beyond(3);
        let patience_ms = PATIENCE_MS + in_use_bytes / BYTES_A_MS;
        for (partition, lane) in (0..).zip(&mut self.lanes) {
            let begins_behind = self.engine.begins_behind(partition);
            let is_endless = lane.allowed.is_beyond(in_use_bytes, limit_bytes);
            let is_old = || {
                let oldest = self.engine.stored(partition, begins_behind + 1);
                oldest.is_some_and(|(_, stored)| stored.place.generation < target)
            };
            let number = match is_endless {
                true => Some(ENDLESS),
                false => (is_long && is_old()).then_some(begins_behind),
            };
            let number = number.filter(|_| lane.reign == 0);
            let duty = number.map(|number| Duty { number, patience_ms });
            if lane.owed != duty {
                lane.owed = duty;
                self.engine.owed(partition, duty);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_frees_a_little_of_much_has_no_more_room_for_that() {
        // As the writer's limit is when a tenth is freed whenever somebody would wait for that.
        let (mut allowed, mut in_use, mut limit) = (Allowed::default(), 100, 100);
        let mut turns = 0;
        while !allowed.is_beyond(in_use, limit) {
            in_use += in_use / 2;
            if allowed.is_beyond(in_use, limit) {
                break;
            }
            in_use -= in_use / 10;
            limit = 100.max(in_use + in_use / 8);
            turns += 1;
            assert!(turns < 4, "the log has {in_use} of {limit}");
        }
        // Whoever comes next is measured by what it has found.
        allowed.begin();
        assert!(!allowed.is_beyond(in_use, limit));
        assert!(!allowed.is_beyond(in_use + in_use / 2, limit.max(in_use)));
        // And once it has freed what is not needed, by that.
        assert!(!allowed.is_beyond(90, 100) && !allowed.is_beyond(150, 170));
        assert!(allowed.is_beyond(151, 170));
    }
}
