//! Drives all links of a node from one thread that also has other things to do.
//!
//! The thread's loop: [`Sockets::receive`] what is there, [`Sockets::send`] what follows from it,
//! [`Sockets::flush`], do something else (while the kernel takes and delivers bytes), and
//! [`Sockets::wait`] when there is nothing to do.

use super::{
    Limits, Lost, Message, NodeId, Timing,
    counters::{DoorCounters, LinkCounters},
    door::{self, Arrival, Door},
    frame::Received,
    hello::{Identity, Refusal},
    link::{Link, SendError},
    peer::{Connection, Peer},
    proof::Signing,
};
use crate::{
    runtime::{
        doorbell::Doorbell,
        nonblocking::{self, Listener},
        poll::{self, Ready},
    },
    wire::secret::Secret,
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// A node's side of all links.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number that the cluster was made with.
    pub cluster: u128,
    /// This node.
    pub node: NodeId,
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// What all nodes of the cluster know and prove to each other; `None`: none proves anything.
    pub secret: Option<Secret>,
    /// What they sign hellos with, where nodes may lie.
    pub signing: Option<Signing>,
    /// Random, another one at each start of the process.
    pub seed: u64,
    /// What a link may hold.
    pub limits: Limits,
    /// How long things may take.
    pub timing: Timing,
}

/// What happened on a link.
#[derive(Debug)]
pub enum Event<'a> {
    /// Messages flow.
    Connected(NodeId),
    /// They do not any more.
    Lost(NodeId, Lost),
    /// A message came.
    Message(NodeId, Received<'a>),
}

/// See the file.
#[derive(Debug)]
pub struct Sockets {
    me: Identity,
    limits: Limits,
    timing: Timing,
    random: fastrand::Rng,
    began: Instant,
    door: Door,
    peers: BTreeMap<NodeId, Peer>,
    /// What the last wait found.
    ready: Option<Vec<(Place, Ready)>>,
    /// Links that were lost, or removed, outside of [`Sockets::receive`]; one of them for each
    /// connection that was in use.
    untold: Vec<(NodeId, Lost)>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Door(door::Place),
    Peer(NodeId),
}

