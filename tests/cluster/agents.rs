//! Agents that start on one node and are called from all.

use crate::{
    cluster::{Cluster, until},
    node::ANSWER_LIMIT,
};
use coreflow::client::{Client, ClientError, Params};
use std::time::{Duration, Instant};

/// Our goal for the time from a start until the agent has answered all nodes.
const GOAL: Duration = Duration::from_millis(300);
/// The number seven in MessagePack.
const SEVEN: [u8; 1] = [7];

/// Starts an agent on each node in turn and calls it by its name from every node; tells how long that took
/// at most.
pub fn are_called_from_everywhere(cluster: &Cluster, name: &str) -> String {
    let clients = cluster.nodes.iter().map(|node| node.connect().expect("it takes connections"));
    let mut clients: Vec<Client> = clients.collect();
    let mut times = Vec::new();
    for place in 0..clients.len() {
        let name = format!("{name}-{}", place + 1);
        let params = Params::new().str("type", "echo").str("name", &name);
        let began = Instant::now();
        let spawned = clients[place].call_within("agent.spawn", &params, ANSWER_LIMIT);
        spawned.unwrap_or_else(|why| panic!("{name} does not start: {why}"));
        for client in &mut clients {
            until(&format!("{name} answers every node"), || call(client, &name));
        }
        times.push(began.elapsed());
    }
    let worst = times.iter().max().expect("there are nodes");
    let goal = if *worst <= GOAL { "met" } else { "missed" };
    format!(
        "an agent that starts has answered all {} nodes after {} ms at most; goal {} ms: {goal}",
        clients.len(),
        worst.as_millis(),
        GOAL.as_millis()
    )
}

/// Whether an agent answers; `None` while its name is not known here.
fn call(client: &mut Client, name: &str) -> Option<()> {
    let params = Params::new().str("name", name).value("payload", &SEVEN);
    match client.call_within("agent.call", &params, ANSWER_LIMIT) {
        Ok(answer) => {
            let result = answer.get("result").and_then(|result| result.uint());
            assert_eq!(result, Some(7), "{name} says what it was told");
            Some(())
        }
        Err(ClientError::Refused(why)) if why.code == "not_found" => None,
        Err(why) => panic!("{name} cannot be called: {why}"),
    }
}
