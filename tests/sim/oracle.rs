//! What clients know of their tasks, and what therefore must hold.
//!
//! - What was accepted is not lost: it is there until it has ended.
//! - It ends once: with a result that a worker sent, dead after a failure, or cancelled because
//!   somebody asked.
//! - Who submits with a key gets one task, however often.
//! - A read is as new as everything that anybody was told before it began.
//! - A fencing token is given once.

use coreflow::wire::{
    api::{TaskStatus, TaskView},
    id::TaskId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A task's place in the oracle's list.
pub type Number = usize;

/// A key is used again for its task for so long after that was submitted first, microseconds.
pub const FRESH_US: u64 = 1_000_000;
/// A key may stand for a task longer than it should: its time is rounded, it begins when the node
/// looks at the submission, and clocks differ.
const KEY_SLACK_US: u64 = 8_000_000;
/// The same where nodes agree on when keys are forgotten, which is a minute late.
pub const AGREED_SLACK_US: u64 = 120_000_000;

/// A task that waits so long does not run within a run, milliseconds.
pub const FAR_MS: u64 = 3_600_000;

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this result.
    Done(Vec<u8>),
    /// After its last attempt failed.
    Dead,
    /// Because somebody asked so.
    Cancelled,
}

/// What a task was submitted with.
#[derive(PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

/// What is known of a task.
#[derive(Debug)]
pub struct Task {
    /// What it was submitted with.
    pub payload: Payload,
    /// Its key.
    pub key: Option<usize>,
    /// When it was submitted first.
    pub submitted_us: u64,
    /// How long it waits, milliseconds.
    pub delay_ms: u64,
    /// Its name, once anybody heard of it.
    pub id: Option<TaskId>,
    /// Since when it is known to be accepted.
    pub accepted_us: Option<u64>,
    /// Results that workers sent and that were not refused.
    pub results: Vec<Vec<u8>>,
    /// Somebody asked to cancel it.
    pub may_be_cancelled: bool,
    /// A worker said that no other attempt helps.
    pub may_be_dead: bool,
    /// Somebody asked to queue it again.
    pub may_be_requeued: bool,
    /// How it ended, and since when that is known.
    pub ended: Option<(u64, End)>,
    /// It was seen dead when nobody could queue it again any more.
    pub rests: bool,
    /// Since when it is known that it ended, somehow, and was forgotten.
    pub forgotten_us: Option<u64>,
}

impl Task {
    fn may_have_ended(&self) -> bool {
        !self.results.is_empty() || self.may_be_cancelled || self.may_be_dead
    }

    /// Whether it must end before a run is over.
    pub fn must_end(&self) -> bool {
        self.accepted_us.is_some() && self.delay_ms < FAR_MS
    }

    /// Whether it is known to have ended for good.
    pub fn is_over(&self) -> bool {
        self.rests || self.ended.is_some() || self.forgotten_us.is_some()
    }
}

/// All tasks.
pub struct Oracle {
    pub tasks: Vec<Task>,
    /// Since when nobody asks to queue a dead letter again.
    pub nobody_requeues_since_us: u64,
    numbers: BTreeMap<TaskId, Number>,
    /// The tasks that a key may stand for, the last one at the end.
    by_key: BTreeMap<usize, Vec<Number>>,
    /// How long a key stands for a task.
    pub key_ttl_us: u64,
    /// How much longer a key may stand.
    pub key_slack_us: u64,
    /// Dead letters are purged when there are many.
    pub purges: bool,
    tokens: BTreeSet<(u16, u64)>,
    /// Reads that were checked.
    pub reads: u64,
    /// Ends that workers were told of.
    pub ends: u64,
}

/// The payload of a task: a MessagePack value of its number, and as many bytes more.
pub fn payload(number: Number, more: usize) -> Vec<u8> {
    let length = 8 + more;
    let mut payload = vec![0xc5, (length >> 8) as u8, length as u8];
    payload.extend_from_slice(&(number as u64).to_be_bytes());
    payload.extend((0..more).map(|at| (number + at) as u8));
    payload
}

fn number_in(payload: &[u8]) -> Number {
    let bytes = payload[3..11].try_into().expect("eight bytes");
    u64::from_be_bytes(bytes) as Number
}

/// What a worker makes of an attempt.
pub fn result(number: Number, token: u64) -> Vec<u8> {
    let mut result = vec![0xc4, 16];
    result.extend_from_slice(&(number as u64).to_be_bytes());
    result.extend_from_slice(&token.to_be_bytes());
    result
}

impl Default for Oracle {
    fn default() -> Self {
        Self {
            tasks: Vec::new(),
            nobody_requeues_since_us: u64::MAX,
            numbers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            key_ttl_us: u64::MAX,
            key_slack_us: KEY_SLACK_US,
            purges: false,
            tokens: BTreeSet::new(),
            reads: 0,
            ends: 0,
        }
    }
}

impl Oracle {
    /// A task that is about to be submitted; the one of that key, when there is one. `None` when
    /// the key will soon stand for it no more, or perhaps does already.
    pub fn submit(
        &mut self,
        key: Option<usize>,
        more: usize,
        delay_ms: u64,
        now_us: u64,
    ) -> Option<Number> {
        let last = key.and_then(|key| self.by_key.get(&key)?.last().copied());
        if let Some(last) = last {
            if self.is_fresh(last, now_us) {
                return Some(last);
            }
            let age_us = now_us - self.tasks[last].submitted_us;
            if age_us < self.key_ttl_us.saturating_sub(2 * FRESH_US) {
                return None;
            }
        }
        let number = self.tasks.len();
        if let Some(key) = key {
            self.by_key.entry(key).or_default().push(number);
        }
        self.tasks.push(Task {
            payload: Payload(payload(number, more)),
            key,
            submitted_us: now_us,
            delay_ms,
            id: None,
            accepted_us: None,
            results: Vec::new(),
            may_be_cancelled: false,
            may_be_dead: false,
            may_be_requeued: false,
            ended: None,
            rests: false,
            forgotten_us: None,
        });
        Some(number)
    }

