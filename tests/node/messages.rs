//! Messages, calls, broadcasts, starting and stopping agents.

use super::{WAIT, agents, builder, far_core, on_core, receive, send};
use coreflow::{
    node::{AgentOptions, gateway::Gateway},
    shard::{
        agent::{Agent, CallId, Message, Reply},
        context::{Context, SendError},
    },
    wire::{
        api::{CoreStats, Error},
        id::AgentId,
    },
};
use std::{
    collections::HashMap,
    sync::mpsc,
    time::{Duration, Instant},
};

/// A message that carries a number; every seventh is so large that it travels beside its batch.
fn numbered(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(if number.is_multiple_of(7) { 300 } else { 8 }, number as u8);
    payload
}

/// Sends numbered messages to every receiver, again and again until each is taken.
struct Sender {
    total: u64,
    sent: Vec<(AgentId, u64)>,
    refused: mpsc::Sender<bool>,
}

impl Agent for Sender {
    fn on_message(&mut self, _: &Message<'_>, context: &mut Context<'_>) {
        self.sent = context.agents_of("receiver").into_iter().map(|id| (id, 0)).collect();
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        for (receiver, next) in &mut self.sent {
            while *next < self.total {
                match context.send(*receiver, &numbered(*next)) {
                    Ok(()) => *next += 1,
                    Err(SendError::Full) => {
                        let _ = self.refused.send(true);
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        if self.sent.iter().any(|(_, next)| *next < self.total) {
            context.request_turn();
        }
    }
}

/// Checks that each sender's numbers come in order and without a gap.
struct Receiver {
    total: u64,
    senders: usize,
    next: HashMap<AgentId, u64>,
    done: mpsc::Sender<u64>,
}

impl Agent for Receiver {
    fn on_message(&mut self, message: &Message<'_>, _: &mut Context<'_>) {
        let number = u64::from_le_bytes(message.payload()[..8].try_into().unwrap());
        assert_eq!(message.payload(), numbered(number), "another message's bytes");
        let next = self.next.entry(message.source()).or_default();
        assert_eq!(number, *next, "lost or out of order");
        *next += 1;
        if self.next.len() == self.senders && self.next.values().all(|next| *next == self.total) {
            self.done.send(self.next.values().sum()).unwrap();
        }
    }
}

#[test]
fn full_rings_hold_senders_back_and_lose_or_reorder_nothing() {
    const TOTAL: u64 = 20_000;
    let (refused, refusals) = mpsc::channel();
    let (done, results) = mpsc::channel();
    let pair = AgentOptions { min: 4, ..AgentOptions::default() };
    let small = ["mesh.ring_batches=2", "mesh.batch_messages=3", "mesh.shared_payload_bytes=256"];
    let node = builder(&small)
        .agent("sender", pair.clone(), move || Sender {
            total: TOTAL,
            sent: Vec::new(),
            refused: refused.clone(),
        })
        .agent("receiver", pair, move || Receiver {
            total: TOTAL,
            senders: 4,
            next: HashMap::new(),
            done: done.clone(),
        })
        .start()
        .unwrap();
    agents(&node, "receiver", 4);
    for sender in agents(&node, "sender", 4) {
        send(&node, sender, &[]);
    }
    for _ in 0..4 {
        assert_eq!(receive(&results), 4 * TOTAL);
    }
    assert!(receive(&refusals), "the rings were never full: the test shows nothing");
    let counted = |count: fn(&CoreStats) -> u64| node.stats().cores.iter().map(count).sum::<u64>();
    let deadline = Instant::now() + WAIT;
    while counted(|core| core.messages_delivered) < 16 * TOTAL {
        assert!(Instant::now() < deadline, "the cores do not publish their counters");
        std::thread::yield_now();
    }
    let (batches, buffers) =
        (counted(|core| core.batches_received), counted(|core| core.batch_buffers));
    assert!(batches >= 16 * TOTAL / 3, "{batches} batches");
    // Two rings of two batches, the two ways of a core to itself, and what the start took.
    assert!(buffers < 100, "{buffers} buffers for {batches} batches: they do not come back");
    node.shutdown().unwrap();
}

/// Answers with what it was asked, twice over; to "silence" never.
struct Oracle;

impl Agent for Oracle {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        if let (Some(to), false) = (message.reply_to(), message.payload() == b"silence") {
            context.reply(to, &message.payload().repeat(2));
        }
    }
}

/// Counts messages; answers a call with how many there were.
#[derive(Default)]
struct Counter(u64);

impl Agent for Counter {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        match message.reply_to() {
            Some(to) => context.reply(to, &self.0.to_le_bytes()),
            None => self.0 += 1,
        }
    }
}

#[test]
fn a_call_from_outside_does_not_overtake_what_its_handle_sent_before() {
    const ROUNDS: u64 = 200;
    let node = builder(&[]).agent("counter", AgentOptions::default(), Counter::default);
    let node = node.start().unwrap();
    for _ in 0..4 {
        let handle = node.handle();
        let counter = handle.wait(|gateway| gateway.spawn("counter".into(), None)).unwrap();
        for round in 1..=ROUNDS {
            for _ in 0..3 {
                handle.wait(move |gateway| gateway.send(counter, Vec::new())).unwrap();
            }
            let answer = handle.wait(move |gateway| gateway.call(counter, Vec::new(), 0)).unwrap();
            assert_eq!(answer, (3 * round).to_le_bytes());
        }
    }
    node.shutdown().unwrap();
}

/// Asks whom it is told to ask and tells what came of it.
struct Asker(mpsc::Sender<Result<Vec<u8>, Error>>);

impl Agent for Asker {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let (id, question) = message.payload().split_at(8);
        let id = AgentId::from_bits(u64::from_le_bytes(id.try_into().unwrap()));
        context.call(id, question, Some(Duration::from_millis(200))).unwrap();
    }

    fn on_reply(&mut self, reply: &Reply<'_>, _: &mut Context<'_>) {
        self.0.send(reply.answer.map(<[u8]>::to_vec).map_err(Clone::clone)).unwrap();
    }
}

#[test]
fn a_call_is_answered_or_ends_with_an_error() {
    let (told, answers) = mpsc::channel();
    let node = builder(&[])
        .agent("asker", on_core(0), move || Asker(told.clone()))
        .agent("oracle", on_core(far_core()), || Oracle)
        .start()
        .unwrap();
    let (asker, oracle) = (agents(&node, "asker", 1)[0], agents(&node, "oracle", 1)[0]);
    let ask = |id: AgentId, question: &[u8]| {
        send(&node, asker, &[&id.to_bits().to_le_bytes(), question].concat());
        receive(&answers)
    };
    assert_eq!(ask(oracle, b"ab").unwrap(), b"abab");
    assert!(matches!(ask(oracle, b"silence"), Err(Error::Uncertain(_))));
    node.handle().wait(move |gateway| gateway.stop(oracle)).unwrap();
    assert!(matches!(ask(oracle, b"ab"), Err(Error::NotFound(_))));
    // A door asks too.
    let other = node.handle().wait(|gateway| gateway.spawn("oracle".into(), None)).unwrap();
    assert_ne!(other, oracle);
    let answer = node.handle().wait(move |gateway| gateway.call(other, vec![7], 0)).unwrap();
    assert_eq!(answer, [7, 7]);
    node.shutdown().unwrap();
}

struct Herald;

impl Agent for Herald {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        context.broadcast("listener", message.payload()).unwrap();
    }
}

