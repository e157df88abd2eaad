//! The three correct replicas of the model, what they have said, and what the liar can make of it.

use super::{Line, liar::Liar};
use crate::{
    node::{Group, Scheme},
    operation::{Operation, is_fit},
};
use coreflow::consensus::{
    engine::Event,
    pbft::{
        Driver, Letter, Message, Outputs, Request, Settings, Timing, Write, batch::link,
        certificate::Certificate, keys::Digest,
    },
    place::Place,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// Who lies: the primary of the first view, that of the next, and one that is none.
pub const LIARS: [u64; 3] = [1, 2, 4];
/// A client, which is no replica.
const CLIENT: u64 = 100;
/// A tick is longer than anybody waits.
const TICK_MS: u64 = 1_000_000;

/// Something that a correct replica said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Said {
    pub from: u64,
    pub message: Message,
}

/// The replicas.
#[derive(Clone)]
pub struct Replicas {
    pub group: Arc<Group>,
    pub liar: Arc<Liar>,
    drivers: BTreeMap<u64, Driver>,
    now_ms: u64,
    /// By its hash.
    said: BTreeMap<u64, Arc<Said>>,
    /// What the liar can prove that was prepared in views that are left.
    pub provable: Vec<Certificate>,
    /// What nobody may contradict: chains that somebody has committed, or a client has taken for done.
    done: BTreeMap<u64, BTreeSet<Digest>>,
}

/// Four replicas that wait for ever, and a client.
pub fn group() -> Group {
    let timing =
        Timing { tick_ms: TICK_MS, status_ms: TICK_MS, patience_ms: 10, patience_max_ms: 20 };
    let settings = Settings { timing, checkpoint_every: 64, ..Settings::default() };
    Group::new(vec![1, 2, 3, 4], &[CLIENT], 1, settings, Scheme::Seals)
}

/// What the client asks for.
pub fn requests(group: &Group) -> [Request; 2] {
    [1, 2].map(|number| {
        let operation = Operation { author: CLIENT, number }.encode(0);
        Request::new(&group.keys(CLIENT, 0), CLIENT, number, operation)
    })
}

impl Replicas {
    /// Replicas that have done nothing yet.
    pub fn new(group: Arc<Group>, liar: u64) -> Self {
        let correct = group.nodes.iter().copied().filter(|node| *node != liar);
        let drivers = correct.map(|node| (node, group.fresh(node))).collect();
        let mut replicas = Self {
            liar: Arc::new(Liar::new(&group, liar)),
            drivers,
            now_ms: 0,
            said: BTreeMap::new(),
            provable: Vec::new(),
            done: BTreeMap::new(),
            group,
        };
        let [first, second] = requests(&replicas.group);
        for node in replicas.nodes() {
            // The first primary orders one thing, the others would order another.
            let request = if node == 1 { first.clone() } else { second.clone() };
            replicas.driver(node).advance(0);
            replicas.hear(node, CLIENT, Message::Request(request));
        }
        replicas
    }

    fn nodes(&self) -> Vec<u64> {
        self.drivers.keys().copied().collect()
    }

    fn driver(&mut self, node: u64) -> &mut Driver {
        self.drivers.get_mut(&node).expect("it is a correct one")
    }

    fn primary(&self, view: u64) -> u64 {
        self.group.nodes[(view % 4) as usize]
    }

    fn view(&self, node: u64) -> (u64, bool) {
        let status = self.drivers[&node].status(0).expect("it exists");
        (status.view, status.is_active)
    }

    /// View, whether it has begun, and the last committed entry of each.
    pub fn ends(&self) -> Vec<(u64, bool, u64)> {
        let status = self.drivers.values().map(|driver| driver.status(0).expect("it exists"));
        status.map(|status| (status.view, status.is_active, status.committed.seq)).collect()
    }

    /// Whether a replica has committed something.
    pub fn has_committed(&self, node: u64) -> bool {
        self.drivers[&node].status(0).expect("it exists").committed.seq > 0
    }

