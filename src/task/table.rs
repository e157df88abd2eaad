//! Every task that a shard owns, and what may happen to it next.
//!
//! A task is `Accepting` until its submission is committed, then `Queued` and `Running` in turn,
//! then `Ending` until its end is committed, then `Ended` until it is forgotten. An attempt holds
//! a [`Lease`], whose token is never given twice: whoever comes late with an old one changes
//! nothing.

use super::{
    body::Body,
    list::{Link, Linked, List},
    pace::Pace,
    prefetch::prefetch,
};
use crate::{
    registry::TypeIndex,
    wire::{
        api::{Error, Priority, TaskStatus, TaskView},
        id::{CoreIndex, TaskId},
    },
};
use hashbrown::HashTable;
use std::collections::VecDeque;

/// Tasks that are forgotten at once when there are very many.
const FORGET_TOGETHER: usize = 16;

/// How much a shard's table holds, and what submissions get that name nothing else.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Tasks that may wait in normal operation.
    pub queue_primary: usize,
    /// Tasks that may wait beyond that; then submissions are refused.
    pub queue_overflow: usize,
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
}

/// Who waits for news of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watcher {
    /// Where the news go.
    pub target: u64,
    /// What the receiver knows them by.
    pub correlation: u64,
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
    /// Whether room was reserved for it.
    pub reserved: bool,
    /// Who is told of its end.
    pub watcher: Option<Watcher>,
}

/// The right to end one attempt of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The task's place in its shard's table.
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
    Again,
    /// It was the last one.
    Last,
}

/// Counts since the start, and of what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks accepted.
    pub accepted: u64,
    /// Submissions refused for want of room.
    pub refused: u64,
    /// Tasks that wait now.
    pub queued: u64,
    /// Tasks that run now.
    pub running: u64,
    /// Tasks that ended well.
    pub done: u64,
    /// Tasks that died.
    pub dead: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Attempts that failed.
    pub attempts_failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Vacant,
    Accepting,
    Queued,
    Running,
    /// Its end, one of the three, waits for the log.
    Ending(TaskStatus),
    Ended(TaskStatus),
}

/// Three cache lines.
#[repr(align(64))]
struct Entry {
    random: u128,
    body: Body,
    link: Link,
    /// Token of the attempt that runs.
    token: u64,
    deadline_ms: u64,
    timeout_ms: u64,
    attempts: u32,
    max_attempts: u32,
    type_index: TypeIndex,
    priority: Priority,
    state: State,
    watcher: Option<Watcher>,
    rare: Option<Box<Rare>>,
}

/// What few tasks have.
#[derive(Default)]
struct Rare {
    /// Who waits beyond the first.
    watchers: Vec<Watcher>,
    /// What the last failed attempt said.
    error: Option<Box<str>>,
}

impl Linked for Entry {
    #[inline]
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

impl Entry {
    /// A place that no task has.
    const VACANT: Self = Self {
        random: 0,
        body: Body::EMPTY,
        link: Link::NONE,
        token: 0,
        deadline_ms: 0,
        timeout_ms: 0,
        attempts: 0,
        max_attempts: 0,
        type_index: 0,
        priority: Priority::Normal,
        state: State::Vacant,
        watcher: None,
        rare: None,
    };

    fn heap_bytes(&self) -> usize {
        self.body.heap_bytes() + self.error().map_or(0, str::len)
    }

