//! The part of a shard that agents' methods may touch: everything but the agents themselves.

use super::{
    calls::{CallKey, Calls},
    context::{NewTask, SendError},
    doors::Outcomes,
    guests,
    handle::{Failure, Inbox, Lease},
    links::Links,
    neighbours::Neighbours,
    placing::Home,
    trunks::{Trunk, Trunks},
    types::Types,
    wheel::Wheel,
};
use crate::{
    config,
    consensus::cluster::Cluster,
    registry::{Directory, TypeIndex},
    wire::{
        api::{CoreStats, Error, TaskView},
        batch::{Content, Header, Kind, Value},
        id::{AgentId, CoreIndex, PartitionIndex, TaskId},
        letter::{Beside, Notice, Request, Response, Submission},
    },
};
use futures_channel::oneshot;
use std::{cmp::Reverse, collections::VecDeque, rc::Rc, sync::Arc};

/// The longest wait for an answer, milliseconds: a day.
const CALL_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Who waits for an answer.
pub enum Waiter {
    /// An agent that called another.
    AgentCall(AgentId),
    /// An agent that started another.
    AgentSpawn(AgentId),
    /// An agent or a door of another node that called an agent of this one.
    FarCall {
        /// Where the answer goes.
        trunk: Rc<Trunk>,
        /// What it repeats.
        correlation: u64,
    },
    /// A door that called an agent.
    DoorCall(oneshot::Sender<Result<Vec<u8>, Error>>),
    /// A door that asked a core.
    DoorRequest(oneshot::Sender<Result<Response, Error>>),
    /// A door whose request has several members, each answered by itself.
    DoorEach {
        /// Members not yet settled.
        remaining: usize,
        /// What became of each so far; the id of one that is not settled.
        outcomes: Vec<Result<TaskId, Error>>,
        /// Told when `remaining` is 0.
        answer: oneshot::Sender<Outcomes>,
    },
    /// A door that waits for the end of a task that it submitted.
    DoorExecute {
        /// What is known of it.
        view: Box<TaskView>,
        /// Told of its end or refusal.
        answer: oneshot::Sender<Result<TaskView, Error>>,
    },
    /// The answer is of no interest.
    Nobody,
}

/// What happens at a time.
pub enum Timer {
    /// A question has waited long enough.
    Call(CallKey),
    /// An agent asked to be called.
    Agent(AgentId, u64),
    /// An attempt has taken long enough.
    Attempt(Lease),
    /// A fetch has waited long enough: asker's core, correlation.
    Fetch(CoreIndex, u64),
    /// Somebody has waited long enough for a task's end: asker's core, correlation.
    Watch(CoreIndex, u64),
    /// A pool of agents may have to change.
    Pool(TypeIndex),
    /// What was asked for of a partition may have waited long enough.
    Asked(PartitionIndex),
    /// Another node may take tasks of a type.
    Lend(TypeIndex),
    /// An attempt of another node's task, by its key, has waited long enough for an agent.
    Guest(u32),
}

/// What a method asked for that is done after it returned.
pub enum Command {
    /// Stop an agent of this core.
    Stop(AgentId),
    /// End an attempt.
    Finish(Lease, Result<Vec<u8>, Failure>),
    /// Let an agent's messages wait.
    Pause(AgentId),
    /// Deliver what waited.
    Resume(AgentId),
}

/// The source of messages that come from a door of a core, not from an agent.
pub const fn door_of(core: CoreIndex) -> AgentId {
    AgentId::new(core, AgentId::SLOTS - 1, AgentId::SLOTS - 1)
}

/// The place of a door of a core that waits for the end of a task it did not submit just now.
pub const fn watcher_of(core: CoreIndex) -> AgentId {
    AgentId::new(core, AgentId::SLOTS - 1, AgentId::SLOTS - 2)
}

/// Who stands for the agents of other nodes in an attempt that one of them runs.
pub const fn borrower_of(core: CoreIndex) -> AgentId {
    AgentId::new(core, AgentId::SLOTS - 1, AgentId::SLOTS - 3)
}

/// How many partitions the tasks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    /// Those that keys belong to: as many as when the log began.
    pub keyed: PartitionIndex,
    /// All of them; every core keeps at least one.
    pub all: PartitionIndex,
    /// Whether other nodes may lead some.
    pub clustered: bool,
    /// Whether nodes that may lie agree on what they hold.
    pub agreed: bool,
}

