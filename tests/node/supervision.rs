//! Children that die, flood, hang or never read: their tasks go back with the attempt counted, they
//! start again within limits, and the node goes on.

use super::{
    WAIT,
    exec::{ID, node_with, task},
    pools::{list, mark, total, until},
    tasks::{end_of, run, spec, submit},
};
use coreflow::{
    metrics::process::resident_bytes,
    node::Node,
    wire::{
        api::{TaskSpec, TaskStatus},
        msgpack::write,
    },
};
use std::{path::Path, process::Command, time::Duration, time::Instant};

/// Restarts that the tests allow.
const RESTARTS: u64 = 3;

fn node(script: &str) -> Node {
    node_with(script, &[&format!("agents.max_restarts={RESTARTS}")])
}

fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success(), "{pid} was not there");
}

/// A zombie is gone but for its parent's asking.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z"))
}

/// The process ids that children wrote to a file, one a line.
fn pids(file: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The node runs what has nothing to do with the bad child.
fn goes_on(node: &Node) {
    for n in 0..100 {
        let view = run(node, spec("echo", |out| write::uint(out, n)));
        assert_eq!(view.status, TaskStatus::Done, "{view:?}");
    }
}

/// The child has been started as often as it may be, and is not started again.
fn stays_within_its_restarts(node: &Node, starts: impl Fn() -> u64) {
    until("it has started as often as it may", || starts() == 1 + RESTARTS);
    goes_on(node);
    // The next pause would be 80 ms if it were not for the limit.
    let end = Instant::now() + Duration::from_millis(400);
    while Instant::now() < end {
        assert_eq!(starts(), 1 + RESTARTS, "it starts too often");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(total(node, |core| core.agents_restarted), RESTARTS);
}

#[test]
fn a_child_that_is_killed_costs_an_attempt_and_its_successor_answers() {
    let (file, gate) = (mark("killed"), mark("killed-gate"));
    let (pids_file, gate_file) = (file.display(), gate.display());
    // The second child finds the gate open.
    let node = node(&format!(
        r#"while read -r line; do {ID}; echo $$ >> {pids_file}
        while [ ! -e {gate_file} ]; do read -t 0.01 -u 9; done 9<> <(:)
        echo "{{\"id\":\"$id\",\"result\":$$}}"; done"#
    ));
    let id = submit(&node, vec![task(60_000, 3)]).unwrap()[0];
    until("the child works", || pids(&file).len() == 1);
    std::fs::write(&gate, "").unwrap();
    kill(pids(&file)[0]);
    let view = end_of(&node, id);
    assert_eq!(view.status, TaskStatus::Done, "{view:?}");
    if view.attempts == 2 {
        assert_eq!(pids(&file).len(), 2, "another child answered");
    }
    // An idle one that is killed is replaced too. The first one may have
    // answered before it died: then it is dying still, or gone.
    let idle = *pids(&file).last().unwrap();
    if idle != pids(&file)[0] {
        kill(idle);
    }
    until("both are gone", || pids(&file).into_iter().all(is_gone));
    until("another is there", || list(&node, "child").len() == 1);
    let view = run(&node, task(60_000, 3));
    // One that came before the death was noticed is tried again.
    assert_eq!(view.status, TaskStatus::Done, "{view:?}");
    assert!(view.attempts <= 2, "{view:?}");
    node.shutdown().unwrap();
    std::fs::remove_file(file).unwrap();
    std::fs::remove_file(gate).unwrap();
}

#[test]
fn a_child_that_dies_is_noticed_although_its_own_children_hold_its_output() {
    let mark = mark("orphan");
    let path = mark.display();
    let node = node(&format!(
        r#"while read -r line; do {ID}
        if [ ! -e {path} ]; then touch {path}; sleep 1000 & kill -9 $$; fi
        echo "{{\"id\":\"$id\",\"result\":1}}"; done"#
    ));
    let begun = Instant::now();
    let view = run(&node, task(2 * WAIT.as_millis() as u64, 2));
    assert_eq!((view.status, view.attempts), (TaskStatus::Done, 2), "{view:?}");
    assert!(begun.elapsed() < WAIT, "the timeout found it");
    node.shutdown().unwrap();
    std::fs::remove_file(mark).unwrap();
}

#[test]
fn a_child_that_exits_at_once_is_started_again_within_limits() {
    for status in [0, 7] {
        let starts = mark("exits");
        let node = node(&format!("echo $$ >> {}; exit {status}", starts.display()));
        stays_within_its_restarts(&node, || pids(&starts).len() as u64);
        // A task for it waits for a child that lives; it is not lost.
        let id = submit(&node, vec![task(60_000, 1)]).unwrap()[0];
        until("it waits", || total(&node, |core| core.tasks_queued) == 1);
        assert!(
            node.handle()
                .wait(move |gateway| {
                    use coreflow::node::gateway::Gateway;
                    gateway.cancel(id)
                })
                .unwrap()
        );
        node.shutdown().unwrap();
        std::fs::remove_file(starts).unwrap();
    }
}

#[test]
fn floods_of_garbage_cost_attempts_and_bounded_memory() {
    let before = resident_bytes();
    for flood in ["exec yes garbage", "exec cat /dev/zero", "exec yes ''"] {
        let node = node(&format!("read -r line; {flood}"));
        let view = run(&node, task(60_000, 3));
        assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 3), "{flood}: {view:?}");
        goes_on(&node);
        node.shutdown().unwrap();
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "memory grew by {grown} bytes");
}

#[test]
fn a_child_that_floods_before_it_has_a_task_is_started_again_within_limits() {
    let starts = mark("floods");
    let node = node(&format!("echo $$ >> {}; exec yes garbage", starts.display()));
    stays_within_its_restarts(&node, || pids(&starts).len() as u64);
    node.shutdown().unwrap();
    assert!(pids(&starts).into_iter().all(is_gone), "a child lives on");
    std::fs::remove_file(starts).unwrap();
}

#[test]
fn a_child_that_never_reads_is_killed_when_its_time_is_up() {
    let file = mark("deaf");
    let node = node(&format!("echo $$ >> {}; exec sleep 1000", file.display()));
    // More than a pipe holds, so that the node's write to the child never ends.
    let text = "x".repeat(500_000);
    let large = TaskSpec {
        timeout_ms: Some(200),
        max_attempts: Some(2),
        ..spec("child", |out| write::str(out, &text))
    };
    let view = run(&node, large);
    assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 2), "{view:?}");
    until("a third child has started", || pids(&file).len() == 3);
    until("the first two are gone", || pids(&file)[..2].iter().all(|pid| is_gone(*pid)));
    goes_on(&node);
    node.shutdown().unwrap();
    until("the third is gone", || pids(&file).into_iter().all(is_gone));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn what_a_child_says_after_its_time_changes_nothing() {
    let first = mark("late");
    let path = first.display();
    // The first child answers with 1, long after its attempt was given up.
    let node = node(&format!(
        r#"while read -r line; do {ID}; answer=2
        if [ ! -e {path} ]; then touch {path}; answer=1; sleep 2; fi
        echo "{{\"id\":\"$id\",\"result\":$answer}}"; done"#
    ));
    let view = run(&node, task(300, 5));
    assert_eq!(view.status, TaskStatus::Done, "{view:?}");
    assert!(view.attempts >= 2);
    assert_eq!(view.result.unwrap(), [2]);
    node.shutdown().unwrap();
    std::fs::remove_file(first).unwrap();
}
