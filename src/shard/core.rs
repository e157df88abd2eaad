//! The shard itself and one turn of its loop.

use super::{
    agent::Agent,
    agents::Agents,
    asking,
    context::Context,
    handle::{Ask, Inbox},
    kernel::{Command, Kernel, Timer},
    links::Links,
    memory::Memory,
    partition::{Beginning, Partition},
    pools::Pools,
    tasks::Tasks,
    types::Types,
};
pub use super::{backlog::TaskUnreadable, kernel::Partitions};
use crate::{
    config::Config,
    consensus::{cluster::Cluster, reader::SegmentReader},
    runtime::mesh::Port,
    wire::{
        api::{CoreStats, Error},
        batch::{Batch, Limits},
        id::{AgentId, TaskId},
        letter::Response,
    },
};
use futures_util::future::LocalBoxFuture;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

/// Batches that one turn takes from one core before it looks at the others.
const BATCHES_A_TURN: usize = 16;

/// What a shard begins with.
pub struct Start {
    /// When the node started.
    pub at: Instant,
    /// The same as Unix time, milliseconds.
    pub unix_ms: u64,
    /// How many partitions there are.
    pub partitions: Partitions,
    /// Who leads what; `None` when tasks are kept in memory.
    pub cluster: Option<Arc<Cluster>>,
    /// Those of this core, in their order.
    pub tables: Vec<Beginning>,
    /// What reads the log back, when there is one.
    pub reader: Option<SegmentReader>,
    /// What the ids of tasks follow from.
    pub seed: u64,
}

/// What one worker core owns.
pub struct Shard {
    pub(super) kernel: Kernel,
    pub(super) agents: Agents,
    pub(super) tasks: Tasks,
    pub(super) pools: Pools,
    /// The partitions of pattern memory that this core keeps.
    pub(super) memory: Option<Box<Memory>>,
    /// Messages that wait for an agent before its senders are refused.
    pub(super) mailbox_messages: usize,
    /// The agent whose method runs now: whom a panic belongs to.
    pub(super) current: Option<AgentId>,
    pub(super) started: Instant,
    /// Whether answers were given to futures of this core, which want to run.
    pub(super) woke_futures: bool,
    /// Futures that the core is to run.
    pub(super) futures: Vec<LocalBoxFuture<'static, ()>>,
}

impl Shard {
    /// A shard with no agents yet.
    pub fn new(port: Port<Batch>, types: Arc<Types>, config: &Config, start: Start) -> Self {
        let index = port.index as u16;
        let limits = Limits {
            messages: config.mesh.batch_messages,
            bytes: config.mesh.batch_bytes,
            shared_payload_bytes: config.mesh.shared_payload_bytes,
        };
        let links =
            Links::new(port, limits, config.mesh.ring_batches, config.mesh.batch_timeout_us);
        let reader = || start.reader.as_ref().map(SegmentReader::on_core);
        let tables = start.tables.into_iter();
        let partitions = tables.map(|begin| Partition::new(begin, reader(), start.unix_ms));
        let tasks = Tasks::new(types.len(), links.cores(), partitions.collect());
        let pools = Pools::new(index, &types, &config.agents);
        let mut kernel =
            Kernel::new(index, types, links, start.partitions, start.cluster, &config.agents);
        kernel.random = fastrand::Rng::with_seed(start.seed);
        kernel.ask_limit_ms = asking::limit_ms(config.cluster.tick_ms);
        Self {
            kernel,
            agents: Agents::new(index, config.agents.max_per_core),
            tasks,
            pools,
            memory: None,
            mailbox_messages: config.agents.mailbox_messages,
            current: None,
            started: start.at,
            woke_futures: false,
            futures: Vec::new(),
        }
    }

    /// Where futures of this core leave what they ask.
    pub(super) fn inbox(&self) -> Rc<Inbox> {
        self.kernel.inbox.clone()
    }

    /// Reads the clock once for everything that happens until the next reading.
    #[inline]
    pub fn read_clock(&mut self) {
        self.kernel.now_us = self.started.elapsed().as_micros() as u64;
    }

