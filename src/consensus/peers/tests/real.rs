//! Nodes with real sockets in one thread: starting, moving, leaving, waiting.

use super::*;
use crate::{
    consensus::peers::{
        Config, Event, Limits, Lost, NodeId, Sockets, Timing, hello::Refusal, link::SendError,
    },
    runtime::doorbell::Doorbell,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What a node was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Connected(NodeId),
    Lost(NodeId, Lost),
    Message(NodeId, Owned),
}

/// A node of a test.
pub struct Node {
    pub sockets: Sockets,
    pub told: Vec<Told>,
    pub bell: Doorbell,
}

pub const CLUSTER: u128 = 77;

/// As the program has it, but for pauses that a test can wait for.
pub const TIMING: Timing = Timing {
    handshake_ms: 2000,
    keepalive_ms: 100,
    silence_ms: 10_000,
    backoff_first_ms: 2,
    backoff_max_ms: 50,
};

pub fn config(node: NodeId) -> Config {
    Config {
        cluster: CLUSTER,
        node,
        listen: "127.0.0.1:0".parse().expect("an address"),
        secret: None,
        signing: None,
        seed: 1000 + node,
        limits: Limits::default(),
        timing: TIMING,
    }
}

impl Node {
    pub fn new(config: Config) -> Self {
        let sockets = Sockets::new(config, Instant::now()).expect("the system chooses the port");
        Self { sockets, told: Vec::new(), bell: Doorbell::new().expect("descriptors") }
    }

    pub fn address(&self) -> SocketAddr {
        self.sockets.address().expect("it is bound")
    }

    pub fn knows(&mut self, node: NodeId, address: SocketAddr) {
        self.sockets.set_peer(Instant::now(), node, vec![address]);
    }

    pub fn step(&mut self) {
        self.sockets.receive(Instant::now(), |event| {
            self.told.push(match event {
                Event::Connected(node) => Told::Connected(node),
                Event::Lost(node, why) => Told::Lost(node, why),
                Event::Message(node, message) => Told::Message(node, Owned::new(&message)),
            });
        });
        self.sockets.flush(Instant::now());
    }

    pub fn counters(&self, node: NodeId) -> LinkCounters {
        let of_node =
            |(peer, counters): (NodeId, &LinkCounters)| (peer == node).then_some(*counters);
        self.sockets.counters().find_map(of_node).expect("it is a peer")
    }

    /// The numbers of the messages that came.
    pub fn numbers(&self) -> Vec<u64> {
        let number = |told: &Told| match told {
            Told::Message(_, message) => Some(number(message)),
            _ => None,
        };
        self.told.iter().filter_map(number).collect()
    }
}

/// Lets nodes work until something is so.
pub fn until<const N: usize>(
    nodes: [&mut Node; N],
    what: &str,
    mut is_so: impl FnMut(&mut [&mut Node; N]) -> bool,
) {
    let mut nodes = nodes;
    let late = Instant::now() + Duration::from_secs(60);
    loop {
        nodes.iter_mut().for_each(|node| node.step());
        if is_so(&mut nodes) {
            return;
        }
        assert!(Instant::now() < late, "not in time: {what}");
        // Whatever happens at this node wakes it, and what happens at another one is seen soon.
        let Node { sockets, bell, .. } = &mut *nodes[0];
        sockets.wait(Instant::now(), Some(Duration::from_millis(1)), bell).expect("memory");
    }
}

/// Nodes 1 and 2, which know each other and are connected.
pub fn pair() -> (Node, Node) {
    let (mut low, mut high) = (Node::new(config(1)), Node::new(config(2)));
    low.knows(2, high.address());
    high.knows(1, low.address());
    until([&mut low, &mut high], "a connection", |nodes| {
        nodes.iter().all(|node| node.told.len() == 1)
    });
    assert_eq!(
        (&low.told[..], &high.told[..]),
        (&[Told::Connected(2)][..], &[Told::Connected(1)][..])
    );
    (low, high)
}

#[test]
fn nodes_that_start_together_have_one_connection_a_pair() {
    let mut nodes: Vec<_> = (1..=3).map(|node| Node::new(config(node))).collect();
    let addresses: Vec<_> = nodes.iter().map(Node::address).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        for (other, address) in addresses.iter().enumerate() {
            // A node is no peer of itself, also when it is told so.
            node.knows(other as NodeId + 1, *address);
        }
        assert_eq!(node.sockets.counters().count(), 2, "of node {index}");
        node.sockets.send(if index == 0 { 2 } else { 1 }, numbered(index as u64)).unwrap();
    }
    let [first, second, third] = &mut nodes[..] else { unreachable!("there are three") };
    until([first, second, third], "three connections and messages", |nodes| {
        let [first, second, third] = nodes;
        first.told.len() == 4 && second.told.len() == 3 && third.told.len() == 2
    });
    let mut numbers = first.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(second.numbers(), [0]);
    let accepted = [first, second, third].map(|node| node.sockets.door_counters().accepted);
    assert_eq!(accepted, [0, 1, 2], "the lower id dials");
}

