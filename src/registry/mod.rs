//! Who is where: every core's own copy of the node's agents, found by id, type and name, and what
//! is known of the agents, types and loads of all nodes ([`world`]).
//!
//! `mod.rs` is the directory of this node's agents. `fact.rs` is what a node tells all others of
//! itself, as bytes of gossip; `bytes.rs` reads them; `telling.rs` says when a load is worth telling.
//! `world.rs` puts together what all nodes tell, in `pages.rs`, `names.rs` and `text.rs`, of which
//! copies are cheap. `board.rs` hands snapshots of the world to the cores, `view.rs` is what a core
//! sees, `cache.rs` keeps what it asked, and `spread.rs` whom it sends to next.
//!
//! Invariants worth naming:
//! - A named agent lives on the core that its name hashes to, so whether a name is taken is
//!   decided by one core alone.
//! - What a core knows of its own agents is exact; of others it is as old as the last notice that
//!   arrived, and notices from one core arrive in order.

pub mod board;
mod bytes;
pub mod cache;
pub mod fact;
mod names;
mod pages;
mod spread;
pub mod telling;
mod text;
pub mod view;
pub mod world;

use crate::wire::id::{AgentId, CoreIndex};
use std::collections::{BTreeMap, HashMap, btree_map};

/// A hash that stays the same from one start of the program to the next, and between its cores.
pub fn hash_of(bytes: &[u8]) -> u64 {
    // FNV-1a: keys are short and come one at a time.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    // Its low bits alone are weak.
    hash ^ hash >> 32
}

/// An agent type's place in the node's list of types.
pub type TypeIndex = u16;

/// One agent as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its type.
    pub type_index: TypeIndex,
    /// Its name, when it has one.
    pub name: Option<String>,
}

/// A core that owns agents of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The core.
    pub core: CoreIndex,
    /// Its agents of the type.
    pub agents: usize,
    /// Those that can work, and do not start yet.
    pub ready: usize,
}

/// One core's copy of who is where.
#[derive(Debug, Default)]
pub struct Directory {
    agents: BTreeMap<AgentId, Known>,
    names: HashMap<String, AgentId>,
    /// For each type, the cores that own agents of it, by core.
    homes: Vec<Vec<Home>>,
}

#[derive(Debug)]
struct Known {
    entry: Entry,
    ready: bool,
}

impl Directory {
    /// The core that an agent of that name lives on, in a node of `cores` worker cores.
    pub fn home_of_name(name: &str, cores: usize) -> CoreIndex {
        (hash_of(name.as_bytes()) % cores as u64) as CoreIndex
    }

    /// Notes a new agent, which counts as one that can work; says nothing new of one that is known.
    pub fn insert(&mut self, id: AgentId, entry: Entry) {
        if let Some(name) = &entry.name {
            self.names.insert(name.clone(), id);
        }
        let type_index = entry.type_index;
        if let btree_map::Entry::Vacant(place) = self.agents.entry(id) {
            place.insert(Known { entry, ready: true });
            let home = self.home(type_index, id.core());
            home.agents += 1;
            home.ready += 1;
        }
    }

    /// Notes that an agent still starts, or that it can work.
    pub fn set_ready(&mut self, id: AgentId, ready: bool) {
        let Some(known) = self.agents.get_mut(&id) else { return };
        if std::mem::replace(&mut known.ready, ready) == ready {
            return;
        }
        let type_index = known.entry.type_index;
        let home = self.home(type_index, id.core());
        match ready {
            true => home.ready += 1,
            false => home.ready -= 1,
        }
    }

    /// Forgets an agent.
    pub fn remove(&mut self, id: AgentId) {
        let Some(Known { entry, ready }) = self.agents.remove(&id) else { return };
        let home = self.home(entry.type_index, id.core());
        home.agents -= 1;
        home.ready -= usize::from(ready);
        if home.agents == 0 {
            self.homes[entry.type_index as usize].retain(|home| home.core != id.core());
        }
        if let Some(name) = entry.name
            && self.names.get(&name) == Some(&id)
        {
            self.names.remove(&name);
        }
    }

