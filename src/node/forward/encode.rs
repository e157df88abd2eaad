//! What travels between nodes that forward: parameters of requests, and their answers.
//!
//! The requests are those of clients under names that begin with `here.`: the node that takes one
//! does it itself or refuses it, so that nothing is forwarded twice.

use crate::{
    client::{Params, View},
    wire::{
        api::{
            Completion, Error, Failure, Guest, Priority, Ran, TaskFilter, TaskSpec, TaskStatus,
            TaskView,
        },
        id::TaskId,
        msgpack::write,
    },
};

/// The parameters of a submission.
pub fn task(spec: &TaskSpec) -> Params {
    let mut params = Params::new().str("type", &spec.agent_type).value("payload", &spec.payload);
    if spec.priority != Priority::default() {
        params = params.str("priority", spec.priority.name());
    }
    if spec.delay_ms > 0 {
        params = params.uint_if("delay_ms", Some(spec.delay_ms));
    }
    if spec.transient {
        params = params.bool("durable", false);
    }
    params
        .uint_if("timeout_ms", spec.timeout_ms)
        .uint_if("max_attempts", spec.max_attempts.map(u64::from))
        .str_if("key", spec.key.as_deref())
}

/// The parameters of a submission of several tasks.
pub fn batch<'a>(specs: impl ExactSizeIterator<Item = &'a TaskSpec>) -> Params {
    Params::new().with("tasks", |out| {
        write::array(out, specs.len());
        specs.for_each(|spec| task(spec).write(out));
    })
}

/// The parameters of a request that names a task.
pub fn only_id(id: TaskId) -> Params {
    Params::new().str("id", &id.to_string())
}

/// The parameters of a question for a task.
pub fn question(id: TaskId, wait_ms: u64, result_bytes: usize) -> Params {
    only_id(id).uint_if("wait_ms", Some(wait_ms)).uint_if("result_bytes", Some(result_bytes as u64))
}

/// The parameters of a question for a part of a partition's tasks.
pub fn part(partition: u16, filter: &TaskFilter, from: u64, max: u32) -> Params {
    Params::new()
        .uint_if("partition", Some(partition.into()))
        .uint_if("from", Some(from))
        .uint_if("max", Some(max.into()))
        .str_if("status", filter.status.map(TaskStatus::name))
        .str_if("type", filter.agent_type.as_deref())
}

/// How a worker ends an attempt: the method and its parameters.
pub fn completion(completion: &Completion) -> (&'static str, Params) {
    let Completion { id, lease, outcome } = completion;
    let params = only_id(*id).uint_if("lease", Some(*lease));
    match outcome {
        Ok(result) => ("here.worker.complete", params.value("result", result)),
        Err(failure) => {
            let params = params.str("error", &failure.error).bool("retry", failure.retry);
            ("here.worker.fail", params)
        }
    }
}

/// The parameters of a lease's extension.
pub fn extension(id: TaskId, lease: u64, extend_ms: u64) -> Params {
    only_id(id).uint_if("lease", Some(lease)).uint_if("ms", Some(extend_ms))
}

/// The parameters of an attempt that another node is to run.
pub fn run(agent_type: &str, guest: &Guest) -> Params {
    let Guest { id, lease, attempt, priority, timeout_ms, payload } = guest;
    only_id(*id)
        .uint_if("lease", Some(*lease))
        .str("type", agent_type)
        .uint_if("attempt", Some((*attempt).into()))
        .str("priority", priority.name())
        .uint_if("timeout_ms", Some(*timeout_ms))
        .value("payload", payload)
}

/// The parameters of an attempt's giving up.
pub fn stop(id: TaskId, lease: u64) -> Params {
    only_id(id).uint_if("lease", Some(lease))
}

/// How an attempt ended at another node.
pub fn ran(answer: &[u8]) -> Result<Ran, Error> {
    let answer = View::new(answer);
    if let Some((_, result)) = answer.fields().find(|(name, _)| *name == "result") {
        // A result may be nil.
        return Ok(Ok(result.bytes().to_vec()));
    }
    let error = answer.get("error").and_then(View::str).ok_or_else(strange)?.to_owned();
    let retry = answer.get("retry").and_then(View::bool).ok_or_else(strange)?;
    Ok(Err(Failure { error, retry }))
}

/// The id that a submission was answered.
pub fn id_of(answer: &[u8]) -> Result<TaskId, Error> {
    View::new(answer).get("id").and_then(parsed).ok_or_else(strange)
}

