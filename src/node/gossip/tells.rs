//! What the thread tells other nodes of this one.
//!
//! Invariant worth naming: agents are left out before types and their loads are. When agents go, those
//! that were left out are told.

use super::Voice;
use crate::{
    gossip::ENTRIES_MAX,
    registry::{
        TypeIndex,
        fact::{AgentFact, Capabilities, Fact, Key, Load, NodeFact, TypeFact},
        telling::Telling,
    },
    shard::{bulletin::AgentNews, run::Job, types::TypeSpec},
    wire::id::{AgentId, CoreIndex, NodeId},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Time between two times that the cores tell all of their agents.
const RETELL: Duration = Duration::from_secs(10);
/// Time between two times that it is logged of how many agents other nodes are not told.
const LOG_LEFT_OUT: Duration = Duration::from_secs(60);
/// Types that may be learned for which agents leave room.
const TYPES_AHEAD: usize = 64;

impl Voice {
    /// Tells what stays the same: the node and its types.
    pub(super) fn introduce(&mut self, me: NodeId, rpc: SocketAddr) {
        let cores = self.jobs.len() as CoreIndex;
        self.tell(&Fact::Node(NodeFact { name: format!("node {me}").into(), rpc, cores }));
        for (index, _) in self.types.clone().iter() {
            if self.types.is_configured(index) {
                self.introduce_type(index);
            }
        }
    }

    /// Tells of a type, once. One that is not configured is told of when it has an agent here.
    fn introduce_type(&mut self, index: TypeIndex) {
        let types = self.types.clone();
        if let Some(spec) = types.try_get(index).filter(|_| self.introduced.insert(index)) {
            let fact = type_fact(spec, types.is_configured(index));
            if !self.tell(&Fact::Type(index, fact)) {
                self.introduced.remove(&index);
            }
        }
    }

    /// Makes a fact of this node known, here and elsewhere; false when there is no room for it now.
    pub(super) fn tell(&mut self, fact: &Fact) -> bool {
        self.key.clear();
        self.value.clear();
        fact.key().encode(&mut self.key);
        if fact.encode(&mut self.value).is_err() {
            // It never will be told.
            self.untold += 1;
            return true;
        }
        // What this node could not keep of itself, no other could.
        let has_room = self.gossip.has_room_for(&self.key)
            && self.world.set(self.world.me(), &self.key, &self.value).is_ok();
        match has_room {
            true => self.gossip.set(&self.key, &self.value).is_ok(),
            false => {
                self.gossip.remove(&self.key);
                false
            }
        }
    }

    fn take_back(&mut self, key: Key) {
        self.key.clear();
        key.encode(&mut self.key);
        self.gossip.remove(&self.key);
        self.world.remove(self.world.me(), &self.key);
    }

    pub(super) fn look_at_agents(&mut self) {
        let news = self.bulletin.take_news();
        let is_time = self.retold.is_none_or(|retold| retold.elapsed() >= RETELL);
        if news.is_partial {
            self.owes_all = true;
            // Some of them may be gone, and nobody says so again.
            self.left_out.clear();
        }
        if self.owes_all && is_time {
            self.owes_all = false;
            self.retold = Some(Instant::now());
            tracing::info!("more agents came and went than can be told: all of them are told anew");
            for jobs in &self.jobs {
                // A core that takes no job now is asked by the next burst of news.
                let job: Job = Box::new(|core| core.with_shard(|shard| shard.tell_agents()));
                drop(jobs.push(job));
            }
        }
        for (agent, what) in news.agents {
            match what {
                AgentNews::Up(type_index, name) => self.tell_agent(agent, type_index, name),
                AgentNews::Down => self.agent_gone(agent),
            }
        }
        self.log_left_out();
    }

    /// Says that there are agents of which other nodes are not told, and when there are none any more.
    fn log_left_out(&mut self) {
        let agents = self.left_out.len();
        let is_time = self.left_out_logged.is_none_or(|logged| logged.elapsed() >= LOG_LEFT_OUT);
        if agents > 0 && is_time {
            self.left_out_logged = Some(Instant::now());
            tracing::warn!(
                agents,
                "other nodes do not find these agents by name, type or capability: a node tells of {} \
                 entries at most, types and loads among them; run more nodes, or fewer agents a node",
                ENTRIES_MAX
            );
        } else if agents == 0 && self.left_out_logged.take().is_some() {
            tracing::info!("other nodes are told of all agents again");
        }
    }

    fn tell_agent(&mut self, agent: AgentId, type_index: TypeIndex, name: Option<String>) {
        self.introduce_type(type_index);
        let name = name.map(String::into_boxed_str);
        let capabilities = Capabilities::default();
        let fact = Fact::Agent(agent, AgentFact { type_index, name, capabilities });
        // Agents leave room for what there is to say of types.
        let entries = self.gossip.len() + 2 * (self.types.len() + TYPES_AHEAD);
        let is_told = self.world.has_agent(agent) || entries < ENTRIES_MAX;
        match is_told && self.tell(&fact) {
            true => drop(self.left_out.remove(&agent)),
            false => self.untold += u64::from(self.left_out.insert(agent)),
        }
    }

    /// An agent is gone. Those that were left out may have room now.
    fn agent_gone(&mut self, agent: AgentId) {
        if !self.left_out.remove(&agent) {
            self.take_back(Key::Agent(agent));
            self.owes_all |= !self.left_out.is_empty();
        }
    }

    pub(super) fn look_at_loads(&mut self) {
        let now_ms = self.start.elapsed().as_millis() as u64;
        let loads = self.bulletin.loads();
        if self.tellings.len() < loads.len() {
            self.tellings.resize_with(loads.len(), Telling::default);
        }
        for (index, load) in loads.into_iter().enumerate() {
            match self.tellings[index].due(now_ms, load) {
                // Of a type of which nothing is told there is nothing.
                Some(load) if load == Load::default() => self.take_back(Key::Load(index as u16)),
                Some(load) => drop(self.tell(&Fact::Load(index as u16, load))),
                None => {}
            }
        }
    }
}

/// What is told of a type: the most agents that the node may have of it by its configuration. With none, or
/// without a configuration, others must not think that it starts one for a task that waits.
fn type_fact(spec: &TypeSpec, is_configured: bool) -> TypeFact {
    let max = if is_configured { spec.max } else { 0 };
    TypeFact {
        name: spec.name.as_str().into(),
        kind: spec.kind,
        max: max.try_into().unwrap_or(u32::MAX),
        capabilities: spec.capabilities.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        registry::world::{Limits, World},
        wire::api::AgentKind,
    };
    use std::sync::Arc;

    #[test]
    fn a_type_that_may_have_no_agents_is_not_told_as_one_that_starts_them() {
        let spec = |max| TypeSpec {
            name: "clerk".into(),
            kind: AgentKind::Builtin,
            max_tasks: 1,
            min: 0,
            max,
            warmup_delay_ms: 0,
            idle_timeout_ms: 1,
            hosts: vec![0],
            capabilities: Capabilities::default(),
            factory: Arc::new(|| unreachable!("no agent is made here")),
        };
        let may_run = |fact: TypeFact| {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            let fact = Fact::Type(0, fact);
            fact.key().encode(&mut key);
            fact.encode(&mut value).expect("a fact that can be told");
            let mut world = World::new(1, Limits::default());
            world.set(2, &key, &value).expect("a fact that can be kept");
            world.may_run("clerk").count()
        };
        for (max, is_configured, nodes) in [(3, true, 1), (0, true, 0), (3, false, 0)] {
            let spec = spec(max);
            let fact = type_fact(&spec, is_configured);
            assert_eq!(fact.starts_agents(), is_configured && spec.starts_agents());
            assert_eq!(may_run(fact), nodes, "max {max}, configured {is_configured}");
        }
    }
}
