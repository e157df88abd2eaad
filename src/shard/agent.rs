//! What an agent is: a value on one core whose methods are called when something arrives for it.

use super::{context::Context, handle::Lease, kernel::door_of};
use crate::wire::{
    api::{Error, TaskStatus},
    batch::{Attachment, Header, Kind, Parcel},
    id::{AgentAddress, AgentId, TaskId},
};
use rkyv::{Portable, api::high::HighValidator, bytecheck::CheckBytes, rancor};
use std::{ops::Deref, sync::Arc};

/// A piece of a swarm: it owns its state, lives on one core, and is called there by one caller
/// at a time.
///
/// Methods run to their end before anything else happens on the core, so they should be short:
/// long work goes into a future ([`Context::spawn_future`]) or a child process. A method that
/// panics ends the agent, not the node; what it was working on counts as a failed attempt. A panic
/// in such a future is not caught: it ends the whole core.
pub trait Agent: 'static {
    /// Called once, before anything else.
    fn on_start(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// A message: sent, broadcast, or a call to be answered with [`Context::reply`].
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let _ = (message, context);
    }

    /// The answer to a [`Context::call`], or why there is none.
    fn on_reply(&mut self, reply: &Reply<'_>, context: &mut Context<'_>) {
        let _ = (reply, context);
    }

    /// A task. Put the result, one MessagePack value, into `result` and return
    /// [`Outcome::Done`]; or return [`Outcome::Later`] and end it through
    /// [`AgentHandle::finish`](super::handle::AgentHandle::finish).
    fn on_task(
        &mut self,
        task: &Task<'_>,
        result: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Outcome {
        let _ = (task, result, context);
        Outcome::Failed { error: "this agent runs no tasks".into(), retry: false }
    }

    /// An attempt that was answered with [`Outcome::Later`] was given up: it took too long or the
    /// task was cancelled. What the agent still does for it is ignored.
    fn on_abandoned(&mut self, lease: Lease, context: &mut Context<'_>) {
        let _ = (lease, context);
    }

    /// News of a task that this agent submitted with [`Context::submit`].
    fn on_task_news(&mut self, news: &TaskNews<'_>, context: &mut Context<'_>) {
        let _ = (news, context);
    }

    /// Called in the core's next turn after [`Context::request_turn`].
    fn on_turn(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// A timer set with [`Context::set_timer`] is due.
    fn on_timer(&mut self, token: u64, context: &mut Context<'_>) {
        let _ = (token, context);
    }

    /// The answer to a [`Context::spawn`].
    fn on_spawned(
        &mut self,
        call: CallId,
        spawned: Result<AgentId, Error>,
        context: &mut Context<'_>,
    ) {
        let _ = (call, spawned, context);
    }

    /// Called once, after everything else.
    fn on_stop(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }
}

/// Names a question of an agent, so that it knows what an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub(super) u64);

/// Where the answer to a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    pub(super) source: AgentId,
    pub(super) correlation: u64,
}

/// A message as the receiving agent sees it, in the buffer that it arrived in.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    header: Header,
    payload: &'a [u8],
    attachment: Option<&'a Attachment>,
}

impl<'a> Message<'a> {
    #[inline]
    pub(super) fn new(parcel: Parcel<'a>) -> Self {
        Self { header: parcel.header, payload: parcel.payload, attachment: parcel.attachment }
    }

    /// The message's bytes, not copied; empty when it carries a snapshot.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Reads a value that was sent with [`Context::send_value`], in place, after a check that the
    /// bytes are one.
    ///
    /// # Errors
    /// When the payload is not a valid `T`.
    #[inline]
    pub fn read<T>(&self) -> Result<&'a T, Error>
    where
        T: Portable + for<'v> CheckBytes<HighValidator<'v, rancor::Failure>>,
    {
        rkyv::access::<T, rancor::Failure>(self.payload)
            .map_err(|_| Error::Invalid("the message is not of the type that was read".into()))
    }

