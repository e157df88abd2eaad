//! The network between the nodes: connections that keep the order of what they carry, and fail.
//!
//! What it knows of real ones: a message takes a time; a way that is clogged holds everything back,
//! in one direction or both; a connection that breaks takes along what was under way, and both ends
//! hear of it, not at the same time; what a process sent just before it ended may arrive or not;
//! what was sent before a connection is there may wait for it or be dropped. A message may come
//! twice, later on the same connection or first on the next one: the links of a node do not do
//! that, but Raft must stand it.
//!
//! A node's end of it is in `network/links.rs`, what of messages it looks at in `network/spoken.rs`.

mod links;
mod spoken;

pub use links::SimLinks;

use crate::trace::{Trace, note};
use bytes::Bytes;
use coreflow::{
    consensus::{book::Book, links::Heard, notice::Notice, peers::NodeId},
    wire::id::PartitionIndex,
};
use spoken::{Spoken, Vow};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

/// Messages that wait for a connection, at most.
const WAITING_MAX: usize = 64;
/// Messages that may come again on the next connection.
const AGAIN_MAX: usize = 4;

/// What travels.
#[derive(Clone)]
enum Parcel {
    /// Of a partition: its bytes, and those that may be shared.
    Message(PartitionIndex, Bytes, Vec<Bytes>),
    Book(String),
    Notice(Notice),
}

/// One direction between two nodes.
#[derive(Default)]
struct Way {
    under_way: VecDeque<(u64, Parcel)>,
    clogged_until_us: u64,
    /// What arrived last, the oldest first.
    arrived: VecDeque<Parcel>,
}

/// What comes twice.
struct Twice {
    rng: fastrand::Rng,
    /// Of a thousand messages, how many come again on their connection.
    soon: u32,
    /// Of a thousand connections, how many begin with what came last.
    reconnected: u32,
}

/// How badly the network does.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// A message takes at least this long, microseconds.
    pub delay_us_min: u64,
    /// And at most this long.
    pub delay_us_max: u64,
    /// Of a thousand messages, how many are lost.
    pub lost: u32,
    /// A connection is made again at one of so many looks.
    pub reconnect: u32,
}

struct State {
    rng: fastrand::Rng,
    trace: Trace,
    now_us: u64,
    weather: Weather,
    ways: BTreeMap<(NodeId, NodeId), Way>,
    /// Pairs that are connected, the lower number first.
    connected: BTreeMap<(NodeId, NodeId), bool>,
    /// What nodes are to hear of their connections, by who hears it.
    notices: BTreeMap<NodeId, VecDeque<(u64, NodeId, bool)>>,
    /// Whom a node wants to be connected with.
    peers: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that run.
    up: BTreeMap<NodeId, bool>,
    /// What nodes have promised.
    vows: BTreeMap<(NodeId, Vow), Vec<u8>>,
    delivered: u64,
    /// `None` when everything comes once.
    twice: Option<Twice>,
    /// Messages that came again.
    repeated: u64,
}

/// A handle of the network; clones are the same one.
#[derive(Clone)]
pub struct Network(Rc<RefCell<State>>);

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

impl Network {
    /// A network of these nodes, none of which runs.
    pub fn new(seed: u64, nodes: u64, weather: Weather, trace: Trace) -> Self {
        let pairs = (1..=nodes).flat_map(|from| (1..=nodes).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        Self(Rc::new(RefCell::new(State {
            rng: fastrand::Rng::with_seed(seed),
            trace,
            now_us: 0,
            weather,
            ways: pairs.clone().map(|pair| (pair, Way::default())).collect(),
            connected: pairs.filter(|(from, to)| from < to).map(|pair| (pair, false)).collect(),
            notices: (1..=nodes).map(|node| (node, VecDeque::new())).collect(),
            peers: BTreeSet::new(),
            up: (1..=nodes).map(|node| (node, false)).collect(),
            vows: BTreeMap::new(),
            delivered: 0,
            twice: None,
            repeated: 0,
        })))
    }

    /// Messages may come twice from now on, as often as it comes.
    pub fn set_twice(&self, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let soon = [0, 20, 200, 500][rng.usize(..4)];
        let reconnected = [0, 500][rng.usize(..2)];
        self.0.borrow_mut().twice = Some(Twice { rng, soon, reconnected });
    }

    /// Everything comes once from now on.
    pub fn end_twice(&self) {
        self.0.borrow_mut().twice = None;
    }

    /// Messages that came again.
    pub fn repeated(&self) -> u64 {
        self.0.borrow().repeated
    }

    /// How badly it does from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.0.borrow_mut().weather = weather;
    }

