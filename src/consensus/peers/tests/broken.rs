//! A network that cuts, corrupts, stops and delays, and a peer that does not read.

use super::{
    proxy::Proxy,
    real::{CLUSTER, Node, Told, config, until},
    *,
};
use crate::consensus::peers::{
    Config, Limits, Lost, Timing,
    frame::{Kind, write_small},
    hello::{Hello, Nonce},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Nodes 1 and 2 with a network between them, and the number of the next message.
struct Cluster {
    low: Node,
    high: Node,
    proxy: Proxy,
    next: u64,
}

impl Cluster {
    fn new(timing: Timing) -> Self {
        let mut low = Node::new(Config { timing, ..config(1) });
        let mut high = Node::new(Config { timing, ..config(2) });
        let proxy = Proxy::to(high.address());
        low.knows(2, proxy.address);
        high.knows(1, low.address());
        let mut cluster = Self { low, high, proxy, next: 0 };
        cluster.connect();
        cluster
    }

    fn connect(&mut self) {
        until([&mut self.low, &mut self.high], "a connection", |[low, high]| {
            low.sockets.is_connected(2) && high.sockets.is_connected(1)
        });
    }

    /// Lets messages flow both ways until something is so.
    fn flow(&mut self, what: &str, mut is_so: impl FnMut(&Node, &Node, &Proxy) -> bool) {
        let Self { low, high, proxy, next } = self;
        until([low, high], what, |[low, high]| {
            for _ in 0..20 {
                low.sockets.send(2, numbered(*next)).unwrap();
                high.sockets.send(1, numbered(*next)).unwrap();
                *next += 1;
            }
            is_so(low, high, proxy)
        });
    }

    /// What is sent now arrives, and nothing ever arrived out of order, twice or changed.
    fn check(&mut self) {
        self.connect();
        let last = self.next;
        self.flow("the last messages", |low, high, _| {
            [low, high].iter().all(|node| node.numbers().last().is_some_and(|at| *at >= last))
        });
        for node in [&self.low, &self.high] {
            let numbers = node.numbers();
            assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        }
    }
}

fn losses(node: &Node) -> usize {
    node.told.iter().filter(|told| matches!(told, Told::Lost(..))).count()
}

#[test]
fn a_connection_that_is_cut_comes_back_without_reordering() {
    let mut cluster = Cluster::new(super::real::TIMING);
    for round in 0..20 {
        // Frames are cut in their middle.
        cluster.proxy.slow_down(100 + 317 * round, Duration::ZERO);
        cluster.connect();
        let (low, high) = (cluster.low.numbers().len(), cluster.high.numbers().len());
        cluster.flow("some messages", |one, other, _| {
            one.numbers().len() > low + 50 && other.numbers().len() > high + 50
        });
        let lost = losses(&cluster.low);
        cluster.proxy.cut();
        cluster.flow("the loss", |low, _, _| losses(low) > lost);
    }
    cluster.check();
    assert_eq!(cluster.low.counters(2).losses, 20);
    assert_eq!(cluster.low.counters(2).connects, 21);
    assert_eq!(cluster.low.counters(2).broken_frames, 0);
    assert!(cluster.proxy.connections() >= 21);
}

#[test]
fn a_corrupted_byte_costs_the_connection_and_nothing_wrong_is_told() {
    let mut cluster = Cluster::new(super::real::TIMING);
    for _ in 0..20 {
        cluster.connect();
        let lost = (losses(&cluster.low), losses(&cluster.high));
        cluster.proxy.corrupt();
        cluster.flow("the loss", |low, high, _| losses(low) > lost.0 && losses(high) > lost.1);
    }
    cluster.check();
    let (low, high) = (cluster.low.counters(2), cluster.high.counters(1));
    assert_eq!(low.broken_frames + high.broken_frames, 20, "each is noticed once");
    assert_eq!((low.losses, high.losses), (20, 20));
}

#[test]
fn a_network_that_stops_is_noticed_and_used_again() {
    let timing =
        Timing { handshake_ms: 200, silence_ms: 300, keepalive_ms: 50, ..super::real::TIMING };
    let mut cluster = Cluster::new(timing);
    cluster.proxy.stop(true);
    cluster.flow("the losses and some dials", |low, high, _| {
        losses(low) == 1 && losses(high) == 1 && low.counters(2).failed_dials > 2
    });
    let silent = |node| Told::Lost(node, Lost::Silent);
    assert!(cluster.low.told.contains(&silent(2)) && cluster.high.told.contains(&silent(1)));
    // Hellos of connections that were given up come together with that of one that is not.
    cluster.proxy.stop(false);
    cluster.check();
}

#[test]
fn a_slow_network_is_no_broken_one() {
    let mut cluster = Cluster::new(super::real::TIMING);
    cluster.proxy.slow_down(500, Duration::from_millis(1));
    for number in 0..100 {
        cluster.low.sockets.send(2, numbered(number)).unwrap();
    }
    until([&mut cluster.low, &mut cluster.high], "all messages", |[_, high]| {
        high.numbers().len() == 100
    });
    assert_eq!(cluster.high.numbers(), (0..100).collect::<Vec<_>>());
    assert_eq!((losses(&cluster.low), losses(&cluster.high)), (0, 0));
}

/// Node 1, which says hello and nothing more.
fn silent_peer(high: &mut Node) -> TcpStream {
    let mut stream = TcpStream::connect(high.address()).unwrap();
    let nonce = Nonce { instance: 1, attempt: 1 };
    let hello = Hello {
        cluster: CLUSTER,
        from: 1,
        to: 2,
        nonce,
        answers: Nonce::default(),
        proof: [0; 32],
        signature: None,
    };
    let mut frame = Vec::new();
    write_small(&mut frame, Kind::Hello, &hello.encode());
    stream.write_all(&frame).unwrap();
    stream.set_nonblocking(true).unwrap();
    until([high], "a connection", |[high]| high.sockets.is_connected(1));
    stream
}

#[test]
fn a_peer_that_does_not_read_costs_no_more_than_its_queue() {
    let limits = Limits { queue_bytes: 1 << 20, ..Limits::default() };
    let mut high = Node::new(Config { limits, ..config(2) });
    high.knows(1, "127.0.0.1:1".parse().unwrap());
    let mut stream = silent_peer(&mut high);
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Bytes = (0..60_000).map(|_| random.u8(..)).collect::<Vec<_>>().into();
    let mut sent = 0_u64;
    while high.counters(1).dropped_messages < 1000 {
        let mut message = Message::new(1, sent.to_le_bytes().to_vec());
        message.parts.push(Shared::new(noise.clone()));
        high.sockets.send(1, message).unwrap();
        high.sockets.flush(std::time::Instant::now());
        assert!(high.sockets.queued(1).1 <= 1 << 20);
        sent += 1;
        assert!(sent < 10_000, "the kernel took more than half a gigabyte");
    }
    let LinkCounters { dropped_messages, dropped_bytes, .. } = high.counters(1);
    assert_eq!(dropped_bytes, dropped_messages * 60_024);

    // Now it reads: what was not dropped, in order, up to the newest.
    let mut decoder = Decoder::new(limits.frame_bytes);
    let mut numbers = Vec::new();
    until([&mut high], "the newest message", |_| {
        while let Ok(bytes) = stream.read(decoder.space()) {
            assert_ne!(bytes, 0, "the connection is open");
            decoder.filled(bytes);
            let mut messages = Vec::new();
            take_frames(&mut decoder, &mut messages).unwrap();
            for message in messages {
                assert!(message.parts[0] == noise);
                numbers.push(u64::from_le_bytes(message.head[..].try_into().unwrap()));
            }
        }
        numbers.last() == Some(&(sent - 1))
    });
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert_eq!(numbers.len() as u64, sent - dropped_messages);
}
