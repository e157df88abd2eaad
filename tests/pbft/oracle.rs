//! What is true of every run, whatever fails and whoever lies.
//!
//! - No two correct replicas tell different entries at an index, before and after any crash.
//! - What is executed was asked for by whom it names, and is executed once.
//! - An answer that a client accepted is what comes to be committed at its index.
//! - How far a quorum says the log is, is no less far than any answer that was accepted before it was asked,
//!   nor further than correct replicas have told, and the chain that it says is that of their logs.
//! - What a primary's shard reads is no older than any answer that was accepted before it asked.
//! - Each proposal of a correct replica is told once: as committed, with what it proposed, or as lost.
//! - A correct replica signs one order, prepare and commit of an entry in a view, and one checkpoint of an
//!   entry, in all its lives.
//! - In a term one replica leads at most, and what is committed has the term in which it was proposed:
//!   terms rise along the log, so what an earlier primary proposed never follows what a later one did.

use crate::{operation::Operation, villain::kind};
use bytes::Bytes;
use coreflow::consensus::pbft::{Message, batch::link, keys::Digest};
use std::collections::{BTreeMap, BTreeSet};

/// An entry that a correct replica told.
struct Entry {
    data: Bytes,
    by: u64,
    /// When it was told without having been read back.
    term: Option<u64>,
}

/// An operation that a correct author asked for.
struct Asked {
    data: Bytes,
    partition: u16,
    /// The term in which a primary proposed it to itself; nothing else is bound to a term.
    term: Option<u64>,
}

/// What one run of a correct replica has told of a partition.
#[derive(Default)]
struct Told {
    index: u64,
    /// Proposals of it that were not told.
    open: BTreeMap<u64, Operation>,
}

/// Who has signed something, in which partition; of which kind, in which view and of which entry.
type Signed = (u64, u16, u32, u64, u64);

/// Everything that was seen.
#[derive(Default)]
pub struct Oracle {
    /// Authors that may have signed anything.
    liars: BTreeSet<u64>,
    asked: BTreeMap<Operation, Asked>,
    log: BTreeMap<(u16, u64), Entry>,
    executed: BTreeMap<(u16, Operation), u64>,
    /// Accepted by a client, and told by no correct replica yet.
    accepted: BTreeMap<(u16, Operation), u64>,
    /// The highest entry of an answer that was accepted, in each partition.
    accepted_upto: BTreeMap<u16, u64>,
    /// The chains behind entries, as logs of correct replicas have them, and as quorums told clients.
    chains: BTreeMap<(u16, u64), Digest>,
    /// Entries that correct replicas have answered tentatively, and the chains behind them.
    tentative: BTreeSet<(u16, u64, Digest)>,
    replicas: BTreeMap<(u64, u16), Told>,
    /// Who led in a term.
    leaders: BTreeMap<(u16, u64), u64>,
    /// What correct replicas have signed: who, where, which kind, view and entry, and of what.
    signed: BTreeMap<Signed, (Digest, Digest)>,
}

impl Oracle {
    /// An oracle of a run in which these authors may lie.
    pub fn new(liars: impl IntoIterator<Item = u64>) -> Self {
        Self { liars: liars.into_iter().collect(), ..Self::default() }
    }

    /// A correct author asks for something; in a term, when it is a primary that tells itself.
    pub fn ask(&mut self, partition: u16, what: Operation, data: &Bytes, term: Option<u64>) {
        let asked = Asked { data: data.clone(), partition, term };
        assert!(self.asked.insert(what, asked).is_none(), "{what:?} is asked for twice");
    }

    /// A replica was asked with a ticket.
    pub fn open(&mut self, node: u64, partition: u16, ticket: u64, what: Operation) {
        let open = &mut self.replicas.entry((node, partition)).or_default().open;
        assert!(open.insert(ticket, what).is_none(), "ticket {ticket} is used twice");
    }

    /// A correct replica begins, again perhaps.
    pub fn begin(&mut self, node: u64, partition: u16) {
        self.replicas.insert((node, partition), Told::default());
    }

