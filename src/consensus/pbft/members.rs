//! Who is in a group, and how many of them it takes.

use crate::planted::{self, Bug};

/// Members of a group at most.
pub const MEMBERS_MAX: usize = 16;

/// Nodes cannot be the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMembers {
    /// Their count is not 3f + 1, or too large.
    #[error("there are {0} members, not 3f + 1 (1, 4, 7, 10, 13 or 16)")]
    Count(usize),
    /// One is there twice, or is 0.
    #[error("node {0} cannot be a member, or is one already")]
    Node(u64),
    /// One has no key.
    #[error("node {0} has no public key")]
    Key(u64),
}

/// The members of a group, in ascending order: 3f + 1 nodes of which f may be faulty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Members {
    nodes: Vec<u64>,
    /// What view 0 begins with.
    first: usize,
}

impl Members {
    /// The members of a partition's group. Partitions have their first primaries in turn.
    ///
    /// # Errors
    /// When there cannot be a group of them.
    pub fn new(partition: u16, nodes: &[u64]) -> Result<Self, NotMembers> {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        let count = nodes.len();
        if count % 3 != 1 || count > MEMBERS_MAX {
            return Err(NotMembers::Count(count));
        }
        if nodes[0] == 0 {
            return Err(NotMembers::Node(0));
        }
        if let Some(twice) = nodes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(NotMembers::Node(twice[0]));
        }
        Ok(Self { first: usize::from(partition) % count, nodes })
    }

    /// The nodes.
    pub fn nodes(&self) -> &[u64] {
        &self.nodes
    }

    /// Whether a node is one.
    pub fn contains(&self, node: u64) -> bool {
        self.nodes.binary_search(&node).is_ok()
    }

    /// How many may be faulty.
    pub fn faulty(&self) -> usize {
        (self.nodes.len() - 1) / 3
    }

    /// How many it takes so that any two such sets have a correct node in common: 2f + 1.
    pub fn quorum(&self) -> usize {
        let missing = usize::from(planted::has(Bug::SmallQuorum) && self.faulty() > 0);
        2 * self.faulty() + 1 - missing
    }

    /// How many it takes so that one of them is correct: f + 1.
    pub fn one_correct(&self) -> usize {
        self.faulty() + 1
    }

    /// Prepares beside the pre-prepare of a certificate: 2f.
    pub fn prepares(&self) -> usize {
        self.quorum() - 1
    }

    /// The primary of a view.
    pub fn primary(&self, view: u64) -> u64 {
        let count = self.nodes.len() as u64;
        self.nodes[((self.first as u64 + view % count) % count) as usize]
    }
}
