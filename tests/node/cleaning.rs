//! What is remembered of a log whose oldest part was cleaned.

use super::partitions::{Scratch, start_with};
use coreflow::{
    consensus::{open, record::Record, recovery::Replayed},
    node::{Node, gateway::Gateway},
    wire::{
        api::{Error, TaskSpec, TaskStatus},
        id::TaskId,
    },
};
use std::time::Duration;

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 8 << 10;
/// Tasks that end before all others.
const EARLY: usize = 200;
/// Tasks behind them: several times what the log keeps.
const LATER: usize = 12_000;

/// Runs so many tasks to their ends; their names.
fn run(node: &Node, count: usize) -> Vec<TaskId> {
    let mut all = Vec::new();
    while all.len() < count {
        let mut payload = vec![7; PAYLOAD_BYTES];
        payload[..3].copy_from_slice(&[0xc5, 0x1f, 0xfd]);
        let agent_type = "sha256".to_owned();
        let spec = TaskSpec { agent_type, payload, ..TaskSpec::default() };
        let specs = vec![spec; 100];
        match node.handle().wait(move |gateway| gateway.submit(specs)) {
            Ok(ids) => all.extend(ids),
            Err(Error::Backpressure(ms)) => std::thread::sleep(Duration::from_millis(ms)),
            Err(error) => panic!("{error}"),
        }
    }
    for &id in &all {
        let view = node.handle().wait(move |gateway| gateway.task(id, 30_000));
        assert_eq!(view.expect("it is known").status, TaskStatus::Done);
    }
    all
}

#[test]
fn ended_tasks_are_known_as_long_as_they_are_retained_whatever_was_cleaned() {
    let scratch = Scratch::new("cleaning");
    let node = start_with(&scratch.0, "[0]", &["tasks.retained=100000"]);
    let early = run(&node, EARLY);
    let result = |node: &Node, id: TaskId| {
        node.handle().wait(move |gateway| gateway.task(id, 0)).map(|view| view.result)
    };
    let expected = result(&node, early[0]).expect("it is known");
    assert!(expected.as_ref().is_some_and(|result| result.len() > 60));
    let later = run(&node, LATER);
    assert_eq!(node.drain(Duration::from_secs(10)), 0);
    node.shutdown().expect("the node stops");

    let (mut bytes, mut copies) = (0, 0);
    let survey = open::inspect(&scratch.0, &mut |replayed| {
        if let Replayed::Record(_, _, record, _) = replayed {
            bytes += record.encoded_bytes();
            if let Record::Submitted { payload: [], .. } = record {
                copies += 1;
            }
        }
    });
    let end = survey.expect("it can be read").end.expect("it was written");
    assert!(end.first_generation > 1, "the log was cleaned");
    println!(
        "generation {}, from {} on: {bytes} bytes of records, {copies} ended tasks moved",
        end.generation, end.first_generation
    );
    let node = start_with(&scratch.0, "[0]", &["tasks.retained=100000"]);
    for id in early.iter().chain(&later) {
        assert_eq!(result(&node, *id).as_ref(), Ok(&expected), "{id}");
    }
    node.shutdown().expect("the node stops");
}
