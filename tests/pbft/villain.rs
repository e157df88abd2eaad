//! Replicas that lie: a real replica with a real key, whose words are twisted on their way out, and which
//! says things of its own.
//!
//! What a villain does are tricks that a seed chooses, several at once. Villains of a run conspire: they
//! show the same of two faces to the same replicas. Nobody has anybody else's key.

mod deeds;
mod lies;

use crate::operation::Operation;
use bytes::Bytes;
use coreflow::consensus::pbft::{
    Batch, Keys, Message,
    batch::link,
    keys::{Digest, Statement},
    message::{PrePrepare, ViewChange, Vote},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Messages that are remembered, to be told again.
const HEARD_MAX: usize = 256;
/// Batches that are remembered for whoever asks.
const BATCHES_MAX: usize = 256;
/// The longest that a message is held back, microseconds.
const LATE_US_MAX: u64 = 3_000_000;

/// What a villain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trick {
    /// It says nothing.
    Silent,
    /// It says nothing to some, or nothing of some kinds.
    Mute,
    /// It does not hear some.
    Deaf,
    /// It says some things late to some.
    Late,
    /// There are two of it, which know nothing of each other; each talks to others.
    Twin,
    /// It orders different requests before different replicas, and votes for either.
    Equivocate,
    /// It votes for whatever anybody else votes for.
    Agreeable,
    /// It shows votes and signatures of others as if they were meant here, and forges some.
    Forge,
    /// It says again what it heard, to others, in other partitions.
    Replay,
    /// It lies about what it has prepared, and demands new views without a reason.
    LieInChanges,
    /// It begins views with what does not follow from what it was told.
    LieInNewViews,
    /// It gives others wrong entries, points and batches.
    CorruptTransfer,
    /// It gives clients and readers wrong answers.
    LieToClients,
    /// It says that it is further, or less far, than it is.
    LieInStatus,
    /// It asks for different things under one number.
    TwoFaced,
    /// It orders what nobody asked for, or what was done.
    Invent,
    /// It says much that makes no sense.
    Flood,
    /// It orders more than others have room for.
    Bloat,
    /// It orders what is asked for, and does not what only a primary can.
    Shirk,
    /// It wants ever higher views, in all partitions, and signs that well.
    Climb,
    /// It asks different replicas for different things, and the more the less there is room for.
    Crowd,
    /// Some bytes of what it says are wrong.
    Garble,
}

impl Trick {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Silent,
        Self::Mute,
        Self::Deaf,
        Self::Late,
        Self::Twin,
        Self::Equivocate,
        Self::Agreeable,
        Self::Forge,
        Self::Replay,
        Self::LieInChanges,
        Self::LieInNewViews,
        Self::CorruptTransfer,
        Self::LieToClients,
        Self::LieInStatus,
        Self::TwoFaced,
        Self::Invent,
        Self::Flood,
        Self::Bloat,
        Self::Shirk,
        Self::Climb,
        Self::Crowd,
        Self::Garble,
    ];

    /// The tricks of a villain: one to five.
    pub fn random(rng: &mut fastrand::Rng) -> Vec<Self> {
        let mut tricks: BTreeSet<_> =
            (0..rng.usize(1..=5)).map(|_| Self::ALL[rng.usize(..Self::ALL.len())]).collect();
        // Who says nothing has no use for others.
        if tricks.contains(&Self::Silent) && tricks.len() > 1 {
            tricks.remove(&Self::Silent);
        }
        tricks.into_iter().collect()
    }

    /// The trick of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trick| format!("{trick:?}") == name)
    }
}

/// Something that a villain sends.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// About which partition.
    pub partition: u16,
    /// To whom.
    pub to: u64,
    /// What.
    pub message: Message,
    /// How long it is held back, microseconds.
    pub late_us: u64,
    /// How many of its bytes are changed.
    pub garbled: usize,
}

impl Parcel {
    /// A message as it is.
    pub fn new(partition: u16, to: u64, message: Message) -> Self {
        Self { partition, to, message, late_us: 0, garbled: 0 }
    }
}

/// What another part of the replicas is told to be at an entry.
#[derive(Clone, Copy, Debug)]
struct Other {
    view: u64,
    chain: Digest,
}

