//! Tasks that go to agents of other nodes: the part of the node that keeps them.
//!
//! ```text
//! queue ──► attempt with its lease ──► way ═══ `here.run` ═══► guest there ──► agent
//!                    ▲                                                           │
//!                    └───── finish, or give back ◄══ answer, or why none ◄═══════┘
//! ```
//!
//! A task is lent when it waits and this node has no agent of its type; and when it has waited for
//! [`BESIDE_MS`] because those that it has are busy, while another node has places that are free. All that
//! makes it durable stays here: its lease with the fencing token, its attempts, its end.
//! `task/lender.rs` says which node gets it, and `guests.rs` is the other side.
//!
//! Invariants worth naming:
//! - The lease decides. It lasts [`MORE_MS`] longer than the attempt may take, for the way and the
//!   wait there; when it is over, or the task was cancelled, an answer changes nothing.
//! - An attempt that surely did not begin is given back and not counted. One of which nobody knows has
//!   failed, and counts.
//! - Every attempt ends: with an answer, when its node is known to be gone, when the way to it is lost,
//!   or with its lease.

use super::{
    core::Shard,
    handle::{Failure, Lease},
    kernel::{Timer, borrower_of},
    tasks::{Attempt, Tasks, Waiting},
};
use crate::{
    registry::{TypeIndex, fact::Load, world::Status},
    task::lender::Lender,
    wire::{
        api::{Error, Guest, Ran},
        id::{NodeId, PartitionIndex},
    },
};
use foldhash::fast::RandomState;
use futures_channel::oneshot;
use std::{collections::HashMap, rc::Rc, time::Instant};

/// What a lease lasts on top of the time that the attempt may take, milliseconds.
pub const MORE_MS: u64 = super::guests::WAIT_MS + 1_500;
/// How long a task waits for agents of its own node, before it may go to others with free places,
/// milliseconds: a round of gossip.
const BESIDE_MS: u64 = 100;
/// Payloads that are lent before the core does something else, bytes.
const LENT_BYTES: usize = 4 << 20;
/// What is lent in one go, attempts of a type.
const LENT_TOGETHER: usize = 256;

/// An attempt on its way to another node.
pub struct Lent {
    /// The node.
    pub node: NodeId,
    /// The lease that decides.
    pub lease: Lease,
    /// The type of the agent that is to run it.
    pub agent_type: String,
    /// What that node needs to know.
    pub guest: Guest,
}

/// The way to other nodes.
pub trait Lend {
    /// Has an attempt run by another node, and tells the shard what came of it
    /// ([`Shard::lent_is_over`]). Nobody wants to know any more when the receiver hears something, for
    /// then that node knows the end, and when its sender is dropped: then the node is told to stop.
    fn lend(&self, lent: Lent, given_up: oneshot::Receiver<()>);

    /// Asks a node that was lent attempts of a type and said nothing whether it answers, and tells the
    /// shard ([`Shard::silent_was_asked`]).
    fn ask(&self, node: NodeId, type_index: TypeIndex);
}

/// An attempt that another node runs.
struct Away {
    node: NodeId,
    type_index: TypeIndex,
    timeout_ms: u64,
    /// When it was lent, microseconds since the node started.
    lent_us: u64,
    /// Dropped when the attempt is over and the node has to be told; sent when it knows.
    gives_up: oneshot::Sender<()>,
}

/// A type's tasks that may be lent.
#[derive(Default)]
struct OfType {
    lender: Lender,
    /// Whether a timer is set for the next look.
    looks: bool,
}

/// What a core has lent.
#[derive(Default)]
pub(super) struct Lending {
    /// The way to other nodes; none in a node that belongs to no cluster.
    way: Option<Rc<dyn Lend>>,
    types: Vec<OfType>,
    /// By the lease's partition and token.
    away: HashMap<(PartitionIndex, u64), Away, RandomState>,
}

impl Lending {
    /// Makes room for what so many types have.
    pub(super) fn know(&mut self, types: usize) {
        if self.way.is_some() {
            self.types.resize_with(types, OfType::default);
        }
    }

    /// Whether nothing is lent.
    pub(super) fn is_empty(&self) -> bool {
        self.away.is_empty()
    }

    /// The node that was lent an attempt.
    pub(super) fn node_of(&self, lease: Lease) -> Option<NodeId> {
        self.away.get(&(lease.partition, lease.token)).map(|away| away.node)
    }

    /// An attempt that was lent is over, however it came to that.
    #[cold]
    pub(super) fn over(&mut self, lease: Lease) {
        if let Some(away) = self.away.remove(&(lease.partition, lease.token)) {
            self.types[usize::from(away.type_index)].lender.came_back(away.node);
        }
    }
}

impl Tasks {
    /// The task of this node's own that should run next.
    fn next_to_lend(&self, type_index: TypeIndex) -> Option<Waiting> {
        self.next_of(self.own(), type_index)
    }
}

impl Shard {
    /// Lets tasks go to agents of other nodes.
    pub fn lend_to_others(&mut self, way: Rc<dyn Lend>) {
        self.tasks.lending.way = Some(way);
        self.tasks.lending.know(self.tasks.pools.len());
        self.open_guests();
    }

