//! What must hold after every step, for one partition.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// What every replica's log and state machine is compared with.
#[derive(Default)]
pub struct Checker {
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    /// Of each entry that was ever appended anywhere, by index and term: the term before it, and
    /// its data.
    entries: BTreeMap<(u64, u64), (u64, Bytes)>,
    /// What was told as committed.
    pub committed: BTreeMap<u64, (u64, Bytes)>,
    /// Numbers of proposals in committed entries.
    tickets: BTreeSet<u64>,
}

/// One replica as the checker sees it.
#[derive(Default)]
pub struct Replica {
    /// The last entry that was told.
    pub applied: u64,
    /// What it was told to be.
    pub role: Option<Role>,
    /// Proposals whose fate was not told.
    pub outstanding: BTreeSet<u64>,
    /// Proposals that were told as lost.
    pub lost: BTreeSet<u64>,
    /// Told as committed to whom they belong.
    pub won: BTreeSet<u64>,
    /// Reads that were confirmed.
    pub reads: Vec<u64>,
    /// The last change of the members that was told as committed.
    pub change: u64,
    /// The last members that were told.
    pub members: Members,
}

impl Checker {
    /// Election safety and leader completeness.
    pub fn leads(&mut self, node: u64, term: u64, log: &super::super::entries::Entries) {
        match self.leaders.insert(term, node) {
            Some(other) => assert_eq!(other, node, "two leaders in term {term}"),
            None => {
                let held = self.committed.range(log.first()..);
                for (&index, &(of_term, _)) in held {
                    let found = log.term_at(index);
                    assert_eq!(found, Some(of_term), "leader {node} lacks committed entry {index}");
                }
            }
        }
    }

    /// Log matching, entry by entry: the same index and term mean the same data behind the same
    /// entry.
    pub fn appended(&mut self, index: u64, term: u64, before: Option<u64>, data: &Bytes) {
        let Some(before) = before else { return };
        let known = self.entries.entry((index, term)).or_insert_with(|| (before, data.clone()));
        assert_eq!(known.0, before, "entry {index} of term {term} follows another one");
        assert_eq!(known.1, *data, "entry {index} of term {term} has other data");
    }

    /// The same for a whole log.
    pub fn matches(&self, log: &super::super::entries::Entries) {
        for index in log.first() + 1..=log.last() {
            let (before, term) = (log.term_at(index - 1), log.term_at(index));
            let known = self.entries.get(&(index, term.expect("it is held")));
            let (expected, data) = known.expect("every entry was seen when it was appended");
            assert_eq!(before, Some(*expected), "the log breaks before {index}");
            let (_, stored) = log.stored(index).expect("it is held");
            assert_eq!(stored.bytes as usize, data.len(), "entry {index} has other data");
        }
    }

    /// State machine safety, and that each proposal is applied once.
    pub fn applied(&mut self, index: u64, term: u64, kind: Kind, data: &Bytes) {
        let is_new = !self.committed.contains_key(&index);
        let known = self.committed.entry(index).or_insert_with(|| (term, data.clone()));
        assert_eq!(*known, (term, data.clone()), "entry {index} is applied differently");
        if is_new && kind == Kind::Normal && !data.is_empty() {
            assert!(self.tickets.insert(ticket_of(data)), "a proposal is applied twice");
        }
    }

    /// Whether a proposal was told as committed to anybody.
    pub fn has(&self, ticket: u64) -> bool {
        self.tickets.contains(&ticket)
    }
}

impl Replica {
    /// Something was told.
    pub fn told(&mut self, event: &Event, data: &Bytes, checker: &mut Checker) {
        match event {
            Event::Committed { index, term, kind, ticket, .. } => {
                assert_eq!(*index, self.applied + 1, "entries are told in their order");
                self.applied = *index;
                if *kind == Kind::Change {
                    self.change = *index;
                }
                checker.applied(*index, *term, *kind, data);
                if let Some(ticket) = ticket {
                    assert_eq!(ticket_of(data), *ticket, "a proposal got another's entry");
                    assert!(self.outstanding.remove(ticket), "a fate is told twice");
                    self.won.insert(*ticket);
                }
            }
            Event::Lost { ticket } => {
                assert!(self.outstanding.remove(ticket), "a fate is told twice");
                self.lost.insert(*ticket);
            }
            Event::Role(role) => {
                if let Role::Leader { term } = role {
                    let mut older = checker.committed.iter().rev().filter(|(_, of)| of.0 < *term);
                    let last = older.next().map_or(0, |(&index, _)| index);
                    assert!(last <= self.applied, "it leads before it was told entry {last}");
                } else {
                    assert!(self.outstanding.is_empty(), "a fate was not told");
                }
                assert_ne!(self.role, Some(*role), "a role is told twice");
                self.role = Some(*role);
            }
            Event::Membership(members) => self.members = members.clone(),
            Event::Installed { index } => {
                // It was taken out of the group, or was behind.
                assert!(*index == 0 || *index >= self.applied, "it goes back");
                self.applied = *index;
            }
            Event::Read { context } => self.reads.push(*context),
            Event::ReadLost { .. } => {}
        }
    }

    pub fn is_leader(&self) -> bool {
        matches!(self.role, Some(Role::Leader { .. }))
    }
}

pub fn ticket_of(data: &Bytes) -> u64 {
    u64::from_le_bytes(data[..8].try_into().expect("a block begins with its number"))
}
