//! `agent_failover`: from the death of an agent to the end of its task on another one.

use super::{agent_kills, child};
use crate::{
    bench::{
        Effort, Measured,
        served::{self, Plan, Scratch, Served},
        work::{LIMIT, failed},
    },
    client::{Client, Params, View},
    config::{AgentKind, Config},
    metrics::Latency,
    runtime::process::kill_group,
    wire::id::TaskId,
};
use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The agent type.
const AGENT_TYPE: &str = "failover";
/// One works on the task and dies, another one takes over: a task stays on its core, so there are
/// several on each.
const AGENTS: usize = 8;
/// Agents that are killed, at full and at quick effort.
const KILLS: (u64, u64) = (200, 20);
/// How often the file of effects and the children are looked at.
const LOOK: Duration = Duration::from_micros(500);
/// How long one step may take.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// Our goal for the 99th percentile, milliseconds: the pause before a second attempt is 50 to
/// 100 ms, and the rest of what happens should not show.
const GOAL_MS: f64 = 110.0;

/// Measures failovers one after the other.
pub(in crate::bench) fn run(
    config: &Config,
    effort: &Effort,
    folder: &Path,
) -> io::Result<Measured> {
    let scratch = Scratch::new(folder, "failover")?;
    let effects = scratch.path().join("effects");
    let kind = AgentKind::Exec { command: agent_kills::command(&effects, true)? };
    let agent = served::agent_type(AGENT_TYPE, kind, AGENTS, 1);
    let plan = Plan::new(config, agent, scratch.path(), &agent_kills::settings())?;
    let node = plan.start()?;
    let mut client = Client::connect(node.rpc(), LIMIT).map_err(failed)?;
    let (kills, mut latency) = (effort.choose(KILLS), Latency::new());
    for _ in 0..kills {
        let took = fail_over(&node, &mut client, &effects).map_err(|error| plan.explain(error))?;
        latency.record(took.as_nanos() as u64);
    }
    let measured = Measured::latency("agent_failover", latency).with("kills", kills);
    Ok(measured.goal_at_most("p99_ms", GOAL_MS))
}

/// Kills the agent that works on a task; tells how long the task then took to end on another one.
fn fail_over(node: &Served, client: &mut Client, effects: &Path) -> io::Result<Duration> {
    poll(
        "all agents run",
        || Ok((served::children_of(node.pid())?.len() == AGENTS).then_some(())),
    )?;
    let task = Params::new().str("type", AGENT_TYPE).value("payload", &[0xc0]);
    let answer = client.call("task.submit", &task).map_err(failed)?;
    let id: Option<TaskId> = answer.get("id").and_then(View::str).and_then(|id| id.parse().ok());
    let id = id.ok_or_else(|| io::Error::other("the node gave the task no id"))?;
    let killed = poll("an agent works on the task", || {
        let effects = child::read(effects)?;
        Ok(effects.iter().rev().find(|effect| effect.id == id).map(|effect| effect.pid))
    })?;
    let began = Instant::now();
    // The child leads a group of its own.
    kill_group(killed);
    let wait = Params::new()
        .str("id", &id.to_string())
        .uint_if("wait_ms", Some(STEP_LIMIT.as_millis() as u64));
    let task = client.call_within("task.result", &wait, STEP_LIMIT * 2).map_err(failed)?;
    let took = began.elapsed();
    let by = task.get("result").and_then(View::uint);
    match task.get("status").and_then(View::str) {
        Some("done") if by.is_some_and(|pid| pid != u64::from(killed)) => Ok(took),
        status => Err(io::Error::other(format!(
            "the task {id} is {status:?}, ended by {by:?}, after its agent {killed} was killed"
        ))),
    }
}

fn poll<T>(what: &str, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let deadline = Instant::now() + STEP_LIMIT;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("it did not come to be that {what}")));
        }
        thread::sleep(LOOK);
    }
}
