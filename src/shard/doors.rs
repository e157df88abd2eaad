//! What doors of this core ask of its shard, between two turns.

use super::{
    calls::CallKey,
    context::SendError,
    core::Shard,
    kernel::{Waiter, door_of},
    partition::key_conflict,
    placing::Home,
};
use crate::{
    consensus::peers::NodeId,
    registry::TypeIndex,
    task::{CHOSEN_KEY_BYTES_MAX, Fingerprint},
    wire::{
        api::{Completion, Error, Prepared, TaskSpec, TaskStatus, TaskView},
        batch::{Both, Header, Kind, Value},
        id::{AgentAddress, AgentId, CoreIndex, PartitionIndex, TaskId},
        letter::{Ending, LongPayload, Request, Response, Submission},
    },
};
use futures_channel::oneshot::Sender;
use std::collections::HashMap;

/// What became of each member of a request, told when all of them are settled.
pub type Outcomes = Result<Vec<Result<TaskId, Error>>, Error>;

/// What a submission asks beyond its task.
struct Asked {
    /// Room was reserved for it.
    reserved: bool,
    /// Its submitter wants to hear of its end.
    watched: bool,
    /// Its place in the request.
    place: u32,
}

/// Where a task goes.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its name.
    pub id: TaskId,
    /// Its agent type.
    type_index: TypeIndex,
}

/// Where a task is accepted.
#[derive(Clone, Copy, Debug)]
pub enum Destination {
    /// At this node.
    Here(Placed),
    /// At another one, if one is known to lead what takes it.
    Elsewhere(Option<NodeId>),
}

impl Destination {
    /// The place at this node.
    ///
    /// # Errors
    /// [`Error::NotLeader`] when it is at another one.
    pub fn here(self) -> Result<Placed, Error> {
        match self {
            Self::Here(placed) => Ok(placed),
            Self::Elsewhere(_) => Err(Error::NotLeader(None)),
        }
    }
}

/// What a partition is asked before it gets its part of a batch.
pub struct Part {
    /// The partition.
    pub partition: PartitionIndex,
    /// Tasks for it.
    pub count: u32,
    /// Their keys, each with the hash of what it is to stand for.
    pub keys: Vec<(String, u64)>,
}

/// The parts of a batch of placed tasks, one for each partition that takes any; `is_agreed` where nodes
/// may lie.
///
/// # Errors
/// [`Error::Conflict`] when one key stands for two different tasks.
pub fn parts(specs: &[TaskSpec], placed: &[Placed], is_agreed: bool) -> Result<Vec<Part>, Error> {
    let mut parts: Vec<Part> = Vec::new();
    let mut keys = HashMap::new();
    for (spec, Placed { id, .. }) in specs.iter().zip(placed) {
        let known = parts.iter().position(|part| part.partition == id.partition);
        let place = known.unwrap_or_else(|| {
            parts.push(Part { partition: id.partition, count: 0, keys: Vec::new() });
            parts.len() - 1
        });
        parts[place].count += 1;
        if let Some(key) = scoped_key(spec) {
            let hash = match is_agreed && !spec.transient {
                true => fingerprint(spec).digest(),
                false => hash(spec),
            };
            if *keys.entry(key.clone()).or_insert(hash) != hash {
                return Err(key_conflict());
            }
            parts[place].keys.push((key, hash));
        }
    }
    Ok(parts)
}

/// A task's key as tables and the log know it: each agent type has keys of its own, and no type has
/// a zero byte in its name.
fn scoped_key(spec: &TaskSpec) -> Option<String> {
    spec.key.as_ref().map(|key| format!("{}\0{key}", spec.agent_type))
}

fn check_key(key: &str) -> Result<(), Error> {
    match key.len() {
        1..=CHOSEN_KEY_BYTES_MAX => Ok(()),
        len => Err(Error::Invalid(format!(
            "key: it has {len} bytes; allowed: 1 to {CHOSEN_KEY_BYTES_MAX}"
        ))),
    }
}

/// Payloads of at least this many bytes are handed on without a copy, bytes.
const LONG_PAYLOAD: usize = 16 << 10;

