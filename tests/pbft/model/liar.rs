//! The liar of the model: all that it can say with its own key and what others have said.

use super::replicas::{Replicas, Said, requests};
use crate::node::Group;
use coreflow::consensus::pbft::{
    Batch, Keys, Message,
    batch::link,
    certificate::{Certificate, Stable},
    keys::{Digest, Signature, Statement},
    message::{NewView, PrePrepare, ViewChange, Vote},
    new_view::choose,
};
use std::{collections::BTreeMap, sync::Arc};

/// The liar.
pub struct Liar {
    /// Its number.
    pub me: u64,
    keys: Keys,
    nodes: Vec<u64>,
    /// In the order of views: what it orders as a primary.
    batches: Vec<Batch>,
}

impl Liar {
    /// A liar among others.
    pub fn new(group: &Group, me: u64) -> Self {
        let batches = (0..4)
            .flat_map(|view| requests(group).map(|request| Batch::of_requests(view, &[request])));
        let batches = batches.collect();
        Self { me, keys: group.keys(me, 0), nodes: group.nodes.clone(), batches }
    }

    fn primary(&self, view: u64) -> u64 {
        self.nodes[(view % 4) as usize]
    }

    /// A batch of its own, by its digest.
    pub fn batch(&self, digest: &Digest) -> Option<Batch> {
        self.batches.iter().find(|batch| batch.digest() == digest).cloned()
    }

    /// Its vote.
    pub fn vote(&self, view: u64, seq: u64, chain: Digest, is_commit: bool) -> Message {
        if is_commit {
            let signature = self.keys.sign(Statement::Commit { view, seq, chain: &chain });
            Message::Commit(Vote { view, seq, chain, signature }, 0)
        } else {
            let signature = self.keys.sign(Statement::Prepare { view, seq, chain: &chain });
            Message::Prepare(Vote { view, seq, chain, signature })
        }
    }

    /// What it can order as the primary of a view in which nothing was ordered again: one thing or
    /// another.
    pub fn orders(&self, replicas: &Replicas, node: u64, view: u64) -> Vec<Message> {
        if replicas.has_accepted(node, view) || replicas.has_committed(node) {
            return Vec::new();
        }
        let batches = &self.batches[2 * view as usize..][..2];
        batches.iter().map(|batch| Message::PrePrepare(self.order(view, batch.clone()))).collect()
    }

    fn order(&self, view: u64, batch: Batch) -> PrePrepare {
        let (seq, parent) = (1, Digest::default());
        let chain = link(&parent, seq, batch.digest());
        let signature = self.keys.sign(Statement::PrePrepare { view, seq, chain: &chain });
        PrePrepare { view, seq, parent, signature, batch }
    }

    /// All that it can say of why it leaves for a view: that nothing is prepared, each thing that it can
    /// prove, and one that it cannot.
    pub fn changes(&self, replicas: &Replicas, view: u64) -> Vec<Message> {
        let changes = self.view_changes(replicas, view).into_iter();
        changes.map(|change| Message::ViewChange(Arc::new(change))).collect()
    }

    fn view_changes(&self, replicas: &Replicas, view: u64) -> Vec<ViewChange> {
        let mut rows = vec![Vec::new()];
        rows.extend(replicas.provable.iter().map(|it| vec![it.clone()]));
        rows.push(vec![self.forged(view - 1)]);
        let change = |prepared| {
            let (replica, signature) = (self.me, Signature::NONE);
            let stable = Stable::default();
            let mut change = ViewChange { view, stable, prepared, replica, signature };
            change.sign(&self.keys);
            change
        };
        rows.into_iter().map(change).collect()
    }

    /// Certificates of the first entry, of views below one, that it can make of others' votes and its
    /// own, beside those that it has.
    pub fn provable(&self, replicas: &Replicas, below: u64) -> Vec<Certificate> {
        let mut orders: BTreeMap<(u64, Digest), (Digest, Digest, Signature)> = BTreeMap::new();
        let mut votes: BTreeMap<(u64, Digest), BTreeMap<u64, Signature>> = BTreeMap::new();
        let own = (0..below).filter(|view| self.primary(*view) == self.me).flat_map(|view| {
            let batches = &self.batches[2 * view as usize..][..2];
            batches.iter().map(move |batch| self.order(view, batch.clone()))
        });
        let mut know = |order: &PrePrepare| {
            let chain = link(&order.parent, order.seq, order.batch.digest());
            let known = (order.parent, *order.batch.digest(), order.signature);
            orders.insert((order.view, chain), known);
        };
        own.for_each(|order| know(&order));
        for Said { from, message } in replicas.said() {
            match message {
                Message::PrePrepare(order) if order.seq == 1 => know(order),
                Message::Prepare(vote) if vote.seq == 1 => {
                    votes.entry((vote.view, vote.chain)).or_default().insert(*from, vote.signature);
                }
                _ => {}
            }
        }
        let certificate = |((view, chain), (parent, digest, primary))| {
            let mut prepares = votes.get(&(view, chain)).cloned().unwrap_or_default();
            if self.primary(view) != self.me {
                let statement = Statement::Prepare { view, seq: 1, chain: &chain };
                prepares.insert(self.me, self.keys.sign(statement));
            }
            let prepares: Vec<_> = prepares.into_iter().take(2).collect();
            let certificate = Certificate {
                view,
                seq: 1,
                parent,
                digest,
                primary,
                prepares,
                commits: Vec::new(),
            };
            (certificate.prepares.len() == 2 && view < below).then_some(certificate)
        };
        let known = replicas.provable.iter().cloned();
        known.chain(orders.into_iter().filter_map(certificate)).collect()
    }

    /// A certificate of something that it would have liked, signed by nobody else.
    fn forged(&self, view: u64) -> Certificate {
        let parent = Digest::default();
        let digest = *self.batches[2 * view as usize + 1].digest();
        let chain = link(&parent, 1, &digest);
        let vote = self.keys.sign(Statement::Prepare { view, seq: 1, chain: &chain });
        let primary = self.keys.sign(Statement::PrePrepare { view, seq: 1, chain: &chain });
        let backups = self.nodes.iter().filter(|node| **node != self.primary(view));
        let prepares = backups.take(2).map(|node| (*node, vote)).collect();
        Certificate { view, seq: 1, parent, digest, primary, prepares, commits: Vec::new() }
    }

    /// All ways in which it can begin a view: with any two of the others' view changes and one of its
    /// own.
    pub fn new_views(&self, replicas: &Replicas, view: u64) -> Vec<Message> {
        let others = replicas.said().filter_map(|said| match &said.message {
            Message::ViewChange(change) if change.view == view => Some(change.clone()),
            _ => None,
        });
        let others: Vec<_> = others.collect();
        let mut all = Vec::new();
        for left_out in 0..others.len() {
            for own in self.view_changes(replicas, view) {
                let mut changes = vec![Arc::new(own)];
                let two = others.iter().enumerate().filter(|(at, _)| *at != left_out);
                changes.extend(two.map(|(_, change)| change.clone()));
                changes.sort_by_key(|change| change.replica);
                let (_, chosen) = choose(&changes);
                let sign = |it: &&Certificate| {
                    let (seq, chain) = (it.seq, it.chain());
                    self.keys.sign(Statement::PrePrepare { view, seq, chain: &chain })
                };
                let proposals = chosen.iter().map(sign).collect();
                let signature = Signature::NONE;
                let mut new_view = NewView { view, changes, proposals, signature };
                new_view.sign(&self.keys);
                all.push(Message::NewView(Arc::new(new_view)));
            }
        }
        all
    }
}
