//! The simulator of Byzantine agreement: replicas, of which up to f lie as a seed tells them, their
//! disks, the network and clients, in one thread.
//!
//! First a phase in which messages are lost and replicas crash, then one in which nothing fails but the
//! liars go on: then all that was asked for must end, and all correct replicas agree.
//!
//! `cargo test --test pbft -- --seed N` replays one seed, `--trace` prints what happens, `--seeds A..B`
//! runs many, `--model` checks the view change under all orders of its messages.

mod clients;
mod disk;
mod faults;
mod model;
mod network;
mod node;
mod operation;
mod oracle;
#[cfg(feature = "planted-bugs")]
mod planted;
#[path = "../sim/trace.rs"]
mod trace;
mod villain;
mod world;

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
use world::{Options, Summary, World};

/// Seeds that run when none are named.
const SEEDS: u64 = 300;
/// Seconds of the phase in which things fail, when nobody says.
const FAULTY_SECONDS: u64 = 3;

const HELP: &str = "\
Usage: cargo test --test pbft -- [--seed N | --seeds A..B] [--seconds N] [--villain NAME] [--trace] [--twice]
       cargo test --test pbft -- --model [--depth N]
       cargo test --features planted-bugs --test pbft -- --planted [--bug NAME]

  --seed N        runs one seed
  --seeds A..B    runs the seeds from A up to B
  --seconds N     simulated seconds in which things fail (3)
  --villain NAME  what the liars do in every seed, instead of what the seed says
  --trace         prints what happens
  --twice         runs each seed twice and compares the hashes of what happened
  --model         checks the view change of four replicas under all orders of its messages
  --depth N       messages and time-outs in a row that it looks at
  --planted       gives the replicas one bug after the other and looks for a seed that finds it
  --bug NAME      only this one of them";

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
struct Arguments {
    seeds: Option<(u64, u64)>,
    seconds: Option<u64>,
    villain: Option<String>,
    prints: bool,
    twice: bool,
    model: bool,
    depth: Option<usize>,
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
            "--seconds" => arguments.seconds = Some(number(&value()?)?),
            "--villain" => arguments.villain = Some(value()?),
            "--trace" => arguments.prints = true,
            "--twice" => arguments.twice = true,
            "--model" => arguments.model = true,
            "--depth" => arguments.depth = Some(number(&value()?)? as usize),
            "--planted" => arguments.planted = true,
            "--bug" => arguments.bug = Some(value()?),
            "--help" => return Err(HELP.to_owned()),
            // What cargo tells the harness of unit tests.
            word if word.starts_with("--") => {}
            // A filter of tests.
            word if !"pbft".contains(word) => return Ok(None),
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
    if arguments.model {
        return model::run(arguments.depth);
    }
    panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
    if arguments.planted {
        return planted(&arguments);
    }
    let begun = Instant::now();
    let (from, to) = arguments.seeds.unwrap_or((0, SEEDS));
    let next = AtomicU64::new(from);
    let (all, failed) = (Mutex::new(Summary::default()), Mutex::new(Vec::new()));
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
            None => model::run(arguments.depth),
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
    eprintln!("no bugs are planted: cargo test --features planted-bugs --test pbft -- --planted");
    ExitCode::from(2)
}

/// Runs a seed; an error says how to see it again.
fn run(arguments: &Arguments, seed: u64) -> Result<Summary, String> {
    let seconds = arguments.seconds.unwrap_or(FAULTY_SECONDS);
    let villain = arguments.villain.clone();
    let options = Options { seed, seconds, villain, prints: arguments.prints };
    let run = || {
        let run = AssertUnwindSafe(|| World::new(&options).run());
        panic::catch_unwind(run).map_err(|_| {
            let seconds = arguments.seconds.map(|n| format!(" --seconds {n}")).unwrap_or_default();
            let villain = arguments.villain.as_ref().map(|name| format!(" --villain {name}"));
            format!(
                "seed {seed} fails: {}\n  {}\n  replay: cargo test --test pbft -- --seed \
                 {seed}{seconds}{} --trace",
                PANIC.take(),
                world::STORY.take(),
                villain.unwrap_or_default()
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
