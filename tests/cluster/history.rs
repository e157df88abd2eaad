//! What clients asked and were answered, on one clock: an operation is somewhere between the two.

use coreflow::wire::id::TaskId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

/// A key's number.
pub type Key = u32;
/// Two submitters may want different tasks under one key.
pub type Variant = u8;

/// How a task is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It waits or runs.
    Open,
    /// It was done.
    Done,
    /// It was cancelled.
    Cancelled,
}

/// What was done with a key, and came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A submission that was taken.
    Submitted(Variant, TaskId),
    /// A submission that found another variant's task.
    Conflicted(Variant),
    /// The task was seen.
    Seen(TaskId, Phase),
    /// A task that had been acknowledged was not known.
    Missed(TaskId),
    /// A cancellation that found the task ended.
    CancelledTooLate,
    /// A worker's end of the task that was taken.
    Completed(TaskId),
    /// A submission without an answer: it took effect, at any time since, or not.
    MaybeSubmitted(Variant),
    /// The same for a cancellation. One that was answered is no more than that: a node answers
    /// before the end is committed.
    MaybeCancelled,
    /// The same for a worker's end.
    MaybeCompleted,
}

impl What {
    /// Whether it may have had no effect.
    pub fn is_uncertain(self) -> bool {
        matches!(self, Self::MaybeSubmitted(_) | Self::MaybeCancelled | Self::MaybeCompleted)
    }
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// When it was asked, nanoseconds of the test.
    pub asked: u64,
    /// When it was answered; the end of all time when it was not.
    pub answered: u64,
    pub what: What,
}

/// All operations, by key.
pub struct History {
    began: Instant,
    keys: Mutex<BTreeMap<Key, Vec<Operation>>>,
}

impl History {
    pub fn new() -> Self {
        Self { began: Instant::now(), keys: Mutex::default() }
    }

    /// The time, to be taken before something is asked.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Something that was asked at `asked` is over.
    pub fn add(&self, key: Key, asked: u64, what: What) {
        let answered = if what.is_uncertain() { u64::MAX } else { self.now() };
        let mut keys = self.keys();
        let operations = keys.entry(key).or_default();
        // Of the same that is uncertain the first one says all: it may take effect at any time, and
        // a second effect would change nothing.
        let says_nothing = |it: &Operation| it.what == what && it.asked <= asked;
        if what.is_uncertain() && operations.iter().any(says_nothing) {
            return;
        }
        operations.push(Operation { asked, answered, what });
    }

    /// All keys with their operations.
    pub fn keys(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<Operation>>> {
        self.keys.lock().expect("no client panics with it")
    }

    /// The tasks that were acknowledged, by key.
    pub fn acknowledged(&self) -> BTreeMap<Key, TaskId> {
        let id = |operations: &[Operation]| {
            operations.iter().find_map(|it| match it.what {
                What::Submitted(_, id) => Some(id),
                _ => None,
            })
        };
        self.keys().iter().filter_map(|(key, all)| Some((*key, id(all)?))).collect()
    }
}
