//! What the worker cores tell whoever speaks for the node to other nodes: which agents came and
//! went, and how much each type has to do.
//!
//! The cores write, one thread reads; neither waits for the other for longer than a few
//! instructions.
//!
//! Invariants worth naming:
//! - Each core tells of its own agents alone, in the order in which they came and went; only the
//!   latest of each is kept.
//! - What is kept is bounded. When there was too much, the reader is told so and asks the cores to
//!   tell everything again.

use crate::{
    registry::{TypeIndex, fact::Load},
    wire::id::AgentId,
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Agents of which news are kept; a node tells others of fewer.
const NEWS_MAX: usize = 1 << 16;

/// What became of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentNews {
    /// It is there.
    Up(TypeIndex, Option<String>),
    /// It is gone.
    Down,
}

/// News of agents since they were fetched last.
#[derive(Debug, Default)]
pub struct News {
    /// The latest of each.
    pub agents: HashMap<AgentId, AgentNews>,
    /// There was more than is kept: everything has to be told again.
    pub is_partial: bool,
}

/// What the cores tell.
#[derive(Debug)]
pub struct Bulletin {
    news: Mutex<News>,
    /// For each core, the load of each type.
    loads: Box<[Mutex<Vec<Load>>]>,
}

impl Bulletin {
    /// Of a node with so many worker cores.
    pub fn new(cores: usize) -> Self {
        Self { news: Mutex::default(), loads: (0..cores).map(|_| Mutex::default()).collect() }
    }

    /// Tells of an agent.
    pub fn tell(&self, agent: AgentId, what: AgentNews) {
        let mut news = lock(&self.news);
        // That one is gone must not be missed: nobody tells it again.
        let most = if what == AgentNews::Down { 2 * NEWS_MAX } else { NEWS_MAX };
        if news.agents.len() >= most && !news.agents.contains_key(&agent) {
            news.is_partial = true;
            return;
        }
        news.agents.insert(agent, what);
    }

    /// What was told since the last time.
    pub fn take_news(&self) -> News {
        std::mem::take(&mut *lock(&self.news))
    }

    /// Tells the load of each type on a core, in the order of the types.
    pub fn tell_loads(&self, core: usize, loads: impl Iterator<Item = Load>) {
        let mut told = lock(&self.loads[core]);
        told.clear();
        told.extend(loads);
    }

    /// The load of each type on all cores together.
    pub fn loads(&self) -> Vec<Load> {
        let mut all: Vec<Load> = Vec::new();
        for core in &self.loads {
            let told = lock(core);
            if all.len() < told.len() {
                all.resize(told.len(), Load::default());
            }
            for (sum, load) in all.iter_mut().zip(&*told) {
                sum.agents = sum.agents.saturating_add(load.agents);
                sum.capacity = sum.capacity.saturating_add(load.capacity);
                sum.running = sum.running.saturating_add(load.running);
                sum.queued = sum.queued.saturating_add(load.queued);
            }
        }
        all
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_each_agent_is_kept_and_too_much_is_said_to_be() {
        let bulletin = Bulletin::new(2);
        let agent = AgentId::new(0, 1, 0);
        bulletin.tell(agent, AgentNews::Up(3, Some("name".into())));
        bulletin.tell(agent, AgentNews::Down);
        let news = bulletin.take_news();
        assert_eq!(news.agents, HashMap::from([(agent, AgentNews::Down)]));
        assert!(bulletin.take_news().agents.is_empty());
        for slot in 0..=NEWS_MAX as u32 {
            bulletin.tell(AgentId::new(1, slot, 0), AgentNews::Up(0, None));
        }
        bulletin.tell(AgentId::new(1, 0, 0), AgentNews::Down);
        let news = bulletin.take_news();
        assert!(news.is_partial);
        assert_eq!(news.agents.len(), NEWS_MAX);
        assert_eq!(news.agents[&AgentId::new(1, 0, 0)], AgentNews::Down);
    }

    #[test]
    fn loads_of_cores_are_added_up() {
        let bulletin = Bulletin::new(2);
        let load = |agents, queued| Load { agents, capacity: 2 * agents, running: 1, queued };
        bulletin.tell_loads(0, [load(1, 0), load(2, u32::MAX)].into_iter());
        bulletin.tell_loads(1, [load(5, 7)].into_iter());
        bulletin.tell_loads(1, [load(3, 7), load(1, 1)].into_iter());
        let expected = [
            Load { agents: 4, capacity: 8, running: 2, queued: 7 },
            Load { agents: 3, capacity: 6, running: 2, queued: u32::MAX },
        ];
        assert_eq!(bulletin.loads(), expected);
    }
}
