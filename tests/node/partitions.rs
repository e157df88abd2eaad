//! Partitions outlive the number of cores that keep them.

use coreflow::{
    config::Config,
    node::{Node, NodeBuilder, gateway::Gateway},
    wire::{
        api::{TaskSpec, TaskStatus, TaskView},
        id::TaskId,
    },
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

const CONFIG: &str = "[[agent]]\ntype = \"echo\"\nkind = \"builtin\"\nmin = 4\nmax = 8\n\
                      [[agent]]\ntype = \"sha256\"\nkind = \"builtin\"\nmin = 4\nmax = 8\n\
                      [[agent]]\ntype = \"nobody\"\nkind = \"remote\"\n";

/// A folder that goes with the test.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("coreflow-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder can be made");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(folder: &Path, workers: &str) -> Node {
    start_with(folder, workers, &[])
}

/// A node whose log is kept small, with further keys.
pub(super) fn start_with(folder: &Path, workers: &str, keys: &[&str]) -> Node {
    let mut overrides = vec![
        format!("cores.workers={workers}"),
        format!("log.folder={:?}", folder.to_str().expect("the path is text")),
        "log.segment_mib=8".to_owned(),
        "log.keep_mib=32".to_owned(),
    ];
    overrides.extend(keys.iter().map(|key| key.to_string()));
    let config = Config::parse(CONFIG, "the test", &overrides).expect("the configuration is right");
    NodeBuilder::new(config).durable().start().expect("the node starts")
}

fn submit(node: &Node, agent_type: &str, key: Option<String>) -> TaskId {
    let payload = vec![7];
    let spec = TaskSpec { agent_type: agent_type.to_owned(), payload, key, ..TaskSpec::default() };
    let ids = node.handle().wait(move |gateway| gateway.submit(vec![spec]));
    ids.expect("there is room")[0]
}

fn task(node: &Node, id: TaskId, wait_ms: u64) -> TaskView {
    node.handle().wait(move |gateway| gateway.task(id, wait_ms)).expect("the task is known")
}

#[test]
fn tasks_and_keys_stay_where_they_are_when_the_cores_change() {
    let two = std::thread::available_parallelism().map_or(1, usize::from) >= 2;
    if !two {
        println!("skipped: there is one processor");
        return;
    }
    let scratch = Scratch::new("partitions");
    let key = |number: u32| Some(format!("key {number}"));
    let mut known = Vec::new();
    let mut waiting = Vec::new();
    // Begun on one core, on two, on one again: two partitions are left on one core, and the one
    // that keys belong to is the first.
    for workers in ["[0]", "[0, 1]", "[0]", "[0, 1]"] {
        let node = start(&scratch.0, workers);
        for (number, id) in (0..).zip(&known) {
            assert_eq!(submit(&node, "echo", key(number)), *id, "the key of task {number}");
        }
        for _ in 0..20 {
            known.push(submit(&node, "echo", key(known.len() as u32)));
            waiting.push(submit(&node, "nobody", None));
        }
        let ended: Vec<_> = known.iter().map(|id| task(&node, *id, 30_000).status).collect();
        assert_eq!(ended, vec![TaskStatus::Done; known.len()]);
        for id in &waiting {
            assert_eq!(task(&node, *id, 0).status, TaskStatus::Queued);
        }
        let partitions: BTreeSet<_> = waiting.iter().map(|id| id.partition).collect();
        assert_eq!(partitions.len(), if known.len() == 20 { 1 } else { 2 });
        assert!(known.iter().all(|id| id.partition == 0), "keys belong to the first partition");
        let filter = Default::default();
        let listed = node.handle().wait(move |gateway| gateway.tasks(filter, None, 1000));
        assert_eq!(listed.expect("tasks are listed").tasks.len(), known.len() + waiting.len());
        assert_eq!(node.drain(Duration::from_secs(10)), 0);
        node.shutdown().expect("the node stops");
    }
    // What waited is cancelled from one core, in both partitions.
    let node = start(&scratch.0, "[1]");
    for id in waiting {
        let cancelled = node.handle().wait(move |gateway| gateway.cancel(id));
        assert_eq!(cancelled, Ok(true));
    }
    node.shutdown().expect("the node stops");
}
