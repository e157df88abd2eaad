//! What a change of the cluster is to reach, and how far it is. Pure: it looks at what nodes said.

use super::seen::{PartitionSeen, Seen};
use crate::client::Params;
use std::{collections::BTreeMap, fmt, net::SocketAddr};

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// A node has a vote in every partition.
    Member { node: u64, peers: SocketAddr, rpc: SocketAddr },
    /// A node belongs to no partition.
    Gone { node: u64 },
    /// A node leads a partition.
    Leads { partition: u16, node: u64 },
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether it is reached.
    pub is_reached: bool,
    /// For people.
    pub text: String,
    /// The nodes that are to be asked for what is missing.
    pub ask: Vec<u64>,
}

/// What a leader said of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It goes on by itself, or with another question.
    GoesOn,
    /// It is refused for now; that is given some time.
    NotNow,
    /// It is refused for good.
    Never,
}

impl Said {
    /// What an outcome of `cluster.join` or `cluster.leave` means.
    pub fn of(outcome: &str) -> Self {
        match outcome {
            "too_many" | "malformed" => Self::Never,
            "no_quorum" => Self::NotNow,
            _ => Self::GoesOn,
        }
    }
}

impl Aim {
    /// The request that asks for it.
    pub fn request(&self) -> (&'static str, Params) {
        let node = |node| Params::new().uint_if("node", Some(node));
        match *self {
            Self::Member { node: id, peers, rpc } => {
                let params = node(id).str("peers", &peers.to_string());
                ("cluster.join", params.str("rpc", &rpc.to_string()))
            }
            Self::Gone { node: id } => ("cluster.leave", node(id)),
            Self::Leads { partition, node: id } => {
                ("cluster.transfer", node(id).uint_if("partition", Some(partition.into())))
            }
        }
    }

    /// How far it is, by what nodes said of the partitions that they lead themselves.
    pub fn progress(&self, seen: &[Seen]) -> Progress {
        let led = led(seen);
        let all = seen.iter().map(|seen| seen.partitions.len()).max().unwrap_or(0);
        let unknown = all - led.len();
        let (reached, open): (Vec<_>, Vec<_>) = led
            .values()
            .copied()
            .filter(|it| self.concerns(it))
            .partition(|it| self.is_reached_in(it));
        let mut ask: Vec<u64> =
            open.iter().filter(|it| self.must_be_asked(it)).filter_map(|it| it.leader).collect();
        ask.sort_unstable();
        ask.dedup();
        let mut text = match *self {
            Self::Member { node, .. } => {
                let learns = open.iter().filter(|it| it.has(node)).count();
                let votes = reached.len();
                format!(
                    "node {node} has a vote in {votes} of {all} partitions, catches up in {learns}"
                )
            }
            Self::Gone { node } => {
                format!("node {node} is out of {} of {all} partitions", reached.len())
            }
            Self::Leads { partition, .. } => match led.get(&partition).and_then(|it| it.leader) {
                Some(leader) => format!("node {leader} leads partition {partition}"),
                None => format!("nobody leads partition {partition}"),
            },
        };
        if unknown > 0 {
            text += &format!("; {unknown} have no leader that answers");
        }
        let is_reached = match self {
            Self::Leads { .. } => !reached.is_empty(),
            _ => all > 0 && reached.len() == all,
        };
        Progress { is_reached, text, ask }
    }

    /// Why it can never be reached, when what nodes say tells that.
    pub fn impossible(&self, seen: &[Seen]) -> Option<String> {
        let led = led(seen);
        let all = seen.iter().map(|seen| seen.partitions.len()).max().unwrap_or(0);
        match *self {
            Self::Member { .. } => None,
            Self::Gone { node } => led
                .values()
                .any(|it| it.voters == [node])
                .then(|| format!("node {node} is the only member that is left: stop it instead")),
            Self::Leads { partition, .. } if all > 0 && usize::from(partition) >= all => {
                Some(format!("there is no partition {partition}: there are {all}, from 0"))
            }
            Self::Leads { partition, node } => {
                let it = led.get(&partition)?;
                if !it.voters.contains(&node) {
                    return Some(format!("node {node} has no vote in partition {partition}"));
                }
                // Primaries take turns: a turn that nobody takes up is waited for, again and again.
                let is_away = |seen: &Seen| {
                    seen.nodes.iter().any(|other| other.id == node && !other.connected)
                };
                let leader = seen.iter().find(|seen| Some(seen.node) == it.leader)?;
                (it.agreement.is_some() && is_away(leader)).then(|| {
                    format!("node {node} is not connected with node {}, which leads", leader.node)
                })
            }
        }
    }

    /// The node that is to be told where another one is, when that is news for those who answered.
    pub fn untold(&self, seen: &[Seen]) -> Option<u64> {
        let Self::Member { node: id, peers, rpc } = *self else { return None };
        let is_elsewhere = |seen: &&Seen| {
            let known = seen.nodes.iter().find(|node| node.id == id);
            known.is_some_and(|it| (it.peers, it.rpc) != (Some(peers), Some(rpc)))
        };
        seen.iter().filter(|seen| seen.node != id).find(is_elsewhere).map(|seen| seen.node)
    }

    /// What to do when it was not reached in time.
    pub fn hint(&self) -> String {
        match self {
            Self::Member { node, peers, .. } => format!(
                "does node {node} run with cluster.start = \"join\", and do the others reach it at \
                 {peers}?"
            ),
            Self::Gone { .. } => "`coreflow cluster status` shows which nodes are not connected; \
                                  more than half of those that stay must be"
                .into(),
            Self::Leads { node, .. } => {
                format!("is node {node} connected, and has it all that is committed?")
            }
        }
    }

    fn concerns(&self, it: &PartitionSeen) -> bool {
        match self {
            Self::Leads { partition, .. } => it.partition == *partition,
            _ => true,
        }
    }

    fn is_reached_in(&self, it: &PartitionSeen) -> bool {
        match *self {
            Self::Member { node, .. } => it.voters.contains(&node) && it.outgoing.is_empty(),
            Self::Gone { node } => !it.has(node),
            Self::Leads { node, .. } => it.leader == Some(node),
        }
    }

    /// Whether it does not come about by itself: who catches up gets its vote when it has.
    fn must_be_asked(&self, it: &PartitionSeen) -> bool {
        match *self {
            Self::Member { node, .. } => !it.has(node),
            _ => true,
        }
    }
}

/// Each partition as its leader sees it: of two that say they lead, the one with the later term.
fn led(seen: &[Seen]) -> BTreeMap<u16, &PartitionSeen> {
    let mut led: BTreeMap<u16, &PartitionSeen> = BTreeMap::new();
    for seen in seen {
        for it in seen.partitions.iter().filter(|it| it.leader == Some(seen.node)) {
            let known = led.entry(it.partition).or_insert(it);
            if known.term < it.term {
                *known = it;
            }
        }
    }
    led
}

/// What is so once it is reached.
impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member { node, .. } => write!(f, "node {node} has a vote in every partition"),
            Self::Gone { node } => write!(f, "node {node} belongs to no partition"),
            Self::Leads { partition, node } => write!(f, "node {node} leads partition {partition}"),
        }
    }
}