#[test]
fn a_peer_that_starts_late_gets_what_waited() {
    let mut low = Node::new(config(1));
    let mut high = Node::new(config(2));
    let address = high.address();
    drop(high);
    low.knows(2, address);
    low.sockets.send(2, numbered(5)).unwrap();
    until([&mut low], "some failed tries", |[low]| low.counters(2).failed_dials >= 3);
    assert_eq!(low.told, [], "a connection that never was is not lost");
    high = Node::new(Config { listen: address, ..config(2) });
    high.knows(1, low.address());
    until([&mut low, &mut high], "the message", |[_, high]| high.told.len() == 2);
    assert_eq!(high.numbers(), [5]);
}

#[test]
fn a_peer_moves_is_removed_and_comes_back() {
    let (mut low, mut high) = pair();
    // The node starts again somewhere else; the old connection ends with the process.
    drop(high);
    high = Node::new(Config { seed: 5, ..config(2) });
    high.knows(1, low.address());
    until([&mut low, &mut high], "the loss", |[low, _]| low.told.len() == 2);
    assert!(matches!(low.told[1], Told::Lost(2, Lost::Closed | Lost::Failed(_))), "{:?}", low.told);
    low.knows(2, high.address());
    until([&mut low, &mut high], "the connection", |[low, _]| low.told.len() == 3);

    // Another address does not disturb a connection that works.
    low.knows(2, "127.0.0.1:1".parse().unwrap());
    low.sockets.send(2, numbered(3)).unwrap();
    until([&mut low, &mut high], "the message", |[_, high]| high.numbers() == [3]);

    low.sockets.remove_peer(2);
    assert_eq!(low.sockets.send(2, numbered(4)), Err(SendError::NoPeer(2)));
    until([&mut low, &mut high], "both losses", |[low, high]| {
        low.told.len() == 4 && high.told.len() == 3
    });
    assert_eq!(low.told[3], Told::Lost(2, Lost::Removed));
    low.knows(2, high.address());
    until([&mut low, &mut high], "the connection again", |[low, high]| {
        low.told.len() == 5 && high.told.len() == 4
    });
}

#[test]
fn one_address_after_the_other_is_tried() {
    let (mut low, mut high) = (Node::new(config(1)), Node::new(config(2)));
    // Nobody listens on the first, and this node itself on the second.
    let free = Node::new(config(9)).address();
    let addresses = vec![free, low.address(), high.address()];
    low.sockets.set_peer(Instant::now(), 2, addresses);
    high.knows(1, low.address());
    until([&mut low, &mut high], "the connection", |[low, _]| !low.told.is_empty());
    assert_eq!(low.told, [Told::Connected(2)]);
    let refused = low.sockets.door_counters().refused(Refusal::Itself);
    assert_eq!((refused, low.counters(2).failed_dials), (1, 2));
}

#[test]
fn a_node_that_waits_is_woken_by_its_bell_by_bytes_and_by_time() {
    let (mut low, mut high) = pair();
    let long = Some(Duration::from_secs(60));
    let began = Instant::now();
    low.bell.ring();
    let Node { sockets, bell, .. } = &mut low;
    assert!(!sockets.wait(began, long, bell).unwrap(), "the bell is no event of a link");
    // A keepalive is due soon, and wakes it though nobody rings.
    assert!(!sockets.wait(Instant::now(), long, bell).unwrap());
    sockets.flush(Instant::now());

    high.sockets.send(1, numbered(1)).unwrap();
    high.sockets.flush(Instant::now());
    while !sockets.wait(Instant::now(), long, bell).unwrap() {
        sockets.receive(Instant::now(), |_| ());
        sockets.flush(Instant::now());
    }
    low.step();
    assert_eq!(low.numbers(), [1]);
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_link_at_rest_stays_and_costs_keepalives() {
    let (mut low, mut high) = pair();
    until([&mut low, &mut high], "keepalives both ways", |[low, high]| {
        low.counters(2).frames_in >= 4 && high.counters(1).frames_in >= 3
    });
    assert_eq!((low.counters(2).losses, high.counters(1).losses), (0, 0));
    assert!(low.counters(2).bytes_out < 1000);
}

#[test]
fn a_node_that_was_away_reads_before_it_calls_its_peer_silent() {
    let (mut low, mut high) = pair();
    let Node { sockets, bell, .. } = &mut low;
    assert!(!sockets.wait(Instant::now(), Some(Duration::ZERO), bell).unwrap());
    high.sockets.send(1, numbered(1)).unwrap();
    high.sockets.flush(Instant::now());
    let later = |ms| Instant::now() + Duration::from_millis(TIMING.silence_ms + ms);
    let mut events = Vec::new();
    sockets.receive(later(0), |event| {
        events.push(matches!(event, Event::Message(2, _)));
    });
    assert_eq!(events, [true]);
    // Now there is nothing to read.
    let mut lost = Vec::new();
    sockets.receive(later(TIMING.silence_ms + 1000), |event| match event {
        Event::Lost(node, why) => lost.push((node, why)),
        other => panic!("{other:?}"),
    });
    assert_eq!(lost, [(2, Lost::Silent)]);
}
