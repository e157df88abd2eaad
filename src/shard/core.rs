//! The shard itself and one turn of its loop.

use super::{
    agent::Agent,
    agents::Agents,
    context::Context,
    handle::{Ask, Inbox},
    kernel::{Command, Kernel, Timer},
    links::Links,
    tasks::Tasks,
    types::Types,
};
use crate::{
    config::Config,
    runtime::mesh::Port,
    wire::{
        api::{CoreStats, Error},
        batch::{Batch, Limits},
        id::AgentId,
        letter::Response,
    },
};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

/// Batches that one turn takes from one core before it looks at the others.
const BATCHES_A_TURN: usize = 16;

/// What one worker core owns.
pub struct Shard {
    pub(super) kernel: Kernel,
    pub(super) agents: Agents,
    pub(super) tasks: Tasks,
    /// Limits of mailboxes and restarts.
    pub(super) limits: crate::config::Agents,
    /// The agent whose method runs now: whom a panic belongs to.
    pub(super) current: Option<AgentId>,
    started: Instant,
    /// Whether answers were given to futures of this core, which want to run.
    pub(super) woke_futures: bool,
}

impl Shard {
    /// A shard with no agents yet.
    pub fn new(port: Port<Batch>, types: Arc<Types>, config: &Config, started: Instant) -> Self {
        let index = port.index as u16;
        let limits = Limits {
            messages: config.mesh.batch_messages,
            bytes: config.mesh.batch_bytes,
            shared_payload_bytes: config.mesh.shared_payload_bytes,
        };
        let links =
            Links::new(port, limits, config.mesh.ring_batches, config.mesh.batch_timeout_us);
        let tasks = Tasks::new(index, types.len(), &config.tasks);
        let kernel = Kernel::new(
            index,
            types,
            links,
            config.agents.max_calls,
            config.agents.call_timeout_ms,
        );
        Self {
            kernel,
            agents: Agents::new(index, config.agents.max_per_core),
            tasks,
            limits: config.agents.clone(),
            current: None,
            started,
            woke_futures: false,
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

    /// Counters as they are now.
    pub fn stats(&self) -> CoreStats {
        let mut stats = self.kernel.stats.clone();
        stats.agents = self.agents.len() as u64;
        self.tasks.count(&mut stats);
        stats
    }

    /// Does what there is to do, up to a bound; false when there was nothing.
    #[inline]
    pub fn turn(&mut self) -> bool {
        let mut worked = false;
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
        worked |= self.take_asks();
        worked |= self.run_turns();
        worked |= self.run_timers();
        worked |= self.run_tasks();
        if worked {
            self.kernel.links.load = self.tasks.load();
            self.kernel.loads[self.kernel.index as usize] = self.kernel.links.load;
        }
        match self.has_work() {
            true => self.kernel.links.flush_due(self.kernel.now_us),
            false => self.kernel.links.flush(),
        }
        worked
    }

    /// Whether another turn would find something to do.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.kernel.links.has_arrivals()
            || !self.kernel.turns.is_empty()
            || !self.kernel.inbox.is_empty()
    }

    /// When the next timer may be due, milliseconds since the node started.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let (timer_ms, task_ms) = (self.kernel.wheel.next_deadline_ms(), self.tasks.next_due_ms());
        match (timer_ms, task_ms) {
            (Some(timer_ms), Some(task_ms)) => Some(timer_ms.min(task_ms)),
            _ => timer_ms.or(task_ms),
        }
    }

    /// Whether something waits for room in a ring, so that the core must look again soon.
    pub fn has_departures(&self) -> bool {
        self.kernel.links.has_departures()
    }

    fn take_asks(&mut self) -> bool {
        let mut worked = false;
        while let Some(ask) = self.kernel.inbox.clone().pop() {
            worked = true;
            match ask {
                Ask::Finish(lease, result) => self.finish(lease, result),
                Ask::Ready(agent) => self.resume(agent),
                Ask::Crash(agent, reason) => self.agent_crashed(agent, &reason),
            }
        }
        worked
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
                    let late = Error::Unavailable("no answer came in time".into());
                    self.call_failed(call, late);
                }
                Timer::Agent(agent, token) => {
                    self.with_agent(agent, |agent, context| agent.on_timer(token, context));
                }
                Timer::Attempt(lease) => self.attempt_timed_out(lease),
                Timer::Watch(core, correlation, random) => {
                    let response = match self.tasks.stop_watching(random, core, correlation) {
                        Some(()) => self.view_task(random),
                        None => continue,
                    };
                    self.kernel.answer(core, correlation, &response);
                }
                Timer::Start(type_index, name) => self.start_again(type_index, name),
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

    /// A task's view as a response.
    pub(super) fn view_task(&self, random: u128) -> Response {
        match self.tasks.view(random, &self.kernel.types) {
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
    catch_unwind(AssertUnwindSafe(|| {
        method(resident.agent.as_mut(), &mut Context { kernel, id });
    }))
}