/// Makes of a long task what would hold the core that submits it: a copy of the payload that can be shared, and what
/// tells it from others of its key. For a thread that may take its time.
pub fn prepare(spec: &mut TaskSpec) {
    if spec.payload.len() >= LONG_PAYLOAD {
        let body_hash = spec.key.is_some().then(|| fingerprint(spec).hash());
        spec.prepared = Prepared { payload: Some(spec.payload[..].into()), body_hash };
    }
}

fn hash(spec: &TaskSpec) -> u64 {
    spec.prepared.body_hash.unwrap_or_else(|| fingerprint(spec).hash())
}

fn fingerprint(spec: &TaskSpec) -> Fingerprint<'_> {
    Fingerprint {
        agent_type: &spec.agent_type,
        payload: &spec.payload,
        priority: spec.priority,
        timeout_ms: spec.timeout_ms.unwrap_or(0),
        max_attempts: spec.max_attempts.unwrap_or(0),
        delay_ms: spec.delay_ms,
    }
}

/// Why nothing was sent to an agent of another node.
fn far_error(to: AgentAddress, error: SendError) -> Error {
    let node = to.node;
    match error {
        SendError::NoReceiver => Error::NotFound(format!("no node {node} is known")),
        SendError::NodeGone => {
            Error::Unavailable(format!("node {node} cannot be reached; nothing was sent"))
        }
        error => error.into(),
    }
}

impl Shard {
    /// The place of a type in the node's list.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such type.
    pub fn find_type(&self, name: &str) -> Result<TypeIndex, Error> {
        self.kernel.types.find(name).ok_or_else(|| self.kernel.no_type(name))
    }

