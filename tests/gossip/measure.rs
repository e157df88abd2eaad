//! Prints how fast gossip is, and what it costs.

use crate::Arguments;
use coreflow::gossip::simulated::measure::{Plan, Times, quantile};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Nodes; worlds, changes in each and how many of them begin together, when nothing else is named.
const SIZES: [(usize, Times); 3] = [
    (60, Times { seeds: 0..1_000, each: 1, together: 1 }),
    (1_000, Times { seeds: 0..20, each: 50, together: 5 }),
    (10_000, Times { seeds: 0..2, each: 500, together: 25 }),
];
/// Of how many changes one has a kill beside it.
const CHANGES_A_KILL: usize = 4;

/// Most nodes of worlds in which nodes stand still, which takes a thousand rounds.
const PAUSED_MAX: usize = 1_000;

pub fn run(arguments: &Arguments) -> ExitCode {
    for (nodes, times) in SIZES {
        if arguments.nodes.is_some_and(|asked| asked != nodes) {
            continue;
        }
        measure(arguments, nodes, times);
    }
    if let Some(nodes) = arguments.nodes.filter(|asked| SIZES.iter().all(|(of, _)| of != asked)) {
        measure(arguments, nodes, Times::once(0..100));
    }
    ExitCode::SUCCESS
}

fn measure(arguments: &Arguments, nodes: usize, times: Times) {
    let seeds = arguments.seeds.map_or(times.seeds, |(from, to)| from..to);
    let each = arguments.each.unwrap_or(times.each);
    let together = arguments.together.unwrap_or(times.together);
    for loss in arguments.loss.map_or(vec![0.0, 0.1], |loss| vec![loss]) {
        let delay_ms = arguments.delay_ms.unwrap_or(3);
        let plan = Plan { nodes, loss, delay_ms, in_step: arguments.in_step };
        one(&plan, &Times { seeds: seeds.clone(), each, together });
    }
}

fn one(plan: &Plan, times: &Times) {
    let begun = Instant::now();
    let spreads = plan.spreads(times);
    let rounds = |part| quantile(&spreads.rounds, part);
    let [first, second, third, fourth, ..] = spreads.after.map(|part| 100.0 * part);
    println!(
        "{} nodes, {:.0} % lost, {} changes{}, {} together: all know after {} rounds (p50; p99 {}, most \
         {}; p50 {} ms); after 1, 2, 3, 4 rounds {first:.1} {second:.1} {third:.1} {fourth:.1} % \
         (medians); {:.0} bytes a node a round meanwhile ({:.1} s)",
        plan.nodes,
        100.0 * plan.loss,
        spreads.rounds.len(),
        if plan.in_step { " in step" } else { "" },
        times.together,
        rounds(0.5),
        rounds(0.99),
        rounds(1.0),
        quantile(&spreads.times_ms, 0.5),
        spreads.busy_bytes,
        begun.elapsed().as_secs_f64(),
    );
    let begun = Instant::now();
    let (bytes, datagrams) = plan.quiet(times.seeds.start, 30);
    let kills = match times.each {
        1 => Times::once(0..(times.seeds.end - times.seeds.start).div_ceil(CHANGES_A_KILL as u64)),
        each => Times { each: each.div_ceil(CHANGES_A_KILL), ..times.clone() },
    };
    let detections = plan.detections(&kills);
    let [suspect, dead] = [&detections.suspect_ms, &detections.dead_ms]
        .map(|of| [0.5, 0.99, 1.0].map(|part| quantile(of, part)));
    println!(
        "  a quiet round: {bytes:.0} bytes in {datagrams:.1} datagrams a node; {} kills: suspect after \
         {suspect:?} ms, dead everywhere after {dead:?} ms (p50, p99, most), {} others were suspect \
         ({:.1} s)",
        detections.dead_ms.len(),
        detections.suspected_falsely,
        begun.elapsed().as_secs_f64(),
    );
    if plan.nodes > PAUSED_MAX {
        return;
    }
    let seconds = 60;
    for pause_ms in [0, 150, 400] {
        let begun = Instant::now();
        let (time, pause) = (Duration::from_secs(seconds), Duration::from_millis(pause_ms));
        let (suspicions, deaths) = plan.false_suspicions(times.seeds.start, time, pause);
        println!(
            "  in {seconds} s, each node standing still for up to {pause_ms} ms every second: \
             {suspicions} false suspicions, {deaths} false deaths ({:.1} s)",
            begun.elapsed().as_secs_f64(),
        );
    }
}
