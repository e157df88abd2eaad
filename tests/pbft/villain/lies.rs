//! How a villain twists what its replica says.

use super::{Other, Trick, Villain};
use coreflow::consensus::pbft::{
    Batch, Message, Request,
    batch::link,
    certificate::{Certificate, Stable},
    keys::{Digest, Signature, Statement},
    message::{Entries, NewView, PrePrepare, StatusReport, ViewChange},
};
use std::sync::Arc;

impl Villain {
    /// Makes of a message to somebody what the trick makes of it.
    pub(super) fn lie(&mut self, trick: Trick, partition: u16, to: u64, message: &mut Message) {
        match (trick, message) {
            (Trick::Equivocate, message) if self.side.contains(&to) => {
                self.show_other_face(partition, message);
            }
            (Trick::Invent, Message::PrePrepare(order)) => self.invent(partition, order),
            (Trick::Forge, Message::Prepare(vote) | Message::Commit(vote, _)) => {
                match self.rng.u32(..3) {
                    0 => vote.signature = Signature([self.rng.u8(..); 64]),
                    1 => vote.view += 1,
                    _ => vote.seq += 1,
                }
            }
            (Trick::LieInChanges, Message::ViewChange(change)) => {
                let mut twisted = ViewChange::clone(change);
                self.lie_in_change(partition, &mut twisted);
                *change = Arc::new(twisted);
            }
            (Trick::LieInNewViews, Message::NewView(new_view)) => {
                let mut twisted = NewView::clone(new_view);
                self.lie_in_new_view(partition, &mut twisted);
                *new_view = Arc::new(twisted);
            }
            (Trick::CorruptTransfer, Message::Entries(entries)) => {
                self.corrupt(partition, entries);
            }
            (Trick::CorruptTransfer, Message::Digests(digests)) => match self.rng.u32(..6) {
                0 => digests.digests.iter_mut().for_each(|digest| digest[0] ^= 1),
                1 => drop(digests.digests.pop()),
                2 => digests.digests.push([8; 32]),
                3 => digests.first += 1,
                4 => digests.point = Some((digests.first.saturating_sub(1), [3; 32])),
                _ => {}
            },
            (Trick::CorruptTransfer, Message::BatchTell(_, batch)) => {
                *batch = Batch::own(batch.origin(), self.me, self.operation());
            }
            (Trick::CorruptTransfer, Message::Stable(stable)) => {
                let mut twisted = Stable::clone(stable);
                twisted.seq += self.rng.u64(..9);
                *stable = Arc::new(twisted);
            }
            (Trick::CorruptTransfer, Message::Checkpoint(checkpoint)) => {
                checkpoint.table = [self.rng.u8(..); 32];
                let (seq, chain, table) = (checkpoint.seq, &checkpoint.chain, &checkpoint.table);
                let statement = Statement::Checkpoint { seq, chain, table };
                checkpoint.signature = self.keys[usize::from(partition)].sign(statement);
            }
            (Trick::LieToClients, Message::Reply(reply)) => {
                match self.rng.u32(..3) {
                    0 => reply.seq += 1,
                    1 => reply.chain = [self.rng.u8(..); 32],
                    _ => reply.is_tentative = !reply.is_tentative,
                }
                reply.sign(&self.keys[usize::from(partition)]);
            }
            (Trick::LieToClients, Message::HeadTell(_, seq, chain)) => {
                *seq += 1;
                *chain = [self.rng.u8(..); 32];
            }
            (Trick::LieInStatus, Message::Status(report)) => self.lie_in_status(report),
            _ => {}
        }
    }

