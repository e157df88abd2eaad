//! Tasks while the agents that work on them, which are processes, are killed.

use super::{
    Losses, child,
    ledger::Submissions,
    roles::{self, Signals},
};
use crate::{
    bench::{
        served::{self, Plan, Scratch, Served},
        work::{REMOTE_TYPE, failed},
    },
    config::{AgentKind, Config},
    runtime::process::kill_group,
};
use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Agents at the same time.
const AGENTS: usize = 8;
/// Tasks that each may have.
const TASKS_AT_ONCE: u32 = 5;
/// The longest pause before a kill.
const PAUSE_MS_MAX: u64 = 15;
/// How long a killed agent may take to be replaced.
const RESTART_LIMIT: Duration = Duration::from_secs(30);

/// What an agent's child is started with: this program, and where its effects go.
pub(super) fn command(effects: &Path, hang_first: bool) -> io::Result<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    let mut command = vec![program, "bench-agent".into(), effects.display().to_string()];
    command.extend(hang_first.then(|| "--hang-first".to_owned()));
    Ok(command)
}

/// Settings under which each kill meets an agent as if it had never crashed before, instead of one
/// whose restarts slow down, and a task that loses several attempts is not given up.
pub(super) fn settings() -> Vec<String> {
    ["agents.max_restarts=10000", "agents.restart_window_ms=1", "tasks.max_attempts=1000"]
        .map(str::to_owned)
        .into()
}

/// Runs `total` tasks while so many agents are killed, between one part of the tasks and the
/// next.
pub(super) fn run(
    config: &Config,
    folder: &Path,
    total: u32,
    kills: u32,
    seed: u64,
) -> io::Result<Losses> {
    let scratch = Scratch::new(folder, "agent-kills")?;
    let effects = scratch.path().join("effects");
    let kind = AgentKind::Exec { command: command(&effects, false)? };
    let agent = served::agent_type(REMOTE_TYPE, kind, AGENTS, TASKS_AT_ONCE);
    let plan = Plan::new(config, agent, scratch.path(), &settings())?;
    let mut ledger = Submissions::new(total);
    let lost = live(&plan.start()?, &mut ledger, kills, seed);
    let lost = lost.map_err(|error| plan.explain(error))?;
    roles::complain(&ledger, &lost);
    let effects = child::read(&effects)?;
    let counts = child::count(&effects);
    let ran = |number: &u32| ledger.id(*number).is_some_and(|id| counts.contains_key(&id));
    Ok(Losses {
        total: ledger.acknowledged(),
        lost: lost.len() as u64,
        agent_kills: kills.into(),
        executions: effects.len() as u64,
        tasks_run: (0..total).filter(ran).count() as u64,
        ..Losses::default()
    })
}

/// Submits and kills by turns; tells the tasks that are not done at last, and what the node says
/// of them.
fn live(
    node: &Served,
    ledger: &mut Submissions,
    kills: u32,
    seed: u64,
) -> io::Result<Vec<(u32, String)>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let total = ledger.total();
    for part in 1..=kills {
        // What is submitted is still being worked on when the kill comes.
        ledger.open(part * (total / (kills + 1)));
        roles::produce(node.rpc(), seed, ledger, &Signals::default()).map_err(failed)?;
        thread::sleep(Duration::from_millis(rng.u64(0..PAUSE_MS_MAX)));
        kill_one(node, &mut rng)?;
    }
    ledger.open(total);
    roles::produce(node.rpc(), seed, ledger, &Signals::default()).map_err(failed)?;
    roles::come_to_rest(node.rpc())
        .and_then(|()| roles::open_at_last(node.rpc(), ledger))
        .map_err(failed)
}

fn kill_one(node: &Served, rng: &mut fastrand::Rng) -> io::Result<()> {
    let deadline = Instant::now() + RESTART_LIMIT;
    loop {
        let children = served::children_of(node.pid())?;
        if let Some(&child) = rng.choice(&children) {
            // Each child leads a group of its own.
            kill_group(child);
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("the node has no agent left that could be killed"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
