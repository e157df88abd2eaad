//! Agents in child processes: well-behaved ones and all the others.

use super::{
    WAIT,
    tasks::{run, spec, submit},
};
use coreflow::{
    config::Config,
    node::{Node, NodeBuilder, gateway::Gateway},
    wire::{
        api::{TaskSpec, TaskStatus, TaskView},
        msgpack::write,
    },
};
use std::time::Instant;

/// A node with one agent type "child" that runs a shell script for each line it reads.
fn node(script: &str) -> Node {
    node_with(script, &[])
}

/// The same with keys overridden; it also has agents of type "echo".
pub fn node_with(script: &str, overrides: &[&str]) -> Node {
    let text = format!(
        "[[agent]]\ntype = \"child\"\nkind = \"exec\"\nmin = 1\nmax = 1\n\
         command = [\"bash\", \"-c\", '''\n{script}\n''']\n\
         [[agent]]\ntype = \"echo\"\nkind = \"builtin\"\n"
    );
    let overrides: Vec<String> = overrides.iter().map(|word| word.to_string()).collect();
    let config = Config::parse(&text, "the test", &overrides).unwrap();
    NodeBuilder::new(config).start().unwrap()
}

/// Takes the id out of a task's line.
pub const ID: &str = r#"id=${line#*\"id\":\"}; id=${id%%\"*}"#;

pub fn task(timeout_ms: u64, attempts: u32) -> TaskSpec {
    TaskSpec {
        timeout_ms: Some(timeout_ms),
        max_attempts: Some(attempts),
        ..spec("child", |out| write::str(out, "hello"))
    }
}

fn run_with(script: &str, task: TaskSpec) -> TaskView {
    let node = node(script);
    let view = run(&node, task);
    node.shutdown().unwrap();
    view
}

#[test]
fn a_child_answers_tasks_one_after_the_other() {
    let script =
        format!(r#"while read -r line; do {ID}; echo "{{\"id\":\"$id\",\"result\":[$$]}}"; done"#);
    let node = node(&script);
    let results: Vec<_> = (0..50).map(|_| run(&node, task(60_000, 1)).result.unwrap()).collect();
    // One child, the same for all of them.
    assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
    node.shutdown().unwrap();
}

#[test]
fn a_child_says_why_and_whether_to_try_again() {
    let fail = |retry| {
        format!(
            r#"while read -r line; do {ID}; echo "{{\"id\":\"$id\",\"error\":\"no luck\",\"retry\":{retry}}}"; done"#
        )
    };
    let view = run_with(&fail(true), task(60_000, 3));
    assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 3));
    assert!(view.error.unwrap().contains("no luck"));
    let view = run_with(&fail(false), task(60_000, 3));
    assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 1));
}

#[test]
fn a_child_that_dies_costs_an_attempt_and_its_successor_answers() {
    // The first child leaves a mark and dies with the task in its hands.
    let mark = std::env::temp_dir().join(format!("coreflow-exec-{}", std::process::id()));
    let mark = mark.to_str().unwrap();
    for death in ["exit 3", "kill -9 $$"] {
        let _ = std::fs::remove_file(mark);
        let script = format!(
            r#"while read -r line; do {ID}
            if [ ! -e {mark} ]; then touch {mark}; {death}; fi
            echo "{{\"id\":\"$id\",\"result\":1}}"; done"#
        );
        let view = run_with(&script, task(60_000, 2));
        assert_eq!((view.status, view.attempts), (TaskStatus::Done, 2), "{death}: {view:?}");
    }
    std::fs::remove_file(mark).unwrap();
}

#[test]
fn a_death_is_noticed_although_a_child_of_the_child_holds_its_output() {
    let begun = Instant::now();
    let script = "sleep 1000 & read -r line; exit 3";
    let view = run_with(script, task(10 * WAIT.as_millis() as u64, 1));
    assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 1), "{view:?}");
    assert!(begun.elapsed() < WAIT, "only the timeout noticed it");
}

#[test]
fn nonsense_on_standard_output_is_a_failed_attempt() {
    for nonsense in ["echo nonsense", "printf '\\xff\\xfe\\n'", "echo '{\"id\":7}'"] {
        let view = run_with(&format!("while read -r line; do {nonsense}; done"), task(60_000, 1));
        assert_eq!(view.status, TaskStatus::Dead, "{nonsense}: {view:?}");
        assert!(view.error.is_some_and(|error| error.len() > 10));
    }
}

#[test]
fn a_child_that_floods_its_output_is_stopped_and_memory_stays_bounded() {
    let before = coreflow::metrics::process::resident_bytes();
    let view = run_with("read -r line; exec cat /dev/zero", task(60_000, 1));
    assert_eq!(view.status, TaskStatus::Dead, "{view:?}");
    let grown = coreflow::metrics::process::resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "memory grew by {grown} bytes");
}

#[test]
fn a_child_that_says_nothing_runs_into_its_timeout() {
    let begun = Instant::now();
    let view = run_with("while read -r line; do :; done", task(200, 2));
    assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 2));
    let error = view.error.unwrap();
    assert!(error.contains("timeout"), "{error}");
    assert!(begun.elapsed() < WAIT);
}

#[test]
fn what_a_child_writes_to_standard_error_disturbs_nobody() {
    let script = format!(
        r#"while read -r line; do {ID}; head -c 1000000 /dev/zero >&2
        echo "{{\"id\":\"$id\",\"result\":1}}"; done"#
    );
    assert_eq!(run_with(&script, task(60_000, 1)).status, TaskStatus::Done);
}

#[test]
fn a_program_that_is_not_there_leaves_the_node_serving() {
    let text = "[[agent]]\ntype = \"child\"\nkind = \"exec\"\nmin = 1\n\
                command = [\"/no/such/program\"]\n[[agent]]\ntype = \"echo\"\nkind = \"builtin\"\n";
    let config = Config::parse(text, "the test", &[]).unwrap();
    let node = NodeBuilder::new(config).start().unwrap();
    let view = run(&node, spec("echo", write::nil));
    assert_eq!(view.status, TaskStatus::Done);
    // A task for it waits; it can be cancelled.
    let id = submit(&node, vec![task(60_000, 1)]).unwrap()[0];
    assert!(node.handle().wait(move |gateway| gateway.cancel(id)).unwrap());
    node.shutdown().unwrap();
}

#[test]
fn children_do_not_outlive_their_node() {
    let script = format!(
        r#"sleep 1000 & while read -r line; do {ID}; echo "{{\"id\":\"$id\",\"result\":$!}}"; done"#
    );
    let node = node(&script);
    let view = run(&node, task(60_000, 1));
    let pid = rmp_serde::from_slice::<u32>(&view.result.unwrap()).unwrap();
    let of_child = format!("/proc/{pid}/stat");
    assert!(std::fs::read_to_string(&of_child).is_ok(), "the child's child runs");
    node.shutdown().unwrap();
    let deadline = Instant::now() + WAIT;
    // A zombie is gone but for its parent's asking.
    while std::fs::read_to_string(&of_child).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(Instant::now() < deadline, "a child's child lives on");
        std::thread::yield_now();
    }
}
