//! Replicas, their disks and a network, all driven by one seed.

use super::super::{
    Answer, Batch, Group, Identity, Keys, Letter, Members, Message, Restore, Ring, Settings,
    Timing, Write, client::Client,
};
use crate::consensus::{
    engine::{Event, Role},
    place::Place,
};
use bytes::Bytes;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// A cluster's number.
const CLUSTER: u128 = 7;

/// What lies on a disk, with its place.
pub type Disk = Vec<Write>;

/// A node.
pub struct Node {
    pub id: u64,
    /// `None` while it is down.
    pub group: Option<Group>,
    pub disk: Disk,
    /// Written and not synced: the number of the round, and what it wrote.
    pub unsynced: Vec<(u64, Vec<Write>)>,
    /// What it was told since its last start.
    pub told: BTreeMap<u64, (u64, Bytes)>,
    pub installed: Vec<u64>,
    pub tickets: Vec<(u64, u64)>,
    pub lost: Vec<u64>,
    pub reads: Vec<u64>,
    pub role: Role,
    /// Requests of this life that are not answered.
    pub asked: BTreeSet<u64>,
    pub answers: Vec<Answer>,
}

/// Everything.
pub struct World {
    pub nodes: Vec<Node>,
    pub clients: BTreeMap<u64, Client>,
    pub settings: Settings,
    pub rng: Rng,
    pub now: u64,
    /// From, to, message.
    pub network: Vec<(u64, u64, Message)>,
    /// Percent of messages that are lost.
    pub loss: u32,
    pub is_fifo: bool,
    /// Percent of messages that come twice.
    pub twice: u32,
    /// Nodes that cannot reach others.
    pub cut: Vec<u64>,
    /// A node whose disk does not answer.
    pub hanging: Option<u64>,
    /// What was told anywhere.
    pub truth: BTreeMap<u64, (u64, Bytes)>,
}

/// What is ordered.
pub fn block(number: u64) -> Bytes {
    Bytes::from(format!("block {number}"))
}

/// The key of a node or a client.
pub fn identity(id: u64) -> Identity {
    let mut secret = [0x55; 32];
    secret[..8].copy_from_slice(&id.to_le_bytes());
    Identity::from_secret(&secret)
}

pub fn ring(count: u64) -> Ring {
    let all = (1..=count).chain(100..110);
    Ring::new(all.map(|id| (id, identity(id).public()))).expect("they are keys")
}

pub fn settings() -> Settings {
    let timing = Timing { tick_ms: 10, status_ms: 30, patience_ms: 300, patience_max_ms: 5000 };
    Settings { timing, checkpoint_every: 8, ..Settings::default() }
}

pub fn keys(id: u64, count: u64) -> Keys {
    Keys::new(identity(id), ring(count), CLUSTER, 0)
}

pub fn members(count: u64) -> Members {
    Members::new(0, &(1..=count).collect::<Vec<_>>()).expect("they are members")
}

impl World {
    pub fn new(count: u64, seed: u64) -> Self {
        Self::with(count, seed, settings())
    }

