//! Tasks on one node: their ends, their order, their limits.

use super::{WAIT, agents, builder, config, receive};
use coreflow::{
    config::Config,
    node::{AgentOptions, Node, NodeBuilder, gateway::Gateway},
    shard::{
        agent::{Agent, Outcome, Task},
        context::Context,
    },
    wire::{
        api::{Error, Priority, TaskSpec, TaskStatus, TaskView},
        id::TaskId,
        msgpack::write,
    },
};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

pub fn spec(agent_type: &str, payload: impl FnOnce(&mut Vec<u8>)) -> TaskSpec {
    let mut bytes = Vec::new();
    payload(&mut bytes);
    TaskSpec { agent_type: agent_type.into(), payload: bytes, ..TaskSpec::default() }
}

pub fn submit(node: &Node, specs: Vec<TaskSpec>) -> Result<Vec<TaskId>, Error> {
    node.handle().wait(move |gateway| gateway.submit(specs))
}

pub fn end_of(node: &Node, id: TaskId) -> TaskView {
    let wait_ms = WAIT.as_millis() as u64;
    let view = node.handle().wait(move |gateway| gateway.task(id, wait_ms)).unwrap();
    assert!(view.status.is_ended(), "{view:?}");
    view
}

pub fn run(node: &Node, spec: TaskSpec) -> TaskView {
    end_of(node, submit(node, vec![spec]).unwrap()[0])
}

fn builtin(overrides: &[&str]) -> Node {
    let text = "[[agent]]\ntype = \"echo\"\nkind = \"builtin\"\n\
                [[agent]]\ntype = \"sleep\"\nkind = \"builtin\"\nmin = 1\nmax = 1\nmax_tasks = 1\n\
                [[agent]]\ntype = \"sha256\"\nkind = \"builtin\"\n";
    let overrides: Vec<String> = overrides.iter().map(|word| word.to_string()).collect();
    let config = Config::parse(text, "the test", &overrides).unwrap();
    NodeBuilder::new(config).start().unwrap()
}

#[test]
fn builtin_agents_run_tasks_and_their_results_come_back() {
    let node = builtin(&[]);
    let view = run(&node, spec("echo", |out| write::str(out, "hello")));
    assert_eq!((view.status, view.attempts), (TaskStatus::Done, 1));
    assert_eq!(view.result.unwrap(), b"\xa5hello");
    let view = run(&node, spec("sha256", |out| write::str(out, "abc")));
    assert!(view.result.unwrap().ends_with(b"f20015ad"));
    let view = run(&node, spec("sleep", |out| write::uint(out, 5)));
    assert_eq!(view.status, TaskStatus::Done);
    let view = run(&node, spec("sleep", |out| write::str(out, "long")));
    assert_eq!(view.status, TaskStatus::Dead);
    assert!(view.error.unwrap().contains("payload"));
    let unknown = submit(&node, vec![spec("nobody", write::nil)]).unwrap_err();
    assert!(matches!(unknown, Error::NotFound(_)), "{unknown}");
    node.shutdown().unwrap();
}

#[test]
fn many_tasks_end_once_each_with_their_own_result() {
    let node = builtin(&[]);
    let mut ids = HashSet::new();
    for round in 0..20_u64 {
        let specs = (0..1000).map(|n| spec("echo", |out| write::uint(out, round * 1000 + n)));
        let submitted = submit(&node, specs.collect()).unwrap();
        for (n, id) in (0..).zip(submitted) {
            let mut expected = Vec::new();
            write::uint(&mut expected, round * 1000 + n);
            assert_eq!(end_of(&node, id).result.unwrap(), expected);
            assert!(ids.insert(id), "two tasks have one id");
        }
    }
    node.shutdown().unwrap();
}