    /// It begins to tell behind an index.
    pub fn install(&mut self, node: u64, partition: u16, index: u64) {
        let told = self.replicas.entry((node, partition)).or_default();
        assert!(index >= told.index, "{node} goes back from {} to {index}", told.index);
        told.index = index;
    }

    /// A correct replica tells an entry.
    pub fn commit(
        &mut self,
        node: u64,
        partition: u16,
        index: u64,
        term: Option<u64>,
        ticket: Option<u64>,
        data: Bytes,
    ) {
        let told = self.replicas.entry((node, partition)).or_default();
        assert_eq!(index, told.index + 1, "{node} in {partition} tells in another order");
        told.index = index;
        let all = Operation::parse(&data).unwrap_or_else(|| {
            panic!("{node} in {partition} at {index} executes what nobody signed")
        });
        if let Some(ticket) = ticket {
            let what = told.open.remove(&ticket);
            let what = what.unwrap_or_else(|| panic!("{node} tells ticket {ticket} again"));
            assert!(
                all.iter().any(|(found, _)| *found == what),
                "{node} in {partition} tells {what:?} as committed at {index}, where it is not"
            );
        }
        if let Some(known) = self.log.get_mut(&(partition, index)) {
            assert!(
                known.term.is_none() || term.is_none() || known.term == term,
                "{} and {node} tell other terms of {index} in {partition}",
                known.by
            );
            known.term = known.term.or(term);
            assert!(
                known.data == data,
                "{} and {node} disagree in {partition} at {index}: {:?} and {:?}",
                known.by,
                Operation::names(&known.data),
                Operation::names(&data),
            );
            return;
        }
        for (what, bytes) in &all {
            self.judge(partition, index, term, *what, bytes);
        }
        let is_here = |((of, _), at): &(&(u16, Operation), &u64)| (*of, **at) == (partition, index);
        if let Some(((_, other), _)) = self.accepted.iter().find(is_here) {
            let others = Operation::names(&data);
            panic!("a client had {other:?} at {index}, where {others:?} is committed");
        }
        let others = self.log.range((partition, 0)..(partition, index));
        let before = others.rev().find_map(|(_, entry)| entry.term);
        assert!(
            term.is_none() || before <= term,
            "{index} in {partition} is of term {term:?}, behind one of term {before:?}"
        );
        self.log.insert((partition, index), Entry { data, by: node, term });
    }

    /// The log of a correct replica has a chain behind an entry.
    pub fn chain(&mut self, node: u64, partition: u16, index: u64, chain: Digest) {
        let known = *self.chains.entry((partition, index)).or_insert(chain);
        assert_eq!(known, chain, "{node} in {partition} has another log up to {index}");
    }

    fn judge(
        &mut self,
        partition: u16,
        index: u64,
        term: Option<u64>,
        what: Operation,
        bytes: &[u8],
    ) {
        if let Some(before) = self.executed.insert((partition, what), index) {
            assert!(
                self.liars.contains(&what.author),
                "{what:?} is executed in {partition} at {before} and at {index}"
            );
        }
        if !self.liars.contains(&what.author) {
            let asked = self.asked.get(&what);
            let asked = asked.unwrap_or_else(|| panic!("nobody asked for {what:?}"));
            assert!(asked.data == bytes, "{what:?} was changed");
            assert_eq!(asked.partition, partition, "{what:?} is executed elsewhere");
            assert!(
                asked.term.is_none() || term.is_none() || asked.term == term,
                "{what:?} of term {:?} is committed at {index} in term {term:?}",
                asked.term
            );
        }
        if let Some(accepted) = self.accepted.remove(&(partition, what)) {
            assert_eq!(
                accepted, index,
                "a client had {what:?} at {accepted}, and it is committed at {index}"
            );
        }
    }

    /// A client accepts an answer: its operation was executed at an index.
    pub fn accept(&mut self, partition: u16, what: Operation, index: u64) {
        let upto = self.accepted_upto.entry(partition).or_default();
        *upto = index.max(*upto);
        match self.executed.get(&(partition, what)) {
            Some(executed) => assert_eq!(
                *executed, index,
                "a client accepts {index} for {what:?}, which was committed at {executed}"
            ),
            None => {
                assert!(
                    !self.log.contains_key(&(partition, index)),
                    "a client accepts {index} for {what:?}, and something else is committed there"
                );
                self.accepted.insert((partition, what), index);
            }
        }
    }