    pub fn with(count: u64, seed: u64, settings: Settings) -> Self {
        let node = |id| Node {
            id,
            group: None,
            disk: Vec::new(),
            unsynced: Vec::new(),
            told: BTreeMap::new(),
            installed: Vec::new(),
            tickets: Vec::new(),
            lost: Vec::new(),
            reads: Vec::new(),
            role: Role::Follower { leader: None },
            asked: BTreeSet::new(),
            answers: Vec::new(),
        };
        let mut world = Self {
            nodes: (1..=count).map(node).collect(),
            clients: BTreeMap::new(),
            settings,
            rng: Rng::with_seed(seed),
            now: 0,
            network: Vec::new(),
            loss: 0,
            is_fifo: true,
            twice: 0,
            cut: Vec::new(),
            hanging: None,
            truth: BTreeMap::new(),
        };
        (1..=count).for_each(|id| world.start(id));
        // Each disk knows that its node lives.
        world.collect();
        (0..world.nodes.len()).for_each(|at| world.sync(at));
        world
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    pub fn group(&mut self, id: u64) -> &mut Group {
        self.node(id).group.as_mut().expect("the node is up")
    }

    /// Starts a node with what its disk has.
    pub fn start(&mut self, id: u64) {
        let count = self.nodes.len() as u64;
        let settings = self.settings;
        let mut restore = Restore::new(0, settings.checkpoint_every);
        for (at, write) in self.node(id).disk.iter().enumerate() {
            let place = Place { generation: 0, offset: at as u32 };
            match write {
                Write::Entry { index, heads, data, .. } => {
                    restore.entry(*index, heads.clone(), data.clone(), place).expect("an entry");
                }
                Write::Note(bytes) => {
                    restore.note(bytes).expect("a note");
                }
            }
        }
        let group = Group::new(id, members(count), keys(id, count), settings, restore);
        let mut group = group.expect("what was written is whole");
        group.restate();
        let node = &mut self.nodes[id as usize - 1];
        node.told.clear();
        let (first, last) = (group.log().point().index + 1, group.log().last());
        for index in first..=last {
            let stored = group.log().stored(index).expect("it is in the log");
            let Write::Entry { term, data, .. } = &node.disk[stored.place.offset as usize] else {
                panic!("an entry lies where it is said to")
            };
            let known = self.truth.entry(index).or_insert((*term, data.clone()));
            assert_eq!(*known, (*term, data.clone()), "nothing else is read back");
            node.told.insert(index, (*term, data.clone()));
        }
        node.group = Some(group);
    }

    /// A node's process ends; what was not synced is lost, or part of it is there.
    pub fn kill(&mut self, id: u64) {
        let keep = self.rng.usize(..3);
        let node = self.node(id);
        node.group = None;
        node.asked.clear();
        for (_, writes) in node.unsynced.drain(..).take(keep) {
            node.disk.extend(writes);
        }
    }

    pub fn client(&mut self, id: u64) -> &mut Client {
        let count = self.nodes.len() as u64;
        let timing = self.settings.timing;
        let new = || Client::new(id, members(count), keys(id, count), timing);
        self.clients.entry(id).or_insert_with(new)
    }

    /// Takes what nodes and clients have to do.
    pub fn collect(&mut self) {
        for at in 0..self.nodes.len() {
            while self.nodes[at].group.as_ref().is_some_and(Group::has_ready) {
                self.take(at);
            }
            let node = &mut self.nodes[at];
            if let Some(group) = &mut node.group {
                for answer in group.take_answers() {
                    assert!(node.asked.remove(&answer.ticket), "a request is answered once");
                    node.answers.push(answer);
                }
            }
        }
        let letters: Vec<_> = self
            .clients
            .iter_mut()
            .flat_map(|(id, client)| {
                client.take_letters().into_iter().map(|letter| (*id, letter)).collect::<Vec<_>>()
            })
            .collect();
        letters.into_iter().for_each(|(from, letter)| self.send(from, letter));
    }

    fn take(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let id = node.id;
        let group = node.group.as_mut().expect("it was looked at");
        let ready = group.take_ready();
        let events = ready.events;
        let first = node.disk.len() + node.unsynced.iter().map(|it| it.1.len()).sum::<usize>();
        for (offset, write) in (first as u32..).zip(&ready.writes) {
            if let Write::Entry { index, term, .. } = write {
                group.placed(*index, *term, Place { generation: 0, offset });
            }
        }
        if let Some(number) = ready.wait {
            node.unsynced.push((number, ready.writes));
        } else {
            assert!(ready.writes.is_empty(), "whoever writes waits for it");
        }
        for (fetch, first, places) in ready.fetches {
            let batches = (first..).zip(places).map(|(index, stored)| {
                let at = stored.place.offset as usize;
                let synced = node.disk.len();
                let write = node
                    .disk
                    .get(at)
                    .or_else(|| node.unsynced.iter().flat_map(|it| &it.1).nth(at - synced));
                let Some(Write::Entry { index: found, heads, data, .. }) = write else {
                    panic!("an entry lies where it is said to")
                };
                assert_eq!(index, *found);
                Batch::new(heads.clone(), data.clone()).expect("a batch")
            });
            let batches = batches.collect();
            group.fetched(fetch, Some(batches));
        }
        for event in events {
            node.act(event, &mut self.truth);
        }
        ready.letters.into_iter().for_each(|letter| self.send(id, letter));
    }

    fn send(&mut self, from: u64, letter: Letter) {
        for to in letter.to {
            assert_ne!(from, to, "nobody writes to itself");
            let is_cut = self.cut.contains(&from) != self.cut.contains(&to);
            if is_cut || self.rng.u32(..100) < self.loss {
                continue;
            }
            let (mut head, mut parts) = (Vec::new(), Vec::new());
            letter.message.encode(&mut head, &mut parts);
            let message = Message::decode(&head.into(), &parts).expect("it was just encoded");
            assert_eq!(message, letter.message);
            self.network.push((from, to, message));
        }
    }

    /// One thing happens; whether there was any.
    pub fn happen(&mut self) -> bool {
        self.collect();
        let is_syncing =
            |node: &Node| !node.unsynced.is_empty() && self.hanging.is_none_or(|it| it != node.id);
        let syncing: Vec<_> =
            (0..self.nodes.len()).filter(|at| is_syncing(&self.nodes[*at])).collect();
        let choices = self.network.len().min(8) + syncing.len();
        if choices == 0 {
            return false;
        }
        let choice = self.rng.usize(..choices);
        if choice < syncing.len() {
            self.sync(syncing[choice]);
            return true;
        }
        let at = self.rng.usize(..self.network.len());
        let (from, to, _) = self.network[at];
        let first = self.network.iter().position(|it| (it.0, it.1) == (from, to));
        let at = if self.is_fifo { first.unwrap_or(at) } else { at };
        let (from, to, message) = self.network.remove(at);
        if self.rng.u32(..100) < self.twice {
            self.network.push((from, to, message.clone()));
        }
        self.deliver(from, to, message);
        true
    }

    pub fn deliver(&mut self, from: u64, to: u64, message: Message) {
        if let Some(client) = self.clients.get_mut(&to) {
            let _ = client.step(from, &message);
        } else if let Some(group) = &mut self.nodes[to as usize - 1].group {
            let _ = group.step(from, message);
        }
    }

    fn sync(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (number, writes) = node.unsynced.remove(0);
        node.disk.extend(writes);
        if let Some(group) = &mut node.group {
            group.persisted(number);
        }
    }

    /// Everything that can happen does, and time passes.
    pub fn run(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            while self.happen() {}
            self.now += self.settings.timing.tick_ms;
            self.tick();
        }
        while self.happen() {}
    }

