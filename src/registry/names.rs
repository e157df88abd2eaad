//! Which agents have a name, over all nodes, in a table whose copies share what did not change.
//!
//! Invariants worth naming:
//! - A name stands for at most one agent of a node: the one that said so last.
//! - A change copies one of [`BUCKETS`] tables, and that only when a copy of the index has it too.

use super::fact::Capabilities;
use crate::wire::id::AgentAddress;
use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
use std::{hash::BuildHasher, sync::Arc};

/// Tables of the index: with 100,000 names a change copies about 400 of them.
const BUCKETS: usize = 256;

/// What an agent says of itself beside its type.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub name: Option<Box<str>>,
    pub capabilities: Capabilities,
}

/// An agent with a name.
#[derive(Clone, Debug)]
struct Named {
    told: Arc<Told>,
    id: AgentAddress,
}

impl Named {
    fn name(&self) -> &str {
        self.told.name.as_deref().unwrap_or_default()
    }
}

/// The index of all names; a clone of it takes a reference count for each bucket.
#[derive(Clone, Debug)]
pub(super) struct Names {
    buckets: Vec<Arc<HashTable<Named>>>,
    state: RandomState,
}

impl Default for Names {
    fn default() -> Self {
        Self { buckets: vec![Arc::default(); BUCKETS], state: RandomState::default() }
    }
}

/// The bucket of a hash: by other bits than those that the tables use.
const fn bucket_of(hash: u64) -> usize {
    (hash >> 32) as usize % BUCKETS
}

impl Names {
    /// The hash of a name, the same in all copies of this index.
    #[inline]
    pub fn hash(&self, name: &str) -> u64 {
        self.state.hash_one(name)
    }

    /// What hashes names, in all copies of this index.
    pub fn hasher(&self) -> RandomState {
        self.state.clone()
    }

    /// Notes that an agent has its name, and forgets who had it on the agent's node before.
    pub fn insert(&mut self, id: AgentAddress, told: &Arc<Told>) {
        let named = Named { told: told.clone(), id };
        let hash = self.hash(named.name());
        let state = &self.state;
        let same = |known: &Named| known.id.node == id.node && known.name() == named.name();
        let table = Arc::make_mut(&mut self.buckets[bucket_of(hash)]);
        match table.entry(hash, same, |known| state.hash_one(known.name())) {
            Entry::Occupied(mut entry) => *entry.get_mut() = named,
            Entry::Vacant(entry) => drop(entry.insert(named)),
        }
    }

    /// Forgets that an agent has a name, unless another of its node said so since.
    pub fn remove(&mut self, id: AgentAddress, name: &str) {
        let hash = self.hash(name);
        let bucket = &mut self.buckets[bucket_of(hash)];
        let same = |known: &Named| known.id == id && known.name() == name;
        // Nothing is copied for a name that has another owner.
        if bucket.find(hash, same).is_some()
            && let Ok(entry) = Arc::make_mut(bucket).find_entry(hash, same)
        {
            entry.remove();
        }
    }

    /// The agents of a name, of each node at most one, in no order.
    pub fn find(&self, name: &str) -> impl Iterator<Item = AgentAddress> {
        let hash = self.hash(name);
        let table = &self.buckets[bucket_of(hash)];
        table.iter_hash(hash).filter(move |known| known.name() == name).map(|known| known.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::id::AgentId;

    fn told(name: &str) -> Arc<Told> {
        Arc::new(Told { name: Some(name.into()), ..Told::default() })
    }

    #[test]
    fn a_name_that_went_to_a_successor_stays_with_it_and_other_nodes_have_their_own() {
        let id = |node, generation| AgentAddress { node, agent: AgentId::new(0, 1, generation) };
        let on = |names: &Names, node| {
            names.find("clerk").find(|id| id.node == node).map(|id| id.agent.generation())
        };
        let mut names = Names::default();
        names.insert(id(1, 0), &told("clerk"));
        names.insert(id(2, 0), &told("clerk"));
        let before = names.clone();
        names.insert(id(1, 1), &told("clerk"));
        names.remove(id(1, 0), "clerk");
        assert_eq!(on(&names, 1), Some(1));
        assert_eq!(on(&names, 2), Some(0));
        names.remove(id(1, 1), "clerk");
        assert_eq!(names.find("clerk").collect::<Vec<_>>(), [id(2, 0)]);
        names.remove(id(2, 0), "clerk");
        assert_eq!(names.find("clerk").count(), 0);
        assert_eq!(on(&before, 1), Some(0), "a copy keeps what it had");
        assert_eq!(before.find("clerk").count(), 2);
    }
}
