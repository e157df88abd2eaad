//! Which answers a change of the world makes wrong.

use crate::wire::id::NodeId;

/// Changes that are told one by one; beyond that all answers are forgotten.
pub const CHANGES_MAX: usize = 4096;

/// What must be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Everything.
    All,
    /// Whatever was answered with a node, or one of its agents: it is worth less than before.
    Gone(NodeId),
    /// Who has a name, by the name's hash ([`super::World::hash`]).
    Name(u64),
    /// Which node is the least loaded one of a type, by the hash of the type's name.
    Type(u64),
}

/// Changes that nobody heard of yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes(Vec<Change>);

impl Changes {
    /// Notes a change.
    pub fn note(&mut self, change: Change) {
        if self.0.last() == Some(&Change::All) || self.0.last() == Some(&change) {
            return;
        }
        if self.0.len() == CHANGES_MAX || change == Change::All {
            self.0.clear();
            return self.0.push(Change::All);
        }
        self.0.push(change);
    }

    /// All changes since the last call.
    pub fn take(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.0)
    }
}
