//! Shows that the simulator finds bugs, by giving the nodes some.

use crate::{
    Arguments,
    log::Protocol,
    run,
    seeds::{self, planted},
};
use coreflow::planted::Bug;
use std::process::ExitCode;

/// Seeds within which a bug must be found.
const WITHIN_SEEDS: u64 = 3_000;

/// Looks for all bugs; fails when one is not found.
pub fn find_all(arguments: &Arguments) -> ExitCode {
    let raft = Bug::ALL.into_iter().map(|bug| (bug, Protocol::Raft));
    let pbft = Bug::AGREED.into_iter().chain(Bug::LIED).map(|bug| (bug, Protocol::Pbft));
    let is_asked = |(bug, protocol): &(Bug, Protocol)| {
        planted::is_asked(*bug, arguments.bug.as_ref())
            && (!arguments.pbft || *protocol == Protocol::Pbft)
    };
    let bugs: Vec<_> = raft.chain(pbft).filter(is_asked).collect();
    let found = seeds::each(&bugs, |(bug, protocol)| {
        let run = |seed| run(arguments, seed, *protocol, arguments.sound);
        let found = planted::find(*bug, WITHIN_SEEDS, run);
        found.map(|text| println!("{text}")).map_err(|text| format!("{text} by {protocol:?}"))
    });
    seeds::code(found.iter().all(Option::is_some))
}
