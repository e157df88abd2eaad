//! A node that stops hands the partitions that it leads over, so that nobody waits for an election.

use crate::consensus::{
    cluster::{Ask, Cluster, Status},
    peers::NodeId,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How often it is looked whether somebody else leads.
const LOOK: Duration = Duration::from_millis(20);

/// Hands over what this node leads to voters that are connected; gives up after `limit`. Each partition
/// goes once: nodes that stop together do not throw it to each other.
pub(super) fn hand_over(cluster: &Cluster, limit: Duration) {
    let deadline = Instant::now() + limit;
    let leaders = &cluster.leaders;
    let mut led: Vec<_> = (0..leaders.partitions()).collect();
    loop {
        let status = cluster.status();
        led.retain(|partition| leaders.is_here(*partition));
        let handed: Vec<_> = led.iter().filter_map(|it| Some((*it, heir(&status, *it)?))).collect();
        if handed.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            tracing::warn!(partitions = handed.len(), "not all partitions were handed over");
            return;
        }
        for (partition, to) in handed {
            // When too many requests wait, or the log has ended, the next look tells.
            drop(cluster.ask(Ask::Transfer { partition, to }));
        }
        thread::sleep(LOOK);
    }
}

/// Another voter of a partition that is connected; each partition begins to look at another one.
fn heir(status: &Status, partition: u16) -> Option<NodeId> {
    let voters = &status.partitions.get(usize::from(partition))?.members.voters;
    let is_connected = |id: NodeId| {
        id != status.me && status.nodes.iter().any(|node| node.id == id && node.is_connected)
    };
    let from = usize::from(partition) % voters.len().max(1);
    let turn = voters.iter().cycle().skip(from).take(voters.len());
    turn.copied().find(|id| is_connected(*id))
}
