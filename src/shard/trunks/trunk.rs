//! One trunk: what waits to be written, and what its two ends owe each other.

use crate::{
    shard::context::SendError,
    wire::{
        id::{AgentId, NodeId},
        trunk::{Packer, Record},
    },
};
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

/// The pause before a node that could not be reached is dialled again, the first time.
const BACKOFF: Duration = Duration::from_millis(20);
/// And at most.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Calls that were asked before it is looked which of them wait no more.
const ASKED_MIN: usize = 256;

/// What a trunk may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes that wait to be written, answers apart.
    pub waiting_bytes: usize,
    /// The longest record, bytes.
    pub record_bytes: usize,
}

/// Makes connections to other nodes.
pub trait Dial {
    /// Whether anybody has said where that node is.
    fn knows(&self, node: NodeId) -> bool;

    /// Dials a trunk, drives it until it ends, and tells the shard then.
    fn dial(&self, trunk: Rc<Trunk>);

    /// What a trunk may cost.
    fn bounds(&self) -> Bounds;
}

/// What a trunk that is lost leaves.
pub struct Lost {
    /// Calls that were sent over it and have no answer.
    pub asked: Vec<u64>,
    /// Calls of the other side that wait for an answer which nobody wants any more.
    pub served: Vec<u64>,
}

/// One end of a trunk, on the core that it belongs to.
pub struct Trunk {
    node: NodeId,
    /// The other side dialled it.
    is_accepted: bool,
    /// What this side lets it cost,
    own: Bounds,
    /// and what both do, by what the other side said when it was connected last.
    bounds: Cell<Bounds>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    packer: Packer,
    /// Wakes what drives the connection.
    waker: Option<Waker>,
    is_driven: bool,
    /// When it may be dialled again, and the pause before that.
    closed: Option<(Instant, Duration)>,
    /// It takes no further calls.
    leaves: bool,
    /// Why it is to end.
    severed: Option<&'static str>,
    /// Agents there whose mailbox is full.
    full: HashSet<AgentId>,
    /// Agents here whose mailbox is full, as the other side was told.
    told_full: HashSet<AgentId>,
    /// Calls of the other side that wait for agents here.
    serving: HashSet<u64>,
    /// Calls that were sent over it.
    asked: HashSet<u64>,
    /// How many of them make it worth a look which wait no more.
    asked_limit: usize,
}

impl Trunk {
    /// A trunk to a node, not dialled yet.
    pub fn to(node: NodeId, bounds: Bounds) -> Self {
        let (own, bounds) = (bounds, Cell::new(bounds));
        Self { node, is_accepted: false, own, bounds, state: RefCell::default() }
    }

    /// A trunk that a node dialled.
    pub fn from(node: NodeId, bounds: Bounds) -> Self {
        let trunk = Self { is_accepted: true, ..Self::to(node, bounds) };
        trunk.state.borrow_mut().is_driven = true;
        trunk
    }

    /// The node at the other end.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What it may cost.
    pub fn bounds(&self) -> Bounds {
        self.bounds.get()
    }

    /// The other side takes records of at most so many bytes.
    pub fn limit_records(&self, bytes: usize) {
        let record_bytes = self.own.record_bytes.min(bytes);
        self.bounds.set(Bounds { record_bytes, ..self.own });
    }

    /// Whether it is to be dialled now; from then on it counts as driven.
    ///
    /// # Errors
    /// [`SendError::NodeGone`] shortly after it was lost, and while the node is gone.
    #[inline]
    pub(super) fn begin(&self, is_gone: impl FnOnce() -> bool) -> Result<bool, SendError> {
        let mut state = self.state.borrow_mut();
        if state.is_driven {
            return Ok(false);
        }
        if state.closed.is_some_and(|(until, _)| Instant::now() < until) || is_gone() {
            return Err(SendError::NodeGone);
        }
        state.is_driven = true;
        state.severed = None;
        Ok(true)
    }

