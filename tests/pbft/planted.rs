//! Shows that bugs are found, by giving the replicas some: by the simulator, and by the model.

use crate::{
    Arguments, model, run,
    seeds::{self, planted},
};
use coreflow::planted::Bug;
use std::process::ExitCode;

/// Seeds within which a bug must be found.
const WITHIN_SEEDS: u64 = 300;

/// Looks for all bugs; fails when one is not found.
pub fn find_all(arguments: &Arguments) -> ExitCode {
    let bugs = Bug::PBFT.into_iter().chain(Bug::PBFT_SIMULATED);
    let bugs = bugs.filter(|bug| planted::is_asked(*bug, arguments.bug.as_ref()));
    let bugs: Vec<_> = bugs.collect();
    let found = seeds::each(&bugs, |bug| find(arguments, *bug));
    seeds::code(found.iter().all(Option::is_some))
}

fn find(arguments: &Arguments, bug: Bug) -> Result<(), String> {
    let seed = planted::find(bug, WITHIN_SEEDS, |seed| run(arguments, seed));
    seed.as_ref().into_iter().for_each(|text| println!("{text}"));
    let found = Bug::PBFT.contains(&bug).then(|| model::find(bug));
    let found = found.map(|text| text.map(|text| println!("found {bug:?} in the model: {text}")));
    let missed = (found == Some(None)).then(|| format!("MISSED {bug:?} in the model"));
    let missed: Vec<_> = seed.err().into_iter().chain(missed).collect();
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n")) }
}
