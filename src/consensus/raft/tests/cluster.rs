//! Nodes, their disks and the network between them, in one thread, moved by one seed.

use super::{
    check::{Checker, Replica},
    *,
};
use crate::consensus::{place::Place, raft::message};
use raft::eraftpb::{Message, MessageType};
use std::collections::{BTreeSet, VecDeque};

/// How badly things go.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Of a hundred messages, how many are lost.
    pub lost: u8,
    /// Of a hundred messages, how many arrive twice.
    pub doubled: u8,
    /// Milliseconds that a message takes at most.
    pub delay_ms: u64,
    /// Messages overtake each other.
    pub reorders: bool,
    /// Milliseconds that a write takes at most.
    pub write_ms: u64,
}

struct Travelling {
    at_ms: u64,
    from: u64,
    to: u64,
    bytes: Bytes,
}

struct Unwritten {
    at_ms: u64,
    batch: u64,
    writes: Vec<(u16, Write)>,
}

pub struct Node {
    pub id: u64,
    pub driver: Option<Driver>,
    /// What outlasts a crash.
    disk: Vec<(u16, Write)>,
    unwritten: VecDeque<Unwritten>,
    /// Groups that it belongs to from the beginning.
    is_founder: bool,
    pub replicas: Vec<Replica>,
    pub fetches: usize,
    pub writes: usize,
}

pub struct Cluster {
    pub rng: fastrand::Rng,
    seed: u64,
    pub now_ms: u64,
    pub faults: Faults,
    pub partitions: u16,
    founders: Vec<u64>,
    pub nodes: Vec<Node>,
    network: Vec<Travelling>,
    /// Pairs between which nothing travels.
    pub cut: BTreeSet<(u64, u64)>,
    pub checkers: Vec<Checker>,
    pub next_ticket: u64,
    pub settings: fn(u64, u64) -> Settings,
    /// Everything that happened, for a comparison of two runs.
    pub trace: crc32fast::Hasher,
    pub messages: usize,
    pub dropped: usize,
    /// Who asked whether it is a member of which partition, and with which number.
    pub questions: Vec<(u64, u16, u64)>,
    steps: u64,
}

impl Cluster {
    /// `founders` of `nodes` nodes are voters from the beginning.
    pub fn new(seed: u64, nodes: u64, founders: u64, partitions: u16, faults: Faults) -> Self {
        Self::with_settings(seed, nodes, founders, partitions, faults, settings)
    }

