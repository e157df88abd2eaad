//! Shows that the simulator finds bugs, by giving the nodes some.

use crate::{Arguments, log::Protocol, run};
use coreflow::planted::{Bug, plant};
use std::{
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Seeds within which a bug must be found.
const WITHIN_SEEDS: u64 = 3_000;

/// Looks for all bugs; fails when one is not found.
pub fn find_all(arguments: &Arguments) -> ExitCode {
    let raft = Bug::ALL.into_iter().map(|bug| (bug, Protocol::Raft));
    let pbft = Bug::AGREED.into_iter().map(|bug| (bug, Protocol::Pbft));
    let is_asked = |(bug, protocol): &(Bug, Protocol)| {
        let is_named = arguments.bug.as_ref().is_none_or(|name| *name == format!("{bug:?}"));
        is_named && (!arguments.pbft || *protocol == Protocol::Pbft)
    };
    let bugs: Vec<_> = raft.chain(pbft).filter(is_asked).collect();
    let (next, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(bug, protocol)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match (0..WITHIN_SEEDS).find_map(|seed| find(arguments, bug, protocol, seed)) {
                        Some(text) => println!("found {bug:?}: {}", first_lines(&text)),
                        None => {
                            println!("MISSED {bug:?} by {protocol:?} in {WITHIN_SEEDS} seeds");
                            missed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    match missed.into_inner() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What a seed says of a bug; nothing when it fails without it as well.
fn find(arguments: &Arguments, bug: Bug, protocol: Protocol, seed: u64) -> Option<String> {
    plant(Some(bug));
    let with = run(arguments, seed, protocol, arguments.sound).err();
    plant(None);
    with.filter(|_| run(arguments, seed, protocol, arguments.sound).is_ok())
}

/// Which seed and step, and why, as far as a line goes.
fn first_lines(text: &str) -> String {
    let mut line: String = text.lines().take(2).collect::<Vec<_>>().join(" ");
    line.truncate(
        (0..=240.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0),
    );
    line
}
