//! `consensus`: operations that a cluster commits in a second. An operation is a submission whose
//! acknowledgement arrived: it is on the disks of more than half of the nodes by then.
//!
//! Raw operations have bodies of 16 bytes and come in batches of 100; those of 256 bytes come one by
//! one, 1,000 under way, as other replicated logs are measured.

use super::{
    SIZES,
    load::{self, Shape},
    nodes::Nodes,
};
use crate::{
    bench::{Effort, Measured, disk},
    config::Config,
};
use std::{io, path::Path};

/// Raw operations.
const RAW: Shape = Shape { body_bytes: 16, batch: 100, window: 20_000 };
/// As a store is measured with as many clients as are under way.
const SINGLE: Shape = Shape { body_bytes: 256, batch: 1, window: 1_000 };
/// Operations of a round, at full and at quick effort: raw, and single.
const OPERATIONS: ((u32, u32), (u32, u32)) = ((400_000, 40_000), (20_000, 2_000));
/// What the seed asks of five nodes, operations in a second.
const TARGET: f64 = 100_000.0;
/// Our own goal.
const GOAL: f64 = 1_000_000.0;

/// Figures of each size: raw, single.
const NAMES: [[&str; 2]; SIZES.len()] = [
    ["raw_1_node_ops_per_s", "single_1_node_ops_per_s"],
    ["raw_3_nodes_ops_per_s", "single_3_nodes_ops_per_s"],
    ["raw_5_nodes_ops_per_s", "single_5_nodes_ops_per_s"],
];

/// Measures clusters of each size, one after the other.
///
/// # Errors
/// When a node does not start, or an operation is refused for good.
pub fn run(config: &Config, effort: &Effort, folder: &Path) -> io::Result<Measured> {
    std::fs::create_dir_all(folder)?;
    let disk = disk::synced_writes(folder)?;
    let (raw_operations, single_operations) = effort.choose(OPERATIONS);
    let mut figures = Vec::new();
    let mut of_largest = Vec::new();
    for (size, names) in SIZES.into_iter().zip(NAMES) {
        let nodes = Nodes::start(config, size, folder, |_, other| Ok(other.peers))?;
        nodes.until_spread(effort)?;
        let addresses: Vec<_> = nodes.running().map(|node| nodes.rpc(node)).collect();
        let rates = |shape, operations| {
            let round = || {
                let (done, took) = load::run(&addresses, shape, operations)?;
                Ok(f64::from(done) / took.as_secs_f64())
            };
            effort.rounds(round).map_err(|error| nodes.explain(error))
        };
        let (raw, single) = (rates(RAW, raw_operations)?, rates(SINGLE, single_operations)?);
        let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max).round();
        figures.extend([(names[0], best(&raw)), (names[1], best(&single))]);
        of_largest = raw;
    }
    let measured = Measured::throughput("consensus", "throughput_ops_per_s", of_largest)
        .with("nodes", SIZES[SIZES.len() - 1] as u64)
        .with("body_bytes", RAW.body_bytes as u64)
        .with("batch", RAW.batch.into())
        .with_exact("disk_p50_ms", disk.quantile_ms(0.5));
    let add = |measured: Measured, (name, value)| measured.with_value(name, value);
    Ok(figures.into_iter().fold(measured, add).target(TARGET, GOAL))
}
