//! One trunk: what is kept for the other side, and what its two ends owe each other.
//!
//! A trunk is a *session* of numbered frames (`wire/trunk.rs`), which goes on over one connection after
//! the other. It ends when the other node is gone, has begun another life, or could not be reached for
//! too long; a trunk that this core dials begins another session then.

use crate::{
    shard::context::SendError,
    wire::{
        id::{AgentId, CoreIndex, NodeId},
        trunk::{GivenUp, Packer, Progress, Record, TrunkError},
    },
};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
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
    /// Bytes that the other side has not taken, answers apart.
    pub kept_bytes: usize,
    /// The longest record, bytes.
    pub record_bytes: usize,
}

/// Makes connections to other nodes.
pub trait Dial {
    /// Whether anybody has said where that node is.
    fn knows(&self, node: NodeId) -> bool;

    /// Dials a trunk, drives that session of it for as long as there is something to say, and tells the
    /// shard when it is over. One that is over by then is left alone: who began the next one dials it.
    fn dial(&self, trunk: Rc<Trunk>, session: u64);

    /// What a trunk may cost.
    fn bounds(&self) -> Bounds;
}

/// Who dials a trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its node.
    pub node: NodeId,
    /// Its core.
    pub core: CoreIndex,
    /// A number that this core has until its node ends, and no other one.
    pub life: u64,
}

/// What is said when a trunk is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Who dials.
    pub from: Origin,
    /// The node that it means to dial.
    pub to: NodeId,
    /// The number of the session among those of the one who dials.
    pub session: u64,
    /// Whether the session was there before this connection.
    pub resumes: bool,
    /// The last frame that came to the one who dials.
    pub taken: u64,
    /// The longest record that it takes, bytes.
    pub record_bytes: usize,
}

/// What a session that is over leaves.
pub struct Ended {
    /// Calls that were sent in it and have no answer, and whether the other side may have got them.
    pub asked: Vec<(u64, bool)>,
    /// Calls of the other side that wait for an answer which nobody wants any more.
    pub served: Vec<u64>,
    /// Messages that the other side did not say that it took.
    pub messages: u64,
}

/// One end of a trunk, on the core that it belongs to.
pub struct Trunk {
    /// The node at the other end.
    node: NodeId,
    /// Who dials it.
    origin: Origin,
    /// The other side dials it.
    is_accepted: bool,
    /// What this side lets it cost,
    own: Bounds,
    /// and what both do, by what the other side said when it was connected last.
    bounds: Cell<Bounds>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    session: u64,
    /// Whether the other side has the session.
    is_established: bool,
    /// It is not to be used any more: the session of a trunk that the other side dialled is over.
    is_over: bool,
    /// Which of its connections is the one that counts.
    connection: u64,
    /// Since when the other side, which dials, has none.
    unconnected: Option<Instant>,
    /// Somebody waits for it to come back.
    is_awaited: bool,
    packer: Packer,
    /// How far the records of the other side were taken.
    taken: Progress,
    /// Wakes what drives the connection.
    waker: Option<Waker>,
    is_driven: bool,
    /// When it may be dialled again after a session that is over.
    closed: Option<Instant>,
    /// The pause before it is dialled again.
    pause: Duration,
    /// It takes no further calls, and ends at that time,
    leaves: Option<Instant>,
    /// and the other side takes nothing more at all.
    is_left: bool,
    /// Agents there whose mailbox is full.
    full: HashSet<AgentId>,
    /// Agents here whose mailbox is full, as the other side was told.
    told_full: HashSet<AgentId>,
    /// Calls of the other side that wait for agents here.
    serving: HashSet<u64>,
    /// Calls that were sent over it, with the numbers of their frames.
    asked: HashMap<u64, u64>,
    /// How many of them make it worth a look which wait no more.
    asked_limit: usize,
}

impl Trunk {
    /// A trunk to a node, not dialled yet.
    pub fn to(node: NodeId, origin: Origin, bounds: Bounds) -> Self {
        let state = State { session: 1, pause: BACKOFF, ..State::default() };
        let (own, bounds) = (bounds, Cell::new(bounds));
        Self { node, origin, is_accepted: false, own, bounds, state: RefCell::new(state) }
    }

