//! Changes of a group's membership, and what its leader knows of the members.

use super::{
    group::{ELECTION_TICKS, Group, Refused},
    membership::{Change, ChangeRefused, View},
};
use raft::{ProgressState, eraftpb::ConfChangeV2};
use std::collections::BTreeSet;

/// How long members that would remain may take to give a sign of life.
const PROOF_TICKS: u64 = ELECTION_TICKS as u64;

/// Who gave a sign of life since somebody wants members to leave.
#[derive(Debug)]
pub(super) struct Proof {
    leaving: Vec<u64>,
    since: u64,
    pub heard: BTreeSet<u64>,
}

impl Group {
    /// Begins a change of the membership; [`super::Event::Membership`] tells when it holds.
    ///
    /// # Errors
    /// When it is not allowed now, and why; [`ChangeRefused::Unproven`] is to be asked again.
    pub fn change(&mut self, change: &Change) -> Result<(), ChangeRefused> {
        if let Err(Refused::NotLeader { leader }) = self.leads() {
            return Err(ChangeRefused::NotLeader { leader });
        }
        if self.is_handing_over() {
            return Err(ChangeRefused::Pending);
        }
        self.flush();
        if let Change::Remove(leaving) = change {
            self.prove(leaving);
        }
        let planned = self.with_view(|view| view.plan(change));
        if let (Err(ChangeRefused::NoQuorum { .. }), Some(proof)) = (&planned, &self.proof)
            && self.now < proof.since + PROOF_TICKS
        {
            return Err(ChangeRefused::Unproven);
        }
        let heir = || if let Change::Remove(nodes) = change { self.heir(nodes) } else { None };
        let outcome = match planned {
            Err(ChangeRefused::HandingOver { .. }) => match heir() {
                Some(to) => Err(ChangeRefused::HandingOver { to }),
                None => Err(ChangeRefused::NoQuorum {
                    reachable: 0,
                    voters: self.raft.store().members().voters.len() - 1,
                }),
            },
            planned => planned,
        };
        self.proof = None;
        match outcome {
            Ok(planned) => self
                .raft
                .propose_conf_change(Vec::new(), planned)
                .map_err(|_| ChangeRefused::Pending),
            Err(refused) => {
                if let ChangeRefused::HandingOver { to } = refused {
                    self.raft.transfer_leader(to);
                }
                Err(refused)
            }
        }
    }

    /// Asks all members for a sign of life before some leave: a voter that was heard of lately may
    /// be gone by now, and nothing is committed any more when too many of those that remain are.
    fn prove(&mut self, leaving: &[u64]) {
        let is_fresh =
            |proof: &Proof| proof.leaving == leaving && self.now <= proof.since + 2 * PROOF_TICKS;
        if !self.proof.as_ref().is_some_and(is_fresh) {
            let (leaving, heard) = (leaving.to_vec(), BTreeSet::new());
            self.proof = Some(Proof { leaving, since: self.now, heard });
            self.raft.ping();
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
        if self.proof.is_some() {
            return;
        }
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

    /// Whether a peer was heard of within an election timeout; when members are to leave, since that
    /// was asked for.
    fn is_reachable(&self, id: u64) -> bool {
        match &self.proof {
            Some(proof) => proof.heard.contains(&id),
            None => self.was_heard_within(id, ELECTION_TICKS as u64),
        }
    }

    pub(super) fn was_heard_within(&self, id: u64, ticks: u64) -> bool {
        self.heard.iter().any(|(peer, at)| *peer == id && at + ticks > self.now)
    }

    /// Entries that a peer misses, as far as the leader knows; more than any when it does not hold the last
    /// change of the members: it may not vote before (`removal.rs`).
    pub(super) fn missing(&self, id: u64) -> u64 {
        let raft = &self.raft.raft;
        raft.prs()
            .get(id)
            // Whoever could not be reached and lacks nothing is probed until there is a new entry: what it has
            // is known all the same.
            .filter(|progress| {
                progress.state == ProgressState::Replicate
                    || progress.matched == raft.raft_log.last_index()
            })
            .filter(|progress| progress.matched >= self.raft.store().members_since())
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
