//! `split_brain`: a cluster of five whose network parts again and again, two nodes with a leader on
//! one side, three on the other.
//!
//! Clients on both sides submit different tasks under the same keys meanwhile. Only nodes' own links
//! part: clients and forwarded requests still reach a leader that was replaced, which is when it
//! could go wrong. At the end every node must know every acknowledged task, one for each key.

use super::{keys, nodes::Nodes, proxy::Ways};
use crate::{
    bench::{Effort, Measured, work::failed},
    client::{Client, ClientError, Params},
    config::Config,
    wire::id::TaskId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    thread,
    time::Duration,
};

/// Nodes of the cluster, and those on the smaller side.
const NODES: usize = 5;
const MINORITY: usize = 2;
/// Times that the network parts, at full and at quick effort.
const PARTINGS: (u64, u64) = (10, 1);
/// Keys that both sides want while it is parted, each on a connection of its own.
const KEYS: usize = 24;
/// How long a client waits for an answer: a little longer than a node goes on trying.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// What was acknowledged, by key; a key that stands for two tasks has two.
#[derive(Default)]
struct Ledger {
    tasks: BTreeMap<String, BTreeSet<TaskId>>,
    /// Acknowledgements on the smaller side: what it forwarded to leaders on the other one.
    through_minority: u64,
    /// Leaders of each partition and term, as they say themselves.
    leaders: BTreeMap<(usize, u64), BTreeSet<u64>>,
}

/// Parts the network and counts what should not be.
///
/// # Errors
/// When a node does not start, or the cluster does not come together again.
pub fn run(config: &Config, effort: &Effort, folder: &Path) -> io::Result<Measured> {
    let ways = Ways::default();
    let nodes = Nodes::start(config, NODES, folder, |from, to| ways.open(from, to.id, to.peers))?;
    let partings = effort.choose(PARTINGS);
    let mut ledger = Ledger::default();
    for parting in 0..partings {
        let leaders = nodes.until_led()?;
        let leader = leaders[fastrand::usize(..leaders.len())];
        let mut others: Vec<u64> = nodes.running().filter(|node| *node != leader).collect();
        fastrand::shuffle(&mut others);
        let majority = others.split_off(MINORITY - 1);
        let minority = [&[leader], &others[..]].concat();
        ways.part(&minority, &majority);
        let sides = [(&minority[..], 0), (&majority[..], 1)];
        let taken = thread::scope(|scope| {
            let sides = sides.map(|(side, number)| {
                let nodes = &nodes;
                scope.spawn(move || submit_all(nodes, side, parting, number))
            });
            sides.map(|side| side.join().expect("clients do not panic"))
        });
        ledger.through_minority += taken[0].len() as u64;
        for (key, id) in taken.into_iter().flatten() {
            ledger.tasks.entry(key).or_default().insert(id);
        }
        nodes.until_led_among(&majority)?;
        note_leaders(&nodes, &mut ledger);
        ways.join();
    }
    nodes.until_led()?;
    note_leaders(&nodes, &mut ledger);
    tell(&nodes, &ledger, partings)
}

/// One side of the network wants all keys at the same moment; tells which it got, and for which task.
fn submit_all(nodes: &Nodes, side: &[u64], parting: u64, number: u32) -> Vec<(String, TaskId)> {
    let submit = |place: usize| {
        let (address, key) = (nodes.rpc(side[place % side.len()]), format!("{parting}-{place}"));
        let mut client = Client::connect(address, ANSWER_LIMIT).ok()?;
        // Whatever is no acknowledgement is none, though the task may be there.
        let id = keys::submit(&mut client, &key, number, ANSWER_LIMIT).ok()?;
        Some((key, id))
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..KEYS).map(|key| scope.spawn(move || submit(key))).collect();
        let join = |client: thread::ScopedJoinHandle<'_, _>| client.join().expect("no panic");
        clients.into_iter().filter_map(join).collect()
    })
}

/// Writes down who says that it leads.
fn note_leaders(nodes: &Nodes, ledger: &mut Ledger) {
    for node in nodes.running() {
        for (partition, seen) in nodes.seen_by(node).into_iter().flatten().enumerate() {
            if seen.leader == Some(node) {
                ledger.leaders.entry((partition, seen.term)).or_default().insert(node);
            }
        }
    }
}

/// Asks every node for every task, and counts.
fn tell(nodes: &Nodes, ledger: &Ledger, partings: u64) -> io::Result<Measured> {
    let ids: BTreeSet<TaskId> = ledger.tasks.values().flatten().copied().collect();
    let mut missing = BTreeSet::new();
    for node in nodes.running() {
        let mut client = nodes.connect(node)?;
        for id in &ids {
            let params = Params::new().str("id", &id.to_string());
            match client.call("task.status", &params) {
                Ok(_) => {}
                Err(ClientError::Refused(refusal)) if refusal.code == "not_found" => {
                    missing.insert(*id);
                }
                Err(error) => return Err(nodes.explain(failed(error))),
            }
        }
    }
    let doubled = ledger.tasks.values().filter(|ids| ids.len() > 1).count() as u64;
    let two_leaders = ledger.leaders.values().filter(|nodes| nodes.len() > 1).count() as u64;
    if ids.is_empty() {
        return Err(nodes.explain(io::Error::other("nothing was acknowledged while it was parted")));
    }
    Ok(Measured::counts("split_brain")
        .with("partings", partings)
        .with("nodes", NODES as u64)
        .with("total_tasks", ids.len() as u64)
        .with("lost_tasks", missing.len() as u64)
        .with("keys_broken", doubled)
        .with("terms_with_two_leaders", two_leaders)
        .with("accepted_through_minority", ledger.through_minority)
        .with("split_brains", doubled + two_leaders + missing.len() as u64)
        .at_most("split_brains", 0.0, 0.0))
}