impl Sockets {
    /// Listens; there are no peers yet.
    ///
    /// # Errors
    /// The address is taken, or not of this machine.
    pub fn new(config: Config, now: Instant) -> io::Result<Self> {
        let Config { cluster, node, listen, secret, signing, seed, limits, timing } = config;
        let mut random = fastrand::Rng::with_seed(seed);
        let listener = Listener::bind(listen)?;
        Ok(Self {
            me: Identity { cluster, node, instance: random.u64(..), secret, signing },
            limits,
            timing,
            random,
            began: now,
            door: Door::new(listener, timing.handshake_ms),
            peers: BTreeMap::new(),
            ready: None,
            untold: Vec::new(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel does not say, which it does for a socket that is bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.door.address()
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// Makes a node a peer, or tells that it has other addresses, of which one after the other is
    /// tried. A connection in use stays: the handshake told who is behind it. A node is no peer of
    /// itself: then this does nothing.
    pub fn set_peer(&mut self, now: Instant, node: NodeId, addresses: Vec<SocketAddr>) {
        let now_ms = self.ms(now);
        if node == self.me.node {
            return;
        }
        let seed = self.random.u64(..);
        let (timing, limits) = (self.timing, self.limits);
        let link = || Link::new(self.me.clone(), node, timing, limits, seed, now_ms);
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(link()));
        peer.set_addresses(now_ms, addresses);
    }

    /// Forgets a peer, its connection and what waits for it.
    pub fn remove_peer(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.remove(&node)
            && peer.link.is_in_use()
        {
            self.untold.push((node, Lost::Removed));
        }
    }

    /// Queues a message, also while there is no connection.
    ///
    /// # Errors
    /// It can never be sent. That a queue is full is none: its oldest messages go.
    pub fn send(&mut self, node: NodeId, message: Message) -> Result<(), SendError> {
        let peer = self.peers.get_mut(&node).ok_or(SendError::NoPeer(node))?;
        peer.link.send(message)
    }

    /// Messages that wait for a peer, and their bytes, those that are being written apart.
    pub fn queued(&self, node: NodeId) -> (usize, usize) {
        self.peers.get(&node).map_or((0, 0), |peer| peer.link.queued())
    }

    /// Whether messages flow.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.link.is_in_use())
    }

    /// What each link counted.
    pub fn counters(&self) -> impl Iterator<Item = (NodeId, &LinkCounters)> {
        self.peers.iter().map(|(node, peer)| (*node, peer.link.counters()))
    }

    /// What the listener counted.
    pub fn door_counters(&self) -> &DoorCounters {
        self.door.counters()
    }

    /// Writes what the kernel takes now.
    pub fn flush(&mut self, now: Instant) {
        let now_ms = self.ms(now);
        for (node, peer) in &mut self.peers {
            if let Err(why) = peer.write(now_ms)
                && peer.lose(*node, now_ms, why)
            {
                self.untold.push((*node, why));
            }
        }
    }

    /// Reads what is there, a bounded amount of each peer, and tells it; lets in who connects and
    /// dials who is due.
    pub fn receive(&mut self, now: Instant, mut tell: impl FnMut(Event<'_>)) {
        let now_ms = self.ms(now);
        for (node, why) in self.untold.drain(..) {
            tell(Event::Lost(node, why));
        }
        let ready = match self.ready.take() {
            Some(ready) => ready,
            // A look that fails finds nothing; there will be another.
            None => self.look(now_ms, Some(Duration::ZERO), None).unwrap_or_default().0,
        };
        let mut arrivals = Vec::new();
        for (place, ready) in ready {
            match place {
                Place::Door(place) => self.door.receive(place, now_ms, &mut arrivals),
                Place::Peer(node) => {
                    if let Some(peer) = self.peers.get_mut(&node) {
                        peer.serve(node, ready, now_ms, &mut tell);
                    }
                }
            }
        }
        for arrival in arrivals {
            self.let_in(arrival, now_ms, &mut tell);
        }
        self.door.turn(now_ms);
        for (node, peer) in &mut self.peers {
            peer.turn(*node, now_ms, self.timing, &mut tell);
        }
    }

    fn let_in(&mut self, arrival: Arrival, now_ms: u64, tell: &mut impl FnMut(Event<'_>)) {
        let Arrival { stream, from, hello, challenge, mut decoder } = arrival;
        let peer = self.peers.get_mut(&hello.from);
        let judged = hello.judge(&self.me, &challenge, peer.is_some());
        let refused = match (judged, peer) {
            (Ok(()), Some(peer)) if peer.link.is_stale(hello.nonce) => {
                peer.link.refused();
                Refusal::Stale
            }
            (Ok(()), Some(peer)) => {
                if peer.lose(hello.from, now_ms, Lost::Replaced) {
                    tell(Event::Lost(hello.from, Lost::Replaced));
                }
                // It works untuned as well.
                let _ = nonblocking::tune(&stream, Duration::from_millis(self.timing.silence_ms));
                decoder.set_body_bytes_max(self.limits.frame_bytes);
                peer.connection = Some(Connection { stream, decoder, is_blocked: false });
                peer.link.accepted(now_ms, &challenge, hello.nonce);
                peer.say_connected(hello.from, now_ms);
                tell(Event::Connected(hello.from));
                return;
            }
            (Ok(()), None) => Refusal::Unknown,
            (Err(why), peer) => {
                if let Some(peer) = peer {
                    peer.link.refused();
                }
                why
            }
        };
        self.door.refuse(stream, from, refused, now_ms);
    }

    /// Sleeps until a link has something to read, or room for what was not written, or something to
    /// do at a certain time; until `bell` rings, of which every ring is taken; or until `limit` has
    /// passed. Tells whether a link is ready for something.
    ///
    /// # Errors
    /// The kernel has no memory for the call.
    pub fn wait(
        &mut self,
        now: Instant,
        limit: Option<Duration>,
        bell: &Doorbell,
    ) -> io::Result<bool> {
        let now_ms = self.ms(now);
        let links = self.peers.values().filter_map(|peer| peer.link.next_ms());
        let own = links.chain(self.door.next_ms(now_ms)).min();
        let own = own.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
        let untold = (!self.untold.is_empty()).then_some(Duration::ZERO);
        let limit = [limit, own, untold].into_iter().flatten().min();
        let (ready, rang) = self.look(now_ms, limit, Some(bell.as_fd()))?;
        if rang {
            bell.take_rings()?;
        }
        let is_ready = !ready.is_empty();
        self.ready = Some(ready);
        Ok(is_ready)
    }

    /// Asks the kernel what is ready, and whether `bell` is.
    fn look(
        &self,
        now_ms: u64,
        limit: Option<Duration>,
        bell: Option<BorrowedFd<'_>>,
    ) -> io::Result<(Vec<(Place, Ready)>, bool)> {
        let peers = self.peers.iter().filter_map(|(node, peer)| {
            let fd = peer.connection.as_ref()?.stream.as_fd();
            Some((Place::Peer(*node), fd, peer.wanted()))
        });
        let door = self.door.wanted(now_ms);
        let door = door.map(|(place, fd, ready)| (Place::Door(place), fd, ready));
        let (places, mut wanted): (Vec<_>, Vec<_>) =
            peers.chain(door).map(|(place, fd, ready)| (place, (fd, ready))).unzip();
        wanted.extend(bell.map(|bell| (bell, Ready::READABLE)));
        let ready = poll::poll(&wanted, limit)?;
        let rang = bell.is_some() && ready.last().is_some_and(|bell| bell.any());
        let found = places.into_iter().zip(ready).filter(|(_, ready)| ready.any()).collect();
        Ok((found, rang))
    }
}
