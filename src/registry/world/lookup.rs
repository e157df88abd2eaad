//! Questions to the world.
//!
//! Who has a name: this node's agent, else that of the node with the lowest id among those that are
//! alive, else among the suspects; never one of a dead node. So nodes that know the same give the
//! same answer, but for names of their own.

use super::{Agent, Home, Node, Status, World};
use crate::{
    registry::{
        TypeIndex,
        fact::{Load, NodeFact, TypeFact},
    },
    wire::id::{AgentAddress, AgentId, NodeId},
};
use foldhash::fast::RandomState;
use std::collections::BTreeSet;

/// An agent, as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentSeen<'a> {
    /// Its place in its node's list of types.
    pub type_index: TypeIndex,
    /// Its type; none while its node told of the agent and not of the type.
    pub agent_type: Option<&'a str>,
    /// Its name, when it has one.
    pub name: Option<&'a str>,
    /// Whether its node is there.
    pub status: Status,
}

/// A node, as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSeen<'a> {
    /// The node.
    pub node: NodeId,
    /// Whether it is there.
    pub status: Status,
    /// What it told of itself.
    pub fact: Option<&'a NodeFact>,
    /// Agents that it told of one by one.
    pub agents: usize,
    /// The loads of its types, added up.
    pub load: Load,
}

impl World {
    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The hash of a name, as [`super::Change`] tells it; copies of a world agree on it.
    #[inline]
    pub fn hash(&self, name: &str) -> u64 {
        self.names.hash(name)
    }

    /// What makes those hashes.
    pub(in crate::registry) fn hasher(&self) -> RandomState {
        self.names.hasher()
    }

    fn get(&self, node: NodeId) -> Option<&Node> {
        self.node_at(node).map(|at| &*self.nodes[at].1)
    }

    /// A node's status.
    pub fn status(&self, node: NodeId) -> Option<Status> {
        self.get(node).map(|here| here.status)
    }

