//! A core's trunks: its connections to cores of other nodes, for messages between agents.
//!
//! ```text
//! agent ──► record ──► trunk (bounded) ═══ frames ═══► core of the other node ──► ring ──► agent
//!                                 ◄═══ answers, "mailbox full" ═══
//! ```
//!
//! Each core dials one trunk of its own to every node that its agents talk to. What travels against
//! the direction of the dialling is answers and news of mailboxes alone. All trunks of a core of another
//! node end on one core here, whichever accepted the connection.
//!
//! Invariants worth naming:
//! - Messages from one agent to another arrive in the order in which they were sent, each once, over
//!   however many connections a session takes: they take one trunk, one core and one ring.
//! - A session ends when the node is known to be gone, cannot be reached for too long, has begun another
//!   life, or says what cannot be. Then its calls end, and what may not have arrived is counted (`far_lost`)
//!   and told. In the last two cases another session begins with what the node surely has not got.
//! - What the other side has not taken is bounded in bytes; beyond that senders are refused. Answers
//!   are owed: the askers' own limits bound them.
//! - A full mailbox loses nothing: its senders on other nodes are told to stop, and what was on its
//!   way by then still finds room.
//! - Every call ends: with its answer, when its time is up, or with its session.

mod arrive;
mod trunk;

pub use trunk::{Bounds, Dial, Offer, Origin, Trunk};

use super::{
    context::SendError,
    kernel::{Kernel, Waiter},
    neighbours::Neighbours,
};
use crate::{
    registry::world::Status,
    wire::{
        id::{AgentAddress, AgentId, CoreIndex, NodeId},
        trunk::{RECORD_BYTES_BESIDE, Record},
    },
};
use std::{
    collections::{HashMap, hash_map::Entry},
    rc::Rc,
    task::Waker,
};

/// How long after a message of another node, or to one, the core looks at its sockets often,
/// microseconds.
const BUSY_US: u64 = 2_000;

/// What a core knows of the other nodes' cores.
pub struct Trunks {
    /// This core as other nodes see it; of node 0 when the node belongs to no cluster.
    me: Origin,
    /// Makes connections; none when there are no other nodes.
    dial: Option<Rc<dyn Dial>>,
    /// The trunks that this core dialled.
    dialled: HashMap<NodeId, Rc<Trunk>>,
    /// Those that cores of other nodes dialled to this one.
    accepted: HashMap<(NodeId, CoreIndex), Rc<Trunk>>,
    /// Sessions that they offered and that begin when the connection is there; the last of each core.
    offered: HashMap<(NodeId, CoreIndex), Offer>,
    /// The last of their sessions that are over of which something was taken: none of these begins again.
    over: HashMap<(NodeId, CoreIndex), (Origin, u64)>,
    /// Whether futures that drive trunks were woken.
    woke: bool,
    /// Those that go on after the core's next turn.
    after_turn: Vec<Waker>,
    /// Until when more is to be expected from other nodes soon, microseconds.
    busy_until_us: u64,
}

impl Trunks {
    /// The trunks of a core of a node that belongs to no cluster.
    pub fn new(core: CoreIndex) -> Self {
        Self {
            me: Origin { node: 0, core, life: fastrand::u64(1..) },
            dial: None,
            dialled: HashMap::new(),
            accepted: HashMap::new(),
            offered: HashMap::new(),
            over: HashMap::new(),
            woke: false,
            after_turn: Vec::new(),
            busy_until_us: 0,
        }
    }

    /// This node; 0 when it belongs to no cluster.
    #[inline]
    pub fn me(&self) -> NodeId {
        self.me.node
    }

    /// Lets messages go to other nodes: this node is `me`, and `dial` makes connections.
    pub fn open(&mut self, me: NodeId, dial: Rc<dyn Dial>) {
        self.me.node = me;
        self.dial = Some(dial);
    }

    /// Whether more is to be expected from other nodes soon.
    #[inline]
    pub fn is_busy(&self, now_us: u64) -> bool {
        now_us < self.busy_until_us
    }

    /// Something went to another node, or came from one.
    #[inline]
    fn note(&mut self, now_us: u64) {
        self.busy_until_us = now_us + BUSY_US;
    }

    /// Ends a turn: whether futures that drive trunks want to run.
    #[inline]
    pub fn end_turn(&mut self) -> bool {
        self.woke |= !self.after_turn.is_empty();
        self.after_turn.drain(..).for_each(Waker::wake);
        std::mem::take(&mut self.woke)
    }

    /// Tells the other nodes that a mailbox has room again.
    #[inline]
    pub fn has_room(&mut self, agent: AgentId) {
        for trunk in self.accepted.values() {
            self.woke |= trunk.has_room(agent);
        }
    }