    /// The home on a core, a new one when there is none.
    fn home(&mut self, type_index: TypeIndex, core: CoreIndex) -> &mut Home {
        let types = self.homes.len().max(type_index as usize + 1);
        self.homes.resize(types, Vec::new());
        let homes = &mut self.homes[type_index as usize];
        let place = match homes.binary_search_by_key(&core, |home| home.core) {
            Ok(place) => place,
            Err(place) => {
                homes.insert(place, Home { core, agents: 0, ready: 0 });
                place
            }
        };
        &mut homes[place]
    }

    /// The cores that own agents of a type, by core.
    #[inline]
    pub fn homes_of(&self, type_index: TypeIndex) -> &[Home] {
        self.homes.get(type_index as usize).map_or(&[], Vec::as_slice)
    }

    /// How many agents of a type a core owns.
    pub fn agents_on(&self, type_index: TypeIndex, core: CoreIndex) -> usize {
        let homes = self.homes_of(type_index);
        let place = homes.binary_search_by_key(&core, |home| home.core);
        place.map_or(0, |place| homes[place].agents)
    }

    /// How many agents of a type all cores own.
    pub fn agents_of(&self, type_index: TypeIndex) -> usize {
        self.homes_of(type_index).iter().map(|home| home.agents).sum()
    }

    /// The agent of that id.
    pub fn get(&self, id: AgentId) -> Option<&Entry> {
        self.agents.get(&id).map(|known| &known.entry)
    }

    /// The agent of that name.
    pub fn find(&self, name: &str) -> Option<AgentId> {
        self.names.get(name).copied()
    }

    /// All agents of a type, by id.
    pub fn of_type(&self, type_index: TypeIndex) -> impl Iterator<Item = AgentId> + '_ {
        self.agents
            .iter()
            .filter(move |(_, known)| known.entry.type_index == type_index)
            .map(|(id, _)| *id)
    }

    /// Agents known.
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether no agent is known.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_found_by_id_type_and_name_until_they_are_gone() {
        let mut directory = Directory::default();
        let (first, second) = (AgentId::new(0, 1, 0), AgentId::new(1, 0, 4));
        directory.insert(first, Entry { type_index: 2, name: Some("clerk".into()) });
        directory.insert(second, Entry { type_index: 2, name: None });
        assert_eq!(directory.find("clerk"), Some(first));
        assert_eq!(directory.of_type(2).collect::<Vec<_>>(), [first, second]);
        assert_eq!(directory.of_type(1).count(), 0);
        let home = |core, ready| Home { core, agents: 1, ready };
        assert_eq!(directory.homes_of(2), [home(0, 1), home(1, 1)]);
        assert_eq!(directory.homes_of(3), []);
        directory.set_ready(first, false);
        directory.set_ready(first, false);
        assert_eq!(directory.homes_of(2), [home(0, 0), home(1, 1)], "one still starts");
        directory.insert(first, Entry { type_index: 2, name: Some("clerk".into()) });
        assert_eq!(directory.homes_of(2), [home(0, 0), home(1, 1)], "nothing new");
        assert_eq!((directory.agents_on(2, 0), directory.agents_on(2, 7)), (1, 0));
        assert_eq!((directory.agents_of(2), directory.agents_of(1)), (2, 0));
        directory.remove(first);
        directory.remove(first);
        assert_eq!(directory.homes_of(2), [home(1, 1)]);
        assert_eq!(directory.find("clerk"), None);
        assert_eq!(directory.get(first), None);
        assert_eq!(directory.len(), 1);
    }

    #[test]
    fn a_name_that_went_to_a_successor_stays_with_it() {
        let mut directory = Directory::default();
        let (old, new) = (AgentId::new(0, 1, 0), AgentId::new(0, 1, 1));
        directory.insert(old, Entry { type_index: 0, name: Some("clerk".into()) });
        directory.insert(new, Entry { type_index: 0, name: Some("clerk".into()) });
        directory.remove(old);
        assert_eq!(directory.find("clerk"), Some(new));
    }
}
