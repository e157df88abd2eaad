//! How much of an agreed table each of the nodes that may lie takes up, and how much it may.
//!
//! A task's name says who asked for it. Each node is sure of a share, which nobody else can use up; what
//! is beyond the shares is for whoever comes first, so that one door alone has more than half of all.
//!
//! Invariants worth naming
//! - Whatever one node asks for, and however much of that a node that lies has ordered, others still may
//!   ask for their shares.
//! - Correct doors stop before others would take no more from them: no request waits for ever.
//! - One number parts what is waited for from what is not: from where a correct door asks for nothing more,
//!   nobody leaves a primary that takes nothing either. Tables may differ by what is between that and where
//!   a primary stops, an eighth, and no primary is left that goes by its own.

use crate::wire::{
    id::PartitionIndex,
    names::{Crowd, Named, Names},
};

/// Nodes among which some may lie, at most.
pub const ASKERS_MAX: usize = 8;

/// A node among those that agree on a table.
#[derive(Clone, Copy, Debug)]
pub struct Among {
    /// What tells who asked for a task.
    pub names: Names,
    /// The node's place among all.
    pub me: u8,
    /// All nodes.
    pub nodes: u8,
}

/// What each node takes up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Census {
    among: Option<Among>,
    partition: PartitionIndex,
    /// Tasks that have not ended, by who asked for them.
    tasks: [u32; ASKERS_MAX],
    /// Keys, by who asked for the task that they stand for.
    keys: [u32; ASKERS_MAX],
}

/// How much of something that all nodes share there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// What each node is sure of.
    pub share: usize,
    /// What a correct door asks for at most: from here on nobody waits for what it asks for.
    pub door: usize,
    /// From here on other nodes take no more from it.
    pub most: usize,
}

impl Quota {
    /// Of so much, among so many nodes.
    pub(super) fn of(capacity: usize, nodes: u8) -> Self {
        let nodes = usize::from(nodes).max(1);
        let share = capacity / (2 * nodes);
        let most = capacity - (nodes - 1) * share;
        Self { share, door: most - most / 8, most }
    }

    /// How much more a correct door may ask for that takes up so much, when so much is free beside what
    /// others are sure of.
    pub(super) fn room(self, used: usize, free: usize) -> usize {
        let sure = self.share.saturating_sub(used);
        sure.max(self.door.saturating_sub(used).min(free))
    }
}

impl Census {
    /// Nothing is taken up; `among` whom a table is agreed on, if it is.
    pub(super) fn new(among: Option<Among>, partition: PartitionIndex) -> Self {
        Self { among, partition, tasks: [0; ASKERS_MAX], keys: [0; ASKERS_MAX] }
    }

    /// Among whom.
    pub(super) fn among(&self) -> Option<Among> {
        self.among
    }

    /// Who asked for a task.
    pub(super) fn asker(&self, name: u128) -> Option<usize> {
        let Among { names, nodes, .. } = self.among?;
        let Named { asker, partition, .. } = names.read(name)?;
        (partition == self.partition && asker < nodes).then_some(asker.into())
    }

    /// A task is there that has not ended.
    #[inline]
    pub(super) fn task_comes(&mut self, name: u128) {
        if let Some(asker) = self.asker(name) {
            self.tasks[asker] += 1;
        }
    }

    /// A task has ended, or is there no more.
    #[inline]
    pub(super) fn task_goes(&mut self, name: u128) {
        if let Some(asker) = self.asker(name) {
            self.tasks[asker] -= 1;
        }
    }

    /// A key stands for a task.
    pub(super) fn key_comes(&mut self, name: u128) {
        if let Some(asker) = self.asker(name) {
            self.keys[asker] += 1;
        }
    }

    /// It does so no more.
    pub(super) fn key_goes(&mut self, name: u128) {
        if let Some(asker) = self.asker(name) {
            self.keys[asker] -= 1;
        }
    }

    /// What this node takes up: tasks, and keys.
    pub(super) fn own(&self) -> (usize, usize) {
        let me = self.among.map_or(0, |among| usize::from(among.me));
        (self.tasks[me] as usize, self.keys[me] as usize)
    }

