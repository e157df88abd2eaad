//! State transfer (OSDI '99, §4.4; TOCS 2002, where a tree of digests does what the chain does here).
//!
//! A replica that is behind a checkpoint of a quorum asks one member after the other for the digests of
//! the entries up to it. When they fold, link by link, into the chain that the quorum has signed, they
//! are those of the entries. Then it asks for these, of which each is compared with its digest before it
//! is written. The table of clients has to be what the quorum has signed as well at the end.
//!
//! Where a member's log begins behind what is asked for, it tells its point. That is taken only when
//! f + 1 members say that their logs begin there or later: then a correct one found that nothing
//! before is needed.
//!
//! Invariants worth naming
//! - Digests and entries of one transfer come from one member, so one that lies is known.
//! - An entry is written when its digest is proven to be the one of what is committed, never before.
//! - While digests come all goes on as ever. From when they are proven until the entries are there
//!   nothing is committed otherwise; a transfer that brings nothing ends.
//! - Who answers late or brings little some times in a row is not asked on: the next member is, from
//!   the beginning. All are given more time when none of them brought anything.

use super::{
    batch::{Batch, link},
    certificate::Stable,
    codec::{DIGESTS_MAX, ENTRIES_MAX},
    execute::body_bytes,
    group::{Group, Head, Unplaced},
    keys::Digest,
    log::{Entry, Log, Point},
    message::{Digests, Entries, Message},
    notes::Note,
    outputs::{Dropped, Write},
    ready::AfterDisk,
    serving::ANSWER_BYTES,
    table::Table,
};
use crate::{
    consensus::{
        engine::{Event, Kind, Role, Stored},
        place::Place,
    },
    planted::{self, Bug},
};
use std::{collections::BTreeSet, sync::Arc};

/// Bytes of entries in an answer that is not the last, at least: a member that has entries sends as many
/// as fit into one, and fewer only before a large one.
const ANSWER_BYTES_MIN: usize = ANSWER_BYTES / 4;
/// Questions without an answer, or with less than that, in a row, after which another member is asked.
const TRIES: u32 = 3;
/// Members are given at most two to the power of this times the time between two reports for an answer.
const DOUBLINGS: u32 = 6;

/// Entries that are being fetched.
#[derive(Clone, Debug)]
pub struct Transfer {
    number: u64,
    target: Arc<Stable>,
    from: u64,
    id: u64,
    tries: u32,
    asked_ms: u64,
    /// The digests of the entries behind an entry with a chain, and the chain that they make of it.
    digests: Vec<Digest>,
    behind: Head,
    folded: Digest,
    /// They are those of what is committed.
    is_proven: bool,
    /// The point that the member's log begins behind, when it is not this replica's.
    point: Option<Point>,
    /// The entry that comes next.
    next: u64,
    chain: Digest,
    table: Table,
    entries: Vec<Entry>,
    first: u64,
    is_whole: bool,
}

impl Transfer {
    /// What the member is asked.
    fn question(&self) -> Message {
        let (id, last) = (self.id, self.target.seq);
        if self.is_proven {
            return Message::EntriesAsk(id, self.next, last);
        }
        Message::DigestsAsk(id, self.behind.seq + self.digests.len() as u64 + 1, last)
    }

    /// The digest of an entry.
    fn digest(&self, seq: u64) -> Option<&Digest> {
        self.digests.get(usize::try_from(seq.checked_sub(self.behind.seq + 1)?).ok()?)
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Tells where an entry was written.
    pub fn placed(&mut self, index: u64, place: Place) {
        let at = index.checked_sub(self.first).map(|at| at as usize);
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            entry.stored.place = place;
        }
    }
}

impl Group {
    /// Begins a transfer that is needed, or asks again.
    pub(super) fn tend_transfer(&mut self) {
        let now = self.now;
        let timing = self.settings.timing;
        self.forget_serving();
        if let Some(transfer) = &self.transfer {
            if transfer.target.seq <= self.committed() && !transfer.is_proven {
                self.transfer = None;
                return;
            }
            let rounds = self.failed_transfers / self.peers.len().max(1) as u32;
            let limit_ms = (timing.status_ms << rounds.min(DOUBLINGS)).min(timing.patience_max_ms);
            if !transfer.is_whole && now >= transfer.asked_ms + limit_ms {
                self.ask_again();
            }
            return;
        }
        let Some(target) = self.target.clone() else { return };
        let is_far = target.seq > self.high() || self.committed() < self.floor.seq;
        if is_far || now >= self.target_ms + timing.status_ms {
            self.begin_transfer(target);
        }
    }

