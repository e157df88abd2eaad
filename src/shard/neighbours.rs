//! What a core knows of other nodes, and what it tells of itself to whoever speaks to them.

use super::{
    bulletin::{AgentNews, Bulletin},
    core::Shard,
    kernel::Kernel,
    trunks::Dial,
    types::LEARNED_MAX,
};
use crate::{
    config,
    registry::{TypeIndex, board::Board, fact::Load, view::View},
    wire::{
        api::{CoreStats, Error},
        id::{AgentAddress, AgentId, CoreIndex, NodeId},
    },
};
use std::{collections::BTreeSet, rc::Rc, sync::Arc};

/// Time between two loads that are told, milliseconds: a round of gossip.
const LOADS_MS: u64 = 100;
/// Types that a refusal names.
const NAMED_MAX: usize = 64;

/// A core's side of the directory of all nodes.
pub struct Neighbours {
    board: Arc<Board>,
    bulletin: Arc<Bulletin>,
    /// What the core looked up, and the world that it looked it up in.
    pub(super) view: View,
    /// When loads were told last, and what the core had counted by then.
    told: Option<(u64, Counted)>,
    /// Whether they have changed since.
    owes: bool,
}

/// Counts that stay the same while no load changes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counted([u64; 8]);

impl Counted {
    fn of(stats: &CoreStats, changes_of_guests: u64) -> Self {
        let ended = stats.tasks_done + stats.tasks_dead + stats.tasks_cancelled;
        let CoreStats { agents, agents_started, tasks_accepted, .. } = *stats;
        let CoreStats { attempts_failed, tasks_running, tasks_queued, .. } = *stats;
        Self([
            agents,
            agents_started,
            tasks_accepted,
            ended,
            attempts_failed,
            tasks_running,
            tasks_queued,
            changes_of_guests,
        ])
    }
}

impl Neighbours {
    /// Tells of an agent of this core.
    pub(super) fn tell(&self, agent: AgentId, what: AgentNews) {
        self.bulletin.tell(agent, what);
    }
}

/// How much a core keeps of what it looked up.
#[derive(Clone, Copy, Debug)]
pub struct CacheSize {
    /// Answers.
    pub entries: usize,
    /// How long an answer holds, milliseconds.
    pub ttl_ms: u64,
}

impl CacheSize {
    /// What the tuning says.
    pub fn of(gossip: &config::Gossip) -> Self {
        Self { entries: gossip.lookups, ttl_ms: gossip.lookup_ttl_ms }
    }
}

impl Kernel {
    /// Takes over what has become known of other nodes.
    #[inline]
    pub(super) fn look_around(&mut self) {
        let now_ms = self.now_ms();
        if let Some(neighbours) = &mut self.neighbours {
            neighbours.board.refresh(&mut neighbours.view, now_ms);
        }
    }
}

impl Kernel {
    /// The agent of that name: one of this node before those of others.
    #[inline]
    pub(super) fn find_agent(&mut self, name: &str) -> Option<AgentAddress> {
        let now_ms = self.now_ms();
        // What this core knows of its own node is newer than what the world says of it.
        let here = self.directory.find(name).map(AgentAddress::from);
        here.or_else(|| self.neighbours.as_mut()?.view.named(name, now_ms))
    }

    /// The place of a type: of this node, or one of which another node has an agent or would start
    /// one, as far as is known. Then it is learned, for its tasks can be kept here and run there.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nobody has it, and [`Error::Full`] when too many were learned.
    #[inline]
    pub(super) fn known_type(&self, name: &str) -> Result<TypeIndex, Error> {
        self.types.find(name).map_or_else(|| self.learn_type(name), Ok)
    }

    #[cold]
    fn learn_type(&self, name: &str) -> Result<TypeIndex, Error> {
        let Some(world) = self.neighbours.as_ref().map(|it| it.view.world()) else {
            return Err(self.no_type(name));
        };
        let mut there = world
            .may_run(name)
            .filter(|(node, status, _)| *node != world.me() && status.is_present());
        if there.next().is_none() {
            return Err(self.no_type(name));
        }
        self.types.learn(name, self.links.cores() as CoreIndex).ok_or_else(|| {
            Error::Full(format!(
                "no agent type {name:?} on this node, which knows {LEARNED_MAX} types of other nodes \
                 already"
            ))
        })
    }

    /// Nobody has a type: says which ones there are.
    #[cold]
    pub(super) fn no_type(&self, name: &str) -> Error {
        let here: BTreeSet<&str> = self.types.iter().map(|(_, spec)| &*spec.name).collect();
        let world = self.neighbours.as_ref().map(|it| it.view.world());
        let there = world.map(|world| world.types_with_agents()).unwrap_or_default();
        let there: BTreeSet<&str> = there.difference(&here).copied().collect();
        let mut text = format!("no agent type {name:?}; there are: {}", some_of(&here));
        if !there.is_empty() {
            text += &format!("; on other nodes: {}", some_of(&there));
        }
        Error::NotFound(text)
    }

