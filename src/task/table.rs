//! Every task of a partition: how it comes in, how it is found, how it is forgotten.
//!
//! A task is `Accepting` until its submission is committed; then `Queued`, `Delayed` (until its
//! time has come, or the pause after a failed attempt is over) and `Running` in turn; then ending
//! until its end is committed, then ended until it is forgotten. A dead one stays among the dead
//! letters until it is queued again or purged.
//!
//! Invariants worth naming:
//! - A task that was accepted and has not ended is in exactly one place: the hot list of its
//!   queue, the cold list, the heap of delays, or with whoever holds its lease.
//! - A lease's token is never given twice, not even after a restart: whoever comes late with an
//!   old one changes nothing.
//! - A record of the log counts as needed until its task is forgotten, its key has expired or its
//!   dead letter is purged: only then may its segment be freed.

use super::{
    agreed::AgreedKeys,
    census::{Among, Census},
    cold::{ColdTasks, hash},
    delays::{Beds, Delays, Sleeper},
    entry::{BEHIND, EVICTED, Entry, State, TRANSIENT, Watcher},
    evict::Waiting,
    keys::{KEY_BYTES_MAX, Key, KeyEntry, Keys},
    list::{Link, List},
    pace::Pace,
    place::{Generations, Place, Spot},
    prefetch::prefetch,
    queues::Queues,
    retry::RetryPolicy,
};
use crate::{
    config::{self, DropPolicy},
    registry::TypeIndex,
    wire::{
        api::{Error, Priority, TaskStatus, TaskView},
        id::{PartitionIndex, TOKENS_END, TaskId},
    },
};
use hashbrown::HashTable;
use std::collections::VecDeque;

/// Tasks that are forgotten at once when there are very many.
const FORGET_TOGETHER: usize = 16;
/// Keys that are looked at for their expiry with each submission that has one.
const EXPIRE_TOGETHER: usize = 4;
/// Longest advice to whoever is refused because of too many keys, milliseconds.
const KEYS_RETRY_MS: u64 = 1_000;

/// How much a partition's table holds, and what submissions get that name nothing else.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Tasks that may wait in normal operation.
    pub queue_primary: usize,
    /// Tasks that may wait beyond that; then submissions are refused.
    pub queue_overflow: usize,
    /// Bytes of waiting tasks that stay in memory when the log has them as well.
    pub queue_bytes: usize,
    /// Tasks that each queue may have in memory however many there are in all.
    pub hot_least: usize,
    /// Ended tasks that are remembered.
    pub retained: usize,
    /// Bytes that the results of remembered tasks may take.
    pub retained_bytes: usize,
    /// Longest payload and longest result, bytes.
    pub max_payload_bytes: usize,
    /// Attempts before a task is dead.
    pub max_attempts: u32,
    /// How long one attempt may take, milliseconds.
    pub timeout_ms: u64,
    /// How long a task waits until it is as urgent as a new one of the next higher priority,
    /// milliseconds.
    pub ageing_ms: u64,
    /// The pauses between attempts.
    pub retry: RetryPolicy,
    /// How long a key stands for a task, milliseconds.
    pub key_ttl_ms: u64,
    /// Keys that are remembered.
    pub keys_max: usize,
    /// Dead letters that are kept.
    pub dead_max: usize,
    /// What a full queue does with a new task.
    pub drop_policy: DropPolicy,
}

impl From<&config::Tasks> for TableLimits {
    fn from(tasks: &config::Tasks) -> Self {
        Self {
            queue_primary: tasks.queue_primary,
            queue_overflow: tasks.queue_overflow,
            queue_bytes: tasks.queue_bytes,
            hot_least: Self::HOT_LEAST,
            retained: tasks.retained,
            retained_bytes: tasks.retained_bytes,
            max_payload_bytes: tasks.max_payload_bytes,
            max_attempts: tasks.max_attempts,
            timeout_ms: tasks.timeout_ms,
            ageing_ms: tasks.ageing_ms,
            retry: RetryPolicy { base_ms: tasks.retry_base_ms, max_ms: tasks.retry_max_ms },
            key_ttl_ms: tasks.key_ttl_ms,
            keys_max: tasks.keys_max,
            dead_max: tasks.dead_max,
            drop_policy: tasks.drop_policy,
        }
    }
}

impl TableLimits {
    /// A `hot_least` that bridges the time which the log needs to read the next ones.
    pub const HOT_LEAST: usize = 64;

    /// How long an attempt of a task may take that asked for that, milliseconds; 49 days at most.
    #[inline]
    pub(super) fn timeout_of(&self, asked_ms: u64) -> u32 {
        let timeout_ms = if asked_ms == 0 { self.timeout_ms } else { asked_ms };
        timeout_ms.min(u32::MAX.into()) as u32
    }