    /// What is known of a node.
    pub fn node(&self, node: NodeId) -> Option<NodeSeen<'_>> {
        let here = self.get(node)?;
        let add = |sum: Load, load: &Load| Load {
            agents: sum.agents.saturating_add(load.agents),
            capacity: sum.capacity.saturating_add(load.capacity),
            running: sum.running.saturating_add(load.running),
            queued: sum.queued.saturating_add(load.queued),
        };
        let load = here.types.values().map(|of_type| &of_type.load).fold(Load::default(), add);
        let (status, fact, agents) = (here.status, here.fact.as_ref(), here.agents.len());
        Some(NodeSeen { node, status, fact, agents, load })
    }

    /// All nodes that are known, dead ones too, by id.
    pub fn nodes(&self) -> impl Iterator<Item = NodeSeen<'_>> {
        self.nodes.iter().filter_map(|(node, _)| self.node(*node))
    }

    /// The types of a node with their loads, by their place in its list.
    pub fn types(&self, node: NodeId) -> impl Iterator<Item = (TypeIndex, &TypeFact, Load)> {
        let types = self.get(node).map(|here| here.types.iter()).into_iter().flatten();
        types.filter_map(|(index, here)| Some((*index, here.fact.as_deref()?, here.load)))
    }

    /// Whether an agent of this node is known.
    pub fn has_agent(&self, agent: AgentId) -> bool {
        self.get(self.me).is_some_and(|here| here.agents.get(&agent).is_some())
    }

    /// The agent of an address, whether or not its node is there. Without a node, it is this one's.
    pub fn agent(&self, id: AgentAddress) -> Option<AgentSeen<'_>> {
        let here = self.get(if id.node == 0 { self.me } else { id.node })?;
        let agent = here.agents.get(&id.agent)?;
        Some(AgentSeen {
            type_index: agent.type_index,
            agent_type: here.type_fact(agent.type_index).map(|fact| &*fact.name),
            name: agent.name.as_deref(),
            status: here.status,
        })
    }

    /// The agent of a name: the module tells which when several nodes have one.
    pub fn named(&self, name: &str) -> Option<AgentAddress> {
        let rank = |id: &AgentAddress| match self.status(id.node)? {
            _ if id.node == self.me => Some((0, 0)),
            Status::Alive => Some((1, id.node)),
            Status::Suspect => Some((2, id.node)),
            Status::Dead | Status::Left => None,
        };
        let named = self.names.find(self.hash(name)).filter(|id| {
            self.get(id.node).is_some_and(|here| here.is_named(id.agent, name.as_bytes()))
        });
        let ranked = named.filter_map(|id| Some((rank(&id)?, id)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    /// The agents on nodes that are there, by id, from the first one behind `after`.
    pub fn agents(&self, after: Option<AgentAddress>) -> impl Iterator<Item = AgentAddress> {
        self.agents_where(after, |_, _| Some(|_: &Agent| true))
    }

    /// The agents of a type on nodes that are there, by id, from the first one behind `after`. It
    /// passes over all agents of the nodes that have the type.
    pub fn of_type(
        &self,
        agent_type: &str,
        after: Option<AgentAddress>,
    ) -> impl Iterator<Item = AgentAddress> {
        let homes = self.homes(agent_type);
        self.agents_where(after, move |node, _| {
            homes.iter().any(|(home, _)| *home == node).then_some(move |agent: &Agent| {
                homes.binary_search(&(node, agent.type_index)).is_ok()
            })
        })
    }

    /// The agents that can do something, by themselves or by their type, on nodes that are there,
    /// by id, from the first one behind `after`. It passes over all agents: with 16,000 of them it takes
    /// 43 us to say that nobody can (2.7 ns each), so there is no index.
    pub fn capable<'a>(
        &'a self,
        capability: &'a str,
        after: Option<AgentAddress>,
    ) -> impl Iterator<Item = AgentAddress> + 'a {
        self.agents_where(after, move |_, here| {
            let types = here.types.iter().filter(move |(_, of_type)| {
                of_type.fact.as_ref().is_some_and(|fact| fact.capabilities.has(capability))
            });
            let types: Vec<TypeIndex> = types.map(|(index, _)| *index).collect();
            Some(move |agent: &Agent| {
                types.binary_search(&agent.type_index).is_ok() || agent.has(capability)
            })
        })
    }

    /// The agents behind `after` of nodes that are there, for which what `choose` gave says so.
    fn agents_where<'a, Keep: Fn(&Agent) -> bool + 'a>(
        &'a self,
        after: Option<AgentAddress>,
        choose: impl Fn(NodeId, &'a Node) -> Option<Keep> + 'a,
    ) -> impl Iterator<Item = AgentAddress> + 'a {
        let first = after.map_or(0, |after| self.nodes.partition_point(|(it, _)| *it < after.node));
        let nodes = self.nodes[first..].iter().filter(|(_, here)| here.status.is_present());
        nodes.flat_map(move |(node, here)| {
            let keep = choose(*node, here);
            let after = after.filter(|after| after.node == *node).map(|after| after.agent);
            let agents = keep.map(|keep| {
                let kept = here.agents.iter_after(after).filter(move |(_, agent)| keep(agent));
                kept.map(|(id, _)| AgentAddress { node: *node, agent: *id })
            });
            agents.into_iter().flatten()
        })
    }

    /// The names of the types of which another node that is there has agents.
    pub fn types_with_agents(&self) -> BTreeSet<&str> {
        let others = self.nodes.iter().filter(|(node, _)| *node != self.me);
        let there = others.filter(|(_, here)| here.status.is_present());
        let types = there.flat_map(|(_, here)| here.types.values());
        let with_agents = types.filter(|of_type| of_type.load.agents > 0);
        with_agents.filter_map(|of_type| of_type.fact.as_deref()).map(|fact| &*fact.name).collect()
    }

    /// The most agents that a type may have on a node which has it configured, as the one with the
    /// lowest id says, whether or not it is there: nodes that were told the same agree on it.
    pub fn max_of_type(&self, agent_type: &str) -> Option<usize> {
        let homes = self.homes(agent_type).iter();
        let facts = homes.filter_map(|(node, index)| self.get(*node)?.type_fact(*index));
        facts.map(|fact| fact.max as usize).find(|max| *max > 0)
    }

    fn homes(&self, agent_type: &str) -> &[Home] {
        self.types.get(agent_type).map_or(&[], Vec::as_slice)
    }

    /// The loads of a type on all nodes that have it, by node; the status tells which are there.
    pub fn loads(&self, agent_type: &str) -> impl Iterator<Item = (NodeId, Status, Load)> {
        self.homes(agent_type).iter().filter_map(|(node, index)| {
            let here = self.get(*node)?;
            Some((*node, here.status, here.types.get(index)?.load))
        })
    }

    /// The nodes whose agents may run tasks of a type, with its loads. One that has it configured and no
    /// agent of it starts one for a task that waits, as for its own: it has one place, which is taken.
    pub fn may_run(&self, agent_type: &str) -> impl Iterator<Item = (NodeId, Status, Load)> {
        self.homes(agent_type).iter().filter_map(|(node, index)| {
            let here = self.get(*node)?;
            let of_type = here.types.get(index)?;
            let starts = of_type.fact.as_ref().is_some_and(|fact| fact.starts_agents());
            let load = match of_type.load {
                load if load.agents > 0 => load,
                load if starts => Load { capacity: 1, running: 1, ..load },
                _ => return None,
            };
            Some((*node, here.status, load))
        })
    }

    /// The living node whose agents of a type have the fewest tasks for what they can hold; of
    /// equals the one with the lower id. A node without capacity is none.
    pub fn least_loaded(&self, agent_type: &str) -> Option<NodeId> {
        least_loaded(self.loads(agent_type))
    }

    /// The same among all types that can do something.
    pub fn least_loaded_capable(&self, capability: &str) -> Option<NodeId> {
        least_loaded(self.loads_of_capable(capability))
    }

    /// The loads of all types that can do something, on all nodes, by node. It looks at all types.
    pub fn loads_of_capable(
        &self,
        capability: &str,
    ) -> impl Iterator<Item = (NodeId, Status, Load)> {
        self.nodes.iter().flat_map(move |(node, here)| {
            let able = here.types.values().filter(move |of_type| {
                of_type.fact.as_ref().is_some_and(|fact| fact.capabilities.has(capability))
            });
            able.map(|of_type| (*node, here.status, of_type.load))
        })
    }
}

impl Node {
    fn type_fact(&self, index: TypeIndex) -> Option<&TypeFact> {
        self.types.get(&index)?.fact.as_deref()
    }
}

fn least_loaded(loads: impl Iterator<Item = (NodeId, Status, Load)>) -> Option<NodeId> {
    let mut best: Option<(NodeId, Load)> = None;
    for (node, status, load) in loads {
        if status != Status::Alive || load.capacity == 0 {
            continue;
        }
        // One share is less than another when its product with the other's capacity is.
        let product = |of: Load, by: Load| u128::from(of.tasks()) * u128::from(by.capacity);
        if best.is_none_or(|(_, least)| product(load, least) < product(least, load)) {
            best = Some((node, load));
        }
    }
    best.map(|(node, _)| node)
}