    /// Tasks that anybody takes up.
    pub(super) fn all_tasks(&self) -> usize {
        self.tasks.iter().map(|tasks| *tasks as usize).sum()
    }

    /// Those that take up much.
    pub(super) fn crowd(&self, tasks: Quota, keys: Quota) -> Crowd {
        let over = |tasks: usize, keys: usize| {
            let is_over = |asker: &usize| {
                self.tasks[*asker] as usize >= tasks || self.keys[*asker] as usize >= keys
            };
            (0..ASKERS_MAX).filter(is_over).fold(0, |bits, asker| bits | 1 << asker)
        };
        Crowd { full: over(tasks.most, keys.most), near: over(tasks.door, keys.door) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_one_node_takes_up_the_others_have_their_shares() {
        for nodes in [4, 7] {
            for capacity in [0, 1, 7, 11_000, 1_000_000] {
                let quota = Quota::of(capacity, nodes);
                let Quota { share, door, most } = quota;
                assert!(share <= door && door <= most && most <= capacity, "{quota:?}");
                let others = (usize::from(nodes) - 1) * share;
                assert_eq!(most + others, capacity, "all of it is somebody's");
                assert!(2 * most >= capacity, "one door alone has half of it: {quota:?}");
                // A table that somebody has filled far beyond its limit.
                assert_eq!(quota.room(0, 0), share);
                assert_eq!(quota.room(share, 0), 0);
                assert_eq!(quota.room(0, capacity), door);
                assert_eq!(quota.room(door, capacity), 0);
            }
        }
    }

    #[test]
    fn nobody_waits_for_what_a_primary_may_not_take_though_tables_differ_by_an_eighth() {
        let quota = Quota::of(11_000, 4);
        let names = Names::new(7);
        let mut census = Census::new(Some(Among { names, me: 1, nodes: 4 }), 2);
        let crowd = |census: &Census| census.crowd(quota, Quota::of(usize::MAX, 4));
        for place in 0..quota.most as u32 {
            // A door that tells the truth asks for one more: it is waited for.
            let used = place as usize;
            assert_eq!(crowd(&census).near == 0, used < quota.door, "{used}");
            assert_eq!(quota.room(used, usize::MAX) > 0, used < quota.door, "{used}");
            assert_eq!(crowd(&census).full, 0);
            census.task_comes(names.name(Named { asker: 2, partition: 2, request: 1, place }));
        }
        assert_eq!(crowd(&census), Crowd { full: 0b100, near: 0b100 });
        // A table that lacks an eighth of that does not wait for what this one does not take.
        for place in 0..(quota.most / 8) as u32 {
            census.task_goes(names.name(Named { asker: 2, partition: 2, request: 1, place }));
        }
        assert_eq!(crowd(&census), Crowd { full: 0, near: 0b100 });
    }

    #[test]
    fn what_is_counted_is_who_asked() {
        let names = Names::new(1 << 99 | 5);
        let among = Among { names, me: 1, nodes: 4 };
        let name = |asker, partition| names.name(Named { asker, partition, request: 3, place: 0 });
        let mut census = Census::new(Some(among), 2);
        let one = Quota::of(1, 4);
        for (asker, partition) in [(1, 2), (3, 2), (3, 2), (5, 2), (1, 9)] {
            census.task_comes(name(asker, partition));
            census.key_comes(name(asker, partition));
        }
        assert_eq!(census.own(), (1, 1));
        assert_eq!(census.crowd(one, one), Crowd { full: 0b1010, near: 0b1010 });
        let (two, three) = (Quota { most: 2, ..one }, Quota { most: 3, ..one });
        assert_eq!(census.crowd(two, three), Crowd { full: 0b1000, near: 0b1010 });
        census.task_goes(name(1, 2));
        census.key_goes(name(1, 2));
        // What is no name of this partition counts for nobody, there and back.
        census.task_goes(name(1, 9));
        census.task_goes(7);
        assert_eq!(census.own(), (0, 0));
    }
}
