//! What a full queue does: evicts tasks that are kept in memory only, where the policy says so.

use super::{
    entry::{EVICTED, Evictable, State, TRANSIENT},
    list::List,
    place::Spot,
    table::TaskTable,
};
use crate::{config::DropPolicy, wire::api::Priority};

/// The transient tasks of one priority that wait, in the order in which they began to.
#[derive(Default)]
pub(super) struct Waiting {
    list: List,
    len: usize,
}

impl TaskTable {
    /// Notes that a task waits now, when it is one that may be evicted.
    #[inline]
    pub(super) fn begin_to_wait(&mut self, key: u32) {
        let entry = &self.entries[key as usize];
        if entry.is(TRANSIENT) {
            let waiting = &mut self.evictable[entry.priority() as usize];
            waiting.list.push(&mut Evictable(&mut self.entries), key);
            waiting.len += 1;
        }
    }

    /// Notes that a task no longer waits.
    #[inline]
    pub(super) fn end_to_wait(&mut self, key: u32) {
        let entry = &self.entries[key as usize];
        if entry.is(TRANSIENT) {
            let waiting = &mut self.evictable[entry.priority() as usize];
            waiting.list.remove(&mut Evictable(&mut self.entries), key);
            waiting.len -= 1;
            self.entries[key as usize].spot = Spot::NONE;
        }
    }

    /// Makes room for `count` tasks of a priority and above; false, and nothing is evicted, when
    /// the policy does not allow it or there is too little to evict.
    pub(super) fn evict(&mut self, now_ms: u64, count: usize, priority: Priority) -> bool {
        let candidates = match self.limits.drop_policy {
            DropPolicy::Reject => return false,
            DropPolicy::LowPriority => priority as usize,
            DropPolicy::Oldest => Priority::ALL.len(),
        };
        let there: usize = self.evictable[..candidates].iter().map(|waiting| waiting.len).sum();
        if there < count {
            return false;
        }
        for _ in 0..count {
            let mut heads = self.evictable[..candidates].iter().filter_map(|it| it.list.first());
            let victim = match self.limits.drop_policy {
                DropPolicy::LowPriority => heads.next(),
                _ => heads.min_by_key(|key| self.entries[*key as usize].submitted_ms),
            };
            self.evict_task(victim.expect("they were counted"), now_ms);
        }
        true
    }

    fn evict_task(&mut self, key: u32, now_ms: u64) {
        self.stop_waiting(key);
        let entry = &mut self.entries[key as usize];
        entry.state = State::EndingDead;
        entry.when_ms = now_ms;
        entry.body.clear();
        entry.set(EVICTED);
        let why = "evicted: the queue was full, and it was submitted with durable = false";
        entry.rare().error = Some(why.into());
        self.counters.evicted += 1;
        self.evicted.push_back(key);
    }

    /// A task that was evicted since the last question: it has an end, which no log waits for
    /// ([`TaskTable::ended`]).
    pub fn next_evicted(&mut self) -> Option<u32> {
        self.evicted.pop_front()
    }
}
