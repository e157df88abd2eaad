//! The table as a whole.

mod agreed;
mod backlog;
mod letters;
mod life;
mod limits;
mod model;
mod replay;
mod world;

use super::*;
use crate::{
    config::DropPolicy,
    wire::{
        api::{Error, Priority, TaskStatus, TaskView},
        id::TaskId,
    },
};

const ORIGIN: Origin =
    Origin { partition: 0, first_token: 1, durable: false, zero_unix_ms: 1_000_000, among: None };

const LIMITS: TableLimits = TableLimits {
    queue_primary: 6,
    queue_overflow: 2,
    queue_bytes: 6 * entry::Entry::BYTES,
    hot_least: 4,
    retained: 5,
    retained_bytes: 1_000,
    max_payload_bytes: 400,
    max_attempts: 3,
    timeout_ms: 1_000,
    ageing_ms: 1_000,
    retry: RetryPolicy { base_ms: 0, max_ms: 0 },
    key_ttl_ms: 5_000,
    keys_max: 3,
    dead_max: 3,
    drop_policy: DropPolicy::Reject,
};

fn submission(random: u128, payload: &[u8]) -> Submission<'_> {
    Submission {
        random,
        type_index: 0,
        priority: Priority::Normal,
        payload,
        long: None,
        timeout_ms: 0,
        max_attempts: 0,
        delay_ms: 0,
        key: None,
        transient: false,
        reserved: false,
        watcher: None,
    }
}

/// The key of a submission that is a new task.
fn new(submitted: Result<Submitted, Error>) -> u32 {
    match submitted {
        Ok(Submitted::New(key)) => key,
        other => panic!("{other:?}"),
    }
}

fn accepted(table: &mut TaskTable, random: u128) -> u32 {
    let key = new(table.submit(0, submission(random, b"p")));
    table.accepted(key, 0, None);
    key
}

fn view(table: &TaskTable, random: u128) -> Option<TaskView> {
    table.view(random, usize::MAX, |type_index| format!("type {type_index}"))
}

fn status(table: &TaskTable, random: u128) -> Option<TaskStatus> {
    view(table, random).map(|view| view.status)
}

/// Lets a task die at its next attempt.
fn kill(table: &mut TaskTable, now_ms: u64) -> u32 {
    let key = table.next(0).unwrap();
    let lease = table.start(key, now_ms);
    assert_eq!(table.fail(lease, now_ms, "broken", false), Ok(Failed::Last));
    table.ended(key);
    key
}