    pub fn with_settings(
        seed: u64,
        nodes: u64,
        founders: u64,
        partitions: u16,
        faults: Faults,
        settings: fn(u64, u64) -> Settings,
    ) -> Self {
        let node = |id| Node {
            id,
            driver: None,
            disk: Vec::new(),
            unwritten: VecDeque::new(),
            is_founder: id <= founders,
            replicas: (0..partitions).map(|_| Replica::default()).collect(),
            fetches: 0,
            writes: 0,
        };
        let mut cluster = Self {
            rng: fastrand::Rng::with_seed(seed),
            seed,
            now_ms: 0,
            faults,
            partitions,
            founders: (1..=founders).collect(),
            nodes: (1..=nodes).map(node).collect(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            checkers: (0..partitions).map(|_| Checker::default()).collect(),
            next_ticket: 1,
            settings,
            trace: crc32fast::Hasher::new(),
            messages: 0,
            dropped: 0,
            questions: Vec::new(),
            steps: 0,
        };
        (1..=nodes).for_each(|id| cluster.start(id));
        cluster
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    pub fn driver(&mut self, id: u64) -> &mut Driver {
        self.node(id).driver.as_mut().expect("it runs")
    }

    /// Starts a node with what its disk has.
    pub fn start(&mut self, id: u64) {
        let (founders, partitions) = (self.founders.clone(), self.partitions);
        let settings = (self.settings)(id, self.seed);
        let node = self.node(id);
        let mut restores: Vec<_> = (0..partitions)
            .map(|partition| {
                if node.is_founder {
                    Restore::with_voters(partition, &founders)
                } else {
                    Restore::empty(partition)
                }
            })
            .collect();
        for (at, (partition, write)) in node.disk.iter().enumerate() {
            read_back(&mut restores[usize::from(*partition)], at, write);
        }
        let driver = Driver::new(settings, restores).expect("what was written can be read");
        node.replicas = (0..partitions)
            .map(|partition| {
                let group = driver.group(partition).expect("it exists");
                let members = group.members().clone();
                Replica { applied: group.point().index, members, ..Replica::default() }
            })
            .collect();
        node.driver = Some(driver);
        self.pump(id);
    }

    /// Ends a node at once; of its writes under way some reached the disk, in their order.
    pub fn crash(&mut self, id: u64) {
        let under_way = self.node(id).unwritten.len();
        let reached = self.rng.usize(0..=under_way);
        let node = self.node(id);
        for unwritten in node.unwritten.drain(..).take(reached) {
            node.disk.extend(unwritten.writes);
        }
        node.unwritten.clear();
        node.driver = None;
    }

    /// A millisecond passes.
    pub fn step(&mut self) {
        self.now_ms += 1;
        self.steps += 1;
        self.deliver();
        for id in 1..=self.nodes.len() as u64 {
            self.finish_writes(id);
            let now_ms = self.now_ms;
            if let Some(driver) = &mut self.node(id).driver {
                driver.advance(now_ms);
            }
            self.pump(id);
        }
        self.check();
    }

    pub fn run(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.step());
    }

    /// Runs until something holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..60_000 {
            if holds(self) {
                return;
            }
            self.step();
        }
        panic!("not in a minute: {what}");
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let due: Vec<_> = self.network.extract_if(.., |message| message.at_ms <= now_ms).collect();
        for Travelling { from, to, bytes, .. } in due {
            if self.cut.contains(&(from, to)) {
                continue;
            }
            let (partition, message) = message::decode(&bytes).expect("it was encoded here");
            let Some(driver) = &mut self.node(to).driver else { continue };
            if driver.step(partition, message).is_err() {
                self.dropped += 1;
            }
        }
    }

    fn finish_writes(&mut self, id: u64) {
        let now_ms = self.now_ms;
        let node = self.node(id);
        let Some(driver) = &mut node.driver else { return };
        while node.unwritten.front().is_some_and(|first| first.at_ms <= now_ms) {
            let Unwritten { batch, writes, .. } = node.unwritten.pop_front().expect("it was seen");
            for (partition, write) in writes {
                if let Write::Entry { index, term, .. } = write {
                    driver.placed(partition, index, term, place(node.disk.len()));
                }
                node.disk.push((partition, write));
            }
            node.writes += 1;
            driver.persisted(batch);
        }
    }

    /// Does what a node asks for.
    pub fn pump(&mut self, id: u64) {
        let mut outputs = Outputs::default();
        for round in 0.. {
            assert!(round < 1000, "node {id} is never done: {outputs:?}");
            let Some(driver) = &mut self.node(id).driver else { return };
            driver.take_ready(&mut outputs);
            if outputs.is_empty() {
                return;
            }
            self.trace.update(format!("{} {id} {outputs:?}", self.now_ms).as_bytes());
            let asked = outputs.questions.drain(..);
            self.questions.extend(asked.map(|(partition, question)| (id, partition, question)));
            self.check_appends(id, &outputs);
            self.send(&outputs);
            for (partition, event) in outputs.events.drain(..) {
                self.tell(id, partition, &event);
            }
            self.write(id, &mut outputs);
            let node = self.node(id);
            for fetch in outputs.fetches.drain(..) {
                node.fetches += 1;
                let data = fetch.entries.iter().map(|stored| node.read(stored.place)).collect();
                let driver = node.driver.as_mut().expect("it runs");
                driver.fetched(fetch.partition, fetch.id, Some(data));
            }
        }
    }

    fn write(&mut self, id: u64, outputs: &mut Outputs) {
        if outputs.writes.is_empty() {
            return;
        }
        let writes = std::mem::take(&mut outputs.writes);
        let at_ms = self.now_ms + self.rng.u64(0..=self.faults.write_ms);
        let node = self.node(id);
        let at_ms = node.unwritten.back().map_or(at_ms, |last| last.at_ms.max(at_ms));
        node.unwritten.push_back(Unwritten { at_ms, batch: outputs.batch, writes });
        if at_ms == self.now_ms {
            self.finish_writes(id);
        }
    }

    fn send(&mut self, outputs: &Outputs) {
        for (partition, message) in &outputs.messages {
            self.messages += 1;
            let (from, to) = (message.from, message.to);
            self.nodes[from as usize - 1].has_promised(*partition, message);
            let mut bytes = Vec::new();
            message::encode(*partition, message, &mut bytes);
            assert_eq!(bytes.len(), message::encoded_bytes(message));
            let bytes = Bytes::from(bytes);
            let mut copies = 1 + u8::from(self.rng.u8(0..100) < self.faults.doubled);
            if self.rng.u8(0..100) < self.faults.lost {
                copies = 0;
            }
            for _ in 0..copies {
                let mut at_ms = self.now_ms + 1 + self.rng.u64(0..=self.faults.delay_ms);
                let mut ahead = self.network.iter().rev();
                if !self.faults.reorders
                    && let Some(last) = ahead.find(|other| (other.from, other.to) == (from, to))
                {
                    at_ms = at_ms.max(last.at_ms);
                }
                self.network.push(Travelling { at_ms, from, to, bytes: bytes.clone() });
            }
        }
    }

    fn check_appends(&mut self, id: u64, outputs: &Outputs) {
        for (partition, write) in &outputs.writes {
            if let Write::Entry { term, index, data, .. } = write {
                let log = self.nodes[id as usize - 1].log(*partition);
                // What was overwritten within the same call is not there any more.
                let before = log.term_at(index - 1).filter(|_| log.term_at(*index) == Some(*term));
                self.checkers[usize::from(*partition)].appended(*index, *term, before, data);
            }
        }
    }

    fn tell(&mut self, id: u64, partition: u16, event: &Event) {
        let node = &mut self.nodes[id as usize - 1];
        let data = match event {
            Event::Committed { data: Some(data), .. } => data.clone(),
            Event::Committed { place, .. } => node.read(*place),
            _ => Bytes::new(),
        };
        let checker = &mut self.checkers[usize::from(partition)];
        let replica = &mut node.replicas[usize::from(partition)];
        replica.told(event, &data, checker);
        if let Event::Membership(_) = event {
            // Who forgot that would count quorums by members that others have left behind.
            let change = replica.change;
            assert!(change <= node.commit_on_disk(partition), "change {change} may be forgotten");
        }
    }

    fn check(&mut self) {
        for node in self.nodes.iter().filter(|node| node.driver.is_some()) {
            for (partition, checker) in (0..).zip(&mut self.checkers) {
                let group = node.driver.as_ref().and_then(|driver| driver.group(partition));
                let raft = &group.expect("it exists").raft.raft;
                if raft.state == raft::StateRole::Leader {
                    checker.leads(node.id, raft.term, raft.store());
                }
                if self.steps.is_multiple_of(64) {
                    checker.matches(raft.store());
                }
            }
        }
    }

    /// The node that was told that it leads, in the highest term.
    pub fn leader(&self, partition: u16) -> Option<u64> {
        let running = self.nodes.iter().filter(|node| node.driver.is_some());
        running
            .filter_map(|node| match node.replicas[usize::from(partition)].role {
                Some(Role::Leader { term }) => Some((term, node.id)),
                _ => None,
            })
            .max()
            .map(|(_, id)| id)
    }

    pub fn until_leader(&mut self, partition: u16) -> u64 {
        self.until("a leader", |cluster| cluster.leader(partition).is_some());
        self.leader(partition).expect("it was seen")
    }

    /// Proposes a block of so many bytes; its number, when it was taken.
    pub fn propose(&mut self, id: u64, partition: u16, bytes: usize) -> Option<u64> {
        let ticket = self.next_ticket;
        let taken = self.driver(id).propose(partition, block(ticket, bytes), ticket);
        if taken.is_err() {
            return None;
        }
        self.next_ticket += 1;
        self.node(id).replicas[usize::from(partition)].outstanding.insert(ticket);
        self.pump(id);
        Some(ticket)
    }

    /// Proposes at whoever leads until so many are committed.
    pub fn commit(&mut self, partition: u16, count: usize, bytes: usize) {
        let mut left = count;
        let mut under_way = Vec::new();
        self.until("proposals are committed", |cluster| {
            let is_lost = |ticket: &u64| {
                let of = |node: &Node| node.replicas[usize::from(partition)].lost.contains(ticket);
                cluster.nodes.iter().any(of)
            };
            left += under_way.iter().filter(|ticket| is_lost(ticket)).count();
            under_way.retain(|ticket| {
                !is_lost(ticket) && !cluster.checkers[usize::from(partition)].has(*ticket)
            });
            while left > 0
                && let Some(leader) = cluster.leader(partition)
                && let Some(ticket) = cluster.propose(leader, partition, bytes)
            {
                left -= 1;
                under_way.push(ticket);
            }
            left == 0 && under_way.is_empty()
        });
    }

    /// Whether all members of a partition were told everything.
    pub fn is_settled(&mut self, partition: u16) -> bool {
        let Some(leader) = self.leader(partition) else { return false };
        let group = self.driver(leader).group(partition).expect("it exists");
        let (last, members) = (group.status().last, group.members().clone());
        let all = self.nodes.iter().filter(|node| members.is_member(node.id));
        !members.is_joint()
            && all.clone().all(|node| {
                let replica = &node.replicas[usize::from(partition)];
                node.driver.is_some() && replica.applied == last && replica.outstanding.is_empty()
            })
    }

    pub fn isolate(&mut self, id: u64) {
        for other in 1..=self.nodes.len() as u64 {
            self.cut.extend([(id, other), (other, id)]);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} fails at step {}", self.seed, self.steps);
        }
    }
}