/// A replica that lies.
pub struct Villain {
    /// Its number.
    pub me: u64,
    nodes: Vec<u64>,
    keys: Vec<Keys>,
    rng: fastrand::Rng,
    tricks: Vec<Trick>,
    /// Who is shown the other face.
    side: BTreeSet<u64>,
    /// All villains: two that answer each other would never end.
    comrades: BTreeSet<u64>,
    /// At whom silence, deafness and delays are aimed.
    victims: BTreeSet<u64>,
    /// Kinds of messages that it likes to hold back.
    kinds: u32,
    heard: VecDeque<(u16, Message)>,
    batches: VecDeque<Batch>,
    others: BTreeMap<(u16, u64), Other>,
    changes: BTreeMap<u16, Arc<ViewChange>>,
    /// The last view, entry and chain that was heard of in a partition.
    last: BTreeMap<u16, (u64, u64, Digest)>,
    number: u64,
    /// How far it has climbed.
    climbed: u64,
    /// What it orders behind an entry: the partition, the view, the entry.
    train: ((u16, u64, u64), Vec<PrePrepare>),
}

impl Villain {
    /// A villain with the keys of its partitions; `side` is shared with its like, the comrades.
    pub fn new(
        seed: u64,
        me: u64,
        nodes: &[u64],
        keys: Vec<Keys>,
        tricks: Vec<Trick>,
        side: BTreeSet<u64>,
        comrades: BTreeSet<u64>,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let victims = nodes.iter().copied().filter(|_| rng.bool()).collect();
        let kinds = if rng.bool() { u32::MAX } else { rng.u32(..) };
        Self {
            me,
            nodes: nodes.to_vec(),
            keys,
            rng,
            tricks,
            side,
            comrades,
            victims,
            kinds,
            heard: VecDeque::new(),
            batches: VecDeque::new(),
            others: BTreeMap::new(),
            changes: BTreeMap::new(),
            last: BTreeMap::new(),
            number: 0,
            climbed: 0,
            train: Default::default(),
        }
    }

    /// Whether it does something.
    pub fn has(&self, trick: Trick) -> bool {
        self.tricks.contains(&trick)
    }

    /// Its tricks.
    pub fn tricks(&self) -> &[Trick] {
        &self.tricks
    }

    /// Which of two twins hears and answers somebody.
    pub fn twin_of(&self, node: u64) -> usize {
        usize::from(self.has(Trick::Twin) && self.side.contains(&node))
    }

    /// Whether it hears somebody.
    pub fn hears(&mut self, from: u64) -> bool {
        !self.has(Trick::Deaf) || !self.victims.contains(&from) || self.rng.u32(..10) == 0
    }

    fn faulty(&self) -> usize {
        (self.nodes.len() - 1) / 3
    }

    fn primary(&self, partition: u16, view: u64) -> u64 {
        let count = self.nodes.len() as u64;
        self.nodes[((u64::from(partition) % count + view % count) % count) as usize]
    }

    fn anybody(&mut self) -> u64 {
        let others: Vec<_> = self.nodes.iter().copied().filter(|node| *node != self.me).collect();
        others[self.rng.usize(..others.len())]
    }

    /// An operation of its own, as good as any.
    fn operation(&mut self) -> Bytes {
        self.number += 1;
        let filling = self.rng.usize(..64);
        Operation { author: self.me, number: self.number }.encode(filling)
    }