struct Listener(mpsc::Sender<(AgentId, Vec<u8>)>);

impl Agent for Listener {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        self.0.send((context.id(), message.payload().to_vec())).unwrap();
    }
}

#[test]
fn a_broadcast_reaches_each_agent_of_a_type_once() {
    let (heard, hearings) = mpsc::channel();
    let many = AgentOptions { min: 10, ..AgentOptions::default() };
    let node = builder(&["mesh.shared_payload_bytes=4096"])
        .agent("herald", on_core(0), || Herald)
        .agent("listener", many, move || Listener(heard.clone()))
        .start()
        .unwrap();
    let (herald, listeners) = (agents(&node, "herald", 1)[0], agents(&node, "listener", 10));
    for payload in [vec![1], vec![2; 100_000]] {
        send(&node, herald, &payload);
        let mut reached: Vec<AgentId> = (0..10)
            .map(|_| {
                let (id, heard) = receive(&hearings);
                assert_eq!(heard, payload);
                id
            })
            .collect();
        reached.sort_by_key(|id| id.to_bits());
        let mut expected = listeners.clone();
        expected.sort_by_key(|id| id.to_bits());
        assert_eq!(reached, expected);
    }
    node.shutdown().unwrap();
    assert!(hearings.try_recv().is_err(), "somebody heard twice");
}

