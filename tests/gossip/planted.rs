//! Shows that the simulator finds bugs, by giving the nodes some.

use crate::{Arguments, run};
use coreflow::planted::{Bug, plant};
use std::process::ExitCode;

/// Seeds within which a bug must be found.
const WITHIN_SEEDS: u64 = 300;

/// Looks for all bugs; fails when one is not found.
pub fn find_all(arguments: &Arguments) -> ExitCode {
    let is_asked =
        |bug: &Bug| arguments.bug.as_ref().is_none_or(|name| *name == format!("{bug:?}"));
    let mut missed = 0;
    for bug in Bug::GOSSIP.into_iter().filter(is_asked) {
        match (0..WITHIN_SEEDS).find_map(|seed| find(arguments, bug, seed)) {
            Some(text) => println!("found {bug:?}: {}", text.lines().next().unwrap_or_default()),
            None => {
                println!("MISSED {bug:?} in {WITHIN_SEEDS} seeds");
                missed += 1;
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a seed says of a bug; nothing when it fails without it as well.
fn find(arguments: &Arguments, bug: Bug, seed: u64) -> Option<String> {
    plant(Some(bug));
    let with = run(arguments, seed).err();
    plant(None);
    with.filter(|_| run(arguments, seed).is_ok())
}