    /// Entries that were answered tentatively and are others.
    pub fn undone(&self) -> u64 {
        let is_undone = |(partition, seq, chain): &&(u16, u64, Digest)| {
            self.chains.get(&(*partition, *seq)).is_some_and(|known| known != chain)
        };
        self.tentative.iter().filter(is_undone).count() as u64
    }

    /// What a read that begins now has to see.
    pub fn finished_upto(&self, partition: u16) -> u64 {
        self.head(partition).max(self.accepted_upto(partition))
    }

    /// The highest entry of an answer that was accepted.
    pub fn accepted_upto(&self, partition: u16) -> u64 {
        self.accepted_upto.get(&partition).copied().unwrap_or(0)
    }

    /// A client that asked when answers up to an entry were accepted believes that the log is so long.
    pub fn read_head(&mut self, partition: u16, accepted: u64, seq: u64, chain: Digest) {
        assert!(
            seq >= accepted,
            "a client reads {partition} up to {seq}, where {accepted} was accepted before"
        );
        assert!(
            seq <= self.head(partition),
            "a client reads {partition} up to {seq}, which is not there"
        );
        let known = *self.chains.entry((partition, seq)).or_insert(chain);
        assert_eq!(known, chain, "a client reads another log up to {seq} of {partition}");
    }

    /// A correct replica does not know what becomes of a proposal.
    pub fn lose(&mut self, node: u64, partition: u16, ticket: u64) {
        let told = self.replicas.entry((node, partition)).or_default();
        assert!(told.open.remove(&ticket).is_some(), "{node} tells ticket {ticket} again");
    }

    /// A correct replica says something.
    pub fn say(&mut self, node: u64, partition: u16, message: &Message) {
        let none = [0; 32];
        let (view, seq, of) = match message {
            Message::PrePrepare(order) => {
                let chain = link(&order.parent, order.seq, order.batch.digest());
                (order.view, order.seq, (chain, none))
            }
            Message::Prepare(vote) | Message::Commit(vote, _) => {
                (vote.view, vote.seq, (vote.chain, none))
            }
            Message::Checkpoint(checkpoint) => {
                (0, checkpoint.seq, (checkpoint.chain, checkpoint.table))
            }
            Message::Reply(reply) if reply.is_tentative => {
                self.tentative.insert((partition, reply.seq, reply.chain));
                return;
            }
            _ => return,
        };
        let kind = kind(message);
        let before = *self.signed.entry((node, partition, kind, view, seq)).or_insert(of);
        assert_eq!(
            before, of,
            "{node} in {partition} signs another message of kind {kind} of {seq} in view {view}"
        );
    }

    /// A correct replica is told that it leads, or does not.
    pub fn role(&mut self, node: u64, partition: u16, leads: Option<u64>) {
        let Some(term) = leads else { return };
        let leader = *self.leaders.entry((partition, term)).or_insert(node);
        assert_eq!(leader, node, "both lead in {partition} in term {term}");
    }

    /// Up to where a replica has told.
    pub fn told(&self, node: u64, partition: u16) -> u64 {
        self.replicas.get(&(node, partition)).map_or(0, |told| told.index)
    }

    /// Proposals of a replica that were not told.
    pub fn open_tickets(&self, node: u64, partition: u16) -> usize {
        self.replicas.get(&(node, partition)).map_or(0, |told| told.open.len())
    }

    /// The last index that any correct replica told.
    pub fn head(&self, partition: u16) -> u64 {
        let mut range = self.log.range((partition, 0)..=(partition, u64::MAX));
        range.next_back().map_or(0, |((_, index), _)| *index)
    }

    /// What was accepted and never committed.
    pub fn unkept(&self) -> Vec<(u16, Operation, u64)> {
        self.accepted.iter().map(|((partition, what), at)| (*partition, *what, *at)).collect()
    }

    /// Operations that were executed.
    pub fn executed(&self) -> usize {
        self.executed.len()
    }
}
