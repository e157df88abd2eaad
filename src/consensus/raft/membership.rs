//! Who belongs to a group, and which changes of that are allowed.
//!
//! A node joins as a learner: it receives the log and has no vote, so it can neither delay nor
//! decide anything while it is empty. When it has caught up it is promoted. Changes of several
//! members at once go through joint consensus, which raft leaves by itself.

pub use crate::consensus::members::{Change, ChangeRefused, MEMBERS_MAX, Members, VOTERS_MAX};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// A learner that misses no more entries than this has caught up: it will not hold back commits
/// noticeably when it has a vote.
pub const CAUGHT_UP_ENTRIES: u64 = 128;

impl Members {
    pub(super) fn from_conf_state(state: &ConfState) -> Self {
        let mut members = Self {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            outgoing: state.voters_outgoing.clone(),
            learners_next: state.learners_next.clone(),
            auto_leave: state.auto_leave,
        };
        members.sort();
        members
    }

    pub(super) fn to_conf_state(&self) -> ConfState {
        let mut state = ConfState::default();
        state.voters.clone_from(&self.voters);
        state.learners.clone_from(&self.learners);
        state.voters_outgoing.clone_from(&self.outgoing);
        state.learners_next.clone_from(&self.learners_next);
        state.auto_leave = self.auto_leave;
        state
    }
}

/// What a leader knows that decides about a change.
pub(super) struct View<'a> {
    pub me: u64,
    pub members: &'a Members,
    /// A change is in the log that was not applied.
    pub is_pending: bool,
    /// Heard of lately, or since somebody wants members to leave.
    pub is_reachable: &'a dyn Fn(u64) -> bool,
    /// Entries that it misses.
    pub missing: &'a dyn Fn(u64) -> u64,
}

impl View<'_> {
    /// The change as raft takes it; a leader that is to leave is told as
    /// [`ChangeRefused::HandingOver`] to itself.
    pub fn plan(&self, change: &Change) -> Result<ConfChangeV2, ChangeRefused> {
        let (kind, nodes) = match change {
            Change::AddLearners(nodes) => (ConfChangeType::AddLearnerNode, nodes),
            Change::Promote(nodes) => (ConfChangeType::AddNode, nodes),
            Change::Remove(nodes) => (ConfChangeType::RemoveNode, nodes),
        };
        if self.is_pending || self.members.is_joint() {
            return Err(ChangeRefused::Pending);
        }
        let is_twice = |at: usize| nodes[..at].contains(&nodes[at]);
        if nodes.is_empty() || nodes.contains(&0) || (0..nodes.len()).any(is_twice) {
            return Err(ChangeRefused::Malformed);
        }
        for &node in nodes {
            self.check(change, node)?;
        }
        self.check_quorum(change)?;
        if matches!(change, Change::Remove(_)) && nodes.contains(&self.me) {
            return Err(ChangeRefused::HandingOver { to: self.me });
        }
        let mut planned = ConfChangeV2::default();
        // Several changes at once go through joint consensus, and raft leaves it by itself.
        planned.set_transition(ConfChangeTransition::Auto);
        let changes: Vec<_> = nodes
            .iter()
            .map(|&node_id| {
                let mut single = ConfChangeSingle { node_id, ..ConfChangeSingle::default() };
                single.set_change_type(kind);
                single
            })
            .collect();
        planned.set_changes(changes.into());
        Ok(planned)
    }

    fn check(&self, change: &Change, node: u64) -> Result<(), ChangeRefused> {
        match change {
            Change::AddLearners(_) if self.members.is_member(node) => {
                Err(ChangeRefused::AlreadyMember(node))
            }
            Change::Promote(_) if !self.members.learners.contains(&node) => {
                Err(ChangeRefused::NotLearner(node))
            }
            Change::Promote(_) if (self.missing)(node) > CAUGHT_UP_ENTRIES => {
                Err(ChangeRefused::NotCaughtUp { node, entries: (self.missing)(node) })
            }
            Change::Remove(_) if !self.members.is_member(node) => {
                Err(ChangeRefused::NotMember(node))
            }
            _ => Ok(()),
        }
    }

    fn check_quorum(&self, change: &Change) -> Result<(), ChangeRefused> {
        let mut voters = self.members.voters.clone();
        let mut learners = self.members.learners.len();
        match change {
            Change::AddLearners(nodes) => learners += nodes.len(),
            Change::Promote(nodes) => voters.extend(nodes),
            Change::Remove(nodes) => voters.retain(|voter| !nodes.contains(voter)),
        }
        if voters.len() > VOTERS_MAX || voters.len() + learners > MEMBERS_MAX {
            return Err(ChangeRefused::TooMany);
        }
        let is_up = |node: &&u64| **node == self.me || (self.is_reachable)(**node);
        let (reachable, voters) = (voters.iter().filter(is_up).count(), voters.len());
        if 2 * reachable <= voters {
            return Err(ChangeRefused::NoQuorum { reachable, voters });
        }
        Ok(())
    }

    /// Learners that have caught up and are reachable.
    pub fn promotable(&self) -> Vec<u64> {
        let is_ready =
            |node: &u64| (self.is_reachable)(*node) && (self.missing)(*node) <= CAUGHT_UP_ENTRIES;
        self.members.learners.iter().copied().filter(is_ready).collect()
    }
}

/// Reads a change as raft writes it. Written out by hand, because the encoding's library follows
/// nested messages to any depth, and this is read from the log and from peers.
pub(super) fn change_of(mut bytes: &[u8]) -> Option<ConfChangeV2> {
    let mut change = ConfChangeV2::default();
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        match varint(&mut bytes)? {
            0x08 => change.set_transition(match varint(&mut bytes)? {
                0 => ConfChangeTransition::Auto,
                1 => ConfChangeTransition::Implicit,
                2 => ConfChangeTransition::Explicit,
                _ => return None,
            }),
            0x12 => changes.push(single_of(field(&mut bytes)?)?),
            0x1a => drop(field(&mut bytes)?),
            _ => return None,
        }
    }
    change.set_changes(changes.into());
    Some(change)
}

fn single_of(mut bytes: &[u8]) -> Option<ConfChangeSingle> {
    let mut single = ConfChangeSingle::default();
    while !bytes.is_empty() {
        match varint(&mut bytes)? {
            0x08 => single.set_change_type(match varint(&mut bytes)? {
                0 => ConfChangeType::AddNode,
                1 => ConfChangeType::RemoveNode,
                2 => ConfChangeType::AddLearnerNode,
                _ => return None,
            }),
            0x10 => single.node_id = varint(&mut bytes)?,
            _ => return None,
        }
    }
    Some(single)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (field, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(field)
}
