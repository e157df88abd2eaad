//! A node that lies, where the nodes agree by PBFT: the product's own for tests
//! (`consensus/agreement/byzantine.rs`), which builds with planted bugs have.
//!
//! It orders copies of tasks that say something else or that never were, or frees nothing of the log and fills
//! it. What is true of a run without it stays true: it is replaced, and what the doors of all nodes have
//! acknowledged ends once, as what it was. It goes on when nothing fails any more: what it orders and nobody
//! takes part in has it replaced, though no door asks for anything.

use crate::log::Protocol;

/// Ways to lie.
#[cfg(feature = "planted-bugs")]
const LIES: [&str; 4] = ["contents", "hoard", "copies", "contents,hoard"];

/// Which of so many nodes lies in a run, and how; in some none does.
#[cfg(feature = "planted-bugs")]
pub fn choose(seed: u64, protocol: Protocol, nodes: u64) -> Option<(u64, &'static str)> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x11a5);
    let lies = protocol == Protocol::Pbft && rng.u32(..3) > 0;
    lies.then(|| (rng.u64(1..=nodes), LIES[rng.usize(..LIES.len())]))
}

/// The same: without planted bugs nobody does.
#[cfg(not(feature = "planted-bugs"))]
pub fn choose(_: u64, _: Protocol, _: u64) -> Option<(u64, &'static str)> {
    None
}

/// How the replicas lie that are made next.
#[cfg(feature = "planted-bugs")]
pub fn lie(lies: Option<&'static str>) {
    coreflow::consensus::agreement::byzantine::plant(Some(lies.unwrap_or_default()));
}

/// The same: they do not.
#[cfg(not(feature = "planted-bugs"))]
pub fn lie(_: Option<&'static str>) {}
