//! Which of the waiting tasks stay in memory, and how the others come back from the log.
//!
//! A queue's hot tasks come before its cold ones. Whoever comes while there are cold ones becomes
//! cold as well, or, when it must stay in memory, leaves a stand-in among them. So the order of a
//! queue never changes, and neither the number of tasks that wait nor the size of their payloads
//! is bounded by memory.

use super::{
    cold::{Cold, Kind},
    delays::{Beds, Sleeper},
    entry::{BEHIND, Entry, State, WATCHED, Watcher},
    limits::asked_for,
    list::Link,
    place::{Place, Spot},
    replay::Recorded,
    table::TaskTable,
};
use crate::{
    registry::TypeIndex,
    wire::{
        api::{Priority, TaskStatus, TaskView},
        id::TaskId,
    },
};

/// One queue may have this part of all the tasks that may be in memory.
const QUEUE_PART: usize = 4;

/// A cold task that the log was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdKey {
    slot: u32,
    random: u128,
}

impl ColdKey {
    /// The task's random bits.
    pub fn random(self) -> u128 {
        self.random
    }
}

impl TaskTable {
    /// Tasks that wait in memory.
    #[inline]
    fn hot_waiting(&self) -> usize {
        (self.counters.queued + self.counters.delayed) as usize - self.cold.len()
    }

    /// A task waits now, in memory.
    #[inline]
    pub(super) fn hot_joins(&mut self, key: u32) {
        self.hot_bytes += self.entries[key as usize].bytes();
    }

    /// A task that waited in memory does not any more, or not there.
    #[inline]
    pub(super) fn hot_leaves(&mut self, key: u32) {
        self.hot_bytes -= self.entries[key as usize].bytes();
    }

    #[inline]
    pub(super) fn has_too_many_hot(&self) -> bool {
        self.durable && self.hot_bytes >= self.limits.queue_bytes
    }

    /// About how many tasks may wait in memory, when those that are not are like those that are.
    fn hot_max(&self) -> usize {
        let mean_bytes = self.hot_bytes.checked_div(self.hot_waiting());
        self.limits.queue_bytes / mean_bytes.map_or(Entry::BYTES, |mean| mean.max(Entry::BYTES))
    }

    /// Whether whoever comes to a queue now should not be in its hot part.
    #[inline]
    pub(super) fn is_beyond_hot(&mut self, type_index: TypeIndex, priority: Priority) -> bool {
        let too_many = self.has_too_many_hot();
        let queue = self.queues.of(type_index, priority);
        queue.has_cold() || (too_many && queue.hot_len as usize >= self.limits.hot_least)
    }

    /// Whether the log can give a task back, and nobody needs it in memory.
    pub(super) fn may_freeze(&self, key: u32) -> bool {
        let entry = &self.entries[key as usize];
        let is_counted = entry.attempts < u8::MAX.into();
        entry.place().is_some() && is_counted && !entry.is(WATCHED)
    }

    pub(super) fn freeze_delayed(&mut self, key: u32, due_ms: u64) {
        let slot = self.cold_from(key, Kind::Delayed);
        self.delay_cold(slot, due_ms);
    }

    pub(super) fn delay_cold(&mut self, slot: u32, due_ms: u64) {
        self.counters.delayed += 1;
        let beds = &mut Beds { entries: &mut self.entries, cold: &mut self.cold.slab };
        self.delays.push(beds, Sleeper::Cold(slot), due_ms);
    }

