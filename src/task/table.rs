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
    entry::{BEHIND, Entry, State, TRANSIENT},
    evict::Waiting,
    keys::Keys,
    limits::TableLimits,
    list::{Link, List},
    marked::Marked,
    pace::Pace,
    place::{Generations, Spot},
    print::Printer,
    queues::Queues,
};
use crate::{
    registry::TypeIndex,
    wire::{
        api::{Error, Priority, TaskStatus, TaskView},
        id::{PartitionIndex, TOKENS_END, TaskId},
    },
};
use hashbrown::HashTable;
use std::collections::VecDeque;

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
    /// Those that somebody may watch, and those whose letters are to be queued again.
    pub(super) watched: Marked,
    pub(super) reviving: Marked,
    vacant: Vec<u32>,
    /// Finds a task by its random bits; holds no more than the keys, so that it stays in the cache.
    index: HashTable<u32>,
    pub(super) queues: Queues,
    pub(super) delays: Delays,
    pub(super) cold: ColdTasks,
    pub(super) keys: Keys,
    /// Where nodes agree on the others: those of transient tasks, of which no other node knows.
    pub(super) transient_keys: Keys,
    pub(super) agreed_keys: AgreedKeys,
    /// What prints of contents are made with: nobody else knows it.
    pub(super) printer: Printer,
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
    pub(super) ended_bytes: usize,
    /// Bytes of the tasks that wait and are in memory.
    pub(super) hot_bytes: usize,
    pub(super) reserved: usize,
    pub(super) accepting: usize,
    pub(super) next_token: u64,
    pub(super) tokens_below: u64,
    pub(super) counters: Counters,
    pub(super) pace: Pace,
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
            watched: Marked::default(),
            reviving: Marked::default(),
            vacant: Vec::new(),
            index: HashTable::new(),
            queues: Queues::new(limits.ageing_ms),
            delays: Delays::default(),
            cold: ColdTasks::default(),
            keys: Keys::default(),
            transient_keys: Keys::default(),
            agreed_keys: AgreedKeys::default(),
            printer: Printer::default(),
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
        let (key, print) = match self.key(random) {
            Some(key) => {
                let print = self.print_of(key);
                match self.entries[key as usize].state {
                    State::Accepting => self.accepting -= 1,
                    State::Queued | State::Delayed => self.stop_waiting(key),
                    State::Running => self.counters.running -= 1,
                    State::Vacant => unreachable!("a key leads to a task"),
                    _ => return Ok(None),
                }
                (key, print)
            }
            None => {
                let print = self.cold.find(random).map(|slot| self.cold.slab[slot].print);
                let cold = self.take_cold(random);
                (cold.ok_or_else(|| Error::NotFound("no such task".into()))?, print)
            }
        };
        let entry = &mut self.entries[key as usize];
        entry.state = State::EndingCancelled;
        entry.body.clear();
        if let Some(print) = print.filter(|_| self.is_agreed) {
            entry.link = Link::pair(print, 0);
        }
        Ok(Some(key))
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
