//! What makes searches of a partition quicker and can wait: nothing that is found depends on it.

use super::partition::Partition;

impl Partition {
    /// Goes on with what makes searches quicker and can wait: linking what a start took in, which searches find
    /// meanwhile, and looking for the rows of namespaces that became small. False when there is nothing of it.
    pub fn tidy_some(&mut self) -> bool {
        self.index.link_some(self.index.step_distances()) || self.table.gather_some()
    }

    /// Whether there is something of it.
    pub fn has_to_tidy(&self) -> bool {
        self.index.late() > 0 || self.table.has_to_gather()
    }
}
