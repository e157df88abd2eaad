//! The log of shards that do not use [`log::TaskLog`](super::log::TaskLog) yet: it keeps nothing.

use super::log::Position;
use crate::{
    registry::TypeIndex,
    wire::{
        api::{Priority, TaskStatus},
        id::TaskId,
    },
};

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

#[cfg(test)]
mod tests {
    use super::*;

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
