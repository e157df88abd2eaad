//! A part of all tasks on the core that keeps it: its table, its log, and what is read back of
//! that.

use super::{
    backlog::Backlog,
    ledger::{Ledger, Logged},
};
use crate::{
    consensus::{Record, TaskLog, reader::CoreReader},
    task::{Failed, Key, Lease, TaskTable, Watcher},
    wire::api::{Error, Priority},
};

/// When to come back while the log has no room, milliseconds.
const LOG_RETRY_MS: u64 = 20;

/// What a partition begins with.
pub struct Beginning {
    /// Where it writes what must survive.
    pub log: TaskLog,
    /// Its tasks, as the log left them.
    pub table: TaskTable,
}

/// A partition.
pub(super) struct Partition {
    pub table: TaskTable,
    pub ledger: Ledger,
    /// What is read back of the log.
    pub backlog: Backlog,
}

impl Partition {
    /// A partition of a node that started at that Unix time, milliseconds.
    pub(super) fn new(begin: Beginning, reader: Option<CoreReader>, unix_ms: u64) -> Self {
        let ledger = Ledger::new(begin.log, unix_ms);
        Self { table: begin.table, ledger, backlog: Backlog::new(reader) }
    }

    pub(super) fn reserve(
        &mut self,
        now_ms: u64,
        count: u32,
        priority: Priority,
        keys: &[(String, u64)],
    ) -> Result<(), Error> {
        if !self.ledger.has_room() {
            self.table.count_refused(count as usize);
            return Err(Error::Backpressure(LOG_RETRY_MS));
        }
        for (key, body_hash) in keys {
            let key = Key { bytes: key.as_bytes(), body_hash: *body_hash };
            if self.table.conflicts(now_ms, key) {
                return Err(key_conflict());
            }
        }
        self.table.reserve(now_ms, count as usize, priority)
    }

    /// Whether the log takes what must go there.
    #[inline]
    pub(super) fn has_room_for(&mut self, transient: bool, reserved: bool) -> Result<(), Error> {
        if transient || self.ledger.has_room() {
            return Ok(());
        }
        if reserved {
            self.table.release(1);
        }
        self.table.count_refused(1);
        Err(Error::Backpressure(LOG_RETRY_MS))
    }

    /// Tasks that the node waits for before it ends; with a durable log those that run or wait for
    /// the log.
    pub(super) fn unfinished(&self) -> u64 {
        match self.ledger.is_durable() {
            true => self.table.counters().running + self.ledger.pending() as u64,
            false => self.table.unended() as u64,
        }
    }

    /// Writes a task's end to the log; it is told when the log has committed it.
    pub(super) fn log_end(&mut self, key: u32, now_ms: u64) {
        if self.table.is_transient(key) {
            return self.ledger.at_once(Logged::Ended { key });
        }
        let (id, status, body) = self.table.end_of(key);
        let attempts = self.table.attempts(key);
        let ended_unix_ms = self.ledger.unix_ms(now_ms);
        let record = Record::Ended { id, status, attempts, ended_unix_ms, body };
        self.ledger.append(record, Logged::Ended { key });
    }

    /// Tells who ended an attempt when what came of it is committed.
    pub(super) fn told_when_committed(&mut self, lease: Lease, asker: Watcher, place: u32) {
        let random = self.table.id(lease.key).random;
        self.ledger.after_all(Logged::Told { random, asker, place });
    }

    /// Ends an attempt; `None`, and nothing is changed, when the task has gone on without it.
    pub(super) fn end_attempt(
        &mut self,
        now_ms: u64,
        lease: Lease,
        result: Result<&[u8], (&str, bool)>,
    ) -> Option<Failed> {
        let ended = match result {
            Ok(result) => self.table.complete(lease, result).map(|()| Failed::Last),
            Err((error, retry)) => self.table.fail(lease, now_ms, error, retry),
        };
        let ended = ended.ok()?;
        if ended == Failed::Last {
            self.log_end(lease.key, now_ms);
        }
        Some(ended)
    }

    /// Tells of the tasks that had to make room.
    #[inline]
    pub(super) fn end_evicted(&mut self) {
        while let Some(key) = self.table.next_evicted() {
            self.ledger.at_once(Logged::Ended { key });
        }
    }
}

/// A key stands for another task.
pub(super) fn key_conflict() -> Error {
    Error::Conflict("key: another task was submitted with it before".into())
}
