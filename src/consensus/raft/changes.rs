//! Changes of a group's membership, and what its leader knows of the members.

use super::{
    group::{ELECTION_TICKS, Group, Refused},
    membership::{Change, ChangeRefused, View},
};
use raft::{ProgressState, eraftpb::ConfChangeV2};

impl Group {
    /// Begins a change of the membership; [`super::Event::Membership`] tells when it holds.
    ///
    /// # Errors
    /// When it is not allowed now, and why.
    pub fn change(&mut self, change: &Change) -> Result<(), ChangeRefused> {
        if let Err(Refused::NotLeader { leader }) = self.leads() {
            return Err(ChangeRefused::NotLeader { leader });
        }
        if self.is_handing_over() {
            return Err(ChangeRefused::Pending);
        }
        self.flush();
        match self.with_view(|view| view.plan(change)) {
            Ok(planned) => self
                .raft
                .propose_conf_change(Vec::new(), planned)
                .map_err(|_| ChangeRefused::Pending),
            Err(ChangeRefused::HandingOver { .. }) => {
                let leaving = if let Change::Remove(nodes) = change { nodes } else { &Vec::new() };
                let to = self.heir(leaving).ok_or(ChangeRefused::NoQuorum {
                    reachable: 0,
                    voters: self.raft.store().members().voters.len() - 1,
                })?;
                self.raft.transfer_leader(to);
                Err(ChangeRefused::HandingOver { to })
            }
            Err(refused) => Err(refused),
        }
    }

    /// The voter that can best take over.
    fn heir(&self, leaving: &[u64]) -> Option<u64> {
        let voters = self.raft.store().members().voters.iter().copied();
        let matched = |id: u64| self.raft.raft.prs().get(id).map(|progress| progress.matched);
        voters
            .filter(|id| *id != self.me && !leaving.contains(id) && self.is_reachable(*id))
            .max_by_key(|id| (matched(*id), std::cmp::Reverse(*id)))
    }

    /// Learners that have caught up get a vote.
    pub(super) fn promote(&mut self) {
        let learners = self.with_view(|view| view.promotable());
        if !learners.is_empty() {
            // When another change is under way, this is tried again.
            let _ = self.change(&Change::Promote(learners));
        }
    }

    fn with_view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        look(&View {
            me: self.me,
            members: self.raft.store().members(),
            is_pending: self.raft.raft.has_pending_conf(),
            is_reachable: &|id| self.is_reachable(id),
            missing: &|id| self.missing(id),
        })
    }

    /// Whether a peer was heard of within an election timeout.
    pub(super) fn is_reachable(&self, id: u64) -> bool {
        self.was_heard_within(id, ELECTION_TICKS as u64)
    }

    pub(super) fn was_heard_within(&self, id: u64, ticks: u64) -> bool {
        self.heard.iter().any(|(peer, at)| *peer == id && at + ticks > self.now)
    }

    /// Entries that a peer misses, as far as the leader knows.
    pub(super) fn missing(&self, id: u64) -> u64 {
        let raft = &self.raft.raft;
        raft.prs()
            .get(id)
            .filter(|progress| progress.state == ProgressState::Replicate)
            .map_or(u64::MAX, |progress| {
                raft.raft_log.last_index().saturating_sub(progress.matched)
            })
    }

    /// Raft leaves joint consensus by itself, unless the leadership changed just then.
    pub(super) fn leave_joint(&mut self) {
        let raft = &self.raft.raft;
        let members = self.raft.store().members();
        if members.is_joint()
            && members.auto_leave
            && self.leads().is_ok()
            && !raft.has_pending_conf()
        {
            self.flush();
            // When it is refused, the next tick tries again.
            let _ = self.raft.propose_conf_change(Vec::new(), ConfChangeV2::default());
        }
    }
}
