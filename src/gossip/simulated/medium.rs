//! The network between the hosts: what is lost, what is cut off, and what is under way until when.

use super::{address_of, node_at};
use crate::gossip::NodeId;
use std::{collections::VecDeque, net::SocketAddr, ops::RangeInclusive, sync::Arc};

/// The longest that a datagram may be under way.
pub const DELAY_MS_MAX: u64 = 10_000;

/// Most datagrams that are recorded.
const RECORDED_MAX: usize = 4_096;

/// What the network does to datagrams.
#[derive(Clone, Debug)]
pub struct Network {
    /// The part that is lost.
    pub loss: f64,
    /// Milliseconds that a datagram is under way.
    pub delay_ms: RangeInclusive<u64>,
    /// The part that comes a second time.
    pub repeated: f64,
    /// Of those, the second comes later by up to so many milliseconds.
    pub repeated_ms: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self { loss: 0.0, delay_ms: 1..=3, repeated: 0.0, repeated_ms: 1_000 }
    }
}

/// A datagram under way.
#[derive(Clone)]
pub(super) struct Delivery {
    pub from: NodeId,
    pub to: NodeId,
    pub datagram: Arc<[u8]>,
}

/// What carries the datagrams.
pub(super) struct Medium {
    /// What is under way, by the millisecond at which it arrives.
    under_way: VecDeque<Vec<Delivery>>,
    /// Hosts reach only those of the same group.
    groups: Vec<u8>,
    /// Nothing that the first sends reaches the second.
    cut: Vec<(NodeId, NodeId)>,
    /// The last datagrams that were sent, when they are recorded.
    recorded: Option<VecDeque<Delivery>>,
    pub datagrams: u64,
    pub bytes: u64,
    pub bytes_max: usize,
}

impl Medium {
    /// Between so many hosts.
    pub fn between(count: usize) -> Self {
        Self {
            under_way: VecDeque::new(),
            groups: vec![0; count],
            cut: Vec::new(),
            recorded: None,
            datagrams: 0,
            bytes: 0,
            bytes_max: 0,
        }
    }

    pub fn part(&mut self, group: impl Fn(NodeId) -> u8) {
        for (node, of) in (1..).zip(&mut self.groups) {
            *of = group(node);
        }
    }

    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.push((from, to));
    }

    pub fn mend(&mut self) {
        self.cut.clear();
        self.groups.fill(0);
    }

    pub fn record(&mut self) {
        self.recorded = Some(VecDeque::new());
    }

    pub fn replay(&mut self, from: NodeId) {
        let recorded = self.recorded.iter().flatten().filter(|of| of.from == from);
        for delivery in recorded.cloned().collect::<Vec<_>>() {
            self.deliver_in(1, delivery);
        }
    }

    pub fn deliver_in(&mut self, delay_ms: u64, delivery: Delivery) {
        let slot = delay_ms.clamp(1, DELAY_MS_MAX) as usize;
        while self.under_way.len() <= slot {
            self.under_way.push_back(Vec::new());
        }
        self.under_way[slot].push(delivery);
    }

    /// Lets a millisecond pass and gives what arrives.
    pub fn arrived(&mut self) -> Vec<Delivery> {
        self.under_way.pop_front();
        self.under_way.front_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes a datagram that a host sends.
    pub fn post(
        &mut self,
        network: &Network,
        rng: &mut fastrand::Rng,
        from: NodeId,
        address: SocketAddr,
        datagram: Arc<[u8]>,
    ) {
        self.datagrams += 1;
        self.bytes += datagram.len() as u64;
        self.bytes_max = self.bytes_max.max(datagram.len());
        let to = node_at(address).filter(|to| (1..=self.groups.len() as u64).contains(to));
        let Some(to) = to else { return };
        debug_assert_eq!(address_of(to), address, "hosts have one address each");
        let is_parted = self.groups[from as usize - 1] != self.groups[to as usize - 1];
        if is_parted || self.cut.contains(&(from, to)) {
            return;
        }
        if network.loss > 0.0 && rng.f64() < network.loss {
            return;
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.push_back(Delivery { from, to, datagram: datagram.clone() });
            if recorded.len() > RECORDED_MAX {
                recorded.pop_front();
            }
        }
        let delay_ms = rng.u64(network.delay_ms.clone());
        if network.repeated > 0.0 && rng.f64() < network.repeated {
            let later_ms = delay_ms + rng.u64(..=network.repeated_ms);
            self.deliver_in(later_ms, Delivery { from, to, datagram: datagram.clone() });
        }
        self.deliver_in(delay_ms, Delivery { from, to, datagram });
    }
}
