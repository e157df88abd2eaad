//! One group: a replica of a partition's log.
//!
//! Invariants worth naming
//! - Proposals that were not told as committed or lost are bounded, in number and bytes.
//! - Proposals leave the memory of this replica in messages of about a mebibyte: those that
//!   arrive between two rounds travel together.
//! - How long a replica waits before it stands for election follows from the seed alone.

use super::{
    changes::Proof,
    entries::{ENTRY_OVERHEAD_BYTES, Entries},
    guard::{self, Dropped},
    outputs::{Event, Kind, Point, Role, Write},
    ready::Held,
    removal::Doubt,
    restore::{Broken, Restore},
};
pub use crate::consensus::engine::{Limits, Refused, Status};
use crate::{
    consensus::place::Place,
    planted::{self, Bug},
};
use bytes::Bytes;
use raft::{
    Config, INVALID_ID, RawNode, StateRole,
    eraftpb::{Entry, Message, MessageType},
};
use std::collections::VecDeque;

/// Ticks without a leader before a replica may stand for election; twice as many at most.
pub const ELECTION_TICKS: usize = 10;
/// Ticks between two heartbeats.
pub const HEARTBEAT_TICKS: usize = 2;
/// Bytes of entries in one message, when they are more than one.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages with entries under way to one follower.
const MESSAGES_IN_FLIGHT: usize = 256;
/// Bytes of committed entries that are told at once.
const TOLD_BYTES_MAX: u64 = 4 << 20;
/// Reads that wait for their confirmation.
const READS_MAX: usize = 1024;

/// A proposal of this replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proposal {
    pub index: u64,
    pub ticket: u64,
    pub bytes: usize,
}

/// A replica of a partition's log.
pub struct Group {
    pub(super) partition: u16,
    pub(super) me: u64,
    pub(super) raft: RawNode<Entries>,
    pub(super) limits: Limits,
    pub(super) seed: u64,
    /// Elections that this replica began.
    pub(super) campaigns: u64,
    pub(super) role: Role,
    /// Proposals that raft was not given yet: they are the next message.
    pending: Vec<Entry>,
    pending_bytes: usize,
    /// Proposals whose fate was not told, in their order; the last ones are pending.
    pub(super) proposals: VecDeque<Proposal>,
    pub(super) proposal_bytes: usize,
    /// What is told with the next round: proposals that were taken here and refused by raft, and what
    /// it means to have been taken out of the group.
    pub(super) to_tell: Vec<Event>,
    /// Reads that were asked for, by the number that raft knows them by; in its order.
    pub(super) reads: VecDeque<(u64, u64)>,
    last_read: u64,
    /// Reads that are confirmed at an index.
    pub(super) confirmed: VecDeque<(u64, u64)>,
    pub(super) held: VecDeque<Held>,
    /// What the last hard state that was written says.
    pub(super) written: super::HardState,
    /// The commit index that is surely on the disk.
    pub(super) durable_commit: u64,
    /// Entries up to this were told, or need not be.
    pub(super) told: u64,
    /// To be written with whatever comes next.
    pub(super) writes: Vec<Write>,
    /// When each peer was heard of, ticks.
    pub(super) heard: Vec<(u64, u64)>,
    /// Members are to leave, and those that remain are asked for a sign of life.
    pub(super) proof: Option<Proof>,
    /// Whether it is a member still.
    pub(super) doubt: Doubt,
    pub(super) now: u64,
}

