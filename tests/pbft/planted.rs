//! Shows that bugs are found, by giving the replicas some: by the simulator, and by the model.

use crate::{Arguments, model, run};
use coreflow::planted::{Bug, plant};
use std::{
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Seeds within which a bug must be found.
const WITHIN_SEEDS: u64 = 300;

/// Looks for all bugs; fails when one is not found.
pub fn find_all(arguments: &Arguments) -> ExitCode {
    let is_asked =
        |bug: &Bug| arguments.bug.as_ref().is_none_or(|name| *name == format!("{bug:?}"));
    let bugs: Vec<_> = Bug::PBFT.into_iter().filter(is_asked).collect();
    let (next, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_found(arguments, bug) {
                        missed.fetch_add(1, Ordering::Relaxed);
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

fn is_found(arguments: &Arguments, bug: Bug) -> bool {
    let seed = (0..WITHIN_SEEDS).find_map(|seed| find(arguments, bug, seed));
    match &seed {
        Some(text) => println!("found {bug:?}: {}", first_lines(text)),
        None => println!("MISSED {bug:?} in {WITHIN_SEEDS} seeds"),
    }
    let found = model::find(bug);
    match &found {
        Some(text) => println!("found {bug:?} in the model: {text}"),
        None => println!("MISSED {bug:?} in the model"),
    }
    seed.is_some() && found.is_some()
}

/// What a seed says of a bug; nothing when it fails without it as well.
fn find(arguments: &Arguments, bug: Bug, seed: u64) -> Option<String> {
    plant(Some(bug));
    let with = run(arguments, seed).err();
    plant(None);
    with.filter(|_| run(arguments, seed).is_ok())
}

/// Which seed and why, as far as a line goes.
fn first_lines(text: &str) -> String {
    let line: String = text.lines().take(2).collect::<Vec<_>>().join(" ");
    line.chars().take(240).collect()
}
