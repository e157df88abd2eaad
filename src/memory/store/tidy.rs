//! What makes searches of a partition quicker and can wait: nothing that is found depends on it.

use super::{partition::Partition, portion::Portion};

impl Partition {
    /// Goes on with what makes searches quicker and can wait: looking for the rows of namespaces that became small, and
    /// linking what a start took in, which searches find meanwhile. False when there is nothing of it.
    pub fn tidy_some(&mut self) -> bool {
        if self.table.gather_some() {
            return true;
        }
        let (mut portion, distances) = (Portion::new(), self.index.step_distances());
        let mut has_linked = false;
        while self.index.link_some(distances) {
            has_linked = true;
            if portion.is_over() {
                break;
            }
        }
        has_linked
    }

    /// Whether there is something of it.
    pub fn has_to_tidy(&self) -> bool {
        self.index.late() > 0 || self.table.has_to_gather()
    }
}
