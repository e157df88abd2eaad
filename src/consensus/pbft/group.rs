//! One group: a replica of a partition's log.
//!
//! Invariants worth naming
//! - What a replica says that others rely on is on its disk before it is sent: an accepted entry
//!   before its prepare, a certificate before the commit and the tentative answers, a view before
//!   its view change.
//! - Entries are accepted, prepared, committed and told in their order.
//! - Whatever peers and clients send takes bounded memory: a slot for each sender and kind, inside
//!   the water marks.
//! - The same inputs give the same outputs.

use super::{
    batch::{BATCH_BYTES_MAX, Batch, batch_bytes, link},
    certificate::Stable,
    client::Client,
    duty::Owed,
    keys::{Digest, Keys},
    log::Log,
    members::Members,
    message::{Checkpoint, Message, NewView, StatusReport, ViewChange},
    outputs::{Answer, Counters, Dropped, Letter, Write},
    ready::{AfterDisk, Held},
    requests::Requests,
    restore::{Broken, Restore, Restored},
    serving::Serving,
    slot::Slot,
    table::Table,
    transfer::Transfer,
    trust::Trust,
    unsettled::Unsettled,
};
pub use super::{
    settings::{Settings, Timing, WINDOW_MAX},
    status::Status,
};
use crate::consensus::{
    engine::{Event, Limits, Refused, Role, Stored},
    place::Place,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Reads that wait for their confirmation.
const READS_MAX: usize = 1024;

/// An entry and the chain behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Head {
    /// The entry.
    pub seq: u64,
    /// The chain behind it.
    pub chain: Digest,
}

/// A proposal of this replica's node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub seq: u64,
    /// The chain behind the entry that it is in.
    pub chain: Digest,
    pub ticket: u64,
    pub bytes: usize,
}

/// An entry that is to be written: which, and by which transfer it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unplaced {
    pub index: u64,
    pub term: u64,
    pub transfer: Option<u64>,
}

/// What is known of another member.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// The last report that was not dealt with.
    pub report: Option<StatusReport>,
    /// It has not come further since the one before.
    pub is_stalled: bool,
    /// The last report.
    pub last: StatusReport,
    /// When that came, milliseconds.
    pub heard_ms: Option<u64>,
    /// Its last checkpoints.
    pub checkpoints: VecDeque<Checkpoint>,
    /// The last change to a view that it wants.
    pub change: Option<Arc<ViewChange>>,
    /// The view whose primary owes it something, and when it said so last, milliseconds.
    pub owed_in: Option<(u64, u64)>,
}

/// A replica of a partition's log.
#[derive(Clone, Debug)]
pub struct Group {
    pub(super) partition: u16,
    pub(super) me: u64,
    pub(super) members: Members,
    pub(super) keys: Keys,
    pub(super) settings: Settings,
    pub(super) now: u64,

    /// What is committed.
    pub(super) log: Log,
    pub(super) table: Table,
    pub(super) is_commit_noted: bool,
    /// Proofs of what is committed were written up to this entry.
    pub(super) noted: u64,

    /// The view, and whether it has begun.
    pub(super) view: u64,
    pub(super) is_active: bool,
    /// The stable checkpoint that the view began with.
    pub(super) floor: Head,
    /// The last entry that the view began with.
    pub(super) bar: u64,
    pub(super) new_view: Option<Arc<NewView>>,
    /// Its own last view change.
    pub(super) own_change: Option<Arc<ViewChange>>,
    /// Its view change, and its new view, are on the disk.
    pub(super) is_change_said: bool,
    pub(super) is_view_said: bool,
    /// Entries are accepted up to this in the view.
    pub(super) accepted: Head,
    /// The clients' table behind that.
    pub(super) projected: Table,
    /// Commits were sent up to this in the view.
    pub(super) prepared: u64,

    pub(super) stable: Arc<Stable>,
    /// A checkpoint of a quorum that this replica has not come to.
    pub(super) target: Option<Arc<Stable>>,
    /// Its own last checkpoints.
    pub(super) own_checkpoints: VecDeque<Checkpoint>,
    pub(super) slots: BTreeMap<u64, Slot>,
    pub(super) peers: BTreeMap<u64, Peer>,
    /// What members, and clients that sign badly, have earned.
    pub(super) trusts: BTreeMap<u64, Trust>,
    pub(super) transfer: Option<Transfer>,
    pub(super) serving: BTreeMap<u64, Serving>,
    /// Whose questions were answered since what is ready was taken, and with how many bytes of batches.
    pub(super) given: BTreeMap<u64, usize>,
    /// What members asked for when no more was to be read in a tick: an id, the first and last entry.
    pub(super) deferred: BTreeMap<u64, (u64, u64, u64)>,
    /// Bytes that may still be read for members, in this tick.
    pub(super) read_bytes: usize,
    /// Members whose entries did not fold into what a quorum has signed.
    pub(super) liars: BTreeSet<u64>,
    pub(super) transfers: u64,
    /// Those in a row that brought nothing.
    pub(super) failed_transfers: u32,
    pub(super) last_question: u64,
    pub(super) compact_to: u64,

