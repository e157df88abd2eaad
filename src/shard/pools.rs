//! Drives the pools of agents: tells each what happened on this core and does what it wants.

use super::{
    agents::Resident,
    core::Shard,
    kernel::{Timer, Waiter},
    types::Types,
    wheel::TimerKey,
};
use crate::{
    registry::{
        TypeIndex,
        fact::{NAME_BYTES_MAX, is_name},
    },
    task::pool::{Input, Output, Pool, PoolLimits, Seat},
    wire::{
        api::{AgentKind, AgentState, Error},
        id::{AgentId, CoreIndex},
        letter::Request,
    },
};

/// A type's agents on this core, and when to look at them.
struct Watched {
    pool: Pool,
    timer: Option<(u64, TimerKey)>,
}

/// The pools of all types on one core.
pub(super) struct Pools {
    list: Vec<Watched>,
    core: CoreIndex,
    limits: crate::config::Agents,
    /// The core ends: nothing starts any more.
    closed: bool,
}

impl Pools {
    /// A pool a type, without agents.
    pub(super) fn new(core: CoreIndex, types: &Types, limits: &crate::config::Agents) -> Self {
        let mut pools = Self { list: Vec::new(), core, limits: limits.clone(), closed: false };
        pools.know(types);
        pools
    }

    /// A pool for each type that has none yet.
    pub(super) fn know(&mut self, types: &Types) {
        let Self { core, ref limits, .. } = *self;
        let watched = |(_, spec): (TypeIndex, &super::types::TypeSpec)| {
            // Workers come by themselves, to any core: `grow_pool` starts none, and `seat_worker`
            // counts those of all cores.
            let remote = spec.kind == AgentKind::Remote;
            let limits = PoolLimits {
                min: spec.share(core, spec.min),
                max: if remote { spec.max } else { spec.share(core, spec.max) },
                warmup_delay_ms: spec.warmup_delay_ms,
                idle_timeout_ms: spec.idle_timeout_ms,
                max_restarts: limits.max_restarts,
                restart_window_ms: limits.restart_window_ms,
                spreads: !remote && spec.hosts.iter().any(|host| *host != core),
            };
            Watched { pool: Pool::new(limits), timer: None }
        };
        self.list.extend(types.iter().skip(self.list.len()).map(watched));
    }

    /// Lets nothing start any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    fn pool(&mut self, type_index: TypeIndex) -> &mut Pool {
        &mut self.list[type_index as usize].pool
    }

    /// When a crashed agent's successor starts.
    pub(super) fn starts_again_ms(&self, type_index: TypeIndex, seat: Seat) -> Option<u64> {
        self.list[type_index as usize].pool.starts_again_ms(seat)
    }
}

impl Shard {
    /// Lets this core's share of every pool start, one agent after the other.
    pub fn start_pools(&mut self) {
        self.know_types();
        for type_index in 0..self.tasks.pools.len() as TypeIndex {
            self.step_pool(type_index, Input::Look);
        }
    }

    /// Starts an agent that a request asks for.
    ///
    /// # Errors
    /// As [`Shard::spawn_agent`]; [`Error::Invalid`] for a type whose agents come by themselves.
    pub(super) fn spawn_asked(
        &mut self,
        type_index: TypeIndex,
        name: Option<String>,
    ) -> Result<AgentId, Error> {
        match self.kernel.types.try_get(type_index) {
            Some(spec) if spec.kind == AgentKind::Remote => Err(Error::Invalid(format!(
                "agents of type {} are workers: they come by worker.register",
                spec.name
            ))),
            _ => self.spawn_agent(type_index, name),
        }
    }

    /// Starts an agent because somebody asks for it.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken or the core has as many agents as it may,
    /// [`Error::Unavailable`] when the agent could not be made.
    pub(super) fn spawn_agent(
        &mut self,
        type_index: TypeIndex,
        name: Option<String>,
    ) -> Result<AgentId, Error> {
        if self.kernel.types.try_get(type_index).is_none() {
            return Err(Error::NotFound("there is no such agent type".into()));
        }
        if let Some(name) = name.as_deref().filter(|name| !is_name(name)) {
            let text = format!(
                "name: it has {} bytes; allowed: 1 to {NAME_BYTES_MAX}, without control characters",
                name.len()
            );
            return Err(Error::Invalid(text));
        }
        if let Some(name) = &name
            && self.kernel.directory.find(name).is_some()
        {
            return Err(Error::Conflict(format!("an agent named {name} exists already")));
        }
        let Some(seat) = self.pools.pool(type_index).spawn(name.clone()) else {
            return Err(Error::Conflict(format!(
                "core {} has as many agents of type {} as `max` allows",
                self.kernel.index,
                self.kernel.types.get(type_index).name
            )));
        };
        let started = self.start_agent(type_index, name, seat);
        if started.is_err() {
            // Who asked hears of it; nobody tries again.
            self.step_pool(type_index, Input::Stopped(seat));
        }
        started
    }

