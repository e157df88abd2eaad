//! What a node answered to `cluster.status`.

use crate::client::View;
use std::net::SocketAddr;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    pub id: u64,
    pub peers: Option<SocketAddr>,
    pub rpc: Option<SocketAddr>,
    /// Whether it is a member of any partition.
    pub member: bool,
    pub connected: bool,
    /// Partitions that it leads.
    pub leads: u64,
    /// What gossip says: `alive`, `suspect`, `dead` or `left`.
    pub status: Option<String>,
    /// Its cores, its agents, the tasks that those can run at a time, and those that run and wait there.
    pub load: Option<[u64; 5]>,
}

/// A partition, and the members of its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionSeen {
    pub partition: u16,
    pub leader: Option<u64>,
    pub term: u64,
    pub committed: u64,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// Voters before a change that is under way.
    pub outgoing: Vec<u64>,
    /// What else is known where nodes agree that may lie.
    pub agreement: Option<AgreementSeen>,
}

/// How a partition does on which nodes agree that may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgreementSeen {
    pub view: u64,
    /// Whether the view has begun.
    pub active: bool,
    /// Requests that the node has finished with tentative answers, and with committed ones.
    pub fast: u64,
    pub slow: u64,
    pub view_changes: u64,
    /// More nodes lie than can.
    pub diverged: bool,
}

impl PartitionSeen {
    /// Whether a node belongs to it in any way.
    pub fn has(&self, node: u64) -> bool {
        [&self.voters, &self.learners, &self.outgoing].iter().any(|list| list.contains(&node))
    }
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// That node.
    pub node: u64,
    pub nodes: Vec<NodeSeen>,
    pub partitions: Vec<PartitionSeen>,
}

impl Seen {
    /// What is said of an answer that is none.
    pub const STRANGE: &'static str =
        "the node answered something else than the state of a cluster: is it of this version?";

    /// Reads an answer; `None` when it is none.
    pub fn of(answer: View<'_>) -> Option<Self> {
        Some(Self {
            node: answer.get("node")?.uint()?,
            nodes: answer.get("nodes")?.items().map(node).collect::<Option<_>>()?,
            partitions: answer.get("partitions")?.items().map(partition).collect::<Option<_>>()?,
        })
    }
}

fn node(view: View<'_>) -> Option<NodeSeen> {
    let address = |name| view.get(name).and_then(View::str).and_then(|text| text.parse().ok());
    let status = view.get("status").and_then(View::str).map(str::to_owned);
    let is_gone = matches!(status.as_deref(), Some("dead" | "left"));
    Some(NodeSeen {
        id: view.get("id")?.uint()?,
        peers: address("peers"),
        rpc: address("rpc"),
        member: view.get("member")?.bool()?,
        connected: view.get("connected")?.bool()?,
        leads: view.get("leads")?.uint()?,
        status,
        load: load(view).filter(|_| !is_gone),
    })
}

fn load(view: View<'_>) -> Option<[u64; 5]> {
    let number = |name| view.get(name).and_then(View::uint);
    let names = ["cores", "agents", "capacity", "running", "queued"];
    names.map(number).into_iter().collect::<Option<Vec<_>>>()?.try_into().ok()
}

fn partition(view: View<'_>) -> Option<PartitionSeen> {
    let ids = |name| Some(view.get(name)?.items().filter_map(View::uint).collect());
    Some(PartitionSeen {
        partition: view.get("partition")?.uint()?.try_into().ok()?,
        leader: view.get("leader").and_then(View::uint),
        term: view.get("term")?.uint()?,
        committed: view.get("committed")?.uint()?,
        voters: ids("voters")?,
        learners: ids("learners")?,
        outgoing: ids("outgoing")?,
        agreement: agreement(view),
    })
}

fn agreement(view: View<'_>) -> Option<AgreementSeen> {
    let number = |name| view.get(name).and_then(View::uint);
    Some(AgreementSeen {
        view: number("view")?,
        active: view.get("active")?.bool()?,
        fast: number("fast")?,
        slow: number("slow")?,
        view_changes: number("view_changes")?,
        diverged: view.get("diverged")?.bool()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Params;

    #[test]
    fn a_node_that_is_gone_has_no_agents_though_it_told_of_some() {
        for (status, load) in [
            (Some("alive"), Some([8, 3, 12, 2, 1])),
            (Some("suspect"), Some([8, 3, 12, 2, 1])),
            (None, Some([8, 3, 12, 2, 1])),
            (Some("dead"), None),
            (Some("left"), None),
        ] {
            let counts = [("id", 7), ("leads", 0), ("cores", 8), ("agents", 3)];
            let more = [("capacity", 12), ("running", 2), ("queued", 1)];
            let params = counts
                .iter()
                .chain(&more)
                .fold(Params::new(), |all, (name, count)| all.uint_if(name, Some(*count)));
            let params = params.bool("member", true).bool("connected", false);
            let params = match status {
                Some(status) => params.str("status", status),
                None => params,
            };
            let mut bytes = Vec::new();
            params.write(&mut bytes);
            let seen = node(View::new(&bytes)).expect("it is a node");
            assert_eq!(seen.load, load, "{status:?}");
        }
    }
}