    fn begin_transfer(&mut self, target: Arc<Stable>) {
        let (committed, behind) = (self.committed(), self.log.chain());
        // Those that are known to be there first, in turn; liars last.
        let has_it =
            |node: &u64| self.peers.get(node).is_some_and(|peer| peer.last.committed >= target.seq);
        let nodes: Vec<_> = self.peers.keys().copied().collect();
        let turn = self.transfers as usize % nodes.len().max(1);
        let in_turn = nodes.iter().cycle().skip(turn).take(nodes.len());
        let from = in_turn
            .clone()
            .find(|node| has_it(node) && !self.liars.contains(node))
            .or_else(|| in_turn.clone().find(|node| has_it(node)))
            .or_else(|| in_turn.clone().next());
        let Some(from) = from.copied() else { return };
        self.transfers += 1;
        self.transfer = Some(Transfer {
            number: self.transfers,
            target,
            from,
            id: 0,
            tries: 0,
            asked_ms: self.now,
            digests: Vec::new(),
            behind: Head { seq: committed, chain: behind },
            folded: behind,
            is_proven: false,
            point: None,
            next: committed + 1,
            chain: self.log.chain(),
            table: self.table.clone(),
            entries: Vec::new(),
            first: committed + 1,
            is_whole: false,
        });
        self.ask();
    }

    /// Asks for the digests that are missing, or the entries.
    fn ask(&mut self) {
        self.last_question += 1;
        let (id, now) = (self.last_question, self.now);
        let Some(transfer) = &mut self.transfer else { return };
        (transfer.id, transfer.asked_ms) = (id, now);
        let (from, question) = (transfer.from, transfer.question());
        self.tell(from, question);
    }

    fn ask_again(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.tries += 1;
        if transfer.tries >= TRIES {
            self.give_up(false);
            return;
        }
        // It is the same question: an answer that is late is one still.
        transfer.asked_ms = self.now;
        let (from, question) = (transfer.from, transfer.question());
        self.tell(from, question);
    }

