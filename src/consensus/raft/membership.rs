//! Who belongs to a group, and which changes of that are allowed.
//!
//! A node joins as a learner: it receives the log and has no vote, so it can neither delay nor
//! decide anything while it is empty. When it has caught up it is promoted. Changes of several
//! members at once go through joint consensus, which raft leaves by itself.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// More voters than this make writes slower and nothing safer.
pub const VOTERS_MAX: usize = 7;
/// Members of all kinds.
pub const MEMBERS_MAX: usize = 16;
/// A learner that misses no more entries than this has caught up: it will not hold back commits
/// noticeably when it has a vote.
pub const CAUGHT_UP_ENTRIES: u64 = 128;

/// The members of a group, each list in order of the ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Have a vote.
    pub voters: Vec<u64>,
    /// Receive the log and have no vote.
    pub learners: Vec<u64>,
    /// While a joint change is under way: the voters before it, of whom a majority is needed too.
    pub outgoing: Vec<u64>,
    /// Voters of before that become learners when the joint change is over.
    pub learners_next: Vec<u64>,
    /// Raft ends the joint change by itself.
    pub auto_leave: bool,
}

impl Members {
    /// A group of these voters.
    pub fn of_voters(voters: &[u64]) -> Self {
        let mut members = Self { voters: voters.to_vec(), ..Self::default() };
        members.sort();
        members
    }

    fn sort(&mut self) {
        for list in self.lists_mut() {
            list.sort_unstable();
        }
    }

    fn lists_mut(&mut self) -> [&mut Vec<u64>; 4] {
        [&mut self.voters, &mut self.learners, &mut self.outgoing, &mut self.learners_next]
    }

    /// Whether one voter is the whole group.
    pub fn is_single(&self) -> bool {
        self.voters.len() == 1 && self.outgoing.is_empty() && self.learners.is_empty()
    }

    /// Whether a change of several members is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether it has a vote.
    pub fn is_voter(&self, id: u64) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether it receives the log.
    pub fn is_member(&self, id: u64) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Makes it a learner unless it is a member.
    pub(super) fn know(&mut self, id: u64) {
        if !self.is_member(id) {
            self.learners.push(id);
            self.learners.sort_unstable();
        }
    }

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

    /// Whether raft takes it: raft ends the process over one that it does not.
    pub fn is_valid(&self) -> bool {
        let is_list = |list: &[u64]| {
            list.iter().all(|id| *id != 0) && list.windows(2).all(|pair| pair[0] < pair[1])
        };
        let Self { voters, learners, outgoing, learners_next, auto_leave } = self;
        !voters.is_empty()
            && [voters, learners, outgoing, learners_next].into_iter().all(|list| is_list(list))
            && voters.len().max(outgoing.len()) <= VOTERS_MAX
            && learners.len() <= MEMBERS_MAX
            && !learners.iter().any(|id| self.is_voter(*id))
            && learners_next.iter().all(|id| outgoing.contains(id) && !voters.contains(id))
            && (self.is_joint() || !auto_leave)
    }
}

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These nodes receive the log.
    AddLearners(Vec<u64>),
    /// These learners get a vote.
    Promote(Vec<u64>),
    /// These members leave.
    Remove(Vec<u64>),
}

/// Why the membership is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Only the leader changes it.
    #[error("only the leader changes the membership")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<u64>,
    },
    /// One at a time.
    #[error("another change of the membership is under way")]
    Pending,
    /// Nothing to do, an id twice, or the id 0.
    #[error("the change names no node, one twice, or the node 0")]
    Malformed,
    /// It is a member already.
    #[error("node {0} is a member already")]
    AlreadyMember(u64),
    /// It has to be a learner first.
    #[error("node {0} is no learner")]
    NotLearner(u64),
    /// It is no member.
    #[error("node {0} is no member")]
    NotMember(u64),
    /// It has to catch up first.
    #[error("node {node} has not caught up: it misses {entries} entries")]
    NotCaughtUp {
        /// The learner.
        node: u64,
        /// Entries that it misses.
        entries: u64,
    },
    /// There would be too many.
    #[error("a group has at most {VOTERS_MAX} voters and {MEMBERS_MAX} members")]
    TooMany,
    /// Nothing could be committed after it.
    #[error("{reachable} of {voters} voters would be reachable, which is no majority")]
    NoQuorum {
        /// Voters after the change that were heard of: lately, or since they were asked for a sign of
        /// life.
        reachable: usize,
        /// Voters after the change.
        voters: usize,
    },
    /// Those that would remain are asked for a sign of life, which is there in a moment or not.
    #[error("the voters that would remain are asked for a sign of life; ask again")]
    Unproven,
    /// The leader leaves only after another one leads; that was begun.
    #[error("the leader hands over to node {to} first; ask that one")]
    HandingOver {
        /// The next leader.
        to: u64,
    },
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