    /// Lends tasks of a type that wait, and for which this node has no agent or too few; false when
    /// there were none, or nobody takes them now.
    #[cold]
    pub(super) fn lend(&mut self, type_index: TypeIndex) -> bool {
        let Some(way) = self.tasks.lending.way.clone() else { return false };
        let is_beside = !self.kernel.directory.homes_of(type_index).is_empty();
        let (mut count, mut bytes) = (0, 0);
        let now_ms = self.kernel.now_ms();
        let of_type = &mut self.tasks.lending.types[usize::from(type_index)];
        while let Some(node) = of_type.lender.to_probe(now_ms) {
            way.ask(node, type_index);
        }
        while let Some(waiting) = self.tasks.next_to_lend(type_index) {
            let now_ms = self.kernel.now_ms();
            if is_beside {
                let Waiting { place, key } = waiting;
                let since_ms = self.tasks.partitions[place].table.waits_since_ms(key);
                if now_ms < since_ms + BESIDE_MS {
                    self.look_at_ms(type_index, since_ms + BESIDE_MS);
                    break;
                }
            }
            self.learn_loads(type_index);
            let lot = self.kernel.random.u64(..);
            let OfType { lender, .. } = &mut self.tasks.lending.types[usize::from(type_index)];
            let is_enough = count >= LENT_TOGETHER || bytes >= LENT_BYTES;
            let chosen = match (is_enough, is_beside) {
                (true, _) => None,
                (false, true) => lender.choose_free(now_ms, lot),
                (false, false) => lender.choose(now_ms, lot),
            };
            let Some(node) = chosen else {
                let due_ms = if is_enough { now_ms + 1 } else { lender.next_look_ms(now_ms) };
                self.look_at_ms(type_index, due_ms);
                break;
            };
            let (lent, given_up) = self.begin_away(type_index, node, waiting);
            count += 1;
            bytes += lent.guest.payload.len();
            way.lend(lent, given_up);
        }
        self.kernel.stats.tasks_lent += count as u64;
        count > 0
    }

    /// Looks again at a time whether tasks of a type can be lent.
    fn look_at_ms(&mut self, type_index: TypeIndex, due_ms: u64) {
        let of_type = self.tasks.lending.types.get_mut(usize::from(type_index));
        if of_type.is_some_and(|it| !std::mem::replace(&mut it.looks, true)) {
            self.kernel.wheel.insert(due_ms, Timer::Lend(type_index));
        }
    }

    fn learn_loads(&mut self, type_index: TypeIndex) {
        let lender = &mut self.tasks.lending.types[usize::from(type_index)].lender;
        let Some(neighbours) = &self.kernel.neighbours else { return };
        let (view, me) = (&neighbours.view, self.kernel.trunks.me());
        if lender.knows(view.number()) {
            return;
        }
        let types = &self.kernel.types;
        let spec = types.get(type_index);
        // Where agents of its own start, none start elsewhere for its tasks.
        let starts_here = types.is_configured(type_index) && spec.starts_agents();
        let may = |load: &Load| load.agents > 0 || !starts_here;
        let others = view
            .world()
            .may_run(&spec.name)
            .filter(|(node, status, load)| *node != me && *status == Status::Alive && may(load));
        lender.learn(view.number(), others.map(|(node, _, load)| (node, load)));
    }

    /// Begins an attempt that another node is to run.
    fn begin_away(
        &mut self,
        type_index: TypeIndex,
        node: NodeId,
        Waiting { place, key }: Waiting,
    ) -> (Lent, oneshot::Receiver<()>) {
        let now_ms = self.kernel.now_ms();
        let table = &mut self.tasks.partitions[place].table;
        let lease = table.start(key, now_ms);
        let timeout_ms = table.deadline_ms(key) - now_ms;
        let deadline_ms = table.extend(lease, now_ms, timeout_ms + MORE_MS);
        let deadline_ms = deadline_ms.expect("the attempt began just now");
        let guest = Guest {
            id: table.id(key),
            lease: lease.token,
            attempt: table.attempts(key),
            priority: table.priority(key),
            timeout_ms,
            payload: table.payload(key).to_vec(),
        };
        let agent_type = self.kernel.types.get(type_index).name.clone();
        let timer = self.kernel.wheel.insert(deadline_ms, Timer::Attempt(lease));
        let agent = borrower_of(self.kernel.index);
        let attempt = Attempt { lease, agent, type_index, started_ms: now_ms, timer };
        self.tasks.attempts.insert((lease.partition, lease.token), attempt);
        let (gives_up, given_up) = oneshot::channel();
        let lent_us = self.kernel.now_us;
        let away = Away { node, type_index, timeout_ms, lent_us, gives_up };
        self.tasks.lending.away.insert((lease.partition, lease.token), away);
        (Lent { node, lease, agent_type, guest }, given_up)
    }

