//! `agent_scheduling`: agents submit tasks, the shards accept, queue and assign them to sixty
//! agents on all cores, and each submitter hears of every end.

use super::{
    Effort, Measured,
    swarm::{self, Round, Tally},
};
use crate::{
    config::Config,
    node::{AgentOptions, gateway::Gateway},
    shard::{
        agent::{Agent, Message, Outcome, Task, TaskEvent, TaskNews},
        context::{Context, NewTask},
    },
    wire::{
        api::{Priority, TaskStatus},
        msgpack::{Reader, Value, write},
    },
};
use std::{io, sync::Arc};

/// Agents that run tasks.
const WORKERS: usize = 60;
/// Tasks of one round that each core submits, at full and at quick effort.
const TASKS: (u64, u64) = (3_000_000, 300_000);
/// Tasks of one submitter that have not ended.
const WINDOW: u64 = 512;

struct Submitter {
    round: Arc<Round>,
    next: u64,
    end: u64,
    ended: u64,
    sum: u64,
    resting: bool,
    /// The payload that is being written.
    value: Vec<u8>,
}

impl Submitter {
    fn submit(&mut self, context: &mut Context<'_>) {
        while self.next < self.end && self.next - self.ended < WINDOW {
            self.value.clear();
            write::bin(&mut self.value, &swarm::payload(self.next));
            let payload = &self.value[..];
            let task = NewTask { agent_type: "worker", payload, priority: Priority::Normal };
            if context.submit(task).is_err() {
                break;
            }
            self.next += 1;
        }
        // With tasks under way the next end goes on; without any the next turn must.
        if self.next < self.end && self.next == self.ended && !self.resting {
            self.resting = true;
            context.request_turn();
        }
    }
}

impl Agent for Submitter {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let count = message.payload().try_into().expect("a count of 8 bytes");
        (self.next, self.ended, self.sum) = (0, 0, 0);
        self.end = u64::from_le_bytes(count);
        self.round.begin();
        self.submit(context);
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        self.resting = false;
        self.submit(context);
    }

    fn on_task_news(&mut self, news: &TaskNews<'_>, context: &mut Context<'_>) {
        let TaskEvent::Ended { status: TaskStatus::Done, body, .. } = news.event else {
            // The round will not come to its sum, which is how the failure shows.
            return;
        };
        // A result that is no number leaves the sum wrong.
        self.sum = self.sum.wrapping_add(Reader::new(body).uint().unwrap_or(0));
        self.ended += 1;
        if self.ended == self.end {
            self.round.finish(self.ended, self.sum);
        } else {
            self.submit(context);
        }
    }
}

struct Worker;

impl Agent for Worker {
    fn on_task(&mut self, task: &Task<'_>, result: &mut Vec<u8>, _: &mut Context<'_>) -> Outcome {
        let mut reader = Reader::new(task.payload);
        match reader.head() {
            Ok(Value::Bin(len)) if let Ok(bytes) = reader.body(len) => {
                write::uint(result, swarm::sum(bytes));
                Outcome::Done
            }
            _ => Outcome::Failed { error: "the payload is not bytes".into(), retry: false },
        }
    }
}

/// Measures tasks accepted, run and acknowledged.
///
/// # Errors
/// When the node does not start, or a task does not end well.
pub(super) fn run(config: &Config, effort: &Effort) -> io::Result<Measured> {
    let submitters = swarm::topology(config)?.workers.len() as u64;
    let tasks = effort.choose(TASKS);
    let round = Round::new();
    let at_submitter = round.clone();
    let each_core = AgentOptions { min: submitters as usize, ..AgentOptions::default() };
    let workers = AgentOptions { min: WORKERS, max_tasks: 5, ..AgentOptions::default() };
    let node = swarm::builder(config)
        .agent("submitter", each_core, move || Submitter {
            round: at_submitter.clone(),
            next: 0,
            end: 0,
            ended: 0,
            sum: 0,
            resting: false,
            value: Vec::new(),
        })
        .agent("worker", workers, || Worker)
        .start()
        .map_err(swarm::failed)?;
    let ids = super::started(&node, "submitter", "worker", WORKERS)?;
    let expected = swarm::expected_sum(tasks).wrapping_mul(submitters);
    let one_round = || -> io::Result<Tally> {
        round.open(submitters);
        for &id in &ids {
            let go = tasks.to_le_bytes().to_vec();
            let sent = node.handle().wait(move |gateway| gateway.send(id, go));
            sent.map_err(io::Error::other)?;
        }
        let tally = round.wait()?;
        match tally.count == tasks * submitters && tally.sum == expected {
            true => Ok(tally),
            false => Err(io::Error::other("tasks were lost or their results damaged")),
        }
    };
    let measured = effort.rounds(one_round).map(|tallies| {
        let rates = tallies.iter().map(|tally| tally.count as f64 / tally.elapsed.as_secs_f64());
        Measured::throughput("agent_scheduling", "throughput_tasks_per_s", rates.collect())
            .with("total_tasks", tasks * submitters)
            .with("agents", WORKERS as u64)
            .with("payload_bytes", 64)
            .target(100_000.0, 8_000_000.0)
    });
    node.shutdown()?;
    measured
}