    /// To one part of the others it is the primary of another log.
    fn show_other_face(&mut self, partition: u16, message: &mut Message) {
        match message {
            Message::PrePrepare(order) => {
                let parent = order
                    .seq
                    .checked_sub(1)
                    .and_then(|before| self.others.get(&(partition, before)))
                    .filter(|other| other.view == order.view);
                order.parent = parent.map_or(order.parent, |other| other.chain);
                let known = self.others.get(&(partition, order.seq));
                let known = known.filter(|other| other.view == order.view).and_then(|other| {
                    let is_it = |batch: &&Batch| {
                        link(&order.parent, order.seq, batch.digest()) == other.chain
                    };
                    self.batches.iter().find(is_it).cloned()
                });
                order.batch = known.unwrap_or_else(|| self.instead_of(&order.batch, order.view));
                let chain = self.sign_order(partition, order);
                self.others.insert((partition, order.seq), Other { view: order.view, chain });
                self.remember(order.batch.clone());
            }
            Message::Prepare(vote) => {
                let other = self.others.get(&(partition, vote.seq)).copied();
                if let Some(Other { view, chain }) = other.filter(|other| other.view == vote.view) {
                    (*vote, _) = self.votes(partition, view, vote.seq, chain);
                }
            }
            Message::Commit(vote, _) => {
                let other = self.others.get(&(partition, vote.seq)).copied();
                if let Some(Other { view, chain }) = other.filter(|other| other.view == vote.view) {
                    (_, *vote) = self.votes(partition, view, vote.seq, chain);
                }
            }
            _ => {}
        }
    }

    /// Another batch that a primary could propose as well.
    fn instead_of(&mut self, batch: &Batch, view: u64) -> Batch {
        let mut requests: Vec<_> =
            batch.operations().filter(|request| request.timestamp != 0).collect();
        if requests.len() < 2 {
            return Batch::own(view, self.me, self.operation());
        }
        match self.rng.bool() {
            true => requests.truncate(1),
            false => requests.reverse(),
        }
        Batch::of_requests(view, &requests)
    }

    fn sign_order(&mut self, partition: u16, order: &mut PrePrepare) -> Digest {
        let PrePrepare { view, seq, parent, .. } = *order;
        let chain = link(&parent, seq, order.batch.digest());
        let statement = Statement::PrePrepare { view, seq, chain: &chain };
        order.signature = self.keys[usize::from(partition)].sign(statement);
        chain
    }

    /// Orders what it may not.
    fn invent(&mut self, partition: u16, order: &mut PrePrepare) {
        let heard = self.heard.iter().filter(|(of, _)| *of == partition);
        let mut requests: Vec<Request> = heard
            .filter_map(|(_, message)| match message {
                Message::Request(request) => Some(request.clone()),
                _ => None,
            })
            .collect();
        self.rng.shuffle(&mut requests);
        requests.truncate(3);
        order.batch = match self.rng.u32(..5) {
            // What was done already, perhaps.
            0 | 1 if !requests.is_empty() => Batch::of_requests(order.view, &requests),
            // The same twice.
            2 if !requests.is_empty() => {
                let twice = [requests[0].clone(), requests[0].clone()];
                Batch::of_requests(order.view, &twice)
            }
            // In the name of somebody else.
            3 => {
                let client = self.anybody();
                let (operation, timestamp) = (self.operation(), 1 << 40);
                let signature = Signature([7; 64]);
                let forged = Request { client, timestamp, operation, signature };
                Batch::of_requests(order.view, &[forged])
            }
            // No operation at all.
            _ => Batch::own(order.view, self.me, vec![7; 9].into()),
        };
        self.sign_order(partition, order);
    }

    /// A certificate that nobody else has signed.
    pub(super) fn forged(
        &mut self,
        partition: u16,
        view: u64,
        seq: u64,
        parent: Digest,
    ) -> Certificate {
        let primary = self.primary(partition, view);
        let batch = Batch::own(view, primary, self.operation());
        let (digest, chain) = (*batch.digest(), link(&parent, seq, batch.digest()));
        self.remember(batch);
        let keys = &self.keys[usize::from(partition)];
        let prepare = keys.sign(Statement::Prepare { view, seq, chain: &chain });
        let backups = self.nodes.iter().copied().filter(|node| *node != primary);
        Certificate {
            view,
            seq,
            parent,
            digest,
            primary: keys.sign(Statement::PrePrepare { view, seq, chain: &chain }),
            prepares: backups.take(2 * self.faulty()).map(|node| (node, prepare)).collect(),
            commits: Vec::new(),
        }
    }

