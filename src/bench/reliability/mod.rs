//! `task_loss` and `agent_failover`: what becomes of accepted tasks when agents and nodes die.
//!
//! The node is another process; this one keeps the ledger of what was acknowledged, so that what
//! the node forgot cannot be forgotten here. Everything random comes from one seed, which is told
//! before the work begins.

mod agent_kills;
pub mod child;
pub(super) mod failover;
mod ledger;
mod node_kills;
mod roles;

use super::{Effort, Measured};
use crate::config::Config;
use std::{io, path::Path};

/// Tasks while agents are killed, and kills, at full and at quick effort.
const AGENT_KILLS: ((u32, u32), (u32, u32)) = ((10_000, 20), (2_000, 5));
/// Tasks while the node is killed, unless the user names a number, and kills.
const NODE_KILLS: ((u32, usize), (u32, usize)) = ((1_000_000, 20), (20_000, 5));

/// What became of the tasks, by the client's ledger.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    /// Tasks whose submission was acknowledged.
    total: u64,
    /// Of those, tasks that are not done at the end.
    lost: u64,
    agent_kills: u64,
    node_kills: u64,
    /// Submissions that got no answer and were sent again with their key.
    resubmitted: u64,
    /// Acknowledged submissions that were sent again with their key.
    keys_repeated: u64,
    /// Second submissions that became a second task.
    keys_broken: u64,
    /// Attempts, seen by those who made them.
    executions: u64,
    /// Tasks that were worked on under the id that was acknowledged.
    tasks_run: u64,
    /// Ends that came too late and were refused.
    stale: u64,
    /// Tasks whose end was acknowledged twice.
    ended_twice: u64,
}

/// Measures `task_loss`; `tell` hears of its parts and of the seed.
///
/// # Errors
/// When a node does not start, or ends without being killed. A lost task is no error but a figure.
pub(super) fn task_loss(
    config: &Config,
    effort: &Effort,
    folder: &Path,
    tell: &mut dyn FnMut(&str),
) -> io::Result<Measured> {
    let seed = effort.seed.unwrap_or_else(|| fastrand::u64(..1 << 53));
    tell(&format!("task_loss while agents are killed (at the same times with --seed {seed})"));
    let (tasks, kills) = effort.choose(AGENT_KILLS);
    let agents = agent_kills::run(config, folder, tasks, kills, seed)?;
    tell("task_loss while the node is killed");
    let (tasks, kills) = effort.choose(NODE_KILLS);
    let tasks = effort.tasks.unwrap_or(tasks);
    let nodes = node_kills::run(config, folder, tasks, kills, seed)?;
    Ok(figures(agents, nodes, seed))
}

fn figures(agents: Losses, nodes: Losses, seed: u64) -> Measured {
    let sum = |figure: fn(&Losses) -> u64| figure(&agents) + figure(&nodes);
    let (total, lost) = (sum(|of| of.total), sum(|of| of.lost));
    let repeated = sum(|of| of.executions).saturating_sub(sum(|of| of.tasks_run));
    Measured::counts("task_loss")
        .with("total_tasks", total)
        .with("completed_tasks", total - lost)
        .with("lost_tasks", lost)
        .with_exact("loss_rate_pct", lost as f64 * 100.0 / total.max(1) as f64)
        .with("kills", sum(|of| of.agent_kills) + sum(|of| of.node_kills))
        .with("agent_kills", agents.agent_kills)
        .with("agent_kills_tasks", agents.total)
        .with("node_kills", nodes.node_kills)
        .with("node_kills_tasks", nodes.total)
        .with("resubmitted", sum(|of| of.resubmitted))
        .with("keys_repeated", sum(|of| of.keys_repeated))
        .with("keys_broken", sum(|of| of.keys_broken))
        .with("never_run_tasks", total - sum(|of| of.tasks_run))
        .with("repeated_executions", repeated)
        .with("stale_ends_refused", sum(|of| of.stale))
        .with("ended_twice", sum(|of| of.ended_twice))
        .with("seed", seed)
        .at_most("lost_tasks", 0.0, 0.0)
        // Our own goal is more: no task ended twice, and no key stood for two.
        .with_truth("goal_met", lost + sum(|of| of.ended_twice) + sum(|of| of.keys_broken) == 0)
}