impl Node {
    pub fn log(&self, partition: u16) -> &crate::consensus::raft::entries::Entries {
        let driver = self.driver.as_ref().expect("it runs");
        driver.group(partition).expect("it exists").raft.store()
    }

    /// The commit index that it would start with.
    fn commit_on_disk(&self, partition: u16) -> u64 {
        let of = self.disk.iter().rev().filter(|(of, _)| *of == partition);
        let commits = of.filter_map(|(_, write)| match write {
            Write::HardState(state) => Some(state.commit),
            Write::Compacted(point) | Write::Installed(point) => Some(point.index),
            Write::Entry { .. } => None,
        });
        commits.max().unwrap_or(0)
    }

    /// A vote and an acknowledged entry are on the disk before anybody hears of them.
    fn has_promised(&self, partition: u16, message: &Message) {
        let vote = match message.get_msg_type() {
            MessageType::MsgRequestVote => self.id,
            MessageType::MsgRequestVoteResponse if !message.reject => message.to,
            MessageType::MsgAppendResponse if !message.reject && message.index > 1 => 0,
            _ => return,
        };
        let is_kept = |(of, write): &(u16, Write)| {
            *of == partition
                && match write {
                    // In a later term nothing can be said in this one any more.
                    Write::HardState(state) => {
                        let is_vote = (state.term, state.vote) == (message.term, vote);
                        vote != 0 && (is_vote || state.term > message.term)
                    }
                    Write::Entry { index, .. } => vote == 0 && *index == message.index,
                    Write::Compacted(point) | Write::Installed(point) => {
                        vote == 0 && point.index >= message.index
                    }
                }
        };
        let is_kept = self.disk.iter().rev().any(is_kept);
        assert!(is_kept, "node {} may forget what it says: {message:?}", self.id);
    }

    /// Whether it has writes under way.
    pub fn is_writing(&self) -> bool {
        !self.unwritten.is_empty()
    }

    fn read(&self, place: Place) -> Bytes {
        match &self.disk[place.offset as usize].1 {
            Write::Entry { data, .. } => data.clone(),
            other => panic!("{other:?} is no entry"),
        }
    }
}

fn place(at: usize) -> Place {
    Place { generation: 1, offset: at as u32 }
}

fn read_back(restore: &mut Restore, at: usize, write: &Write) {
    match write {
        Write::Entry { term, index, kind, data } => {
            let stored = Stored { place: place(at), bytes: data.len() as u32 };
            let change = (*kind == Kind::Change).then_some(&data[..]);
            restore.entry(*index, *term, stored, change).expect("entries are in a row");
        }
        Write::HardState(state) => restore.hard_state(*state),
        Write::Compacted(point) => restore.compacted(point.clone()).expect("it is in the log"),
        Write::Installed(point) => restore.installed(point.clone()),
    }
}
