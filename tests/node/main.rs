//! A whole node through its public interface: real cores, real rings, real children.

mod cleaning;
mod exec;
mod facts;
mod far;
mod far_cuts;
mod far_offers;
mod far_proofs;
mod far_said;
mod lending;
mod lending_edges;
mod lending_types;
mod limits;
mod messages;
mod partitions;
mod pools;
mod shared;
mod supervision;
mod tasks;

use coreflow::{
    config::Config,
    node::{AgentOptions, Node, NodeBuilder, gateway::Gateway},
    wire::{
        api::Error,
        id::{AgentId, CoreIndex},
    },
};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

/// No test takes this long unless something is lost.
const WAIT: Duration = Duration::from_secs(60);

/// A configuration without agents, with keys overridden.
fn config(overrides: &[&str]) -> Config {
    let overrides: Vec<String> = overrides.iter().map(|word| word.to_string()).collect();
    Config::parse("", "the test", &overrides).expect("the test's keys are right")
}

fn builder(overrides: &[&str]) -> NodeBuilder {
    NodeBuilder::new(config(overrides))
}

/// The last worker core: another one than the first, where there are two.
fn far_core() -> CoreIndex {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // Of three and more, the last belongs to the raft group.
    if processors == 2 { 1 } else { processors.saturating_sub(2) as CoreIndex }
}

fn on_core(core: CoreIndex) -> AgentOptions {
    AgentOptions { cores: vec![core], ..AgentOptions::default() }
}

/// The agents of a type, once there are as many as expected and every core knows them.
fn agents(node: &Node, agent_type: &str, count: usize) -> Vec<AgentId> {
    let deadline = Instant::now() + WAIT;
    let mut complete = 0;
    loop {
        let name = agent_type.to_owned();
        let listed = node.handle().wait(move |gateway| gateway.agents(Some(name)));
        let listed = listed.expect("the node lists its agents");
        complete = if listed.len() == count { complete + 1 } else { 0 };
        if complete == 2 * node.topology().workers.len() {
            return listed.into_iter().map(|agent| agent.id).collect();
        }
        assert!(Instant::now() < deadline, "{} of {count} agents of {agent_type}", listed.len());
    }
}

/// Sends, and comes back when the node advises it because the way is full.
fn send(node: &Node, id: AgentId, payload: &[u8]) {
    let (handle, deadline) = (node.handle(), Instant::now() + WAIT);
    loop {
        let payload = payload.to_vec();
        match handle.wait(move |gateway| gateway.send(id, payload)) {
            Err(Error::Backpressure(retry_after_ms)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(retry_after_ms));
            }
            sent => return sent.expect("the way becomes free"),
        }
    }
}

fn receive<T>(from: &Receiver<T>) -> T {
    match from.recv_timeout(WAIT) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("nothing came: something was lost"),
        Err(RecvTimeoutError::Disconnected) => panic!("the agents ended without a word"),
    }
}
