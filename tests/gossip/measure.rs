//! Prints how fast gossip is, and what it costs.

use crate::Arguments;
use coreflow::gossip::simulated::measure::{Plan, quantile};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Nodes, and the seeds that run when none are named.
const SIZES: [(usize, u64); 3] = [(60, 1_000), (1_000, 100), (10_000, 4)];
/// Of how many seeds one measures a kill as well.
const SEEDS_A_KILL: u64 = 4;

pub fn run(arguments: &Arguments) -> ExitCode {
    let sizes = match arguments.nodes {
        Some(nodes) => vec![(nodes, 100)],
        None => SIZES.to_vec(),
    };
    for (nodes, seeds) in sizes {
        for loss in arguments.loss.map_or(vec![0.0, 0.1], |loss| vec![loss]) {
            let plan = Plan { nodes, loss, in_step: arguments.in_step };
            one(&plan, arguments.seeds.unwrap_or((0, seeds)));
        }
    }
    ExitCode::SUCCESS
}

fn one(plan: &Plan, (from, to): (u64, u64)) {
    let begun = Instant::now();
    let spreads = plan.spreads(from..to);
    let rounds = |part| quantile(&spreads.rounds, part);
    let [first, second, third, fourth, ..] = spreads.after.map(|part| 100.0 * part);
    println!(
        "{} nodes, {:.0} % lost, {} changes{}: all know after {} rounds (p50; p99 {}, most {}; \
         p50 {} ms); after 1, 2, 3, 4 rounds {first:.1} {second:.1} {third:.1} {fourth:.1} % \
         (medians); {:.0} bytes a node until it is quiet ({:.1} s)",
        plan.nodes,
        100.0 * plan.loss,
        to - from,
        if plan.in_step { " in step" } else { "" },
        rounds(0.5),
        rounds(0.99),
        rounds(1.0),
        quantile(&spreads.times_ms, 0.5),
        spreads.bytes_a_node,
        begun.elapsed().as_secs_f64(),
    );
    let begun = Instant::now();
    let (bytes, datagrams) = plan.quiet(from, 30);
    let kills = ((to - from) / SEEDS_A_KILL).max(1);
    let (suspect_ms, dead_ms) = plan.detections(from..from + kills);
    println!(
        "  a quiet round: {bytes:.0} bytes in {datagrams:.1} datagrams a node; {kills} kills: suspect \
         after {} ms (p50; most {}), dead everywhere after {} ms (p50; most {}) ({:.1} s)",
        quantile(&suspect_ms, 0.5),
        quantile(&suspect_ms, 1.0),
        quantile(&dead_ms, 0.5),
        quantile(&dead_ms, 1.0),
        begun.elapsed().as_secs_f64(),
    );
    if plan.nodes <= 1_000 {
        let time = Duration::from_secs(60);
        for pause_ms in [150, 400] {
            let pause = Duration::from_millis(pause_ms);
            let (suspicions, deaths) = plan.false_suspicions(from, time, pause);
            println!(
                "  in 60 s, each node standing still for up to {pause_ms} ms every second: \
                 {suspicions} false suspicions, {deaths} false deaths"
            );
        }
    }
}
