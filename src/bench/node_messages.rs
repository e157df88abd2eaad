//! `node_messages` and `node_call`: what agents of two nodes say to each other over one loopback
//! connection.
//!
//! Both nodes run in this process, each on a worker core of its own where there are two, and talk
//! through their sockets as nodes on two machines do. Messages: one sender to many receivers, as fast
//! as the way takes them. Calls: the next leaves when the last was answered.

use super::{
    Effort, Measured,
    cluster::nodes,
    inside,
    served::Scratch,
    swarm::{self, Round, Tally},
};
use crate::{
    config::{ClusterStart, Config, CoreSet, NodeEntry, Spin},
    metrics::Latency,
    node::{AgentOptions, Node, NodeBuilder, gateway::Gateway},
    shard::{
        agent::{Agent, Message, Reply},
        context::{Context, SendError},
    },
    wire::id::{AgentAddress, NodeId},
};
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

/// Bytes of a message.
const PAYLOAD_BYTES: usize = 64;
/// Agents that receive.
const AGENTS: u64 = 60;
/// Messages of one round, at full and at quick effort: multiples of the number of agents.
const MESSAGES: (u64, u64) = (6_000_000, 600_000);
/// Calls, at full and at quick effort.
const CALLS: (u64, u64) = (100_000, 10_000);
/// Calls before those that count.
const WARM_UP: u64 = 1_000;

/// Sends a round's messages to the receivers in turn.
struct Sender {
    round: Arc<Round>,
    receivers: Arc<OnceLock<Vec<AgentAddress>>>,
    next: u64,
    end: u64,
}

impl Agent for Sender {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        self.round.begin();
        self.next = 0;
        self.end = u64::from_le_bytes(message.payload()[..8].try_into().expect("8 bytes"));
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        let receivers = self.receivers.get().expect("they are known when a round begins");
        while self.next < self.end {
            let payload = swarm::payload(self.next);
            let to = receivers[(self.next % AGENTS) as usize];
            match context.send_to(to, &payload) {
                Ok(()) => self.next += 1,
                // Also while the first connection is made.
                Err(SendError::Full | SendError::NodeGone) => return context.request_turn(),
                Err(error) => panic!("the benchmark cannot send: {error}"),
            }
        }
    }
}

struct Receiver {
    round: Arc<Round>,
    quota: u64,
    count: u64,
    sum: u64,
}

impl Agent for Receiver {
    #[inline]
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        if let Some(to) = message.reply_to() {
            return context.reply(to, message.payload());
        }
        self.sum = self.sum.wrapping_add(swarm::sum(message.payload()));
        self.count += 1;
        if self.count == self.quota {
            self.round.finish(self.count, self.sum);
            (self.count, self.sum) = (0, 0);
        }
    }
}

/// Calls the first receiver again and again.
struct Caller {
    round: Arc<Round>,
    receivers: Arc<OnceLock<Vec<AgentAddress>>>,
    latency: Arc<Mutex<Latency>>,
    recorded: Latency,
    asked: Instant,
    answered: u64,
    total: u64,
}

impl Caller {
    fn ask(&mut self, context: &mut Context<'_>) {
        let receivers = self.receivers.get().expect("they are known when a round begins");
        self.asked = Instant::now();
        match context.call_to(receivers[0], &[7; PAYLOAD_BYTES], None) {
            Ok(_) => {}
            Err(SendError::Full | SendError::NodeGone) => context.request_turn(),
            Err(error) => panic!("the benchmark cannot call: {error}"),
        }
    }
}

impl Agent for Caller {
    fn on_message(&mut self, _: &Message<'_>, context: &mut Context<'_>) {
        self.round.begin();
        self.ask(context);
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        self.ask(context);
    }

    fn on_reply(&mut self, reply: &Reply<'_>, context: &mut Context<'_>) {
        assert_eq!(reply.answer, Ok(&[7; PAYLOAD_BYTES][..]), "another answer");
        self.answered += 1;
        if self.answered > WARM_UP {
            self.recorded.record(self.asked.elapsed().as_nanos() as u64);
        }
        if self.answered < self.total + WARM_UP {
            return self.ask(context);
        }
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.merge(&self.recorded);
        self.round.finish(self.answered, 0);
    }
}

