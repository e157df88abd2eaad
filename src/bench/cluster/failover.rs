//! `leader_failover`: from the kill of a node to the first acknowledgement of each partition that it
//! led, given by another one.
//!
//! A submission that repeats an earlier one under its key is answered by the partition's leader when
//! all before it is committed, so it waits for the new leader and changes nothing.

use super::{keys, nodes::Nodes};
use crate::{
    bench::{
        Effort, Measured,
        work::{LIMIT, failed},
    },
    config::Config,
    consensus::raft::group::ELECTION_TICKS,
    metrics::Latency,
    wire::id::TaskId,
};
use std::{io, net::SocketAddr, path::Path, thread, time::Instant};

/// Nodes of the cluster.
const NODES: usize = 3;
/// Kills, at full and at quick effort.
const KILLS: (u64, u64) = (20, 2);
/// Our own goal, in election timeouts: nobody stands for election before one has passed, and all do
/// before two have.
const GOAL_TIMEOUTS: f64 = 2.0;
/// Tries of one probe: a node gives up while an election lasts longer than its patience.
const TRIES: u32 = 20;

/// Kills leaders and measures how long their partitions are without one.
///
/// # Errors
/// When a node does not start, or an acknowledged task is not there any more.
pub fn run(config: &Config, effort: &Effort, folder: &Path) -> io::Result<Measured> {
    let mut nodes = Nodes::start(config, NODES, folder, |_, other| Ok(other.peers))?;
    let partitions = nodes.until_led()?.len();
    let keys = keys::of_partitions(&nodes, partitions)?;
    let (kills, mut latency) = (effort.choose(KILLS), Latency::new());
    for _ in 0..kills {
        let leaders = nodes.until_led()?;
        let victim = leaders[fastrand::usize(..leaders.len())];
        let orphans = leaders.iter().zip(&keys).filter(|(leader, _)| **leader == victim);
        let orphans: Vec<_> = orphans.map(|(_, key)| key).collect();
        let heir = nodes.running().find(|node| *node != victim).expect("there are three");
        let address = nodes.rpc(heir);
        let began = Instant::now();
        nodes.kill(victim)?;
        probe(address, &orphans, began, &mut latency).map_err(|error| nodes.explain(error))?;
        nodes.restart(victim)?;
    }
    let timeout_ms = (ELECTION_TICKS as u64 * config.cluster.tick_ms) as f64;
    let timeouts = |quantile| latency.quantile_ms(quantile) / timeout_ms;
    let (p50, p99) = (timeouts(0.5), timeouts(0.99));
    Ok(Measured::latency("leader_failover", latency)
        .with("kills", kills)
        .with("nodes", NODES as u64)
        .with_exact("election_timeout_ms", timeout_ms)
        .with_exact("p50_election_timeouts", p50)
        .with_exact("p99_election_timeouts", p99)
        .goal_at_most("p99_election_timeouts", GOAL_TIMEOUTS))
}

/// Asks for every key at the same time, and records when each was answered.
fn probe(
    address: SocketAddr,
    keys: &[&(String, TaskId)],
    began: Instant,
    latency: &mut Latency,
) -> io::Result<()> {
    let ask = |(key, id): &(String, TaskId)| {
        let mut client = crate::client::Client::connect(address, LIMIT).map_err(failed)?;
        for _ in 0..TRIES {
            match keys::submit(&mut client, key, 0, LIMIT) {
                Ok(same) if same == *id => return Ok(began.elapsed()),
                Ok(other) => {
                    return Err(io::Error::other(format!("{key} was {id} and became {other}")));
                }
                Err(error) if error.is_uncertain() => return Err(failed(error)),
                // Nobody leads yet.
                Err(_) => {}
            }
        }
        Err(io::Error::other(format!("the partition of {id} got no leader")))
    };
    thread::scope(|scope| {
        let asked: Vec<_> = keys.iter().map(|key| scope.spawn(move || ask(key))).collect();
        for asked in asked {
            let took = asked.join().expect("clients do not panic")?;
            latency.record(took.as_nanos() as u64);
        }
        Ok(())
    })
}
