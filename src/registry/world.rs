//! Who is where on all nodes: what each of them tells of itself, put together.
//!
//! One thread keeps a [`World`] and feeds it with what gossip brings: statuses, and entries that it
//! decodes and checks. A clone shares almost everything with the original and never changes, so
//! that worker cores read clones without a lock. [`World::take_changes`] tells what to forget of
//! answers that were given before.
//!
//! Invariants worth naming:
//! - A key that a node has tells one fact, or none: an entry that is refused takes away what the
//!   key said before, for that is no longer true.
//! - What a node can make this one keep is bounded, by itself and together: [`Limits`].
//! - An address that it gives has a node: it is never 0.
//! - The same entries and statuses, in whatever order they came, give the same answers, but for
//!   names that a node gives to several agents (the last one has it) and for refusals of a limit.
//!
//! The files: `world.rs` takes in, `lookup.rs` answers, `change.rs` is what changes do to answers.

mod change;
mod lookup;
#[cfg(test)]
mod tests;

pub use change::{CHANGES_MAX, Change};
pub use lookup::{AgentSeen, NodeSeen};

use super::{
    TypeIndex,
    fact::{AgentFact, Capabilities, Fact, Key, Load, Malformed, NodeFact, TypeFact},
    names::Names,
    pages::Pages,
    text::Text,
};
use crate::wire::id::{AgentAddress, AgentId, NodeId};
use change::Changes;
use foldhash::fast::RandomState;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What an agent costs beside its texts when a node's bytes are counted: about what it takes.
const AGENT_BYTES: usize = 64;

/// What gossip says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is heard of.
    Alive,
    /// It was not heard of for a while. It gets nothing new while somebody else can take it.
    Suspect,
    /// It was not heard of for too long.
    Dead,
    /// It said goodbye.
    Left,
}

impl Status {
    /// Whether the node may still be there.
    pub const fn is_present(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// What a world keeps at most, so that no node fills the memory of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes.
    pub nodes: usize,
    /// Types of a node.
    pub types: usize,
    /// Agents of a node.
    pub agents: usize,
    /// Bytes of the names and capabilities of a node's agents, and 64 for each agent.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nodes: 256, types: 1_024, agents: 16_384, bytes: 4 << 20 }
    }
}

/// Why an entry was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Of a node when as many as may be are known, or of the node 0.
    #[error("an entry of a node too many")]
    Nodes,
    /// Of a type when the node has as many as it may.
    #[error("an entry of a type too many")]
    Types,
    /// Of an agent when the node has as many as it may.
    #[error("an entry of an agent too many")]
    Agents,
    /// Of an agent when the texts of the node's agents have as many bytes as they may.
    #[error("an entry with more text than a node may have")]
    Bytes,
}

/// Entries that were refused since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// That could not be read.
    pub malformed: u64,
    /// Of too many nodes.
    pub nodes: u64,
    /// Of too many types.
    pub types: u64,
    /// Of too many agents.
    pub agents: u64,
    /// With too much text.
    pub bytes: u64,
}

/// A type on a node; what is known of it may come in any order.
#[derive(Clone, Debug, Default)]
struct TypeHere {
    fact: Option<Arc<TypeFact>>,
    load: Load,
}

/// An agent on a node. Copies follow no pointer, but for long names and for capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Agent {
    name: Option<Text>,
    type_index: TypeIndex,
    /// None when it says of none.
    capabilities: Option<Arc<Capabilities>>,
}

impl Agent {
    fn new(fact: AgentFact) -> Self {
        let AgentFact { type_index, name, capabilities } = fact;
        let capabilities = (!capabilities.is_empty()).then(|| Arc::new(capabilities));
        Self { name: name.map(|name| Text::new(&name)), type_index, capabilities }
    }

    fn has(&self, capability: &str) -> bool {
        self.capabilities.as_ref().is_some_and(|words| words.has(capability))
    }

