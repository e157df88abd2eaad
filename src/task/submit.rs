//! How a task comes in: room that is kept for it, its key, and that the log has it.

use super::{
    entry::{Entry, State, TRANSIENT, Watcher},
    keys::{KEY_BYTES_MAX, Key, KeyEntry, Keys},
    limits::asked_for,
    list::Link,
    place::{Place, Spot},
    table::{Counters, TaskTable},
};
use crate::{
    registry::TypeIndex,
    wire::{
        api::{Error, Priority},
        id::TaskId,
    },
};
use std::sync::Arc;

/// Keys that are looked at for their expiry with each submission that has one.
const EXPIRE_TOGETHER: usize = 4;
/// Longest advice to whoever is refused because of too many keys, milliseconds.
const KEYS_RETRY_MS: u64 = 1_000;

/// A task that somebody wants to have run.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// What tells it from every other.
    pub random: u128,
    /// The agent type that runs it.
    pub type_index: TypeIndex,
    /// How urgent it is.
    pub priority: Priority,
    /// One MessagePack value.
    pub payload: &'a [u8],
    /// The same where it can be shared instead of copied.
    pub long: Option<&'a Arc<[u8]>>,
    /// How long one attempt may take, milliseconds; 0 for the table's limit.
    pub timeout_ms: u64,
    /// Attempts before it is dead; 0 for the table's limit.
    pub max_attempts: u32,
    /// How long it waits before it may run, milliseconds.
    pub delay_ms: u64,
    /// Makes it idempotent.
    pub key: Option<Key<'a>>,
    /// Kept in memory only; never written to the log, and may be evicted.
    pub transient: bool,
    /// Whether room was reserved for it.
    pub reserved: bool,
    /// Who is told of its end.
    pub watcher: Option<Watcher>,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// A new task, accepted once the log has it ([`TaskTable::accepted`]).
    New(u32),
    /// The task that was submitted with that key before. It may still wait for the log itself, so
    /// its submitter is answered after everything that the log was told until now is committed.
    Existing(TaskId),
}

impl TaskTable {
    /// Tasks for which there is room in the queue.
    #[inline]
    pub fn free_room(&self) -> usize {
        let waiting = (self.counters.queued + self.counters.delayed) as usize;
        let used = self.reserved + self.accepting + waiting;
        (self.limits.queue_primary + self.limits.queue_overflow).saturating_sub(used)
    }

    /// Keeps room for submissions that will follow, for all of them or for none. `priority` is
    /// that of the least urgent of them: where the policy allows, waiting tasks are evicted.
    ///
    /// # Errors
    /// `Backpressure` when there is too little room now, `TooLarge` when there never will be.
    pub fn reserve(&mut self, now_ms: u64, count: usize, priority: Priority) -> Result<(), Error> {
        self.check_count(count)?;
        let missing = count.saturating_sub(self.free_room());
        if missing > 0 && !self.evict(now_ms, missing, priority) {
            self.counters.refused += count as u64;
            return Err(self.backpressure(now_ms));
        }
        self.take_room(count);
        Ok(())
    }

    /// Finds out whether there may ever be room for so many.
    pub(super) fn check_count(&self, count: usize) -> Result<(), Error> {
        let room = self.limits.queue_primary + self.limits.queue_overflow;
        if count <= room {
            return Ok(());
        }
        Err(Error::TooLarge(format!(
            "{count} tasks at once: a partition's queue holds {room} (tasks.queue_primary + \
             tasks.queue_overflow)"
        )))
    }

    /// What is reserved.
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    pub(super) fn take_room(&mut self, count: usize) {
        self.reserved += count;
    }

    /// Gives back room that was reserved and will not be used.
    pub fn release(&mut self, count: usize) {
        // What was reserved in a table before this one is gone.
        self.reserved = self.reserved.saturating_sub(count);
    }

    /// Takes a submission in; it becomes a task when the log has it ([`TaskTable::accepted`]).
    /// One with reserved room uses that up, also when it is refused.
    ///
    /// # Errors
    /// `TooLarge`; `Invalid` for a key that is none; `Conflict` when there is another task of that
    /// key; `Backpressure`.
    #[inline]
    pub fn submit(&mut self, now_ms: u64, submission: Submission<'_>) -> Result<Submitted, Error> {
        if submission.reserved {
            self.release(1);
        }
        self.check_payload(submission.payload)?;
        if let Some(key) = submission.key
            && let Some(known) = self.submitted_before(now_ms, key)?
        {
            return Ok(Submitted::Existing(known));
        }
        // Retries may have filled the queue since; what was promised is kept.
        if !submission.reserved
            && self.free_room() == 0
            && !self.evict(now_ms, 1, submission.priority)
        {
            self.counters.refused += 1;
            return Err(self.backpressure(now_ms));
        }
        debug_assert!(!self.is_known(submission.random), "128 random bits name one task");
        let key = self.begin(&submission, now_ms);
        if let Some(chosen) = submission.key {
            let expires_ms = now_ms.saturating_add(self.limits.key_ttl_ms);
            let entry = KeyEntry::new(chosen, submission.random, expires_ms, Spot::NONE);
            let (slot, replaced) = self.submitted_keys().insert(entry);
            self.entries[key as usize].link = Link::pair(slot, 0);
            if let Some(expired) = replaced {
                self.generations.remove(expired.spot());
            }
        }
        self.accepting += 1;
        Ok(Submitted::New(key))
    }

