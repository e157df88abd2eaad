//! Submissions with keys, one after the other: what a node says of them, and which key is in which
//! partition.

use super::nodes::Nodes;
use crate::{
    bench::work::{REMOTE_TYPE, failed, write_payload},
    client::{Client, ClientError, Params, View},
    wire::id::TaskId,
};
use std::{io, time::Duration};

/// Bytes of a payload.
const BODY_BYTES: usize = 16;

/// Submits a task with a key; tasks of one key and number are the same.
///
/// # Errors
/// Whatever the node says, or that it says nothing.
pub fn submit(
    client: &mut Client,
    key: &str,
    number: u32,
    limit: Duration,
) -> Result<TaskId, ClientError> {
    let params = Params::new()
        .str("type", REMOTE_TYPE)
        .with("payload", |out| write_payload(out, number, BODY_BYTES))
        .str("key", key);
    let answer = client.call_within("task.submit", &params, limit)?;
    let id = answer.get("id").and_then(View::str).and_then(|id| id.parse().ok());
    id.ok_or(ClientError::Garbled("a task has no id"))
}

/// A key of each partition, in their order, with the task that stands for it.
///
/// # Errors
/// When a submission is refused.
pub fn of_partitions(nodes: &Nodes, partitions: usize) -> io::Result<Vec<(String, TaskId)>> {
    let mut client = nodes.connect(1)?;
    let mut found: Vec<Option<(String, TaskId)>> = vec![None; partitions];
    // Keys are spread by their hash: some dozens for each partition are far more than it takes.
    for number in 0..100 * partitions {
        let key = format!("probe-{number}");
        let id = submit(&mut client, &key, 0, super::super::work::LIMIT).map_err(failed)?;
        found[usize::from(id.partition)].get_or_insert((key, id));
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    let missing = || io::Error::other("a partition got none of many keys");
    found.into_iter().collect::<Option<_>>().ok_or_else(missing)
}
