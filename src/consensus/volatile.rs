//! What a shard writes down before it says that something happened.

use crate::{
    registry::TypeIndex,
    wire::{
        api::{Priority, TaskStatus},
        id::TaskId,
    },
};
use std::collections::VecDeque;

/// A record's place in the log, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// What is written down of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// It was submitted; once this is committed it is accepted.
    Submitted {
        /// Its name.
        id: TaskId,
        /// The agent type that runs it.
        type_index: TypeIndex,
        /// How urgent it is.
        priority: Priority,
        /// How long one attempt may take, milliseconds; 0 for the node's default.
        timeout_ms: u64,
        /// Attempts before it is dead; 0 for the node's default.
        max_attempts: u32,
        /// One MessagePack value.
        payload: &'a [u8],
    },
    /// It ended; once this is committed whoever waits is told.
    Ended {
        /// Its name.
        id: TaskId,
        /// How.
        status: TaskStatus,
        /// Its result or its last error.
        body: &'a [u8],
    },
}

/// A shard's log. Records are committed in the order in which they were appended.
pub trait TaskLog {
    /// Writes a record down; it may be committed at once or later.
    fn append(&mut self, record: Record<'_>) -> Position;

    /// The last record that will not be lost.
    fn committed(&self) -> Position;
}

/// A log that keeps nothing: what it is told is committed at once, and gone when the process
/// ends.
#[derive(Debug, Default)]
pub struct MemoryLog {
    last: Position,
}

impl TaskLog for MemoryLog {
    #[inline]
    fn append(&mut self, _: Record<'_>) -> Position {
        self.last.0 += 1;
        self.last
    }

    #[inline]
    fn committed(&self) -> Position {
        self.last
    }
}

/// What is to be done once the log has committed the record that stands for it.
#[derive(Debug)]
pub struct Pending<E> {
    events: VecDeque<(Position, E)>,
}

impl<E> Default for Pending<E> {
    fn default() -> Self {
        Self { events: VecDeque::new() }
    }
}

impl<E> Pending<E> {
    /// Adds what waits for a record; records come in the order of their positions.
    #[inline]
    pub fn push(&mut self, position: Position, event: E) {
        debug_assert!(self.events.back().is_none_or(|(last, _)| *last < position));
        self.events.push_back((position, event));
    }

    /// The next event whose record is committed.
    #[inline]
    pub fn pop(&mut self, committed: Position) -> Option<E> {
        match self.events.front() {
            Some((position, _)) if *position <= committed => {
                self.events.pop_front().map(|(_, event)| event)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_for_their_record_and_keep_their_order() {
        let mut pending = Pending::default();
        for position in [1, 2, 5] {
            pending.push(Position(position), position);
        }
        assert_eq!(pending.pop(Position(0)), None);
        assert_eq!(pending.pop(Position(2)), Some(1));
        assert_eq!(pending.pop(Position(2)), Some(2));
        assert_eq!(pending.pop(Position(4)), None);
        assert_eq!(pending.pop(Position(9)), Some(5));
    }

    #[test]
    fn the_memory_log_commits_at_once() {
        let mut log = MemoryLog::default();
        let id = TaskId { shard: 0, random: 7 };
        let end = Record::Ended { id, status: TaskStatus::Done, body: b"x" };
        let first = log.append(end);
        assert!(first > Position(0) && log.committed() == first);
        assert!(log.append(end) > first);
    }
}
