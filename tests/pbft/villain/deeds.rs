//! What a villain says without having been asked.

use super::{Parcel, Trick, Villain};
use crate::operation::Operation;
use coreflow::consensus::pbft::{
    Batch, Message, Request,
    batch::link,
    certificate::Stable,
    keys::{Digest, Signature, Statement},
    message::{Checkpoint, Entries, PrePrepare, Reply, StatusReport, ViewChange, Vote},
};
use std::sync::Arc;

/// Things that it says at once at most.
const DEEDS_MAX: usize = 4;
/// Large entries that it orders in a row at most, and their bytes.
const LARGE_MAX: u64 = 8;
/// Requests with which it fills the room that there is for it.
const CROWD: usize = 70;
const LARGE_BYTES_MAX: usize = 4_000;

impl Villain {
    /// What it says now; it is asked every now and then.
    pub fn act(&mut self) -> Vec<Parcel> {
        let partition = self.rng.u16(..self.keys.len() as u16);
        let mut parcels = Vec::new();
        for trick in self.tricks.clone() {
            let to = self.anybody();
            match trick {
                Trick::Replay => {
                    for _ in 0..self.rng.usize(..DEEDS_MAX) {
                        parcels.extend(self.again());
                    }
                }
                Trick::Forge => parcels.extend(self.another_vote(partition, to)),
                Trick::LieInChanges => parcels.extend(self.demand(partition)),
                Trick::Climb => parcels.extend(self.climb()),
                Trick::Crowd => parcels.extend(self.crowd(partition)),
                Trick::TwoFaced => self.ask_twice(partition, &mut parcels),
                Trick::Flood => {
                    for _ in 0..self.rng.usize(..DEEDS_MAX) {
                        let message = self.nonsense(partition);
                        parcels.push(Parcel::new(partition, self.anybody(), message));
                    }
                }
                _ => {}
            }
        }
        parcels
    }

    /// Large entries that it orders behind one, the same before everybody.
    pub(super) fn train(&mut self, partition: u16, order: &PrePrepare) -> Vec<PrePrepare> {
        let PrePrepare { view, seq, .. } = *order;
        if self.train.0 == (partition, view, seq) {
            return self.train.1.clone();
        }
        let mut parent = link(&order.parent, seq, order.batch.digest());
        let mut train = Vec::new();
        for seq in seq + 1..=seq + self.rng.u64(1..=LARGE_MAX) {
            self.number += 1;
            let filling = self.rng.usize(..LARGE_BYTES_MAX);
            let operation = Operation { author: self.me, number: self.number }.encode(filling);
            let batch = Batch::own(view, self.me, operation);
            let chain = link(&parent, seq, batch.digest());
            let statement = Statement::PrePrepare { view, seq, chain: &chain };
            let signature = self.keys[usize::from(partition)].sign(statement);
            train.push(PrePrepare { view, seq, parent, signature, batch });
            parent = chain;
        }
        self.train = ((partition, view, seq), train.clone());
        train
    }

    fn again(&mut self) -> Option<Parcel> {
        if self.heard.is_empty() {
            return None;
        }
        let (partition, message) = self.heard[self.rng.usize(..self.heard.len())].clone();
        let partition = match self.rng.u32(..4) {
            0 => self.rng.u16(..self.keys.len() as u16),
            _ => partition,
        };
        Some(Parcel::new(partition, self.anybody(), message))
    }

    /// Somebody else's vote, as its own.
    fn another_vote(&mut self, partition: u16, to: u64) -> Option<Parcel> {
        let votes = self.heard.iter().filter_map(|(of, message)| match message {
            Message::Prepare(vote) | Message::Commit(vote, _) if *of == partition => Some(*vote),
            _ => None,
        });
        let votes: Vec<_> = votes.collect();
        if votes.is_empty() {
            return None;
        }
        let vote = votes[self.rng.usize(..votes.len())];
        let message = match self.rng.bool() {
            true => Message::Prepare(vote),
            false => Message::Commit(vote, vote.seq),
        };
        Some(Parcel::new(partition, to, message))
    }

    /// A new view is demanded of everybody.
    fn demand(&mut self, partition: u16) -> Vec<Parcel> {
        if self.rng.u32(..4) > 0 {
            return Vec::new();
        }
        let mut change = self.change(partition);
        let view = self.last.get(&partition).map_or(0, |(view, ..)| *view);
        change.view = view + self.rng.u64(1..4);
        if self.rng.bool() {
            self.lie_in_change(partition, &mut change);
        } else {
            change.sign(&self.keys[usize::from(partition)]);
        }
        let message = Message::ViewChange(Arc::new(change));
        let others = self.nodes.iter().filter(|node| **node != self.me);
        others.map(|node| Parcel::new(partition, *node, message.clone())).collect()
    }

