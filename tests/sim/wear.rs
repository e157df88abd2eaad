//! What goes wrong with disks: writes, syncs and reads that fail, power that is lost with what was
//! in a disk's cache only, and bits that turn.
//!
//! What is asserted of a bit that turns, at rest or under a node that runs:
//! - A reading of the log names the damage and its file, or finds all that there was: the bit lay
//!   in nothing that is used. It never finds anything else.
//! - What was written last is excepted: damage there looks like a write that was cut off.
//! - A node with such a log serves nothing that was changed; it ends when it meets the damage, does
//!   not start again, and stays out. As long as that is a minority, the others lose nothing.

use crate::{
    faults::crash,
    network::Network,
    node::{AtStart, Node},
    trace::{Trace, note},
};
use coreflow::consensus::{
    disk::Disk, format::segment_name, simulated::SimulatedDisk, survey::survey,
};
use std::collections::BTreeMap;

/// Bits that turn at the same time.
const BITS_MAX: usize = 32;
/// Tries to find a bit that is not in what was written last.
const TRIES: usize = 16;

/// Which faults of disks a run has, each as how many of a hundred thousand steps begin one.
#[derive(Debug)]
pub struct Wear {
    rng: fastrand::Rng,
    chances: Chances,
    /// Nodes whose disks may be damaged for good.
    most_rotten: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Chances {
    /// The power is lost between two turns.
    power: u32,
    /// The next write fails.
    write: u32,
    /// One of the next reads fails.
    read: u32,
    /// A sync or a read of the next start fails.
    start: u32,
    /// Bits turn.
    rot: u32,
}

/// What a reading of a log comes to.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    /// A hash of all of it.
    Whole(u64),
    /// The files and what is wrong with them.
    Damaged(Vec<(String, String)>),
}

impl Wear {
    /// Disks that last.
    pub fn none() -> Self {
        let rng = fastrand::Rng::with_seed(0);
        Self { rng, chances: Chances::default(), most_rotten: 0 }
    }

    /// Some kinds of wear, as often as it comes. So many nodes may be damaged for good: of others,
    /// damage must only be found.
    pub fn random(seed: u64, most_rotten: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut often = |most: u32| if rng.u32(..3) == 0 { 0 } else { rng.u32(1..=most) };
        let chances = Chances {
            power: often(150),
            write: often(200),
            read: often(150),
            start: often(150),
            rot: often(100),
        };
        Self { rng, chances, most_rotten }
    }

    /// Perhaps something goes wrong.
    pub fn strike(&mut self, nodes: &mut [Node], network: &Network, trace: &Trace) {
        let Self { rng, chances, most_rotten } = self;
        let mut dice = rng.u32(..100_000);
        let mut is_it = |chance: u32| {
            let hit = dice < chance;
            dice = if hit { u32::MAX } else { dice - chance };
            hit
        };
        let at = rng.usize(..nodes.len());
        let id = nodes[at].id;
        if is_it(chances.power) {
            note!(trace, "wear: {id} loses its power");
            crash(&mut nodes[at], network);
            nodes[at].disk.lose_power(rng.u64(..));
        } else if is_it(chances.write) {
            note!(trace, "wear: the next write of {id} fails");
            nodes[at].disk.fail_next_write(rng.u64(..));
        } else if is_it(chances.read) {
            let reads = rng.u64(..8);
            note!(trace, "wear: {id} fails to read after {reads} reads");
            nodes[at].disk.fail_read_after(reads);
        } else if is_it(chances.start) {
            let fault = match rng.bool() {
                true => AtStart::SyncFails,
                false => AtStart::ReadFails(rng.u64(..64)),
            };
            note!(trace, "wear: the next start of {id}: {fault:?}");
            nodes[at].at_start = Some(fault);
        } else if is_it(chances.rot) {
            let is_rotten = |node: &&Node| node.is_rotten && !node.is_replaced;
            let rotten = nodes.iter().filter(is_rotten).count();
            let is_few = nodes[at].is_rotten || rotten < *most_rotten;
            let may_stay = is_few && !nodes[at].lasts;
            rot(&mut nodes[at], may_stay, rng, trace);
        }
    }
}

/// Turns bits of a node's disk; they are turned back when the node may not stay damaged.
fn rot(node: &mut Node, may_stay: bool, rng: &mut fastrand::Rng, trace: &Trace) {
    let count = if rng.bool() { 1 } else { rng.usize(1..=BITS_MAX) };
    let bits = || Some((place(&node.disk, rng)?, rng.u8(..8)));
    let bits: BTreeMap<_, _> = std::iter::from_fn(bits).take(count).collect();
    let disk = node.disk.restarted();
    let before = read(&disk);
    for (&(segment, offset), &bit) in &bits {
        disk.flip(segment, offset, bit);
    }
    let after = read(&disk);
    note!(trace, "wear: bits of {} turn: {bits:?}", node.id);
    match (&before, &after) {
        (_, Reading::Damaged(findings)) => {
            let is_file = |of: &String| bits.keys().any(|(number, _)| segment_name(*number) == *of);
            let is_named = before == after || findings.iter().any(|(of, _)| is_file(of));
            assert!(is_named, "{bits:?} of {}: {findings:?}", node.id);
            if !may_stay {
                return;
            }
            note!(trace, "wear: {} is damaged: {findings:?}", node.id);
            node.is_rotten = true;
        }
        (Reading::Damaged(_), Reading::Whole(_)) => {
            panic!("{bits:?} of {}: what was damaged is whole", node.id)
        }
        (Reading::Whole(one), Reading::Whole(other)) => {
            assert_eq!(one, other, "{bits:?} of {}: not noticed", node.id);
        }
    }
    for ((segment, offset), bit) in bits {
        node.disk.flip(segment, offset, bit);
    }
}

/// A byte of what a disk has ever written, but for the last write.
fn place(disk: &SimulatedDisk, rng: &mut fastrand::Rng) -> Option<(u32, usize)> {
    let files = disk.clone().segments().expect("memory can be read");
    let used = |number: u32| disk.content(number).iter().rposition(|byte| *byte != 0);
    let used: Vec<_> =
        files.iter().filter_map(|file| Some((file.number, used(file.number)?))).collect();
    if used.is_empty() {
        return None;
    }
    let mut any = || {
        let (segment, last) = used[rng.usize(..used.len())];
        (segment, rng.usize(..=last))
    };
    std::iter::repeat_with(&mut any)
        .take(TRIES)
        .find(|(segment, offset)| !disk.is_tail(*segment, *offset))
}

fn read(disk: &SimulatedDisk) -> Reading {
    let mut hash = crc32fast::Hasher::new();
    let survey = survey(&mut disk.clone(), &mut |place, block| {
        hash.update(format!("{place:?} {:?}", block.head).as_bytes());
        hash.update(block.body());
    });
    let survey = survey.expect("memory can be read");
    if survey.findings.is_empty() {
        let end = crc32fast::hash(format!("{:?}", survey.end).as_bytes());
        return Reading::Whole(u64::from(hash.finalize()) << 32 | u64::from(end));
    }
    let findings = survey.findings.into_iter();
    Reading::Damaged(findings.map(|it| (it.file, it.damage.to_string())).collect())
}
