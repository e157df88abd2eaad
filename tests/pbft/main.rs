//! The simulator of Byzantine agreement: replicas, of which up to f lie as a seed tells them, their
//! disks, the network and clients, in one thread.
//!
//! First a phase in which messages are lost and replicas crash, then one in which nothing fails but the
//! liars go on: then all that was asked for must end, and all correct replicas agree.
//!
//! `cargo test --test pbft -- --seed N` replays one seed, `--trace` prints what happens, `--seeds A..B`
//! runs many, `--model` checks the view change under all choices of who hears what, in the order
//! of a script.

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
#[path = "../seeds/seals.rs"]
mod seals;
#[path = "../seeds/mod.rs"]
mod seeds;
#[path = "../sim/trace.rs"]
mod trace;
mod villain;
mod world;

use node::Scheme;
use std::process::ExitCode;
use world::{Options, Summary, World};

/// Seeds that run when none are named.
const SEEDS: u64 = 300;
/// Seeds of them that run by ed25519 as well, to the same end.
const SEEDS_SIGNED: u64 = 4;
/// Seconds of the phase in which things fail, when nobody says.
const FAULTY_SECONDS: u64 = 3;

const HELP: &str = "\
Usage: cargo test --test pbft -- [--seed N | --seeds A..B] [--seconds N] [--villain NAME] [--trace] [--twice] [--ed25519]
       cargo test --test pbft -- --model [--depth N]
       cargo test --features planted-bugs --test pbft -- --planted [--bug NAME]

  --seed N        runs one seed
  --seeds A..B    runs the seeds from A up to B
  --seconds N     simulated seconds in which things fail (3)
  --villain NAME  what the liars do in every seed, instead of what the seed says
  --trace         prints what happens
  --twice         runs each seed twice and compares the hashes of what happened
  --ed25519       signs as a node does, in five times the time
  --model         checks the view change of four replicas under all choices of who hears what
  --depth N       choices in a row that it looks at
  --planted       gives the replicas one bug after the other and looks for a seed that finds it
  --bug NAME      only this one of them";

/// What was asked for.
#[derive(Clone, Debug, Default)]
struct Arguments {
    seeds: Option<(u64, u64)>,
    seconds: Option<u64>,
    villain: Option<String>,
    prints: bool,
    twice: bool,
    ed25519: bool,
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
        match &*word {
            "--seed" => {
                let seed = seeds::number(&value()?)?;
                arguments.seeds = Some((seed, seed + 1));
            }
            "--seeds" => {
                let seeds = seeds::range(&value()?)?;
                arguments.seeds = Some((seeds.start, seeds.end));
            }
            "--seconds" => arguments.seconds = Some(seeds::number(&value()?)?),
            "--villain" => arguments.villain = Some(value()?),
            "--trace" => arguments.prints = true,
            "--twice" => arguments.twice = true,
            "--ed25519" => arguments.ed25519 = true,
            "--model" => arguments.model = true,
            "--depth" => arguments.depth = Some(seeds::number(&value()?)? as usize),
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
    let arguments = match seeds::asked(arguments()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if arguments.model {
        return model::run(arguments.depth);
    }
    seeds::keep_panics();
    if arguments.planted {
        return planted(&arguments);
    }
    let (from, to) = arguments.seeds.unwrap_or((0, SEEDS));
    let all: Vec<_> = (from..to).collect();
    let is_well = seeds::all(&all, |seed| run(&arguments, *seed), Summary::add);
    // Named seeds are replayed alone.
    if !is_well || arguments.seeds.is_some() {
        return seeds::code(is_well);
    }
    let signed: Vec<_> = (from..SEEDS_SIGNED).collect();
    if !seeds::all(&signed, |seed| run_signed(&arguments, *seed), Summary::add) {
        return seeds::code(false);
    }
    model::run(arguments.depth)
}

#[cfg(feature = "planted-bugs")]
fn planted(arguments: &Arguments) -> ExitCode {
    planted::find_all(arguments)
}

#[cfg(not(feature = "planted-bugs"))]
fn planted(_: &Arguments) -> ExitCode {
    seeds::no_bugs("pbft")
}

/// Runs a seed by either scheme of signatures; an error says that it is not the same.
fn run_signed(arguments: &Arguments, seed: u64) -> Result<Summary, String> {
    let sealed = run(arguments, seed)?;
    let signed = run(&Arguments { ed25519: true, ..arguments.clone() }, seed)?;
    match sealed == signed {
        true => Ok(signed),
        false => Err(format!(
            "seed {seed} is another by ed25519: {sealed:?}, {signed:?}\n  replay: cargo test --test pbft -- \
             --seed {seed} --trace, without and with --ed25519"
        )),
    }
}

/// Runs a seed; an error says how to see it again.
fn run(arguments: &Arguments, seed: u64) -> Result<Summary, String> {
    let seconds = arguments.seconds.unwrap_or(FAULTY_SECONDS);
    let villain = arguments.villain.clone();
    let scheme = if arguments.ed25519 { Scheme::Ed25519 } else { Scheme::Seals };
    let options = Options { seed, seconds, villain, prints: arguments.prints, scheme };
    let replay = |why: String| {
        let seconds = arguments.seconds.map(|n| format!(" --seconds {n}")).unwrap_or_default();
        let villain = arguments.villain.as_ref().map(|name| format!(" --villain {name}"));
        let ed25519 = if arguments.ed25519 { " --ed25519" } else { "" };
        format!(
            "seed {seed} fails: {why}\n  {}\n  replay: cargo test --test pbft -- --seed \
             {seed}{seconds}{}{ed25519} --trace",
            world::STORY.take(),
            villain.unwrap_or_default()
        )
    };
    seeds::run(seed, arguments.twice, || World::new(&options).run(), replay)
}