    fn error(&self) -> Option<&str> {
        self.rare.as_ref()?.error.as_deref()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// Task ids are random already.
#[inline]
fn hash(random: u128) -> u64 {
    random as u64 ^ (random >> 64) as u64
}

/// Every task that a shard owns.
pub struct TaskTable {
    shard: CoreIndex,
    limits: TableLimits,
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    /// Finds a task by its random bits; holds no more than the keys, so that it stays in the cache.
    keys: HashTable<u32>,
    /// For each type, the tasks that wait, by priority.
    queues: Vec<[List; Priority::ALL.len()]>,
    /// Tasks that are remembered, the one that ended first at the front.
    ended: VecDeque<u32>,
    ended_bytes: usize,
    reserved: usize,
    accepting: usize,
    next_token: u64,
    counters: Counters,
    pace: Pace,
}

impl TaskTable {
    /// An empty table.
    pub fn new(shard: CoreIndex, limits: TableLimits) -> Self {
        Self {
            shard,
            limits,
            entries: Vec::new(),
            vacant: Vec::new(),
            keys: HashTable::new(),
            queues: Vec::new(),
            ended: VecDeque::new(),
            ended_bytes: 0,
            reserved: 0,
            accepting: 0,
            next_token: 1,
            counters: Counters::default(),
            pace: Pace::default(),
        }
    }

    /// What it was made with.
    #[inline]
    pub fn limits(&self) -> &TableLimits {
        &self.limits
    }

    /// Counts since the start, and of what is there now.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Tasks that were accepted, or are about to be, and have not ended.
    pub fn unended(&self) -> usize {
        self.keys.len() - self.ended.len()
    }

    /// Tasks for which there is room in the queue.
    #[inline]
    pub fn free_room(&self) -> usize {
        let used = self.reserved + self.accepting + self.counters.queued as usize;
        (self.limits.queue_primary + self.limits.queue_overflow).saturating_sub(used)
    }

    /// Keeps room for submissions that will follow, for all of them or for none.
    ///
    /// # Errors
    /// `Backpressure` when there is too little room now, `TooLarge` when there never will be.
    pub fn reserve(&mut self, now_ms: u64, count: usize) -> Result<(), Error> {
        let room = self.limits.queue_primary + self.limits.queue_overflow;
        if count > room {
            return Err(Error::TooLarge(format!(
                "{count} tasks at once: a shard's queue holds {room} (tasks.queue_primary + \
                 tasks.queue_overflow)"
            )));
        }
        if count > self.free_room() {
            self.counters.refused += count as u64;
            return Err(self.backpressure(now_ms));
        }
        self.reserved += count;
        Ok(())
    }

    /// Gives back room that was reserved and will not be used.
    pub fn release(&mut self, count: usize) {
        assert!(count <= self.reserved, "more is given back than was reserved");
        self.reserved -= count;
    }

    /// Takes a submission in; it becomes a task when the log has it ([`TaskTable::accepted`]).
    /// One with reserved room uses that up, also when it is refused.
    ///
    /// # Errors
    /// `TooLarge`, `Conflict` when there is a task of that name, `Backpressure`.
    #[inline]
    pub fn submit(&mut self, now_ms: u64, submission: Submission<'_>) -> Result<u32, Error> {
        if submission.reserved {
            self.release(1);
        }
        if submission.payload.len() > self.limits.max_payload_bytes {
            return Err(Error::TooLarge(format!(
                "a payload of {} bytes: the limit is {} (tasks.max_payload_bytes)",
                submission.payload.len(),
                self.limits.max_payload_bytes
            )));
        }
        // Retries may have filled the queue since; what was promised is kept.
        if !submission.reserved && self.free_room() == 0 {
            self.counters.refused += 1;
            return Err(self.backpressure(now_ms));
        }
        if self.key(submission.random).is_some() {
            return Err(Error::Conflict("there is a task of that id already".into()));
        }
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(Entry::VACANT);
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[key as usize];
        entry.random = submission.random;
        entry.body.set(submission.payload);
        entry.timeout_ms = match submission.timeout_ms {
            0 => self.limits.timeout_ms,
            timeout_ms => timeout_ms,
        };
        entry.attempts = 0;
        entry.max_attempts = match submission.max_attempts {
            0 => self.limits.max_attempts,
            attempts => attempts,
        };
        entry.type_index = submission.type_index;
        entry.priority = submission.priority;
        entry.state = State::Accepting;
        entry.watcher = submission.watcher;
        let entries = &self.entries;
        let rehash = |key: &u32| hash(entries[*key as usize].random);
        self.keys.insert_unique(hash(submission.random), key, rehash);
        self.accepting += 1;
        Ok(key)
    }

    fn backpressure(&mut self, now_ms: u64) -> Error {
        let Counters { done, dead, cancelled, queued, .. } = self.counters;
        Error::Backpressure(self.pace.retry_after_ms(now_ms, done + dead + cancelled, queued))
    }

    /// The log has the submission: the task is accepted, and waits for an agent unless it was
    /// cancelled meanwhile.
    #[inline]
    pub fn accepted(&mut self, key: u32) {
        self.counters.accepted += 1;
        if self.entries[key as usize].state == State::Accepting {
            self.accepting -= 1;
            self.queue(key);
        }
    }

    #[inline]
    fn queue(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        entry.state = State::Queued;
        let (type_index, priority) = (entry.type_index as usize, entry.priority as usize);
        if type_index >= self.queues.len() {
            self.queues.resize_with(type_index + 1, Default::default);
        }
        self.queues[type_index][priority].push(&mut self.entries, key);
        self.counters.queued += 1;
    }

    fn unqueue(&mut self, key: u32) {
        let entry = &self.entries[key as usize];
        let (type_index, priority) = (entry.type_index as usize, entry.priority as usize);
        self.queues[type_index][priority].remove(&mut self.entries, key);
        self.counters.queued -= 1;
    }

    /// The task of a type that should run next: the most urgent one, and of those the one that
    /// has waited longest.
    #[inline]
    pub fn next(&self, type_index: TypeIndex) -> Option<u32> {
        let queues = self.queues.get(type_index as usize)?;
        queues.iter().rev().find_map(List::first)
    }

    /// Whether a task of a type waits for an agent.
    #[inline]
    pub fn is_waiting(&self, type_index: TypeIndex) -> bool {
        self.next(type_index).is_some()
    }

    /// Begins an attempt of a task that waits.
    #[inline]
    pub fn start(&mut self, key: u32, now_ms: u64) -> Lease {
        self.unqueue(key);
        let token = self.next_token;
        self.next_token += 1;
        let entry = &mut self.entries[key as usize];
        entry.state = State::Running;
        entry.token = token;
        entry.attempts += 1;
        entry.deadline_ms = now_ms.saturating_add(entry.timeout_ms);
        self.counters.running += 1;
        Lease { key, token }
    }

    /// The entry whose current attempt has that lease.
    #[inline]
    fn leased(&mut self, lease: Lease) -> Result<&mut Entry, Stale> {
        match self.entries.get_mut(lease.key as usize) {
            Some(entry) if entry.state == State::Running && entry.token == lease.token => Ok(entry),
            _ => Err(Stale),
        }
    }

    /// The lease of a task's current attempt, for who knows its token.
    ///
    /// # Errors
    /// [`Stale`] when that is not the current attempt's token.
    pub fn by_token(&self, random: u128, token: u64) -> Result<Lease, Stale> {
        let key = self.key(random).ok_or(Stale)?;
        let entry = &self.entries[key as usize];
        let current = entry.state == State::Running && entry.token == token;
        current.then_some(Lease { key, token }).ok_or(Stale)
    }

    /// Lets an attempt last so long from now; when it ends then, milliseconds.
    ///
    /// # Errors
    /// [`Stale`], and nothing is changed.
    pub fn extend(&mut self, lease: Lease, now_ms: u64, extend_ms: u64) -> Result<u64, Stale> {
        let entry = self.leased(lease)?;
        entry.deadline_ms = now_ms.saturating_add(extend_ms);
        Ok(entry.deadline_ms)
    }

    /// Takes an attempt back as if it had not begun.
    ///
    /// # Errors
    /// [`Stale`], and nothing is changed.
    pub fn give_back(&mut self, lease: Lease) -> Result<(), Stale> {
        let entry = self.leased(lease)?;
        entry.attempts -= 1;
        self.counters.running -= 1;
        self.queue(lease.key);
        Ok(())
    }

    /// Ends a task well; it is told when the log has it ([`TaskTable::ended`]).
    ///
    /// # Errors
    /// [`Stale`], and nothing is changed.
    #[inline]
    pub fn complete(&mut self, lease: Lease, result: &[u8]) -> Result<(), Stale> {
        let entry = self.leased(lease)?;
        entry.state = State::Ending(TaskStatus::Done);
        entry.body.set(result);
        self.counters.running -= 1;
        Ok(())
    }

    /// Ends an attempt that failed. The task goes to the end of its queue, or is dead when the
    /// attempt was its last or another one would not help.
    ///
    /// # Errors
    /// [`Stale`], and nothing is changed.
    pub fn fail(&mut self, lease: Lease, error: &str, retry: bool) -> Result<Failed, Stale> {
        let entry = self.leased(lease)?;
        entry.rare().error = Some(error.into());
        let again = retry && entry.attempts < entry.max_attempts;
        if !again {
            entry.state = State::Ending(TaskStatus::Dead);
            entry.body.clear();
        }
        self.counters.running -= 1;
        self.counters.attempts_failed += 1;
        if again {
            self.queue(lease.key);
        }
        Ok(if again { Failed::Again } else { Failed::Last })
    }

    /// Cancels a task, whatever it is at; `Ok(false)` when it has ended before.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn cancel(&mut self, random: u128) -> Result<bool, Error> {
        let Some(key) = self.key(random) else {
            return Err(Error::NotFound("no such task".into()));
        };
        match self.entries[key as usize].state {
            State::Accepting => self.accepting -= 1,
            State::Queued => self.unqueue(key),
            State::Running => self.counters.running -= 1,
            State::Ending(_) | State::Ended(_) => return Ok(false),
            State::Vacant => unreachable!("a key leads to a task"),
        }
        let entry = &mut self.entries[key as usize];
        entry.state = State::Ending(TaskStatus::Cancelled);
        entry.body.clear();
        Ok(true)
    }

    /// The log has the task's end.
    #[inline]
    pub fn ended(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        let State::Ending(status) = entry.state else {
            unreachable!("an end is logged once, when it is decided");
        };
        entry.state = State::Ended(status);
        match status {
            TaskStatus::Done => self.counters.done += 1,
            TaskStatus::Dead => self.counters.dead += 1,
            _ => self.counters.cancelled += 1,
        }
        self.ended_bytes += entry.heap_bytes();
        self.ended.push_back(key);
    }

    /// Forgets the tasks that ended first once there are more than the limits allow; of many it
    /// forgets some at once, so that their cache misses overlap.
    #[inline]
    pub fn retain_within_limits(&mut self) {
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
        for key in self.ended.drain(..count) {
            let entry = &mut self.entries[key as usize];
            self.ended_bytes -= entry.heap_bytes();
            entry.state = State::Vacant;
            entry.body.clear();
            entry.rare = None;
            let place = self.keys.find_entry(hash(entry.random), |there| *there == key);
            place.expect("every task is found by its name").remove();
            self.vacant.push(key);
        }
    }

    /// The place of a task.
    #[inline]
    pub fn key(&self, random: u128) -> Option<u32> {
        let is_it = |key: &u32| self.entries[*key as usize].random == random;
        self.keys.find(hash(random), is_it).copied()
    }

    /// The task's name.
    #[inline]
    pub fn id(&self, key: u32) -> TaskId {
        TaskId { shard: self.shard, random: self.entries[key as usize].random }
    }

    /// The payload of a task that has not ended.
    #[inline]
    pub fn payload(&self, key: u32) -> &[u8] {
        self.entries[key as usize].body.as_bytes()
    }

    /// When the attempt that runs has taken too long, milliseconds.
    #[inline]
    pub fn deadline_ms(&self, key: u32) -> u64 {
        self.entries[key as usize].deadline_ms
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
        let (State::Ending(status) | State::Ended(status)) = entry.state else {
            unreachable!("only an ended task is asked for its end");
        };
        let body = match (status, entry.error()) {
            (TaskStatus::Dead, Some(error)) => error.as_bytes(),
            _ => entry.body.as_bytes(),
        };
        (self.id(key), status, body)
    }

    /// What is known of a task; `None` when it was not accepted yet, never, or is forgotten.
    pub fn view(&self, random: u128, name: impl Fn(TypeIndex) -> String) -> Option<TaskView> {
        let entry = &self.entries[self.key(random)? as usize];
        let status = match entry.state {
            State::Vacant | State::Accepting => return None,
            State::Queued => TaskStatus::Queued,
            // An end that is not committed has not happened.
            State::Running | State::Ending(_) => TaskStatus::Running,
            State::Ended(status) => status,
        };
        Some(TaskView {
            id: TaskId { shard: self.shard, random },
            agent_type: name(entry.type_index),
            status,
            priority: entry.priority,
            attempts: entry.attempts,
            result: (status == TaskStatus::Done).then(|| entry.body.as_bytes().to_vec()),
            error: entry.error().map(str::to_string),
        })
    }

    /// Adds somebody who is told of a task's end; false when there is no such task or it has
    /// ended.
    pub fn watch(&mut self, random: u128, watcher: Watcher) -> bool {
        let Some(key) = self.key(random) else { return false };
        let entry = &mut self.entries[key as usize];
        if matches!(entry.state, State::Ended(_)) {
            return false;
        }
        match entry.watcher {
            None => entry.watcher = Some(watcher),
            Some(_) => entry.rare().watchers.push(watcher),
        }
        true
    }

    /// Removes a watcher; false when it was not there.
    pub fn unwatch(&mut self, random: u128, watcher: Watcher) -> bool {
        let Some(key) = self.key(random) else { return false };
        let entry = &mut self.entries[key as usize];
        if entry.watcher == Some(watcher) {
            entry.watcher = entry.rare.as_mut().and_then(|rare| rare.watchers.pop());
            return true;
        }
        let Some(rare) = &mut entry.rare else { return false };
        let place = rare.watchers.iter().position(|there| *there == watcher);
        place.map(|place| rare.watchers.swap_remove(place)).is_some()
    }

    /// Everybody who is to be told of a task's end, once.
    #[inline]
    pub fn take_watchers(&mut self, key: u32) -> impl Iterator<Item = Watcher> + use<> {
        let entry = &mut self.entries[key as usize];
        let more = entry.rare.as_mut().map(|rare| std::mem::take(&mut rare.watchers));
        entry.watcher.take().into_iter().chain(more.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
