//! Messages between agents of two nodes over connections that are cut: real cores, real sockets, and a way
//! of the test's own between them.

use super::{
    WAIT,
    far::{Oracle, Places, Receiver, Sender, addresses, numbered, some, stop},
    receive,
};
use coreflow::{
    node::{Node, gateway::Gateway},
    shard::{
        agent::{Agent, Message},
        context::Context,
    },
    wire::{api::Error, id::AgentAddress},
};
use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// A way to a node that cuts connections in mid-stream, or lets nothing through.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    /// Bytes after which a connection is cut, at most; 0 for never.
    cut_after: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
    /// What comes is taken and goes nowhere.
    is_silent: Arc<AtomicBool>,
}

impl Way {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let way = Self {
            address,
            cut_after: Arc::default(),
            cuts: Arc::default(),
            is_silent: Arc::default(),
        };
        let serving = way.clone();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(target) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let way = serving.clone();
                    thread::spawn(move || way.forward(from, to));
                }
            }
        });
        way
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut left = None;
        let mut buffer = [0; 8192];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if self.is_silent.load(Ordering::Relaxed) {
                continue;
            }
            let cut_after = self.cut_after.load(Ordering::Relaxed);
            let most = match left.get_or_insert_with(|| fastrand::u64(0..=cut_after)) {
                _ if cut_after == 0 => len,
                left => (*left).min(len as u64) as usize,
            };
            if to.write_all(&buffer[..most]).is_err() {
                break;
            }
            if most < len {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                break;
            }
            left = left.map(|left| left.saturating_sub(len as u64));
        }
        // Both ends find out.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

fn lost(node: &Node) -> u64 {
    node.stats().cores.iter().map(|core| core.far_lost).sum()
}

#[test]
fn over_connections_that_are_cut_in_mid_stream_messages_arrive_once_and_in_order() {
    const PAIRS: usize = 3;
    const TOTAL: u64 = 20_000;
    let mut places = Places::of("cuts", 2);
    let way = Way::to(places.rpc_of(2));
    places.say_rpc_of(2, way.address);
    let (done, results) = mpsc::channel();
    let far = places.start(2, |builder| {
        let receivers = move || Receiver {
            total: TOTAL,
            senders: PAIRS,
            pause_ms: 20,
            next: HashMap::new(),
            done: done.clone(),
        };
        builder.agent("receiver", some(PAIRS), receivers).agent("oracle", some(1), || Oracle)
    });
    let targets = Arc::new(Mutex::new(addresses(&far, 2, "receiver", PAIRS)));
    let oracle = addresses(&far, 2, "oracle", 1)[0];
    let (refused, refusals) = mpsc::channel();
    let near = places.start(1, |builder| {
        builder.agent("sender", some(PAIRS), move || Sender {
            targets: targets.clone(),
            total: TOTAL,
            in_a_turn: 500,
            sent: Vec::new(),
            refused: refused.clone(),
        })
    });
    way.cut_after.store(100_000, Ordering::Relaxed);
    for sender in super::agents(&near, "sender", PAIRS) {
        super::send(&near, sender, &[]);
    }
    // Meanwhile calls are answered, each with its own answer.
    let mut calls = 0;
    let mut arrived = 0;
    let deadline = Instant::now() + WAIT;
    while arrived < PAIRS {
        assert!(Instant::now() < deadline, "something was lost: {:?}", near.stats().cores);
        arrived += results.try_iter().inspect(|sum| assert_eq!(*sum, PAIRS as u64 * TOTAL)).count();
        let payload = numbered(calls * 997);
        let expected = payload.repeat(2);
        let ask = near.handle();
        match ask.wait(move |gateway| gateway.call(oracle, payload, 30_000)) {
            // The way is full: nothing was sent.
            Err(Error::Backpressure(_)) => thread::sleep(Duration::from_millis(1)),
            answer => {
                assert!(answer == Ok(expected), "call {calls}: {:?}", answer.map(|it| it.len()));
                calls += 1;
            }
        }
    }
    let cuts = way.cuts.load(Ordering::Relaxed);
    let refused = refusals.try_iter().count();
    eprintln!("{cuts} cuts, {calls} calls, {refused} sends refused");
    assert!(cuts > 30, "{cuts} cuts: this shows nothing");
    assert_eq!((lost(&near), lost(&far)), (0, 0));
    way.cut_after.store(0, Ordering::Relaxed);
    stop(near);
    stop(far);
}

/// Keeps what it gets.
struct Collector(mpsc::Sender<u64>);

impl Agent for Collector {
    fn on_message(&mut self, message: &Message<'_>, _: &mut Context<'_>) {
        let number = u64::from_le_bytes(message.payload()[..8].try_into().expect("the test's"));
        self.0.send(number).expect("the test waits");
    }
}

#[test]
fn what_nobody_took_is_counted_when_its_node_is_gone_and_is_not_given_to_its_next_life() {
    let mut places = Places::of("life", 2);
    let way = Way::to(places.rpc_of(2));
    places.say_rpc_of(2, way.address);
    let (collect, collected) = mpsc::channel();
    let with = |collect: &mpsc::Sender<u64>| {
        let collect = collect.clone();
        move |builder: coreflow::node::NodeBuilder| {
            let builder = builder.agent("oracle", some(1), || Oracle);
            builder.agent("collector", some(1), move || Collector(collect.clone()))
        }
    };
    let far = places.start(2, with(&collect));
    let target: AgentAddress = addresses(&far, 2, "collector", 1)[0];
    let oracle = addresses(&far, 2, "oracle", 1)[0];
    let near = places.start(1, |builder| builder);
    // Of one core, so that there is an order.
    let handle = near.handle();
    let send = |number: u64| {
        handle.wait(move |gateway| gateway.send(target, number.to_le_bytes().to_vec()))
    };
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let deadline = Instant::now() + WAIT;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}: {:?}", near.stats().cores);
            thread::sleep(Duration::from_millis(5));
        }
    };
    for number in 0..10 {
        send(number).expect("the way is free");
    }
    (0..10).for_each(|number| assert_eq!(receive(&collected), number));
    // An answer says what was taken before it.
    let answer = handle.wait(move |gateway| gateway.call(oracle, b"ab".to_vec(), 0));
    assert_eq!(answer, Ok(b"abab".to_vec()));
    way.is_silent.store(true, Ordering::Relaxed);
    for number in 10..15 {
        send(number).expect("the way is free");
    }
    let payload = 15_u64.to_le_bytes().to_vec();
    let waits = handle.clone();
    let call = thread::spawn(move || {
        waits.wait(move |gateway| gateway.call(target, payload, WAIT.as_millis() as u64))
    });
    let sent = || near.stats().cores.iter().map(|core| core.far_sent).sum::<u64>();
    until("the call is sent", &|| sent() == 17);
    stop(far);
    let gone = call.join().expect("it does not panic").expect_err("nobody can answer");
    assert!(gone.to_string().contains("node 2"), "{gone}");
    until("what was lost is counted", &|| lost(&near) == 5);
    way.is_silent.store(false, Ordering::Relaxed);
    let far = places.start(2, with(&collect));
    addresses(&far, 2, "collector", 1);
    until("the node that came back is not reached", &|| send(20).is_ok());
    assert_eq!(receive(&collected), 20, "and nothing of before");
    assert_eq!(lost(&near), 5);
    stop(near);
    stop(far);
}