    pub(super) role: Role,
    pub(super) tickets: VecDeque<Ticket>,
    pub(super) ticket_bytes: usize,
    pub(super) reads: VecDeque<super::reads::Read>,
    /// Clients that want to know how far the log is, and the numbers of their questions.
    pub(super) head_asks: BTreeMap<u64, u64>,
    pub(super) requests: Requests,
    pub(super) client: Client,
    pub(super) client_tickets: BTreeMap<u64, u64>,
    /// Numbers of requests below this may be used.
    pub(super) numbers_below: u64,
    /// That is not on the disk yet.
    pub(super) is_reserving: bool,
    pub(super) answers: Vec<Answer>,

    /// Views in a row that did not last.
    pub(super) failures: u32,
    /// When the view began, milliseconds.
    pub(super) began_ms: u64,
    /// What the service says that the primary owes.
    pub(super) owed: Option<Owed>,
    /// What the primary has ordered.
    pub(super) unsettled: Unsettled,
    pub(super) progress_ms: u64,
    pub(super) primary_ms: u64,
    pub(super) status_due_ms: u64,
    /// Since when it has a target.
    pub(super) target_ms: u64,
    pub(super) has_begun: bool,
    /// When a quorum was seen to want the view that has not begun.
    pub(super) wanted_ms: Option<u64>,
    pub(super) diverged: Option<u64>,
    pub(super) counters: Counters,

    pub(super) letters: Vec<Letter>,
    pub(super) writes: Vec<Write>,
    pub(super) events: Vec<Event>,
    pub(super) fetches: Vec<(u64, u64, Vec<Stored>)>,
    pub(super) after_disk: Vec<AfterDisk>,
    pub(super) held: VecDeque<Held>,
    pub(super) batch: u64,
    /// Entries that were told to be written and not placed.
    pub(super) unplaced: VecDeque<Unplaced>,
}

impl Group {
    /// A group that goes on with what was read back.
    ///
    /// # Errors
    /// When that is not whole.
    pub fn new(
        me: u64,
        members: Members,
        keys: Keys,
        settings: Settings,
        restore: Restore,
    ) -> Result<Self, Broken> {
        let partition = restore.partition();
        let restored = restore.finish(settings.limits.cache_bytes)?;
        let Restored { log, table, view, is_active, floor, bar, stable, slots, .. } = restored;
        let others = members.nodes().iter().filter(|node| **node != me);
        let peers = others.map(|node| (*node, Peer::default())).collect();
        let client = Client::new(me, members.clone(), keys.clone(), settings.timing);
        let accepted = if stable.seq >= floor.seq {
            Head { seq: stable.seq, chain: stable.chain }
        } else {
            floor
        };
        let is_fresh = restored.is_fresh;
        let mut group = Self {
            partition,
            me,
            members,
            keys,
            settings,
            now: 0,
            projected: table.clone(),
            log,
            table,
            is_commit_noted: true,
            noted: 0,
            view,
            is_active,
            floor,
            bar,
            new_view: None,
            own_change: None,
            is_change_said: false,
            is_view_said: false,
            accepted,
            prepared: accepted.seq,
            stable: Arc::new(stable),
            target: restored.target.map(Arc::new),
            own_checkpoints: VecDeque::new(),
            slots,
            peers,
            trusts: BTreeMap::new(),
            transfer: None,
            serving: BTreeMap::new(),
            given: BTreeMap::new(),
            deferred: BTreeMap::new(),
            read_bytes: usize::MAX,
            liars: BTreeSet::new(),
            transfers: 0,
            failed_transfers: 0,
            last_question: 0,
            compact_to: 0,
            role: Role::Follower { leader: None },
            tickets: VecDeque::new(),
            ticket_bytes: 0,
            reads: VecDeque::new(),
            head_asks: BTreeMap::new(),
            requests: Requests::default(),
            client,
            client_tickets: BTreeMap::new(),
            numbers_below: 0,
            is_reserving: false,
            answers: Vec::new(),
            failures: 0,
            began_ms: 0,
            owed: None,
            unsettled: Unsettled::default(),
            progress_ms: 0,
            primary_ms: 0,
            status_due_ms: 0,
            target_ms: 0,
            has_begun: false,
            wanted_ms: None,
            diverged: None,
            counters: Counters::default(),
            letters: Vec::new(),
            writes: Vec::new(),
            events: Vec::new(),
            fetches: Vec::new(),
            after_disk: Vec::new(),
            held: VecDeque::new(),
            batch: 0,
            unplaced: VecDeque::new(),
        };
        group.client.begin_after(restored.numbers_below.max(group.table.last(me)));
        group.numbers_below = restored.numbers_below;
        group.resume(is_fresh);
        Ok(group)
    }

