//! `consensus_finality`: how long a submission takes until it is known to be committed, at a fixed
//! rate whatever becomes of those before.

use super::{SIZES, nodes::Nodes};
use crate::{
    bench::{Effort, Measured, disk, paced},
    config::Config,
    metrics::Latency,
};
use std::{io, net::SocketAddr, path::Path, thread};

/// Submissions in a second over all nodes, unless the user names another rate.
const RATE: u64 = 100_000;
/// Bytes of a payload.
const BODY_BYTES: usize = 16;
/// Submissions at least, so that a p99 says something.
const SUBMISSIONS_MIN: f64 = 2_000.0;
/// What the seed asks for, milliseconds.
const TARGET_MS: f64 = 100.0;

/// Figures of each size: p50, p99.
const NAMES: [[&str; 2]; SIZES.len()] = [
    ["nodes_1_p50_ms", "nodes_1_p99_ms"],
    ["nodes_3_p50_ms", "nodes_3_p99_ms"],
    ["nodes_5_p50_ms", "nodes_5_p99_ms"],
];

/// Measures clusters of each size, one after the other.
///
/// # Errors
/// When a node does not start, or a submission is refused for good.
pub fn run(config: &Config, effort: &Effort, folder: &Path) -> io::Result<Measured> {
    std::fs::create_dir_all(folder)?;
    let disk = disk::synced_writes(folder)?;
    let rate = effort.rate.unwrap_or(RATE);
    let mut figures = Vec::new();
    let mut of_largest = Latency::new();
    for (size, names) in SIZES.into_iter().zip(NAMES) {
        let nodes = Nodes::start(config, size, folder, |_, other| Ok(other.peers))?;
        nodes.until_spread(effort)?;
        let addresses: Vec<_> = nodes.running().map(|node| nodes.rpc(node)).collect();
        let measured = measure(&addresses, rate as f64, effort.seconds);
        let latency = measured.map_err(|error| nodes.explain(error))?;
        figures
            .extend([(names[0], latency.quantile_ms(0.5)), (names[1], latency.quantile_ms(0.99))]);
        of_largest = latency;
    }
    let goal_ms = 2.0 + 5.0 * disk.quantile_ms(0.5);
    let measured = Measured::latency("consensus_finality", of_largest)
        .with("rate_per_s", rate)
        .with("nodes", SIZES[SIZES.len() - 1] as u64)
        .with("body_bytes", BODY_BYTES as u64)
        .with_exact("disk_p50_ms", disk.quantile_ms(0.5))
        .with_exact("disk_p99_ms", disk.quantile_ms(0.99));
    let add = |measured: Measured, (name, value)| measured.with_exact(name, value);
    Ok(figures.into_iter().fold(measured, add).at_most("p99_ms", TARGET_MS, goal_ms))
}

/// Each node has its share of the submissions, on a connection of its own.
fn measure(nodes: &[SocketAddr], rate: f64, seconds: f64) -> io::Result<Latency> {
    let share = rate / nodes.len() as f64;
    let submissions = (share * seconds).max(SUBMISSIONS_MIN) as u32;
    let pace = paced::Pace { rate: share, body_bytes: BODY_BYTES };
    thread::scope(|scope| {
        let clients = nodes.iter().map(|node| {
            scope.spawn(move || {
                let mut latency = Latency::new();
                paced::run(*node, submissions, pace, &mut latency).map(|()| latency)
            })
        });
        let clients: Vec<_> = clients.collect();
        let mut all = Latency::new();
        for client in clients {
            let latency = client.join().expect("clients do not panic");
            all.merge(&latency.map_err(crate::bench::work::failed)?);
        }
        Ok(all)
    })
}
