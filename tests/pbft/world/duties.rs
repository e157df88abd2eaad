//! What primaries owe their partitions beside the order of requests, and one replica that always waits for
//! what nobody can do.

use super::World;
use crate::villain::Trick;
use coreflow::consensus::engine::Duty;

/// The number of a duty that nobody can do.
const NOBODYS: u64 = u64::MAX;
/// How long a primary has for a duty, milliseconds.
const PATIENCE_MS: u64 = 700;

/// The duties of all partitions.
#[derive(Debug, Default)]
pub struct Duties {
    /// How many were done, by partition.
    done: Vec<u64>,
    /// How many have to be in the end.
    marks: Vec<u64>,
    /// Who waits for what nobody can do.
    lone: Option<u64>,
}

impl Duties {
    pub(super) fn new(partitions: u16, lone: Option<u64>) -> Self {
        Self { done: vec![0; partitions.into()], marks: Vec::new(), lone }
    }
}

impl World {
    /// A node's shard does what it owes where it leads, and tells its replica what another one owes.
    pub(super) fn tend_duties(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (villain, Some(driver)) = (self.villains.get(&node.id), &mut node.driver) else {
            return;
        };
        let shirks = villain.is_some_and(|villain| villain.has(Trick::Shirk));
        for (partition, (shard, done)) in (0..).zip(node.shards.iter().zip(&mut self.duties.done)) {
            if shard.leads.is_some() && !shirks {
                *done += 1;
            }
            let is_lone = self.duties.lone == Some(node.id);
            let number = if is_lone { NOBODYS } else { *done };
            if villain.is_none() {
                driver.owed(partition, Some(Duty { number, patience_ms: PATIENCE_MS }));
            }
        }
    }

    /// From now on each partition's duty is to be done once more.
    pub(super) fn mark_duties(&mut self) {
        self.duties.marks = self.duties.done.iter().map(|done| done + 1).collect();
    }

    /// Whether it was.
    pub(super) fn are_duties_done(&self) -> bool {
        self.duties.done.iter().zip(&self.duties.marks).all(|(done, mark)| done >= mark)
    }
}