impl Group {
    /// A group that goes on with what was read back.
    ///
    /// # Errors
    /// When that is not whole.
    pub fn new(me: u64, seed: u64, limits: Limits, restore: Restore) -> Result<Self, Broken> {
        let partition = restore.partition();
        let (entries, told) = restore.finish(limits.cache_bytes)?;
        let written = entries.hard_state();
        let config = Config {
            id: me,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            max_size_per_msg: MESSAGE_BYTES_MAX as u64,
            max_inflight_msgs: MESSAGES_IN_FLIGHT,
            pre_vote: true,
            check_quorum: true,
            // Followers hear of commits with what follows, or the next heartbeat: half as many
            // messages, and nobody waits for them.
            skip_bcast_commit: true,
            // A second belt: this group refuses earlier.
            max_uncommitted_size: (2 * limits.proposal_bytes.max(MESSAGE_BYTES_MAX)) as u64,
            max_committed_size_per_ready: TOLD_BYTES_MAX,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, entries, &logger)
            .expect("the configuration is constant, and what was read back was checked");
        Ok(Self {
            partition,
            me,
            raft,
            limits,
            seed: mix(seed ^ mix(me ^ mix(u64::from(partition)))),
            campaigns: 0,
            role: Role::Follower { leader: None },
            pending: Vec::new(),
            pending_bytes: 0,
            proposals: VecDeque::new(),
            proposal_bytes: 0,
            to_tell: Vec::new(),
            reads: VecDeque::new(),
            last_read: 0,
            confirmed: VecDeque::new(),
            held: VecDeque::new(),
            durable_commit: written.commit,
            written,
            told,
            writes: Vec::new(),
            heard: Vec::new(),
            proof: None,
            doubt: Doubt::default(),
            now: 0,
        })
    }

    /// Proposes a block. Its fate is told with the ticket.
    ///
    /// # Errors
    /// When it is not taken; its fate is not told then.
    pub fn propose(&mut self, data: Bytes, ticket: u64) -> Result<(), Refused> {
        self.leads()?;
        let bytes = data.len() + ENTRY_OVERHEAD_BYTES;
        let is_over = self.proposals.len() >= self.limits.proposals
            || self.proposal_bytes + bytes > self.limits.proposal_bytes;
        if is_over && !self.proposals.is_empty() || self.raft.raft.lead_transferee.is_some() {
            return Err(Refused::Busy);
        }
        if self.pending_bytes + bytes > MESSAGE_BYTES_MAX {
            self.flush();
        }
        self.pending.push(Entry { data, ..Entry::default() });
        self.pending_bytes += bytes;
        // The index is known when raft has it.
        self.proposals.push_back(Proposal { index: u64::MAX, ticket, bytes });
        self.proposal_bytes += bytes;
        Ok(())
    }

