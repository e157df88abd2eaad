//! What the records of a log come to: how many of each kind, and which tasks live.

use super::record::{KIND_NAMES, Record};
use crate::wire::{
    api::TaskStatus,
    id::{PartitionIndex, TaskId},
};
use std::collections::HashSet;

/// Counts records in the order in which they were committed.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records of each kind, in the order of [`KIND_NAMES`].
    pub records: [u64; KIND_NAMES.len()],
    living: HashSet<TaskId>,
    dead: HashSet<TaskId>,
    /// Keys that any node asked for tasks with: further ones of the same key are none.
    keys: HashSet<(PartitionIndex, Box<[u8]>)>,
}

impl Tally {
    /// Counts a record.
    pub fn add(&mut self, record: &Record<'_>) {
        self.records[record.kind()] += 1;
        let id = record.id();
        match record {
            Record::Submitted { is_asked: true, key: Some(key), .. }
                if !self.keys.insert((id.partition, (*key).into())) => {}
            Record::Submitted { .. } | Record::Requeued { .. } => {
                self.dead.remove(&id);
                self.living.insert(id);
            }
            Record::Ended { status, .. } => {
                self.living.remove(&id);
                if *status == TaskStatus::Dead {
                    self.dead.insert(id);
                }
            }
            Record::Forgotten { .. } => {
                self.dead.remove(&id);
            }
            Record::Key { .. }
            | Record::Compacted { .. }
            | Record::Tokens { .. }
            | Record::Expired { .. }
            | Record::Order { .. } => {}
        }
    }

    /// A partition begins anew.
    pub fn forget(&mut self, partition: PartitionIndex) {
        self.living.retain(|id| id.partition != partition);
        self.dead.retain(|id| id.partition != partition);
        self.keys.retain(|(of, _)| *of != partition);
    }

    /// Tasks that were submitted and have not ended: they run again after a start.
    pub fn live_tasks(&self) -> usize {
        self.living.len()
    }

    /// Tasks that ended as dead and are kept.
    pub fn dead_letters(&self) -> usize {
        self.dead.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_lives_until_it_ends_and_a_dead_letter_lives_again_when_it_is_queued() {
        let id = |random| TaskId { partition: 0, random };
        let submitted = |random| Record::Submitted {
            id: id(random),
            is_asked: false,
            agent_type: "echo",
            priority: Default::default(),
            submitted_unix_ms: 0,
            due_unix_ms: 0,
            timeout_ms: 0,
            max_attempts: 0,
            attempts: 0,
            key: None,
            payload: b"x",
        };
        let ended = |random, status| Record::Ended {
            id: id(random),
            status,
            attempts: 1,
            ended_unix_ms: 0,
            body: b"y",
        };
        let mut tally = Tally::default();
        for random in 0..6 {
            tally.add(&submitted(random));
        }
        tally.add(&ended(0, TaskStatus::Done));
        tally.add(&ended(1, TaskStatus::Cancelled));
        for random in 2..5 {
            tally.add(&ended(random, TaskStatus::Dead));
        }
        tally.add(&Record::Forgotten { id: id(2) });
        tally.add(&Record::Requeued { id: id(3) });
        // A dead letter that was moved forward is a pair.
        tally.add(&submitted(4));
        tally.add(&ended(4, TaskStatus::Dead));
        assert_eq!((tally.live_tasks(), tally.dead_letters()), (2, 1));
        assert_eq!(tally.records, [7, 6, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
}
