//! What makes searches of a partition quicker and can wait: nothing that is found depends on it.

use super::partition::Partition;

impl Partition {
    /// Goes on with what makes searches quicker and can wait: looking for the rows of namespaces that became small, and
    /// linking what a start took in, which searches find meanwhile. False when there is nothing of it.
    pub fn tidy_some(&mut self) -> bool {
        self.table.gather_some() || self.index.link_some(self.index.step_distances())
    }

    /// Whether there is something of it.
    pub fn has_to_tidy(&self) -> bool {
        self.index.late() > 0 || self.table.has_to_gather()
    }
}