    /// All trunks to a node and from it.
    fn of(&self, node: NodeId) -> Vec<Rc<Trunk>> {
        let accepted = self.accepted.values().filter(|trunk| trunk.node() == node);
        self.dialled.get(&node).into_iter().chain(accepted).cloned().collect()
    }

    /// The trunk to a node, which is dialled when there is none, unless the node is known to be gone.
    fn to(
        &mut self,
        node: NodeId,
        is_gone: impl FnOnce() -> bool,
    ) -> Result<&Rc<Trunk>, SendError> {
        let dial = self.dial.as_ref().ok_or(SendError::NoReceiver)?;
        let trunk = match self.dialled.entry(node) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                if !dial.knows(node) {
                    return Err(SendError::NoReceiver);
                }
                place.insert(Rc::new(Trunk::to(node, self.me, dial.bounds())))
            }
        };
        if let Some(session) = trunk.begin(is_gone)? {
            dial.dial(trunk.clone(), session);
        }
        Ok(trunk)
    }
}

/// Whether gossip says that a node is dead or has left: what is sent to it would be lost with the dial that
/// fails.
fn is_gone(neighbours: &Option<Box<Neighbours>>, node: NodeId) -> bool {
    let status = neighbours.as_ref().and_then(|it| it.view.world().status(node));
    matches!(status, Some(Status::Dead | Status::Left))
}

impl Kernel {
    /// Whether an address is of this node.
    #[inline]
    pub(super) fn is_here(&self, address: AgentAddress) -> bool {
        address.node == 0 || address.node == self.trunks.me()
    }

    /// Puts a message to an agent of another node on its way.
    #[inline]
    pub(super) fn send_far(
        &mut self,
        source: AgentId,
        to: AgentAddress,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let record = Record::Send { target: to.agent, source, payload };
        self.put_far(to.node, Some(to.agent), &record, payload.len())
    }

    /// Puts a message to all agents of a type on another node on its way.
    pub(super) fn broadcast_far(
        &mut self,
        source: AgentId,
        node: NodeId,
        agent_type: &str,
        payload: &[u8],
    ) -> Result<(), SendError> {
        if u8::try_from(agent_type.len()).is_err() {
            return Err(SendError::NoReceiver);
        }
        let record = Record::Broadcast { source, agent_type, payload };
        self.put_far(node, None, &record, payload.len())
    }

    /// Asks an agent of another node; 0 means the default timeout.
    pub(super) fn call_far(
        &mut self,
        source: AgentId,
        to: AgentAddress,
        payload: &[u8],
        waiter: Waiter,
        timeout_ms: u64,
    ) -> Result<super::calls::CallKey, SendError> {
        if self.calls.is_full() {
            return Err(SendError::TooManyCalls);
        }
        let bytes = payload.len() + RECORD_BYTES_BESIDE;
        let Self { trunks, neighbours, .. } = self;
        let trunk = trunks.to(to.node, || is_gone(neighbours, to.node));
        let checked = trunk.and_then(|trunk| trunk.check(Some(to.agent), bytes));
        self.count_refusal(checked)?;
        let timeout_ms = if timeout_ms == 0 { self.call_timeout_ms } else { timeout_ms };
        let key = self.open_call(waiter, timeout_ms);
        let correlation = key.to_bits();
        let patience_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        let target = to.agent;
        let record = Record::Call { target, source, correlation, patience_ms, payload };
        self.trunks.note(self.now_us);
        let trunk = &self.trunks.dialled[&to.node];
        self.trunks.woke |= trunk.ask(correlation, &record, |correlation| {
            self.calls.get_mut(super::calls::CallKey::from_bits(correlation)).is_some()
        });
        self.stats.far_sent += 1;
        Ok(key)
    }

    fn put_far(
        &mut self,
        node: NodeId,
        target: Option<AgentId>,
        record: &Record<'_>,
        payload_bytes: usize,
    ) -> Result<(), SendError> {
        let bytes = payload_bytes + RECORD_BYTES_BESIDE;
        let Self { trunks, neighbours, .. } = self;
        let put = trunks.to(node, || is_gone(neighbours, node)).and_then(|trunk| {
            trunk.check(target, bytes)?;
            Ok(trunk.put(record))
        });
        let woke = self.count_refusal(put)?;
        self.trunks.woke |= woke;
        self.trunks.note(self.now_us);
        self.stats.far_sent += 1;
        Ok(())
    }

    fn count_refusal<T>(&mut self, outcome: Result<T, SendError>) -> Result<T, SendError> {
        outcome.inspect_err(|_| self.stats.sends_refused += 1)
    }
}
