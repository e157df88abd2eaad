//! What the log thread is asked for, and what it says of itself and of the other nodes.

use super::{
    super::{
        book::Book,
        cluster::{Answer, Ask, Asked, NodeStatus, PartitionStatus, Status},
        disk::Disk,
        engine::{Engine, Refused, Requested},
        links::Links,
        members::{Change, ChangeRefused},
        peers::NodeId,
    },
    Keeper,
};
use crate::{runtime::disk::replace_file, wire::id::PartitionIndex};
use futures_channel::oneshot;
use std::{sync::mpsc::TryRecvError, time::Duration};

/// Changes that may wait for their outcome; further requests wait before they are looked at.
const CHANGES_MAX: usize = 16;
/// How often the status is written down again.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// A change whose outcome is not known in all partitions.
pub(super) struct Changing {
    change: Change,
    outcomes: Vec<(PartitionIndex, Result<(), ChangeRefused>)>,
    answer: oneshot::Sender<Answer>,
}

impl<D: Disk, L: Links<E::Message>, E: Engine> Keeper<D, L, E> {
    /// Does what cores and doors asked for.
    pub(super) fn do_what_is_asked(&mut self) {
        while self.take_ask() {}
    }

    /// Does the next thing that was asked for; whether there was one.
    pub(super) fn take_ask(&mut self) -> bool {
        if self.changes.len() >= CHANGES_MAX {
            return false;
        }
        let (ask, answer): Asked = match self.asked.try_recv() {
            Ok(asked) => asked,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return false,
        };
        let answered = match ask {
            // Whoever wants it to join is told that it cannot.
            Ask::Know(..) if !E::MEMBERS_CHANGE => Answer::Done,
            Ask::Know(node, address) => {
                if self.book.learn(node, address) {
                    self.book_changed(&[node]);
                }
                Answer::Done
            }
            Ask::Change(change) => {
                let outcomes = self.change(&change);
                self.changes.push(Changing { change, outcomes, answer });
                self.answer_changes();
                return true;
            }
            Ask::Request { partition, block } => {
                // The engine bounds how many are under way.
                let ticket = self.last_ticket + 1;
                match self.engine.request(partition, block, ticket) {
                    Ok(()) => {
                        self.last_ticket = ticket;
                        self.requests.insert(ticket, answer);
                        return true;
                    }
                    Err(Refused::NotLeader { leader }) => Answer::NotLeader { leader },
                    Err(Refused::Busy) => Answer::Busy,
                }
            }
            Ask::Transfer { partition, to } => match self.engine.transfer(partition, to) {
                Err(Refused::NotLeader { leader }) => Answer::NotLeader { leader },
                Ok(()) | Err(Refused::Busy) => Answer::Done,
            },
        };
        // Whoever asked may have gone away.
        let _ = answer.send(answered);
        true
    }

    /// Tells those who asked for records that they are in the log.
    pub(super) fn answer_requests(&mut self) {
        for Requested { ticket, index, is_fast } in self.engine.take_answers() {
            if let Some(answer) = self.requests.remove(&ticket) {
                // Whoever asked may have gone away.
                let _ = answer.send(Answer::Requested { index, is_fast });
            }
        }
    }

    fn change(&mut self, change: &Change) -> Vec<(PartitionIndex, Result<(), ChangeRefused>)> {
        let me = self.cluster.leaders.me();
        let led = (0..self.lanes.len() as PartitionIndex)
            .filter(|partition| self.cluster.leaders.of(*partition) == Some(me));
        led.map(|partition| (partition, self.engine.change(partition, change))).collect()
    }

    /// Answers those who asked for changes whose outcome is known by now. Groups know it after an
    /// election timeout at most.
    pub(super) fn answer_changes(&mut self) {
        let engine = &mut self.engine;
        let known = self.changes.extract_if(.., |Changing { change, outcomes, .. }| {
            for (partition, outcome) in outcomes.iter_mut() {
                if *outcome == Err(ChangeRefused::Unproven) {
                    *outcome = engine.change(*partition, change);
                }
            }
            !outcomes.iter().any(|(_, outcome)| *outcome == Err(ChangeRefused::Unproven))
        });
        for Changing { outcomes, answer, .. } in known {
            // Whoever asked may have gone away.
            let _ = answer.send(Answer::Changes(outcomes));
        }
    }