    /// Messages that arrived.
    pub fn delivered(&self) -> u64 {
        self.0.borrow().delivered
    }

    /// A node runs, or does not any more: its connections break.
    pub fn set_up(&self, node: NodeId, is_up: bool) {
        let state = &mut *self.0.borrow_mut();
        state.up.insert(node, is_up);
        state.notices.insert(node, VecDeque::new());
        let others: Vec<_> = state.up.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            // The system may go on with what its process sent.
            let keeps = !is_up && state.connected[&pair(node, other)] && state.rng.u32(..4) > 0;
            let way = state.ways.get_mut(&(node, other)).expect("it exists");
            let sent = if keeps { std::mem::take(&mut way.under_way) } else { VecDeque::new() };
            state.cut(node, other);
            let last_us = sent.back().map_or(0, |(due_us, _)| *due_us);
            state.ways.get_mut(&(node, other)).expect("it exists").under_way = sent;
            if let Some((due_us, ..)) = state.notices.get_mut(&other).and_then(VecDeque::back_mut) {
                *due_us = last_us.max(*due_us);
            }
        }
        if !is_up {
            state.peers.retain(|(of, _)| *of != node);
            state.notices.insert(node, VecDeque::new());
        }
    }

    /// The connection of two nodes breaks.
    pub fn cut(&self, one: NodeId, other: NodeId) {
        self.0.borrow_mut().cut(one, other);
    }

    /// Nothing gets from one node to another for a time.
    pub fn clog(&self, from: NodeId, to: NodeId, for_us: u64) {
        let state = &mut *self.0.borrow_mut();
        let until_us = state.now_us + for_us;
        let way = state.ways.get_mut(&(from, to)).expect("it exists");
        way.clogged_until_us = way.clogged_until_us.max(until_us);
    }

    /// Nothing is clogged any more.
    pub fn heal(&self) {
        self.0.borrow_mut().ways.values_mut().for_each(|way| way.clogged_until_us = 0);
    }

    /// Time passes: connections are made, and break that were clogged for long.
    pub fn advance(&self, now_us: u64) {
        let state = &mut *self.0.borrow_mut();
        state.now_us = now_us;
        let pairs: Vec<_> = state.connected.iter().map(|(pair, is)| (*pair, *is)).collect();
        for ((one, other), is_connected) in pairs {
            let is_clogged = |way: (NodeId, NodeId)| state.ways[&way].clogged_until_us > now_us;
            let clogged = is_clogged((one, other)) || is_clogged((other, one));
            let is_wanted = |way: (NodeId, NodeId)| state.peers.contains(&way);
            let both_up = state.up[&one] && state.up[&other];
            let both_up = both_up && is_wanted((one, other)) && is_wanted((other, one));
            if is_connected && clogged && state.rng.u32(..2_000) == 0 {
                state.cut(one, other);
            } else if !is_connected
                && !clogged
                && both_up
                && state.rng.u32(..state.weather.reconnect) == 0
            {
                state.connect(one, other);
            }
        }
    }
}

impl State {
    fn cut(&mut self, one: NodeId, other: NodeId) {
        for way in [(one, other), (other, one)] {
            self.ways.get_mut(&way).expect("it exists").under_way.clear();
        }
        if std::mem::replace(self.connected.get_mut(&pair(one, other)).expect("it exists"), false) {
            note!(self.trace, "net: {one} and {other} are cut");
            self.notify(one, other, false);
            self.notify(other, one, false);
        }
    }

    fn connect(&mut self, one: NodeId, other: NodeId) {
        note!(self.trace, "net: {one} and {other} are connected");
        self.connected.insert(pair(one, other), true);
        self.notify(one, other, true);
        self.notify(other, one, true);
        let now_us = self.now_us;
        for way in [(one, other), (other, one)] {
            let mut due_us = now_us;
            for (at_us, _) in &mut self.ways.get_mut(&way).expect("it exists").under_way {
                due_us += self.rng.u64(..200);
                *at_us = due_us;
            }
        }
        for way in [(one, other), (other, one)] {
            self.repeat_last(way);
        }
    }

