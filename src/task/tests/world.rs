//! A table with a log around it, and beside it what must be true of them: a simple model.

mod again;
mod check;
mod facts;

use super::*;
use facts::{Fact, place, recorded};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Agent types.
pub const TYPES: u16 = 2;

/// What happens when a record is committed.
enum Event {
    Submitted(u32, u128),
    Ended(u32, u128),
    Moved(Moving),
    /// The second half of a dead letter that was moved.
    Died(u128),
    /// The second half of another ended task that was moved.
    Kept,
    Requeued(u32, u128),
    Forgotten(u128),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Accepting,
    Queued,
    /// Until when, and which of those it is.
    Delayed(u64, u64),
    Running(Lease),
    Ending(TaskStatus),
    Ended(TaskStatus),
    Letter,
    /// It is queued again, which waits for the log.
    Reviving,
}

pub struct Model {
    pub type_index: u16,
    pub priority: Priority,
    pub stage: Stage,
    pub attempts: u32,
    max_attempts: u32,
    pub transient: bool,
    due_ms: u64,
    /// The record of its submission.
    record: usize,
    payload: Vec<u8>,
    ends: u32,
    died_ms: u64,
    /// The record of its death, when it is a dead letter as far as the log knows.
    death: Option<usize>,
}

struct ModelKey {
    random: u128,
    body_hash: u64,
    expires_ms: u64,
    is_logged: bool,
}

/// How a step of a random test submits.
#[derive(Clone, Debug)]
pub struct Order {
    pub type_index: u16,
    pub priority: usize,
    pub delay_ms: u64,
    pub key: Option<u8>,
    pub transient: bool,
    pub watched: bool,
    pub reserved: bool,
}

pub struct World {
    pub table: TaskTable,
    limits: TableLimits,
    pub now_ms: u64,
    /// `None` was freed.
    facts: Vec<Option<Fact>>,
    committed: usize,
    pending: VecDeque<(usize, Event)>,
    pub tasks: BTreeMap<u128, Model>,
    /// By type and priority, the first to run at the front.
    queues: HashMap<(u16, usize), VecDeque<u128>>,
    letters: VecDeque<u128>,
    keys: HashMap<Vec<u8>, ModelKey>,
    wanted: Vec<ColdKey>,
    pub over: Vec<Lease>,
    reserved: usize,
    turns: u64,
}

fn origin(first_token: u64) -> Origin {
    Origin { durable: true, first_token, ..ORIGIN }
}

impl World {
    pub fn new(limits: TableLimits) -> Self {
        Self {
            table: TaskTable::new(origin(1), limits),
            limits,
            now_ms: 0,
            facts: Vec::new(),
            committed: 0,
            pending: VecDeque::new(),
            tasks: BTreeMap::new(),
            queues: HashMap::new(),
            letters: VecDeque::new(),
            keys: HashMap::new(),
            wanted: Vec::new(),
            over: Vec::new(),
            reserved: 0,
            turns: 0,
        }
    }

    fn append(&mut self, fact: Fact, event: Event) -> usize {
        self.facts.push(Some(fact));
        self.pending.push_back((self.facts.len() - 1, event));
        self.facts.len() - 1
    }

    fn count(&self, is_it: impl Fn(&Stage) -> bool) -> usize {
        self.tasks.values().filter(|task| is_it(&task.stage)).count()
    }

    fn free_room(&self) -> usize {
        let waits = |stage: &Stage| {
            use Stage::{Accepting, Delayed, Queued, Reviving};
            matches!(stage, Accepting | Queued | Delayed(..) | Reviving)
        };
        let room = self.limits.queue_primary + self.limits.queue_overflow;
        room.saturating_sub(self.reserved + self.count(waits))
    }

    fn queue(&mut self, random: u128) -> &mut VecDeque<u128> {
        let task = &self.tasks[&random];
        self.queues.entry((task.type_index, task.priority as usize)).or_default()
    }

    fn unqueue(&mut self, random: u128) {
        self.queue(random).retain(|there| *there != random);
    }