    /// What it costs when a node's bytes are counted.
    fn bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, |name| name.as_bytes().len());
        let words = self.capabilities.iter().flat_map(|words| words.iter());
        let words = words.map(|word| word.len() + size_of::<Box<str>>());
        AGENT_BYTES + name + words.sum::<usize>()
    }
}

/// A node, and what it told of itself.
#[derive(Clone, Debug)]
struct Node {
    status: Status,
    fact: Option<NodeFact>,
    types: BTreeMap<TypeIndex, TypeHere>,
    agents: Pages<AgentId, Agent>,
    /// Of all its agents.
    bytes: usize,
}

impl Node {
    fn new(status: Status) -> Self {
        let (types, agents) = (BTreeMap::new(), Pages::default());
        Self { status, fact: None, types, agents, bytes: 0 }
    }

    fn is_named(&self, id: AgentId, name: &[u8]) -> bool {
        let agent = self.agents.get(&id);
        agent.and_then(|agent| agent.name.as_ref()).is_some_and(|known| known.as_bytes() == name)
    }
}

/// A node that has a type, and where in its list.
type Home = (NodeId, TypeIndex);

/// Who is where on all nodes.
#[derive(Clone, Debug)]
pub struct World {
    me: NodeId,
    limits: Limits,
    /// In order.
    nodes: Vec<(NodeId, Arc<Node>)>,
    names: Names,
    /// The homes of each type by its name, in order.
    types: Arc<HashMap<Box<str>, Vec<Home>, RandomState>>,
    changes: Changes,
    /// Grows with every change.
    version: u64,
    refusals: Refusals,
}

impl World {
    /// The world of a node that knows nobody else yet.
    pub fn new(me: NodeId, limits: Limits) -> Self {
        Self {
            me,
            limits,
            nodes: vec![(me, Arc::new(Node::new(Status::Alive)))],
            names: Names::default(),
            types: Arc::default(),
            changes: Changes::default(),
            version: 0,
            refusals: Refusals::default(),
        }
    }

    /// Takes in an entry of a node, as it travels; true when it said something new. A node that
    /// nobody gave a status is a suspect until it gets one.
    ///
    /// # Errors
    /// Why it was refused, which is counted. What the key said before is then forgotten.
    pub fn set(&mut self, node: NodeId, key: &[u8], value: &[u8]) -> Result<bool, Refused> {
        let fact = Key::decode(key).and_then(|key| Fact::decode(key, value));
        let taken = match fact {
            Ok(fact) => self.apply(node, fact),
            Err(malformed) => {
                self.remove(node, key);
                Err(malformed.into())
            }
        };
        if let Err(refused) = taken {
            let refusals = &mut self.refusals;
            *match refused {
                Refused::Malformed(_) => &mut refusals.malformed,
                Refused::Nodes => &mut refusals.nodes,
                Refused::Types => &mut refusals.types,
                Refused::Agents => &mut refusals.agents,
                Refused::Bytes => &mut refusals.bytes,
            } += 1;
        }
        taken
    }

    fn apply(&mut self, node: NodeId, fact: Fact) -> Result<bool, Refused> {
        let Some(at) = self.node_at_or_new(node, Status::Suspect) else {
            return Err(Refused::Nodes);
        };
        match fact {
            Fact::Node(fact) => {
                let here = &self.nodes[at].1.fact;
                let is_new = here.as_ref() != Some(&fact);
                if is_new {
                    self.node_mut(at).fact = Some(fact);
                }
                Ok(is_new)
            }
            Fact::Type(index, fact) => self.apply_type(at, index, fact),
            Fact::Load(index, load) => self.apply_load(at, index, load),
            Fact::Agent(agent, fact) => self.apply_agent(at, agent, fact),
        }
    }

