//! Attempts on their way between nodes: asks other nodes to run what this one keeps, and runs what
//! others ask for.
//!
//! An attempt is a request, `here.run`, which is answered when an agent has ended it; a worker's end goes
//! to the lender as that of any task. `here.stop` gives an attempt up. When the connection on which it
//! came is lost, the lender has given it up as well.

use super::{forward::Forwarder, local::LocalGateway};
use crate::{
    registry::TypeIndex,
    runtime::executor,
    shard::{
        lending::{Lend, Lent, MORE_MS},
        run::Core,
    },
    wire::{
        api::{Completion, Error, Guest, Ran},
        id::{CoreIndex, NodeId, TaskId},
        letter::{Request, Response},
    },
};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use std::{
    pin::pin,
    rc::{Rc, Weak},
};

/// How long a core may take to answer for an attempt: it ends by a timer of its own before, and a
/// worker may have it extended.
const RUN_MS: u64 = 24 * 60 * 60 * 1000;

/// A core's way to agents of other nodes.
pub struct Way {
    core: Weak<Core>,
    forwarder: Rc<Forwarder>,
}

impl Way {
    /// What lends a core's tasks.
    pub fn new(core: &Rc<Core>, forwarder: Rc<Forwarder>) -> Rc<Self> {
        Rc::new(Self { core: Rc::downgrade(core), forwarder })
    }
}

impl Lend for Way {
    fn lend(&self, lent: Lent, mut given_up: oneshot::Receiver<()>) {
        let (core, forwarder) = (self.core.clone(), self.forwarder.clone());
        executor::spawn(async move {
            // A future is polled as soon as it is spawned, and whoever lends holds the shard.
            executor::yield_now().await;
            if !matches!(given_up.try_recv(), Ok(None)) {
                // It was given up before it began: the other node need not hear of it.
                return;
            }
            let run = pin!(forwarder.run(&lent));
            match select(run, given_up).await {
                Either::Left((answer, _)) => {
                    if let Some(core) = core.upgrade() {
                        core.with_shard(|shard| shard.lent_is_over(lent.lease, answer));
                    }
                }
                Either::Right((Ok(()), _)) => {}
                Either::Right((Err(_), _)) => forwarder.stop(&lent).await,
            }
        });
    }

    fn ask(&self, node: NodeId, type_index: TypeIndex) {
        let (core, forwarder) = (self.core.clone(), self.forwarder.clone());
        executor::spawn(async move {
            // Whoever asks holds the shard.
            executor::yield_now().await;
            let answers = forwarder.answers(node).await;
            if let Some(core) = core.upgrade() {
                core.with_shard(|shard| shard.silent_was_asked(node, type_index, answers));
            }
        });
    }
}

impl LocalGateway {
    /// As [`Gateway::run_guest`](super::gateway::Gateway::run_guest).
    pub(super) async fn run_guest_here(
        &self,
        agent_type: &str,
        guest: Guest,
    ) -> Result<Ran, Error> {
        if !self.shared.accepting() {
            let text = "the node is shutting down; the attempt did not begin";
            return Err(Error::Unavailable(text.into()));
        }
        let home = self.core.with_shard(|shard| shard.home_of_guest(agent_type));
        let (core, type_index) = home?;
        let (random, lease) = (guest.id.random, guest.lease);
        let mut running = Running { gateway: self, core, random, lease, is_over: false };
        let request = Request::Run(type_index, guest);
        let asked = self.request(|shard, answer| shard.ask_beside(core, request, RUN_MS, answer));
        let answer = asked.await;
        running.is_over = answer.is_ok();
        match answer? {
            Response::Ran(ran) => Ok(ran),
            other => unreachable!("an attempt was answered with {other:?}"),
        }
    }

    /// As [`Gateway::stop_guest`](super::gateway::Gateway::stop_guest): any core may have it.
    pub(super) fn stop_guest_here(&self, id: TaskId, lease: u64) {
        for core in 0..self.cores() {
            self.tell(core, &Request::StopRun(id.random, lease));
        }
    }

    /// Ends an attempt of a guest for a worker: where the task is kept, by the lender's lease, so that
    /// the worker is told what came of it there.
    pub(super) async fn end_guest(&self, completion: Completion) -> Result<(), Error> {
        let Completion { id, lease, .. } = completion;
        let inner = self.inner_id(id, lease);
        let request = Request::Lender(inner, lease);
        let lease = match self.ask(self.core_of(inner.partition), &request, 0).await? {
            Response::Lent(lease) => lease,
            other => unreachable!("a question for a lease was answered with {other:?}"),
        };
        let (ended, is_over) = self.end_lent_attempt(&Completion { lease, ..completion }).await;
        if is_over {
            self.tell(self.core_of(inner.partition), &Request::StopRun(id.random, lease));
        }
        ended
    }

    /// As [`Gateway::extend`](super::gateway::Gateway::extend). Of a guest the lender's lease, which
    /// decides, has to last as well.
    pub(super) async fn extend_anywhere(
        &self,
        id: TaskId,
        lease: u64,
        extend_ms: u64,
    ) -> Result<(), Error> {
        let inner = self.inner_id(id, lease);
        if inner == id {
            self.check_partition(id)?;
            return self.extend_at_leader(id, lease, extend_ms).await;
        }
        let request = Request::Extend(inner, lease, extend_ms);
        match self.ask(self.core_of(inner.partition), &request, 0).await? {
            Response::Lent(lent) => self.extend_at_leader(id, lent, extend_ms + MORE_MS).await,
            other => unreachable!("an extension of a guest was answered with {other:?}"),
        }
    }

    /// The task of a lease as this node's cores call it.
    pub(super) fn inner_id(&self, id: TaskId, lease: u64) -> TaskId {
        self.core.with_shard(|shard| shard.inner_id(id, lease))
    }
}

/// An attempt that another node waits for; dropping it before its end gives it up.
struct Running<'a> {
    gateway: &'a LocalGateway,
    core: CoreIndex,
    random: u128,
    lease: u64,
    is_over: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.gateway.tell(self.core, &Request::StopRun(self.random, self.lease));
        }
    }
}