    /// Gives raft what is pending. When it does not lead any more, all is told as lost with the
    /// leadership.
    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let count = entries.len();
        if !self.is_leader_told() {
            return;
        }
        let first = self.raft.raft.raft_log.last_index() + 1;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        let from = self.proposals.len() - count;
        if self.raft.raft.step(message).is_ok() {
            for (index, proposal) in (first..).zip(self.proposals.range_mut(from..)) {
                proposal.index = index;
            }
            return;
        }
        for Proposal { ticket, bytes, .. } in self.proposals.drain(from..) {
            self.proposal_bytes -= bytes;
            self.to_tell.push(Event::Lost { ticket });
        }
    }

    /// Whether proposals wait for [`Group::flush`].
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether raft leads in the term that was told.
    pub(super) fn is_leader_told(&self) -> bool {
        let raft = &self.raft.raft;
        matches!(self.role, Role::Leader { term } if term == raft.term)
            && raft.state == StateRole::Leader
    }

    pub(super) fn leads(&self) -> Result<(), Refused> {
        if self.is_leader_told() {
            return Ok(());
        }
        let leader = self.raft.raft.leader_id;
        Err(Refused::NotLeader {
            leader: (![INVALID_ID, self.me].contains(&leader)).then_some(leader),
        })
    }

    /// Takes a message of a peer.
    ///
    /// # Errors
    /// When it cannot be; it is dropped.
    pub fn step(&mut self, message: Message) -> Result<(), Dropped> {
        let raft = &self.raft.raft;
        guard::check(&message, self.me, raft.term, &raft.raft_log)?;
        let is_order = message.get_msg_type() == MessageType::MsgTimeoutNow;
        if is_order && self.would_lead_unwritten() || self.is_muted(&message) {
            return Ok(());
        }
        self.hear_of_leader(&message);
        let raft = &self.raft.raft;
        let mut message = message;
        if planted::has(Bug::IgnoredTerm) {
            message.term = message.term.max(raft.term);
        }
        let from = message.from;
        match self.heard.iter_mut().find(|(peer, _)| *peer == from) {
            Some((_, at)) => *at = self.now,
            None if raft.prs().get(from).is_some() => self.heard.push((from, self.now)),
            None => {}
        }
        if let Some(proof) = &mut self.proof {
            proof.heard.insert(from);
        }
        let vote = planted::has(Bug::CountedTwice).then(|| (message.clone(), self.votes()));
        let taken = self.raft.step(message).map_err(|_| Dropped::NotMember);
        if let Some((vote, votes)) = vote {
            self.count_again(&vote, votes);
        }
        taken
    }

    /// Votes that it was given in the election that it stands in.
    fn votes(&self) -> usize {
        self.raft.raft.prs().tally_votes().0
    }

    /// The bug of that name: a vote that changed nothing is taken for that of another voter.
    fn count_again(&mut self, vote: &Message, votes: usize) {
        let is_vote = vote.get_msg_type() == MessageType::MsgRequestVoteResponse && !vote.reject;
        for from in self.members().clone().voters {
            let raft = &self.raft.raft;
            let stands = raft.state == StateRole::Candidate && raft.term == vote.term;
            if is_vote && stands && self.votes() == votes {
                // What it does not take changes nothing.
                let _ = self.raft.step(Message { from, ..vote.clone() });
            }
        }
    }

    /// A single voter leads as soon as it stands for election, and raft asks that all it has is
    /// on the disk by then.
    fn would_lead_unwritten(&self) -> bool {
        self.raft.raft.prs().is_singleton() && !self.held.is_empty()
    }

    /// A tick of the clock passes.
    pub fn tick(&mut self, now: u64) {
        self.now = now;
        self.raft.mut_store().fetching.get_mut().now = now;
        self.doubt();
        let raft = &mut self.raft.raft;
        let is_leader = raft.state == StateRole::Leader;
        // Who has not even heard of what is committed does not stand for election.
        let is_behind = raft.raft_log.has_next_entries_since(self.told);
        if !is_leader && (is_behind || self.would_lead_unwritten() || self.is_mute()) {
            return;
        }
        let raft = &mut self.raft.raft;
        let spread =
            mix(self.seed ^ mix(raft.term ^ mix(self.campaigns))) as usize % ELECTION_TICKS;
        raft.set_randomized_election_timeout(ELECTION_TICKS + spread);
        if self.raft.tick() && !is_leader {
            self.campaigns += 1;
        }
        self.leave_joint();
    }

    /// A single voter does not wait for an election.
    pub(super) fn hurry(&mut self) {
        let raft = &self.raft.raft;
        let is_alone = raft.prs().is_singleton() && raft.promotable();
        let may_stand = raft.state == StateRole::Follower && !self.is_mute();
        if is_alone && may_stand && self.held.is_empty() {
            // It cannot fail: the only one who votes is this replica.
            let _ = self.raft.campaign();
        }
    }

    /// Begins to hand leadership over; proposals are refused until that is over, which raft bounds
    /// by an election timeout.
    ///
    /// # Errors
    /// When this replica does not lead.
    pub fn transfer(&mut self, to: u64) -> Result<(), Refused> {
        self.leads()?;
        self.flush();
        self.raft.transfer_leader(to);
        Ok(())
    }

    /// Whether leadership is being handed over.
    pub fn is_handing_over(&self) -> bool {
        self.raft.raft.lead_transferee.is_some()
    }

    /// Asks to be told when everything that is committed now was told, which makes a read of what
    /// was applied linearizable.
    ///
    /// # Errors
    /// When this replica does not lead, or too many reads wait.
    pub fn read(&mut self, context: u64) -> Result<(), Refused> {
        self.leads()?;
        if self.reads.len() + self.confirmed.len() >= READS_MAX {
            return Err(Refused::Busy);
        }
        self.last_read += 1;
        self.reads.push_back((self.last_read, context));
        self.raft.read_index(self.last_read.to_le_bytes().to_vec());
        Ok(())
    }

    /// Forgets entries up to an index, which were told; every replica does that by itself.
    pub fn compact(&mut self, index: u64) {
        if self.raft.mut_store().compact(index) {
            self.writes.push(Write::Compacted(self.raft.store().point()));
        }
    }

    /// Writes again what must not be lost and may lie in old segments only.
    pub fn restate(&mut self) {
        let state = self.raft.store().hard_state();
        self.written = state;
        self.writes.extend([Write::Compacted(self.raft.store().point()), Write::HardState(state)]);
    }

    /// Tells where an entry was written.
    pub fn placed(&mut self, index: u64, term: u64, place: Place) {
        self.raft.mut_store().placed(index, term, place);
    }

    /// Answers a fetch with the data of its entries; `None` when they cannot be read.
    pub fn fetched(&mut self, id: u64, data: Option<Vec<Bytes>>) {
        let fits = data.filter(|data| self.is_answer(id, data));
        let fetching = self.raft.mut_store().fetching.get_mut();
        let waiting = fits.map_or_else(Vec::new, |data| fetching.answer(id, data));
        for context in waiting {
            self.raft.on_entries_fetched(context);
        }
        self.raft.mut_store().fetching.get_mut().done(id);
    }

    fn is_answer(&self, id: u64, data: &[Bytes]) -> bool {
        let entries = self.raft.store();
        let Some(first) = entries.fetching.borrow().first(id) else { return false };
        (first..).zip(data).all(|(index, data)| {
            entries.stored(index).is_some_and(|(_, stored)| stored.bytes as usize == data.len())
        })
    }

    /// A peer cannot be reached: what was sent to it is sent again when it can.
    pub fn unreachable(&mut self, peer: u64) {
        self.raft.report_unreachable(peer);
    }

    /// What it was told to be.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The members.
    pub fn members(&self) -> &super::Members {
        self.raft.store().members()
    }

    /// The data of an entry, when they are in memory.
    pub fn in_memory(&self, index: u64) -> Option<Bytes> {
        self.raft.store().in_memory(index)
    }

    /// What an entry carries, and where it lies on the disk.
    pub fn stored(&self, index: u64) -> Option<(Kind, super::Stored)> {
        self.raft.store().stored(index)
    }

    /// The term of an entry that its log holds, or of the point.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.raft.store().term_at(index)
    }

    /// The point that its log begins behind.
    pub fn point(&self) -> Point {
        self.raft.store().point()
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let raft = &self.raft.raft;
        Status {
            role: self.role,
            term: raft.term,
            first: self.raft.store().first(),
            last: raft.raft_log.last_index(),
            commit: raft.raft_log.committed,
            cached_bytes: self.raft.store().cached_bytes(),
            proposals: self.proposals.len(),
            agreement: None,
        }
    }

    /// Leadership is over: tells of everything whose fate is not known.
    pub(super) fn step_down(&mut self, events: &mut Vec<Event>) {
        self.pending.clear();
        self.pending_bytes = 0;
        self.proposal_bytes = 0;
        self.proof = None;
        events
            .extend(self.proposals.drain(..).map(|Proposal { ticket, .. }| Event::Lost { ticket }));
        let reads = self.reads.drain(..).chain(self.confirmed.drain(..));
        events.extend(reads.map(|(_, context)| Event::ReadLost { context }));
        self.role = Role::Follower { leader: None };
    }

    /// The ticket of an entry that this replica proposed.
    pub(super) fn take_ticket(&mut self, index: u64, kind: Kind) -> Option<u64> {
        let is_own = self.proposals.front().is_some_and(|first| first.index == index);
        if !is_own || kind != Kind::Normal {
            return None;
        }
        let Proposal { ticket, bytes, .. } = self.proposals.pop_front()?;
        self.proposal_bytes -= bytes;
        Some(ticket)
    }
}

/// Spreads the bits of a number.
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
