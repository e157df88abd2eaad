//! The benchmark suites: what they measure, on real nodes, and their reports. Nodes whose log or
//! death matters are other processes; the others run in this one.
//!
//! Every round checks what it moved (counts and sums), so a figure is never that of lost work. A
//! bare ring is measured before and after a suite, because virtual machines change their speed:
//! only runs whose probes agree can be compared.

mod agent_scheduling;
mod agreement;
mod cluster;
mod disk;
mod durable_tasks;
#[cfg(test)]
mod fake;
mod gossip;
mod inside;
mod load_balance;
mod measured;
mod message_latency;
mod message_passing;
mod node_messages;
mod paced;
mod probe;
mod reliability;
mod replicated_log;
mod served;
mod swarm;
mod vectors;
mod work;

pub use measured::{Effort, Figure, Measured};
pub use reliability::child;
pub use vectors::{Point, VectorFiles, table};

use crate::{
    config::Config,
    metrics::{Manifest, hgrm},
    node::{Node, gateway::Gateway},
    wire::id::AgentId,
};
use serde::Serialize;
use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

/// How long agents may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Everything that can be measured.
pub const COMPONENTS: [&str; 19] = [
    "message_passing",
    "node_messages",
    "agent_scheduling",
    "load_balance",
    "durable_tasks",
    "consensus",
    "consensus_log",
    "pbft_throughput",
    "pattern_search",
    "message_latency",
    "consensus_finality",
    "pbft_latency",
    "search_latency",
    "hnsw_index",
    "task_loss",
    "agent_failover",
    "leader_failover",
    "split_brain",
    "gossip_convergence",
];

/// A group of components that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// `message_passing`, `node_messages`, `agent_scheduling`, `load_balance`, `durable_tasks`,
    /// `consensus`, `consensus_log`, `pbft_throughput`, `pattern_search`: how much in a second, and how
    /// evenly
    Throughput,
    /// `message_latency`, `consensus_finality`, `pbft_latency`, `search_latency`: how long one message
    /// takes, one commit, and one search
    Latency,
    /// `hnsw_index`: what a vector takes
    Memory,
    /// `task_loss`, `agent_failover`, `leader_failover`, `split_brain`: what becomes of tasks when
    /// agents and nodes are killed and networks part; `gossip_convergence`: how soon all nodes know
    /// a change or a death
    Reliability,
    /// Every suite
    All,
}

impl Suite {
    /// The suites that it stands for.
    pub fn parts(self) -> &'static [Self] {
        match self {
            Self::Throughput => &[Self::Throughput],
            Self::Latency => &[Self::Latency],
            Self::Reliability => &[Self::Reliability],
            Self::Memory => &[Self::Memory],
            Self::All => &[Self::Throughput, Self::Latency, Self::Memory, Self::Reliability],
        }
    }

    /// What it measures.
    fn components(self) -> &'static [&'static str] {
        match self {
            Self::Throughput => &[
                "message_passing",
                "node_messages",
                "agent_scheduling",
                "load_balance",
                "durable_tasks",
                "consensus",
                "consensus_log",
                "pbft_throughput",
                "pattern_search",
            ],
            Self::Latency => {
                &["message_latency", "consensus_finality", "pbft_latency", "search_latency"]
            }
            Self::Memory => &["hnsw_index"],
            Self::Reliability => &[
                "task_loss",
                "agent_failover",
                "leader_failover",
                "split_brain",
                "gossip_convergence",
            ],
            Self::All => &COMPONENTS,
        }
    }

    /// The name of its report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Memory => "memory",
            Self::Reliability => "reliability",
            Self::All => "all",
        }
    }
}

/// What a suite came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Under which conditions.
    pub manifest: Manifest,
    /// One entry a component.
    pub results: Vec<Measured>,
}