/// The part of a shard that agents' methods may touch.
pub struct Kernel {
    /// This core.
    pub index: CoreIndex,
    /// The node's agent types.
    pub types: Arc<Types>,
    /// The mesh.
    pub links: Links,
    /// What is known of other nodes, where there are some.
    pub(super) neighbours: Option<Box<Neighbours>>,
    /// The ways to other nodes.
    pub trunks: Trunks,
    /// Questions that wait for an answer.
    pub calls: Calls<Waiter>,
    /// Everything that happens at a time.
    pub wheel: Wheel<Timer>,
    /// Who is where.
    pub directory: Directory,
    /// What methods asked for.
    pub commands: VecDeque<Command>,
    /// Agents that asked for a turn.
    pub turns: Vec<AgentId>,
    /// What futures of this core asked for.
    pub inbox: Rc<Inbox>,
    /// Counters.
    pub stats: CoreStats,
    /// What each core told of its load, in thousandths.
    pub loads: Vec<u32>,
    /// Microseconds since the node started, as of this turn.
    pub now_us: u64,
    /// How long a question waits when the asker names no time, milliseconds.
    pub call_timeout_ms: u64,
    /// How long a submission waits that is asked for where nodes may lie, milliseconds.
    pub(super) ask_limit_ms: u64,
    partitions: Partitions,
    /// Who leads what, when other nodes may lead some.
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) random: fastrand::Rng,
    next_host: usize,
    pub(super) next_partition: PartitionIndex,
}

impl Kernel {
    /// A kernel with nothing going on.
    pub(super) fn new(
        index: CoreIndex,
        types: Arc<Types>,
        links: Links,
        partitions: Partitions,
        cluster: Option<Arc<Cluster>>,
        agents: &config::Agents,
    ) -> Self {
        let cores = links.cores();
        Self {
            index,
            types,
            links,
            neighbours: None,
            trunks: Trunks::new(index),
            calls: Calls::new(agents.max_calls),
            wheel: Wheel::new(0),
            directory: Directory::default(),
            commands: VecDeque::new(),
            turns: Vec::new(),
            inbox: Rc::default(),
            stats: CoreStats::default(),
            loads: vec![0; cores],
            now_us: 0,
            call_timeout_ms: agents.call_timeout_ms,
            ask_limit_ms: 0,
            partitions,
            cluster: cluster.filter(|_| partitions.clustered),
            random: fastrand::Rng::new(),
            next_host: index as usize,
            next_partition: 0,
        }
    }

    /// Milliseconds since the node started, as of this turn.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// Whether nodes that may lie agree on what partitions hold.
    #[inline]
    pub(super) fn is_agreed(&self) -> bool {
        self.partitions.agreed
    }