    /// Proposes a block. Its fate is told with the ticket.
    ///
    /// # Errors
    /// When it is not taken; its fate is not told then.
    pub fn propose(&mut self, data: Bytes, ticket: u64) -> Result<(), Refused> {
        self.leads()?;
        let bytes = data.len();
        let Limits { proposals, proposal_bytes, .. } = self.settings.limits;
        let is_over = self.tickets.len() >= proposals || self.ticket_bytes + bytes > proposal_bytes;
        let is_outside = self.accepted.seq >= self.high()
            || batch_bytes(1, bytes) > self.room_at(self.accepted.seq + 1);
        if is_over && !self.tickets.is_empty() || is_outside {
            return Err(Refused::Busy);
        }
        if bytes > BATCH_BYTES_MAX {
            return Err(Refused::NotLeader { leader: None });
        }
        let batch = Batch::own(self.view, self.me, data);
        let (seq, chain) = (self.accepted.seq + 1, self.next_chain(&batch));
        self.tickets.push_back(Ticket { seq, chain, ticket, bytes });
        self.ticket_bytes += bytes;
        self.order(batch);
        Ok(())
    }

    /// Whether it was told that it leads, and does.
    pub(super) fn leads(&self) -> Result<(), Refused> {
        match self.role {
            Role::Leader { .. } if self.diverged.is_none() => Ok(()),
            Role::Leader { .. } => Err(Refused::NotLeader { leader: None }),
            Role::Follower { leader } => Err(Refused::NotLeader { leader }),
        }
    }

    /// Takes a message that a member or a client sent; the link knows who it was.
    ///
    /// # Errors
    /// When it is dropped, and why.
    pub fn step(&mut self, from: u64, message: Message) -> Result<(), Dropped> {
        let taken = self.take(from, message);
        if let Err(why) = taken {
            if why == Dropped::Signature {
                // Nobody hands on what it has not verified.
                self.distrust(from);
            }
            self.counters.dropped[why as usize] += 1;
        }
        self.settle();
        taken
    }

    fn take(&mut self, from: u64, message: Message) -> Result<(), Dropped> {
        if self.diverged.is_some() {
            return Err(Dropped::Diverged);
        }
        self.check_trust(from, &message)?;
        match message {
            Message::Request(request) => return self.take_request(from, request),
            Message::HeadAsk(id) => return self.take_head_ask(from, id),
            _ => {}
        }
        let now = self.now;
        if let Message::PrePrepare(order) = &message {
            self.hear_order(from, order.view, order.seq);
        }
        if !self.peers.contains_key(&from) {
            return Err(Dropped::Sender);
        }
        let is_sign = match &message {
            Message::PrePrepare(order) => order.view == self.view,
            Message::Status(report) => report.is_active && report.view == self.view,
            _ => false,
        };
        if is_sign && from == self.primary() {
            self.primary_ms = now;
        }
        match message {
            Message::Request(_) | Message::HeadAsk(_) => Ok(()),
            Message::PrePrepare(order) => self.take_pre_prepare(from, order),
            Message::Prepare(vote) => self.take_prepare(from, vote),
            Message::Commit(vote, committed) => self.take_commit(from, vote, committed),
            Message::Reply(reply) => self.take_reply(from, reply),
            Message::Checkpoint(checkpoint) => self.take_checkpoint(from, checkpoint),
            Message::Stable(stable) => self.take_stable(from, &stable),
            Message::ViewChange(change) => self.take_view_change(from, change),
            Message::NewView(new_view) => self.take_new_view(from, new_view),
            Message::Status(report) => self.take_status(from, report),
            Message::BatchAsk(seq, digest) => self.answer_batch(from, seq, &digest),
            Message::BatchTell(seq, batch) => self.take_batch(seq, batch),
            Message::Proven(entries) => self.take_proven(from, entries),
            Message::DigestsAsk(id, first, last) => self.serve_digests(from, id, first, last),
            Message::Digests(digests) => self.take_digests(from, digests),
            Message::EntriesAsk(id, first, last) => self.serve(from, id, first, last),
            Message::Entries(entries) => self.take_entries(from, entries),
            Message::ReadAsk(id, view) => self.answer_read(from, id, view),
            Message::ReadTell(id, view) => self.take_read(from, id, view),
            Message::HeadTell(..) => Err(Dropped::Unasked),
            Message::Owed(view) => self.take_owed(from, view),
        }
    }

    /// The primary of its view.
    pub fn primary(&self) -> u64 {
        self.members.primary(self.view)
    }