    fn waits_again(&mut self, random: u128, due_ms: u64) {
        self.turns += 1;
        let stage = match due_ms > self.now_ms {
            true => Stage::Delayed(due_ms, self.turns),
            false => Stage::Queued,
        };
        self.tasks.get_mut(&random).unwrap().stage = stage;
        if stage == Stage::Queued {
            self.queue(random).push_back(random);
        }
    }

    pub fn reserve(&mut self, count: usize) {
        if self.free_room() >= count {
            assert_eq!(self.table.reserve(self.now_ms, count, Priority::Low), Ok(()));
            self.reserved += count;
        }
    }

    pub fn submit(&mut self, order: &Order) {
        let random = self.tasks.len() as u128 + 1;
        let payload = vec![random as u8; if random.is_multiple_of(3) { 200 } else { 5 }];
        let priority = Priority::ALL[order.priority];
        let name = order.key.map(|key| vec![key]);
        // Whoever is right uses a key for one type.
        let body_hash = order.type_index.into();
        let key = name.as_deref().map(|bytes| Key { bytes, body_hash });
        let reserved = order.reserved && self.reserved > 0;
        let submission = Submission {
            type_index: order.type_index,
            priority,
            delay_ms: order.delay_ms,
            key,
            transient: order.transient,
            reserved,
            watcher: order.watched.then_some(Watcher { target: 1, correlation: random as u64 }),
            ..submission(random, &payload)
        };
        self.reserved -= usize::from(reserved);
        let result = self.table.submit(self.now_ms, submission);
        let has_room = reserved || self.free_room() > 0;
        if let Some(name) = &name {
            let known = self.keys.get(name).filter(|known| known.expires_ms > self.now_ms);
            match known {
                Some(known) if known.body_hash == body_hash => {
                    let id = TaskId { partition: 0, random: known.random };
                    return assert_eq!(result, Ok(Submitted::Existing(id)));
                }
                Some(_) => return assert!(matches!(result, Err(Error::Conflict(_)))),
                None => {}
            }
            let there = self.keys.values().filter(|known| known.expires_ms > self.now_ms);
            if there.count() >= self.limits.keys_max {
                return assert!(matches!(result, Err(Error::Backpressure(_))));
            }
        }
        let evicted = self.evicted(priority, has_room);
        if !has_room && !evicted {
            return assert!(matches!(result, Err(Error::Backpressure(_))), "{result:?}");
        }
        let key = super::new(result);
        if let Some(name) = name.clone() {
            let until_ms = self.now_ms + self.limits.key_ttl_ms;
            let expires_ms = until_ms.div_ceil(1_000) * 1_000;
            let is_logged = false;
            self.keys.insert(name, ModelKey { random, body_hash, expires_ms, is_logged });
        }
        let due_ms = self.now_ms + order.delay_ms;
        let task = Model {
            type_index: order.type_index,
            priority,
            stage: Stage::Accepting,
            attempts: 0,
            max_attempts: self.limits.max_attempts,
            transient: order.transient,
            due_ms,
            record: usize::MAX,
            payload: payload.clone(),
            ends: 0,
            died_ms: 0,
            death: None,
        };
        self.tasks.insert(random, task);
        if order.transient {
            self.table.accepted(key, self.now_ms, None);
            return self.waits_again(random, due_ms);
        }
        let fact = Fact::Submitted {
            random,
            type_index: order.type_index,
            priority,
            submitted_unix_ms: self.table.unix_ms(self.now_ms),
            due_unix_ms: if order.delay_ms == 0 { 0 } else { self.table.unix_ms(due_ms) },
            max_attempts: 0,
            attempts: 0,
            key: name.map(|name| (name, body_hash)),
            payload,
        };
        self.append(fact, Event::Submitted(key, random));
    }