    /// Tells a pool what happened and does what it wants; true when it wanted something.
    pub(super) fn step_pool(&mut self, type_index: TypeIndex, input: Input) -> bool {
        if self.pools.closed {
            return false;
        }
        let now_ms = self.kernel.now_ms();
        let outputs = self.pools.pool(type_index).step(now_ms, input);
        for output in &outputs {
            match *output {
                Output::Start { seat, again } => self.start_in_pool(type_index, seat, again),
                Output::Stop(seat) => self.stop_idle(type_index, seat),
                Output::Spread => self.spread(type_index),
            }
        }
        self.set_pool_timer(type_index);
        !outputs.is_empty()
    }

    /// A task waits that no agent of this core can take; true when agents were started.
    #[cold]
    pub(super) fn grow_pool(&mut self, type_index: TypeIndex) -> bool {
        let remote = self.kernel.types.get(type_index).kind == AgentKind::Remote;
        !remote && self.step_pool(type_index, Input::Starved)
    }

    /// Time has passed that a pool wanted to wait.
    pub(super) fn look_at_pool(&mut self, type_index: TypeIndex) {
        self.pools.list[type_index as usize].timer = None;
        if self.pools.pool(type_index).is_above_min() {
            self.tell_who_worked(type_index);
        }
        self.step_pool(type_index, Input::Look);
        self.tasks.look_again();
    }

    fn tell_who_worked(&mut self, type_index: TypeIndex) {
        let now_ms = self.kernel.now_ms();
        for resident in self.agents.iter_mut() {
            if resident.type_index != type_index || resident.state == AgentState::Starting {
                continue;
            }
            let used = std::mem::take(&mut resident.used);
            let busy = resident.state != AgentState::Ready
                || !resident.mailbox.is_empty()
                || self.tasks.running_on(resident.id, type_index) > 0;
            if used || busy {
                self.pools.pool(type_index).step(now_ms, Input::Worked(resident.seat));
            }
        }
    }

    fn start_in_pool(&mut self, type_index: TypeIndex, seat: Seat, again: bool) {
        let name = self.pools.pool(type_index).name(seat).map(str::to_owned);
        match self.start_agent(type_index, name, seat) {
            Ok(_) => self.kernel.stats.agents_restarted += u64::from(again),
            Err(error) => {
                let agent_type = &self.kernel.types.get(type_index).name;
                tracing::error!(agent_type, %error, "an agent did not start");
                let input = match error {
                    Error::Conflict(_) => Input::Refused(seat),
                    _ => Input::Crashed(seat),
                };
                self.step_pool(type_index, input);
            }
        }
    }

    fn stop_idle(&mut self, type_index: TypeIndex, seat: Seat) {
        let sits_there = |agent: &&Resident| agent.type_index == type_index && agent.seat == seat;
        let Some(id) = self.agents.iter().find(sits_there).map(|agent| agent.id) else {
            unreachable!("a seat that is up has its agent on this core");
        };
        tracing::debug!(agent = %id, "idle: stopped");
        self.kernel.stats.agents_stopped_idle += 1;
        drop(self.stop_agent(id));
    }

    /// Asks a core without agents of the type to start one, for the tasks to come.
    fn spread(&mut self, type_index: TypeIndex) {
        if let Some(core) = self.kernel.empty_host(type_index) {
            // Nobody waits for the answer: the core tells everybody when the agent is there.
            let _ = self.kernel.ask(core, &Request::Grow(type_index), Waiter::Nobody, 0);
        }
    }

    /// Keeps the one timer of a pool at the next time that it wants to look.
    fn set_pool_timer(&mut self, type_index: TypeIndex) {
        let Watched { pool, timer } = &mut self.pools.list[type_index as usize];
        let due_ms = pool.next_look_ms();
        if timer.map(|(due_ms, _)| due_ms) == due_ms {
            return;
        }
        if let Some((_, key)) = timer.take() {
            self.kernel.wheel.cancel(key);
        }
        *timer = due_ms
            .map(|due_ms| (due_ms, self.kernel.wheel.insert(due_ms, Timer::Pool(type_index))));
    }
}
