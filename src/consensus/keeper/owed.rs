//! What whoever leads owes this node's disk, where nodes may lie: that the log's oldest part is written
//! again, so that it can be forgotten.
//!
//! Invariants worth naming
//! - Only what this node sees itself counts: its log is far beyond its limit, and its oldest segments hold
//!   entries of the partition. Whoever compacts in time is never left for that.
//! - The log of a node that does not lie is bounded, whatever whoever leads writes or leaves undone: by what
//!   is written in the patience for it.

use super::Keeper;
use crate::{
    consensus::{
        disk::Disk,
        engine::{Duty, Engine},
        links::Links,
    },
    planted::{self, Bug},
};
use std::time::Duration;

/// How fast logs are made shorter, where nodes may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A wish of another node is heeded so often: what lives is moved for it.
    pub heed_every: Duration,
    /// How long a leader has to compact the log further when it is half as long again as its limit: some
    /// times as long as that, since its log need not be long when that of another node is.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { heed_every: Duration::from_secs(10), patience: Duration::from_secs(30) }
    }
}

/// And a millisecond more for so many bytes of the log: a quarter of it may have to be moved.
const BYTES_A_MS: u64 = 64 * 1024;

impl<D: Disk, L: Links<E::Message>, E: Engine> Keeper<D, L, E> {
    /// Whether the log is half as long again as its limit.
    pub fn is_log_long(&self) -> bool {
        self.writer.is_beyond(3)
    }

    /// Tells each group whether its leader owes that nothing of the partition lies below a generation; 0
    /// when nobody owes anything.
    pub(super) fn tell_owed(&mut self, target: u64) {
        if !E::NODES_MAY_LIE || planted::has(Bug::IdleDuty) {
            return;
        }
        let is_long = target > 0 && self.is_log_long();
        let pace_ms = self.pace.patience.as_millis() as u64;
        let patience_ms = is_long.then(|| pace_ms + self.writer.in_use_bytes() / BYTES_A_MS);
        for (partition, lane) in (0..).zip(&mut self.lanes) {
            let begins_behind = self.engine.begins_behind(partition);
            let oldest = self.engine.stored(partition, begins_behind + 1);
            let is_owed = lane.reign == 0
                && oldest.is_some_and(|(_, stored)| stored.place.generation < target);
            let patience_ms = patience_ms.filter(|_| is_owed);
            let duty = patience_ms.map(|patience_ms| Duty { number: begins_behind, patience_ms });
            if lane.owed != duty {
                lane.owed = duty;
                self.engine.owed(partition, duty);
            }
        }
    }
}
