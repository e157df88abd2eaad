//! Shows that the simulator finds bugs, by giving the nodes some.

use crate::{
    Arguments, run,
    seeds::{self, planted},
};
use coreflow::planted::Bug;
use std::process::ExitCode;

/// Seeds within which a bug must be found.
const WITHIN_SEEDS: u64 = 300;

/// Looks for all bugs; fails when one is not found.
pub fn find_all(arguments: &Arguments) -> ExitCode {
    let bugs = Bug::GOSSIP.into_iter();
    let bugs = bugs.filter(|bug| planted::is_asked(*bug, arguments.bug.as_ref()));
    let bugs: Vec<_> = bugs.collect();
    let found = seeds::each(&bugs, |bug| {
        let found = planted::find(*bug, WITHIN_SEEDS, |seed| run(arguments, seed));
        found.map(|text| println!("{text}"))
    });
    seeds::code(found.iter().all(Option::is_some))
}
