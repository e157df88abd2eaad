//! How a task ends, is remembered for a while, and forgotten.

use super::{
    entry::{EVICTED, State},
    prefetch::prefetch,
    table::TaskTable,
};
use crate::wire::{api::TaskStatus, id::TaskId};

/// Tasks that are forgotten at once when there are very many.
const FORGET_TOGETHER: usize = 16;

impl TaskTable {
    /// A task's end was decided, and goes to the log.
    #[inline]
    pub fn ends_at(&mut self, key: u32, now_ms: u64) {
        self.entries[key as usize].when_ms = now_ms;
    }

    /// The log has the task's end.
    #[inline]
    pub fn ended(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        let Some(status) = entry.state.end().filter(|_| !entry.state.is_ended()) else {
            unreachable!("an end is logged once, when it is decided");
        };
        entry.state = State::of_end(status);
        match status {
            TaskStatus::Done => self.counters.done += 1,
            TaskStatus::Dead => self.counters.dead += 1,
            _ => self.counters.cancelled += 1,
        }
        if status == TaskStatus::Dead && !entry.is(EVICTED) {
            return self.file_letter(key);
        }
        self.retain(key);
    }

    /// How a task ended, with its result or its last error, as the log and its watchers are told.
    #[inline]
    pub fn end_of(&self, key: u32) -> (TaskId, TaskStatus, &[u8]) {
        let entry = &self.entries[key as usize];
        let Some(status) = entry.state.end() else {
            unreachable!("only an ended task is asked for its end");
        };
        let body = match status {
            TaskStatus::Done => entry.body.as_bytes(),
            TaskStatus::Dead => entry.error().unwrap_or_default().as_bytes(),
            _ => &[],
        };
        (self.id(key), status, body)
    }

    /// Remembers a task that has ended.
    #[inline]
    pub(super) fn retain(&mut self, key: u32) {
        self.is_remembered(key);
        self.ended.push_back(key);
    }

    /// Remembers a task that ended before others that are remembered, perhaps.
    pub(super) fn retain_in_order(&mut self, key: u32) {
        let ended_ms = |key: u32| self.entries[key as usize].when_ms as i64;
        let at_ms = ended_ms(key);
        let place = match self.ended.back() {
            Some(last) if ended_ms(*last) > at_ms => {
                self.ended.partition_point(|there| ended_ms(*there) <= at_ms)
            }
            _ => self.ended.len(),
        };
        self.is_remembered(key);
        self.ended.insert(place, key);
    }

    #[inline]
    fn is_remembered(&mut self, key: u32) {
        let entry = &self.entries[key as usize];
        self.ended_bytes += entry.heap_bytes();
        if self.is_agreed {
            self.remembered.add(entry.spot);
        }
        self.census.task_goes(entry.random);
    }

    /// Forgets the tasks that ended first once there are more than the limits allow; of many it
    /// forgets some at once, so that their cache misses overlap. Purges dead letters likewise.
    #[inline]
    pub fn retain_within_limits(&mut self) {
        self.retain_ended_within_limits();
        while self.counters.dead_letters as usize > self.limits.dead_max {
            self.purge_letter();
        }
    }

    #[inline]
    pub(super) fn retain_ended_within_limits(&mut self) {
        if self.ended.len() > self.limits.retained {
            let together = FORGET_TOGETHER.min(1 + self.limits.retained / FORGET_TOGETHER);
            self.forget(together);
        }
        while self.ended_bytes > self.limits.retained_bytes {
            self.forget(1);
        }
    }

    /// Forgets the `count` tasks that ended first.
    fn forget(&mut self, count: usize) {
        for soon in self.ended.range(count.min(self.ended.len())..).take(count) {
            prefetch(&self.entries[*soon as usize]);
        }
        for _ in 0..count {
            let key = self.ended.pop_front().expect("no more are forgotten than there are");
            let entry = &self.entries[key as usize];
            self.ended_bytes -= entry.heap_bytes();
            if self.is_agreed {
                self.remembered.remove(entry.spot);
            }
            self.census.task_comes(entry.random);
            self.release_place(key);
            self.vacate(key);
        }
    }
}