    /// Checks what was evicted for a task of a priority.
    fn evicted(&mut self, priority: Priority, has_room: bool) -> bool {
        let policy = self.limits.drop_policy;
        let may = |task: &Model| {
            task.transient
                && matches!(task.stage, Stage::Queued | Stage::Delayed(..))
                && (policy == DropPolicy::Oldest || task.priority < priority)
        };
        let candidates = self.tasks.values().filter(|task| may(task)).count();
        let Some(key) = self.table.next_evicted() else {
            assert!(has_room || policy == DropPolicy::Reject || candidates == 0);
            return false;
        };
        assert!(!has_room && policy != DropPolicy::Reject);
        let random = self.table.id(key).random;
        let victim = &self.tasks[&random];
        assert!(may(victim), "{random} was evicted");
        let lowest = self.tasks.values().filter(|task| may(task)).map(|task| task.priority).min();
        assert!(policy != DropPolicy::LowPriority || Some(victim.priority) == lowest);
        self.unqueue(random);
        self.end(key, random, TaskStatus::Dead, true);
        assert_eq!(self.table.next_evicted(), None);
        true
    }

    fn end(&mut self, key: u32, random: u128, status: TaskStatus, evicted: bool) {
        self.table.ended(key);
        let task = self.tasks.get_mut(&random).unwrap();
        task.ends += 1;
        task.stage = Stage::Ended(status);
        if status == TaskStatus::Dead && !evicted {
            task.stage = Stage::Letter;
            self.letters.push_back(random);
        }
        self.table.retain_within_limits();
        if self.letters.len() > self.limits.dead_max {
            self.purged();
        }
        assert_eq!(self.table.next_purged(), None);
    }

    /// The oldest dead letter was purged.
    fn purged(&mut self) {
        let purged = self.letters.pop_front().unwrap();
        let task = self.tasks.get_mut(&purged).unwrap();
        task.stage = Stage::Ended(TaskStatus::Dead);
        if !task.transient {
            assert_eq!(self.table.next_purged(), Some(purged));
            self.append(Fact::Forgotten(purged), Event::Forgotten(purged));
        }
    }

    /// An end was decided.
    fn ends(&mut self, key: u32, random: u128, status: TaskStatus) {
        self.table.ends_at(key, self.now_ms);
        let (_, decided, body) = self.table.end_of(key);
        assert_eq!(decided, status);
        let body = body.to_vec();
        let attempts = self.table.attempts(key);
        if self.tasks[&random].transient {
            return self.end(key, random, status, false);
        }
        self.tasks.get_mut(&random).unwrap().stage = Stage::Ending(status);
        let ended_unix_ms = self.table.unix_ms(self.now_ms);
        let fact = Fact::Ended { random, status, attempts, ended_unix_ms, body };
        self.append(fact, Event::Ended(key, random));
    }

    pub fn commit(&mut self, count: usize) {
        for _ in 0..count {
            let Some((record, event)) = self.pending.pop_front() else { return };
            self.committed = record + 1;
            match event {
                Event::Submitted(key, random) => {
                    self.table.accepted(key, self.now_ms, Some(place(record)));
                    let task = self.tasks.get_mut(&random).unwrap();
                    task.record = record;
                    let known = self.keys.values_mut().find(|known| known.random == random);
                    if let Some(known) = known {
                        known.is_logged = true;
                    }
                    if task.stage == Stage::Accepting {
                        let due_ms = task.due_ms;
                        self.waits_again(random, due_ms);
                    }
                }
                Event::Ended(key, random) => {
                    let task = self.tasks.get_mut(&random).unwrap();
                    let Stage::Ending(status) = task.stage else { panic!() };
                    task.death = (status == TaskStatus::Dead).then_some(record);
                    self.end(key, random, status, false);
                }
                Event::Moved(moving) => {
                    self.table.moved(moving, place(record));
                    if let Moving::Task(random) = moving {
                        self.tasks.get_mut(&random).unwrap().record = record;
                    }
                }
                Event::Kept => {}
                Event::Died(random) => self.tasks.get_mut(&random).unwrap().death = Some(record),
                Event::Requeued(key, random) => {
                    self.tasks.get_mut(&random).unwrap().death = None;
                    self.revive(key, random);
                }
                Event::Forgotten(random) => {
                    self.tasks.get_mut(&random).unwrap().death = None;
                }
            }
        }
    }

    pub fn commit_all(&mut self) {
        while !self.pending.is_empty() {
            self.commit(1);
        }
    }

