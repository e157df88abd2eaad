//! `coreflow cluster status|join|leave|transfer|identity`.

mod aim;
mod identity;
mod reach;
mod seen;

use super::{
    common::{Common, EXIT_WRONG_USAGE},
    remote::{self, Connect, Remote, Table, Trouble},
};
use crate::client::Params;
use aim::Aim;
use clap::{Args, Subcommand};
use seen::Seen;
use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Show the cluster of a running node, and change who belongs to it and who leads
///
/// Any node of the cluster may be named; the others are found through it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coreflow cluster status\n  \
    coreflow cluster join 4 --peers 127.0.0.1:7482 --rpc 127.0.0.1:7480\n  \
    coreflow cluster leave 2\n  \
    coreflow cluster transfer 0 3\n  \
    coreflow cluster identity node-1.key")]
pub struct ClusterArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show nodes and partitions, as the node sees them that is asked
    Status,
    /// Let a node in that runs with cluster.start = "join", and wait until it has a vote in every
    /// partition
    Join {
        /// Its number: one that no node of the cluster ever had
        #[arg(value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
        node: u64,
        /// Where the other nodes reach it
        #[arg(long, value_name = "ADDR")]
        peers: SocketAddr,
        /// Where clients reach it
        #[arg(long, value_name = "ADDR")]
        rpc: SocketAddr,
        #[command(flatten)]
        wait: Wait,
    },
    /// Take a node out, and wait until it belongs to no partition; stop it afterwards
    Leave {
        /// Its number
        #[arg(value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
        node: u64,
        #[command(flatten)]
        wait: Wait,
    },
    /// Let a node lead a partition, and wait until it does
    ///
    /// Leaders are spread over the nodes by themselves: after a while the partition goes back to
    /// the node whose turn it is. Where nodes agree by PBFT they lead in turn: those whose turn comes
    /// before lead for a moment each, and then the partition stays.
    Transfer {
        /// The partition
        partition: u16,
        /// The number of the node
        #[arg(value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
        node: u64,
        #[command(flatten)]
        wait: Wait,
    },
    /// Make the key that a node signs with where consensus.protocol is "pbft", unless it is there, and
    /// print the public_key that belongs into its [[node]]; no node is asked
    Identity {
        /// The file, which only its user may read
        file: PathBuf,
    },
}

#[derive(Args, Clone, Copy, Debug)]
struct Wait {
    /// How long to wait until it is so; what has begun goes on after that
    #[arg(long, default_value_t = 60, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Action {
    /// What is to be reached, and within which time; `None` for a question.
    fn aim(&self) -> Option<(Aim, Duration)> {
        let (aim, wait) = match *self {
            Self::Status | Self::Identity { .. } => return None,
            Self::Join { node, peers, rpc, wait } => (Aim::Member { node, peers, rpc }, wait),
            Self::Leave { node, wait } => (Aim::Gone { node }, wait),
            Self::Transfer { partition, node, wait } => (Aim::Leads { partition, node }, wait),
        };
        Some((aim, Duration::from_secs(wait.timeout)))
    }
}

/// Runs the subcommand; results go to `out`, progress and errors to `err`.
pub fn run(
    args: &ClusterArgs,
    common: &Common,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    if let Action::Identity { file } = &args.action {
        return tell_key(file, common.json, out, err);
    }
    remote::run_telling(&args.connect, common, err, |node, config, err| {
        let Some((aim, limit)) = args.action.aim() else {
            return status(node, common.json, out).map(|()| true);
        };
        let mut tell = |progress: &str| {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(err, "{progress}");
        };
        reach::reach(&aim, node, config, limit, &mut tell)?;
        match common.json {
            true => writeln!(out, "{{\"done\":\"{aim}\"}}")?,
            false => writeln!(out, "{aim}")?,
        }
        Ok(true)
    })
}