    /// Whether a task was submitted so lately that its key stands for it, however long a node takes
    /// to look.
    pub fn is_fresh(&self, number: Number, now_us: u64) -> bool {
        now_us - self.tasks[number].submitted_us < FRESH_US.min(self.key_ttl_us / 3)
    }

    /// A submission was refused because its key stands for another task.
    pub fn conflicts(&self, number: Number, now_us: u64) {
        let key = self.tasks[number].key.expect("only keys conflict");
        let may_stand = |other: &&Number| {
            let age_us = now_us.saturating_sub(self.tasks[**other].submitted_us);
            **other != number && age_us < self.key_ttl_us.saturating_add(self.key_slack_us)
        };
        let has_another = self.by_key[&key].iter().any(|other| may_stand(&other));
        assert!(has_another, "task {number} conflicts with itself, or with an expired key");
    }

    /// The task of a name.
    pub fn number(&self, id: TaskId) -> Option<Number> {
        self.numbers.get(&id).copied()
    }

    /// A task is known to be accepted, under a name.
    pub fn accepted(&mut self, number: Number, id: TaskId, now_us: u64) {
        let task = &mut self.tasks[number];
        task.accepted_us.get_or_insert(now_us);
        match task.id {
            Some(known) => assert_eq!(known, id, "task {number} was accepted under two names"),
            None => {
                task.id = Some(id);
                let other = self.numbers.insert(id, number);
                assert_eq!(other, None, "two tasks have the name {id}");
            }
        }
    }

    /// A worker was given a task; its number.
    pub fn leased(&mut self, id: TaskId, token: u64, payload: &[u8], now_us: u64) -> Number {
        let number = number_in(payload);
        assert_eq!(self.tasks[number].payload.0, payload, "task {number} has another payload");
        let is_new = self.tokens.insert((id.partition, token));
        assert!(is_new, "the token {token} of partition {} is given twice", id.partition);
        self.accepted(number, id, now_us);
        number
    }

    /// A task is known to have ended.
    pub fn ended(&mut self, number: Number, end: End, now_us: u64) {
        let task = &mut self.tasks[number];
        let is_possible = match &end {
            End::Done(result) => task.results.contains(result),
            End::Dead => task.may_be_dead,
            End::Cancelled => task.may_be_cancelled,
        };
        assert!(is_possible, "task {number} ended as nobody asked: {end:?}, {task:?}");
        match &task.ended {
            Some((_, known)) if *known == end => {}
            // Dead letters that may have been queued again have ended for good only then.
            Some((_, End::Dead)) if task.may_be_requeued => task.ended = Some((now_us, end)),
            Some((_, known)) => {
                panic!("task {number} ended twice: {known:?}, then {end:?}: {task:?}")
            }
            None if end == End::Dead && task.may_be_requeued => {}
            None => task.ended = Some((now_us, end)),
        }
    }

    /// A read that began at a time says this of a task; `None` when there is no such task.
    pub fn read(&mut self, number: Number, began_us: u64, view: Option<&TaskView>, now_us: u64) {
        self.reads += 1;
        let task = &self.tasks[number];
        let was_accepted = task.accepted_us.is_some_and(|at| at <= began_us);
        let ended = task.ended.as_ref().filter(|(at, _)| *at <= began_us).map(|(_, end)| end);
        let Some(view) = view else {
            let is_lost = was_accepted && !task.may_have_ended();
            assert!(!is_lost, "task {number} is lost: {task:?}");
            let is_letter = ended == Some(&End::Dead) && !task.may_be_requeued;
            assert!(!is_letter || self.purges, "the dead letter {number} is lost: {task:?}");
            if was_accepted {
                self.tasks[number].forgotten_us.get_or_insert(now_us);
            }
            return;
        };
        self.accepted(number, view.id, now_us);
        let end = match view.status {
            TaskStatus::Done => End::Done(view.result.clone().unwrap_or_default()),
            TaskStatus::Dead => End::Dead,
            TaskStatus::Cancelled => End::Cancelled,
            TaskStatus::Queued | TaskStatus::Delayed | TaskStatus::Running => {
                let task = &self.tasks[number];
                let ended = task.ended.as_ref().filter(|(at, _)| *at <= began_us);
                let may_go_on =
                    task.may_be_requeued && matches!(ended, None | Some((_, End::Dead)));
                let was_forgotten = task.forgotten_us.is_some_and(|at| at <= began_us);
                assert!(
                    !was_forgotten && (ended.is_none() || may_go_on),
                    "task {number} had ended and is {:?} again: {task:?}",
                    view.status
                );
                return;
            }
        };
        let task = &mut self.tasks[number];
        let is_old_death = end == End::Dead && task.may_be_requeued;
        task.rests |= is_old_death && self.nobody_requeues_since_us <= began_us;
        if !is_old_death {
            self.ended(number, end, now_us);
        }
    }

    /// Tasks of a partition that a list must show which began at a time.
    pub fn must_be_listed(&self, partition: u16, began_us: u64) -> impl Iterator<Item = TaskId> {
        self.tasks.iter().filter_map(move |task| {
            let id = task.id.filter(|id| id.partition == partition)?;
            let was_accepted = task.accepted_us.is_some_and(|at| at <= began_us);
            (was_accepted && !task.may_have_ended()).then_some(id)
        })
    }
}
