//! Bounds: what is refused when there is too much of it, and what a refusal leaves undone.

use super::{WAIT, agents, builder, far_core, on_core, receive, send};
use coreflow::{
    node::{AgentOptions, gateway::Gateway},
    shard::{
        agent::{Agent, Message, Reply, ReplyTo},
        context::{Context, SendError},
    },
    wire::{api::Error, id::AgentId},
};
use std::{collections::HashMap, sync::mpsc, thread, time::Duration};

/// Broadcasts numbers until as many as it should have left.
struct Herald {
    next: u64,
    total: u64,
    refused: u64,
    done: mpsc::Sender<u64>,
}

impl Agent for Herald {
    fn on_message(&mut self, _: &Message<'_>, context: &mut Context<'_>) {
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        while self.next < self.total {
            match context.broadcast("listener", &self.next.to_le_bytes()) {
                Ok(()) => self.next += 1,
                Err(SendError::Full) => {
                    self.refused += 1;
                    return context.request_turn();
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.done.send(self.refused).unwrap();
    }
}

/// Checks that each herald's numbers come in order, each once.
struct Listener {
    heralds: usize,
    total: u64,
    next: HashMap<AgentId, u64>,
    done: mpsc::Sender<u64>,
}

impl Agent for Listener {
    fn on_message(&mut self, message: &Message<'_>, _: &mut Context<'_>) {
        let number = u64::from_le_bytes(message.payload().try_into().unwrap());
        let next = self.next.entry(message.source()).or_default();
        assert_eq!(number, *next, "a refused broadcast reached somebody, or one was lost");
        *next += 1;
        if self.next.len() == self.heralds && self.next.values().all(|next| *next == self.total) {
            self.done.send(self.total).unwrap();
        }
    }
}

#[test]
fn a_broadcast_that_a_full_ring_refuses_reaches_nobody() {
    const TOTAL: u64 = 5_000;
    let (done, ends) = mpsc::channel();
    let (heard, hearings) = mpsc::channel();
    let heralds = AgentOptions { min: 2, ..AgentOptions::default() };
    let listeners = AgentOptions { min: 5, ..AgentOptions::default() };
    let node = builder(&["mesh.ring_batches=2", "mesh.batch_messages=3"])
        .agent("herald", heralds, move || Herald {
            next: 0,
            total: TOTAL,
            refused: 0,
            done: done.clone(),
        })
        .agent("listener", listeners, move || Listener {
            heralds: 2,
            total: TOTAL,
            next: HashMap::new(),
            done: heard.clone(),
        })
        .start()
        .unwrap();
    agents(&node, "listener", 5);
    for herald in agents(&node, "herald", 2) {
        send(&node, herald, &[]);
    }
    for _ in 0..5 {
        assert_eq!(receive(&hearings), TOTAL);
    }
    let refused: u64 = (0..2).map(|_| receive(&ends)).sum();
    assert!(refused > 0, "the rings were never full: the test shows nothing");
    node.shutdown().unwrap();
}

/// Asks as often as it may, then tells how often that was and what came of each question.
struct Asker {
    asked: mpsc::Sender<usize>,
    told: mpsc::Sender<Result<Vec<u8>, Error>>,
}

impl Agent for Asker {
    fn on_message(&mut self, _: &Message<'_>, context: &mut Context<'_>) {
        let oracle = context.agents_of("oracle")[0];
        let mut asked = 0;
        let refusal = loop {
            match context.call(oracle, b"?", Some(Duration::from_millis(50))) {
                Ok(_) => asked += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refusal, SendError::TooManyCalls);
        self.asked.send(asked).unwrap();
    }

    fn on_reply(&mut self, reply: &Reply<'_>, _: &mut Context<'_>) {
        self.told.send(reply.answer.map(<[u8]>::to_vec).map_err(Clone::clone)).unwrap();
    }
}

/// Keeps every question, and answers all of them when it is told to.
struct Oracle(Vec<ReplyTo>);

impl Agent for Oracle {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        match message.reply_to() {
            Some(to) if message.payload() == b"?" => self.0.push(to),
            Some(to) => {
                let late = self.0.len() as u8;
                self.0.drain(..).for_each(|to| context.reply(to, b"late"));
                context.reply(to, &[late]);
            }
            None => {}
        }
    }
}

#[test]
fn calls_are_bounded_and_an_answer_that_comes_too_late_is_nobodys() {
    let (asked, questions) = mpsc::channel();
    let (told, answers) = mpsc::channel();
    let node = builder(&["agents.max_calls=20"])
        .agent("asker", on_core(0), move || Asker { asked: asked.clone(), told: told.clone() })
        .agent("oracle", on_core(far_core()), || Oracle(Vec::new()))
        .start()
        .unwrap();
    let (asker, oracle) = (agents(&node, "asker", 1)[0], agents(&node, "oracle", 1)[0]);
    for _ in 0..2 {
        send(&node, asker, &[]);
        let asked = receive(&questions);
        assert!((15..=20).contains(&asked), "{asked} calls, where 20 may wait");
        for _ in 0..asked {
            assert!(matches!(receive(&answers), Err(Error::Uncertain(_))));
        }
        let late = node.handle().wait(move |gateway| gateway.call(oracle, b"now".to_vec(), 0));
        assert_eq!(usize::from(late.unwrap()[0]), asked);
    }
    node.shutdown().unwrap();
    assert!(answers.try_recv().is_err(), "a question was answered twice");
}

#[test]
fn names_are_taken_once_and_a_type_has_at_most_its_max() {
    let two = AgentOptions { min: 1, max: 2, ..AgentOptions::default() };
    let node = builder(&["cores.workers=[0]"]).agent("oracle", two, || Oracle(Vec::new()));
    let node = node.start().unwrap();
    agents(&node, "oracle", 1);
    let spawn = |name: Option<&str>| {
        let name = name.map(str::to_owned);
        node.handle().wait(move |gateway| gateway.spawn("oracle".into(), name))
    };
    let first = spawn(Some("delphi")).unwrap();
    assert!(matches!(spawn(Some("delphi")), Err(Error::Conflict(_))));
    assert!(matches!(spawn(None), Err(Error::Conflict(_))));
    node.handle().wait(move |gateway| gateway.stop(first)).unwrap();
    agents(&node, "oracle", 1);
    assert_ne!(spawn(Some("delphi")).unwrap(), first);
    let again = node.handle().wait(move |gateway| gateway.stop(first));
    assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
    node.shutdown().unwrap();
}

/// Holds its core until it is let go.
struct Rock {
    here: mpsc::Sender<()>,
    go: std::sync::Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
}

impl Agent for Rock {
    fn on_message(&mut self, _: &Message<'_>, _: &mut Context<'_>) {
        self.here.send(()).unwrap();
        self.go.lock().unwrap().recv_timeout(WAIT).unwrap();
    }
}

#[test]
fn a_drain_ends_in_time_although_an_agent_holds_its_core() {
    let (here, arrived) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let go = std::sync::Arc::new(std::sync::Mutex::new(go));
    let node = builder(&[])
        .agent("rock", on_core(0), move || Rock { here: here.clone(), go: go.clone() })
        .start()
        .unwrap();
    send(&node, agents(&node, "rock", 1)[0], &[]);
    receive(&arrived);
    let (drained, ended) = mpsc::channel();
    let drain = thread::spawn(move || {
        drained.send(node.drain(Duration::from_millis(20))).unwrap();
        node
    });
    assert_eq!(receive(&ended), 1, "the core that is held does not say that it has ended");
    let_go.send(()).unwrap();
    drain.join().unwrap().shutdown().unwrap();
}
