//! What an agent can do while one of its methods runs.

use super::{
    agent::{CallId, ReplyTo, Snapshot},
    handle::{AgentHandle, Failure, Lease},
    kernel::{Command, Kernel, Timer, Waiter},
    links::Full,
};
use crate::{
    registry::Directory,
    runtime::executor,
    wire::{
        api::{Error, Priority},
        batch::{Attachment, Content, Header, Kind, Payload, Value},
        id::{AgentAddress, AgentId, CoreIndex, NodeId, TaskId},
        letter::Request,
    },
};
use std::{future::Future, sync::Arc, time::Duration};

/// Why something was not sent; nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The way to the receiver's core, or the receiver's mailbox, is full: try in a later turn.
    #[error("the way to the receiver is full")]
    Full,
    /// No agent can have that id, or no type that name.
    #[error("there is no such receiver")]
    NoReceiver,
    /// The receiver's node cannot be reached: try again in a while.
    #[error("the receiver's node cannot be reached")]
    NodeGone,
    /// It is larger than a message between nodes may be (`server.max_frame_bytes`).
    #[error("larger than a message between nodes may be (server.max_frame_bytes)")]
    TooLarge,
    /// As many questions wait for their answer as may.
    #[error("too many calls wait for their answer")]
    TooManyCalls,
    /// Other nodes of the cluster lead all partitions that take tasks of the type, and agents submit
    /// to their own node alone: try in a later turn, or let a client submit it.
    #[error("other nodes lead everything that takes tasks of the type")]
    LedElsewhere,
}

impl From<Full> for SendError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// A task as an agent submits it.
#[derive(Clone, Copy, Debug)]
pub struct NewTask<'a> {
    /// The agent type that runs it.
    pub agent_type: &'a str,
    /// One MessagePack value.
    pub payload: &'a [u8],
    /// How urgent it is.
    pub priority: Priority,
}

/// An agent's view of its core, for the length of one method.
pub struct Context<'a> {
    pub(super) kernel: &'a mut Kernel,
    pub(super) id: AgentId,
}

