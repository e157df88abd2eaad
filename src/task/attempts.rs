//! The attempts of tasks: which is next, who holds its lease, how it ends.

use super::{
    delays::{Beds, Sleeper},
    entry::{BARE, Entry, State, Watcher},
    list::Link,
    table::TaskTable,
};
use crate::{registry::TypeIndex, wire::id::PartitionIndex};

/// Tasks whose time has come that are queued at once; the rest follows at the next turn.
const WAKE_TOGETHER: usize = 4096;

/// The right to end one attempt of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The task's partition.
    pub partition: PartitionIndex,
    /// The task's place in its partition's table.
    pub key: u32,
    /// Tells this attempt from every other.
    pub token: u64,
}

/// The lease is not the task's current one: the task went on without that attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// What a failed attempt means for its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// There will be another attempt.
    Again {
        /// Not before this time, milliseconds; the task is queued already when it has come.
        due_ms: u64,
    },
    /// It was the last one.
    Last,
}

impl TaskTable {
    /// The task of a type that should run next: the most urgent one, where a time of waiting
    /// (`ageing_ms`) counts like a step of priority, and of equals the one that has waited
    /// longest.
    #[inline]
    pub fn next(&self, type_index: TypeIndex) -> Option<u32> {
        self.queues.next(type_index, &self.entries)
    }

    /// How urgent a task is that waits, to be compared with those of other tables: the less, the
    /// sooner it should run.
    pub fn urgency(&self, key: u32) -> i64 {
        let entry = &self.entries[key as usize];
        self.queues.urgency(entry.priority() as i64, entry)
    }

    /// Since when a task waits for an agent, milliseconds.
    pub fn waits_since_ms(&self, key: u32) -> u64 {
        self.entries[key as usize].when_ms
    }

    /// Begins an attempt of the task that is next.
    #[inline]
    pub fn start(&mut self, key: u32, now_ms: u64) -> Lease {
        self.stop_waiting(key);
        let token = self.next_token;
        assert!(token < self.tokens_below, "tokens are reserved in good time");
        self.next_token += 1;
        let limits = &self.limits;
        let entry = &mut self.entries[key as usize];
        entry.state = State::Running;
        entry.token = token;
        entry.attempts += 1;
        entry.when_ms = now_ms.saturating_add(limits.timeout_of(entry.timeout_ms).into());
        self.counters.running += 1;
        Lease { partition: self.partition, key, token }
    }

    /// The entry whose current attempt has that lease.
    #[inline]
    fn leased(&mut self, lease: Lease) -> Result<&mut Entry, Stale> {
        match self.entries.get_mut(lease.key as usize) {
            Some(entry) if entry.state == State::Running && entry.token == lease.token => Ok(entry),
            _ => Err(Stale),
        }
    }

    /// The lease of the last attempt of a task, if there was one.
    pub fn last_lease(&self, key: u32) -> Option<Lease> {
        let Entry { attempts, token, .. } = self.entries[key as usize];
        (attempts > 0).then_some(Lease { partition: self.partition, key, token })
    }

    /// Ends a task well; it is told when the log has it ([`TaskTable::ended`]).
    ///
    /// # Errors
    /// [`Stale`], and nothing is changed.
    #[inline]
    pub fn complete(&mut self, lease: Lease, result: &[u8]) -> Result<(), Stale> {
        self.leased(lease)?;
        let print = self.print_of(lease.key);
        let entry = &mut self.entries[lease.key as usize];
        entry.state = State::EndingDone;
        entry.body.set(result);
        if let Some(print) = print {
            entry.link = Link::pair(print, 0);
        }
        self.counters.running -= 1;
        Ok(())
    }

    /// Ends an attempt that failed. The task pauses and goes to the end of its queue, or is dead
    /// when the attempt was its last or another one would not help.
    ///
    /// # Errors
    /// [`Stale`], and nothing is changed.
    pub fn fail(
        &mut self,
        lease: Lease,
        now_ms: u64,
        error: &str,
        retry: bool,
    ) -> Result<Failed, Stale> {
        let limits = self.limits;
        let (policy, bytes_max) = (limits.retry, limits.max_payload_bytes);
        let entry = self.leased(lease)?;
        entry.rare().error = Some(cut(error, bytes_max).into());
        let again = retry && entry.attempts < limits.attempts_of(entry.max_attempts);
        let pause_ms = policy.pause_ms(entry.random, entry.attempts);
        self.counters.running -= 1;
        self.counters.attempts_failed += 1;
        if again {
            let due_ms = now_ms.saturating_add(pause_ms);
            self.begin_to_wait(lease.key);
            self.wait(lease.key, now_ms, due_ms);
            return Ok(Failed::Again { due_ms });
        }
        self.die(lease.key, now_ms);
        Ok(Failed::Last)
    }