    fn apply_type(&mut self, at: usize, index: TypeIndex, fact: TypeFact) -> Result<bool, Refused> {
        let (node, here) = (self.nodes[at].0, &self.nodes[at].1.types);
        let old = here.get(&index).and_then(|here| here.fact.clone());
        if old.as_deref() == Some(&fact) {
            return Ok(false);
        }
        if !here.contains_key(&index) && here.len() >= self.limits.types {
            return Err(Refused::Types);
        }
        let is_home = old.as_ref().is_some_and(|old| old.name == fact.name);
        if !is_home {
            if let Some(old) = old {
                self.remove_home(&old.name, (node, index));
            }
            self.add_home(&fact.name, (node, index));
        }
        self.node_mut(at).types.entry(index).or_default().fact = Some(Arc::new(fact));
        Ok(true)
    }

    fn apply_load(&mut self, at: usize, index: TypeIndex, load: Load) -> Result<bool, Refused> {
        let here = &self.nodes[at].1.types;
        match here.get(&index) {
            Some(known) if known.load == load => return Ok(false),
            None if here.len() >= self.limits.types => return Err(Refused::Types),
            _ => {}
        }
        self.note_type(at, index);
        self.node_mut(at).types.entry(index).or_default().load = load;
        Ok(true)
    }

    fn apply_agent(&mut self, at: usize, id: AgentId, fact: AgentFact) -> Result<bool, Refused> {
        let (node, here) = (self.nodes[at].0, &self.nodes[at].1);
        let agent = Agent::new(fact);
        let old = here.agents.get(&id);
        if old == Some(&agent) {
            return Ok(false);
        }
        let bytes = here.bytes - old.map_or(0, Agent::bytes) + agent.bytes();
        let refused = match old {
            None if here.agents.len() >= self.limits.agents => Some(Refused::Agents),
            _ if bytes > self.limits.bytes => Some(Refused::Bytes),
            _ => None,
        };
        self.forget_agent(at, id);
        if let Some(refused) = refused {
            return Err(refused);
        }
        let address = AgentAddress { node, agent: id };
        if let Some(name) = &agent.name {
            let (hash, here) = (self.names.hash(name), &self.nodes[at].1);
            self.changes.note(Change::Name(hash));
            self.names.insert(hash, address, |other| here.is_named(other.agent, name.as_bytes()));
        }
        let here = self.node_mut(at);
        here.agents.insert(id, agent);
        here.bytes = bytes;
        Ok(true)
    }

    /// Forgets what an entry of a node said; true when it said something.
    pub fn remove(&mut self, node: NodeId, key: &[u8]) -> bool {
        let (Some(at), Ok(key)) = (self.node_at(node), Key::decode(key)) else { return false };
        match key {
            Key::Node => self.nodes[at].1.fact.is_some() && self.node_mut(at).fact.take().is_some(),
            Key::Agent(id) => self.forget_agent(at, id),
            Key::Type(index) => {
                let Some(fact) = self.nodes[at].1.types.get(&index).and_then(|it| it.fact.clone())
                else {
                    return false;
                };
                self.remove_home(&fact.name, (node, index));
                self.change_type(at, index, |here| here.fact = None);
                true
            }
            Key::Load(index) => {
                let known = self.nodes[at].1.types.get(&index);
                if known.is_none_or(|known| known.load == Load::default()) {
                    return false;
                }
                self.note_type(at, index);
                self.change_type(at, index, |here| here.load = Load::default());
                true
            }
        }
    }

    /// Changes what is known of a type, and drops it when nothing is left.
    fn change_type(&mut self, at: usize, index: TypeIndex, change: impl FnOnce(&mut TypeHere)) {
        let types = &mut self.node_mut(at).types;
        let Some(here) = types.get_mut(&index) else { return };
        change(here);
        if here.fact.is_none() && here.load == Load::default() {
            types.remove(&index);
        }
    }

    fn forget_agent(&mut self, at: usize, id: AgentId) -> bool {
        let (node, here) = (self.nodes[at].0, &self.nodes[at].1);
        let Some(old) = here.agents.get(&id).cloned() else { return false };
        let address = AgentAddress { node, agent: id };
        if let Some(name) = &old.name {
            let hash = self.names.hash(name);
            self.changes.note(Change::Name(hash));
            self.names.remove(hash, address);
        }
        let here = self.node_mut(at);
        here.agents.remove(&id);
        here.bytes -= old.bytes();
        true
    }

