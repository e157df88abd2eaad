//! How an agent's own futures talk back to it and its core.

use crate::{runtime::executor, wire::id::AgentId};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    rc::Rc,
    task::Waker,
};

pub use crate::{task::Lease, wire::api::Failure};

/// What a future asks of the core that it runs on.
pub(super) enum Ask {
    /// End an attempt.
    Finish(Lease, Result<Vec<u8>, Failure>),
    /// The agent takes messages and tasks again.
    Ready(AgentId),
    /// The agent cannot go on; its tasks fail and it is started anew, within limits.
    Crash(AgentId, String),
    /// Records of the log were read.
    ReadBack(Box<super::backlog::ReadBack>),
}

/// Where futures of one core leave what they ask, and how they wake its loop.
#[derive(Default)]
pub(super) struct Inbox {
    asks: RefCell<VecDeque<Ask>>,
    loop_waker: RefCell<Option<Waker>>,
    nudged: Cell<bool>,
    /// What must end before the core does.
    stays: Cell<usize>,
}

/// Keeps its core running for a while after the node was told to stop, until it is dropped: for
/// what must not be left behind, such as a child process.
pub struct Stay(Rc<Inbox>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.stays.set(self.0.stays.get() - 1);
    }
}

impl Inbox {
    /// Leaves something for the loop's next turn.
    pub(super) fn push(&self, ask: Ask) {
        self.asks.borrow_mut().push_back(ask);
        self.nudge();
    }

    pub(super) fn pop(&self) -> Option<Ask> {
        self.asks.borrow_mut().pop_front()
    }

    /// Whether nothing keeps the core from ending.
    pub(super) fn may_end(&self) -> bool {
        self.stays.get() == 0
    }

    /// Keeps the core running until the guard is dropped, within the core's patience.
    pub(super) fn stay(self: Rc<Self>) -> Stay {
        self.stays.set(self.stays.get() + 1);
        Stay(self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asks.borrow().is_empty()
    }

    /// Makes a parked loop take another turn.
    pub(super) fn nudge(&self) {
        self.nudged.set(true);
        if let Some(waker) = self.loop_waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ends at the next nudge, or at once after one that nobody waited for.
    pub(super) async fn nudged(&self) {
        std::future::poll_fn(|context| {
            if self.nudged.take() {
                return std::task::Poll::Ready(());
            }
            *self.loop_waker.borrow_mut() = Some(context.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }
}

/// An agent's own reference, for the futures that it starts; it stays on the agent's core.
///
/// What it asks happens in the core's next turn. Asking for an agent or an attempt that is gone
/// changes nothing.
#[derive(Clone)]
pub struct AgentHandle {
    id: AgentId,
    inbox: Rc<Inbox>,
}

impl AgentHandle {
    /// Keeps the core running until the guard is dropped, within the core's patience.
    pub fn stay(&self) -> Stay {
        self.inbox.clone().stay()
    }

    pub(super) fn new(id: AgentId, inbox: Rc<Inbox>) -> Self {
        Self { id, inbox }
    }

    /// The agent.
    pub fn id(&self) -> AgentId {
        self.id
    }

    /// Ends an attempt: with a result, one MessagePack value, or with a failure. An attempt that
    /// was ended or given up before is left alone.
    pub fn finish(&self, lease: Lease, result: Result<Vec<u8>, Failure>) {
        self.inbox.push(Ask::Finish(lease, result));
    }

    /// Says that the agent takes messages and tasks, after a pause or a long start.
    pub fn set_ready(&self) {
        self.inbox.push(Ask::Ready(self.id));
    }

    /// Says that the agent cannot go on.
    pub fn crash(&self, reason: impl Into<String>) {
        self.inbox.push(Ask::Crash(self.id, reason.into()));
    }

    /// Runs another future on this core.
    pub fn spawn_future(&self, future: impl Future<Output = ()> + 'static) {
        executor::spawn(future);
    }
}