    /// Starts the next task of a type, which must be the first of its queue.
    pub fn start(&mut self, type_index: u16) -> Option<Lease> {
        let heads = (0..4).filter_map(|priority| {
            self.queues.get(&(type_index, priority))?.front().map(|random| (priority, *random))
        });
        let hot: Vec<(usize, u32)> = heads
            .filter_map(|(priority, random)| Some((priority, self.table.key(random)?)))
            .collect();
        let next = self.table.next(type_index);
        let urgency = |&(priority, key): &(usize, u32)| {
            let queued_ms = self.table.entries[key as usize].when_ms as i64;
            (queued_ms - (priority as u64 * self.limits.ageing_ms) as i64, 4 - priority)
        };
        assert_eq!(next, hot.iter().min_by_key(|head| urgency(head)).map(|head| head.1));
        let key = next?;
        let random = self.table.id(key).random;
        self.unqueue(random);
        let lease = self.table.start(key, self.now_ms);
        let task = self.tasks.get_mut(&random).unwrap();
        task.attempts += 1;
        task.stage = Stage::Running(lease);
        assert_eq!(self.table.attempts(key), task.attempts);
        assert_eq!(self.table.payload(key), task.payload);
        assert_eq!(self.table.last_lease(key), Some(lease));
        Some(lease)
    }

    fn running(&self, pick: usize) -> Option<(u128, Lease)> {
        let running = self.tasks.iter().filter_map(|(random, task)| match task.stage {
            Stage::Running(lease) => Some((*random, lease)),
            _ => None,
        });
        let running: Vec<_> = running.collect();
        (!running.is_empty()).then(|| running[pick % running.len()])
    }

    pub fn complete(&mut self, pick: usize) {
        let Some((random, lease)) = self.running(pick) else { return };
        assert_eq!(self.table.complete(lease, &random.to_le_bytes()), Ok(()));
        self.over.push(lease);
        self.ends(lease.key, random, TaskStatus::Done);
    }

    pub fn fail(&mut self, pick: usize, retry: bool) {
        let Some((random, lease)) = self.running(pick) else { return };
        let task = &self.tasks[&random];
        let again = retry && task.attempts < task.max_attempts;
        self.over.push(lease);
        match self.table.fail(lease, self.now_ms, "e", retry).unwrap() {
            Failed::Again { due_ms } => {
                assert!(again && due_ms >= self.now_ms);
                assert!(due_ms <= self.now_ms + self.limits.retry.max_ms);
                self.waits_again(random, due_ms);
            }
            Failed::Last => {
                assert!(!again);
                self.tasks.get_mut(&random).unwrap().died_ms = self.now_ms;
                self.ends(lease.key, random, TaskStatus::Dead);
            }
        }
    }

    pub fn extend(&mut self, pick: usize) {
        let Some((_, lease)) = self.running(pick) else { return };
        assert_eq!(self.table.extend(lease, self.now_ms, 7), Ok(self.now_ms + 7));
        assert_eq!(self.table.deadline_ms(lease.key), self.now_ms + 7);
    }

    pub fn give_back(&mut self, pick: usize) {
        let Some((random, lease)) = self.running(pick) else { return };
        assert_eq!(self.table.give_back(lease), Ok(()));
        self.over.push(lease);
        self.queue(random).push_front(random);
        let task = self.tasks.get_mut(&random).unwrap();
        task.attempts -= 1;
        task.stage = Stage::Queued;
    }

    pub fn late(&mut self, pick: usize) {
        if self.over.is_empty() {
            return;
        }
        let lease = self.over[pick % self.over.len()];
        assert_eq!(self.table.complete(lease, b"late"), Err(Stale));
        assert_eq!(self.table.fail(lease, self.now_ms, "late", true), Err(Stale));
        assert_eq!(self.table.extend(lease, self.now_ms, 1), Err(Stale));
        assert_eq!(self.table.give_back(lease), Err(Stale));
    }