    /// Sets the clock for everything that happens until it is set or read again: microseconds since
    /// the node started, never less than before.
    pub fn set_clock(&mut self, now_us: u64) {
        self.kernel.now_us = now_us;
    }

    /// Futures that the core is to run from now on, beside its turns: they read the log.
    #[inline]
    pub fn take_futures(&mut self) -> Vec<LocalBoxFuture<'static, ()>> {
        std::mem::take(&mut self.futures)
    }

    /// Counters as they are now.
    pub fn stats(&self) -> CoreStats {
        let mut stats = self.kernel.stats.clone();
        stats.agents = self.agents.len() as u64;
        stats.batch_buffers = self.kernel.links.buffers_made();
        self.tasks.count(&mut stats);
        self.count_lookups(&mut stats);
        stats
    }

    /// Makes room for what the types have on this core that were learned since the last time.
    #[inline]
    pub(super) fn know_types(&mut self) {
        if self.kernel.types.len() != self.tasks.pools.len() {
            self.pools.know(&self.kernel.types);
            self.tasks.know(&self.kernel.types);
        }
    }

    /// Does what there is to do, up to a bound; false when there was nothing.
    ///
    /// # Errors
    /// An accepted task cannot be read back: the process must end, and nothing may be done with
    /// this shard any more.
    #[inline]
    pub fn turn(&mut self) -> Result<bool, TaskUnreadable> {
        self.turn_with(Self::run_memory)
    }

    /// The same without pattern memory: between its turn and whatever else takes long messages have theirs.
    ///
    /// # Errors
    /// As [`Shard::turn`].
    pub fn turn_of_messages(&mut self) -> Result<bool, TaskUnreadable> {
        self.turn_with(Self::rest_memory)
    }

    #[inline(always)]
    fn turn_with(
        &mut self,
        run_memory: impl FnOnce(&mut Self) -> bool,
    ) -> Result<bool, TaskUnreadable> {
        let mut worked = false;
        self.kernel.look_around();
        self.know_types();
        for core in 0..self.kernel.links.cores() {
            for _ in 0..BATCHES_A_TURN {
                let Some(batch) = self.kernel.links.take(core) else { break };
                self.kernel.loads[core] = batch.load();
                self.deliver_batch(&batch);
                self.kernel.links.give_back(core, batch);
                self.kernel.stats.batches_received += 1;
                worked = true;
            }
        }
        worked |= self.take_asks()?;
        worked |= self.run_turns();
        worked |= self.run_timers();
        worked |= self.run_tasks();
        worked |= run_memory(self);
        if worked {
            self.kernel.links.load = self.tasks.load();
            self.kernel.loads[self.kernel.index as usize] = self.kernel.links.load;
        }
        self.woke_futures |= self.kernel.trunks.end_turn();
        self.tasks.partitions.iter_mut().for_each(|partition| partition.ledger.flush());
        match self.has_work() {
            true => self.kernel.links.flush_due(self.kernel.now_us),
            false => self.kernel.links.flush(),
        }
        Ok(worked)
    }

    /// Whether another turn would find something to do.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.kernel.links.has_arrivals()
            || !self.kernel.turns.is_empty()
            || !self.kernel.inbox.is_empty()
            || self.tasks.partitions.iter().any(|it| it.ledger.has_news() || it.is_looking())
            || self.memory.as_ref().is_some_and(|memory| memory.has_work())
    }

    /// When the next timer may be due, milliseconds since the node started.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let timer = self.kernel.wheel.next_deadline_ms();
        let due = self.tasks.partitions.iter().filter_map(|it| it.table.next_due_ms());
        timer.into_iter().chain(due).chain(self.loads_due_ms()).min()
    }

    /// Whether something waits for room in a ring, so that the core must look again soon.
    pub fn has_departures(&self) -> bool {
        self.kernel.links.has_departures()
            || self.tasks.partitions.iter().any(|partition| partition.ledger.has_departures())
            || self.memory.as_ref().is_some_and(|memory| memory.has_departures())
    }

    fn take_asks(&mut self) -> Result<bool, TaskUnreadable> {
        let mut worked = false;
        while let Some(ask) = self.kernel.inbox.clone().pop() {
            worked = true;
            match ask {
                Ask::Finish(lease, result) => self.finish(lease, result),
                Ask::Ready(agent) => self.resume(agent),
                Ask::Crash(agent, reason) => self.agent_crashed(agent, &reason),
                Ask::ReadBack(read) => self.was_read_back(*read)?,
            }
        }
        Ok(worked)
    }

    fn run_turns(&mut self) -> bool {
        let turns = std::mem::take(&mut self.kernel.turns);
        for &agent in &turns {
            self.with_agent(agent, |agent, context| agent.on_turn(context));
        }
        !turns.is_empty()
    }

    fn run_timers(&mut self) -> bool {
        let mut due = Vec::new();
        let now_ms = self.kernel.now_ms();
        self.kernel.wheel.expire(now_ms, |timer| due.push(timer));
        let worked = !due.is_empty();
        for timer in due {
            match timer {
                Timer::Call(call) => {
                    let late = Error::Uncertain("no answer came in time".into());
                    self.call_failed(call, late);
                }
                Timer::Agent(agent, token) => {
                    self.with_agent(agent, |agent, context| agent.on_timer(token, context));
                }
                Timer::Attempt(lease) => self.attempt_timed_out(lease),
                Timer::Fetch(core, correlation) => self.fetch_timed_out(core, correlation),
                Timer::Watch(core, correlation) => {
                    if let Some(watch) = self.tasks.watches.remove(&(core, correlation)) {
                        self.end_watch(core, correlation, &watch);
                    }
                }
                Timer::Pool(type_index) => self.look_at_pool(type_index),
                Timer::Asked(partition) => self.asked_for_long(partition),
                Timer::Lend(type_index) => self.look_for_borrowers(type_index),
                Timer::Guest(key) => self.guest_waited(key),
            }
        }
        worked
    }

    /// Calls one of an agent's methods, unless the agent is gone, and does what it asked for.
    #[inline]
    pub(super) fn with_agent(
        &mut self,
        id: AgentId,
        method: impl FnOnce(&mut dyn Agent, &mut Context<'_>),
    ) {
        if let Err(panic) = call(&mut self.agents, &mut self.kernel, id, method) {
            self.agent_panicked(id, panic.as_ref());
        }
        self.run_commands();
    }

    /// Catches what panics while a batch is delivered and tells whose method it was.
    pub(super) fn catch(&mut self, work: impl FnOnce(&mut Self)) {
        let caught = catch_unwind(AssertUnwindSafe(|| work(self)));
        if let Err(panic) = caught {
            match self.current.take() {
                Some(agent) => self.agent_panicked(agent, panic.as_ref()),
                None => resume_unwind(panic),
            }
        }
    }

    /// Does what agents' methods asked for.
    #[inline]
    pub(super) fn run_commands(&mut self) {
        while let Some(command) = self.kernel.commands.pop_front() {
            match command {
                Command::Stop(agent) => drop(self.stop_agent(agent)),
                Command::Finish(lease, result) => self.finish(lease, result),
                Command::Pause(agent) => self.pause(agent),
                Command::Resume(agent) => self.resume(agent),
            }
        }
    }

    /// A task's view as a response; a result of more bytes is left out.
    pub(super) fn view_task(&mut self, id: TaskId, result_bytes: usize) -> Response {
        if let Err(error) = self.tasks.of(id.partition).check_leading() {
            return Response::Failed(error);
        }
        match self.tasks.view(id, result_bytes, &self.kernel.types) {
            Some(view) => Response::Task(view),
            None => Response::Failed(Error::NotFound(
                "no such task: never accepted, or ended so long ago that it is forgotten".into(),
            )),
        }
    }
}

/// Calls one of an agent's methods, unless the agent is gone; an error is what it panicked with.
#[inline]
pub(super) fn call(
    agents: &mut Agents,
    kernel: &mut Kernel,
    id: AgentId,
    method: impl FnOnce(&mut dyn Agent, &mut Context<'_>),
) -> Result<(), Box<dyn Any + Send>> {
    let Some(resident) = agents.get_mut(id) else { return Ok(()) };
    resident.used = true;
    catch_unwind(AssertUnwindSafe(|| {
        method(resident.agent.as_mut(), &mut Context { kernel, id });
    }))
}
