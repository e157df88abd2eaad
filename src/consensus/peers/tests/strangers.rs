//! Whoever connects and is no peer.

use super::{
    real::{CLUSTER, Node, Told, config, pair, until},
    *,
};
use crate::{
    consensus::{
        pbft::keys,
        peers::{
            Config, Signing,
            frame::{HEAD_BYTES, Kind, write_small},
            hello::{HELLO_BYTES, Hello, Nonce, Refusal},
        },
    },
    wire::secret::Secret,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The first frame of a node 1 that dials node 2, with a mistake.
fn hello(mistake: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let nonce = Nonce { instance: 1, attempt: 1 };
    let mut hello = Hello {
        cluster: CLUSTER,
        from: 1,
        to: 2,
        nonce,
        answers: Nonce::default(),
        proof: [0; 32],
        signature: None,
    };
    mistake(&mut hello);
    let mut frame = Vec::new();
    write_small(&mut frame, Kind::Hello, &hello.encode());
    frame
}

fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.address()).expect("the kernel accepts");
    stream.set_nonblocking(true).expect("a socket");
    stream
}

/// What a node tells somebody before it closes the connection.
fn refusal(node: &mut Node, stream: &mut TcpStream) -> Option<Refusal> {
    let (mut decoder, mut refusal) = (Decoder::of_hello(), None);
    until([node], "the end of the connection", |_| {
        loop {
            match stream.read(decoder.space()) {
                Ok(0) => return true,
                Ok(bytes) => decoder.filled(bytes),
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
            while let Ok(Some(frame)) = decoder.next_frame() {
                if let Frame::Refusal(why) = frame {
                    refusal = Some(why);
                }
            }
        }
    });
    refusal
}

#[test]
fn each_stranger_is_told_why_and_counted() {
    let (mut low, mut high) = pair();
    let mut version = hello(|_| ());
    version[4] = 2;
    let checksum = crc32fast::hash(&version[..12]);
    version[12..16].copy_from_slice(&checksum.to_le_bytes());
    let mut early = Vec::new();
    write_small(&mut early, Kind::KeepAlive, &[]);
    for (bytes, why) in [
        (b"GET / HTTP/1.1\r\nHost: coreflow\r\n\r\n".to_vec(), Refusal::NoHello),
        (early, Refusal::NoHello),
        (version, Refusal::Version),
        (hello(|hello| hello.cluster += 1), Refusal::Cluster),
        (hello(|hello| hello.to = 3), Refusal::Node),
        (hello(|hello| hello.from = 2), Refusal::Itself),
        (hello(|hello| hello.from = 7), Refusal::Unknown),
    ] {
        let before = high.sockets.door_counters().refused(why);
        let mut stream = connect(&high);
        stream.write_all(&bytes).unwrap();
        let told = refusal(&mut high, &mut stream);
        // Bytes that were not read make the kernel take back what was written.
        assert!(
            told == Some(why) || (bytes.len() > HEAD_BYTES + HELLO_BYTES && told.is_none()),
            "{told:?} for {why:?}"
        );
        assert_eq!(high.sockets.door_counters().refused(why), before + 1, "{why:?}");
    }
    // The lower id dials, so that one that knows node 2 as a peer does not let it dial.
    let mut stream = connect(&low);
    stream.write_all(&hello(|hello| (hello.from, hello.to) = (2, 1))).unwrap();
    assert_eq!(refusal(&mut low, &mut stream), Some(Refusal::Direction));
    // Somebody that goes away is no refusal.
    drop(connect(&high));
    until([&mut high], "the guest is gone", |[high]| high.sockets.door_counters().gone == 1);
    // None of them disturbed the peers.
    low.sockets.send(2, numbered(1)).unwrap();
    until([&mut low, &mut high], "the message", |[_, high]| high.numbers() == [1]);
    assert_eq!((low.told.len(), high.told.len()), (1, 2));
}

#[test]
fn a_node_of_another_cluster_learns_that_it_is_one() {
    let mut low = Node::new(Config { cluster: 1, ..config(1) });
    let mut high = Node::new(config(2));
    low.knows(2, high.address());
    high.knows(1, low.address());
    until([&mut low, &mut high], "some refusals", |[low, high]| {
        low.counters(2).refusals >= 3 && high.counters(1).refusals >= 3
    });
    assert_eq!((low.told.len(), high.told.len()), (0, 0));
    assert!(high.sockets.door_counters().refused(Refusal::Cluster) >= 3);
}

#[test]
fn nodes_with_another_secret_or_none_do_not_come_in() {
    let secret = |text: &str| Secret::parse(text.as_bytes()).ok();
    let known = secret("what all nodes know".replace(' ', "-").as_str());
    for (of_low, is_let_in) in
        [(known.clone(), true), (secret("0123456789abcdef"), false), (None, false)]
    {
        let mut low = Node::new(Config { secret: of_low, ..config(1) });
        let mut high = Node::new(Config { secret: known.clone(), ..config(2) });
        low.knows(2, high.address());
        high.knows(1, low.address());
        if is_let_in {
            low.sockets.send(2, numbered(1)).unwrap();
            until([&mut low, &mut high], "the message", |[_, high]| high.numbers() == [1]);
        } else {
            until([&mut low, &mut high], "some refusals", |[low, high]| {
                low.counters(2).refusals >= 3 && high.counters(1).refusals >= 3
            });
            assert_eq!((low.told.len(), high.told.len()), (0, 0));
            assert!(high.sockets.door_counters().refused(Refusal::Proof) >= 3);
        }
    }
    // A node that asks for no proof is refused by the one that does, which dials it.
    let mut low = Node::new(Config { secret: known, ..config(1) });
    let mut high = Node::new(config(2));
    low.knows(2, high.address());
    high.knows(1, low.address());
    until([&mut low, &mut high], "some refusals", |[low, _]| low.counters(2).refusals >= 3);
    assert_eq!(low.told.len(), 0);
}

/// What a node signs with, when everybody knows these as the keys of nodes 1 and 2.
fn signing(secret: u8, known: [u8; 2]) -> Option<Signing> {
    let key = |secret| keys::Identity::from_secret(&[secret; 32]);
    let ring = (1..).zip(known.map(|secret| key(secret).public()));
    Some(Signing { identity: key(secret), ring: keys::Ring::new(ring).expect("they are keys") })
}

#[test]
fn a_node_that_does_not_sign_as_the_one_that_it_says_it_is_does_not_come_in() {
    let known = [31, 32];
    for (of_low, is_let_in) in [
        (signing(31, known), true),
        // A member that gives itself out for another one, a stranger, and one that signs nothing.
        (signing(32, known), false),
        (signing(33, known), false),
        (None, false),
    ] {
        let mut low = Node::new(Config { signing: of_low, ..config(1) });
        let mut high = Node::new(Config { signing: signing(32, known), ..config(2) });
        low.knows(2, high.address());
        high.knows(1, low.address());
        if is_let_in {
            low.sockets.send(2, numbered(1)).unwrap();
            until([&mut low, &mut high], "the message", |[_, high]| high.numbers() == [1]);
        } else {
            until([&mut low, &mut high], "some refusals", |[low, high]| {
                low.counters(2).refusals >= 3 && high.counters(1).refusals >= 3
            });
            assert_eq!((low.told.len(), high.told.len()), (0, 0));
            assert!(high.sockets.door_counters().refused(Refusal::Signature) >= 3);
        }
    }
    // Nor is one believed that was dialled.
    let mut low = Node::new(Config { signing: signing(31, known), ..config(1) });
    let mut high = Node::new(Config { signing: signing(33, [31, 33]), ..config(2) });
    low.knows(2, high.address());
    high.knows(1, low.address());
    until([&mut low, &mut high], "some refusals", |[low, _]| low.counters(2).refusals >= 3);
    assert_eq!(low.told.len(), 0);
}

#[test]
fn who_says_nothing_is_sent_away_in_time_or_when_it_is_crowded() {
    let mut high = Node::new(config(2));
    let mut streams: Vec<_> = (0..33).map(|_| connect(&high)).collect();
    until([&mut high], "all are accepted", |[high]| high.sockets.door_counters().accepted == 33);
    assert_eq!(high.sockets.door_counters().refused(Refusal::Crowded), 1);
    assert_eq!(refusal(&mut high, &mut streams[0]), Some(Refusal::Crowded));
    // Half a hello is none.
    streams[5].write_all(&hello(|_| ())[..40]).unwrap();
    high.sockets.receive(Instant::now() + Duration::from_secs(3), |event| panic!("{event:?}"));
    assert_eq!(high.sockets.door_counters().refused(Refusal::Late), 32);
    assert_eq!(refusal(&mut high, &mut streams[32]), Some(Refusal::Late));
}

#[test]
fn a_peer_that_dials_twice_has_one_connection() {
    let (mut low, mut high) = pair();
    let again = |attempt| hello(|hello| hello.nonce = Nonce { instance: 5, attempt });
    let mut second = connect(&high);
    second.write_all(&again(2)).unwrap();
    until([&mut high], "the new connection", |[high]| high.told.len() == 3);
    let replaced = crate::consensus::peers::Lost::Replaced;
    assert_eq!(high.told[1..], [Told::Lost(1, replaced), Told::Connected(1)]);
    // What it sent before that, and gave up, comes late.
    let mut first = connect(&high);
    first.write_all(&again(1)).unwrap();
    assert_eq!(refusal(&mut high, &mut first), Some(Refusal::Stale));
    assert!(high.sockets.is_connected(1));
    until([&mut low, &mut high], "the node itself dials again", |[low, _]| low.told.len() == 3);
}

#[test]
fn thousands_of_strangers_do_not_keep_a_peer_out() {
    let (mut low, mut high) = (Node::new(config(1)), Node::new(config(2)));
    high.knows(1, low.address());
    let address = high.address();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut idle = std::collections::VecDeque::new();
            while !is_over.load(Ordering::Relaxed) {
                let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1))
                else {
                    continue;
                };
                if fastrand::bool() {
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                }
                idle.push_back(stream);
                if idle.len() > 100 {
                    idle.pop_front();
                }
            }
        });
        until([&mut high], "a crowd", |[high]| high.sockets.door_counters().accepted > 500);
        let began = Instant::now();
        let address = high.address();
        low.knows(2, address);
        until([&mut high, &mut low], "the peer is in", |[high, _]| high.told.len() == 1);
        let connected = began.elapsed();
        for number in 0..1000 {
            low.sockets.send(2, numbered(number)).unwrap();
        }
        until([&mut high, &mut low], "its messages", |[high, _]| high.told.len() == 1001);
        until([&mut high, &mut low], "thousands", |[high, _]| {
            high.sockets.door_counters().accepted > 3000
        });
        is_over.store(true, Ordering::Relaxed);
        println!("a peer connected in {connected:?} among strangers");
    });
    assert_eq!(high.numbers(), (0..1000).collect::<Vec<_>>());
    assert_eq!((low.counters(2).losses, high.counters(1).losses), (0, 0));
}