    /// Finds out whether there may be tasks of a type: this node knows it, or another one does.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn check_type(&self, name: &str) -> Result<(), Error> {
        self.kernel.known_type(name).map(drop)
    }

    /// Chooses a partition and an id for a task.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a type that neither this node knows nor another one has agents of, as
    /// far as is known, [`Error::Full`] when too many were learned, and [`Error::Invalid`] for a key
    /// that is none; nothing was done.
    pub fn place(&mut self, spec: &TaskSpec) -> Result<Destination, Error> {
        self.kernel.look_around();
        let type_index = self.kernel.known_type(&spec.agent_type)?;
        let key = spec.key.as_deref();
        key.map_or(Ok(()), check_key)?;
        let home = match self.kernel.is_agreed() && !spec.transient {
            true => Home::Here(self.kernel.home_to_ask(type_index, key)),
            false => self.kernel.home_of(type_index, key),
        };
        Ok(match home {
            Home::Here(partition) => {
                let id = TaskId { partition, random: self.kernel.random_bits() };
                Destination::Here(Placed { id, type_index })
            }
            Home::Elsewhere(leader) => Destination::Elsewhere(leader),
        })
    }

    /// Submits tasks whose room was reserved; the answer comes when all are settled.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too many requests wait on this core; nothing was submitted.
    pub fn submit_reserved(
        &mut self,
        specs: &[TaskSpec],
        placed: &[Placed],
        answer: Sender<Outcomes>,
    ) -> Result<(), Error> {
        let placed: Vec<_> = placed.iter().copied().map(Ok).collect();
        self.submit_placed(specs, placed, true, answer)
    }

    /// Submits tasks, each by itself; the answer comes when all are settled. One whose place is at
    /// another node is refused.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too many requests wait on this core; nothing was submitted.
    pub fn submit_each(
        &mut self,
        specs: &[TaskSpec],
        answer: Sender<Outcomes>,
    ) -> Result<(), Error> {
        let placed = specs.iter().map(|spec| self.place(spec)?.here()).collect();
        self.submit_placed(specs, placed, false, answer)
    }

    /// Submits tasks that have a place, or were refused one, each by itself; the answer comes when
    /// all are settled.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too many requests wait on this core; nothing was submitted.
    pub fn submit_each_placed(
        &mut self,
        specs: &[TaskSpec],
        placed: Vec<Result<Placed, Error>>,
        answer: Sender<Outcomes>,
    ) -> Result<(), Error> {
        self.submit_placed(specs, placed, false, answer)
    }

    fn submit_placed(
        &mut self,
        specs: &[TaskSpec],
        placed: Vec<Result<Placed, Error>>,
        reserved: bool,
        answer: Sender<Outcomes>,
    ) -> Result<(), Error> {
        self.check_room()?;
        let outcomes = placed.iter().map(|placed| placed.clone().map(|placed| placed.id));
        let key = self.open_each(outcomes.collect(), answer);
        for (place, (spec, placed)) in specs.iter().zip(&placed).enumerate() {
            if let (Ok(placed), Some(key)) = (placed, key) {
                let asked = Asked { reserved, watched: false, place: place as u32 };
                self.send_submission(key, spec, *placed, asked);
            }
        }
        Ok(())
    }

    /// Opens a wait for the members of a request that are not settled yet; `None`, and the answer
    /// is given, when there are none.
    fn open_each(
        &mut self,
        outcomes: Vec<Result<TaskId, Error>>,
        answer: Sender<Outcomes>,
    ) -> Option<CallKey> {
        let remaining = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        if remaining == 0 {
            // A door that went away no longer wants to know.
            drop(answer.send(Ok(outcomes)));
            return None;
        }
        Some(self.kernel.calls.insert(Waiter::DoorEach { remaining, outcomes, answer }))
    }

    /// Ends attempts; the answer comes when all ends are committed or refused.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too many requests wait on this core; nothing was ended.
    pub fn end_attempts(
        &mut self,
        completions: &[Completion],
        answer: Sender<Outcomes>,
    ) -> Result<(), Error> {
        self.check_room()?;
        let outcomes = completions.iter().map(|Completion { id, .. }| {
            let known = self.kernel.has_partition(id.partition);
            known.then_some(*id).ok_or_else(|| Error::NotFound(format!("task {id} does not exist")))
        });
        let key = self.open_each(outcomes.collect(), answer);
        let Some(key) = key else { return Ok(()) };
        let source = door_of(self.kernel.index).to_bits();
        let header = Header { target: 0, source, correlation: key.to_bits(), kind: Kind::Ending };
        for (place, Completion { id, lease, outcome }) in completions.iter().enumerate() {
            if self.kernel.has_partition(id.partition) {
                let (failed, retry, body) = match outcome {
                    Ok(result) => (false, false, &result[..]),
                    Err(failure) => (true, failure.retry, failure.error.as_bytes()),
                };
                let TaskId { partition, random } = *id;
                let (lease, place) = (*lease, place as u32);
                let ending = Ending { random, partition, lease, place, failed, retry, body };
                self.kernel.push_owed(self.kernel.core_of(partition), header, Value(&ending));
            }
        }
        Ok(())
    }

    /// Submits a task; the answer comes when it has ended.
    ///
    /// # Errors
    /// As [`Shard::place`], and [`Error::Backpressure`] when too many requests wait on this core;
    /// nothing was submitted.
    pub fn execute(
        &mut self,
        spec: TaskSpec,
        answer: Sender<Result<TaskView, Error>>,
    ) -> Result<(), Error> {
        self.check_room()?;
        let placed = self.place(&spec)?.here()?;
        let view = Box::new(TaskView {
            id: placed.id,
            agent_type: spec.agent_type.clone(),
            status: TaskStatus::Queued,
            priority: spec.priority,
            attempts: 0,
            node: None,
            result: None,
            error: None,
        });
        let key = self.kernel.calls.insert(Waiter::DoorExecute { view, answer });
        let asked = Asked { reserved: false, watched: true, place: 0 };
        self.send_submission(key, &spec, placed, asked);
        Ok(())
    }

    fn send_submission(&mut self, key: CallKey, spec: &TaskSpec, placed: Placed, asked: Asked) {
        let scoped_key = scoped_key(spec).unwrap_or_default();
        let long = spec.prepared.payload.as_ref();
        let submission = Submission {
            random: placed.id.random,
            partition: placed.id.partition,
            timeout_ms: spec.timeout_ms.unwrap_or(0),
            max_attempts: spec.max_attempts.unwrap_or(0),
            type_index: placed.type_index,
            priority: spec.priority as u8,
            reserved: asked.reserved,
            watched: asked.watched,
            transient: spec.transient,
            place: asked.place,
            delay_ms: spec.delay_ms,
            key: scoped_key.as_bytes(),
            body_hash: spec.prepared.body_hash,
            payload: if long.is_some() { &[] } else { &spec.payload },
        };
        let source = door_of(self.kernel.index).to_bits();
        let header = Header { target: 0, source, correlation: key.to_bits(), kind: Kind::Submit };
        // Submissions of doors are bounded by the limit on waiting requests, each of a bounded
        // frame, so they count as owed.
        let core = self.kernel.core_of(placed.id.partition);
        match long {
            Some(payload) => {
                let both = Both(&submission, LongPayload::attach(payload), payload.len());
                self.kernel.push_owed(core, header, both);
            }
            None => self.kernel.push_owed(core, header, Value(&submission)),
        }
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

    /// The task that a lease is of, as this node's cores call it.
    pub fn inner_id(&self, id: TaskId, lease: u64) -> TaskId {
        self.kernel.inner_id(id, lease)
    }

    /// The same with a request that may be large: it is moved.
    ///
    /// # Errors
    /// As [`Shard::ask`].
    pub fn ask_beside(
        &mut self,
        core: CoreIndex,
        request: Request,
        timeout_ms: u64,
        answer: Sender<Result<Response, Error>>,
    ) -> Result<(), Error> {
        self.kernel.ask_beside(core, request, Waiter::DoorRequest(answer), timeout_ms)?;
        Ok(())
    }

    /// Whether nodes that may lie agree on what partitions hold.
    pub fn is_agreed(&self) -> bool {
        self.kernel.is_agreed()
    }

    /// This core.
    pub fn index(&self) -> CoreIndex {
        self.kernel.index
    }

    /// Asks a core for something whose answer is of no interest.
    pub fn tell(&mut self, core: CoreIndex, request: &Request) {
        if let Err(error) = self.kernel.ask(core, request, Waiter::Nobody, 0) {
            tracing::warn!(?error, ?request, "too many requests wait: one was not sent");
        }
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

    /// Sends a message from outside to an agent of any node.
    ///
    /// # Errors
    /// [`Error::NotFound`] when this core knows of no such agent of this node, or of no such node,
    /// [`Error::Unavailable`] when that node cannot be reached, [`Error::Backpressure`] when the
    /// way to it or its mailbox is full.
    pub fn send_from_door(&mut self, to: AgentAddress, payload: &[u8]) -> Result<(), Error> {
        let door = door_of(self.kernel.index);
        if !self.kernel.is_here(to) {
            let sent = self.kernel.send_far(door, to, payload);
            return sent.map_err(|error| far_error(to, error));
        }
        self.check_agent(to.agent)?;
        self.kernel.push(door.to_bits(), Kind::Send, to.agent, 0, payload)?;
        Ok(())
    }

    /// Calls an agent of any node from outside; 0 means the node's default timeout.
    ///
    /// # Errors
    /// As [`Shard::send_from_door`].
    pub fn call_from_door(
        &mut self,
        to: AgentAddress,
        payload: &[u8],
        timeout_ms: u64,
        answer: Sender<Result<Vec<u8>, Error>>,
    ) -> Result<(), Error> {
        self.check_room()?;
        if !self.kernel.is_here(to) {
            let (door, waiter) = (door_of(self.kernel.index), Waiter::DoorCall(answer));
            let called = self.kernel.call_far(door, to, payload, waiter, timeout_ms);
            return called.map(drop).map_err(|error| far_error(to, error));
        }
        let id = to.agent;
        self.check_agent(id)?;
        self.kernel.check_way(id)?;
        let key = self.kernel.open_call(Waiter::DoorCall(answer), timeout_ms);
        let door = door_of(self.kernel.index).to_bits();
        self.kernel.push(door, Kind::Call, id, key.to_bits(), payload)?;
        Ok(())
    }

    /// Begins the end of the node: tells for how many tasks it should wait. In memory those are all
    /// that have not ended; with a durable log those that run, and no other attempt begins: the
    /// rest is in the log and goes on after the next start.
    pub fn wind_down(&mut self) -> u64 {
        self.turn_guests_away();
        self.tasks.wind_down()
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
