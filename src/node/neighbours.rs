//! What a node knows of all nodes of its cluster.

use super::{Shared, gossip::Desk};
use crate::{
    gossip::{Kind, Refused},
    registry::world::{Status, World},
    wire::{
        api::GossipStats,
        id::AgentAddress,
        neighbours::{AgentFilter, FarAgent, Neighbour},
    },
};

/// Most agents in one part of a list.
const PART_MAX: usize = 1000;

/// The word for a status.
const fn word(status: Status) -> &'static str {
    match status {
        Status::Alive => "alive",
        Status::Suspect => "suspect",
        Status::Dead => "dead",
        Status::Left => "left",
    }
}

impl Shared {
    /// A part of the agents of all nodes that are there; `None` for a node that is alone.
    pub(super) fn agents_everywhere(&self, filter: &AgentFilter) -> Option<Vec<FarAgent>> {
        let snapshot = self.neighbours.as_ref()?.board.latest();
        let world = snapshot.world();
        let max = filter.max.min(PART_MAX);
        let show = |address| show(world, address);
        let capability = filter.capability.as_deref();
        Some(match (&filter.agent_type, capability) {
            (Some(agent_type), Some(capability)) => world
                .capable(capability, filter.after)
                .filter_map(show)
                .filter(|agent| agent.agent_type == *agent_type)
                .take(max)
                .collect(),
            (Some(agent_type), None) => {
                world.of_type(agent_type, filter.after).filter_map(show).take(max).collect()
            }
            (None, Some(capability)) => {
                world.capable(capability, filter.after).filter_map(show).take(max).collect()
            }
            (None, None) => world.agents(filter.after).filter_map(show).take(max).collect(),
        })
    }

    /// The agent of that name, by what the last round of gossip knew.
    pub(super) fn find_agent(&self, name: &str) -> Option<AgentAddress> {
        self.neighbours.as_ref()?.board.latest().world().named(name)
    }

    /// All nodes that are known, this one among them; empty for a node that is alone.
    pub(super) fn neighbours(&self) -> Vec<Neighbour> {
        let Some(Desk { board, told, .. }) = &self.neighbours else { return Vec::new() };
        let (snapshot, gossip) = (board.latest(), told.status());
        let incarnation = |node| {
            let known = gossip.nodes.iter().find(|it| it.node == node);
            known.map_or(0, |it| it.incarnation)
        };
        let neighbour = |it: crate::registry::world::NodeSeen<'_>| Neighbour {
            node: it.node,
            status: word(it.status),
            incarnation: incarnation(it.node),
            cores: it.fact.map_or(0, |fact| fact.cores.into()),
            agents: it.agents as u64,
            capacity: it.load.capacity.into(),
            running: it.load.running.into(),
            queued: it.load.queued.into(),
        };
        snapshot.world().nodes().map(neighbour).collect()
    }

    /// What gossip counted.
    pub(super) fn gossip_stats(&self) -> Option<Box<GossipStats>> {
        let gossip = self.neighbours.as_ref()?.told.status();
        let counters = &gossip.counters;
        let count = |status: crate::gossip::Status| {
            gossip.nodes.iter().filter(|node| node.status == status).count() as u64
        };
        use crate::gossip::Status as Of;
        Some(Box::new(GossipStats {
            nodes: [Of::Alive, Of::Suspect, Of::Dead, Of::Left].map(count),
            rounds: counters.rounds,
            datagrams_sent: counters.datagrams_out,
            datagrams_received: counters.datagrams_in,
            bytes_sent: counters.bytes_out,
            bytes_sent_of: Kind::ALL
                .map(|of| (of.name(), counters.bytes_out_of[of as usize]))
                .into(),
            bytes_received: counters.bytes_in,
            quiet_rounds: counters.quiet_rounds,
            suspicions: counters.suspicions,
            deaths: counters.deaths,
            returns: counters.returns,
            refutations: counters.refutations,
            resets: counters.resets,
            rebirths: counters.rebirths,
            late_rounds: counters.late_rounds,
            clock_jumps: counters.clock_jumps,
            missed_events: counters.missed_events,
            refused: Refused::ALL.map(|why| (why.name(), counters.refused(why))).into(),
            facts_untold: gossip.untold,
            agents_left_out: gossip.left_out,
            facts_refused: gossip.refused,
        }))
    }
}

fn show(world: &World, address: AgentAddress) -> Option<FarAgent> {
    let agent = world.agent(address)?;
    Some(FarAgent {
        address,
        agent_type: agent.agent_type.unwrap_or("?").to_owned(),
        name: agent.name.map(str::to_owned),
        status: word(agent.status),
    })
}
