//! The simulator of gossip: many nodes in one thread, under faults that a seed chooses, until they are
//! mended and all have to agree; and how fast and how cheap it is at any size.
//!
//! `cargo test --test gossip -- --seed N` replays one seed, `--trace` prints what happens,
//! `--seeds A..B` runs many. `--storm` lets worlds of any size storm, and `--measure` prints figures;
//! with `--release --test gossip`, both go up to 10,000 nodes.

mod faults;
mod healing;
mod measure;
#[cfg(feature = "planted-bugs")]
mod planted;
#[path = "../seeds/mod.rs"]
mod seeds;
mod storm;
mod storms;

use std::process::ExitCode;

/// The allocator of the program: what ten thousand nodes allocate in turn, glibc's scatters.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds that run when none are named.
const SEEDS: u64 = 60;

const HELP: &str = "\
Usage: cargo test --test gossip -- [--seed N | --seeds A..B] [--nodes N] [--trace] [--twice]
       cargo test --release --test gossip -- --storm [--nodes N] [--seeds A..B] [--loss PART]
           [--delay MS] [--churn N] [--changes N] [--partitions N] [--share PART] [--seconds N]
       cargo test --release --test gossip -- --measure [--nodes N] [--seeds A..B] [--each N]
           [--together N] [--loss PART] [--delay MS] [--in-step]

  --seed N      runs one seed
  --seeds A..B  runs the seeds from A up to B
  --nodes N     nodes of each world (3 to 16, as the seed chooses)
  --trace       prints what happens
  --twice       runs each seed twice and compares the histories
  --storm       loses and delays datagrams, kills nodes and starts them again, cuts parts of the network
                off, and mends all; prints what was noticed when, what was noticed falsely, bytes a node
                a round, and when all agreed. 60, 1,000 and 10,000 nodes unless --nodes names a number;
                with 10,000 it takes a quarter of an hour of one core and more, and 4 GiB
    --delay MS      the longest that a datagram is under way (60; 3 for --measure)
    --churn N       kills a second; a killed node starts again after 6 s (a hundredth of the nodes,
                    at most 4; 1 above 1,000 nodes)
    --changes N     changed values a second (10; 5 above 1,000 nodes)
    --partitions N  how often a part of the nodes is cut off, for a quarter of the time in between (1)
    --share PART    which part (0.3)
    --seconds N     how long things fail (30; 16 above 1,000 nodes)
  --measure     prints how many rounds a change takes, with 60, 1,000 and 10,000 nodes unless --nodes
                names another number; bytes of a round; and the time to notice a death
    --each N        changes in each world, and a quarter as many kills
    --together N    of which so many begin in the same round
    --in-step       with all nodes' rounds at the same moments
  --loss PART   the part of the datagrams that is lost (0.1; without it --measure does 0 and 0.1)
  --planted     gives the nodes one bug after the other and looks for a seed that finds it
                (with cargo's --features planted-bugs)
  --bug NAME    only this one of them";

/// What was asked for.
#[derive(Clone, Debug, Default)]
struct Arguments {
    seeds: Option<(u64, u64)>,
    nodes: Option<usize>,
    loss: Option<f64>,
    delay_ms: Option<u64>,
    churn: Option<f64>,
    changes: Option<f64>,
    partitions: Option<u64>,
    share: Option<f64>,
    seconds: Option<u64>,
    each: Option<usize>,
    together: Option<usize>,
    in_step: bool,
    prints: bool,
    twice: bool,
    storms: bool,
    measures: bool,
    planted: bool,
    bug: Option<String>,
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let decimal = |text: &str| {
            let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0);
            number.ok_or(format!("{text:?} is no number"))
        };
        let part = |text: &str| {
            let part = decimal(text)?;
            if part <= 1.0 { Ok(part) } else { Err(format!("{text:?} is no part of one")) }
        };
        match &*word {
            "--seed" => {
                let seed = seeds::number(&value()?)?;
                arguments.seeds = Some((seed, seed + 1));
            }
            "--seeds" => {
                let seeds = seeds::range(&value()?)?;
                arguments.seeds = Some((seeds.start, seeds.end));
            }
            "--nodes" => arguments.nodes = Some(seeds::number(&value()?)? as usize),
            "--loss" => arguments.loss = Some(part(&value()?)?),
            "--delay" => arguments.delay_ms = Some(seeds::number(&value()?)?),
            "--churn" => arguments.churn = Some(decimal(&value()?)?),
            "--changes" => arguments.changes = Some(decimal(&value()?)?),
            "--partitions" => arguments.partitions = Some(seeds::number(&value()?)?),
            "--share" => arguments.share = Some(part(&value()?)?),
            "--seconds" => arguments.seconds = Some(seeds::number(&value()?)?),
            "--each" => arguments.each = Some(seeds::number(&value()?)? as usize),
            "--together" => arguments.together = Some(seeds::number(&value()?)? as usize),
            "--storm" => arguments.storms = true,
            "--in-step" => arguments.in_step = true,
            "--trace" => arguments.prints = true,
            "--twice" => arguments.twice = true,
            "--measure" => arguments.measures = true,
            "--planted" => arguments.planted = true,
            "--bug" => arguments.bug = Some(value()?),
            "--help" => return Err(HELP.to_owned()),
            // What cargo tells the harness of unit tests.
            word if word.starts_with("--") => {}
            // A filter of tests.
            word if !"gossip".contains(word) => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(arguments))
}

fn main() -> ExitCode {
    let arguments = match seeds::asked(arguments()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if arguments.measures {
        return measure::run(&arguments);
    }
    if arguments.storms {
        return storms::run(&arguments);
    }
    seeds::keep_panics();
    if arguments.planted {
        return planted(&arguments);
    }
    let (from, to) = arguments.seeds.unwrap_or((0, SEEDS));
    let all: Vec<_> = (from..to).collect();
    let is_well = seeds::all(&all, |seed| run(&arguments, *seed), faults::Summary::add);
    // Named seeds are replayed alone.
    if !is_well || arguments.seeds.is_some() {
        return seeds::code(is_well);
    }
    storms::small()
}

#[cfg(feature = "planted-bugs")]
fn planted(arguments: &Arguments) -> ExitCode {
    planted::find_all(arguments)
}

#[cfg(not(feature = "planted-bugs"))]
fn planted(_: &Arguments) -> ExitCode {
    seeds::no_bugs("gossip")
}

/// Runs a seed; an error says how to see it again.
fn run(arguments: &Arguments, seed: u64) -> Result<faults::Summary, String> {
    let nodes = arguments.nodes;
    let replay = |why: String| {
        let nodes = nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        format!(
            "seed {seed} fails: {why}\n  replay: cargo test --test gossip -- --seed {seed}{nodes} \
             --trace"
        )
    };
    seeds::run(seed, arguments.twice, || faults::run(seed, nodes, arguments.prints), replay)
}
