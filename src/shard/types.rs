//! The node's agent types: the same list on every core.
//!
//! Those of the configuration and of the log are there when the node starts. Others are learned while
//! it runs: a task of theirs came, and agents of another node can run it.
//!
//! Invariants worth naming:
//! - A type keeps its place for as long as the node runs, and is never taken out.
//! - No question waits: a place is written once, and read without a lock.
//! - Where nodes may lie, what one of n asks for takes no more than an nth of the places for what is learned:
//!   nobody uses up those of others.

use super::{agent::Agent, remote::Seat};
use crate::{
    registry::{TypeIndex, fact::Capabilities},
    task::ASKERS_MAX,
    wire::{api::AgentKind, id::CoreIndex},
};
use foldhash::fast::RandomState;
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Workers that a type may have that only the log knows.
const WORKERS_OF_UNKNOWN_MAX: usize = 10_000;

/// Types that a node learns at most while it runs.
pub const LEARNED_MAX: usize = 1_024;
/// Types that it begins with at most; a place behind those that may be learned is that of all others.
const LISTED_MAX: usize = TypeIndex::MAX as usize - LEARNED_MAX;

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
    /// Whether agents of the type start when tasks wait: those of other kinds come by themselves.
    pub fn starts_agents(&self) -> bool {
        self.kind != AgentKind::Remote && self.max > 0
    }

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
pub struct Types {
    /// Those that it began with.
    list: Vec<TypeSpec>,
    /// How many of them are configured: the first ones.
    configured: usize,
    /// Those that it learned, from the first on.
    learned: Box<[OnceLock<TypeSpec>]>,
    /// How many are learned.
    learned_count: AtomicUsize,
    /// Where nodes may lie: how many of them each has asked for first, by its place.
    learned_for: [AtomicUsize; ASKERS_MAX],
    /// What stands for a type that is not in the list.
    unknown: TypeSpec,
    by_name: HashMap<String, TypeIndex, RandomState>,
}

impl Types {
    /// The types in this order; a later one replaces an earlier one of its name.
    pub fn new(specs: Vec<TypeSpec>) -> Self {
        let mut types = Self {
            list: Vec::new(),
            configured: 0,
            learned: (0..LEARNED_MAX).map(|_| OnceLock::new()).collect(),
            learned_count: AtomicUsize::new(0),
            learned_for: Default::default(),
            unknown: remote("unknown", 1),
            by_name: HashMap::default(),
        };
        for spec in specs {
            match types.by_name.get(&spec.name) {
                Some(&index) => types.list[index as usize] = spec,
                None => {
                    types.by_name.insert(spec.name.clone(), types.list.len() as TypeIndex);
                    types.list.push(spec);
                }
            }
        }
        types.configured = types.list.len();
        types
    }

    /// The type of that name.
    #[inline]
    pub fn find(&self, name: &str) -> Option<TypeIndex> {
        self.by_name.get(name).copied().or_else(|| self.find_learned(name))
    }

    fn find_learned(&self, name: &str) -> Option<TypeIndex> {
        let mut learned = self.learned().enumerate();
        let place = learned.find(|(_, spec)| spec.name == name).map(|(place, _)| place);
        place.map(|place| (self.list.len() + place) as TypeIndex)
    }

    fn learned(&self) -> impl Iterator<Item = &TypeSpec> {
        let count = self.learned_count.load(Ordering::Acquire);
        self.learned[..count].iter().filter_map(OnceLock::get)
    }

    /// The type of that name; one that the node has not heard of is learned as a remote type, for the
    /// node has no agent of it: other nodes may have, and workers may come. `None` when there were too
    /// many.
    #[cold]
    pub fn learn(&self, name: &str, cores: CoreIndex) -> Option<TypeIndex> {
        if let Some(index) = self.find(name) {
            return Some(index);
        }
        let (index, _) = self.put(name, cores)?;
        Some(index)
    }

    /// As [`Types::learn`], where nodes may lie: of what one of them asks for, by its place among so many,
    /// no more is learned than its share.
    #[cold]
    pub fn learn_for(
        &self,
        (asker, nodes): (usize, usize),
        name: &str,
        cores: CoreIndex,
    ) -> Option<TypeIndex> {
        if let Some(index) = self.find(name) {
            return Some(index);
        }
        let learned_for = &self.learned_for[asker];
        if learned_for.load(Ordering::Relaxed) >= LEARNED_MAX / nodes {
            return None;
        }
        let (index, is_new) = self.put(name, cores)?;
        learned_for.fetch_add(usize::from(is_new), Ordering::Relaxed);
        Some(index)
    }