    /// The sender; for messages from outside the runtime an id that no agent has.
    #[inline]
    pub fn source(&self) -> AgentId {
        AgentId::from_bits(self.header.source)
    }

    /// The sender's address, to which an answer can be sent; `None` for a message from outside the
    /// runtime and for a call of another node, which has [`Message::reply_to`].
    #[inline]
    pub fn sender(&self) -> Option<AgentAddress> {
        let agent = self.source();
        let node = if self.header.kind == Kind::Send { self.header.correlation } else { 0 };
        let is_agent = agent != door_of(agent.core());
        is_agent.then_some(AgentAddress { node, agent })
    }

    /// Where to answer, when the sender waits for an answer.
    #[inline]
    pub fn reply_to(&self) -> Option<ReplyTo> {
        (self.header.kind == Kind::Call)
            .then(|| ReplyTo { source: self.source(), correlation: self.header.correlation })
    }

    /// The shared value that it carries, when it carries one of this type.
    pub fn snapshot<T: Send + Sync + 'static>(&self) -> Option<Snapshot<T>> {
        match self.attachment {
            Some(Attachment::Snapshot(value)) => value.clone().downcast().ok().map(Snapshot),
            _ => None,
        }
    }

    /// The payload as a shared buffer, when it travelled as one: keep it without copying.
    pub fn shared_payload(&self) -> Option<Arc<[u8]>> {
        match self.attachment {
            Some(Attachment::Payload(payload)) => Some(payload.clone()),
            _ => None,
        }
    }
}

/// An immutable value that agents on all cores read without copying: publish it once, send its
/// reference to whoever needs it.
#[derive(Debug)]
pub struct Snapshot<T>(pub(super) Arc<T>);

impl<T: Send + Sync + 'static> Snapshot<T> {
    /// Publishes a value; from here on nobody changes it.
    pub fn publish(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Snapshot<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The answer to a call.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    /// Which call.
    pub call: CallId,
    /// The answer's bytes, or why there is none.
    pub answer: Result<&'a [u8], &'a Error>,
}

/// A task as the agent that runs it sees it.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The task.
    pub id: TaskId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// One MessagePack value.
    pub payload: &'a [u8],
    /// When this attempt's time is up, milliseconds on the clock of [`Context::now_ms`].
    pub deadline_ms: u64,
    /// The right to end this attempt.
    pub lease: Lease,
}

impl Task<'_> {
    /// Reads the payload as a Rust value.
    ///
    /// # Errors
    /// When the payload does not have the value's shape; the text says where.
    pub fn decode<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        rmp_serde::from_slice(self.payload).map_err(|error| format!("payload: {error}"))
    }
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Ended well; the result was put into the buffer that the agent was given.
    Done,
    /// The agent will end it through its handle.
    Later,
    /// Failed.
    Failed {
        /// What went wrong.
        error: String,
        /// Whether another attempt may help.
        retry: bool,
    },
}

/// What became of a task that an agent submitted.
#[derive(Clone, Copy, Debug)]
pub struct TaskNews<'a> {
    /// The task, as [`Context::submit`](super::context::Context::submit) named it.
    pub id: TaskId,
    /// Its name for everybody else: another one where nodes may lie, whose log names tasks.
    pub known_as: TaskId,
    /// What happened.
    pub event: TaskEvent<'a>,
}

/// What happened to a task.
#[derive(Clone, Copy, Debug)]
pub enum TaskEvent<'a> {
    /// It was accepted and will end. Doors are told so; an agent hears of refusals and ends alone.
    Accepted,
    /// It was not accepted.
    Refused(&'a Error),
    /// It ended.
    Ended {
        /// How.
        status: TaskStatus,
        /// Attempts that it took.
        attempts: u32,
        /// The result when it is done, the error's text otherwise.
        body: &'a [u8],
    },
}