    /// Takes what another node knows of the nodes.
    pub(super) fn merge_book(&mut self, book: &Book) {
        if !E::MEMBERS_CHANGE {
            return;
        }
        let changed = self.book.merge(book);
        if !changed.is_empty() {
            self.book_changed(&changed);
        }
    }

    /// Keeps the book, tells it to everybody, and meets nodes at their new addresses.
    fn book_changed(&mut self, nodes: &[NodeId]) {
        if let Some(file) = &self.book_file
            && let Err(error) = replace_file(file, self.book.to_text().as_bytes())
        {
            tracing::error!(file = %file.display(), %error, "the list of nodes cannot be kept");
        }
        nodes.iter().for_each(|node| self.meet(*node));
        for (node, _) in self.book.nodes() {
            if self.links.status(node).is_connected {
                self.links.send_book(node, &self.book);
            }
        }
        self.status_at = None;
    }

    /// Makes all nodes that are known peers.
    pub(super) fn meet_all(&mut self) {
        let nodes: Vec<_> = self.book.nodes().map(|(node, _)| node).collect();
        nodes.into_iter().for_each(|node| self.meet(node));
    }

    fn meet(&mut self, node: NodeId) {
        if let Some(address) = self.book.address(node) {
            self.links.set_peer(self.now, node, address.peers);
        }
    }

    /// The members of a partition changed: a node that was one and is none any more has left. Only
    /// a member of all partitions hears of all members: one that is to join a partition must not
    /// turn away who leads it, and of whom it knows from nothing else. And one that was away may know
    /// a node from the book alone that has joined, and leads, meanwhile: it must not turn that away
    /// for being no member of the log that it has.
    pub(super) fn meet_members(&mut self) {
        let groups = || {
            (0..self.lanes.len() as PartitionIndex)
                .filter_map(|partition| self.engine.members(partition))
        };
        let is_member = |node: NodeId| groups().any(|members| members.is_member(node));
        let me = self.cluster.leaders.me();
        let hears_of_all = groups().all(|members| members.is_member(me));
        let nodes: Vec<_> = self.book.nodes().map(|(node, _)| (node, is_member(node))).collect();
        for (node, is_member) in nodes {
            match (is_member, self.members.contains(&node)) {
                (true, false) => {
                    self.members.insert(node);
                    self.meet(node);
                }
                (false, true) if hears_of_all => {
                    self.members.remove(&node);
                    self.links.remove_peer(node);
                }
                _ => {}
            }
        }
        self.status_at = None;
    }

    /// Writes down how everything does, from time to time and when something important changed.
    pub(super) fn tell_status(&mut self) {
        if self.status_at.is_some_and(|at| self.now < at + STATUS_EVERY) {
            return;
        }
        self.status_at = Some(self.now);
        let me = self.cluster.leaders.me();
        let node = |(id, address)| {
            let link = self.links.status(id);
            NodeStatus {
                id,
                address: Some(address),
                is_member: self.members.contains(&id),
                is_connected: id == me || link.is_connected,
                messages: link.messages,
                bytes: link.bytes,
                dropped: link.dropped,
            }
        };
        let partition = |partition: PartitionIndex| {
            let status = self.engine.status(partition)?;
            // Without a quorum a primary leads nobody.
            let is_led = status.agreement.is_none_or(|agreement| agreement.has_quorum);
            Some(PartitionStatus {
                partition,
                leader: self.cluster.leaders.of(partition).filter(|_| is_led),
                term: status.term,
                first: status.first,
                last: status.last,
                committed: status.commit,
                members: self.engine.members(partition)?.clone(),
                agreement: status.agreement,
            })
        };
        let partitions = (0..self.lanes.len() as PartitionIndex).filter_map(partition).collect();
        let nodes = self.book.nodes().map(node).collect();
        self.cluster.tell(Status { me, nodes, partitions });
    }
}