    pub(super) fn check_payload(&self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() <= self.limits.max_payload_bytes {
            return Ok(());
        }
        Err(Error::TooLarge(format!(
            "a payload of {} bytes: the limit is {} (tasks.max_payload_bytes)",
            payload.len(),
            self.limits.max_payload_bytes
        )))
    }

    /// The keys of what is submitted here, not asked for.
    #[inline]
    fn submitted_keys(&mut self) -> &mut Keys {
        if self.is_agreed { &mut self.transient_keys } else { &mut self.keys }
    }

    /// The task that a key stands for.
    fn submitted_before(&mut self, now_ms: u64, key: Key<'_>) -> Result<Option<TaskId>, Error> {
        check_key(key)?;
        self.expire_keys(now_ms, EXPIRE_TOGETHER);
        let (partition, keys_max) = (self.partition, self.limits.keys_max);
        let keys = self.submitted_keys();
        if let Some(slot) = keys.find(key.bytes, now_ms) {
            let known = keys.get(slot);
            if known.key().body_hash != key.body_hash {
                return Err(Error::Conflict(
                    "key: another task was submitted with it before".into(),
                ));
            }
            let id = TaskId { partition, random: known.random() };
            self.counters.repeated += 1;
            return Ok(Some(id));
        }
        if keys.len() >= keys_max {
            let expiry_ms = keys.next_expiry_ms().unwrap_or(0);
            self.counters.refused += 1;
            let retry_after_ms = expiry_ms.saturating_sub(now_ms).clamp(1, KEYS_RETRY_MS);
            return Err(Error::Backpressure(retry_after_ms));
        }
        Ok(None)
    }

    /// Whether a submission with that key would be refused as another task's.
    pub fn conflicts(&self, now_ms: u64, key: Key<'_>) -> bool {
        let known = self.keys.find(key.bytes, now_ms);
        known.is_some_and(|slot| self.keys.get(slot).key().body_hash != key.body_hash)
    }

    /// Forgets keys that have expired, `count` at most.
    pub(super) fn expire_keys(&mut self, now_ms: u64, count: usize) {
        for _ in 0..count {
            let Some(expired) = self.submitted_keys().expire(now_ms) else { break };
            self.generations.remove(expired.spot());
        }
    }

    pub(super) fn begin(&mut self, submission: &Submission<'_>, now_ms: u64) -> u32 {
        let key = self.new_entry(submission.random);
        let submitted_ms = self.unix_ms(now_ms);
        let entry = &mut self.entries[key as usize];
        entry.begin(submission.priority);
        match submission.long {
            Some(payload) => entry.body.share(payload),
            None => entry.body.set(submission.payload),
        }
        entry.timeout_ms = asked_for(submission.timeout_ms);
        entry.attempts = 0;
        entry.max_attempts = submission.max_attempts;
        entry.type_index = submission.type_index;
        entry.state = State::Accepting;
        entry.submitted_ms = submitted_ms;
        entry.when_ms = now_ms.saturating_add(submission.delay_ms);
        entry.spot = Spot::NONE;
        entry.link = Link::NONE;
        if submission.transient {
            entry.set(TRANSIENT);
        }
        if let Some(watcher) = submission.watcher {
            entry.watch(watcher);
            self.watched.set(key);
        }
        key
    }

    /// Counts submissions that were refused before they came here, because the log has no room.
    pub fn count_refused(&mut self, count: usize) {
        self.counters.refused += count as u64;
    }

    pub(super) fn backpressure(&mut self, now_ms: u64) -> Error {
        let Counters { done, dead, cancelled, queued, delayed, .. } = self.counters;
        let ended = done + dead + cancelled;
        Error::Backpressure(self.pace.retry_after_ms(now_ms, ended, queued + delayed))
    }

    /// The log has the submission, at a place where it can be read again: the task is accepted,
    /// and waits for its time or an agent unless it was cancelled meanwhile. From now on it may
    /// be cold, and the key no longer its own.
    #[inline]
    pub fn accepted(&mut self, key: u32, now_ms: u64, place: Option<Place>) {
        self.counters.accepted += 1;
        if let Some(place) = place {
            self.settle_place(key, place);
        }
        let Entry { state, when_ms: due_ms, .. } = self.entries[key as usize];
        if state == State::Accepting {
            self.accepting -= 1;
            self.begin_to_wait(key);
            self.wait(key, now_ms, due_ms);
        }
    }

    fn settle_place(&mut self, key: u32, place: Place) {
        let entry = &mut self.entries[key as usize];
        assert!(!entry.is(TRANSIENT), "a transient task is never written to the log");
        let spot = Spot::from(place);
        let (slot, random) = (entry.link.first(), entry.random);
        entry.spot = spot;
        self.generations.add(spot);
        if slot != Link::NONE.first() && self.keys.set_spot(slot, random, spot).is_some() {
            self.generations.add(spot);
        }
    }
}

/// Finds out whether a key may be one.
pub(super) fn check_key(key: Key<'_>) -> Result<(), Error> {
    match key.bytes.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        len => {
            Err(Error::Invalid(format!("key: it has {len} bytes; allowed: 1 to {KEY_BYTES_MAX}")))
        }
    }
}