    /// Puts a task at the end of a queue that has cold ones, or too many hot ones.
    #[cold]
    pub(super) fn enqueue_beyond(&mut self, key: u32) {
        if self.may_freeze(key) {
            let slot = self.cold_from(key, Kind::Waiting);
            return self.enqueue_cold(slot);
        }
        self.counters.queued += 1;
        self.hot_joins(key);
        let entry = &mut self.entries[key as usize];
        let (type_index, priority) = (entry.type_index, entry.priority());
        let queue = self.queues.of(type_index, priority);
        if !queue.has_cold() {
            return queue.push(&mut self.entries, key);
        }
        let spot = Spot::from_key(key);
        let stand_in = Cold::new(Kind::StandIn, entry.random, spot, type_index, priority);
        let slot = self.cold.slab.insert(stand_in);
        entry.set(BEHIND);
        entry.link = Link::pair(slot, 0);
        queue.push_cold(&mut self.cold.slab, slot);
    }

    /// Puts a cold task at the end of its queue.
    pub(super) fn enqueue_cold(&mut self, slot: u32) {
        let cold = &mut self.cold.slab[slot];
        cold.set_kind(Kind::Waiting);
        let (type_index, priority) = (cold.type_index, cold.priority());
        self.queues.of(type_index, priority).push_cold(&mut self.cold.slab, slot);
        self.counters.queued += 1;
        self.cold.thirsty = true;
    }

    pub(super) fn remove_stand_in(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        let slot = entry.link.first();
        entry.unset(BEHIND);
        let queue = self.queues.of(entry.type_index, entry.priority());
        queue.remove_cold(&mut self.cold.slab, slot);
        self.cold.slab.remove(slot);
        queue.settle(&mut self.entries, &mut self.cold.slab);
        self.cold.thirsty = true;
    }

    /// Takes a cold task out of where it waits, into an entry that is in no list.
    pub(super) fn take_cold(&mut self, random: u128) -> Option<u32> {
        let slot = self.cold.find(random)?;
        let Cold { type_index, attempts, spot, .. } = self.cold.slab[slot];
        let (kind, priority) = (self.cold.slab[slot].kind(), self.cold.slab[slot].priority());
        if kind == Kind::Delayed {
            let beds = &mut Beds { entries: &mut self.entries, cold: &mut self.cold.slab };
            self.delays.remove(beds, Sleeper::Cold(slot));
            self.counters.delayed -= 1;
        } else {
            let queue = self.queues.of(type_index, priority);
            queue.remove_cold(&mut self.cold.slab, slot);
            queue.settle(&mut self.entries, &mut self.cold.slab);
            self.counters.queued -= 1;
            self.cold.thirsty = true;
        }
        self.cold.forget(slot);
        self.census.task_goes(random);
        self.cold.slab.remove(slot);
        let key = self.entry_of_cold(random, spot, type_index, priority);
        self.entries[key as usize].attempts = attempts.into();
        Some(key)
    }

    /// An entry for a task that was cold until now, in no list yet.
    pub(super) fn entry_of_cold(
        &mut self,
        random: u128,
        spot: Spot,
        type_index: TypeIndex,
        priority: Priority,
    ) -> u32 {
        let key = self.new_entry(random);
        let entry = &mut self.entries[key as usize];
        entry.begin(priority);
        entry.spot = spot;
        entry.type_index = type_index;
        for watcher in self.cold.watchers.remove(&random).unwrap_or_default() {
            entry.watch(watcher);
            self.watched.set(key);
        }
        key
    }

    /// Cold tasks that should come back, `max` at most, in the order of their queues, with the
    /// places of their records: to be read and given to [`TaskTable::warm`]. Each is told once.
    pub fn cold_wanted(&mut self, max: usize) -> Vec<(ColdKey, Place)> {
        let mut wanted = Vec::new();
        if !self.cold.thirsty {
            return wanted;
        }
        let (limit, hot_least) = (self.hot_max(), self.limits.hot_least);
        let coming: u32 = self.queues.all().map(|queue| queue.coming()).sum();
        let mut hot = self.hot_waiting() + coming as usize;
        let slab = &mut self.cold.slab;
        for queue in self.queues.all() {
            let part = match hot < limit / 2 {
                true => limit / QUEUE_PART,
                false => 0,
            };
            let enough = part.max(hot_least);
            if queue.ready_len() >= enough / 2 {
                continue;
            }
            while queue.has_unasked() && queue.ready_len() < enough {
                if wanted.len() == max {
                    return wanted;
                }
                let Some(slot) = queue.ask(slab) else { continue };
                let random = slab[slot].random();
                let place = slab[slot].spot.place().expect("the log has every cold task");
                wanted.push((ColdKey { slot, random }, place));
                hot += 1;
            }
        }
        self.cold.thirsty = false;
        wanted
    }

