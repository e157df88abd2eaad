//! `message_latency`: how long a 64-byte message takes to an agent on another core and back,
//! through both agents' handlers.
//!
//! Closed loop: the next message leaves when the last one is back. Open loop: messages leave at a
//! fixed rate whatever becomes of those before, and a latency counts from the time at which its
//! message should have left, so that a pause of the sender shows in the messages it delays.

use super::{
    Effort, Measured,
    swarm::{self, Round},
};
use crate::{
    config::{Config, Spin},
    metrics::Latency,
    node::{AgentOptions, gateway::Gateway},
    shard::{
        agent::{Agent, Message},
        context::Context,
    },
    wire::id::AgentId,
};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Bytes of a message.
const PAYLOAD_BYTES: usize = 64;
/// Messages before those that count.
const WARM_UP: u64 = 20_000;
/// Open loop: messages in a second unless the user names another rate.
const RATE: u64 = 1_000_000;
/// Parked cores take this many times longer, so fewer messages are enough.
const PARKED_SHARE: u64 = 20;
/// Open loop: messages under way at the same time. All of them fit into the way back, so the echo
/// is never refused; those beyond leave later than they should, which their latency shows.
const WINDOW: u64 = 1024;
/// Closed loop: messages of one round, at full and at quick effort.
const MESSAGES: (u64, u64) = (2_000_000, 200_000);

/// How messages leave.
#[derive(Clone, Copy)]
enum Loop {
    Closed,
    /// One every so many nanoseconds.
    Open {
        interval_ns: f64,
    },
}

struct Asker {
    round: Arc<Round>,
    latency: Arc<Mutex<Latency>>,
    pace: Loop,
    total: u64,
    echo: Option<AgentId>,
    recorded: Latency,
    clock: Instant,
    sent: u64,
    back: u64,
}

impl Asker {
    fn now_ns(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Sends a message that should have left at a time; false when the way is full.
    fn send(&mut self, due_ns: u64, context: &mut Context<'_>) -> bool {
        let mut payload = [0; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&due_ns.to_le_bytes());
        let Some(echo) = self.echo else { return false };
        let sent = context.send(echo, &payload).is_ok();
        self.sent += u64::from(sent);
        sent
    }

    fn is_warm(&self) -> bool {
        self.back > WARM_UP.min(self.total / 10)
    }
}

impl Agent for Asker {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let Some(echo) = self.echo else {
            self.echo = context.agents_of("echo").first().copied();
            self.clock = Instant::now();
            self.round.begin();
            match self.pace {
                Loop::Closed => drop(self.send(0, context)),
                Loop::Open { .. } => context.request_turn(),
            }
            return;
        };
        debug_assert_eq!(message.source(), echo);
        let now_ns = self.now_ns();
        let due_ns = message.payload()[..8].try_into().expect("8 bytes");
        self.back += 1;
        if self.is_warm() {
            self.recorded.record(now_ns - u64::from_le_bytes(due_ns));
        }
        if self.back == self.total {
            let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            latency.merge(&self.recorded);
            return self.round.finish(self.back, 0);
        }
        if let Loop::Closed = self.pace {
            let now_ns = self.now_ns();
            // The way is empty: the last message is back.
            self.send(now_ns, context);
        }
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        let Loop::Open { interval_ns } = self.pace else { return };
        let due = (self.now_ns() as f64 / interval_ns) as u64;
        while self.sent < due.min(self.total).min(self.back + WINDOW) {
            if !self.send((self.sent as f64 * interval_ns) as u64, context) {
                break;
            }
        }
        if self.sent < self.total {
            context.request_turn();
        }
    }
}

struct Echo;

impl Agent for Echo {
    #[inline]
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let sent = context.send(message.source(), message.payload());
        assert_eq!(sent, Ok(()), "the way back holds all that is under way");
    }
}

/// Measures closed loop polled and parked, and open loop.
///
/// # Errors
/// When the node does not start, or a message does not come back.
pub(super) fn run(config: &Config, effort: &Effort) -> io::Result<Vec<Measured>> {
    let spinning = |spin| {
        let mut config = config.clone();
        config.runtime.spin = spin;
        config
    };
    let total = effort.choose(MESSAGES);
    let polled = measure(&spinning(Spin::Forever), Loop::Closed, total)?;
    let parked = measure(&spinning(Spin::Micros(0)), Loop::Closed, total / PARKED_SHARE)?;
    let rate = effort.rate.unwrap_or(RATE);
    let pace = Loop::Open { interval_ns: 1e9 / rate as f64 };
    let in_flow = (effort.seconds * rate as f64) as u64;
    let open = measure(&spinning(Spin::Forever), pace, in_flow.max(1000))?;
    let entry = |component, latency, goal_ms| {
        Measured::latency(component, latency)
            .with("payload_bytes", PAYLOAD_BYTES as u64)
            .at_most("p99_ms", 50.0, goal_ms)
    };
    Ok(vec![
        entry("message_latency", polled, 0.001).with_text("loop", "closed, polled"),
        entry("message_latency_parked", parked, 0.060).with_text("loop", "closed, parked"),
        entry("message_latency_open", open, 0.050)
            .with_text("loop", "open, polled")
            .with("rate_per_s", rate),
    ])
}

fn measure(config: &Config, pace: Loop, total: u64) -> io::Result<Latency> {
    let (home, others) = swarm::roles(swarm::topology(config)?.workers.len());
    let round = Round::new();
    let latency = Arc::new(Mutex::new(Latency::new()));
    let (at_asker, kept) = (round.clone(), latency.clone());
    let here = AgentOptions { cores: vec![home], ..AgentOptions::default() };
    let there = AgentOptions { cores: others[..1].to_vec(), ..AgentOptions::default() };
    let node = swarm::builder(config)
        .agent("asker", here, move || Asker {
            round: at_asker.clone(),
            latency: kept.clone(),
            pace,
            total,
            echo: None,
            recorded: Latency::new(),
            clock: Instant::now(),
            sent: 0,
            back: 0,
        })
        .agent("echo", there, || Echo)
        .start()
        .map_err(swarm::failed)?;
    let asker = super::started(&node, "asker", "echo", 1)?[0];
    round.open(1);
    node.handle().wait(move |gateway| gateway.send(asker, Vec::new())).map_err(io::Error::other)?;
    round.wait()?;
    node.shutdown()?;
    let latency = latency.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(latency)
}

/// The rate of messages that a user may ask for.
pub(super) fn check_rate(rate: u64) -> Result<u64, String> {
    match Duration::from_secs(1).as_nanos() as u64 / 20 {
        fastest if (1..=fastest).contains(&rate) => Ok(rate),
        fastest => Err(format!("a rate is 1 to {fastest} messages a second")),
    }
}