    /// A trunk that a core of another node offers.
    pub fn from(offer: &Offer, bounds: Bounds) -> Self {
        let trunk = Self { is_accepted: true, ..Self::to(offer.from.node, offer.from, bounds) };
        trunk.state.borrow_mut().session = offer.session;
        trunk
    }

    /// The node at the other end.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Who dials it.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether the other side dials it.
    pub fn is_accepted(&self) -> bool {
        self.is_accepted
    }

    /// The number of its session.
    pub fn session(&self) -> u64 {
        self.state.borrow().session
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

    /// What is said when it is dialled.
    pub fn offer(&self) -> Offer {
        let state = self.state.borrow();
        Offer {
            from: self.origin,
            to: self.node,
            session: state.session,
            resumes: state.is_established,
            taken: state.taken.frames,
            record_bytes: self.own.record_bytes,
        }
    }

    /// Whether the other side has the session.
    pub fn is_established(&self) -> bool {
        self.state.borrow().is_established
    }

    /// A connection was made, over which the other side says which frame it took last; tells the number
    /// of the connection. Those before it do not count any more.
    ///
    /// # Errors
    /// The other side cannot have taken that: the session is over.
    pub fn connect(&self, taken: u64) -> Result<u64, TrunkError> {
        let mut state = self.state.borrow_mut();
        state.packer.resume(taken)?;
        state.is_established = true;
        state.unconnected = None;
        Ok(supersede(&mut state))
    }

    /// A connection that the other side dialled is lost.
    pub fn disconnected(&self, connection: u64, now: Instant) {
        let mut state = self.state.borrow_mut();
        if state.connection == connection {
            state.unconnected.get_or_insert(now);
        }
    }

    /// Whether somebody is to wait for the other side, which dials: it has no connection, and nobody waits.
    pub fn await_return(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let is_alone = state.unconnected.is_some() && !state.is_over;
        is_alone && !std::mem::replace(&mut state.is_awaited, true)
    }

    /// For how long who waits for the other side has to wait on, when it may be away for so long; `None` when
    /// it is there, or the session is over: then nobody waits any more.
    pub fn awaits(&self, now: Instant, limit: Duration) -> Option<Duration> {
        let mut state = self.state.borrow_mut();
        let since = state.unconnected.filter(|_| !state.is_over);
        state.is_awaited = since.is_some();
        since.map(|since| limit.saturating_sub(now.saturating_duration_since(since)))
    }

    /// The last frame of the other side that was taken; what is under way over an earlier connection is
    /// not taken any more.
    pub fn disconnect(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        supersede(&mut state);
        state.unconnected.get_or_insert_with(Instant::now);
        state.taken.frames
    }

    /// Whether a connection is the one that counts.
    #[inline]
    pub fn is_current(&self, connection: u64) -> bool {
        self.state.borrow().connection == connection
    }

    /// The session that is to be dialled now, if one is; from then on it counts as driven.
    ///
    /// # Errors
    /// [`SendError::NodeGone`] shortly after a session that is over, and while the node is gone.
    #[inline]
    pub(super) fn begin(&self, is_gone: impl FnOnce() -> bool) -> Result<Option<u64>, SendError> {
        let mut state = self.state.borrow_mut();
        if state.is_left {
            return Err(SendError::NodeGone);
        }
        if state.is_driven {
            return Ok(None);
        }
        if state.closed.is_some_and(|until| Instant::now() < until) || is_gone() {
            return Err(SendError::NodeGone);
        }
        state.is_driven = true;
        Ok(Some(state.session))
    }

    /// Whether a record for an agent, or for all of a type, may be put in.
    ///
    /// # Errors
    /// [`SendError::Full`] and [`SendError::TooLarge`].
    #[inline]
    pub(super) fn check(&self, target: Option<AgentId>, bytes: usize) -> Result<(), SendError> {
        let state = self.state.borrow();
        let Bounds { kept_bytes, record_bytes } = self.bounds.get();
        if bytes > record_bytes {
            return Err(SendError::TooLarge);
        }
        let is_full = !state.full.is_empty() && target.is_some_and(|it| state.full.contains(&it));
        if is_full || state.packer.kept() >= kept_bytes {
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Puts a record behind all others; tells whether it woke what drives the connection.
    #[inline]
    pub(super) fn put(&self, record: &Record<'_>) -> bool {
        let mut state = self.state.borrow_mut();
        if state.is_over {
            // Nobody is there any more who would take it.
            return false;
        }
        state.packer.put(record);
        wake(&mut state)
    }

    /// Puts a call behind all others; `waits` tells whether an earlier one still waits.
    pub(super) fn ask(
        &self,
        correlation: u64,
        record: &Record<'_>,
        mut waits: impl FnMut(u64) -> bool,
    ) -> bool {
        let mut state = self.state.borrow_mut();
        if state.asked.len() >= state.asked_limit.max(ASKED_MIN) {
            state.asked.retain(|correlation, _| waits(*correlation));
            state.asked_limit = 2 * state.asked.len();
        }
        let frame = state.packer.put(record);
        state.asked.insert(correlation, frame);
        wake(&mut state)
    }

    /// Whether a call was sent over it and not answered before.
    pub(super) fn answered(&self, correlation: u64) -> bool {
        self.state.borrow_mut().asked.remove(&correlation).is_some()
    }

    /// Notes that a call of the other side waits here, by the key that it has on this core.
    pub(super) fn serves(&self, key: u64) {
        self.state.borrow_mut().serving.insert(key);
    }

    /// It waits no more.
    pub(super) fn served(&self, key: u64) {
        self.state.borrow_mut().serving.remove(&key);
    }

    /// Whether the other side takes too little of what it asked for: then nothing more is taken from it.
    pub fn is_behind(&self) -> bool {
        self.is_accepted && self.state.borrow().packer.kept() >= self.bounds.get().kept_bytes
    }

    /// How far the records of the other side were taken.
    pub fn taken(&self) -> Progress {
        self.state.borrow().taken
    }

    /// Records of the other side were taken, and so many bytes of frames since the last time.
    #[inline]
    pub fn took(&self, taken: Progress, bytes: usize) {
        let mut state = self.state.borrow_mut();
        state.taken = taken;
        state.packer.took(taken.frames, bytes);
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

    /// Takes no further calls, and tells the other side to send nothing: the node closes its doors. At that
    /// time the session ends, over whichever connection it is then.
    pub fn leave(&self, until: Instant) {
        self.put(&Record::Leaves);
        self.state.borrow_mut().leaves = Some(until);
    }

    /// Until when it waits for answers, when it takes no further calls.
    pub fn leaves(&self) -> Option<Instant> {
        self.state.borrow().leaves
    }

    /// Whether it takes no further calls, those of before are answered, and each side has what the other
    /// one said.
    pub fn has_left(&self) -> bool {
        let state = self.state.borrow();
        let is_said = state.packer.is_empty() && !state.packer.owes();
        state.leaves.is_some() && state.serving.is_empty() && is_said
    }

    /// The other side takes nothing more.
    pub(super) fn is_left_by_other(&self) {
        self.state.borrow_mut().is_left = true;
    }

    /// Whether the other side takes nothing more.
    pub fn is_left(&self) -> bool {
        self.state.borrow().is_left
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

    /// How many frames were taken on either side.
    pub fn moved(&self) -> u64 {
        self.state.borrow().packer.moved()
    }

    /// The connection is lost, or was not made: after which pause the next one is to be made, which is
    /// short when it moved something. `None` when there is nothing to say: the session is over then,
    /// since the node may begin another life before there is.
    pub fn lost(&self, has_moved: bool) -> Option<Duration> {
        let mut state = self.state.borrow_mut();
        state.waker = None;
        if state.packer.is_empty() && state.asked.is_empty() {
            let (session, connection) = (state.session + 1, state.connection + 1);
            *state = State { session, connection, pause: BACKOFF, ..State::default() };
            return None;
        }
        let pause = if has_moved { BACKOFF } else { state.pause };
        state.pause = (pause * 2).min(BACKOFF_MAX);
        Some(pause)
    }

    /// The session is over, and the other side is there: the next one begins with what it cannot have got.
    /// Gives the pause before it is dialled, and `None` when there is nothing to say.
    pub fn begin_again(&self) -> (Ended, Option<Duration>) {
        let mut state = self.state.borrow_mut();
        let GivenUp { frames, messages } = state.packer.begin_again();
        if state.packer.is_empty() {
            drop(state);
            let ended = self.end();
            let asked = ended.asked.into_iter().map(|(call, _)| (call, true)).collect();
            return (Ended { asked, messages, ..ended }, None);
        }
        supersede(&mut state);
        let before = std::mem::take(&mut *state);
        let pause = if before.is_established { BACKOFF } else { before.pause };
        let (begun, rest): (HashMap<_, _>, HashMap<_, _>) =
            before.asked.into_iter().partition(|(_, frame)| *frame <= frames);
        *state = State {
            session: before.session + 1,
            connection: before.connection,
            packer: before.packer,
            is_driven: true,
            pause: (pause * 2).min(BACKOFF_MAX),
            asked: rest.into_iter().map(|(call, frame)| (call, frame - frames)).collect(),
            ..State::default()
        };
        let asked = begun.into_keys().map(|call| (call, true)).collect();
        (Ended { asked, served: before.serving.into_iter().collect(), messages }, Some(pause))
    }

    /// The session is over.
    pub fn end(&self) -> Ended {
        let mut state = self.state.borrow_mut();
        supersede(&mut state);
        let pause = if state.is_established { BACKOFF } else { state.pause };
        let next = State {
            session: state.session + 1,
            connection: state.connection,
            is_over: self.is_accepted,
            closed: Some(Instant::now() + pause),
            pause: (pause * 2).min(BACKOFF_MAX),
            ..State::default()
        };
        let State { packer, asked, serving, .. } = std::mem::replace(&mut *state, next);
        let asked = asked.into_iter().map(|(call, frame)| (call, packer.is_touched(frame)));
        Ended {
            asked: asked.collect(),
            served: serving.into_iter().collect(),
            messages: packer.messages(),
        }
    }
}

/// What drives a connection finds that it does not count any more.
fn supersede(state: &mut State) -> u64 {
    wake(state);
    state.connection += 1;
    state.connection
}

fn wake(state: &mut State) -> bool {
    state.waker.take().map(Waker::wake).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk() -> Trunk {
        let origin = Origin { node: 1, core: 0, life: 7 };
        Trunk::to(2, origin, Bounds { kept_bytes: 1 << 20, record_bytes: 1_000 })
    }

    #[test]
    fn the_longest_record_is_what_the_other_side_said_last_and_no_more_than_this_side_takes() {
        let trunk = trunk();
        let takes = |bytes| trunk.check(None, bytes).is_ok();
        for (said, longest) in [(100, 100), (500, 500), (4_000, 1_000), (0, 0), (900, 900)] {
            trunk.limit_records(said);
            assert!(takes(longest) && !takes(longest + 1), "{said}");
            trunk.lost(true);
        }
    }

    #[test]
    fn a_session_that_is_over_tells_what_nobody_said_to_have_taken_and_the_next_one_begins() {
        let trunk = trunk();
        let agent = AgentId::new(0, 0, 0);
        let send = || trunk.put(&Record::Send { target: agent, source: agent, payload: b"x" });
        let ask = |call| trunk.ask(call, &Record::Full(agent), |_| true);
        assert_eq!(trunk.begin(|| false), Ok(Some(1)));
        assert_eq!(trunk.begin(|| true), Ok(None), "it is dialled already");
        let first = trunk.connect(0).unwrap();
        send();
        ask(5);
        trunk.with_packer(|packer| {
            let bytes = packer.to_write().len();
            packer.wrote(bytes);
        });
        assert_eq!(trunk.lost(true), Some(BACKOFF), "it is dialled again by itself");
        assert_eq!(trunk.lost(false), Some(2 * BACKOFF), "later when nothing moved");
        assert!(trunk.offer().resumes);
        let second = trunk.connect(0).unwrap();
        assert!(trunk.is_current(second) && !trunk.is_current(first));
        send();
        ask(6);
        let Ended { mut asked, messages, .. } = trunk.end();
        asked.sort_unstable();
        assert_eq!((asked, messages), (vec![(5, true), (6, false)], 2));
        assert!(!trunk.is_current(second));
        assert_eq!(trunk.session(), 2);
        assert!(!trunk.offer().resumes);
        assert_eq!(trunk.begin(|| false), Err(SendError::NodeGone), "for a moment");
        assert_eq!(trunk.end().messages, 0);
    }

    #[test]
    fn a_trunk_with_nothing_to_say_is_not_dialled_again_by_itself() {
        let trunk = trunk();
        assert_eq!(trunk.begin(|| false), Ok(Some(1)));
        trunk.connect(0).unwrap();
        assert_eq!(trunk.lost(true), None);
        assert_eq!(trunk.begin(|| true), Err(SendError::NodeGone));
        assert_eq!(trunk.begin(|| false), Ok(Some(2)), "the node may have begun again");
        assert!(!trunk.offer().resumes);
    }

    #[test]
    fn the_next_session_with_a_node_that_is_there_begins_with_what_it_cannot_have() {
        let trunk = trunk();
        let agent = AgentId::new(0, 0, 0);
        let send = || trunk.put(&Record::Send { target: agent, source: agent, payload: b"x" });
        let ask = |call| trunk.ask(call, &Record::Full(agent), |_| true);
        assert_eq!(trunk.begin(|| false), Ok(Some(1)));
        let first = trunk.connect(0).unwrap();
        send();
        ask(5);
        trunk.with_packer(|packer| {
            let bytes = packer.to_write().len();
            packer.wrote(bytes);
        });
        send();
        send();
        ask(6);
        let (Ended { asked, messages, .. }, pause) = trunk.begin_again();
        assert_eq!((asked, messages), (vec![(5, true)], 1), "the other side may have these");
        assert_eq!(pause, Some(BACKOFF));
        assert_eq!((trunk.session(), trunk.is_current(first)), (2, false));
        assert_eq!(trunk.begin(|| true), Ok(None), "whoever drove it goes on");
        assert!(!trunk.offer().resumes);
        // That session fails before anything is said, and one more after all was: nothing is left then.
        let (Ended { asked, messages, .. }, pause) = trunk.begin_again();
        assert_eq!((asked, messages, pause), (vec![], 0, Some(2 * BACKOFF)));
        trunk.connect(0).unwrap();
        assert_eq!(trunk.with_packer(|packer| packer.messages()), 2);
        trunk.with_packer(|packer| {
            let bytes = packer.to_write().len();
            packer.wrote(bytes);
        });
        let (Ended { asked, messages, .. }, pause) = trunk.begin_again();
        assert_eq!((asked, messages, pause), (vec![(6, true)], 2, None));
        assert_eq!(trunk.session(), 4);
        assert_eq!(trunk.begin(|| false), Err(SendError::NodeGone), "for a moment");
    }

    #[test]
    fn who_dials_and_does_not_come_back_is_awaited_by_one_and_for_a_bounded_time() {
        let origin = Origin { node: 1, core: 0, life: 7 };
        let offer =
            Offer { from: origin, to: 2, session: 3, resumes: false, taken: 0, record_bytes: 100 };
        let trunk = Trunk::from(&offer, Bounds { kept_bytes: 1, record_bytes: 1 });
        let (limit, then) = (Duration::from_secs(20), Instant::now());
        let at = |seconds| then + Duration::from_secs(seconds);
        let first = trunk.connect(0).unwrap();
        assert!(!trunk.await_return(), "it is there");
        let second = trunk.connect(0).unwrap();
        trunk.disconnected(first, at(1));
        assert!(!trunk.await_return(), "another connection counts");
        trunk.disconnected(second, at(2));
        assert!(trunk.await_return());
        assert!(!trunk.await_return(), "one waits");
        assert_eq!(trunk.awaits(at(5), limit), Some(Duration::from_secs(17)));
        trunk.disconnected(second, at(6));
        assert_eq!(trunk.awaits(at(22), limit), Some(Duration::ZERO), "since the first time");
        let third = trunk.connect(0).unwrap();
        assert_eq!(trunk.awaits(at(30), limit), None, "it came back");
        trunk.disconnected(third, at(40));
        assert!(trunk.await_return());
        assert_eq!(trunk.awaits(at(41), limit), Some(Duration::from_secs(19)));
        trunk.end();
        assert_eq!(trunk.awaits(at(42), limit), None, "the session is over");
        assert!(!trunk.await_return());
    }
}
