//! More agents than a node can tell others of: which are left out, and when they are told.

use super::{
    WAIT,
    far::{Places, stop},
};
use coreflow::{
    node::{AgentOptions, Node, gateway::Gateway, local::LocalGateway},
    shard::agent::Agent,
    wire::{
        id::{AgentAddress, AgentId},
        neighbours::AgentFilter,
    },
};
use std::{
    collections::BTreeSet,
    rc::Rc,
    time::{Duration, Instant},
};

/// It is there, and that is all.
struct Extra;

impl Agent for Extra {}

/// All agents of the first node that a node knows.
fn known(node: &Node) -> BTreeSet<AgentId> {
    let (mut known, mut after) = (BTreeSet::new(), None::<AgentAddress>);
    loop {
        let filter =
            AgentFilter { agent_type: Some("extra".into()), after, ..AgentFilter::default() };
        let part = async move |gateway: Rc<LocalGateway>| {
            Ok(gateway.agents_everywhere(&AgentFilter { max: 1_000, ..filter }))
        };
        let part = node.handle().wait(part).expect("it answers").expect("it has neighbours");
        let Some(last) = part.last() else { return known };
        after = Some(last.address);
        known.extend(part.iter().map(|agent| agent.address.agent));
    }
}

#[test]
fn agents_that_are_too_many_to_be_told_of_are_told_of_when_others_are_gone() {
    // What gossip tells of a node are 16,384 entries; the node has some builtin agents beside these.
    const AGENTS: usize = 16_600;
    let places = Places::of("facts", 2);
    let many = AgentOptions { min: 0, max: AGENTS, ..AgentOptions::default() };
    let near = places.start(1, |builder| builder.agent("extra", many, || Extra));
    let far = places.start(2, |builder| builder);
    let spawn = async |gateway: Rc<LocalGateway>| {
        let mut agents = Vec::new();
        for _ in 0..AGENTS {
            agents.push(gateway.clone().spawn("extra".into(), None).await?);
        }
        Ok(agents)
    };
    let agents = near.handle().wait(spawn).expect("there is room for them");
    let deadline = Instant::now() + WAIT;
    let wait_until = |what: &str, holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let capacity = || {
        let neighbours = far.handle().wait(|gateway| async move { Ok(gateway.neighbours()) });
        let first = neighbours.expect("it answers").into_iter().find(|it| it.node == 1);
        first.map_or(0, |it| it.capacity)
    };
    let least = 16_200;
    wait_until("the other node knows many", &|| known(&far).len() >= least);
    wait_until("the other node knows how many there are", &|| capacity() >= AGENTS as u64);
    let told = known(&far).len();
    assert!((least..16_384).contains(&told), "{told} are told of, and room is left for types");
    // Now there is room for all: those that were left out are told.
    for agent in &agents[..400] {
        let agent = *agent;
        near.handle().wait(move |gateway| gateway.stop(agent)).expect("it is there");
    }
    let living: BTreeSet<AgentId> = agents[400..].iter().copied().collect();
    wait_until("all of them are known", &|| known(&far) == living);
    stop(near);
    stop(far);
}