    /// Whether entries are written that come by a transfer.
    pub(super) fn is_transferring(&self) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| transfer.is_proven)
    }

    /// The digests are those of what is committed: entries come from what is committed here by now on.
    fn begin_entries(&mut self) {
        let (committed, chain) = (self.committed(), self.log.chain());
        let table = self.table.clone();
        let Some(transfer) = &mut self.transfer else { return };
        if transfer.target.seq <= committed {
            self.transfer = None;
            return;
        }
        transfer.is_proven = true;
        (transfer.next, transfer.first) = (committed + 1, committed + 1);
        (transfer.chain, transfer.table) = (chain, table);
        self.ask();
    }

    /// Ends a transfer that is under way; it begins anew.
    pub(super) fn abandon_transfer(&mut self) {
        if self.transfer.as_ref().is_some_and(|transfer| !transfer.is_whole) {
            self.give_up(false);
        }
    }

    /// Entries up to this are committed here, or are when the disk has them.
    pub(super) fn written_upto(&self) -> u64 {
        let transfer = self.transfer.as_ref().filter(|transfer| transfer.is_proven);
        transfer.map_or(0, |transfer| transfer.target.seq).max(self.committed())
    }

    /// Ends a transfer that brings nothing; another member is asked next, at the next tick.
    fn give_up(&mut self, is_lie: bool) {
        let Some(transfer) = self.transfer.take() else { return };
        self.failed_transfers = self.failed_transfers.saturating_add(1);
        if is_lie {
            self.liars.insert(transfer.from);
            if self.liars.len() >= self.peers.len() {
                self.liars = BTreeSet::new();
            }
        }
        self.write_again(transfer.first.max(self.committed() + 1));
        self.target_ms = self.now;
    }

    /// Writes again what is accepted from an index on, where something was written at or below it.
    pub(super) fn write_again(&mut self, first: u64) {
        for (seq, slot) in self.slots.range_mut(first..).filter(|(_, it)| it.written.is_none()) {
            let Some(accepted) = slot.accepted else { continue };
            let Some(batch) = slot.batch(&accepted.digest).cloned() else { continue };
            let term = batch.origin() + 1;
            let (heads, data) = (batch.heads().clone(), batch.data().clone());
            let (digest, place) = (accepted.digest, Place::default());
            slot.written = Some(super::slot::Written { digest, place, is_durable: false });
            self.writes.push(Write::Entry { term, index: *seq, heads, data });
            self.unplaced.push_back(Unplaced { index: *seq, term, transfer: None });
            self.after_disk.push(AfterDisk::Written { seq: *seq, digest });
            let (view, chain) = (accepted.view, accepted.chain);
            self.after_disk.push(AfterDisk::Accepted { view, seq: *seq, chain });
        }
    }

    pub(super) fn take_digests(&mut self, from: u64, digests: Digests) -> Result<(), Dropped> {
        let Digests { id, point, first, digests } = digests;
        let transfer = self.transfer.as_ref().filter(|it| (it.from, it.id) == (from, id));
        let transfer = transfer.filter(|it| !it.is_proven).ok_or(Dropped::Unasked)?;
        let goal = transfer.target.seq;
        let mut behind = transfer.behind;
        if let Some((seq, chain)) = point {
            let is_inside = (behind.seq + 1..=goal).contains(&seq);
            if !transfer.digests.is_empty() || !is_inside || !self.is_vouched(seq) {
                self.give_up(false);
                return Err(Dropped::Proof);
            }
            behind = Head { seq, chain };
        }
        let next = behind.seq + transfer.digests.len() as u64 + 1;
        let is_full = digests.len() == ((goal + 1 - next.min(goal + 1)) as usize).min(DIGESTS_MAX);
        if first != next || !is_full {
            self.give_up(false);
            return Err(Dropped::Proof);
        }
        let Some(transfer) = &mut self.transfer else { return Err(Dropped::Unasked) };
        if point.is_some() {
            (transfer.behind, transfer.folded) = (behind, behind.chain);
        }
        transfer.tries = 0;
        for (seq, digest) in (next..).zip(&digests) {
            transfer.folded = link(&transfer.folded, seq, digest);
        }
        transfer.digests.extend(digests);
        if behind.seq + (transfer.digests.len() as u64) < goal {
            self.ask();
        } else if transfer.folded == transfer.target.chain {
            self.begin_entries();
        } else {
            self.give_up(true);
            return Err(Dropped::Proof);
        }
        Ok(())
    }

    pub(super) fn take_entries(&mut self, from: u64, entries: Entries) -> Result<(), Dropped> {
        let Entries { id, point, first, batches } = entries;
        let transfer = self.transfer.as_ref().filter(|it| (it.from, it.id) == (from, id));
        let transfer =
            transfer.filter(|it| it.is_proven && !it.is_whole).ok_or(Dropped::Unasked)?;
        if let Some((index, chain, table)) = point {
            let is_first = transfer.point.is_none() && transfer.entries.is_empty();
            let is_inside = (transfer.next..=transfer.target.seq).contains(&index);
            let is_proven = transfer.behind == Head { seq: index, chain };
            if !is_first || !is_inside || !is_proven {
                self.give_up(false);
                return Err(Dropped::Proof);
            }
            let term = batches.first().map_or(0, |batch| batch.origin() + 1);
            let table = Table::clone(&table);
            if let Some(transfer) = &mut self.transfer {
                (transfer.next, transfer.first) = (index + 1, index + 1);
                (transfer.chain, transfer.table) = (chain, table.clone());
                transfer.point = Some(Point { index, term, chain, table });
            }
        }
        let transfer = self.transfer.as_ref().ok_or(Dropped::Unasked)?;
        let brings_nothing = batches.is_empty() && transfer.next <= transfer.target.seq;
        if first != transfer.next || brings_nothing {
            self.give_up(false);
            return Err(Dropped::Proof);
        }
        let bytes: usize = batches.iter().map(Batch::bytes).sum();
        let is_full = bytes >= ANSWER_BYTES_MIN || batches.len() >= ENTRIES_MAX;
        for batch in batches {
            let transfer = self.transfer.as_ref().ok_or(Dropped::Unasked)?;
            let is_proven = transfer.digest(transfer.next) == Some(batch.digest());
            if !is_proven && !planted::has(Bug::UncheckedTransfer) {
                self.give_up(true);
                return Err(Dropped::Proof);
            }
            self.take_entry(batch);
        }
        self.end_chunk(is_full);
        Ok(())
    }

    /// Whether f + 1 members say that their logs begin at a point or behind it.
    fn is_vouched(&self, index: u64) -> bool {
        let count = self.peers.values().filter(|peer| peer.last.point >= index).count();
        count >= self.members.one_correct()
    }

    fn take_entry(&mut self, batch: Batch) {
        let Some(transfer) = &mut self.transfer else { return };
        let seq = transfer.next;
        if seq > transfer.target.seq {
            return;
        }
        transfer.next += 1;
        let number = transfer.number;
        transfer.chain = link(&transfer.chain, seq, batch.digest());
        let stored = Stored { place: Place::default(), bytes: body_bytes(&batch) };
        let entry = Entry::new(&batch, stored);
        for (client, timestamp) in &entry.executed {
            transfer.table.execute(*client, *timestamp, seq);
        }
        transfer.entries.push(entry);
        self.slots.range_mut(seq..).for_each(|(_, slot)| slot.written = None);
        let term = batch.origin() + 1;
        let (heads, data) = (batch.heads().clone(), batch.data().clone());
        self.writes.push(Write::Entry { term, index: seq, heads, data });
        self.unplaced.push_back(Unplaced { index: seq, term, transfer: Some(number) });
    }

    /// Looks whether all is there and true, or asks for more.
    fn end_chunk(&mut self, is_full: bool) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.tries = if is_full { 0 } else { transfer.tries + 1 };
        let Stable { seq, chain, table, .. } = *transfer.target;
        if transfer.next <= seq && transfer.tries >= TRIES {
            self.give_up(false);
            return;
        }
        if transfer.next <= seq {
            self.ask();
            return;
        }
        let is_true = transfer.chain == chain && transfer.table.digest() == table;
        if !is_true && !planted::has(Bug::UncheckedTransfer) {
            self.give_up(true);
            return;
        }
        transfer.is_whole = true;
        let (id, point) = (transfer.id, transfer.point.clone());
        if let Some(point) = point {
            self.note(&Note::Installed(point));
        }
        self.is_commit_noted = true;
        self.note(&Note::Committed(Head { seq, chain }));
        self.after_disk.push(AfterDisk::Transferred { id });
    }

    /// What was transferred is on the disk: it is committed here.
    pub(super) fn transferred(&mut self, id: u64) {
        let Some(transfer) = self.transfer.take_if(|it| it.id == id && it.is_whole) else {
            return;
        };
        let Transfer { point, table, entries, first, target, .. } = transfer;
        if let Role::Leader { .. } = self.role {
            // Entries of others come to a shard that follows.
            self.leave(self.view + 1);
        }
        if let Some(point) = point {
            self.events.push(Event::Installed { index: point.index });
            self.log = Log::new(point, self.settings.limits.cache_bytes);
        }
        self.failed_transfers = 0;
        self.counters.transferred += entries.len() as u64;
        for (index, entry) in (first..).zip(entries) {
            let (term, place) = (entry.term, entry.stored.place);
            self.log.push_stored(&entry);
            let (kind, ticket, data) = (Kind::Normal, None, None);
            self.events.push(Event::Committed { index, term, kind, ticket, data, place });
        }
        self.table = table;
        self.requests.all_executed(&self.table, self.now);
        let head = Head { seq: self.committed(), chain: self.log.chain() };
        if self.accepted.seq <= head.seq {
            self.accepted = head;
        }
        self.projected = self.table.clone();
        for (seq, slot) in self.slots.range(head.seq + 1..) {
            let Some(accepted) = slot.accepted.filter(|it| it.view == self.view) else { break };
            let Some(batch) = slot.batch(&accepted.digest) else { break };
            for request in batch.requests().filter(|request| request.timestamp != 0) {
                self.projected.execute(request.client, request.timestamp, *seq);
            }
        }
        self.progress_ms = self.now;
        self.write_again(head.seq + 1);
        if target.seq > self.stable.seq {
            // There are no certificates of what came, so nothing before it may be needed.
            self.collect(target);
        }
        self.reach_target();
        self.commit_ready();
    }

    /// Asks for the batch of an entry that a view began with.
    pub(super) fn ask_for_batch(&mut self, seq: u64, digest: Digest) {
        let (now, pause) = (self.now, self.settings.timing.status_ms);
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        if now < slot.ask_at {
            return;
        }
        slot.ask_at = now + pause;
        self.tell_all(Message::BatchAsk(seq, digest));
    }

    pub(super) fn take_batch(&mut self, seq: u64, batch: Batch) -> Result<(), Dropped> {
        if seq <= self.committed() {
            return Err(Dropped::Duplicate);
        }
        let has_room = batch.bytes() <= self.room_at(seq);
        let slot = self.slots.get_mut(&seq).ok_or(Dropped::Seq)?;
        if !slot.names(batch.digest()) {
            return Err(Dropped::Unasked);
        }
        if !has_room {
            return Err(Dropped::Full);
        }
        slot.keep(batch);
        self.commit_ready();
        Ok(())
    }
}
