//! What primaries owe their partitions beside the order of requests, and one replica that always waits for
//! what nobody can do.
//!
//! A correct replica leaves a view for a duty only when f + 1 correct ones have said in it that something is
//! owed, or have left it.

use super::World;
use crate::villain::Trick;
use coreflow::consensus::{engine::Duty, pbft::Message};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Correct replicas that have said in a view of a partition that something is owed.
    said: BTreeMap<(u16, u64), BTreeSet<u64>>,
    /// The highest view of a partition that each correct replica has wanted.
    wanted: BTreeMap<(u16, u64), u64>,
    /// The view of a partition that each correct replica was in, and how many it had left for duties.
    known: BTreeMap<(u16, u64), (u64, u64)>,
}

impl Duties {
    pub(super) fn new(partitions: u16, lone: Option<u64>) -> Self {
        Self { done: vec![0; partitions.into()], lone, ..Self::default() }
    }

    /// A correct replica says something.
    pub(super) fn say(&mut self, node: u64, partition: u16, message: &Message) {
        match message {
            Message::Owed(view) => {
                self.said.entry((partition, *view)).or_default().insert(node);
            }
            Message::ViewChange(change) => {
                let wanted = self.wanted.entry((partition, node)).or_default();
                *wanted = change.view.max(*wanted);
            }
            _ => {}
        }
    }

    /// How many correct replicas have a reason to leave a view.
    fn reasons(&self, partition: u16, view: u64) -> usize {
        let said = self.said.get(&(partition, view)).into_iter().flatten().copied();
        let wanted = self.wanted.iter().filter(|((of, _), to)| *of == partition && **to > view);
        said.chain(wanted.map(|((_, node), _)| *node)).collect::<BTreeSet<_>>().len()
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

    /// What a correct replica has just done had its reasons.
    pub(super) fn judge_duties(&mut self, at: usize) {
        let id = self.nodes[at].id;
        for partition in 0..self.group.partitions {
            let Some(driver) = &self.nodes[at].driver else { return };
            let status = driver.group(partition).expect("it exists").status();
            let now = (status.view, status.counters.duties);
            let before = self.duties.known.insert((partition, id), now).unwrap_or_default();
            // It counts anew when its process has ended.
            if now.1 <= before.1 {
                continue;
            }
            let reasons = self.duties.reasons(partition, before.0);
            assert!(
                reasons > self.group.faulty(),
                "{id} in {partition} leaves view {} for a duty with {reasons} correct replicas",
                before.0
            );
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