    /// A number that runs with the same future share.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for driver in self.drivers.values() {
            driver.group(0).expect("it exists").fingerprint().hash(&mut hasher);
        }
        self.said.keys().for_each(|said| said.hash(&mut hasher));
        (&self.provable, &self.done).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether nobody contradicts anybody.
    pub fn agree(&self) -> bool {
        self.done.values().all(|chains| chains.len() <= 1)
    }

    /// Whether a replica has accepted something in a view.
    pub fn has_accepted(&self, node: u64, view: u64) -> bool {
        self.said().filter(|said| said.from == node).any(|said| match &said.message {
            Message::Prepare(vote) => vote.view == view,
            Message::PrePrepare(order) => order.view == view,
            Message::NewView(new_view) => new_view.view == view && !new_view.proposals.is_empty(),
            _ => false,
        })
    }

    fn has_prepared(&self, node: u64, view: u64) -> bool {
        let is_it =
            |message: &Message| matches!(message, Message::Commit(it, _) if it.view == view);
        self.said().any(|said| said.from == node && is_it(&said.message))
    }

    /// What was said, of a view.
    pub fn said(&self) -> impl Iterator<Item = &Said> {
        self.said.values().map(|said| &**said)
    }

    /// A replica hears something, and everything that follows at once happens.
    fn hear(&mut self, node: u64, from: u64, message: Message) {
        // What it drops, it drops.
        if is_fit(&message) {
            let _ = self.driver(node).step(0, from, message);
        }
        self.settle(node);
    }

    fn settle(&mut self, node: u64) {
        let mut outputs = Outputs::default();
        let mut letters = Vec::new();
        let driver = self.drivers.get_mut(&node).expect("it is a correct one");
        while driver.has_ready() {
            driver.take_ready(&mut outputs);
            for (_, write) in &outputs.writes {
                if let Write::Entry { term, index, .. } = write {
                    driver.placed(0, *index, *term, Place::default());
                }
            }
            for (_, event) in outputs.events.drain(..) {
                if let Event::Committed { index, .. } = event {
                    let log = driver.group(0).expect("it exists").log();
                    let chain = log.chain_at(index).expect("it was told");
                    self.done.entry(index).or_default().insert(chain);
                }
            }
            letters.extend(outputs.messages.drain(..).map(|(_, letter)| letter));
            driver.persisted(outputs.batch);
        }
        letters.into_iter().for_each(|letter| self.post(node, letter));
    }

    fn post(&mut self, from: u64, Letter { to, message }: Letter) {
        match &message {
            // Answered at once.
            Message::BatchAsk(seq, digest) => {
                for other in to {
                    if self.drivers.contains_key(&other) {
                        self.hear(other, from, message.clone());
                    } else if let Some(batch) = self.liar.batch(digest) {
                        self.hear(from, other, Message::BatchTell(*seq, batch));
                    }
                }
            }
            Message::BatchTell(..) => {
                for other in to {
                    if self.drivers.contains_key(&other) {
                        self.hear(other, from, message.clone());
                    }
                }
            }
            Message::PrePrepare(_)
            | Message::Prepare(_)
            | Message::Commit(..)
            | Message::ViewChange(_)
            | Message::NewView(_) => self.note(from, message),
            Message::Reply(reply) => {
                let (seq, chain) = (reply.seq, reply.chain);
                self.note(from, message);
                self.count_replies(seq, chain);
            }
            _ => {}
        }
    }

    fn note(&mut self, from: u64, message: Message) {
        let said = Said { from, message };
        let mut hasher = DefaultHasher::new();
        said.hash(&mut hasher);
        self.said.insert(hasher.finish(), Arc::new(said));
    }

    /// Whether a client could take an entry for done, with the liar's help.
    fn count_replies(&mut self, seq: u64, chain: Digest) {
        let mut tentative: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let mut committed = BTreeSet::from([self.liar.me]);
        for said in self.said.values() {
            let Message::Reply(reply) = &said.message else { continue };
            if (reply.seq, reply.chain) == (seq, chain) {
                tentative.entry(reply.view).or_default().insert(said.from);
                if !reply.is_tentative {
                    committed.insert(said.from);
                }
            }
        }
        let faulty = self.group.faulty();
        let is_fast = tentative.values().any(|nodes| nodes.len() + 1 > 2 * faulty);
        if is_fast || committed.len() > faulty {
            self.done.entry(seq).or_default().insert(chain);
        }
    }

    /// Votes of a view that a replica has not heard: those of correct ones, and the liar's, which votes
    /// for whatever the replica itself is for.
    fn votes(&self, node: u64, view: u64, are_commits: bool) -> Vec<(u64, Message)> {
        let mut votes = Vec::new();
        let mut own = BTreeSet::new();
        for Said { from, message } in self.said() {
            match message {
                Message::Prepare(vote) if vote.view == view => {
                    if *from == node {
                        own.insert((vote.seq, vote.chain));
                    } else if !are_commits {
                        votes.push((*from, message.clone()));
                    }
                }
                Message::PrePrepare(order) if order.view == view && *from == node => {
                    let chain = link(&order.parent, order.seq, order.batch.digest());
                    own.insert((order.seq, chain));
                }
                Message::NewView(new_view) if new_view.view == view && *from == node => {
                    let (_, chosen) =
                        coreflow::consensus::pbft::new_view::choose(&new_view.changes);
                    own.extend(chosen.iter().map(|it| (it.seq, it.chain())));
                }
                Message::Commit(vote, _) if vote.view == view && are_commits && *from != node => {
                    votes.push((*from, message.clone()));
                }
                _ => {}
            }
        }
        let is_primary = self.primary(view) == self.liar.me;
        if are_commits || !is_primary {
            let vote = |(seq, chain)| (self.liar.me, self.liar.vote(view, seq, chain, are_commits));
            votes.extend(own.into_iter().map(vote));
        }
        votes
    }

    /// How many ways there are to go on.
    pub fn ways(&self, line: Line, view: u64) -> usize {
        let is_there = |node: u64| self.view(node) == (view, true);
        match line {
            Line::Order(node) if !is_there(node) || self.primary(view) == node => 1,
            Line::Order(node) if self.primary(view) == self.liar.me => {
                1 + self.liar.orders(self, node, view).len()
            }
            Line::Order(_) => 2,
            // What is heard too early is heard again later.
            Line::Prepares(node) => 1 + usize::from(self.has_accepted(node, view)),
            Line::Commits(node) => 1 + usize::from(self.has_prepared(node, view)),
            Line::Leave => 1,
            Line::Changes if self.primary(view) == self.liar.me => 1,
            // All correct ones; or the liar and one of the others.
            Line::Changes => 1 + 2 * self.liar.changes(self, view).len(),
            Line::NewView(node) if self.primary(view) == node || is_there(node) => 1,
            Line::NewView(_) if self.primary(view) == self.liar.me => {
                1 + self.liar.new_views(self, view).len()
            }
            Line::NewView(_) => 2,
        }
    }

    /// Goes one of the ways.
    pub fn go(&mut self, line: Line, view: u64, way: usize) {
        match line {
            Line::Order(node) if way > 0 => {
                let primary = self.primary(view);
                if primary == self.liar.me {
                    let order = self.liar.orders(self, node, view).swap_remove(way - 1);
                    self.hear(node, primary, order);
                    return;
                }
                let orders = self.said().filter_map(|said| match &said.message {
                    Message::PrePrepare(order) if order.view == view && said.from == primary => {
                        Some((order.seq, said.message.clone()))
                    }
                    _ => None,
                });
                let orders: BTreeMap<_, _> = orders.collect();
                orders.into_values().for_each(|order| self.hear(node, primary, order));
            }
            Line::Prepares(node) | Line::Commits(node) if way > 0 => {
                let are_commits = matches!(line, Line::Commits(_));
                for (from, vote) in self.votes(node, view, are_commits) {
                    self.hear(node, from, vote);
                }
            }
            Line::Leave => self.leave(view),
            Line::Changes => self.change(view, way),
            Line::NewView(node) if way > 0 => {
                let primary = self.primary(view);
                let new_view = if primary == self.liar.me {
                    Some(self.liar.new_views(self, view).swap_remove(way - 1))
                } else {
                    let mut said = self.said();
                    said.find_map(|said| match &said.message {
                        Message::NewView(it) if it.view == view => Some(said.message.clone()),
                        _ => None,
                    })
                };
                if let Some(new_view) = new_view {
                    self.hear(node, primary, new_view);
                }
            }
            _ => {}
        }
    }

    /// All lose patience with a view. What was said in it is heard by nobody any more.
    fn leave(&mut self, view: u64) {
        self.provable = self.liar.provable(self, view + 1);
        self.now_ms += TICK_MS;
        let now_ms = self.now_ms;
        for node in self.nodes() {
            self.driver(node).advance(now_ms);
            self.settle(node);
        }
        self.said.retain(|_, said| match &said.message {
            Message::PrePrepare(order) => order.view > view,
            Message::Prepare(vote) | Message::Commit(vote, _) => vote.view > view,
            Message::ViewChange(change) => change.view > view,
            Message::NewView(new_view) => new_view.view > view,
            _ => true,
        });
    }

    /// View changes are heard.
    fn change(&mut self, view: u64, way: usize) {
        let primary = self.primary(view);
        let from_correct = |replicas: &Self| {
            let said = replicas.said().filter_map(|said| match &said.message {
                Message::ViewChange(it) if it.view == view => {
                    Some((said.from, said.message.clone()))
                }
                _ => None,
            });
            said.collect::<BTreeMap<_, _>>()
        };
        if primary == self.liar.me {
            return;
        }
        let changes = from_correct(self);
        let others: Vec<_> = changes.into_iter().filter(|(from, _)| *from != primary).collect();
        let Some(way) = way.checked_sub(1) else {
            for (from, change) in others {
                self.hear(primary, from, change);
            }
            return;
        };
        let change = self.liar.changes(self, view).swap_remove(way / 2);
        self.hear(primary, self.liar.me, change);
        if let Some((from, change)) = others.get(way % 2) {
            self.hear(primary, *from, change.clone());
        }
    }
}
