//! Tasks of which the memory holds no more than where the log has them.

use super::{
    entry::Watcher,
    index::Index,
    list::{Link, Linked},
    place::Spot,
    replay::Recorded,
    slab::Slab,
};
use crate::{registry::TypeIndex, wire::api::Priority};
use std::collections::HashMap;

/// What a [`Cold`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Vacant,
    /// A task in its queue.
    Waiting,
    /// A task that waits for a time.
    Delayed,
    /// A task in memory that came after cold ones; `spot` is the key of its entry.
    StandIn,
}

impl Kind {
    /// What a task is as its record says, and since when or until when, Unix time in milliseconds.
    pub(super) fn of_recorded(task: &Recorded<'_>) -> (Self, u64) {
        match task.due_unix_ms {
            0 => (Self::Waiting, task.submitted_unix_ms),
            due => (Self::Delayed, due),
        }
    }
}

/// Its priority stands above these bits.
const PRIORITY_SHIFT: u32 = 6;
/// The log was asked for it, or need not be.
const COMING: u8 = 1 << 2;
const KIND: u8 = COMING - 1;

/// A task that waits, or a stand-in in a queue of such tasks.
#[derive(Clone)]
pub(super) struct Cold {
    /// In parts, so that nothing is lost to alignment.
    random: [u32; 4],
    pub(super) spot: Spot,
    /// Its neighbours in its queue, or its place in the heap of delays; while the log is
    /// replayed, since when it waits.
    link: Link,
    /// Where nodes agree on the table: what tells its contents from others ([`TaskTable::print`]).
    ///
    /// [`TaskTable::print`]: super::table::TaskTable::print
    pub(super) print: u32,
    pub(super) type_index: TypeIndex,
    /// The most that it can stands for what the record says.
    pub(super) attempts: u8,
    /// Kind, [`COMING`] and priority.
    class: u8,
}

const _: () = assert!(size_of::<Cold>() == 40);

impl Default for Cold {
    fn default() -> Self {
        Self {
            random: [0; 4],
            spot: Spot::NONE,
            link: Link::NONE,
            print: 0,
            type_index: 0,
            attempts: 0,
            class: Kind::Vacant as u8,
        }
    }
}

impl Linked for Cold {
    #[inline]
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

impl Cold {
    pub(super) fn new(
        kind: Kind,
        random: u128,
        spot: Spot,
        type_index: TypeIndex,
        priority: Priority,
    ) -> Self {
        let class = kind as u8 | (priority as u8) << PRIORITY_SHIFT;
        let random = [random, random >> 32, random >> 64, random >> 96].map(|part| part as u32);
        Self { random, spot, link: Link::NONE, print: 0, type_index, attempts: 0, class }
    }

    #[inline]
    pub(super) fn random(&self) -> u128 {
        self.random.iter().rev().fold(0, |random, part| random << 32 | u128::from(*part))
    }

    #[inline]
    pub(super) fn kind(&self) -> Kind {
        [Kind::Vacant, Kind::Waiting, Kind::Delayed, Kind::StandIn][(self.class & KIND) as usize]
    }

    pub(super) fn set_kind(&mut self, kind: Kind) {
        self.class = self.class & !KIND | kind as u8;
    }

    /// Whether it is a task, not a stand-in or nothing.
    pub(super) fn is_task(&self) -> bool {
        matches!(self.kind(), Kind::Waiting | Kind::Delayed)
    }

    pub(super) fn is_coming(&self) -> bool {
        self.class & COMING != 0
    }

    pub(super) fn set_coming(&mut self) {
        self.class |= COMING;
    }

    pub(super) fn priority(&self) -> Priority {
        Priority::ALL[(self.class >> PRIORITY_SHIFT) as usize]
    }

    /// Its neighbours, or its place among the delays.
    pub(super) fn place_of_delay(&self) -> Link {
        self.link
    }

    /// Since when it waits, while the log is replayed, Unix milliseconds.
    pub(super) fn since_unix_ms(&self) -> u64 {
        u64::from(self.link.first()) << 32 | u64::from(self.link.second())
    }

    pub(super) fn set_since_unix_ms(&mut self, since: u64) {
        self.link = Link::pair((since >> 32) as u32, since as u32);
    }
}

/// Task ids are random already.
#[inline]
pub(super) fn hash(random: u128) -> u64 {
    random as u64 ^ (random >> 64) as u64
}

/// The cold tasks of a partition and the stand-ins of their queues.
#[derive(Default)]
pub(super) struct ColdTasks {
    pub(super) slab: Slab<Cold>,
    /// Finds a task; stand-ins are not in it.
    index: Index,
    /// Who waits for the end of a cold task.
    pub(super) watchers: HashMap<u128, Vec<Watcher>>,
    /// Whether a queue may have too few hot tasks.
    pub(super) thirsty: bool,
}

impl ColdTasks {
    /// Tasks that are cold.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The slot of a task.
    #[inline]
    pub(super) fn find(&self, random: u128) -> Option<u32> {
        self.index.find(hash(random), |slot| self.slab[slot].random() == random)
    }

    /// Adds a task, in no queue yet.
    pub(super) fn insert(&mut self, cold: Cold) -> u32 {
        let random = cold.random();
        let slot = self.slab.insert(cold);
        self.index.insert(hash(random), slot, |slot| hash(self.slab[slot].random()));
        slot
    }

    /// The task is no longer cold; its slot remains.
    pub(super) fn forget(&mut self, slot: u32) {
        self.index.remove(hash(self.slab[slot].random()), slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_few_bytes_keep_everything() {
        let random = 0x0123_4567_89ab_cdef_1357_9bdf_0246_8ace;
        for priority in Priority::ALL {
            for kind in [Kind::Waiting, Kind::Delayed, Kind::StandIn] {
                let mut cold = Cold::new(kind, random, Spot::NONE, 7, priority);
                assert!(!cold.is_coming());
                cold.set_coming();
                cold.set_since_unix_ms(u64::MAX - 5);
                assert_eq!((cold.random(), cold.kind(), cold.priority()), (random, kind, priority));
                assert!(cold.is_coming());
                cold.set_kind(Kind::StandIn);
                assert_eq!((cold.kind(), cold.priority()), (Kind::StandIn, priority));
                assert_eq!(cold.since_unix_ms(), u64::MAX - 5);
            }
        }
    }
}
