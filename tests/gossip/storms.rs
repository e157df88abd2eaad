//! Which storms there are, and what they print.

use crate::{Arguments, storm::Plan};
use coreflow::gossip::simulated::measure::in_parallel;
use std::{process::ExitCode, time::Instant};

/// Nodes of the storms that are run when no number is named.
const SIZES: [usize; 3] = [60, 1_000, 10_000];
/// Nodes and seeds of those that every run of the tests has.
const SMALL: (usize, u64) = (60, 4);

/// Above so many nodes storms are shorter, with fewer kills and changes: what one of ten thousand nodes does
/// costs all others some work.
const LARGE: usize = 1_000;

/// Runs what was asked for.
pub fn run(arguments: &Arguments) -> ExitCode {
    let sizes = arguments.nodes.map_or(SIZES.to_vec(), |nodes| vec![nodes]);
    let (from, to) = arguments.seeds.unwrap_or((0, 1));
    let mut is_bad = false;
    for nodes in sizes {
        // One world after the other: large ones take gigabytes.
        for seed in from..to {
            let is_large = nodes > LARGE;
            let churn = if is_large { 1.0 } else { (nodes as f64 / 100.0).min(4.0) };
            let plan = Plan {
                nodes,
                seed,
                loss: arguments.loss.unwrap_or(0.1),
                delay_ms: arguments.delay_ms.unwrap_or(60),
                churn: arguments.churn.unwrap_or(churn),
                changes: arguments.changes.unwrap_or(if is_large { 5.0 } else { 10.0 }),
                partitions: arguments.partitions.unwrap_or(1),
                share: arguments.share.unwrap_or(0.3),
                seconds: arguments.seconds.unwrap_or(if is_large { 16 } else { 30 }),
            };
            is_bad |= one(&plan, arguments.twice);
        }
    }
    if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(plan: &Plan, twice: bool) -> bool {
    let begun = Instant::now();
    println!("{plan:?}");
    let outcome = crate::storm::run(plan);
    println!("  {outcome} ({:.1} s)", begun.elapsed().as_secs_f64());
    let is_same = !twice || crate::storm::run(plan) == outcome;
    if !is_same {
        println!("  the same seed gives another history");
    }
    outcome.is_bad() || !is_same
}

/// Runs small ones, of which nothing bad may come.
pub fn small() -> ExitCode {
    let (nodes, seeds) = SMALL;
    let plan = |seed| Plan {
        nodes,
        seed,
        loss: 0.1,
        delay_ms: 60,
        churn: 0.6,
        changes: 10.0,
        partitions: 2,
        share: 0.3,
        seconds: 40,
    };
    let outcomes = in_parallel(0..seeds, |seed| crate::storm::run(&plan(seed)));
    let mut is_bad = false;
    for (seed, outcome) in (0..).zip(outcomes) {
        println!("storm {seed} over {nodes} nodes: {outcome}");
        is_bad |= outcome.is_bad();
    }
    if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
