//! What doors of this core ask of its shard, between two turns.

use super::{
    core::Shard,
    kernel::{Waiter, door_of},
};
use crate::{
    registry::TypeIndex,
    wire::{
        api::{Error, TaskSpec, TaskStatus, TaskView},
        batch::{Header, Kind, Value},
        id::{AgentId, CoreIndex, TaskId},
        letter::{Request, Response, Submission},
    },
};
use futures_channel::oneshot::Sender;

/// Where the tasks of one submission go.
pub struct Placed {
    /// One id a task, in their order.
    pub ids: Vec<TaskId>,
    /// The type of each task.
    types: Vec<TypeIndex>,
    /// How many go to each shard that takes any.
    pub parts: Vec<(CoreIndex, u32)>,
}

impl Shard {
    /// The place of a type in the node's list.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such type.
    pub fn find_type(&self, name: &str) -> Result<TypeIndex, Error> {
        self.kernel.types.find(name).ok_or_else(|| {
            let known: Vec<_> =
                self.kernel.types.iter().map(|(_, spec)| spec.name.as_str()).collect();
            Error::NotFound(format!("no agent type {name:?}; there are: {}", known.join(", ")))
        })
    }

    /// Chooses a shard and an id for each task.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown agent type; nothing was done.
    pub fn place(&mut self, specs: &[TaskSpec]) -> Result<Placed, Error> {
        let types = specs
            .iter()
            .map(|spec| self.find_type(&spec.agent_type))
            .collect::<Result<Vec<_>, _>>();
        let types = types?;
        let mut counts = vec![0; self.kernel.links.cores()];
        let mut ids = Vec::with_capacity(specs.len());
        for &type_index in &types {
            let shard = self.kernel.choose_home(type_index);
            counts[shard as usize] += 1;
            ids.push(TaskId { shard, random: self.kernel.random_bits() });
        }
        let parts = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        let parts = parts.map(|(core, count)| (core as CoreIndex, count)).collect();
        Ok(Placed { ids, types, parts })
    }

    /// Submits placed tasks; the answer comes when all are accepted or one is refused.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too many requests wait on this core; nothing was submitted.
    pub fn submit(
        &mut self,
        specs: &[TaskSpec],
        placed: &Placed,
        reserved: bool,
        answer: Sender<Result<(), Error>>,
    ) -> Result<(), Error> {
        self.check_room()?;
        let waiter = Waiter::DoorSubmit { remaining: specs.len(), refused: None, answer };
        let key = self.kernel.calls.insert(waiter);
        for (place, spec) in specs.iter().enumerate() {
            let (id, type_index) = (placed.ids[place], placed.types[place]);
            self.send_submission(key.to_bits(), spec, id, type_index, reserved, false);
        }
        Ok(())
    }

    /// Submits a task; the answer comes when it has ended.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown agent type, [`Error::Backpressure`] when too many
    /// requests wait on this core; nothing was submitted.
    pub fn execute(
        &mut self,
        spec: TaskSpec,
        answer: Sender<Result<TaskView, Error>>,
    ) -> Result<(), Error> {
        self.check_room()?;
        let type_index = self.find_type(&spec.agent_type)?;
        let shard = self.kernel.choose_home(type_index);
        let id = TaskId { shard, random: self.kernel.random_bits() };
        let view = Box::new(TaskView {
            id,
            agent_type: spec.agent_type.clone(),
            status: TaskStatus::Queued,
            priority: spec.priority,
            attempts: 0,
            result: None,
            error: None,
        });
        let key = self.kernel.calls.insert(Waiter::DoorExecute { view, answer });
        self.send_submission(key.to_bits(), &spec, id, type_index, false, true);
        Ok(())
    }

    fn send_submission(
        &mut self,
        correlation: u64,
        spec: &TaskSpec,
        id: TaskId,
        type_index: TypeIndex,
        reserved: bool,
        watched: bool,
    ) {
        let submission = Submission {
            random: id.random,
            timeout_ms: spec.timeout_ms.unwrap_or(0),
            max_attempts: spec.max_attempts.unwrap_or(0),
            type_index,
            priority: spec.priority as u8,
            reserved,
            watched,
            payload: &spec.payload,
        };
        let source = door_of(self.kernel.index).to_bits();
        let header = Header { target: 0, source, correlation, kind: Kind::Submit };
        // Submissions of doors are bounded by the limit on waiting requests, each of a bounded
        // frame, so they count as owed.
        self.kernel.push_owed(id.shard, header, Value(&submission));
    }

    /// Asks a core for a door.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too many requests wait on this core.
    pub fn ask(
        &mut self,
        core: CoreIndex,
        request: &Request,
        timeout_ms: u64,
        answer: Sender<Result<Response, Error>>,
    ) -> Result<(), Error> {
        self.kernel.ask(core, request, Waiter::DoorRequest(answer), timeout_ms)?;
        Ok(())
    }

    /// The core that a new agent goes to, and what to ask of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown agent type.
    pub fn plan_spawn(
        &mut self,
        agent_type: &str,
        name: Option<String>,
    ) -> Result<(CoreIndex, Request), Error> {
        let type_index = self.find_type(agent_type)?;
        let core = self.kernel.choose_spawn_core(type_index, name.as_deref());
        Ok((core, Request::Spawn(type_index, name)))
    }

    /// Sends a message from outside to an agent.
    ///
    /// # Errors
    /// [`Error::NotFound`] when this core knows of no such agent, [`Error::Backpressure`] when
    /// the way to it or its mailbox is full.
    pub fn send_from_door(&mut self, id: AgentId, payload: &[u8]) -> Result<(), Error> {
        self.check_agent(id)?;
        let door = door_of(self.kernel.index).to_bits();
        self.kernel.push(door, Kind::Send, id, 0, payload)?;
        Ok(())
    }

    /// Calls an agent from outside; 0 means the node's default timeout.
    ///
    /// # Errors
    /// As [`Shard::send_from_door`].
    pub fn call_from_door(
        &mut self,
        id: AgentId,
        payload: &[u8],
        timeout_ms: u64,
        answer: Sender<Result<Vec<u8>, Error>>,
    ) -> Result<(), Error> {
        self.check_agent(id)?;
        self.check_room()?;
        self.kernel.check_way(id)?;
        let key = self.kernel.open_call(Waiter::DoorCall(answer), timeout_ms);
        let door = door_of(self.kernel.index).to_bits();
        self.kernel.push(door, Kind::Call, id, key.to_bits(), payload)?;
        Ok(())
    }

    /// Tasks of this shard that have not ended.
    pub fn unended_tasks(&self) -> u64 {
        self.tasks.unended() as u64
    }

    fn check_room(&self) -> Result<(), Error> {
        match self.kernel.calls.is_full() {
            true => Err(Error::Backpressure(10)),
            false => Ok(()),
        }
    }

    fn check_agent(&self, id: AgentId) -> Result<(), Error> {
        match self.kernel.directory.get(id) {
            Some(_) => Ok(()),
            None => Err(Error::NotFound(format!("agent {id} does not exist (any more)"))),
        }
    }
}
