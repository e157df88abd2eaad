//! Who mends a cluster, as the manual says: a node whose log is damaged is made to leave, and one with
//! a number of its own and an empty disk joins.

use crate::{
    node::{Node, leader},
    trace::{Trace, note},
};
use coreflow::{
    consensus::{
        cluster::Ask,
        members::{Change, Members},
    },
    wire::id::PartitionIndex,
};

/// It looks at the cluster at one of so many steps.
const LOOK: u32 = 48;

/// See the file.
pub struct Operator {
    rng: fastrand::Rng,
    partitions: PartitionIndex,
    /// The place of a node that may be begun.
    spare: Option<usize>,
    /// The place of the node that leaves, and of the one that joins.
    replacing: Option<(usize, usize)>,
    /// Nodes that were replaced.
    pub replaced: u64,
}

impl Operator {
    /// One who has a node at this place of the list to begin, or none.
    pub fn new(seed: u64, partitions: PartitionIndex, spare: Option<usize>) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { rng, partitions, spare, replacing: None, replaced: 0 }
    }

    /// Whether it has done what it began.
    pub fn rests(&self) -> bool {
        self.replacing.is_none()
    }

    /// Perhaps looks at the cluster, and does the next thing.
    pub fn act(&mut self, nodes: &mut [Node], trace: &Trace) {
        if self.rng.u32(..LOOK) > 0 {
            return;
        }
        let is_lost = |node: &Node| node.is_out && node.is_rotten;
        let Some((damaged, spare)) = self.replacing else {
            if let Some(damaged) = nodes.iter().position(is_lost)
                && let Some(spare) = self.spare.take()
            {
                note!(trace, "operator: {} replaces {}", nodes[spare].id, nodes[damaged].id);
                self.replacing = Some((damaged, spare));
            }
            return;
        };
        let (leaving, joining) = (nodes[damaged].id, nodes[spare].id);
        let members: Option<Vec<Members>> = (0..self.partitions)
            .map(|partition| leader(nodes, partition).map(|(_, _, members)| members.clone()))
            .collect();
        let Some(members) = members else { return };
        let change = if members.iter().any(|members| members.is_member(leaving)) {
            Change::Remove(vec![leaving])
        } else if nodes[spare].is_out {
            note!(trace, "operator: {joining} begins");
            nodes[spare].is_out = false;
            return;
        } else if !members.iter().all(|members| members.is_member(joining)) {
            Change::AddLearners(vec![joining])
        } else if !members.iter().all(|members| members.voters.contains(&joining)) {
            Change::Promote(vec![joining])
        } else {
            note!(trace, "operator: {leaving} is replaced");
            nodes[damaged].is_replaced = true;
            self.replacing = None;
            self.replaced += 1;
            return;
        };
        note!(trace, "operator: all are asked for {change:?}");
        for running in nodes.iter().filter_map(|node| node.running.as_ref()) {
            drop(running.cluster.ask(Ask::Change(change.clone())));
        }
    }
}
