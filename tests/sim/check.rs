//! What must hold of the groups after every turn of a log thread: election safety, leader
//! completeness, log matching and state machine safety, as Raft's paper names them. Where nodes agree by
//! PBFT, everything that is committed up to an entry is one number, its chain, which all have alike; and no
//! node ever finds that what is committed contradicts itself.

use crate::node::Node;
use coreflow::consensus::{
    engine::{Agreement, Role, Status},
    peers::NodeId,
    raft::group::Group,
};
use std::collections::BTreeMap;

/// What every replica's log is compared with, for one partition.
#[derive(Default)]
struct Partition {
    /// Who led in each term.
    leaders: BTreeMap<u64, NodeId>,
    /// Of each entry that was seen anywhere, by index and term: the term before it, and its bytes.
    entries: BTreeMap<(u64, u64), (u64, u32, Option<u32>)>,
    /// The terms of committed entries.
    committed: BTreeMap<u64, u64>,
    /// By PBFT: the chains up to entries that were the last committed one of somebody.
    chains: BTreeMap<u64, [u8; 32]>,
    /// By PBFT: the latest term of somebody who has committed the last of those.
    term_of_last: u64,
}

/// How far a replica was looked at.
#[derive(Clone, Copy, Default)]
struct Seen {
    boots: u64,
    last: u64,
    last_term: u64,
    commit: u64,
}

/// The checks.
pub struct Checker {
    partitions: Vec<Partition>,
    seen: BTreeMap<(NodeId, u16), Seen>,
    /// Terms that somebody led in.
    pub elections: u64,
}

impl Checker {
    pub fn new(partitions: u16) -> Self {
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        Self { partitions, seen: BTreeMap::new(), elections: 0 }
    }

    /// Entries that are known to be committed, of all partitions.
    pub fn committed(&self) -> usize {
        let last = |partition: &Partition| {
            let chained = partition.chains.last_key_value().map_or(0, |(index, _)| *index);
            partition.committed.len().max(chained as usize)
        };
        self.partitions.iter().map(last).sum()
    }

    /// Looks at a node.
    pub fn look(&mut self, node: &Node) {
        let Some(running) = &node.running else { return };
        for (index, partition) in (0..).zip(&mut self.partitions) {
            let seen = self.seen.entry((node.id, index)).or_default();
            if seen.boots != node.boots {
                *seen = Seen { boots: node.boots, ..Seen::default() };
            }
            let status = running.log.status(index);
            let is_first = match (running.log.raft(index), status.agreement) {
                (Some(group), _) => partition.look(node.id, index, group, seen),
                (None, Some(agreement)) => {
                    partition.look_at_chain(node.id, index, &status, &agreement, seen)
                }
                (None, None) => unreachable!("they agree by PBFT"),
            };
            self.elections += u64::from(is_first);
        }
    }
}

impl Partition {
    fn look(&mut self, node: NodeId, index: u16, group: &Group, seen: &mut Seen) -> bool {
        let status = group.status();
        self.match_log(node, index, group, seen);
        if status.last == 0 {
            // It was taken out of the group, and begins again when it is a member again.
            *seen = Seen { boots: seen.boots, ..Seen::default() };
        }
        assert!(status.commit >= seen.commit, "node {node} forgets what is committed in {index}");
        for at in seen.commit + 1..=status.commit {
            let Some(term) = group.term_at(at) else { continue };
            let known = *self.committed.entry(at).or_insert(term);
            assert_eq!(known, term, "entry {at} of partition {index} is committed twice: {node}");
        }
        seen.commit = status.commit;
        let Role::Leader { term } = status.role else { return false };
        match self.leaders.insert(term, node) {
            Some(other) => {
                assert_eq!(other, node, "two lead partition {index} in term {term}");
                false
            }
            None => {
                let held = self.committed.range(group.point().index + 1..);
                for (&at, &of_term) in held.filter(|(_, of_term)| **of_term < term) {
                    let found = group.term_at(at);
                    assert_eq!(found, Some(of_term), "leader {node} of {index} lacks entry {at}");
                }
                true
            }
        }
    }

    fn look_at_chain(
        &mut self,
        node: NodeId,
        index: u16,
        status: &Status,
        agreement: &Agreement,
        seen: &mut Seen,
    ) -> bool {
        let &Status { commit, term, last, role, .. } = status;
        assert_eq!(agreement.diverged, None, "node {node}: {index} contradicts itself");
        assert!(commit >= seen.commit, "node {node} forgets what is committed in {index}");
        seen.commit = commit;
        let known_upto = self.chains.last_key_value().map_or(0, |(index, _)| *index);
        let known = *self.chains.entry(commit).or_insert(agreement.chain);
        assert_eq!(known, agreement.chain, "node {node} has another log up to {commit} of {index}");
        let Role::Leader { term: of_role } = role else {
            self.term_of_last = self.term_of_last.max(term);
            return false;
        };
        assert_eq!(of_role, term, "node {node} leads {index} in another view than its own");
        let is_first = match self.leaders.insert(term, node) {
            Some(other) => {
                assert_eq!(other, node, "two lead partition {index} in term {term}");
                false
            }
            None => true,
        };
        // What was committed in no later view than its own it has.
        let has_all = last >= known_upto || self.term_of_last > term;
        assert!(!is_first || has_all, "leader {node} of {index} lacks entries up to {known_upto}");
        self.term_of_last = self.term_of_last.max(term);
        is_first
    }

    /// The same index and term mean the same entry behind the same one.
    fn match_log(&mut self, node: NodeId, index: u16, group: &Group, seen: &mut Seen) {
        let last = group.status().last;
        let Some(last_term) = group.term_at(last) else { return };
        if (seen.last, seen.last_term) == (last, last_term) {
            return;
        }
        let goes_on = group.term_at(seen.last) == Some(seen.last_term);
        let from = if goes_on && seen.last > 0 { seen.last + 1 } else { seen.commit + 1 };
        for at in from.max(group.point().index + 1)..=last {
            let (Some(term), Some(before)) = (group.term_at(at), group.term_at(at - 1)) else {
                continue;
            };
            let Some((_, stored)) = group.stored(at) else { continue };
            let hash = group.in_memory(at).map(|data| crc32fast::hash(&data));
            let known = self.entries.entry((at, term)).or_insert((before, stored.bytes, hash));
            assert_eq!(
                (known.0, known.1),
                (before, stored.bytes),
                "node {node}: entry {at} of term {term} in partition {index} is another one"
            );
            if let (Some(one), Some(other)) = (known.2, hash) {
                assert_eq!(one, other, "node {node}: entry {at} of {index} has other data");
            }
            known.2 = known.2.or(hash);
        }
        (seen.last, seen.last_term) = (last, last_term);
    }
}