#[test]
fn a_submission_beyond_the_queue_is_refused_as_a_whole_with_a_time_to_come_back() {
    let node = builtin(&["tasks.queue_primary=8", "tasks.queue_overflow=2"]);
    let cores = node.topology().workers.len();
    let sleeps = |count| (0..count).map(|_| spec("sleep", |out| write::uint(out, 50))).collect();
    let too_many = submit(&node, sleeps(11 * cores)).unwrap_err();
    assert!(matches!(too_many, Error::TooLarge(_) | Error::Backpressure(_)), "{too_many}");
    let mut accepted = Vec::new();
    let deadline = Instant::now() + WAIT;
    let after_ms = loop {
        assert!(Instant::now() < deadline, "the queue takes everything");
        match submit(&node, sleeps(1)) {
            Ok(ids) => accepted.extend(ids),
            Err(Error::Backpressure(after_ms)) => break after_ms,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(after_ms >= 1, "a client that comes back at once would be refused again");
    assert!(accepted.len() >= 10, "{} were accepted", accepted.len());
    for id in accepted {
        assert_eq!(end_of(&node, id).status, TaskStatus::Done);
    }
    node.shutdown().unwrap();
}

#[test]
fn a_cancelled_task_ends_whether_it_waits_or_runs() {
    let node = builtin(&[]);
    let long = || spec("sleep", |out| write::uint(out, 60_000));
    let ids = submit(&node, (0..6).map(|_| long()).collect()).unwrap();
    for id in ids {
        assert!(node.handle().wait(move |gateway| gateway.cancel(id)).unwrap());
        assert_eq!(end_of(&node, id).status, TaskStatus::Cancelled);
        assert!(!node.handle().wait(move |gateway| gateway.cancel(id)).unwrap(), "it had ended");
    }
    node.shutdown().unwrap();
}

#[test]
fn an_attempt_that_takes_too_long_is_repeated_and_then_the_task_is_dead() {
    let node = builtin(&[]);
    let slow = TaskSpec {
        timeout_ms: Some(50),
        max_attempts: Some(2),
        ..spec("sleep", |out| write::uint(out, 60_000))
    };
    let view = run(&node, slow);
    assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 2));
    assert!(view.error.unwrap().contains("timeout"));
    node.shutdown().unwrap();
}

/// Notes the order in which its tasks come; panics at the first attempt of those that say so.
struct Clerk {
    order: mpsc::Sender<u8>,
    panics: Arc<AtomicUsize>,
}

impl Agent for Clerk {
    fn on_task(&mut self, task: &Task<'_>, result: &mut Vec<u8>, _: &mut Context<'_>) -> Outcome {
        if task.payload == [99] && task.attempt == 1 {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("a panic that is part of the test");
        }
        self.order.send(task.payload[0]).unwrap();
        write::nil(result);
        Outcome::Done
    }
}

#[test]
fn urgent_tasks_come_first_and_a_panic_costs_an_attempt() {
    let (order, orders) = mpsc::channel();
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = panics.clone();
    let one = AgentOptions { min: 1, cores: vec![0], ..AgentOptions::default() };
    let node = NodeBuilder::new(config(&[]))
        .agent("clerk", one, move || Clerk { order: order.clone(), panics: counted.clone() })
        .start()
        .unwrap();
    agents(&node, "clerk", 1);
    let with =
        |priority, number| TaskSpec { priority, ..spec("clerk", |out| write::uint(out, number)) };
    let specs = vec![
        with(Priority::Low, 1),
        with(Priority::Normal, 2),
        with(Priority::Critical, 3),
        with(Priority::High, 4),
        with(Priority::Normal, 5),
    ];
    submit(&node, specs).unwrap();
    let came: Vec<u8> = (0..5).map(|_| receive(&orders)).collect();
    assert_eq!(came, [3, 4, 2, 5, 1]);
    let view = run(&node, spec("clerk", |out| write::uint(out, 99)));
    assert_eq!((view.status, view.attempts), (TaskStatus::Done, 2));
    assert_eq!(panics.load(Ordering::SeqCst), 1);
    node.shutdown().unwrap();
}

#[test]
fn a_node_stops_with_work_in_flight() {
    let node = builder(&[]).start().unwrap();
    node.shutdown().unwrap();
    let node = builtin(&[]);
    let specs = (0..100).map(|_| spec("sleep", |out| write::uint(out, 60_000)));
    submit(&node, specs.collect()).unwrap();
    assert_eq!(node.drain(std::time::Duration::from_millis(20)), 100);
    node.shutdown().unwrap();
}