    /// The most agents that a type may have on a node that has it configured, as the first of those
    /// nodes tells: all nodes agree on it.
    pub(super) fn told_max(&self, name: &str) -> Option<usize> {
        self.neighbours.as_ref()?.view.world().max_of_type(name)
    }

    /// The living node whose agents of a type have the least to do, what was chosen before included.
    #[inline]
    pub(super) fn least_loaded_node(&mut self, agent_type: &str) -> Option<NodeId> {
        let (now_ms, lot) = (self.now_ms(), self.random.u64(..));
        self.neighbours.as_mut()?.view.least_loaded(agent_type, now_ms, lot)
    }

    /// The same of agents that can do something.
    #[inline]
    pub(super) fn least_loaded_capable_node(&mut self, capability: &str) -> Option<NodeId> {
        let (now_ms, lot) = (self.now_ms(), self.random.u64(..));
        self.neighbours.as_mut()?.view.least_loaded_capable(capability, now_ms, lot)
    }
}

/// The first of some names.
fn some_of(names: &BTreeSet<&str>) -> String {
    let mut text = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(NAMED_MAX) {
        text += &format!(" and {more} more");
    }
    text
}

impl Shard {
    /// Lets the core's agents talk to those of other nodes: this node is `me`, `dial` makes
    /// connections, `board` has who is where, and `bulletin` takes what is here.
    pub fn join_cluster(
        &mut self,
        me: NodeId,
        dial: Rc<dyn Dial>,
        board: Arc<Board>,
        bulletin: Arc<Bulletin>,
        cache: CacheSize,
    ) {
        self.kernel.trunks.open(me, dial);
        let view = View::new(board.latest(), cache.entries, cache.ttl_ms);
        self.kernel.neighbours =
            Some(Box::new(Neighbours { board, bulletin, view, told: None, owes: false }));
        self.tell_agents();
    }

    /// The agent of that name: one of this node before those of others.
    pub fn find_agent(&mut self, name: &str) -> Option<AgentAddress> {
        self.kernel.look_around();
        self.kernel.find_agent(name)
    }

    /// Tells of all agents of this core.
    pub fn tell_agents(&self) {
        let Some(neighbours) = &self.kernel.neighbours else { return };
        for resident in self.agents.iter() {
            neighbours.tell(resident.id, AgentNews::Up(resident.type_index, resident.name.clone()));
        }
    }

    /// When loads that have changed are to be told, milliseconds since the node started.
    #[inline]
    pub(super) fn loads_due_ms(&self) -> Option<u64> {
        let neighbours = self.kernel.neighbours.as_ref().filter(|it| it.owes)?;
        neighbours.told.map(|(told_ms, _)| told_ms + LOADS_MS)
    }

    /// Tells the loads of this core's agents when they have changed, at most once a round.
    pub(super) fn tell_loads(&mut self, stats: &CoreStats) {
        let (core, now_ms) = (usize::from(self.kernel.index), self.kernel.now_ms());
        let Some(neighbours) = &mut self.kernel.neighbours else { return };
        let counted = Counted::of(stats, self.tasks.guests.changes);
        neighbours.owes = neighbours.told.is_none_or(|(_, told)| told != counted);
        let is_early = neighbours.told.is_some_and(|(told_ms, _)| now_ms < told_ms + LOADS_MS);
        if !neighbours.owes || is_early {
            return;
        }
        neighbours.told = Some((now_ms, counted));
        neighbours.owes = false;
        let tasks = &self.tasks;
        let loads = tasks.pools.iter().enumerate().map(|(index, pool)| {
            let (agents, capacity, running) = pool.totals();
            let waiting = tasks.partitions.iter().map(|it| it.table.queued_of(index as TypeIndex));
            let queued = waiting.sum::<usize>().try_into().unwrap_or(u32::MAX);
            Load { agents, capacity, running, queued }
        });
        neighbours.bulletin.tell_loads(core, loads);
    }

    /// Adds what the cache of this core did.
    pub(super) fn count_lookups(&self, stats: &mut CoreStats) {
        let Some(neighbours) = &self.kernel.neighbours else { return };
        let counters = neighbours.view.counters();
        stats.cache_hits = counters.hits;
        stats.cache_misses = counters.misses;
        stats.cache_evictions = counters.evictions;
        stats.cache_expired = counters.expired;
        stats.cache_invalidated = counters.invalidated;
    }
}
