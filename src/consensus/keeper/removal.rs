//! Nodes that ask whether they are members of a partition still, and the answers to this node.

use super::{
    super::{
        disk::Disk,
        engine::Engine,
        links::Links,
        notice::{Notice, Saying},
        peers::NodeId,
    },
    Keeper, Lane,
};
use crate::wire::id::PartitionIndex;

/// Questions about a partition that wait until it is sure that this node leads it; further ones are
/// asked again.
const DOUBTS_MAX: usize = 64;
/// Marks the reads that such questions wait for; those of shards count from 1.
const DOUBT: u64 = 1 << 63;

/// A node that asked whether it is a member.
pub(super) struct Doubting {
    /// The read that it waits for.
    context: u64,
    node: NodeId,
    question: u64,
}

impl<D: Disk, L: Links<E::Message>, E: Engine> Keeper<D, L, E> {
    /// Takes what a node says of a partition.
    pub(super) fn take_notice(&mut self, from: NodeId, Notice { partition, saying }: Notice) {
        match saying {
            Saying::Wanted { index } => self.want(partition, index),
            Saying::AmIMember { question } => self.doubt(partition, from, question),
            Saying::NoMember { question, applied } => {
                self.engine.disown(partition, question, applied);
            }
        }
    }

    /// Asks all nodes whether this one is a member of a partition.
    pub(super) fn ask_for_membership(&mut self, partition: PartitionIndex, question: u64) {
        let me = self.cluster.leaders.me();
        let nodes: Vec<_> = self.book.nodes().map(|(node, _)| node).collect();
        for node in nodes.into_iter().filter(|node| *node != me) {
            let saying = Saying::AmIMember { question };
            self.links.send_notice(node, Notice { partition, saying });
        }
    }

    fn is_stranger(&self, partition: PartitionIndex, node: NodeId) -> bool {
        self.engine.members(partition).is_some_and(|members| !members.is_member(node))
    }

    /// A node may be none of a partition's members: it is told so when it is sure that this one
    /// leads.
    fn doubt(&mut self, partition: PartitionIndex, node: NodeId, question: u64) {
        if !self.is_stranger(partition, node) {
            return;
        }
        let lane = &mut self.lanes[usize::from(partition)];
        let context = DOUBT | (lane.last_doubt + 1);
        if lane.doubts.len() < DOUBTS_MAX && self.engine.read(partition, context).is_ok() {
            lane.last_doubt += 1;
            lane.doubts.push_back(Doubting { context, node, question });
        }
    }

    /// This node led a partition after a question was asked: answers it; whether the read was one's.
    pub(super) fn settle_doubt(&mut self, partition: PartitionIndex, context: u64) -> bool {
        let lane = &mut self.lanes[usize::from(partition)];
        let applied = lane.committed;
        let Some(Doubting { node, question, .. }) = lane.take_doubt(context) else {
            return context & DOUBT != 0;
        };
        let is_known = self.engine.is_membership_known(partition);
        // When it is not known yet, the node asks again.
        if is_known && self.is_stranger(partition, node) {
            let saying = Saying::NoMember { question, applied };
            self.links.send_notice(node, Notice { partition, saying });
        }
        true
    }
}

impl Lane {
    /// Takes the question out that waits for a read, if there is one.
    pub(super) fn take_doubt(&mut self, context: u64) -> Option<Doubting> {
        let at = self.doubts.iter().position(|doubting| doubting.context == context)?;
        self.doubts.remove(at)
    }
}