    pub fn cancel(&mut self, pick: usize) {
        if self.tasks.is_empty() {
            return;
        }
        let random = pick as u128 % self.tasks.len() as u128 + 1;
        let cancelled = self.table.cancel(random);
        match self.tasks[&random].stage {
            // It may be forgotten.
            Stage::Ended(_) => return assert!(!matches!(cancelled, Ok(Some(_)))),
            Stage::Ending(_) | Stage::Letter | Stage::Reviving => {
                return assert_eq!(cancelled, Ok(None));
            }
            Stage::Running(lease) => self.over.push(lease),
            Stage::Queued => self.unqueue(random),
            Stage::Accepting | Stage::Delayed(..) => {}
        }
        let key = cancelled.unwrap().expect("it has not ended");
        self.ends(key, random, TaskStatus::Cancelled);
    }

    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        while self.table.next_due_ms().is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.table.wake(self.now_ms);
        }
        let mut due: Vec<(u64, u64, u128)> = Vec::new();
        for (random, task) in &self.tasks {
            if let Stage::Delayed(due_ms, turn) = task.stage
                && due_ms <= self.now_ms
            {
                due.push((due_ms, turn, *random));
            }
        }
        due.sort_unstable();
        for (_, _, random) in due {
            self.waits_again(random, 0);
        }
    }

    pub fn requeue(&mut self, pick: usize) {
        if self.letters.is_empty() {
            return;
        }
        let pick = pick % self.letters.len();
        let random = self.letters[pick];
        let has_room = self.free_room() > 0;
        let result = self.table.requeue(random, self.now_ms);
        let evicted = self.evicted(Priority::Low, has_room);
        if !has_room && !evicted {
            return assert!(matches!(result, Err(Error::Backpressure(_))));
        }
        let key = result.unwrap();
        self.letters.retain(|there| *there != random);
        let task = self.tasks.get_mut(&random).unwrap();
        task.stage = Stage::Reviving;
        match task.transient {
            true => self.revive(key, random),
            false => drop(self.append(Fact::Requeued(random), Event::Requeued(key, random))),
        }
    }

    /// A dead letter is queued again.
    fn revive(&mut self, key: u32, random: u128) {
        self.table.requeued(key, self.now_ms);
        let task = self.tasks.get_mut(&random).unwrap();
        (task.attempts, task.ends) = (0, 0);
        self.waits_again(random, 0);
    }

    /// Asks for cold tasks and answers one of the questions that are open.
    pub fn warm(&mut self, ask: usize, pick: usize) {
        let asked = self.table.cold_wanted(ask);
        assert!(asked.len() <= ask);
        for (cold, told) in asked {
            assert_eq!(self.table.wanted_place(cold), Some(told));
            self.wanted.push(cold);
        }
        if self.wanted.is_empty() {
            return;
        }
        let cold = self.wanted.swap_remove(pick % self.wanted.len());
        let Some(place) = self.table.wanted_place(cold) else { return };
        let fact = self.facts[place.offset as usize].clone().expect("what is needed is not freed");
        let Fact::Submitted { random, .. } = fact else { panic!("{fact:?}") };
        assert_eq!(self.tasks[&random].stage, Stage::Queued);
        let other = Recorded { random: random + 1, ..recorded(&fact) };
        assert!(!self.table.warm(cold, &other), "the record of another task");
        assert!(self.table.warm(cold, &recorded(&fact)));
        assert!(!self.table.warm(cold, &recorded(&fact)), "it is warm");
    }

    /// Runs everything that is there to its end.
    pub fn drain(&mut self) {
        self.commit_all();
        for _ in 0..10_000 {
            self.pass(100);
            while !self.table.cold_wanted(0).is_empty() {}
            self.warm(usize::MAX, 0);
            while !self.wanted.is_empty() {
                self.warm(0, 0);
            }
            for type_index in 0..TYPES {
                while self.start(type_index).is_some() {}
            }
            while self.running(0).is_some() {
                self.complete(0);
            }
            self.commit_all();
            self.check();
            if self.table.unended() == 0 {
                break;
            }
        }
        assert_eq!(self.table.unended(), 0, "every accepted task ends");
        for (random, task) in &self.tasks {
            assert_eq!(task.ends, 1, "{random} ended {} times", task.ends);
        }
    }
}
