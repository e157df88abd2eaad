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
mod storm;
mod storms;

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

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
                with 10,000 it takes half an hour of one core and 9 GiB, a fifth less with huge pages:
                GLIBC_TUNABLES=glibc.malloc.hugetlb=1
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

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

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
        let number = |text: &str| {
            text.replace('_', "").parse::<u64>().map_err(|_| format!("{text:?} is no number"))
        };
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
                let seed = number(&value()?)?;
                arguments.seeds = Some((seed, seed + 1));
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or("--seeds wants A..B")?;
                arguments.seeds = Some((number(from)?, number(to)?));
            }
            "--nodes" => arguments.nodes = Some(number(&value()?)? as usize),
            "--loss" => arguments.loss = Some(part(&value()?)?),
            "--delay" => arguments.delay_ms = Some(number(&value()?)?),
            "--churn" => arguments.churn = Some(decimal(&value()?)?),
            "--changes" => arguments.changes = Some(decimal(&value()?)?),
            "--partitions" => arguments.partitions = Some(number(&value()?)?),
            "--share" => arguments.share = Some(part(&value()?)?),
            "--seconds" => arguments.seconds = Some(number(&value()?)?),
            "--each" => arguments.each = Some(number(&value()?)? as usize),
            "--together" => arguments.together = Some(number(&value()?)? as usize),
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
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if arguments.measures {
        return measure::run(&arguments);
    }
    if arguments.storms {
        return storms::run(&arguments);
    }
    panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
    if arguments.planted {
        return planted(&arguments);
    }
    let begun = Instant::now();
    let (from, to) = arguments.seeds.unwrap_or((0, SEEDS));
    let next = AtomicU64::new(from);
    let (all, failed) = (Mutex::new(faults::Summary::default()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    match run(&arguments, seed) {
                        Ok(summary) => all.lock().expect("no panic").add(&summary),
                        Err(text) => {
                            println!("{text}");
                            failed.lock().expect("no panic").push(seed);
                        }
                    }
                }
            });
        }
    });
    let all = all.into_inner().expect("no panic");
    println!("{} seeds in {:.1} s: {all:?}", to - from, begun.elapsed().as_secs_f64());
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort_unstable();
    if failed.is_empty() {
        // Named seeds are replayed alone.
        return match arguments.seeds {
            Some(_) => ExitCode::SUCCESS,
            None => storms::small(),
        };
    }
    println!("{} seeds failed: {failed:?}", failed.len());
    ExitCode::FAILURE
}

#[cfg(feature = "planted-bugs")]
fn planted(arguments: &Arguments) -> ExitCode {
    planted::find_all(arguments)
}

#[cfg(not(feature = "planted-bugs"))]
fn planted(_: &Arguments) -> ExitCode {
    eprintln!("no bugs are planted: cargo test --features planted-bugs --test gossip -- --planted");
    ExitCode::from(2)
}

/// Runs a seed; an error says how to see it again.
fn run(arguments: &Arguments, seed: u64) -> Result<faults::Summary, String> {
    let nodes = arguments.nodes;
    let run = || {
        let run = AssertUnwindSafe(|| faults::run(seed, nodes, arguments.prints));
        panic::catch_unwind(run).map_err(|_| {
            let nodes = nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
            format!(
                "seed {seed} fails: {}\n  replay: cargo test --test gossip -- --seed {seed}{nodes} \
                 --trace",
                PANIC.take()
            )
        })
    };
    let summary = run()?;
    if arguments.twice {
        let again = run()?;
        if again != summary {
            return Err(format!("seed {seed} is not the same twice: {summary:?}, {again:?}"));
        }
    }
    Ok(summary)
}