/// Measures messages and calls between two nodes.
///
/// # Errors
/// When a node does not start, or a message is lost or damaged.
pub(super) fn run(config: &Config, effort: &Effort, folder: &Path) -> io::Result<Vec<Measured>> {
    let scratch = Scratch::new(folder, "node-messages")?;
    let entries = nodes::entries(2)?;
    let workers = swarm::topology(config)?.workers;
    let messages = effort.choose(MESSAGES);
    let (round, calls) = (Round::new(), Round::new());
    let latency = Arc::new(Mutex::new(Latency::new()));
    let known: Arc<OnceLock<Vec<AgentAddress>>> = Arc::default();
    let start = |id: NodeId, with: &dyn Fn(NodeBuilder) -> NodeBuilder| {
        let worker = workers[(id as usize - 1) % workers.len()];
        start(config, &entries, id, worker, scratch.path(), with)
    };
    let far = start(2, &|builder| {
        let round = round.clone();
        let many = AgentOptions { min: AGENTS as usize, ..AgentOptions::default() };
        builder.agent("receiver", many, move || Receiver {
            round: round.clone(),
            quota: messages / AGENTS,
            count: 0,
            sum: 0,
        })
    })?;
    let near = start(1, &|builder| {
        let (round, calls, latency) = (round.clone(), calls.clone(), latency.clone());
        let (receivers, known) = (known.clone(), known.clone());
        let total = effort.choose(CALLS);
        builder
            .agent("sender", AgentOptions::default(), move || Sender {
                round: round.clone(),
                receivers: receivers.clone(),
                next: 0,
                end: 0,
            })
            .agent("caller", AgentOptions::default(), move || Caller {
                round: calls.clone(),
                receivers: known.clone(),
                latency: latency.clone(),
                recorded: Latency::new(),
                asked: Instant::now(),
                answered: 0,
                total,
            })
    })?;
    let receivers = super::started(&far, "receiver", "receiver", AGENTS as usize)?;
    let receivers = receivers.into_iter().map(|agent| AgentAddress { node: 2, agent });
    known.set(receivers.collect()).expect("they are found once");
    let go = |agent_type: &str, payload: Vec<u8>| {
        let agent = super::started(&near, agent_type, agent_type, 1)?[0];
        near.handle().wait(move |gateway| gateway.send(agent, payload)).map_err(io::Error::other)
    };
    let expected = swarm::expected_sum(messages);
    let one_round = || -> io::Result<Tally> {
        round.open(AGENTS);
        go("sender", messages.to_le_bytes().to_vec())?;
        let tally = round.wait()?;
        match tally.count == messages && tally.sum == expected {
            true => Ok(tally),
            false => Err(io::Error::other("messages were lost or damaged")),
        }
    };
    let tallies = effort.rounds(one_round)?;
    calls.open(1);
    go("caller", Vec::new())?;
    calls.wait()?;
    near.shutdown()?;
    far.shutdown()?;
    let rates = tallies.iter().map(|tally| tally.count as f64 / tally.elapsed.as_secs_f64());
    let latency = latency.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(vec![
        Measured::throughput("node_messages", "throughput_msg_per_s", rates.collect())
            .with("messages", messages)
            .with("agents", AGENTS)
            .with("payload_bytes", PAYLOAD_BYTES as u64)
            .goal_at_least(3_000_000.0),
        Measured::latency("node_call", latency)
            .with("payload_bytes", PAYLOAD_BYTES as u64)
            .goal_at_most("p99_ms", 0.150)
            .with_text("loop", "closed, polled"),
    ])
}

fn start(
    config: &Config,
    entries: &[NodeEntry],
    id: NodeId,
    worker: usize,
    folder: &Path,
    with: &dyn Fn(NodeBuilder) -> NodeBuilder,
) -> io::Result<Node> {
    let mut config = Config { node: entries.to_vec(), agent: Vec::new(), ..config.clone() };
    config.cluster.node = id;
    config.cluster.start = ClusterStart::New;
    config.cluster.secret_file = None;
    config.cores.workers = CoreSet::List(vec![worker]);
    config.cores.raft = CoreSet::Auto;
    config.runtime.spin = Spin::Forever;
    config.log.folder = folder.join(format!("log-{id}")).display().to_string();
    config.memory.folder = Some(folder.join(format!("memory-{id}")).display().to_string());
    Ok(inside::start(config, with)?.0)
}