    /// What came of an attempt that another node was to run; of no interest when the attempt has ended
    /// before.
    pub fn lent_is_over(&mut self, lease: Lease, answer: Result<Ran, Error>) {
        let away = self.tasks.lending.away.get(&(lease.partition, lease.token));
        let Some(&Away { node, type_index, timeout_ms, .. }) = away else { return };
        let now_ms = self.kernel.now_ms();
        let lender = &mut self.tasks.lending.types[usize::from(type_index)].lender;
        match &answer {
            Ok(_) => lender.served(node),
            Err(Error::Backpressure(_)) => lender.was_full(node, now_ms),
            Err(Error::Uncertain(_)) => lender.was_silent(node, now_ms),
            Err(_) => lender.refused(node, now_ms),
        }
        match answer {
            Ok(ran) => self.finish(lease, ran),
            Err(error) if did_not_begin(&error) => {
                tracing::debug!(node, %error, "an attempt came back without having begun");
                self.kernel.stats.tasks_lent_back += 1;
                self.take_back(lease, timeout_ms);
            }
            Err(error) => {
                self.kernel.stats.tasks_lent_lost += 1;
                let error = format!("on node {node}: {error}");
                self.finish(lease, Err(Failure { error, retry: true }));
            }
        }
    }

    /// A node that said nothing was asked whether it answers.
    pub fn silent_was_asked(&mut self, node: NodeId, type_index: TypeIndex, answers: bool) {
        let now_ms = self.kernel.now_ms();
        let of_type = &mut self.tasks.lending.types[usize::from(type_index)];
        of_type.lender.was_probed(node, answers, now_ms);
        self.tasks.look_again();
    }

    /// The lease of an attempt is over without an answer: if it was lent, its node may hear nothing.
    #[cold]
    pub(super) fn unanswered(&mut self, lease: Lease) {
        let (now_ms, lending) = (self.kernel.now_ms(), &mut self.tasks.lending);
        if let Some(away) = lending.away.get(&(lease.partition, lease.token)) {
            lending.types[usize::from(away.type_index)].lender.was_silent(away.node, now_ms);
        }
    }

    /// A worker of the other node ends a lent attempt itself, by this node's lease.
    pub(super) fn ended_by_borrower(&mut self, lease: Lease) {
        let lending = &mut self.tasks.lending;
        let Some(away) = lending.away.remove(&(lease.partition, lease.token)) else { return };
        let lender = &mut lending.types[usize::from(away.type_index)].lender;
        lender.served(away.node);
        lender.came_back(away.node);
        // Who waits for the answer may be gone.
        let _ = away.gives_up.send(());
    }

    /// Takes an attempt back that did not take place.
    fn take_back(&mut self, lease: Lease, timeout_ms: u64) {
        let Some(attempt) = self.take_attempt(lease) else { return };
        let table = &mut self.tasks.of(lease.partition).table;
        // As when it began, so that its time of waiting goes on.
        let given_back = table
            .extend(lease, attempt.started_ms, timeout_ms)
            .and_then(|_| table.give_back(lease));
        assert_eq!(given_back, Ok(()), "an attempt in the books is the current one");
    }

    /// A node is gone: what it was lent has failed.
    pub fn borrower_gone(&mut self, node: NodeId) {
        self.borrower_lost(node, u64::MAX);
    }

    /// A node's process is another one than the one that was there until then: what that was lent has
    /// failed.
    pub fn borrower_began_again(&mut self, node: NodeId, then: Instant) {
        let then_us = then.saturating_duration_since(self.started).as_micros();
        self.borrower_lost(node, u64::try_from(then_us).unwrap_or(u64::MAX));
    }

    /// What a node was lent before some time has failed.
    fn borrower_lost(&mut self, node: NodeId, before_us: u64) {
        let all = self.tasks.attempts.values().map(|attempt| attempt.lease);
        let is_there = |lease: &Lease| {
            let away = self.tasks.lending.away.get(&(lease.partition, lease.token));
            away.is_some_and(|away| away.node == node && away.lent_us < before_us)
        };
        let leases: Vec<Lease> = all.filter(is_there).collect();
        for lease in leases {
            self.kernel.stats.tasks_lent_lost += 1;
            // What is believed of the node may be older than this.
            self.unanswered(lease);
            let error = format!("node {node}, which ran it, is gone");
            self.finish(lease, Err(Failure { error, retry: true }));
        }
    }

    /// It is time to look again whether tasks of a type can be lent.
    pub(super) fn look_for_borrowers(&mut self, type_index: TypeIndex) {
        self.tasks.lending.types[usize::from(type_index)].looks = false;
        self.tasks.look_again();
    }
}

/// Whether an error says that the attempt surely did not begin.
fn did_not_begin(error: &Error) -> bool {
    match error {
        Error::Backpressure(_)
        | Error::Full(_)
        | Error::Unavailable(_)
        | Error::NotFound(_)
        | Error::Conflict(_) => true,
        // To give it back would be to try it for ever.
        Error::Invalid(_) | Error::TooLarge(_) | Error::Unauthorized(_) => false,
        Error::Uncertain(_) | Error::StaleLease(_) | Error::NotLeader(_) => false,
    }
}
