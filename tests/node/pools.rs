//! Pools on real cores: they warm up, grow where tasks wait, and shrink when these are done.

use super::{
    WAIT, agents, config, receive,
    tasks::{end_of, run, spec, submit},
};
use coreflow::{
    config::Config,
    node::{AgentOptions, Node, NodeBuilder, gateway::Gateway},
    shard::{
        agent::{Agent, Outcome, Task},
        context::Context,
        handle::Lease,
    },
    wire::{
        api::{AgentState, AgentView, CoreStats, TaskSpec, TaskStatus},
        msgpack::write,
    },
};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

pub fn list(node: &Node, agent_type: &str) -> Vec<AgentView> {
    let name = agent_type.to_owned();
    node.handle().wait(move |gateway| gateway.agents(Some(name))).unwrap()
}

pub fn total(node: &Node, figure: fn(&CoreStats) -> u64) -> u64 {
    node.stats().cores.iter().map(figure).sum()
}

/// Looks until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A file of this test that does not exist.
pub fn mark(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("coreflow-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn a_pool_of_children_grows_to_max_on_all_cores_and_shrinks_to_min() {
    let gate = mark("pool-gate");
    let text = format!(
        "[[agent]]\ntype = \"child\"\nkind = \"exec\"\nmin = 1\nmax = 4\nmax_tasks = 1\n\
         idle_timeout_ms = 300\nwarmup_delay_ms = 0\ncommand = [\"bash\", \"-c\", '''\n\
         while read -r line; do id=${{line#*\\\"id\\\":\\\"}}; id=${{id%%\\\"*}}\n\
         while [ ! -e {} ]; do read -t 0.01 -u 9; done 9<> <(:)\n\
         echo \"{{\\\"id\\\":\\\"$id\\\",\\\"result\\\":1}}\"; done\n''']\n",
        gate.display()
    );
    let config = Config::parse(&text, "the test", &[]).unwrap();
    let node = NodeBuilder::new(config).start().unwrap();
    let (cores, mut ids) = (node.topology().workers.len(), Vec::new());
    until("four agents work", || {
        // A core starts an agent for a task of its own only: each must have some that wait.
        if node.stats().cores.iter().any(|core| core.tasks_queued < 2) {
            ids.extend(submit(&node, vec![spec("child", write::nil)]).unwrap());
        }
        list(&node, "child").iter().filter(|agent| agent.tasks == 1).count() == 4
    });
    let mut on_core = HashMap::new();
    for agent in list(&node, "child") {
        *on_core.entry(agent.id.core()).or_insert(0) += 1;
    }
    assert_eq!(on_core.len(), cores.min(4), "{on_core:?}");
    std::fs::write(&gate, "").unwrap();
    for id in ids {
        assert_eq!(end_of(&node, id).status, TaskStatus::Done);
    }
    until("one agent is left", || list(&node, "child").len() == 1);
    until("the stops are counted", || total(&node, |core| core.agents_stopped_idle) >= 3);
    // It still works, and the pool grows again from there.
    assert_eq!(run(&node, spec("child", write::nil)).status, TaskStatus::Done);
    node.shutdown().unwrap();
    std::fs::remove_file(gate).unwrap();
}

/// Starts until it is let, then does nothing but work.
struct Slow {
    may_start: Arc<AtomicBool>,
}

impl Agent for Slow {
    fn on_start(&mut self, context: &mut Context<'_>) {
        context.pause();
        context.set_timer(Duration::from_millis(1), 0);
    }

    fn on_timer(&mut self, _: u64, context: &mut Context<'_>) {
        match self.may_start.load(Ordering::SeqCst) {
            true => context.resume(),
            false => context.set_timer(Duration::from_millis(1), 0),
        }
    }

    fn on_task(&mut self, _: &Task<'_>, result: &mut Vec<u8>, _: &mut Context<'_>) -> Outcome {
        write::nil(result);
        Outcome::Done
    }
}

#[test]
fn an_agent_that_still_starts_says_so_and_gets_no_task() {
    let may_start = Arc::new(AtomicBool::new(false));
    let at_agent = may_start.clone();
    let one = AgentOptions { max: 1, ..AgentOptions::default() };
    let without_others = Config { agent: Vec::new(), ..config(&[]) };
    let node = NodeBuilder::new(without_others)
        .agent("slow", one, move || Slow { may_start: at_agent.clone() })
        .start()
        .unwrap();
    let state = || list(&node, "slow")[0].state;
    assert_eq!(state(), AgentState::Starting);
    let id = submit(&node, vec![spec("slow", write::nil)]).unwrap()[0];
    until("the task waits", || total(&node, |core| core.tasks_queued) == 1);
    assert_eq!(state(), AgentState::Starting);
    may_start.store(true, Ordering::SeqCst);
    assert_eq!(end_of(&node, id).attempts, 1);
    assert_eq!(state(), AgentState::Ready);
    until("the start is counted", || total(&node, |core| core.agents_started) == 1);
    node.shutdown().unwrap();
}

/// Holds its tasks until it is told to end them all.
struct Holder {
    told: mpsc::Sender<()>,
    may_end: Arc<AtomicBool>,
    held: Vec<Lease>,
}

impl Agent for Holder {
    fn on_task(&mut self, task: &Task<'_>, _: &mut Vec<u8>, context: &mut Context<'_>) -> Outcome {
        self.held.push(task.lease);
        self.told.send(()).unwrap();
        context.set_timer(Duration::from_millis(1), 0);
        Outcome::Later
    }

    fn on_timer(&mut self, _: u64, context: &mut Context<'_>) {
        if !self.may_end.load(Ordering::SeqCst) {
            return context.set_timer(Duration::from_millis(1), 0);
        }
        for lease in self.held.drain(..) {
            context.finish(lease, Ok(vec![0xc0]));
        }
    }
}

#[test]
fn no_agent_starts_while_a_warm_one_has_room() {
    let (told, begun) = mpsc::channel();
    let may_end = Arc::new(AtomicBool::new(false));
    let at_agents = may_end.clone();
    let options =
        AgentOptions { min: 2, max: 8, max_tasks: 3, cores: vec![0], ..AgentOptions::default() };
    let node = NodeBuilder::new(config(&[]))
        .agent("holder", options, move || Holder {
            told: told.clone(),
            may_end: at_agents.clone(),
            held: Vec::new(),
        })
        .start()
        .unwrap();
    agents(&node, "holder", 2);
    let tasks = |count: usize| -> Vec<TaskSpec> {
        (0..count).map(|_| spec("holder", write::nil)).collect()
    };
    let mut ids = submit(&node, tasks(6)).unwrap();
    (0..6).for_each(|_| receive(&begun));
    assert_eq!(list(&node, "holder").len(), 2, "two agents have room for six tasks");
    ids.extend(submit(&node, tasks(1)).unwrap());
    receive(&begun);
    assert_eq!(list(&node, "holder").len(), 3);
    ids.extend(submit(&node, tasks(20)).unwrap());
    (0..17).for_each(|_| receive(&begun));
    assert_eq!(list(&node, "holder").len(), 8, "as many as max");
    may_end.store(true, Ordering::SeqCst);
    for id in ids {
        assert_eq!(end_of(&node, id).status, TaskStatus::Done);
    }
    node.shutdown().unwrap();
}

#[test]
fn an_agent_that_is_stopped_has_a_successor_and_one_that_was_asked_for_has_none() {
    let one = AgentOptions { max: 3, ..AgentOptions::default() };
    let may_start = Arc::new(AtomicBool::new(true));
    let node = NodeBuilder::new(config(&[]))
        .agent("slow", one, move || Slow { may_start: may_start.clone() })
        .start()
        .unwrap();
    let first = agents(&node, "slow", 1)[0];
    let asked = node.handle().wait(|gateway| gateway.spawn("slow".into(), None)).unwrap();
    for id in [first, asked] {
        node.handle().wait(move |gateway| gateway.stop(id)).unwrap();
    }
    until("a successor is there", || {
        let ids: Vec<_> = list(&node, "slow").into_iter().map(|agent| agent.id).collect();
        ids.len() == 1 && ids[0] != first && ids[0] != asked
    });
    node.shutdown().unwrap();
}
