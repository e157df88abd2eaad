//! Who belongs to a group, and what may be asked of that.

/// More voters than this make writes slower and nothing safer.
pub const VOTERS_MAX: usize = 7;
/// Members of all kinds.
pub const MEMBERS_MAX: usize = 16;

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

    pub(in crate::consensus) fn sort(&mut self) {
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
    pub(in crate::consensus) fn know(&mut self, id: u64) {
        if !self.is_member(id) {
            self.learners.push(id);
            self.learners.sort_unstable();
        }
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
    /// Where nodes may be byzantine, the members are those that the configuration names.
    #[error(
        "nodes that agree by PBFT never join or leave: begin another cluster with other nodes in \
         `[[node]]`"
    )]
    Fixed,
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