fn tell_key(file: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let told = identity::public_key(file).and_then(|key| match json {
        true => writeln!(out, "{{\"public_key\":\"{key}\"}}"),
        false => writeln!(out, "{key}"),
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(err, "coreflow: {error}");
            match error.kind() {
                // What is there is no key, or others may read it.
                std::io::ErrorKind::InvalidInput => ExitCode::from(EXIT_WRONG_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn status(node: &mut Remote, json: bool, out: &mut dyn Write) -> Result<(), Trouble> {
    let answer = node.call("cluster.status", &Params::new())?;
    if json {
        return remote::print_json(out, answer);
    }
    let seen = Seen::of(answer).ok_or_else(|| Trouble::Failed(Seen::STRANGE.into()))?;
    writeln!(out, "as node {} sees it:\n", seen.node)?;
    nodes(&seen).write(out)?;
    writeln!(out)?;
    if seen.partitions.iter().any(|it| it.agreement.is_some()) {
        return agreements(&seen).write(out).map_err(Trouble::from);
    }
    Ok(partitions(&seen).write(out)?)
}

fn nodes(seen: &Seen) -> Table {
    let mut nodes = Table::new(&[
        "NODE",
        "PEERS",
        "RPC",
        "MEMBER",
        "CONNECTED",
        "LEADS",
        "STATUS",
        "CORES",
        "AGENTS",
        "CAPACITY",
        "RUNNING",
        "QUEUED",
    ]);
    for node in &seen.nodes {
        let text = |address: &Option<SocketAddr>| {
            address.map_or_else(|| "-".to_owned(), |address| address.to_string())
        };
        let [member, connected] =
            [node.member, node.connected].map(|is| if is { "yes" } else { "no" }.to_owned());
        let [peers, rpc] = [&node.peers, &node.rpc].map(text);
        let leads = node.leads.to_string();
        let status = node.status.clone().unwrap_or_else(|| "-".to_owned());
        let [cores, agents, capacity, running, queued] = match node.load {
            Some(load) => load.map(|count| count.to_string()),
            None => ["-"; 5].map(str::to_owned),
        };
        nodes.row([
            node.id.to_string(),
            peers,
            rpc,
            member,
            connected,
            leads,
            status,
            cores,
            agents,
            capacity,
            running,
            queued,
        ]);
    }
    nodes
}

fn partitions(seen: &Seen) -> Table {
    let mut partitions =
        Table::new(&["PARTITION", "LEADER", "TERM", "COMMITTED", "VOTERS", "LEARNERS"]);
    for it in &seen.partitions {
        let leader = it.leader.map_or_else(|| "-".to_owned(), |leader| leader.to_string());
        let list = |ids: &[u64]| match ids {
            [] => "-".to_owned(),
            ids => ids.iter().map(u64::to_string).collect::<Vec<_>>().join(","),
        };
        let voters = match &it.outgoing[..] {
            [] => list(&it.voters),
            outgoing => format!("{} (from {})", list(&it.voters), list(outgoing)),
        };
        let (term, committed) = (it.term.to_string(), it.committed.to_string());
        let learners = list(&it.learners);
        partitions.row([it.partition.to_string(), leader, term, committed, voters, learners]);
    }
    partitions
}

/// The partitions of nodes that may lie.
fn agreements(seen: &Seen) -> Table {
    let names = ["PARTITION", "PRIMARY", "VIEW", "COMMITTED", "FAST", "SLOW", "CHANGES", "STATE"];
    let mut table = Table::new(&names);
    for it in &seen.partitions {
        let Some(agreed) = it.agreement else { continue };
        let primary = it.leader.map_or_else(|| "-".to_owned(), |leader| leader.to_string());
        let state = match (agreed.diverged, agreed.active, it.leader) {
            (true, ..) => "diverged",
            (false, false, _) => "changes view",
            (false, true, None) => "no quorum",
            (false, true, Some(_)) => "agrees",
        };
        let [view, fast, slow, changes] =
            [agreed.view, agreed.fast, agreed.slow, agreed.view_changes].map(|it| it.to_string());
        let committed = it.committed.to_string();
        let state = state.to_owned();
        let partition = it.partition.to_string();
        table.row([partition, primary, view, committed, fast, slow, changes, state]);
    }
    table
}

#[cfg(test)]
mod tests;