    /// Whether it is the primary of its view, and that has begun.
    pub(super) fn is_primary(&self) -> bool {
        self.is_active && self.primary() == self.me
    }

    /// The high water mark.
    pub(super) fn high(&self) -> u64 {
        self.stable.seq + 2 * self.settings.checkpoint_every
    }

    /// What it has committed.
    pub(super) fn committed(&self) -> u64 {
        self.log.last()
    }

    /// Sends a message to all other members.
    pub(super) fn tell_all(&mut self, message: Message) {
        let to: Vec<_> = self.peers.keys().copied().collect();
        if !to.is_empty() {
            self.letters.push(Letter { to, message });
        }
    }

    /// Sends a message to one.
    pub(super) fn tell(&mut self, to: u64, message: Message) {
        self.letters.push(Letter { to: vec![to], message });
    }

    /// What is committed contradicts itself. This replica says nothing any more.
    pub(super) fn diverge(&mut self, seq: u64) {
        self.diverged.get_or_insert(seq);
        let mut events = Vec::new();
        self.step_down(&mut events);
        events.push(Event::Role(self.role));
        self.events.extend(events);
    }

    /// Goes on with whatever an input made possible.
    pub(super) fn settle(&mut self) {
        if self.diverged.is_some() {
            return;
        }
        self.accept_waiting();
        self.tell_role();
        self.tell_reads();
        self.answer_heads();
        self.take_client_letters();
    }

    /// Tells what the role is when that has changed.
    ///
    /// Who leads knows everything that was finished before, and its entries follow that. Until one of
    /// its own is committed, another of an earlier view may still be in a later one, which was finished
    /// for nobody: whoever has to exclude that commits an entry first, as with a reservation of
    /// fencing tokens.
    pub(super) fn tell_role(&mut self) {
        let has_all = self.committed().min(self.accepted.seq) >= self.bar;
        // What it orders in a view that its disk does not know it might order otherwise in a next life.
        let is_said = self.is_view_said;
        let leads =
            self.is_primary() && is_said && has_all && self.accepted.seq >= self.committed();
        let role = if leads {
            Role::Leader { term: self.view + 1 }
        } else {
            let leader = self.members.primary(self.view_of_others());
            Role::Follower { leader: (leader != self.me).then_some(leader) }
        };
        if role == self.role {
            return;
        }
        let mut events = Vec::new();
        if let Role::Leader { .. } = self.role {
            self.step_down(&mut events);
        }
        self.role = role;
        events.push(Event::Role(role));
        self.events.extend(events);
    }

    /// Its view; while that has not begun, the highest in which one correct member is, as far as it
    /// has heard. A replica may have left a view alone.
    fn view_of_others(&self) -> u64 {
        if self.is_active {
            return self.view;
        }
        let active = self.peers.values().filter(|peer| peer.last.is_active);
        let mut views: Vec<_> = active.map(|peer| peer.last.view).collect();
        views.sort_unstable_by(|one, other| other.cmp(one));
        views.get(self.members.faulty()).copied().unwrap_or(self.view)
    }

    /// Leadership is over: tells of everything whose fate is not known.
    pub(super) fn step_down(&mut self, events: &mut Vec<Event>) {
        self.ticket_bytes = 0;
        let tickets = self.tickets.drain(..);
        events.extend(tickets.map(|Ticket { ticket, .. }| Event::Lost { ticket }));
        let reads = self.reads.drain(..);
        events.extend(reads.map(|read| Event::ReadLost { context: read.context }));
        self.role = Role::Follower { leader: None };
    }

    /// Tells where an entry was written.
    pub fn placed(&mut self, index: u64, term: u64, place: Place) {
        while let Some(unplaced) = self.unplaced.pop_front() {
            if (unplaced.index, unplaced.term) != (index, term) {
                continue;
            }
            let transfer = self.transfer.as_mut();
            if let Some(number) = unplaced.transfer {
                let transfer = transfer.filter(|transfer| transfer.number() == number);
                transfer.into_iter().for_each(|transfer| transfer.placed(index, place));
            } else if let Some(slot) = self.slots.get_mut(&index) {
                slot.written.iter_mut().for_each(|written| written.place = place);
            }
            return;
        }
    }

    /// How many reads may still be asked for.
    pub(super) fn has_room_for_reads(&self) -> bool {
        self.reads.len() < READS_MAX
    }

    /// What it was told to be.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The members.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The partition.
    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// Signatures that were verified.
    pub fn verified(&self) -> u64 {
        self.keys.verified
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The view that it is in or wants.
    pub fn view(&self) -> u64 {
        self.view
    }

    /// The chain that a batch would make behind what is accepted.
    pub(super) fn next_chain(&self, batch: &Batch) -> Digest {
        link(&self.accepted.chain, self.accepted.seq + 1, batch.digest())
    }
}