impl Context<'_> {
    /// This agent.
    #[inline]
    pub fn id(&self) -> AgentId {
        self.id
    }

    /// The core that it lives on.
    pub fn core(&self) -> CoreIndex {
        self.kernel.index
    }

    /// Milliseconds since the node started, as of this turn.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.kernel.now_ms()
    }

    /// Sends bytes to an agent: delivered at most once, after everything that this agent sent it
    /// before.
    ///
    /// # Errors
    /// [`SendError::Full`] when the way or the mailbox is full; try again in a later turn, for
    /// example in the one that [`Context::request_turn`] asks for.
    #[inline]
    pub fn send(&mut self, target: AgentId, payload: &[u8]) -> Result<(), SendError> {
        self.push(Kind::Send, target, 0, payload)
    }

    /// Sends a value, archived in place; the receiver reads it with
    /// [`Message::read`](super::agent::Message::read).
    ///
    /// # Errors
    /// As [`Context::send`].
    #[inline]
    pub fn send_value(&mut self, target: AgentId, value: &impl Payload) -> Result<(), SendError> {
        self.push(Kind::Send, target, 0, Value(value))
    }

    /// Sends a shared buffer by reference.
    ///
    /// # Errors
    /// As [`Context::send`].
    pub fn send_shared(&mut self, target: AgentId, payload: Arc<[u8]>) -> Result<(), SendError> {
        self.push(Kind::Send, target, 0, Attachment::Payload(payload))
    }

    /// Sends a reference to a published value.
    ///
    /// # Errors
    /// As [`Context::send`].
    pub fn send_snapshot<T: Send + Sync + 'static>(
        &mut self,
        target: AgentId,
        snapshot: &Snapshot<T>,
    ) -> Result<(), SendError> {
        let attachment = Attachment::Snapshot(snapshot.0.clone());
        self.push(Kind::Send, target, 0, attachment)
    }

    /// Asks an agent; the answer, or why there is none, comes to
    /// [`Agent::on_reply`](super::agent::Agent::on_reply). Without a timeout the node's default
    /// holds.
    ///
    /// # Errors
    /// As [`Context::send`], and [`SendError::TooManyCalls`].
    pub fn call(
        &mut self,
        target: AgentId,
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> Result<CallId, SendError> {
        if self.kernel.calls.is_full() {
            return Err(SendError::TooManyCalls);
        }
        self.kernel.check_way(target)?;
        let timeout_ms = timeout.map_or(0, |timeout| timeout.as_millis().max(1) as u64);
        let key = self.kernel.open_call(Waiter::AgentCall(self.id), timeout_ms);
        self.push(Kind::Call, target, key.to_bits(), payload)?;
        Ok(CallId(key.to_bits()))
    }

    /// This agent's address, for agents of other nodes.
    #[inline]
    pub fn address(&self) -> AgentAddress {
        AgentAddress { node: self.kernel.trunks.me(), agent: self.id }
    }

    /// Sends bytes to an agent of any node: delivered once, after everything that this agent sent it
    /// before, over however many connections, unless the agent has ended or its node is gone. Of what was
    /// under way when a node goes nobody knows whether it arrived: that is counted (`far_lost`) and
    /// logged.
    ///
    /// # Errors
    /// As [`Context::send`]; [`SendError::NodeGone`] while the other node cannot be reached,
    /// [`SendError::TooLarge`].
    #[inline]
    pub fn send_to(&mut self, target: AgentAddress, payload: &[u8]) -> Result<(), SendError> {
        match self.kernel.is_here(target) {
            true => self.send(target.agent, payload),
            false => self.kernel.send_far(self.id, target, payload),
        }
    }

    /// Asks an agent of any node, as [`Context::call`] does.
    ///
    /// # Errors
    /// As [`Context::call`] and [`Context::send_to`].
    pub fn call_to(
        &mut self,
        target: AgentAddress,
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> Result<CallId, SendError> {
        if self.kernel.is_here(target) {
            return self.call(target.agent, payload, timeout);
        }
        let timeout_ms = timeout.map_or(0, |timeout| timeout.as_millis().max(1) as u64);
        let waiter = Waiter::AgentCall(self.id);
        let key = self.kernel.call_far(self.id, target, payload, waiter, timeout_ms)?;
        Ok(CallId(key.to_bits()))
    }

    /// Sends bytes to every agent of a type on one node, as [`Context::broadcast`] does on this.
    ///
    /// # Errors
    /// As [`Context::broadcast`] and [`Context::send_to`]; a type that the other node does not have
    /// is none.
    pub fn broadcast_to(
        &mut self,
        node: NodeId,
        agent_type: &str,
        payload: &[u8],
    ) -> Result<(), SendError> {
        match node == 0 || node == self.kernel.trunks.me() {
            true => self.broadcast(agent_type, payload),
            false => self.kernel.broadcast_far(self.id, node, agent_type, payload),
        }
    }

    /// Answers a call. It may be answered later than in the method that received it.
    pub fn reply(&mut self, to: ReplyTo, payload: &[u8]) {
        let header = Header {
            target: to.source.to_bits(),
            source: self.id.to_bits(),
            correlation: to.correlation,
            kind: Kind::Reply,
        };
        self.kernel.push_owed(to.source.core(), header, payload);
    }

    /// Tells a caller that there will be no answer, and why.
    pub fn refuse(&mut self, to: ReplyTo, why: &str) {
        let header = Header {
            target: to.source.to_bits(),
            source: self.id.to_bits(),
            correlation: to.correlation,
            kind: Kind::Refusal,
        };
        let error = Error::Unavailable(why.into());
        self.kernel.push_owed(to.source.core(), header, Value(&error));
    }

    /// Sends bytes to every agent of a type, on all cores; each gets it after everything that
    /// this agent sent it before. All of them get it or, on an error, none.
    ///
    /// # Errors
    /// As [`Context::send`], when the way to one of them is full.
    pub fn broadcast(&mut self, agent_type: &str, payload: &[u8]) -> Result<(), SendError> {
        let type_index = self.kernel.types.find(agent_type).ok_or(SendError::NoReceiver)?;
        self.kernel.broadcast(self.id, type_index, payload)
    }

    /// Starts an agent; its id comes to
    /// [`Agent::on_spawned`](super::agent::Agent::on_spawned).
    ///
    /// # Errors
    /// [`SendError::NoReceiver`] for an unknown type, [`SendError::TooManyCalls`].
    pub fn spawn(&mut self, agent_type: &str, name: Option<&str>) -> Result<CallId, SendError> {
        let type_index = self.kernel.types.find(agent_type).ok_or(SendError::NoReceiver)?;
        let core = self.kernel.choose_spawn_core(type_index, name);
        let request = Request::Spawn(type_index, name.map(str::to_owned));
        let key = self.kernel.ask(core, &request, Waiter::AgentSpawn(self.id), 0)?;
        Ok(CallId(key.to_bits()))
    }

    /// Stops an agent, this one or another, after what was sent to it before.
    pub fn stop(&mut self, agent: AgentId) {
        if agent == self.id {
            self.kernel.commands.push_back(Command::Stop(agent));
        } else if (agent.core() as usize) < self.kernel.links.cores() {
            // Nobody waits for the answer: an agent that is gone is as good as stopped.
            let _ = self.kernel.ask(agent.core(), &Request::Stop(agent), Waiter::Nobody, 0);
        }
    }

    /// Who is where, as far as this core knows.
    pub fn directory(&self) -> &Directory {
        &self.kernel.directory
    }

    /// The agent of that name, as far as is known: one of this node before those of others.
    #[inline]
    pub fn find(&mut self, name: &str) -> Option<AgentAddress> {
        self.kernel.find_agent(name)
    }

    /// The living node whose agents of a type have the least to do for what they can hold, by what
    /// gossip told and by what this core asked since, as if each were a message there; `None` for a node
    /// that is alone, and when no node has one.
    #[inline]
    pub fn least_loaded_node(&mut self, agent_type: &str) -> Option<NodeId> {
        self.kernel.least_loaded_node(agent_type)
    }

    /// The living node whose agents that can do something, in the words of `[[agent]]`
    /// `capabilities`, have the least to do for what they can hold, as [`Context::least_loaded_node`]
    /// counts it. Ten times a second it looks at all types of all nodes.
    pub fn least_loaded_capable_node(&mut self, capability: &str) -> Option<NodeId> {
        self.kernel.least_loaded_capable_node(capability)
    }

    /// All agents of a type, on all cores, as far as this core knows.
    pub fn agents_of(&self, agent_type: &str) -> Vec<AgentId> {
        match self.kernel.types.find(agent_type) {
            Some(type_index) => self.kernel.directory.of_type(type_index).collect(),
            None => Vec::new(),
        }
    }

    /// Submits a task; what becomes of it comes to
    /// [`Agent::on_task_news`](super::agent::Agent::on_task_news), under the name that is returned here.
    /// Where nodes may lie that is no name for anybody else.
    ///
    /// # Errors
    /// As [`Context::send`].
    #[inline]
    pub fn submit(&mut self, task: NewTask<'_>) -> Result<TaskId, SendError> {
        self.kernel.submit_for_agent(self.id, task)
    }

    /// Ends an attempt that was answered with
    /// [`Outcome::Later`](super::agent::Outcome::Later).
    pub fn finish(&mut self, lease: Lease, result: Result<Vec<u8>, Failure>) {
        self.kernel.commands.push_back(Command::Finish(lease, result));
    }

    /// Asks for a call of [`Agent::on_turn`](super::agent::Agent::on_turn) in the core's next
    /// turn: the way to go on with long work, or after a send was refused.
    pub fn request_turn(&mut self) {
        self.kernel.turns.push(self.id);
    }

    /// Asks for a call of [`Agent::on_timer`](super::agent::Agent::on_timer) with `token` after
    /// `delay`, to the millisecond.
    pub fn set_timer(&mut self, delay: Duration, token: u64) {
        let deadline_ms = self.kernel.now_ms() + delay.as_millis().max(1) as u64;
        self.kernel.wheel.insert(deadline_ms, Timer::Agent(self.id, token));
    }

    /// Lets messages wait in the mailbox and tasks go elsewhere, until [`Context::resume`] or
    /// [`AgentHandle::set_ready`].
    pub fn pause(&mut self) {
        self.kernel.commands.push_back(Command::Pause(self.id));
    }

    /// Ends a pause; what waited is delivered in order.
    pub fn resume(&mut self) {
        self.kernel.commands.push_back(Command::Resume(self.id));
    }

    /// A reference for the futures that this agent starts.
    pub fn handle(&self) -> AgentHandle {
        AgentHandle::new(self.id, self.kernel.inbox.clone())
    }

    /// Runs a future on this core, between the turns of its loop.
    pub fn spawn_future(&mut self, future: impl Future<Output = ()> + 'static) {
        executor::spawn(future);
    }

    #[inline]
    fn push(
        &mut self,
        kind: Kind,
        target: AgentId,
        correlation: u64,
        content: impl Content,
    ) -> Result<(), SendError> {
        self.kernel.push(self.id.to_bits(), kind, target, correlation, content)
    }
}

/// What went wrong with a request, for doors.
impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::Backpressure(1),
            SendError::NoReceiver => Self::NotFound(error.to_string()),
            SendError::NodeGone => Self::Unavailable(error.to_string()),
            SendError::TooLarge => Self::TooLarge(error.to_string()),
            SendError::TooManyCalls => Self::Backpressure(10),
            SendError::LedElsewhere => Self::NotLeader(None),
        }
    }
}