    /// A connection may begin with what came last on the one before.
    fn repeat_last(&mut self, (from, to): (NodeId, NodeId)) {
        let Some(twice) = &mut self.twice else { return };
        let way = self.ways.get_mut(&(from, to)).expect("it exists");
        if twice.rng.u32(..1_000) < twice.reconnected {
            let again = std::mem::take(&mut way.arrived);
            note!(self.trace, "net: {from} sends {} again to {to}", again.len());
            self.repeated += again.len() as u64;
            for parcel in again.into_iter().rev() {
                way.under_way.push_front((self.now_us, parcel));
            }
        }
    }

    /// What arrives may come again, behind some of what is under way.
    fn repeat_soon(&mut self, (from, to): (NodeId, NodeId), parcel: &Parcel) {
        let Some(twice) = &mut self.twice else { return };
        let way = self.ways.get_mut(&(from, to)).expect("it exists");
        if twice.rng.u32(..1_000) < twice.soon {
            let place = twice.rng.usize(..=way.under_way.len());
            let before = place.checked_sub(1).and_then(|at| way.under_way.get(at));
            let due_us = before.map_or(self.now_us, |(due_us, _)| *due_us);
            note!(self.trace, "net: what {from} sends to {to} comes again");
            self.repeated += 1;
            way.under_way.insert(place, (due_us, parcel.clone()));
        } else {
            if way.arrived.len() == AGAIN_MAX {
                way.arrived.pop_front();
            }
            way.arrived.push_back(parcel.clone());
        }
    }

    fn notify(&mut self, node: NodeId, of: NodeId, is_connected: bool) {
        let queue = self.notices.get_mut(&node).expect("it exists");
        let due_us = self.now_us + self.rng.u64(..20_000);
        let due_us = due_us.max(queue.back().map_or(0, |(last, ..)| *last));
        queue.push_back((due_us, of, is_connected));
    }

    fn send(&mut self, from: NodeId, to: NodeId, parcel: Parcel) {
        let Some(way) = self.ways.get_mut(&(from, to)) else { return };
        if self.rng.u32(..1_000) < self.weather.lost {
            note!(self.trace, "net: {from} to {to} is lost");
            return;
        }
        let is_connected = self.connected[&pair(from, to)];
        if !is_connected && way.under_way.len() >= WAITING_MAX {
            return;
        }
        let delay_us = self.rng.u64(self.weather.delay_us_min..=self.weather.delay_us_max);
        // A connection keeps the order.
        let last_us = way.under_way.back().map_or(0, |(last, _)| *last);
        let due_us = if is_connected { last_us.max(self.now_us + delay_us) } else { u64::MAX };
        way.under_way.push_back((due_us, parcel));
    }

    /// What comes next to a node.
    fn next_for<M: Spoken>(&mut self, to: NodeId) -> Option<Heard<M>> {
        let notices = self.notices.get_mut(&to).expect("it exists");
        if notices.front().is_some_and(|(due_us, ..)| *due_us <= self.now_us) {
            let (_, of, is_connected) = notices.pop_front().expect("it was seen");
            return Some(if is_connected { Heard::Connected(of) } else { Heard::Lost(of) });
        }
        let now_us = self.now_us;
        let is_due = |way: &Way| {
            way.clogged_until_us <= now_us
                && way.under_way.front().is_some_and(|(due_us, _)| *due_us <= now_us)
        };
        let due: Vec<_> =
            self.ways.iter().filter(|((_, of), way)| *of == to && is_due(way)).collect();
        if due.is_empty() {
            return None;
        }
        let from = due[self.rng.usize(..due.len())].0.0;
        let way = self.ways.get_mut(&(from, to)).expect("it exists");
        let (_, parcel) = way.under_way.pop_front().expect("it was seen");
        self.delivered += 1;
        self.repeat_soon((from, to), &parcel);
        Some(match parcel {
            Parcel::Book(text) => Heard::Book(Book::from_text(&text).expect("a node wrote it")),
            Parcel::Notice(notice) => {
                note!(self.trace, "{to} hears {from}: {notice:?}");
                Heard::Notice(from, notice)
            }
            Parcel::Message(partition, head, parts) => {
                let message = M::decode_apart(partition, from, &head, parts.into_iter());
                let message = message.expect("a node wrote it");
                let (text, hash) = (message.describe(), crc32fast::hash(&head));
                note!(self.trace, "{to} hears {from} in {partition}: {text} {hash}");
                Heard::Message(partition, from, message)
            }
        })
    }
}