/// Starts a child of each message's name and stops it as soon as it is there.
struct Parent(mpsc::Sender<Result<AgentId, Error>>);

impl Agent for Parent {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let name = String::from_utf8(message.payload().to_vec()).unwrap();
        context.spawn("child", Some(&name)).unwrap();
    }

    fn on_spawned(
        &mut self,
        _: CallId,
        spawned: Result<AgentId, Error>,
        context: &mut Context<'_>,
    ) {
        if let Ok(id) = spawned {
            context.stop(id);
        }
        self.0.send(spawned).unwrap();
    }
}

struct Child(mpsc::Sender<AgentId>);

impl Agent for Child {
    fn on_stop(&mut self, context: &mut Context<'_>) {
        self.0.send(context.id()).unwrap();
    }
}

#[test]
fn agents_start_and_stop_agents() {
    let (started, starts) = mpsc::channel();
    let (stopped, stops) = mpsc::channel();
    let none = AgentOptions { min: 0, max: 2, ..AgentOptions::default() };
    let node = builder(&[])
        .agent("parent", on_core(0), move || Parent(started.clone()))
        .agent("child", none, move || Child(stopped.clone()))
        .start()
        .unwrap();
    let parent = agents(&node, "parent", 1)[0];
    for name in ["anna", "bert", "anna"] {
        send(&node, parent, name.as_bytes());
        let id = receive(&starts).unwrap();
        assert_eq!(receive(&stops), id);
        agents(&node, "child", 0);
    }
    node.shutdown().unwrap();
}

/// Passes a ball back and forth; the one that serves counts.
struct Player {
    left: u64,
    done: mpsc::Sender<()>,
}

impl Agent for Player {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let other = context.agents_of("wall").first().copied();
        if message.payload() == b"ball" {
            self.left -= 1;
        }
        match self.left {
            0 => self.done.send(()).unwrap(),
            _ => context.send(other.unwrap(), b"ball").unwrap(),
        }
    }
}

struct Wall;

impl Agent for Wall {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        context.send(message.source(), message.payload()).unwrap();
    }
}

fn rally(spin: &str, balls: u64) {
    let (done, end) = mpsc::channel();
    let node = builder(&[spin])
        .agent("player", on_core(0), move || Player { left: balls, done: done.clone() })
        .agent("wall", on_core(far_core()), || Wall)
        .start()
        .unwrap();
    agents(&node, "wall", 1);
    send(&node, agents(&node, "player", 1)[0], b"serve");
    receive(&end);
    node.shutdown().unwrap();
}

#[test]
fn no_wake_up_of_a_parked_core_is_lost() {
    rally("runtime.spin_us=0", 30_000);
}

#[test]
fn cores_that_are_interrupted_all_the_time_go_on() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static OVER: AtomicBool = AtomicBool::new(false);
    // Threads that take the processors away at times that nobody chose.
    let disturb = || {
        while !OVER.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    };
    let threads = [std::thread::spawn(disturb), std::thread::spawn(disturb)];
    rally("runtime.spin_us=20", 2_000);
    OVER.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
}