    /// Whether a record for an agent, or for all of a type, may be put in.
    ///
    /// # Errors
    /// [`SendError::Full`] and [`SendError::TooLarge`].
    #[inline]
    pub(super) fn check(&self, target: Option<AgentId>, bytes: usize) -> Result<(), SendError> {
        let state = self.state.borrow();
        let Bounds { waiting_bytes, record_bytes } = self.bounds.get();
        if bytes > record_bytes {
            return Err(SendError::TooLarge);
        }
        let is_full = !state.full.is_empty() && target.is_some_and(|it| state.full.contains(&it));
        if is_full || state.packer.waiting() >= waiting_bytes {
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Puts a record behind all others; tells whether it woke what drives the connection.
    #[inline]
    pub(super) fn put(&self, record: &Record<'_>) -> bool {
        let mut state = self.state.borrow_mut();
        if !state.is_driven {
            // Nobody is there any more who would take it.
            return false;
        }
        state.packer.put(record);
        wake(&mut state)
    }

    /// Notes that a call was sent over it; `waits` tells whether an earlier one still waits.
    pub(super) fn await_answer(&self, correlation: u64, mut waits: impl FnMut(u64) -> bool) {
        let mut state = self.state.borrow_mut();
        if state.asked.len() >= state.asked_limit.max(ASKED_MIN) {
            state.asked.retain(|correlation| waits(*correlation));
            state.asked_limit = 2 * state.asked.len();
        }
        state.asked.insert(correlation);
    }

    /// Whether a call was sent over it and not answered before.
    pub(super) fn answered(&self, correlation: u64) -> bool {
        self.state.borrow_mut().asked.remove(&correlation)
    }

    /// Notes that a call of the other side waits here, by the key that it has on this core.
    pub(super) fn serves(&self, key: u64) {
        self.state.borrow_mut().serving.insert(key);
    }

    /// It waits no more.
    pub(super) fn served(&self, key: u64) {
        self.state.borrow_mut().serving.remove(&key);
    }

    /// Whether the other side takes too little of what it asked for: then nothing more is read from it.
    pub fn is_behind(&self) -> bool {
        self.is_accepted && self.state.borrow().packer.waiting() >= self.bounds.get().waiting_bytes
    }

    /// The other side says that a mailbox is full, or has room.
    pub(super) fn set_full(&self, agent: AgentId, is_full: bool) {
        let full = &mut self.state.borrow_mut().full;
        match is_full {
            true => full.insert(agent),
            false => full.remove(&agent),
        };
    }

    /// Tells the other side that a mailbox of this node is full, unless it knows.
    pub(super) fn tell_full(&self, agent: AgentId) -> bool {
        let is_news = self.state.borrow_mut().told_full.insert(agent);
        is_news && self.put(&Record::Full(agent))
    }

    /// Tells the other side that a mailbox has room again, if it was told that it was full.
    pub(super) fn has_room(&self, agent: AgentId) -> bool {
        let was_told = self.state.borrow_mut().told_full.remove(&agent);
        was_told && self.put(&Record::Room(agent))
    }

    /// Takes no further calls: the node closes its doors.
    pub fn leave(&self) {
        self.state.borrow_mut().leaves = true;
    }

    /// Whether it takes no further calls.
    pub fn is_leaving(&self) -> bool {
        self.state.borrow().leaves
    }

    /// Whether it takes no further calls, and those of before are answered and the answers written.
    pub fn has_left(&self) -> bool {
        let state = self.state.borrow();
        state.leaves && state.serving.is_empty() && state.packer.waiting() == 0
    }

    /// Makes the connection end.
    pub fn sever(&self, why: &'static str) {
        let mut state = self.state.borrow_mut();
        if state.is_driven {
            state.severed = Some(why);
            wake(&mut state);
        }
    }

    /// Why the connection is to end, if it is.
    pub fn severed(&self) -> Option<&'static str> {
        self.state.borrow().severed
    }

    /// Who is to be woken when there is something to write.
    pub fn wakes(&self, waker: &Waker) {
        let slot = &mut self.state.borrow_mut().waker;
        match slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    /// Uses what waits to be written.
    pub fn with_packer<T>(&self, work: impl FnOnce(&mut Packer) -> T) -> T {
        work(&mut self.state.borrow_mut().packer)
    }

    /// The connection was made.
    pub fn opened(&self) {
        self.state.borrow_mut().closed = None;
    }

    /// The connection is lost, or was not made; the calls that were sent over it have no answer.
    pub fn lost(&self, was_there: bool) -> Lost {
        let mut state = self.state.borrow_mut();
        let pause = match state.closed {
            Some((_, before)) if !was_there => (before * 2).min(BACKOFF_MAX),
            _ => BACKOFF,
        };
        let (asked, served) =
            (std::mem::take(&mut state.asked), std::mem::take(&mut state.serving));
        let closed = Some((Instant::now() + pause, pause));
        *state = State { closed, ..State::default() };
        Lost { asked: asked.into_iter().collect(), served: served.into_iter().collect() }
    }
}

fn wake(state: &mut State) -> bool {
    state.waker.take().map(Waker::wake).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_record_is_what_the_other_side_said_last_and_no_more_than_this_side_takes() {
        let trunk = Trunk::to(2, Bounds { waiting_bytes: 1 << 20, record_bytes: 1_000 });
        let takes = |bytes| trunk.check(None, bytes).is_ok();
        for (said, longest) in [(100, 100), (500, 500), (4_000, 1_000), (0, 0), (900, 900)] {
            trunk.limit_records(said);
            assert!(takes(longest) && !takes(longest + 1), "{said}");
            trunk.lost(true);
        }
    }
}