/// The ids that a submission of several tasks was answered.
pub fn ids_of(answer: &[u8], count: usize) -> Result<Vec<TaskId>, Error> {
    let ids = View::new(answer).get("ids").ok_or_else(strange)?;
    let ids: Option<Vec<_>> = ids.items().map(parsed).collect();
    ids.filter(|ids| ids.len() == count).ok_or_else(strange)
}

/// Whether a task was cancelled.
pub fn cancelled(answer: &[u8]) -> Result<bool, Error> {
    View::new(answer).get("cancelled").and_then(View::bool).ok_or_else(strange)
}

/// A task, as an answer shows it.
pub fn view(answer: &[u8]) -> Result<TaskView, Error> {
    view_of(View::new(answer)).ok_or_else(strange)
}

/// A part of a partition's tasks, and where the next one begins.
pub fn views(answer: &[u8]) -> Result<(Vec<TaskView>, Option<u64>), Error> {
    let answer = View::new(answer);
    let tasks: Option<Vec<_>> =
        answer.get("tasks").ok_or_else(strange)?.items().map(view_of).collect();
    Ok((tasks.ok_or_else(strange)?, answer.get("next").and_then(View::uint)))
}

fn view_of(task: View<'_>) -> Option<TaskView> {
    let text = |name| task.get(name).and_then(View::str);
    let result = task.fields().find(|(name, _)| *name == "result");
    Some(TaskView {
        id: task.get("id").and_then(parsed)?,
        agent_type: text("type")?.to_owned(),
        status: TaskStatus::from_name(text("status")?)?,
        priority: Priority::from_name(text("priority")?)?,
        attempts: task.get("attempts").and_then(View::uint)?.try_into().ok()?,
        node: task.get("node").and_then(View::uint),
        // A result may be nil.
        result: result.map(|(_, result)| result.bytes().to_vec()),
        error: text("error").map(str::to_owned),
    })
}

fn parsed(id: View<'_>) -> Option<TaskId> {
    id.str()?.parse().ok()
}

fn strange() -> Error {
    Error::Uncertain("the node that was asked gave an answer that is none".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(params: &Params) -> Vec<u8> {
        let mut bytes = Vec::new();
        params.write(&mut bytes);
        bytes
    }

    #[test]
    fn answers_that_are_none_are_errors_and_no_panic() {
        for bytes in [&[][..], &[0x80], &[0xc1], &[0x81, 0xa2, b'i', b'd', 1]] {
            assert!(matches!(id_of(bytes), Err(Error::Uncertain(_))));
            assert!(matches!(ids_of(bytes, 1), Err(Error::Uncertain(_))));
            assert!(matches!(view(bytes), Err(Error::Uncertain(_))));
            assert!(matches!(views(bytes), Err(Error::Uncertain(_))));
            assert!(matches!(cancelled(bytes), Err(Error::Uncertain(_))));
            assert!(matches!(ran(bytes), Err(Error::Uncertain(_))));
        }
        let id = TaskId { partition: 3, random: 7 };
        let one = Params::new().with("ids", |out| {
            write::array(out, 1);
            write::str(out, &id.to_string());
        });
        assert_eq!(ids_of(&written(&one), 1), Ok(vec![id]));
        assert!(ids_of(&written(&one), 2).is_err(), "a task without an id");
    }

    #[test]
    fn an_attempt_ends_with_a_result_or_says_whether_another_may_help() {
        let nil = Params::new().value("result", &[0xc0]);
        assert_eq!(ran(&written(&nil)), Ok(Ok(vec![0xc0])));
        for retry in [false, true] {
            let failed = Params::new().str("error", "no").bool("retry", retry);
            let failure = Failure { error: "no".into(), retry };
            assert_eq!(ran(&written(&failed)), Ok(Err(failure)));
        }
    }

    #[test]
    fn a_result_that_is_nil_is_a_result() {
        let id = TaskId { partition: 3, random: 7 };
        let state = only_id(id).str("type", "echo").str("status", "done").str("priority", "low");
        let state = state.uint_if("attempts", Some(2)).uint_if("node", Some(7));
        assert_eq!(view(&written(&state)).unwrap().result, None);
        let state = state.value("result", &[0xc0]);
        let view = view(&written(&state)).unwrap();
        assert_eq!((view.result, view.attempts, view.node), (Some(vec![0xc0]), 2, Some(7)));
        assert_eq!((view.id, view.priority), (id, Priority::Low));
    }
}
