//! Which agents have a name, over all nodes, in tables whose copies share what did not change.
//!
//! The tables have hashes and not names: a copy of them follows no pointer. Whoever asks looks at
//! the agents that it is given.
//!
//! Invariants worth naming:
//! - A name stands for at most one agent of a node: the one that said so last.
//! - A change copies one of [`BUCKETS`] tables, and that only when a copy of the index has it too.

use crate::wire::id::AgentAddress;
use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
use std::{hash::BuildHasher, sync::Arc};

/// Tables of the index: with 100,000 names a change copies about 400 places.
const BUCKETS: usize = 256;

/// An agent with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    hash: u64,
    agent: AgentAddress,
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

    /// Notes that an agent has a name of this hash, and forgets who had the name on the agent's
    /// node before: `has_it` tells whether another agent has that very name.
    pub fn insert(
        &mut self,
        hash: u64,
        agent: AgentAddress,
        has_it: impl Fn(AgentAddress) -> bool,
    ) {
        let same = |known: &Named| {
            known.hash == hash && known.agent.node == agent.node && has_it(known.agent)
        };
        let table = Arc::make_mut(&mut self.buckets[bucket_of(hash)]);
        match table.entry(hash, same, |known| known.hash) {
            Entry::Occupied(mut entry) => entry.get_mut().agent = agent,
            Entry::Vacant(entry) => drop(entry.insert(Named { hash, agent })),
        }
    }

    /// Forgets that an agent has a name of this hash, unless another of its node has it since.
    pub fn remove(&mut self, hash: u64, agent: AgentAddress) {
        let bucket = &mut self.buckets[bucket_of(hash)];
        let same = |known: &Named| *known == Named { hash, agent };
        // Nothing is copied for a name that has another owner.
        if bucket.find(hash, same).is_some()
            && let Ok(entry) = Arc::make_mut(bucket).find_entry(hash, same)
        {
            entry.remove();
        }
    }

    /// Places that are taken.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.len()).sum()
    }

    /// The agents whose name has this hash, in no order.
    pub fn find(&self, hash: u64) -> impl Iterator<Item = AgentAddress> {
        let table = &self.buckets[bucket_of(hash)];
        table.iter_hash(hash).filter(move |known| known.hash == hash).map(|known| known.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::id::AgentId;

    #[test]
    fn a_name_that_went_to_a_successor_stays_with_it_and_other_nodes_have_their_own() {
        let agent = |node, age| AgentAddress { node, agent: AgentId::new(0, 1, age) };
        let mut names = Names::default();
        let hash = names.hash("clerk");
        let found = |names: &Names| {
            let mut found: Vec<_> = names.find(hash).collect();
            found.sort();
            found
        };
        names.insert(hash, agent(1, 0), |_| true);
        names.insert(hash, agent(2, 0), |_| true);
        let before = names.clone();
        names.insert(hash, agent(1, 1), |_| true);
        names.remove(hash, agent(1, 0));
        assert_eq!(found(&names), [agent(1, 1), agent(2, 0)]);
        names.insert(hash, agent(1, 2), |_| false);
        assert_eq!(found(&names).len(), 3, "another name with the same hash is another one");
        names.remove(hash, agent(1, 1));
        names.remove(hash, agent(1, 2));
        names.remove(hash, agent(2, 0));
        assert_eq!(found(&names), []);
        assert_eq!(found(&before), [agent(1, 0), agent(2, 0)], "a copy keeps what it had");
    }
}
