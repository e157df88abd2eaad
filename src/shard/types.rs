//! The node's agent types: the same list on every core, fixed when the node starts.

use super::{agent::Agent, remote::Seat};
use crate::{
    registry::{TypeIndex, fact::Capabilities},
    wire::{api::AgentKind, id::CoreIndex},
};
use foldhash::fast::RandomState;
use std::{collections::HashMap, sync::Arc};

/// Workers that a type may have that only the log knows.
const WORKERS_OF_UNKNOWN_MAX: usize = 10_000;

/// Makes a new agent of a type, on the core that will own it.
pub type Factory = Arc<dyn Fn() -> Box<dyn Agent> + Send + Sync>;

/// One agent type.
#[derive(Clone)]
pub struct TypeSpec {
    /// The name that tasks and messages use.
    pub name: String,
    /// What its agents are.
    pub kind: AgentKind,
    /// Tasks that one agent runs at the same time.
    pub max_tasks: u32,
    /// Agents started with the node and kept.
    pub min: usize,
    /// Agents that may exist at the same time.
    pub max: usize,
    /// Pause between two starts towards `min`, milliseconds.
    pub warmup_delay_ms: u64,
    /// How long an agent above `min` may have nothing to do before it stops, milliseconds.
    pub idle_timeout_ms: u64,
    /// Cores that may own agents of the type and their tasks; not empty.
    pub hosts: Vec<CoreIndex>,
    /// What its agents can do.
    pub capabilities: Capabilities,
    /// Makes an agent.
    pub factory: Factory,
}

impl TypeSpec {
    /// How many of `total` agents fall to a core when they are dealt out over the hosts.
    pub fn share(&self, core: CoreIndex, total: usize) -> usize {
        match self.hosts.iter().position(|host| *host == core) {
            Some(place) => {
                let even = total / self.hosts.len();
                even + usize::from(place < total % self.hosts.len())
            }
            None => 0,
        }
    }
}

/// All agent types of a node.
#[derive(Clone)]
pub struct Types {
    list: Vec<TypeSpec>,
    /// What stands for a type that is not in the list.
    unknown: TypeSpec,
    by_name: HashMap<String, TypeIndex, RandomState>,
}

impl Types {
    /// The types in this order; a later one replaces an earlier one of its name.
    pub fn new(specs: Vec<TypeSpec>) -> Self {
        let mut types =
            Self { list: Vec::new(), unknown: remote("unknown", 1), by_name: HashMap::default() };
        for spec in specs {
            match types.by_name.get(&spec.name) {
                Some(&index) => types.list[index as usize] = spec,
                None => {
                    types.by_name.insert(spec.name.clone(), types.list.len() as TypeIndex);
                    types.list.push(spec);
                }
            }
        }
        types
    }

    /// The type of that name.
    pub fn find(&self, name: &str) -> Option<TypeIndex> {
        self.by_name.get(name).copied()
    }

    /// The type of that name; one that nobody configured is added as a remote type, whose workers
    /// may still come.
    pub fn find_or_add(&mut self, name: &str, cores: CoreIndex) -> TypeIndex {
        if let Some(index) = self.find(name) {
            return index;
        }
        let index = self.list.len() as TypeIndex;
        self.by_name.insert(name.to_owned(), index);
        self.list.push(remote(name, cores));
        index
    }

    /// The type at a place that [`Types::find`] gave.
    pub fn get(&self, index: TypeIndex) -> &TypeSpec {
        self.list.get(index as usize).unwrap_or(&self.unknown)
    }

    /// The type of that name; for one that this node has never heard of, though others have, the
    /// place behind all others: its tasks wait.
    pub fn find_or_unknown(&self, name: &str) -> TypeIndex {
        self.find(name).unwrap_or(self.list.len() as TypeIndex)
    }

    /// The type at a place that came from elsewhere.
    pub fn try_get(&self, index: TypeIndex) -> Option<&TypeSpec> {
        self.list.get(index as usize)
    }

    /// All types with their places.
    pub fn iter(&self) -> impl Iterator<Item = (TypeIndex, &TypeSpec)> {
        self.list.iter().enumerate().map(|(index, spec)| (index as TypeIndex, spec))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// A type of workers that may still come.
fn remote(name: &str, cores: CoreIndex) -> TypeSpec {
    TypeSpec {
        name: name.to_owned(),
        kind: AgentKind::Remote,
        max_tasks: 1,
        min: 0,
        max: WORKERS_OF_UNKNOWN_MAX,
        warmup_delay_ms: 0,
        idle_timeout_ms: 0,
        hosts: (0..cores).collect(),
        capabilities: Capabilities::default(),
        factory: Arc::new(|| Box::new(Seat)),
    }
}
