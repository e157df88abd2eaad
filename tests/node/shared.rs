//! What agents share without copying, how a slow agent holds its senders back, and what a panic
//! leaves standing.

use super::{WAIT, agents, builder, far_core, on_core, receive, send};
use coreflow::{
    node::{AgentOptions, gateway::Gateway},
    shard::{
        agent::{Agent, Message, Snapshot},
        context::{Context, SendError},
    },
    wire::{api::Error, id::AgentId},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// A value that counts how often it was made and dropped.
struct Map {
    routes: Vec<u64>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Map {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Publisher(Arc<AtomicUsize>);

impl Agent for Publisher {
    fn on_message(&mut self, _: &Message<'_>, context: &mut Context<'_>) {
        let routes = (0..100_000).collect();
        let snapshot = Snapshot::publish(Map { routes, dropped: self.0.clone() });
        for reader in context.agents_of("reader") {
            context.send_snapshot(reader, &snapshot).unwrap();
        }
        let bytes: Arc<[u8]> = vec![7; 1 << 20].into();
        for reader in context.agents_of("reader") {
            context.send_shared(reader, bytes.clone()).unwrap();
        }
    }
}

/// Tells where what it received lies in memory, and what is in it.
struct Reader(mpsc::Sender<(usize, u64)>);

impl Agent for Reader {
    fn on_message(&mut self, message: &Message<'_>, _: &mut Context<'_>) {
        assert!(message.snapshot::<String>().is_none(), "a snapshot of another type");
        let seen = match message.snapshot::<Map>() {
            Some(map) => (map.routes.as_ptr() as usize, map.routes.iter().sum()),
            None => {
                let sum = message.payload().iter().map(|byte| u64::from(*byte)).sum();
                assert_eq!(message.shared_payload().unwrap().as_ptr(), message.payload().as_ptr());
                (message.payload().as_ptr() as usize, sum)
            }
        };
        self.0.send(seen).unwrap();
    }
}

#[test]
fn snapshots_and_large_payloads_are_read_where_they_were_written() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let (seen, sightings) = mpsc::channel();
    let at_publisher = dropped.clone();
    let node = builder(&[])
        .agent("publisher", on_core(0), move || Publisher(at_publisher.clone()))
        .agent("reader", AgentOptions { min: 4, ..AgentOptions::default() }, move || {
            Reader(seen.clone())
        })
        .start()
        .unwrap();
    agents(&node, "reader", 4);
    send(&node, agents(&node, "publisher", 1)[0], &[]);
    let mut all: Vec<(usize, u64)> = (0..8).map(|_| receive(&sightings)).collect();
    all.sort_unstable();
    all.dedup();
    let mut sums: Vec<u64> = all.iter().map(|(_, sum)| *sum).collect();
    sums.sort_unstable();
    assert_eq!(sums, [7 << 20, 99_999 * 50_000], "one place each: {all:?}");
    node.shutdown().unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 1, "freed once, when nobody reads it any more");
}

/// Is not ready until it is told so by a timer; then counts what waited.
struct Sleeper {
    next: u64,
    total: u64,
    done: mpsc::Sender<u64>,
}

impl Agent for Sleeper {
    fn on_start(&mut self, context: &mut Context<'_>) {
        context.pause();
        context.set_timer(Duration::from_millis(300), 0);
    }

    fn on_timer(&mut self, _: u64, context: &mut Context<'_>) {
        context.resume();
    }

    fn on_message(&mut self, message: &Message<'_>, _: &mut Context<'_>) {
        assert_eq!(message.payload(), self.next.to_le_bytes());
        self.next += 1;
        if self.next == self.total {
            self.done.send(self.next).unwrap();
        }
    }
}

struct Pusher {
    next: u64,
    total: u64,
    told: bool,
    refused: mpsc::Sender<u64>,
}

impl Agent for Pusher {
    fn on_message(&mut self, _: &Message<'_>, context: &mut Context<'_>) {
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        let sleeper = context.agents_of("sleeper")[0];
        // A batch a turn, so that the news of a full mailbox can come.
        for _ in 0..10 {
            match context.send(sleeper, &self.next.to_le_bytes()) {
                Ok(()) => self.next += 1,
                Err(SendError::Full) if !self.told => {
                    self.told = true;
                    self.refused.send(self.next).unwrap();
                }
                Err(_) => break,
            }
            if self.next == self.total {
                return;
            }
        }
        context.request_turn();
    }
}

#[test]
fn a_full_mailbox_refuses_its_senders_and_loses_nothing() {
    const TOTAL: u64 = 200_000;
    let (done, end) = mpsc::channel();
    let (refused, refusals) = mpsc::channel();
    let node = builder(&["agents.mailbox_messages=100"])
        .agent("sleeper", on_core(far_core()), move || Sleeper {
            next: 0,
            total: TOTAL,
            done: done.clone(),
        })
        .agent("pusher", on_core(0), move || Pusher {
            next: 0,
            total: TOTAL,
            told: false,
            refused: refused.clone(),
        })
        .start()
        .unwrap();
    agents(&node, "sleeper", 1);
    send(&node, agents(&node, "pusher", 1)[0], &[]);
    assert!(receive(&refusals) < TOTAL, "the mailbox took everything");
    assert_eq!(receive(&end), TOTAL);
    node.shutdown().unwrap();
}

/// Panics at 13; answers everything else.
struct Superstitious(mpsc::Sender<(AgentId, u8)>);

impl Agent for Superstitious {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        assert_ne!(message.payload(), [13], "bad luck (this panic is part of the test)");
        self.0.send((context.id(), message.payload()[0])).unwrap();
    }
}

#[test]
fn a_panic_ends_its_agent_alone_and_another_takes_its_place() {
    let (told, answers) = mpsc::channel();
    let two = AgentOptions { min: 2, cores: vec![0], ..AgentOptions::default() };
    let node = builder(&[])
        .agent("superstitious", two, move || Superstitious(told.clone()))
        .start()
        .unwrap();
    let before = agents(&node, "superstitious", 2);
    let (victim, neighbour) = (before[0], before[1]);
    send(&node, victim, &[13]);
    send(&node, neighbour, &[1]);
    assert_eq!(receive(&answers), (neighbour, 1));
    let deadline = Instant::now() + WAIT;
    let successor = loop {
        let now = agents(&node, "superstitious", 2);
        if let Some(new) = now.iter().find(|id| !before.contains(id)) {
            break *new;
        }
        assert!(Instant::now() < deadline, "nobody took the place");
    };
    let gone = node.handle().wait(move |gateway| gateway.send(victim, vec![2])).unwrap_err();
    assert!(matches!(gone, Error::NotFound(_)), "{gone}");
    send(&node, successor, &[3]);
    assert_eq!(receive(&answers), (successor, 3));
    node.shutdown().unwrap();
}
