//! The log thread of a node, whichever way its nodes agree.

use crate::{network::SimLinks, seals};
use coreflow::{
    consensus::{
        agreement::Replicas,
        assemble::{After, Keeper},
        engine::{Engine, Status},
        members::Members,
        pbft::{Company, Terms},
        peers::NodeId,
        raft::group::Group,
        simulated::SimulatedDisk,
        writer::Fatal,
    },
    wire::id::PartitionIndex,
};
use std::time::Instant;

/// How the nodes of a run agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Raft,
    Pbft,
}

/// A log thread's loop.
pub enum Log {
    Raft(Box<Keeper<SimulatedDisk, SimLinks>>),
    Pbft(Box<Keeper<SimulatedDisk, SimLinks, Replicas>>),
}

impl Log {
    pub fn turn(&mut self, now: Instant) -> Result<After, Fatal> {
        match self {
            Self::Raft(keeper) => keeper.turn(now),
            Self::Pbft(keeper) => keeper.turn(now),
        }
    }

    /// Whether it is half as long again as its limit.
    pub fn is_long(&self) -> bool {
        match self {
            Self::Raft(keeper) => keeper.is_log_long(),
            Self::Pbft(keeper) => keeper.is_log_long(),
        }
    }

    /// How a partition does; every node has all of them.
    pub fn status(&self, partition: PartitionIndex) -> Status {
        let status = match self {
            Self::Raft(keeper) => Engine::status(keeper.engine(), partition),
            Self::Pbft(keeper) => keeper.engine().status(partition),
        };
        status.expect("every node has all partitions")
    }

    pub fn members(&self, partition: PartitionIndex) -> &Members {
        let members = match self {
            Self::Raft(keeper) => Engine::members(keeper.engine(), partition),
            Self::Pbft(keeper) => keeper.engine().members(partition),
        };
        members.expect("every node has all partitions")
    }

    /// The group of a partition, where nodes agree by Raft.
    pub fn raft(&self, partition: PartitionIndex) -> Option<&Group> {
        match self {
            Self::Raft(keeper) => keeper.engine().group(partition),
            Self::Pbft(_) => None,
        }
    }
}

/// How many of so many nodes may be lost for good.
pub fn survivable(protocol: Protocol, nodes: u64) -> usize {
    let nodes = nodes as usize;
    match protocol {
        Protocol::Raft => (nodes - 1) / 2,
        Protocol::Pbft => (nodes - 1) / 3,
    }
}

/// Whom a node is among, where they agree by PBFT.
pub fn company(node: NodeId, nodes: &[NodeId]) -> Company {
    let secret = |node: NodeId| [node as u8; 32];
    Company {
        node,
        identity: seals::identity(secret(node)),
        ring: seals::ring(nodes.iter().map(|node| (*node, secret(*node)))),
        cluster: 7,
        generation: 1,
        nodes: nodes.to_vec(),
        terms: Terms { key_ttl_ms: 60_000, payload_bytes_max: 1 << 20 },
    }
}