    /// The attempts of a task that asked for that many.
    #[inline]
    pub(super) fn attempts_of(&self, asked: u32) -> u32 {
        if asked == 0 { self.max_attempts } else { asked }
    }
}

/// Where and when a table begins.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Its partition.
    pub partition: PartitionIndex,
    /// The first token of a lease, below 2^53 so that JSON clients can carry it; what the log has
    /// reserved raises it.
    pub first_token: u64,
    /// Whether the log keeps what it is told.
    pub durable: bool,
    /// Unix time at the node's millisecond 0, milliseconds.
    pub zero_unix_ms: u64,
    /// Among whom of those that may lie its node is, when they agree on what it holds.
    pub among: Option<Among>,
}

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

/// Counts since the start, and of what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks accepted.
    pub accepted: u64,
    /// Unended tasks that were found in the log at the start.
    pub recovered: u64,
    /// Submissions that were the same as an earlier one, by their key.
    pub repeated: u64,
    /// Submissions refused for want of room.
    pub refused: u64,
    /// Tasks that wait for an agent now.
    pub queued: u64,
    /// Tasks that wait for their time now.
    pub delayed: u64,
    /// Tasks of both whose payload is in the log alone.
    pub cold: u64,
    /// Tasks that run now.
    pub running: u64,
    /// Tasks that ended well.
    pub done: u64,
    /// Tasks that died.
    pub dead: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Tasks of the dead ones that were evicted.
    pub evicted: u64,
    /// Attempts that failed.
    pub attempts_failed: u64,
    /// Dead letters that are there now.
    pub dead_letters: u64,
    /// Dead letters that were queued again.
    pub requeued: u64,
    /// Dead letters that were forgotten for want of room.
    pub purged: u64,
    /// Keys that are there now.
    pub keys: u64,
}

/// Every task of a partition.
pub struct TaskTable {
    pub(super) partition: PartitionIndex,
    pub(super) durable: bool,
    pub(super) is_agreed: bool,
    /// Where nodes agree on it: who takes up how much.
    pub(super) census: Census,
    pub(super) zero_unix_ms: u64,
    pub(super) limits: TableLimits,
    pub(super) entries: Vec<Entry>,
    vacant: Vec<u32>,
    /// Finds a task by its random bits; holds no more than the keys, so that it stays in the cache.
    index: HashTable<u32>,
    pub(super) queues: Queues,
    pub(super) delays: Delays,
    pub(super) cold: ColdTasks,
    pub(super) keys: Keys,
    /// Where nodes agree on the others: those of transient tasks, of which no other node knows.
    transient_keys: Keys,
    pub(super) agreed_keys: AgreedKeys,
    /// The transient tasks that wait, by priority.
    pub(super) evictable: [Waiting; Priority::ALL.len()],
    /// Evicted tasks that the shard has not been told of.
    pub(super) evicted: VecDeque<u32>,
    /// Dead letters, the oldest first.
    pub(super) letters: List,
    /// Purged dead letters that the shard has not been told of.
    pub(super) purged: VecDeque<u128>,
    /// Records of the log that are needed.
    pub(super) generations: Generations,
    /// Those of them that are of tasks which have ended, and are not needed.
    pub(super) remembered: Generations,
    /// Tasks that are remembered, the one that ended first at the front.
    pub(super) ended: VecDeque<u32>,
    ended_bytes: usize,
    /// Bytes of the tasks that wait and are in memory.
    pub(super) hot_bytes: usize,
    reserved: usize,
    pub(super) accepting: usize,
    pub(super) next_token: u64,
    pub(super) tokens_below: u64,
    pub(super) counters: Counters,
    pace: Pace,
}

impl TaskTable {
    /// An empty table.
    pub fn new(origin: Origin, limits: TableLimits) -> Self {
        assert!(origin.first_token < TOKENS_END, "JSON clients cannot carry a larger token");
        Self {
            partition: origin.partition,
            durable: origin.durable,
            is_agreed: origin.among.is_some(),
            census: Census::new(origin.among, origin.partition),
            zero_unix_ms: origin.zero_unix_ms,
            limits,
            entries: Vec::new(),
            vacant: Vec::new(),
            index: HashTable::new(),
            queues: Queues::new(limits.ageing_ms),
            delays: Delays::default(),
            cold: ColdTasks::default(),
            keys: Keys::default(),
            transient_keys: Keys::default(),
            agreed_keys: AgreedKeys::default(),
            evictable: Default::default(),
            evicted: VecDeque::new(),
            letters: List::default(),
            purged: VecDeque::new(),
            generations: Generations::default(),
            remembered: Generations::default(),
            ended: VecDeque::new(),
            ended_bytes: 0,
            hot_bytes: 0,
            reserved: 0,
            accepting: 0,
            next_token: origin.first_token,
            tokens_below: TOKENS_END,
            counters: Counters::default(),
            pace: Pace::default(),
        }
    }