    /// The type of a task that nodes which may lie agree on, by who asked for it. Of one that is over, as whoever
    /// leads says, nothing is learned: it needs no agent, and might stand in anybody's name.
    pub fn learn_agreed(
        &self,
        asker: Option<(usize, usize)>,
        is_over: bool,
        name: &str,
        cores: CoreIndex,
    ) -> TypeIndex {
        let learned = match asker {
            _ if is_over => self.find(name),
            Some(asker) => self.learn_for(asker, name, cores),
            None => self.learn(name, cores),
        };
        learned.unwrap_or(self.unknown())
    }

    /// The place of a type that is learned, and whether it is so now.
    fn put(&self, name: &str, cores: CoreIndex) -> Option<(TypeIndex, bool)> {
        let mut is_new = false;
        // Who comes second to a place finds what the first one put there.
        let mut places = self.learned.iter().enumerate();
        let mut new = || {
            is_new = true;
            remote(name, cores)
        };
        let mut is_it = |slot: &OnceLock<TypeSpec>| slot.get_or_init(&mut new).name == name;
        let (place, _) = places.find(|(_, slot)| is_it(slot))?;
        self.learned_count.fetch_max(place + 1, Ordering::AcqRel);
        Some(((self.list.len() + place) as TypeIndex, is_new))
    }

    /// The place of all types that are too many to be learned: their tasks wait.
    pub fn unknown(&self) -> TypeIndex {
        (self.list.len() + LEARNED_MAX) as TypeIndex
    }

    /// Whether the configuration has the type.
    pub fn is_configured(&self, index: TypeIndex) -> bool {
        usize::from(index) < self.configured
    }

    /// The type of that name; one that nobody configured is added as a remote type, whose workers
    /// may still come.
    pub fn find_or_add(&mut self, name: &str, cores: CoreIndex) -> TypeIndex {
        if let Some(index) = self.find(name) {
            return index;
        }
        if self.list.len() >= LISTED_MAX {
            return self.unknown();
        }
        let index = self.list.len() as TypeIndex;
        self.by_name.insert(name.to_owned(), index);
        self.list.push(remote(name, cores));
        index
    }

    /// The type at a place that [`Types::find`] gave.
    #[inline]
    pub fn get(&self, index: TypeIndex) -> &TypeSpec {
        self.try_get(index).unwrap_or(&self.unknown)
    }

    /// The type at a place that came from elsewhere.
    #[inline]
    pub fn try_get(&self, index: TypeIndex) -> Option<&TypeSpec> {
        let index = usize::from(index);
        self.list.get(index).or_else(|| self.learned.get(index - self.list.len())?.get())
    }

    /// All types with their places.
    pub fn iter(&self) -> impl Iterator<Item = (TypeIndex, &TypeSpec)> {
        self.list.iter().chain(self.learned()).enumerate().map(|(i, spec)| (i as TypeIndex, spec))
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.list.len() + self.learned_count.load(Ordering::Acquire)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashSet};

    #[test]
    fn types_that_cores_learn_at_the_same_time_have_one_place_each() {
        let mut types = Types::new(vec![remote("configured", 2)]);
        assert_eq!(types.find_or_add("of the log", 2), 1);
        assert!(types.is_configured(0) && !types.is_configured(1));
        let name = |number: usize| format!("type {number}");
        let learn = |_| -> Vec<TypeIndex> {
            (0..LEARNED_MAX).map(|it| types.learn(&name(it), 2).expect("there is room")).collect()
        };
        let places: HashSet<Vec<TypeIndex>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|it| scope.spawn(move || learn(it))).collect();
            threads.into_iter().map(|it| it.join().expect("it learns")).collect()
        });
        let [places] = &places.into_iter().collect::<Vec<_>>()[..] else {
            panic!("the threads do not agree on the places")
        };
        assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), LEARNED_MAX);
        for (number, &place) in places.iter().enumerate() {
            assert_eq!(
                (types.find(&name(number)), types.is_configured(place)),
                (Some(place), false)
            );
            assert_eq!(types.get(place).name, name(number));
        }
        assert_eq!((types.len(), types.iter().count()), (2 + LEARNED_MAX, 2 + LEARNED_MAX));
        assert_eq!(types.learn("one too many", 2), None);
        assert_eq!(types.learn("of the log", 2), Some(1), "it was there");
        assert!(types.try_get(types.unknown()).is_none());
        assert_eq!(types.get(types.unknown()).name, "unknown");
    }

    #[test]
    fn no_node_that_others_agree_with_uses_up_the_places_of_their_types() {
        let types = Types::new(vec![remote("configured", 2)]);
        let name = |asker: usize, number: usize| format!("type {number} of {asker}");
        let learned = |asker: usize| {
            let is_learned =
                |number: &usize| types.learn_for((asker, 4), &name(asker, *number), 2).is_some();
            (0..LEARNED_MAX).filter(is_learned).count()
        };
        assert_eq!([2, 0, 1, 3].map(learned), [LEARNED_MAX / 4; 4]);
        assert!(types.learn_for((2, 4), &name(0, 0), 2).is_some(), "somebody else's is there");
    }
}
