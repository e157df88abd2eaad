//! `message_passing`: 64-byte messages from one core to sixty agents on the others, one by one
//! through `Context::send`, each read in its handler.

use super::{
    Effort, Measured,
    swarm::{self, Round, Tally},
};
use crate::{
    config::Config,
    node::{AgentOptions, gateway::Gateway},
    shard::{
        agent::{Agent, Message},
        context::Context,
    },
    wire::id::AgentId,
};
use std::{io, sync::Arc};

/// Agents that receive.
const AGENTS: u64 = 60;
/// Messages of one round, at full and at quick effort; each agent gets the same number.
const MESSAGES: (u64, u64) = (30_000_000, 3_000_000);
/// Messages that the sender sends before it lets its core look at other work.
const BURST: u64 = 2_000;

struct Sender {
    round: Arc<Round>,
    receivers: Vec<AgentId>,
    next: u64,
    end: u64,
}

impl Agent for Sender {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let count = message.payload().try_into().expect("a count of 8 bytes");
        self.receivers = context.agents_of("receiver");
        (self.next, self.end) = (0, u64::from_le_bytes(count));
        self.round.begin();
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        let end = self.end.min(self.next + BURST);
        let mut turn = self.next as usize % self.receivers.len();
        while self.next < end {
            // A full way is not an error here: the rest goes in the next turn.
            if context.send(self.receivers[turn], &swarm::payload(self.next)).is_err() {
                break;
            }
            self.next += 1;
            turn = if turn + 1 == self.receivers.len() { 0 } else { turn + 1 };
        }
        if self.next < self.end {
            context.request_turn();
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
    fn on_message(&mut self, message: &Message<'_>, _: &mut Context<'_>) {
        self.sum = self.sum.wrapping_add(swarm::sum(message.payload()));
        self.count += 1;
        if self.count == self.quota {
            self.round.finish(self.count, self.sum);
            (self.count, self.sum) = (0, 0);
        }
    }
}

/// Measures the throughput.
///
/// # Errors
/// When the node does not start, or a message is lost or damaged.
pub(super) fn run(config: &Config, effort: &Effort) -> io::Result<Measured> {
    let (home, others) = swarm::roles(swarm::topology(config)?.workers.len());
    let messages = effort.choose(MESSAGES);
    let round = Round::new();
    let (at_sender, at_receiver) = (round.clone(), round.clone());
    let one = AgentOptions { cores: vec![home], ..AgentOptions::default() };
    let many = AgentOptions { min: AGENTS as usize, cores: others, ..AgentOptions::default() };
    let node = swarm::builder(config)
        .agent("sender", one, move || Sender {
            round: at_sender.clone(),
            receivers: Vec::new(),
            next: 0,
            end: 0,
        })
        .agent("receiver", many, move || Receiver {
            round: at_receiver.clone(),
            quota: messages / AGENTS,
            count: 0,
            sum: 0,
        })
        .start()
        .map_err(swarm::failed)?;
    let sender = super::started(&node, "sender", "receiver", AGENTS as usize)?[0];
    let expected = swarm::expected_sum(messages);
    let one_round = || -> io::Result<Tally> {
        round.open(AGENTS);
        let go = messages.to_le_bytes().to_vec();
        let sent = node.handle().wait(move |gateway| gateway.send(sender, go));
        sent.map_err(io::Error::other)?;
        let tally = round.wait()?;
        match tally.count == messages && tally.sum == expected {
            true => Ok(tally),
            false => Err(io::Error::other("messages were lost or damaged")),
        }
    };
    let measured = effort.rounds(one_round).map(|tallies| {
        let rates = tallies.iter().map(|tally| tally.count as f64 / tally.elapsed.as_secs_f64());
        Measured::throughput("message_passing", "throughput_msg_per_s", rates.collect())
            .with("messages", messages)
            .with("agents", AGENTS)
            .with("payload_bytes", 64)
            .target(500_000.0, 50_000_000.0)
    });
    node.shutdown()?;
    measured
}