    fn remember(&mut self, batch: Batch) {
        if self.batches.len() == BATCHES_MAX {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }

    /// What really leaves when its replica says something to somebody.
    pub fn twist(&mut self, partition: u16, to: u64, message: Message) -> Vec<Parcel> {
        if let Message::ViewChange(change) = &message {
            self.changes.insert(partition, change.clone());
        }
        let mut parcels = vec![Parcel::new(partition, to, message)];
        for trick in self.tricks.clone() {
            let mut twisted = Vec::new();
            for parcel in parcels {
                self.apply(trick, parcel, &mut twisted);
            }
            parcels = twisted;
        }
        parcels
    }

    fn apply(&mut self, trick: Trick, mut parcel: Parcel, out: &mut Vec<Parcel>) {
        let is_victim = self.victims.contains(&parcel.to);
        let is_kind = self.kinds & (1 << kind(&parcel.message)) != 0;
        match trick {
            Trick::Silent => return,
            Trick::Mute if is_victim && is_kind && self.rng.u32(..8) > 0 => return,
            Trick::Late if is_victim && is_kind => {
                parcel.late_us = self.rng.u64(..LATE_US_MAX);
            }
            Trick::Bloat => {
                if let Message::PrePrepare(order) = &parcel.message {
                    let (partition, to) = (parcel.partition, parcel.to);
                    let train = self.train(partition, order).into_iter();
                    let train = train.map(|it| Parcel::new(partition, to, Message::PrePrepare(it)));
                    out.extend(train);
                }
            }
            Trick::Garble if self.rng.u32(..6) == 0 => parcel.garbled = self.rng.usize(1..4),
            _ if self.rng.u32(..4) > 0 || trick == Trick::Equivocate => {
                self.lie(trick, parcel.partition, parcel.to, &mut parcel.message);
            }
            _ => {}
        }
        out.push(parcel);
    }

    /// What it says at once when it hears something.
    pub fn hear(&mut self, partition: u16, from: u64, message: &Message) -> Vec<Parcel> {
        let mut answers = Vec::new();
        match message {
            Message::PrePrepare(order) => {
                let chain = link(&order.parent, order.seq, order.batch.digest());
                self.last.insert(partition, (order.view, order.seq, chain));
                self.support(partition, from, (order.view, order.seq, chain), &mut answers);
            }
            Message::Prepare(vote) | Message::Commit(vote, _) => {
                self.support(partition, from, (vote.view, vote.seq, vote.chain), &mut answers);
            }
            Message::BatchAsk(seq, digest) => {
                let known = self.batches.iter().find(|batch| batch.digest() == digest);
                answers.extend(known.map(|batch| Message::BatchTell(*seq, batch.clone())));
            }
            Message::ReadAsk(id, view) if self.has(Trick::LieToClients) => {
                answers.push(Message::ReadTell(*id, *view));
            }
            _ => {}
        }
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back((partition, message.clone()));
        answers.into_iter().map(|answer| Parcel::new(partition, from, answer)).collect()
    }

    /// Votes for what somebody else votes for.
    fn support(
        &mut self,
        partition: u16,
        from: u64,
        (view, seq, chain): (u64, u64, Digest),
        answers: &mut Vec<Message>,
    ) {
        let is_agreeable =
            self.has(Trick::Agreeable) || self.has(Trick::Equivocate) && self.side.contains(&from);
        if is_agreeable && self.nodes.contains(&from) && !self.comrades.contains(&from) {
            let (prepare, commit) = self.votes(partition, view, seq, chain);
            if self.primary(partition, view) != self.me {
                answers.push(Message::Prepare(prepare));
            }
            answers.push(Message::Commit(commit, seq.saturating_sub(1)));
        }
    }

    fn votes(&self, partition: u16, view: u64, seq: u64, chain: Digest) -> (Vote, Vote) {
        let keys = &self.keys[usize::from(partition)];
        let prepare = keys.sign(Statement::Prepare { view, seq, chain: &chain });
        let commit = keys.sign(Statement::Commit { view, seq, chain: &chain });
        let vote = |signature| Vote { view, seq, chain, signature };
        (vote(prepare), vote(commit))
    }
}

/// The number of a message's kind.
pub fn kind(message: &Message) -> u32 {
    match message {
        Message::Request(_) => 0,
        Message::PrePrepare(_) => 1,
        Message::Prepare(_) => 2,
        Message::Commit(..) => 3,
        Message::Reply(_) => 4,
        Message::Checkpoint(_) => 5,
        Message::Stable(_) => 6,
        Message::ViewChange(_) => 7,
        Message::NewView(_) => 8,
        Message::Status(_) | Message::Owed(_) => 9,
        Message::BatchAsk(..) | Message::BatchTell(..) => 10,
        Message::EntriesAsk(..) | Message::Entries(_) => 11,
        Message::ReadAsk(..) | Message::ReadTell(..) => 12,
        Message::HeadAsk(_) | Message::HeadTell(..) => 13,
        Message::Proven(_) => 14,
        Message::DigestsAsk(..) | Message::Digests(_) => 15,
    }
}