/// Runs one suite; `tell` hears of each component before it is measured. Nodes that are other
/// processes keep their log in `folder` meanwhile, so its disk is the one that is measured. `files` are
/// vectors to be searched instead of made ones.
///
/// # Errors
/// When a node does not start, or something is lost; of the kind `InvalidInput` when the files are wrong.
pub fn run(
    suite: Suite,
    config: &Config,
    effort: &Effort,
    files: &VectorFiles,
    folder: &Path,
    mut tell: impl FnMut(&str),
) -> io::Result<Report> {
    files.check()?;
    let cpus = swarm::topology(config)?.workers;
    tell("probe");
    let command: Vec<String> = std::env::args().collect();
    let begun =
        Manifest::begin(command.join(" "), config.hash().to_string(), probe::measure(&cpus));
    let mut results = Vec::new();
    for &component in suite.components().iter().filter(|component| effort.wants(component)) {
        tell(component);
        match component {
            "message_passing" => results.push(message_passing::run(config, effort)?),
            "node_messages" => results.extend(node_messages::run(config, effort, folder)?),
            "agent_scheduling" => results.push(agent_scheduling::run(config, effort)?),
            "load_balance" => results.extend(load_balance::run()),
            "durable_tasks" => results.push(durable_tasks::run(config, effort, folder)?),
            "consensus" => results.push(cluster::consensus::run(config, effort, folder)?),
            "consensus_finality" => {
                results.push(cluster::finality::run(config, effort, folder)?);
            }
            "leader_failover" => results.push(cluster::failover::run(config, effort, folder)?),
            "split_brain" => results.push(cluster::split_brain::run(config, effort, folder)?),
            "gossip_convergence" => results.push(gossip::run(effort, &mut tell)),
            "consensus_log" => results.push(replicated_log::run(effort, folder)?),
            "pbft_throughput" => results.push(agreement::throughput(effort, folder)?),
            "pbft_latency" => results.push(agreement::latency(effort, folder)?),
            "message_latency" => results.extend(message_latency::run(config, effort)?),
            "pattern_search" | "search_latency" | "hnsw_index" => {
                results.extend(vectors::run(component, config, effort, files, folder)?);
            }
            "task_loss" => results.push(reliability::task_loss(config, effort, folder, &mut tell)?),
            "agent_failover" => results.push(reliability::failover::run(config, effort, folder)?),
            other => unreachable!("{other} is no component of a suite"),
        }
    }
    Ok(Report { manifest: begun.finish(probe::measure(&cpus)), results })
}

/// Checks a rate for the open loop.
///
/// # Errors
/// What a rate may be.
pub fn check_rate(rate: u64) -> Result<u64, String> {
    message_latency::check_rate(rate)
}

impl Report {
    /// The report as JSON.
    ///
    /// # Errors
    /// Never, with figures that are numbers.
    pub fn to_json(&self) -> io::Result<String> {
        simd_json::to_string_pretty(self).map_err(io::Error::other)
    }

    /// Writes `DIR/SUITE.json`, `DIR/COMPONENT.hgrm` for each component with latencies, and
    /// `DIR/COMPONENT.svg` for those with a picture.
    ///
    /// # Errors
    /// The folder cannot be made or a file not be written; the text names it.
    pub fn write(&self, folder: &Path, suite: Suite) -> io::Result<()> {
        let explain = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        fs::create_dir_all(folder).map_err(|error| explain(folder, error))?;
        let write = |name: String, text: String| {
            let path = folder.join(name);
            let unfinished = path.with_extension("unfinished");
            // A reader sees the old file or the new one, never a half.
            fs::write(&unfinished, text)
                .and_then(|()| fs::rename(&unfinished, &path))
                .map_err(|error| explain(&path, error))
        };
        for measured in &self.results {
            if let Some(latency) = &measured.latency {
                write(format!("{}.hgrm", measured.component), hgrm::to_text(latency))?;
            }
            if let Some(picture) = &measured.picture {
                write(format!("{}.svg", measured.component), picture.clone())?;
            }
        }
        write(format!("{}.json", suite.name()), self.to_json()? + "\n")
    }
}

/// Waits until all agents of a type have started and every core knows them; all agents of a
/// second type.
fn started(node: &Node, of: &str, other: &str, others: usize) -> io::Result<Vec<AgentId>> {
    let deadline = Instant::now() + START_LIMIT;
    let agents = |name: &str| {
        let name = name.to_owned();
        let listed = node.handle().wait(move |gateway| gateway.agents(Some(name)));
        listed.map_err(io::Error::other)
    };
    // Cores take turns in answering, and what a core says comes after what it has told before: when
    // each of them has listed the agents, each knows them.
    let mut complete = 0;
    while complete < 2 * node.topology().workers.len() {
        let all_there = agents(other)?.len() == others;
        complete = if all_there { complete + 1 } else { 0 };
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("the agents of type {other} did not start")));
        }
    }
    Ok(agents(of)?.into_iter().map(|agent| agent.id).collect())
}