    /// Where the record of a wanted task is now; `None` when it is no longer wanted. It may have
    /// moved since [`TaskTable::cold_wanted`] told its place.
    pub fn wanted_place(&self, wanted: ColdKey) -> Option<Place> {
        let slot = self.cold.find(wanted.random).filter(|slot| *slot == wanted.slot)?;
        let cold = &self.cold.slab[slot];
        cold.spot.place().filter(|_| cold.is_coming() && cold.kind() == Kind::Waiting)
    }

    /// Takes a wanted task back into memory, with what its record says; false when it is no
    /// longer wanted or the record is that of another task.
    pub fn warm(&mut self, wanted: ColdKey, task: &Recorded<'_>) -> bool {
        if self.wanted_place(wanted).is_none() || task.random != wanted.random {
            return false;
        }
        let slot = wanted.slot;
        let Cold { type_index, attempts, spot, .. } = self.cold.slab[slot];
        let priority = self.cold.slab[slot].priority();
        self.cold.forget(slot);
        self.census.task_goes(task.random);
        let key = self.entry_of_cold(task.random, spot, type_index, priority);
        let since_ms = self.node_ms(task.submitted_unix_ms.max(task.due_unix_ms));
        let entry = &mut self.entries[key as usize];
        entry.body.set(task.payload);
        entry.submitted_ms = task.submitted_unix_ms;
        entry.when_ms = since_ms;
        entry.timeout_ms = asked_for(task.timeout_ms);
        entry.max_attempts = task.max_attempts;
        // The record may be older than the last attempt, or than the task's death and return.
        entry.attempts = match attempts {
            u8::MAX => task.attempts.max(attempts.into()),
            attempts => attempts.into(),
        };
        entry.state = State::Queued;
        entry.set(BEHIND);
        entry.link = Link::pair(slot, 0);
        self.hot_joins(key);
        let stand_in = &mut self.cold.slab[slot];
        stand_in.set_kind(Kind::StandIn);
        stand_in.spot = Spot::from_key(key);
        let queue = self.queues.of(type_index, priority);
        queue.settle(&mut self.entries, &mut self.cold.slab);
        true
    }

    pub(super) fn watch_cold(&mut self, random: u128, watcher: Watcher) -> bool {
        if self.cold.find(random).is_none() {
            return false;
        }
        self.cold.watchers.entry(random).or_default().push(watcher);
        true
    }

    pub(super) fn unwatch_cold(&mut self, random: u128, watcher: Watcher) -> bool {
        let Some(watchers) = self.cold.watchers.get_mut(&random) else { return false };
        let Some(place) = watchers.iter().position(|there| *there == watcher) else { return false };
        watchers.swap_remove(place);
        if watchers.is_empty() {
            self.cold.watchers.remove(&random);
        }
        true
    }

    pub(super) fn view_cold(&self, slot: u32, name: impl Fn(TypeIndex) -> String) -> TaskView {
        let cold = &self.cold.slab[slot];
        TaskView {
            id: TaskId { partition: self.partition, random: cold.random() },
            agent_type: name(cold.type_index),
            status: match cold.kind() {
                Kind::Delayed => TaskStatus::Delayed,
                _ => TaskStatus::Queued,
            },
            priority: cold.priority(),
            attempts: cold.attempts.into(),
            node: None,
            result: None,
            error: None,
        }
    }
}
