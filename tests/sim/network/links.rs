//! A node's links to the network.

use super::{Network, Parcel, Spoken, pair};
use bytes::Bytes;
use coreflow::{
    consensus::{
        assemble::Helper,
        book::Book,
        links::{Heard, LinkStatus, Links},
        notice::Notice,
        peers::NodeId,
        simulated::SimulatedDisk,
    },
    runtime::doorbell::Doorbell,
    wire::id::PartitionIndex,
};
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Messages that a node takes in one turn.
const RECEIVED_MAX: usize = 64;
/// Looks for a free segment after which a node whose disk stays full is ended.
const PAUSES_MAX: u32 = 3_000;

/// A node's links.
pub struct SimLinks {
    me: NodeId,
    network: Network,
    helper: Rc<RefCell<Option<Helper<SimulatedDisk>>>>,
    stop: Rc<RefCell<Option<Arc<AtomicBool>>>>,
    /// What was waited for a segment beyond the time of the turn, microseconds.
    paused_us: Rc<Cell<u64>>,
    pauses: u32,
    now: Instant,
}

impl SimLinks {
    /// Links of a node whose helper and whose end are told later.
    pub fn new(
        me: NodeId,
        network: Network,
        helper: Rc<RefCell<Option<Helper<SimulatedDisk>>>>,
        stop: Rc<RefCell<Option<Arc<AtomicBool>>>>,
        paused_us: Rc<Cell<u64>>,
        now: Instant,
    ) -> Self {
        Self { me, network, helper, stop, paused_us, pauses: 0, now }
    }
}

impl<M: Spoken> Links<M> for SimLinks {
    fn receive(&mut self, now: Instant, hear: &mut dyn FnMut(Heard<M>)) {
        self.now = now;
        for _ in 0..RECEIVED_MAX {
            let Some(heard) = self.network.0.borrow_mut().next_for(self.me) else { break };
            hear(heard);
        }
    }

    fn send(&mut self, partition: PartitionIndex, message: &M) {
        let mut state = self.network.0.borrow_mut();
        if let Some((vow, said)) = message.vow(partition) {
            let known = state.vows.entry((self.me, vow)).or_insert_with(|| said.clone());
            assert_eq!(*known, said, "node {} breaks its word: {vow:?}", self.me);
        }
        let (mut head, mut parts) = (Vec::new(), Vec::new());
        message.encode_apart(partition, &mut head, &mut parts);
        let head = Bytes::from(head);
        for to in message.to() {
            let parcel = Parcel::Message(partition, head.clone(), parts.clone());
            state.send(self.me, *to, parcel);
        }
    }

    fn send_book(&mut self, to: NodeId, book: &Book) {
        self.network.0.borrow_mut().send(self.me, to, Parcel::Book(book.to_text()));
    }

    fn send_notice(&mut self, to: NodeId, notice: Notice) {
        self.network.0.borrow_mut().send(self.me, to, Parcel::Notice(notice));
    }

    fn flush(&mut self, _: Instant) {}

    fn set_peer(&mut self, _: Instant, node: NodeId, _: SocketAddr) {
        self.network.0.borrow_mut().peers.insert((self.me, node));
    }

    fn remove_peer(&mut self, node: NodeId) {
        let state = &mut *self.network.0.borrow_mut();
        state.peers.remove(&(self.me, node));
        if node != self.me {
            state.cut(self.me, node);
        }
    }

    fn status(&self, node: NodeId) -> LinkStatus {
        let state = self.network.0.borrow();
        let is_connected = state.connected.get(&pair(self.me, node)).copied().unwrap_or(false);
        LinkStatus { is_connected, ..LinkStatus::default() }
    }

    fn wait(&mut self, _: Instant, _: Option<Duration>, _: &Doorbell) {
        unreachable!("the simulator decides when a turn comes");
    }

    fn pause(&mut self, limit: Duration, _: &Doorbell) -> Instant {
        if let Some(helper) = &mut *self.helper.borrow_mut() {
            helper.step();
        }
        self.pauses += 1;
        if self.pauses > PAUSES_MAX
            && let Some(stop) = &*self.stop.borrow()
        {
            stop.store(true, Ordering::Release);
        }
        self.paused_us.set(self.paused_us.get() + limit.as_micros() as u64);
        self.now + Duration::from_micros(self.paused_us.get())
    }
}