    /// An empty table in its place, which counts on.
    pub fn anew(&self) -> Self {
        let origin = Origin {
            partition: self.partition,
            first_token: self.next_token,
            durable: self.durable,
            zero_unix_ms: self.zero_unix_ms,
            among: self.census.among(),
        };
        let counters =
            Counters { queued: 0, delayed: 0, running: 0, dead_letters: 0, ..self.counters };
        Self { counters, ..Self::new(origin, self.limits) }
    }

    /// The token that the next lease gets.
    pub fn next_token(&self) -> u64 {
        self.next_token
    }

    /// Tokens below that number may be given: no table after this one gives them again.
    pub fn may_give_tokens(&mut self, below: u64) {
        assert!(below < TOKENS_END, "JSON clients cannot carry a larger token");
        self.tokens_below = below;
    }

    /// Tokens below this were reserved.
    pub fn tokens_below(&self) -> u64 {
        self.tokens_below
    }

    /// Tokens that may be given.
    #[inline]
    pub fn tokens_left(&self) -> u64 {
        self.tokens_below - self.next_token
    }

    /// Which partition it is of.
    #[inline]
    pub fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// What it was made with.
    #[inline]
    pub fn limits(&self) -> &TableLimits {
        &self.limits
    }

    /// Counts since the start, and of what is there now.
    pub fn counters(&self) -> Counters {
        let (cold, keys) = (self.cold.len() as u64, self.keys.len() as u64);
        Counters { cold, keys, ..self.counters }
    }

    /// Tasks of a type that wait for an agent, about.
    pub fn queued_of(&self, type_index: TypeIndex) -> usize {
        self.queues.waiting(type_index)
    }

    /// Tasks that were accepted, or are about to be, and have not ended.
    pub fn unended(&self) -> usize {
        let ended = self.ended.len() + self.counters.dead_letters as usize;
        self.index.len() - ended + self.cold.len()
    }

    /// Unix time at a time of the node, milliseconds.
    #[inline]
    pub fn unix_ms(&self, node_ms: u64) -> u64 {
        // Times before the node's start wrap around, there and back.
        self.zero_unix_ms.wrapping_add(node_ms)
    }