    pub fn tick(&mut self) {
        let now = self.now;
        for group in self.nodes.iter_mut().filter_map(|node| node.group.as_mut()) {
            group.tick(now);
        }
        self.clients.values_mut().for_each(|client| client.tick(now));
    }

    /// Runs until something is so, for as long as it may take.
    pub fn until(&mut self, ms: u64, is_so: impl Fn(&mut Self) -> bool) {
        let until = self.now + ms;
        while !is_so(self) {
            assert!(self.now < until, "it has not come to that: {}", self.describe());
            self.run(self.settings.timing.tick_ms);
        }
    }

    /// The same, while some messages are lost: who sends them, to whom, and what.
    pub fn until_without(
        &mut self,
        ms: u64,
        is_lost: impl Fn(u64, u64, &Message) -> bool,
        is_so: impl Fn(&mut Self) -> bool,
    ) {
        let until = self.now + ms;
        while !is_so(self) {
            assert!(self.now < until, "it has not come to that: {}", self.describe());
            self.collect();
            self.network.retain(|(from, to, message)| !is_lost(*from, *to, message));
            if !self.happen() {
                self.now += self.settings.timing.tick_ms;
                self.tick();
            }
        }
    }

    pub fn describe(&self) -> String {
        let status =
            |node: &Node| format!("{}: {:?}", node.id, node.group.as_ref().map(Group::status));
        self.nodes.iter().map(status).collect::<Vec<_>>().join("\n")
    }

    /// The node that was told that it leads.
    pub fn leader(&self) -> Option<u64> {
        let leads = |node: &&Node| {
            node.group.as_ref().is_some_and(|group| matches!(group.role(), Role::Leader { .. }))
        };
        self.nodes
            .iter()
            .filter(leads)
            .max_by_key(|node| node.group.as_ref().map(Group::view))
            .map(|node| node.id)
    }

    /// The highest entry that a node was answered to be finished.
    pub fn highest_answer(&self) -> u64 {
        let answers = self.nodes.iter().flat_map(|node| &node.answers);
        answers.map(|answer| answer.index).max().unwrap_or(0)
    }

    /// The chain that all nodes that are up have come to, when it is the same.
    pub fn same_head(&self) -> Option<u64> {
        let mut heads = self
            .nodes
            .iter()
            .filter_map(|node| node.group.as_ref())
            .map(|group| (group.log().last(), group.log().chain()));
        let first = heads.next()?;
        heads.all(|head| head == first).then_some(first.0)
    }
}

impl Node {
    fn act(&mut self, event: Event, truth: &mut BTreeMap<u64, (u64, Bytes)>) {
        match event {
            Event::Committed { index, term, ticket, data, place, .. } => {
                if let Some((last, _)) = self.told.last_key_value() {
                    assert_eq!(index, last + 1, "entries are told in their order");
                }
                let Some(Write::Entry { index: found, data: stored, .. }) =
                    self.disk.get(place.offset as usize)
                else {
                    let group = self.group.as_ref().map(Group::status);
                    panic!("what is told is on the disk: {index} at {place:?}, {group:?}")
                };
                assert_eq!(index, *found);
                assert!(data.is_none_or(|data| data == *stored));
                let stored = stored.clone();
                let known = truth.entry(index).or_insert((term, stored.clone()));
                assert_eq!(*known, (term, stored.clone()), "all are told the same");
                self.told.insert(index, (term, stored));
                self.tickets.extend(ticket.map(|ticket| (ticket, index)));
            }
            Event::Lost { ticket } => self.lost.push(ticket),
            Event::Role(role) => self.role = role,
            Event::Installed { index } => {
                self.told.clear();
                self.installed.push(index);
            }
            Event::Read { context } => self.reads.push(context),
            Event::ReadLost { .. } | Event::Membership(_) => {}
        }
    }
}
