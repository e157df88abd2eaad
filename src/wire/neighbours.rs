//! What a node knows of all nodes of its cluster, as doors show it.

use super::id::{AgentAddress, NodeId};

/// Which agents of all nodes are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Those of a type.
    pub agent_type: Option<String>,
    /// Those that can do something, by themselves or by their type.
    pub capability: Option<String>,
    /// Those behind this one, in the order of their addresses.
    pub after: Option<AgentAddress>,
    /// At most so many.
    pub max: usize,
}

/// An agent of any node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarAgent {
    /// Its address.
    pub address: AgentAddress,
    /// Its type.
    pub agent_type: String,
    /// Its name, when it has one.
    pub name: Option<String>,
    /// Whether its node is `alive` or `suspect`.
    pub status: &'static str,
}

/// A node of the cluster, as gossip tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// The node.
    pub node: NodeId,
    /// `alive`, `suspect`, `dead` or `left`.
    pub status: &'static str,
    /// How often it began or refuted that it is dead; 0 when it was never heard of.
    pub incarnation: u64,
    /// Its worker cores.
    pub cores: u64,
    /// Its agents.
    pub agents: u64,
    /// Tasks that they may work on at the same time.
    pub capacity: u64,
    /// Tasks that they work on.
    pub running: u64,
    /// Tasks that wait for them.
    pub queued: u64,
}