    /// What [`TaskTable::unix_ms`] came from.
    #[inline]
    pub(super) fn node_ms(&self, unix_ms: u64) -> u64 {
        unix_ms.wrapping_sub(self.zero_unix_ms)
    }

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
        let limits = &self.limits;
        let entry = &mut self.entries[key as usize];
        entry.begin(submission.priority);
        entry.body.set(submission.payload);
        entry.timeout_ms = limits.timeout_of(submission.timeout_ms);
        entry.attempts = 0;
        entry.max_attempts = limits.attempts_of(submission.max_attempts);
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
        }
        key
    }

    /// An entry that is found by a name; everything else of it is as its last task left it.
    #[inline]
    pub(super) fn new_entry(&mut self, random: u128) -> u32 {
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(Entry::VACANT);
            self.entries.len() as u32 - 1
        });
        self.entries[key as usize].random = random;
        let entries = &self.entries;
        let rehash = |key: &u32| hash(entries[*key as usize].random);
        self.index.insert_unique(hash(random), key, rehash);
        self.census.task_comes(random);
        key
    }

    /// The entry has no task any more.
    pub(super) fn vacate(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        entry.state = State::Vacant;
        entry.body.clear();
        entry.rare = None;
        let random = entry.random;
        let place = self.index.find_entry(hash(random), |there| *there == key);
        place.expect("every task is found by its name").remove();
        self.census.task_goes(random);
        self.vacant.push(key);
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

    /// Lets a task wait for its time, or for an agent when there is nothing to wait for.
    #[inline]
    pub(super) fn wait(&mut self, key: u32, now_ms: u64, due_ms: u64) {
        if due_ms <= now_ms {
            return self.enqueue(key, now_ms);
        }
        if self.has_too_many_hot() && self.may_freeze(key) {
            return self.freeze_delayed(key, due_ms);
        }
        self.counters.delayed += 1;
        self.hot_joins(key);
        let entry = &mut self.entries[key as usize];
        entry.state = State::Delayed;
        entry.when_ms = due_ms;
        let beds = &mut Beds { entries: &mut self.entries, cold: &mut self.cold.slab };
        self.delays.push(beds, Sleeper::Hot(key), due_ms);
    }

    /// Puts a task at the end of its queue.
    #[inline]
    pub(super) fn enqueue(&mut self, key: u32, now_ms: u64) {
        let entry = &mut self.entries[key as usize];
        entry.state = State::Queued;
        entry.when_ms = now_ms;
        let (type_index, priority) = (entry.type_index, entry.priority());
        if self.durable && self.is_beyond_hot(type_index, priority) {
            return self.enqueue_beyond(key);
        }
        self.counters.queued += 1;
        self.hot_joins(key);
        self.queues.of(type_index, priority).push(&mut self.entries, key);
    }

    /// Takes a task that waits out of its queue or out of the delays.
    pub(super) fn stop_waiting(&mut self, key: u32) {
        self.hot_leaves(key);
        let entry = &self.entries[key as usize];
        if entry.state == State::Delayed {
            self.counters.delayed -= 1;
            let beds = &mut Beds { entries: &mut self.entries, cold: &mut self.cold.slab };
            self.delays.remove(beds, Sleeper::Hot(key));
        } else {
            self.counters.queued -= 1;
            if entry.is(BEHIND) {
                self.remove_stand_in(key);
            } else {
                let queue = self.queues.of(entry.type_index, entry.priority());
                queue.remove(&mut self.entries, key);
                self.cold.thirsty |= queue.has_cold();
            }
        }
        self.end_to_wait(key);
    }

    /// The log's record of a task is no longer needed.
    #[inline]
    pub(super) fn release_place(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        if entry.place().is_some() {
            self.generations.remove(entry.spot);
            entry.spot = Spot::NONE;
        }
    }

    /// Cancels a task, whatever it is at: its key, so that its end is logged; `None` when it had
    /// ended before.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn cancel(&mut self, random: u128) -> Result<Option<u32>, Error> {
        let key = match self.key(random) {
            Some(key) => {
                match self.entries[key as usize].state {
                    State::Accepting => self.accepting -= 1,
                    State::Queued | State::Delayed => self.stop_waiting(key),
                    State::Running => self.counters.running -= 1,
                    State::Vacant => unreachable!("a key leads to a task"),
                    _ => return Ok(None),
                }
                key
            }
            None => {
                let cold = self.take_cold(random);
                cold.ok_or_else(|| Error::NotFound("no such task".into()))?
            }
        };
        let entry = &mut self.entries[key as usize];
        entry.state = State::EndingCancelled;
        entry.body.clear();
        Ok(Some(key))
    }

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

    /// The place of a task that is not cold.
    #[inline]
    pub fn key(&self, random: u128) -> Option<u32> {
        let is_it = |key: &u32| self.entries[*key as usize].random == random;
        self.index.find(hash(random), is_it).copied()
    }

    /// Whether there is a task of that name.
    #[inline]
    pub(super) fn is_known(&self, random: u128) -> bool {
        self.key(random).is_some() || self.cold.find(random).is_some()
    }

    /// The task's name.
    #[inline]
    pub fn id(&self, key: u32) -> TaskId {
        TaskId { partition: self.partition, random: self.entries[key as usize].random }
    }

    /// Whether the task is kept in memory only: neither its submission nor its end is logged.
    #[inline]
    pub fn is_transient(&self, key: u32) -> bool {
        self.entries[key as usize].is(TRANSIENT)
    }

    /// The payload of a task that runs.
    #[inline]
    pub fn payload(&self, key: u32) -> &[u8] {
        self.entries[key as usize].body.as_bytes()
    }

    /// When the attempt that runs has taken too long, milliseconds.
    #[inline]
    pub fn deadline_ms(&self, key: u32) -> u64 {
        self.entries[key as usize].when_ms
    }

    /// How urgent the task is.
    pub fn priority(&self, key: u32) -> Priority {
        self.entries[key as usize].priority()
    }

    /// Attempts begun.
    #[inline]
    pub fn attempts(&self, key: u32) -> u32 {
        self.entries[key as usize].attempts
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

    /// What is known of a task, without a result of more than so many bytes; `None` when it was not
    /// accepted yet, never, or is forgotten.
    pub fn view(
        &self,
        random: u128,
        result_bytes: usize,
        name: impl Fn(TypeIndex) -> String,
    ) -> Option<TaskView> {
        if let Some(slot) = self.cold.find(random) {
            return Some(self.view_cold(slot, name));
        }
        self.view_hot(self.key(random)?, Some(result_bytes), name)
    }

    pub(super) fn view_hot(
        &self,
        key: u32,
        result_bytes: Option<usize>,
        name: impl Fn(TypeIndex) -> String,
    ) -> Option<TaskView> {
        let entry = &self.entries[key as usize];
        let status = entry.state.status()?;
        let fits = result_bytes.is_some_and(|most| entry.body.as_bytes().len() <= most);
        let has_result = fits && status == TaskStatus::Done;
        Some(TaskView {
            id: self.id(key),
            agent_type: name(entry.type_index),
            status,
            priority: entry.priority(),
            attempts: entry.attempts,
            node: None,
            result: has_result.then(|| entry.body.as_bytes().to_vec()),
            error: entry.error().map(str::to_string),
        })
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