    /// Decides that a task ends as dead.
    pub(super) fn die(&mut self, key: u32, now_ms: u64) {
        let print = self.print_of(key);
        let entry = &mut self.entries[key as usize];
        entry.state = State::EndingDead;
        entry.when_ms = now_ms;
        // Where the log keeps the payload, a dead letter need not keep it as well.
        if entry.place().is_some() && entry.body.heap_bytes() > 0 {
            entry.body.clear();
            entry.set(BARE);
            if let Some(print) = print {
                entry.rare().print = print;
            }
        }
    }

    /// Lets an attempt go on for so long from now; the new deadline, milliseconds.
    ///
    /// # Errors
    /// [`Stale`], and nothing is changed.
    pub fn extend(&mut self, lease: Lease, now_ms: u64, ms: u64) -> Result<u64, Stale> {
        let entry = self.leased(lease)?;
        entry.when_ms = now_ms.saturating_add(ms);
        Ok(entry.when_ms)
    }

    /// Takes an attempt back that did not happen: it is not counted, and the task is the first of
    /// its queue.
    ///
    /// # Errors
    /// [`Stale`], and nothing is changed.
    pub fn give_back(&mut self, lease: Lease) -> Result<(), Stale> {
        let limits = self.limits;
        let entry = self.leased(lease)?;
        entry.attempts -= 1;
        entry.state = State::Queued;
        entry.when_ms = entry.when_ms.saturating_sub(limits.timeout_of(entry.timeout_ms).into());
        let (type_index, priority) = (entry.type_index, entry.priority());
        let queue = self.queues.of(type_index, priority);
        if let Some(first) = queue.hot.first() {
            // It does not make those behind it look younger than they are.
            let first_ms = self.entries[first as usize].when_ms as i64;
            let entry = &mut self.entries[lease.key as usize];
            entry.when_ms = (entry.when_ms as i64).min(first_ms) as u64;
        }
        queue.push_first(&mut self.entries, lease.key);
        self.counters.running -= 1;
        self.counters.queued += 1;
        self.hot_joins(lease.key);
        self.begin_to_wait(lease.key);
        Ok(())
    }

    /// When [`TaskTable::wake`] has something to do, milliseconds.
    #[inline]
    pub fn next_due_ms(&self) -> Option<u64> {
        let (delay_ms, expiry_ms) = (self.delays.next_due_ms(), self.keys.next_expiry_ms());
        match (delay_ms, expiry_ms) {
            (Some(delay_ms), Some(expiry_ms)) => Some(delay_ms.min(expiry_ms)),
            _ => delay_ms.or(expiry_ms),
        }
    }

    /// Queues tasks whose time has come and forgets keys that have expired, up to a bound; true
    /// when a task was queued.
    pub fn wake(&mut self, now_ms: u64) -> bool {
        self.expire_keys(now_ms, WAKE_TOGETHER);
        let mut woke = false;
        for _ in 0..WAKE_TOGETHER {
            let beds = &mut Beds { entries: &mut self.entries, cold: &mut self.cold.slab };
            let Some(sleeper) = self.delays.pop(beds, now_ms) else { break };
            woke = true;
            self.counters.delayed -= 1;
            match sleeper {
                Sleeper::Hot(key) => {
                    self.hot_leaves(key);
                    self.enqueue(key, now_ms);
                }
                Sleeper::Cold(slot) => self.enqueue_cold(slot),
            }
        }
        woke
    }

    /// Adds somebody who is told of a task's end; false when there is no such task or it has
    /// ended.
    pub fn watch(&mut self, random: u128, watcher: Watcher) -> bool {
        let Some(key) = self.key(random) else { return self.watch_cold(random, watcher) };
        let entry = &mut self.entries[key as usize];
        if entry.state.is_ended() {
            return false;
        }
        entry.watch(watcher);
        self.watched.set(key);
        true
    }

    /// Removes a watcher; false when it was not there.
    pub fn unwatch(&mut self, random: u128, watcher: Watcher) -> bool {
        match self.key(random) {
            Some(key) => self.entries[key as usize].unwatch(watcher),
            None => self.unwatch_cold(random, watcher),
        }
    }

    /// Everybody who is to be told of the end of any task, with its random bits.
    pub fn take_all_watchers(&mut self) -> Vec<(u128, Watcher)> {
        let mut all = Vec::new();
        for key in self.watched.take() {
            let entry = &mut self.entries[key as usize];
            let random = entry.random;
            all.extend(entry.take_watchers().map(|watcher| (random, watcher)));
        }
        for (random, watchers) in self.cold.watchers.drain() {
            all.extend(watchers.into_iter().map(|watcher| (random, watcher)));
        }
        all
    }

    /// Everybody who is to be told of a task's end, once.
    #[inline]
    pub fn take_watchers(&mut self, key: u32) -> impl Iterator<Item = Watcher> + use<> {
        self.watched.unset(key);
        self.entries[key as usize].take_watchers()
    }
}

/// The beginning of a text, up to a number of bytes: what a task's death says goes to the log.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_text_is_cut_between_its_characters() {
        assert_eq!((cut("short", 9), cut("short", 3), cut("", 0)), ("short", "sho", ""));
        assert_eq!((cut("aäb", 2), cut("aäb", 3)), ("a", "aä"));
    }
}