    /// Says something else about what is prepared.
    pub(super) fn lie_in_change(&mut self, partition: u16, change: &mut ViewChange) {
        match self.rng.u32(..9) {
            0 => change.prepared.clear(),
            1 => change.prepared.truncate(self.rng.usize(..=change.prepared.len())),
            2 => change.stable = Stable::default(),
            3 => {
                // As if there had been something else where there is something.
                let view = change.view.saturating_sub(1);
                let seq = change.stable.seq + 1;
                let forged = self.forged(partition, view, seq, change.stable.chain);
                change.prepared = vec![forged];
            }
            4 => {
                let last = change.prepared.last();
                let (seq, chain) = last.map_or((change.stable.seq, change.stable.chain), |last| {
                    (last.seq, last.chain())
                });
                let view = change.view.saturating_sub(1);
                change.prepared.push(self.forged(partition, view, seq + 1, chain));
            }
            5 => change.prepared.iter_mut().for_each(|last| last.view += 1),
            6 => change.replica = self.anybody(),
            7 => change.view += self.rng.u64(1..4),
            _ => change.stable.seq += 4,
        }
        change.sign(&self.keys[usize::from(partition)]);
    }

    /// Begins a view otherwise than it should.
    fn lie_in_new_view(&mut self, partition: u16, new_view: &mut NewView) {
        match self.rng.u32(..7) {
            0 => drop(new_view.changes.pop()),
            1 => {
                if let Some(first) = new_view.changes.first().cloned() {
                    new_view.changes.iter_mut().for_each(|change| *change = first.clone());
                }
            }
            2 => {
                // What the others have prepared is forgotten.
                for change in &mut new_view.changes {
                    let mut twisted = ViewChange::clone(change);
                    twisted.prepared.clear();
                    *change = Arc::new(twisted);
                }
                new_view.proposals.clear();
            }
            3 => drop(new_view.proposals.pop()),
            4 => {
                // What it says itself is something else than what it said.
                for change in &mut new_view.changes {
                    if change.replica == self.me {
                        let mut twisted = ViewChange::clone(change);
                        self.lie_in_change(partition, &mut twisted);
                        *change = Arc::new(twisted);
                    }
                }
            }
            5 => new_view.view += self.nodes.len() as u64,
            _ => {
                let signature = Signature([9; 64]);
                new_view.proposals.push(signature);
            }
        }
        new_view.sign(&self.keys[usize::from(partition)]);
    }

    /// Wrong entries, or a wrong point.
    fn corrupt(&mut self, partition: u16, entries: &mut Entries) {
        match self.rng.u32(..5) {
            0 => {
                let at = self.rng.usize(..entries.batches.len().max(1));
                let operation = self.operation();
                if let Some(batch) = entries.batches.get_mut(at) {
                    *batch = Batch::own(batch.origin(), self.me, operation);
                }
            }
            1 => entries.batches.reverse(),
            2 => entries.first += 1,
            3 => {
                if let Some((index, chain, _)) = &mut entries.point {
                    *index += self.rng.u64(..3);
                    *chain = [self.rng.u8(..); 32];
                } else {
                    let index = entries.first + self.rng.u64(..9);
                    entries.point = Some((index, [3; 32], Arc::default()));
                }
            }
            _ => {
                let view = self.last.get(&partition).map_or(0, |(view, ..)| *view);
                let operation = self.operation();
                entries.batches.push(Batch::own(view, self.me, operation));
            }
        }
    }

    pub(super) fn lie_in_status(&mut self, report: &mut StatusReport) {
        let StatusReport { view, point, stable, committed, accepted, prepared, is_active } = report;
        for number in [view, point, stable, committed, accepted, prepared] {
            match self.rng.u32(..5) {
                0 => *number = 0,
                1 => *number += self.rng.u64(..20),
                2 => *number = u64::MAX - self.rng.u64(..3),
                _ => {}
            }
        }
        *is_active ^= self.rng.bool();
    }
}