    /// Its last view change, or its first.
    fn change(&self, partition: u16) -> ViewChange {
        let known = self.changes.get(&partition).map(|change| ViewChange::clone(change));
        known.unwrap_or_else(|| ViewChange {
            view: 0,
            stable: Stable::default(),
            prepared: Vec::new(),
            replica: self.me,
            signature: Signature::NONE,
        })
    }

    /// It leaves a view above all that it has left.
    fn climb(&mut self) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        for partition in 0..self.keys.len() as u16 {
            let mut change = self.change(partition);
            self.climbed += 1;
            change.view = change.view.max(1) + self.climbed;
            change.sign(&self.keys[usize::from(partition)]);
            let message = Message::ViewChange(Arc::new(change));
            let others = self.nodes.iter().filter(|node| **node != self.me);
            parcels.extend(others.map(|node| Parcel::new(partition, *node, message.clone())));
            let view = self.last.get(&partition).map_or(0, |(view, ..)| *view);
            parcels.push(Parcel::new(partition, self.anybody(), Message::Owed(view)));
        }
        parcels
    }

    /// As a client it asks one replica for some things and the others for so much else that none of them
    /// has room for those.
    fn crowd(&mut self, partition: u16) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        if self.rng.u32(..4) > 0 {
            return parcels;
        }
        let keys = self.keys[usize::from(partition)].clone();
        let (me, one) = (self.me, self.anybody());
        for node in self.nodes.clone().into_iter().filter(|node| *node != me) {
            let (count, from) = if node == one { (1, 1 << 41) } else { (CROWD, 1 << 40) };
            for _ in 0..count {
                let operation = self.operation();
                let request = Request::new(&keys, me, from + self.number, operation);
                parcels.push(Parcel::new(partition, node, Message::Request(request)));
            }
        }
        parcels
    }

    /// As a client it wants different things under one number.
    fn ask_twice(&mut self, partition: u16, parcels: &mut Vec<Parcel>) {
        let timestamp = (1 << 32) + self.number;
        let keys = self.keys[usize::from(partition)].clone();
        for node in self.nodes.clone() {
            if node != self.me && self.rng.bool() {
                let operation = self.operation();
                let request = Request::new(&keys, self.me, timestamp, operation);
                parcels.push(Parcel::new(partition, node, Message::Request(request)));
            }
        }
    }

    /// Something signed that makes no sense.
    fn nonsense(&mut self, partition: u16) -> Message {
        let known = self.last.get(&partition).copied();
        let (view, seq, chain) = known.unwrap_or((0, 1, [0; 32]));
        let mut near = |number: u64| match self.rng.u32(..10) {
            0 => self.rng.u64(..),
            _ => (number + self.rng.u64(..12)).saturating_sub(4),
        };
        let (view, seq) = (near(view), near(seq));
        let digest: Digest = if self.rng.bool() { chain } else { [self.rng.u8(..); 32] };
        let operation = self.operation();
        let keys = &self.keys[usize::from(partition)];
        let vote = |signature| Vote { view, seq, chain: digest, signature };
        match self.rng.u32(..12) {
            0 => {
                Message::Prepare(vote(keys.sign(Statement::Prepare { view, seq, chain: &digest })))
            }
            1 => {
                let signature = keys.sign(Statement::Commit { view, seq, chain: &digest });
                Message::Commit(vote(signature), seq)
            }
            2 => {
                let (chain, table) = (digest, digest);
                let statement = Statement::Checkpoint { seq, chain: &chain, table: &table };
                let signature = keys.sign(statement);
                Message::Checkpoint(Checkpoint { seq, chain, table, signature })
            }
            3 => {
                let batch = Batch::own(view, self.me, operation);
                let chain = link(&digest, seq, batch.digest());
                let signature = keys.sign(Statement::PrePrepare { view, seq, chain: &chain });
                Message::PrePrepare(PrePrepare { view, seq, parent: digest, signature, batch })
            }
            4 => {
                let timestamp = self.rng.u64(..) >> self.rng.u32(..64);
                Message::Request(Request::new(keys, self.me, timestamp, operation))
            }
            5 => Message::BatchAsk(seq, digest),
            6 if self.rng.bool() => Message::DigestsAsk(view, seq, u64::MAX),
            6 => Message::EntriesAsk(view, seq, seq.saturating_add(self.rng.u64(..9))),
            7 => Message::ReadAsk(seq, view),
            8 => Message::ReadTell(seq, view),
            9 => Message::Entries(Entries {
                id: view,
                point: self.rng.bool().then(|| (seq, digest, Arc::default())),
                first: seq,
                batches: vec![Batch::own(view, self.me, operation)],
            }),
            10 => {
                let mut reply = Reply {
                    view,
                    client: self.me,
                    timestamps: vec![seq],
                    seq,
                    chain: digest,
                    is_tentative: self.rng.bool(),
                    signature: Signature::NONE,
                };
                reply.sign(keys);
                Message::Reply(reply)
            }
            _ => {
                let mut report = StatusReport { view, ..StatusReport::default() };
                self.lie_in_status(&mut report);
                Message::Status(report)
            }
        }
    }
}
