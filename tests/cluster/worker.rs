//! Workers: each is connected to one node, does what it is given, and says so.

use crate::{
    clients::{Shared, is_refusal},
    history::What,
    node::{ANSWER_LIMIT, Node},
};
use coreflow::{
    client::{Client, ClientError, Params, View},
    wire::{id::TaskId, msgpack::write},
};
use std::{thread, time::Duration};

/// Tasks that a worker takes at a time.
const TAKES: u64 = 8;
/// How long it waits for tasks.
const WAIT_MS: u64 = 200;
/// The pause before another connection to a node that is away.
const PAUSE: Duration = Duration::from_millis(20);

/// A task that was given out.
struct Leased {
    id: TaskId,
    lease: u64,
    key: u32,
}

/// Works for a node until the end of the test.
pub fn work(shared: &Shared, node: &Node) {
    while !shared.workers_end() {
        // A connection that is lost takes its leases along: the tasks go to somebody else.
        if work_while_connected(shared, node).is_err() {
            thread::sleep(PAUSE);
        }
    }
}

fn work_while_connected(shared: &Shared, node: &Node) -> Result<(), ClientError> {
    let mut client = node.connect()?;
    let types = |out: &mut Vec<u8>| {
        write::array(out, 1);
        write::str(out, "errand");
    };
    let register = Params::new().with("types", types).uint_if("capacity", Some(TAKES));
    client.call_within("worker.register", &register, ANSWER_LIMIT)?;
    let fetch = Params::new().uint_if("max", Some(TAKES)).uint_if("wait_ms", Some(WAIT_MS));
    while !shared.workers_end() {
        let answer = client.call_within("worker.fetch", &fetch, ANSWER_LIMIT)?;
        let tasks = answer.get("tasks").into_iter().flat_map(View::items).map(leased);
        let tasks: Vec<_> = tasks.map(|task| task.expect("a task has its fields")).collect();
        for task in tasks {
            complete(shared, &mut client, &task)?;
        }
    }
    Ok(())
}

fn leased(task: View<'_>) -> Option<Leased> {
    Some(Leased {
        id: task.get("id")?.str()?.parse().ok()?,
        lease: task.get("lease")?.uint()?,
        key: u32::try_from(task.get("payload")?.uint()? / 2).ok()?,
    })
}

/// Says that a task is done; fails when the connection is of no use any more.
fn complete(shared: &Shared, client: &mut Client, task: &Leased) -> Result<(), ClientError> {
    let params = Params::new()
        .str("id", &task.id.to_string())
        .uint_if("lease", Some(task.lease))
        .uint_if("result", Some(task.key.into()));
    let asked = shared.history.now();
    let (what, outcome) = match client.call_within("worker.complete", &params, ANSWER_LIMIT) {
        Ok(_) => (What::Completed(task.id), Ok(())),
        // Another attempt has it, or it has ended: nothing came of this.
        Err(error) if is_refusal(&error, &["stale_lease", "not_found"]) => return Ok(()),
        Err(error @ ClientError::Refused(_)) => {
            shared.note_refusal(&error);
            (What::MaybeCompleted, Ok(()))
        }
        Err(error) => (What::MaybeCompleted, Err(error)),
    };
    shared.history.add(task.key, asked, what);
    outcome
}