    /// Notes what gossip says of a node; false when that is known, and when there are too many
    /// nodes. This node is alive, whatever is said.
    pub fn set_status(&mut self, node: NodeId, status: Status) -> bool {
        if node == self.me {
            return false;
        }
        let is_known = self.node_at(node).is_some();
        let Some(at) = self.node_at_or_new(node, status) else { return false };
        let old = self.nodes[at].1.status;
        if old == status {
            return !is_known;
        }
        self.node_mut(at).status = status;
        // A node that can be asked more than before may be a better answer to anything.
        let worth = |status| match status {
            Status::Alive => 2,
            Status::Suspect => 1,
            Status::Dead | Status::Left => 0,
        };
        let is_better = worth(status) > worth(old);
        self.changes.note(if is_better { Change::All } else { Change::Gone(node) });
        true
    }

    /// Forgets all that a node told, and not its status: it begins again.
    pub fn reset(&mut self, node: NodeId) {
        let Some(at) = self.node_at(node) else { return };
        self.clear(at);
        let status = self.nodes[at].1.status;
        self.nodes[at].1 = Arc::new(Node::new(status));
    }

    /// Forgets a node; this node is only reset.
    pub fn forget(&mut self, node: NodeId) {
        match self.node_at(node) {
            Some(at) if node != self.me => {
                self.clear(at);
                self.nodes.remove(at);
            }
            _ => self.reset(node),
        }
    }

    /// Takes a node's names and types out of the indexes.
    fn clear(&mut self, at: usize) {
        let (node, here) = (self.nodes[at].0, self.nodes[at].1.clone());
        for (id, agent) in here.agents.iter_after(None) {
            if let Some(name) = &agent.name {
                let hash = self.names.hash(name);
                self.names.remove(hash, AgentAddress { node, agent: *id });
            }
        }
        for (index, of_type) in &here.types {
            if let Some(fact) = &of_type.fact {
                self.remove_home(&fact.name, (node, *index));
            }
        }
        self.changes.note(Change::Gone(node));
        self.version += 1;
    }

    fn add_home(&mut self, name: &str, home: Home) {
        self.changes.note(Change::Type(self.names.hash(name)));
        let homes = Arc::make_mut(&mut self.types).entry(name.into()).or_default();
        if let Err(place) = homes.binary_search(&home) {
            homes.insert(place, home);
        }
    }

    fn remove_home(&mut self, name: &str, home: Home) {
        self.changes.note(Change::Type(self.names.hash(name)));
        let types = Arc::make_mut(&mut self.types);
        let Some(homes) = types.get_mut(name) else { return };
        homes.retain(|known| *known != home);
        if homes.is_empty() {
            types.remove(name);
        }
    }

    /// Notes that another node may be the least loaded one of a type.
    fn note_type(&mut self, at: usize, index: TypeIndex) {
        let fact = self.nodes[at].1.types.get(&index).and_then(|here| here.fact.as_ref());
        if let Some(fact) = fact {
            self.changes.note(Change::Type(self.names.hash(&fact.name)));
        }
    }

    fn node_at(&self, node: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&node, |(node, _)| *node).ok()
    }

    /// A node's place, a new one when there is none; `None` when there may be no more.
    fn node_at_or_new(&mut self, node: NodeId, status: Status) -> Option<usize> {
        match self.nodes.binary_search_by_key(&node, |(node, _)| *node) {
            Ok(at) => Some(at),
            Err(_) if node == 0 || self.nodes.len() >= self.limits.nodes => None,
            Err(at) => {
                self.nodes.insert(at, (node, Arc::new(Node::new(status))));
                self.version += 1;
                Some(at)
            }
        }
    }

    fn node_mut(&mut self, at: usize) -> &mut Node {
        self.version += 1;
        Arc::make_mut(&mut self.nodes[at].1)
    }

    /// A number that every change raises.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What changed since the last call, for those who keep answers.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.changes.take()
    }

    /// Entries that were refused.
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }
}
