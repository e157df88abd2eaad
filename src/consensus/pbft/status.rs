//! How a group is doing.

use super::{
    group::{Group, Head, Peer},
    outputs::Counters,
};
use crate::consensus::engine::Role;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it was told to be.
    pub role: Role,
    /// Its view.
    pub view: u64,
    /// Whether that has begun.
    pub is_active: bool,
    /// Whether it has heard of a quorum lately.
    pub has_quorum: bool,
    /// The primary of its view.
    pub primary: u64,
    /// The index of its first entry.
    pub first: u64,
    /// The last entry that it has accepted.
    pub accepted: u64,
    /// The last entry that it has committed.
    pub committed: Head,
    /// Its stable checkpoint.
    pub stable: u64,
    /// Bytes of committed entries in memory.
    pub cached_bytes: usize,
    /// Bytes of batches that are kept of entries behind the one that is to be committed next.
    pub accepted_bytes: usize,
    /// Proposals whose fate was not told.
    pub proposals: usize,
    /// Where what is committed contradicts itself: more than f members are faulty.
    pub diverged: Option<u64>,
    /// Signatures that were verified.
    pub verified: u64,
    /// What was counted.
    pub counters: Counters,
}

impl Group {
    /// How it is doing.
    pub fn status(&self) -> Status {
        Status {
            role: self.role,
            view: self.view,
            is_active: self.is_active,
            has_quorum: self.has_quorum(),
            primary: self.primary(),
            first: self.log.point().index + 1,
            accepted: self.accepted.seq.max(self.committed()),
            committed: Head { seq: self.committed(), chain: self.log.chain() },
            stable: self.stable.seq,
            cached_bytes: self.log.cached_bytes() + self.committed_bytes(),
            accepted_bytes: self.accepted_bytes(),
            proposals: self.tickets.len(),
            diverged: self.diverged,
            verified: self.keys.verified,
            counters: self.counters,
        }
    }

    /// Whether it has heard lately of so many others that something can be committed. In which views they are
    /// does not matter: whoever has left one alone is followed when something is asked for, a read as well.
    pub(super) fn has_quorum(&self) -> bool {
        let lately = self.settings.timing.patience_ms.max(3 * self.settings.timing.status_ms);
        let is_fresh = |peer: &&Peer| peer.heard_ms.is_some_and(|heard| self.now < heard + lately);
        let others = self.peers.values().filter(is_fresh).count();
        self.diverged.is_none() && others + 1 >= self.members.quorum()
    }

    /// A number that follows from what the protocol has come to here: two groups that would act
    /// alike on all inputs but time have the same.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Self { view, is_active, floor, bar, accepted, prepared, stable, slots, .. } = self;
        (view, is_active, floor, bar, accepted, prepared, stable).hash(&mut hasher);
        slots.hash(&mut hasher);
        (self.log.last(), self.log.chain(), self.log.point().index).hash(&mut hasher);
        self.table.hash(&mut hasher);
        for (node, peer) in &self.peers {
            let change = peer.change.as_ref();
            // Those of views that have begun have done what they can.
            let change = change.filter(|it| it.view > *view || it.view == *view && !is_active);
            let owed_in = peer.owed_in.map(|(view, _)| view);
            (node, &peer.report, &peer.last, &peer.checkpoints, change, owed_in).hash(&mut hasher);
        }
        self.requests.hash(&mut hasher);
        self.new_view.is_some().hash(&mut hasher);
        (self.diverged, self.transfer.is_some(), &self.target).hash(&mut hasher);
        (&self.letters, &self.writes, self.after_disk.len(), self.held.len()).hash(&mut hasher);
        hasher.finish()
    }
}
