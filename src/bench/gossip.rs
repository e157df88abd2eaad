//! `gossip_convergence`: in how many rounds a change is known by all nodes, what a quiet round costs,
//! and how soon a death is known, by the gossip of many nodes in one thread over a network that delays
//! and loses. The rounds of the nodes begin at moments of their own, and a round counts from the
//! change.

use super::{Effort, Measured};
use crate::gossip::simulated::measure::{Plan, Spreads, Times, quantile};

/// Changes in each world and how many of them begin together, for each size.
const WAVES: [(usize, usize); 3] = [(1, 1), (50, 5), (40, 10)];
/// Nodes, worlds at full and at quick effort, and the names of the figures.
const SIZES: [(usize, (u64, u64), [&str; 5]); 3] = [
    (
        60,
        (1_000, 100),
        [
            "rounds_p50_of_60",
            "rounds_p99_of_60",
            "rounds_p50_of_60_with_loss",
            "rounds_p99_of_60_with_loss",
            "quiet_bytes_a_round_of_60",
        ],
    ),
    (
        1_000,
        (20, 2),
        [
            "rounds_p50_of_1000",
            "rounds_p99_of_1000",
            "rounds_p50_of_1000_with_loss",
            "rounds_p99_of_1000_with_loss",
            "quiet_bytes_a_round_of_1000",
        ],
    ),
    (
        10_000,
        (2, 0),
        [
            "rounds_p50_of_10000",
            "rounds_p99_of_10000",
            "rounds_p50_of_10000_with_loss",
            "rounds_p99_of_10000_with_loss",
            "quiet_bytes_a_round_of_10000",
        ],
    ),
];
/// Most rounds until all know it, for each size; a tenth lost adds at most one.
const ROUNDS_MAX: [u64; 3] = [3, 4, 5];
/// The part of sixty nodes that is to know a change after two rounds.
const AFTER_TWO_MIN: f64 = 0.98;
/// The part of the datagrams that is lost where some are.
const LOSS: f64 = 0.1;
/// Kills of one of sixty nodes, at full and at quick effort.
const KILLS: (u64, u64) = (100, 4);
/// The longest time until a death is known everywhere, milliseconds.
const DEAD_MS_MAX: u64 = 2_000;
/// Rounds of which a quiet one is the average.
const QUIET_ROUNDS: u64 = 20;

/// Measures `gossip_convergence`; `tell` hears of its sizes.
pub(super) fn run(effort: &Effort, tell: &mut dyn FnMut(&str)) -> Measured {
    let from = effort.seed.unwrap_or(0);
    let mut measured = Measured::counts("gossip_convergence");
    let mut is_met = true;
    let sizes = SIZES.into_iter().zip(WAVES).zip(ROUNDS_MAX);
    for (((nodes, seeds, names), (each, together)), rounds_max) in sizes {
        let seeds = from..from + effort.choose(seeds);
        if seeds.is_empty() {
            continue;
        }
        tell(&format!("gossip_convergence of {nodes} nodes"));
        let plan = Plan { nodes, loss: 0.0, delay_ms: 3, in_step: false };
        let lossy = Plan { loss: LOSS, ..plan.clone() };
        let times = Times { seeds, each, together };
        let (well, lost) = (plan.spreads(&times), lossy.spreads(&times));
        let rounds = |of: &Spreads, part| quantile(&of.rounds, part);
        is_met &= rounds(&well, 0.5) <= rounds_max;
        is_met &= rounds(&lost, 0.5) <= rounds(&well, 0.5) + 1;
        measured = measured
            .with(names[0], rounds(&well, 0.5))
            .with(names[1], rounds(&well, 0.99))
            .with(names[2], rounds(&lost, 0.5))
            .with(names[3], rounds(&lost, 0.99))
            .with_value(names[4], plan.quiet(from, QUIET_ROUNDS).0.round());
        if nodes == SIZES[0].0 {
            is_met &= well.after[1] >= AFTER_TWO_MIN;
            let kills = plan.detections(&Times::once(from..from + effort.choose(KILLS)));
            let (suspect_ms, dead_ms) = (kills.suspect_ms, kills.dead_ms);
            is_met &= quantile(&dead_ms, 1.0) <= DEAD_MS_MAX;
            measured = measured
                .with("changes_of_60", well.rounds.len() as u64)
                .with_exact("known_after_two_pct", 100.0 * well.after[1])
                .with("suspect_ms_p50", quantile(&suspect_ms, 0.5))
                .with("dead_ms_p50", quantile(&dead_ms, 0.5))
                .with("dead_ms_max", quantile(&dead_ms, 1.0));
        }
    }
    measured.at_most(SIZES[0].2[0], 2.0, ROUNDS_MAX[0] as f64).with_truth("goal_met", is_met)
}
