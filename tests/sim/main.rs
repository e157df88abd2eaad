//! The simulator: the log threads and shards of a cluster, their disks, the network and clients, in
//! one thread, moved by a seed.
//!
//! `cargo test --test sim -- --seed N` replays one seed, `--trace` prints what happens,
//! `--seeds A..B` runs many. What it says of a seed that fails replays it.

mod check;
mod clients;
mod faults;
mod liar;
mod log;
mod network;
mod node;
mod operator;
mod oracle;
#[cfg(feature = "planted-bugs")]
mod planted;
#[path = "../seeds/seals.rs"]
mod seals;
#[path = "../seeds/mod.rs"]
mod seeds;
mod trace;
mod wear;
mod world;

use log::Protocol::{self, Pbft, Raft};
use std::process::ExitCode;
use world::{Options, STEPS, Summary, World};

/// Seeds that run when none are named.
const SEEDS: u64 = 300;
/// Seeds beside them with nodes that agree by PBFT.
const PBFT_SEEDS: u64 = 60;
/// Steps of the phase in which things fail, when nobody says.
const STEPS_A_SEED: u64 = 4_000;
/// Seeds that failed once, with disks that last: a node that was to join turned away who led the
/// partition.
const REGRESSIONS: [u64; 5] = [1_480, 7_670, 22_340, 23_543, 23_732];
/// Seeds that failed with disks that fail: a node that was away turned away one that had joined and
/// led meanwhile, and one that was taken out did not find out.
const WORN_REGRESSIONS: [u64; 2] = [247, 8_264];

const HELP: &str = "\
Usage: cargo test --test sim -- [--seed N | --seeds A..B] [--steps N] [--pbft] [--sound] [--trace] [--twice]

  --seed N      runs one seed
  --seeds A..B  runs the seeds from A up to B
  --steps N     steps in which things fail (4000)
  --pbft        nodes agree by PBFT, not by Raft
  --sound       disks last, and messages come once
  --trace       prints what happens
  --twice       runs each seed twice and compares the hashes of what happened
  --planted     gives the nodes one bug after the other and looks for a seed that finds it
                (with cargo's --features planted-bugs)
  --bug NAME    only this one of them";

struct Arguments {
    /// Seeds, by which protocol, and whether disks last.
    seeds: Vec<(u64, Protocol, bool)>,
    steps: u64,
    prints: bool,
    twice: bool,
    planted: bool,
    /// Nodes agree by PBFT in all seeds.
    pbft: bool,
    /// Disks last in all seeds.
    sound: bool,
    bug: Option<String>,
}

fn arguments() -> Result<Option<Arguments>, String> {
    let regressions = REGRESSIONS.into_iter().map(|seed| (seed, Raft, true));
    let seeds = WORN_REGRESSIONS.into_iter().chain(0..SEEDS).map(|seed| (seed, Raft, false));
    let agreed = (0..PBFT_SEEDS).map(|seed| (seed, Pbft, false));
    let mut arguments = Arguments {
        seeds: regressions.chain(seeds).chain(agreed).collect(),
        steps: STEPS_A_SEED,
        prints: false,
        twice: false,
        planted: false,
        pbft: false,
        sound: false,
        bug: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match &*word {
            "--seed" => arguments.seeds = vec![(seeds::number(&value()?)?, Raft, false)],
            "--seeds" => {
                let seeds = seeds::range(&value()?)?;
                arguments.seeds = seeds.map(|seed| (seed, Raft, false)).collect();
            }
            "--pbft" => arguments.pbft = true,
            "--sound" => arguments.sound = true,
            "--steps" => arguments.steps = seeds::number(&value()?)?,
            "--trace" => arguments.prints = true,
            "--twice" => arguments.twice = true,
            "--planted" => arguments.planted = true,
            "--bug" => arguments.bug = Some(value()?),
            "--help" => return Err(HELP.to_owned()),
            // What cargo tells the harness of unit tests.
            word if word.starts_with("--") => {}
            // A filter of tests.
            word if !"sim".contains(word) => return Ok(None),
            _ => {}
        }
    }
    let sound = arguments.sound;
    arguments.seeds.iter_mut().for_each(|(.., is_sound)| *is_sound |= sound);
    if arguments.pbft {
        arguments.seeds.iter_mut().for_each(|(_, protocol, _)| *protocol = Pbft);
    }
    Ok(Some(arguments))
}

fn main() -> ExitCode {
    let arguments = match seeds::asked(arguments()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    seeds::keep_panics();
    if arguments.planted {
        return planted(&arguments);
    }
    let run =
        |(seed, protocol, sound): &(u64, Protocol, bool)| run(&arguments, *seed, *protocol, *sound);
    seeds::code(seeds::all(&arguments.seeds, run, Summary::add))
}

#[cfg(feature = "planted-bugs")]
fn planted(arguments: &Arguments) -> ExitCode {
    planted::find_all(arguments)
}

#[cfg(not(feature = "planted-bugs"))]
fn planted(_: &Arguments) -> ExitCode {
    seeds::no_bugs("sim")
}

/// Runs a seed; an error says how to see it again.
fn run(
    arguments: &Arguments,
    seed: u64,
    protocol: Protocol,
    sound: bool,
) -> Result<Summary, String> {
    let Arguments { steps, prints, .. } = *arguments;
    let options = Options { seed, protocol, steps, prints, sound };
    let replay = |why: String| {
        let steps = STEPS.get();
        let steps_asked = match arguments.steps {
            STEPS_A_SEED => String::new(),
            steps => format!(" --steps {steps}"),
        };
        let sound = if sound { " --sound" } else { "" };
        let pbft = if protocol == Pbft { " --pbft" } else { "" };
        // Without them nobody lies: the seed is another run.
        let features = if cfg!(feature = "planted-bugs") { " --features planted-bugs" } else { "" };
        format!(
            "{protocol:?} seed {seed} fails at step {steps}: {why}\n  replay: cargo test{features} --test sim -- \
             --seed {seed}{steps_asked}{pbft}{sound} --trace"
        )
    };
    seeds::run(seed, arguments.twice, || World::new(options).run(), replay)
}