    /// Whether a message to an agent could leave now.
    pub fn check_way(&mut self, target: AgentId) -> Result<(), SendError> {
        if target.core() as usize >= self.links.cores() {
            return Err(SendError::NoReceiver);
        }
        if self.links.is_closed(target) || self.links.is_full(target.core()) {
            self.stats.sends_refused += 1;
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Puts a message to an agent on its way.
    #[inline]
    pub fn push(
        &mut self,
        source: u64,
        kind: Kind,
        target: AgentId,
        correlation: u64,
        content: impl Content,
    ) -> Result<(), SendError> {
        if target.core() as usize >= self.links.cores() {
            return Err(SendError::NoReceiver);
        }
        let header = Header { target: target.to_bits(), source, correlation, kind };
        let pushed = match self.links.is_closed(target) {
            false => self.links.push(self.now_us, target.core(), header, content),
            true => Err(super::links::Full),
        };
        pushed.map_err(|full| {
            self.stats.sends_refused += 1;
            full.into()
        })
    }

    /// Puts an answer on its way; the asker's own limits bound how many there are.
    pub fn push_owed(&mut self, core: CoreIndex, header: Header, content: impl Content) {
        self.links.push_owed(self.now_us, core, header, content);
    }

    /// Notes a question that is about to be sent; `timeout_ms` 0 means the default.
    pub fn open_call(&mut self, waiter: Waiter, timeout_ms: u64) -> CallKey {
        let key = self.calls.insert(waiter);
        let timeout_ms = if timeout_ms == 0 { self.call_timeout_ms } else { timeout_ms };
        let timeout_ms = timeout_ms.min(CALL_MS_MAX);
        let timer = self.wheel.insert(self.now_ms() + timeout_ms, Timer::Call(key));
        self.calls.set_timer(key, timer);
        key
    }

    /// Ends a question: who waited, unless it ended before.
    pub fn close_call(&mut self, key: CallKey) -> Option<Waiter> {
        let (waiter, timer) = self.calls.remove(key)?;
        if let Some(timer) = timer {
            self.wheel.cancel(timer);
        }
        Some(waiter)
    }

    /// Asks a core.
    pub fn ask(
        &mut self,
        core: CoreIndex,
        request: &Request,
        waiter: Waiter,
        timeout_ms: u64,
    ) -> Result<CallKey, SendError> {
        self.ask_in(core, || Value(request), waiter, timeout_ms)
    }

    /// The same with a request that may be large: it is moved.
    pub fn ask_beside(
        &mut self,
        core: CoreIndex,
        request: Request,
        waiter: Waiter,
        timeout_ms: u64,
    ) -> Result<CallKey, SendError> {
        self.ask_in(core, || Beside::attach(request), waiter, timeout_ms)
    }

    fn ask_in<C: Content>(
        &mut self,
        core: CoreIndex,
        request: impl FnOnce() -> C,
        waiter: Waiter,
        timeout_ms: u64,
    ) -> Result<CallKey, SendError> {
        if self.calls.is_full() {
            return Err(SendError::TooManyCalls);
        }
        let key = self.open_call(waiter, timeout_ms);
        let header = Header {
            target: 0,
            source: door_of(self.index).to_bits(),
            correlation: key.to_bits(),
            kind: Kind::Request,
        };
        // Questions to cores are bounded by the limit on calls, so they count as owed.
        self.push_owed(core, header, request());
        Ok(key)
    }

    /// Answers a core that asked.
    pub fn answer(&mut self, core: CoreIndex, correlation: u64, response: &Response) {
        let header = Header { target: 0, source: 0, correlation, kind: Kind::Response };
        self.push_owed(core, header, Value(response));
    }

    /// The same with an answer that may be large: it is moved.
    pub fn answer_beside(&mut self, core: CoreIndex, correlation: u64, response: Response) {
        let header = Header { target: 0, source: 0, correlation, kind: Kind::Response };
        self.push_owed(core, header, Beside::attach(response));
    }

    /// Tells every core, this one among them.
    pub fn notify(&mut self, notice: &Notice) {
        let source = door_of(self.index).to_bits();
        let header = Header { target: 0, source, correlation: 0, kind: Kind::Notice };
        for core in 0..self.links.cores() {
            self.push_owed(core as CoreIndex, header, Value(notice));
        }
    }

    /// Sends bytes to every agent of a type, or to none.
    pub fn broadcast(
        &mut self,
        source: AgentId,
        type_index: TypeIndex,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let cores = self.links.cores() as CoreIndex;
        if self.links.is_type_closed(type_index) || (0..cores).any(|core| self.links.is_full(core))
        {
            self.stats.sends_refused += 1;
            return Err(SendError::Full);
        }
        let header = Header {
            target: u64::from(type_index),
            source: source.to_bits(),
            correlation: 0,
            kind: Kind::Broadcast,
        };
        self.broadcast_here(header, payload);
        Ok(())
    }

    /// The core for a new agent: where its name belongs, or the one that may start the most others;
    /// equals take turns.
    pub fn choose_spawn_core(&mut self, type_index: TypeIndex, name: Option<&str>) -> CoreIndex {
        if let Some(name) = name {
            return Directory::home_of_name(name, self.links.cores());
        }
        self.next_host = self.next_host.wrapping_add(1);
        let spec = self.types.get(type_index);
        let count = spec.hosts.len();
        let turn = (0..count).map(|step| spec.hosts[(self.next_host + step) % count]);
        let room = |core: &CoreIndex| {
            let there = self.directory.agents_on(type_index, *core);
            Reverse(spec.share(*core, spec.max).saturating_sub(there))
        };
        turn.min_by_key(room).unwrap_or(self.index)
    }

    /// A core that may own agents of a type and has none; such cores take turns.
    pub fn empty_host(&mut self, type_index: TypeIndex) -> Option<CoreIndex> {
        self.next_host = self.next_host.wrapping_add(1);
        let hosts = &self.types.get(type_index).hosts;
        let count = hosts.len();
        let mut turn = (0..count).map(|step| hosts[(self.next_host + step) % count]);
        turn.find(|core| self.directory.agents_on(type_index, *core) == 0)
    }

    /// Whether there is such a partition.
    #[inline]
    pub fn has_partition(&self, partition: PartitionIndex) -> bool {
        partition < self.partitions.all
    }

    /// The partition of a core's guests: the number behind those that it keeps, at the place that
    /// follows from it as that of any other.
    pub fn guests_of(&self, core: CoreIndex) -> PartitionIndex {
        let cores = self.links.cores() as CoreIndex;
        core + (self.partitions.all - core).div_ceil(cores) * cores
    }

    /// Whether a lease is that of a guest of this node.
    pub fn is_guest(&self, lease: u64) -> bool {
        let core = guests::core_of(lease).filter(|_| self.neighbours.is_some());
        core.is_some_and(|core| usize::from(core) < self.links.cores())
    }

    /// The task that a lease is of, as this node's cores call it: a guest's is of its core's own
    /// partition.
    pub fn inner_id(&self, id: TaskId, lease: u64) -> TaskId {
        match guests::core_of(lease) {
            Some(core) if self.is_guest(lease) => TaskId { partition: self.guests_of(core), ..id },
            _ => id,
        }
    }

    /// The core that keeps a partition.
    #[inline]
    pub fn core_of(&self, partition: PartitionIndex) -> CoreIndex {
        partition % self.links.cores() as CoreIndex
    }

    /// A partition that a core keeps; they take turns.
    #[inline]
    pub fn partition_on(&mut self, core: CoreIndex) -> PartitionIndex {
        let cores = self.links.cores() as CoreIndex;
        let there = (self.partitions.all - core).div_ceil(cores);
        if there == 1 {
            return core;
        }
        self.next_partition = self.next_partition.wrapping_add(1);
        core + self.next_partition % there * cores
    }

    /// The core that takes the next task of a type: the least loaded one that has agents
    /// of it, by what the cores told last; equals take turns. Cores whose agents all start yet come
    /// after those that have one which can work. While there is no agent at all, one of the cores
    /// that may have some.
    #[inline]
    pub fn choose_home(&mut self, type_index: TypeIndex) -> CoreIndex {
        let homes = self.directory.homes_of(type_index);
        match *homes {
            [] => return self.next_of(type_index),
            [only] => return only.core,
            _ => {}
        }
        self.next_host = self.next_host.wrapping_add(1);
        let count = homes.len();
        let turn = (0..count).map(|step| homes[(self.next_host + step) % count]);
        let least = turn.min_by_key(|home| (home.ready == 0, self.loads[home.core as usize]));
        least.map_or(self.index, |home| home.core)
    }

    /// The partition that knows every task of a type with that key: one whose core may own agents
    /// of the type. It stays the same for as long as the log does, whatever cores there are.
    pub fn partition_of_key(&self, type_index: TypeIndex, key: &str) -> PartitionIndex {
        let hosts = &self.types.get(type_index).hosts;
        let is_host = |partition: &PartitionIndex| hosts.contains(&self.core_of(*partition));
        let hash = crate::registry::hash_of(key.as_bytes()) as usize;
        let Partitions { keyed, all, .. } = self.partitions;
        [keyed, all]
            .into_iter()
            .find_map(|upto| {
                let count = (0..upto).filter(is_host).count();
                (0..upto).filter(is_host).nth(hash.checked_rem(count)?)
            })
            .expect("every core keeps a partition")
    }

    fn next_of(&mut self, type_index: TypeIndex) -> CoreIndex {
        self.next_host = self.next_host.wrapping_add(1);
        let hosts = &self.types.get(type_index).hosts;
        hosts[self.next_host % hosts.len()]
    }

    /// A new task's random bits.
    #[inline]
    pub fn random_bits(&mut self) -> u128 {
        self.random.u128(..)
    }

    /// Puts an agent's task on its way to the core of its partition, which this node leads.
    #[inline]
    pub(super) fn submit_for_agent(
        &mut self,
        agent: AgentId,
        task: NewTask<'_>,
    ) -> Result<TaskId, SendError> {
        let type_index = self.known_type(task.agent_type).map_err(|_| SendError::NoReceiver)?;
        let Home::Here(partition) = self.home_of(type_index, None) else {
            return Err(SendError::LedElsewhere);
        };
        let core = self.core_of(partition);
        // Where the log names it the agent is told of it under the name that it has here.
        let (correlation, random) = match self.is_agreed() {
            true => {
                let bits = self.random.u64(1..);
                (bits, bits.into())
            }
            false => (0, self.random_bits()),
        };
        let submission = Submission {
            random,
            partition,
            timeout_ms: 0,
            max_attempts: 0,
            type_index,
            priority: task.priority as u8,
            reserved: false,
            watched: true,
            transient: false,
            place: 0,
            delay_ms: 0,
            key: &[],
            body_hash: None,
            payload: task.payload,
        };
        let header = Header { target: 0, source: agent.to_bits(), correlation, kind: Kind::Submit };
        self.links.push(self.now_us, core, header, Value(&submission))?;
        Ok(TaskId { partition, random })
    }
}
