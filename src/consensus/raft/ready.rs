//! The cycle of a group: what is ready, what waits for the disk, what is told.
//!
//! A round of raft ends in a *ready*. What a leader says is sent at once, while its own disk
//! writes; what anybody else says promises something, so it is held until the disk has it. Rounds
//! without a promise pass by the disk when none before them waits.
//!
//! The commit index alone needs no write of its own: the state is built from the log, and what is
//! committed is found again. It travels with the next write. A change of the membership is the
//! exception: a replica that forgot that one was committed would count quorums by the old members
//! while others count by the new ones. So its round is held until the commit index is on the disk.

use super::{
    HardState, Members,
    group::{ELECTION_TICKS, Group},
    message,
    outputs::{Event, Fetch, Kind, Outputs, Point, Role, Write},
};
use crate::planted::{self, Bug};
use raft::{
    INVALID_ID, SnapshotStatus, StateRole,
    eraftpb::{ConfChangeV2, Entry, Message, MessageType},
};

/// Rounds that are taken at once; the rest waits for the next call.
const ROUNDS_MAX: usize = 16;
/// Messages under way to a follower beyond which it is not fed from the disk.
const FED_MESSAGES: usize = 16;
/// Bytes of entries that are fetched at once.
const FETCH_BYTES: usize = 2 << 20;
/// Entries that are fetched at once.
const FETCH_ENTRIES: usize = 16 << 10;

/// What a round tells, when it may.
#[derive(Debug, Default)]
pub(super) struct Told {
    events: Vec<Event>,
    changes: Vec<(u64, ConfChangeV2)>,
    /// The index up to which it is applied then.
    applied: Option<u64>,
}

/// A round that waits for the disk, or for one that does.
#[derive(Debug)]
pub(super) struct Held {
    number: u64,
    needs_disk: bool,
    messages: Vec<Message>,
    /// What it tells, when that waits too.
    told: Option<Told>,
    /// The commit index that is on the disk when it is.
    commit: u64,
}

impl Group {
    /// Takes what is ready. The answer is the number that [`Group::persisted`] is told when the
    /// writes of this call are on the disk, if something waits for them.
    pub fn take_ready(&mut self, outputs: &mut Outputs) -> Option<u64> {
        self.flush();
        let partition = self.partition;
        outputs.writes.extend(self.writes.drain(..).map(|write| (partition, write)));
        outputs.events.extend(self.to_tell.drain(..).map(|event| (partition, event)));
        self.take_question(outputs);
        let mut waits = None;
        for _ in 0..ROUNDS_MAX {
            if !self.raft.has_ready() {
                self.hurry();
                if !self.raft.has_ready() {
                    break;
                }
            }
            waits = self.take_round(outputs).or(waits);
        }
        self.ask(outputs);
        waits
    }

    /// Whether [`Group::take_ready`] would find something.
    pub fn has_ready(&self) -> bool {
        self.has_pending()
            || !self.writes.is_empty()
            || !self.to_tell.is_empty()
            || self.doubt.is_due
            || self.raft.has_ready()
            || self
                .raft
                .store()
                .fetching
                .borrow()
                .unasked()
                .any(|(first, since)| self.may_ask(first, since) != Some(false))
    }

    fn take_round(&mut self, outputs: &mut Outputs) -> Option<u64> {
        let partition = self.partition;
        let mut told = Told::default();
        let mut ready = self.raft.ready();
        let (number, must_sync) = (ready.number(), ready.must_sync());
        let is_installed = !ready.snapshot().is_empty();
        if is_installed {
            self.install(message::point_of(ready.snapshot()), &mut told, outputs);
        }
        let entries = ready.take_entries();
        self.raft.mut_store().append(&entries);
        outputs.writes.extend(entries.into_iter().map(|entry| (partition, write_of(entry))));
        if let Some(state) = ready.hs() {
            let before = self.raft.store().hard_state();
            let state =
                HardState { term: state.term, vote: state.vote, commit: state.commit, ..before };
            self.raft.mut_store().set_hard_state(state);
        }
        let messages = ready.take_messages();
        let committed = ready.take_committed_entries();
        for state in ready.take_read_states() {
            self.confirm(&state.request_ctx, state.index);
        }
        let mut held_messages = ready.take_persisted_messages();
        self.raft.advance_append_async(ready);
        self.send(messages, outputs);
        if planted::has(Bug::EarlyPromise) {
            self.send(std::mem::take(&mut held_messages), outputs);
        }
        self.commit(committed, &mut told);
        self.tell_role(&mut told.events);
        self.tell_reads(&mut told.events);

        let changes_at = told.changes.last().map_or(0, |(index, _)| *index);
        let holds = is_installed || changes_at > self.durable_commit;
        let needs_disk = must_sync || holds;
        let state = self.raft.store().hard_state();
        if needs_disk && (holds || state != self.written) {
            outputs.writes.push((partition, Write::HardState(state)));
            self.written = state;
        }
        let told = if holds || self.held.iter().any(|held| held.told.is_some()) {
            Some(told)
        } else {
            self.settle(told, outputs);
            None
        };
        if needs_disk || !self.held.is_empty() {
            let commit = self.written.commit;
            self.held.push_back(Held { number, needs_disk, messages: held_messages, told, commit });
        } else {
            self.send(held_messages, outputs);
            self.raft.on_persist_ready(number);
        }
        needs_disk.then_some(number)
    }

    fn install(&mut self, point: Point, told: &mut Told, outputs: &mut Outputs) {
        self.told = point.index;
        told.applied = Some(point.index);
        told.events.push(Event::Installed { index: point.index });
        told.events.push(Event::Membership(point.members.clone()));
        self.raft.mut_store().install(point.clone());
        outputs.writes.push((self.partition, Write::Installed(point)));
    }

    fn send(&mut self, messages: Vec<Message>, outputs: &mut Outputs) {
        for message in &messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                // The point is all there is of a snapshot, so it has left with the message. A
                // follower that did not get it says so when it refuses what follows.
                self.raft.report_snapshot(message.to, SnapshotStatus::Finish);
            }
        }
        let partition = self.partition;
        outputs.messages.extend(messages.into_iter().map(|message| (partition, message)));
    }

    fn commit(&mut self, entries: Vec<Entry>, told: &mut Told) {
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            told.applied = Some(index);
            let Some((kind, stored)) = self.raft.store().stored(index) else { continue };
            if kind == Kind::Change
                && let Some(change) = self.raft.store().change(index)
            {
                told.changes.push((index, change));
            }
            let ticket = self.take_ticket(index, kind);
            if index > self.told {
                self.told = index;
                // Raft was given an entry without its data when they are not in memory.
                let data = (entry.data.len() == stored.bytes as usize).then_some(entry.data);
                let place = stored.place;
                told.events.push(Event::Committed { index, term, kind, ticket, data, place });
            }
            self.tell_leader(term, &mut told.events);
        }
    }

    /// The first committed entry of a term is its leader's first: with it, everything before was
    /// told.
    fn tell_leader(&mut self, term: u64, events: &mut Vec<Event>) {
        let raft = &self.raft.raft;
        let role = Role::Leader { term };
        if raft.state != StateRole::Leader || raft.term != term || self.role == role {
            return;
        }
        if let Role::Leader { .. } = self.role {
            self.step_down(events);
            events.push(Event::Role(self.role));
        }
        self.role = role;
        events.push(Event::Role(role));
    }

    fn tell_role(&mut self, events: &mut Vec<Event>) {
        let leader_id = self.raft.raft.leader_id;
        let leader = (![INVALID_ID, self.me].contains(&leader_id)).then_some(leader_id);
        match self.role {
            Role::Leader { .. } if self.is_leader_told() => return,
            Role::Leader { .. } => self.step_down(events),
            Role::Follower { leader: known } if known == leader => return,
            Role::Follower { .. } => {}
        }
        self.role = Role::Follower { leader };
        events.push(Event::Role(self.role));
    }

    fn confirm(&mut self, context: &[u8], index: u64) {
        let number = context.try_into().map_or(0, u64::from_le_bytes);
        if let Some(at) = self.reads.iter().position(|(known, _)| *known == number)
            && let Some((_, context)) = self.reads.remove(at)
        {
            self.confirmed.push_back((index, context));
        }
    }

    fn tell_reads(&mut self, events: &mut Vec<Event>) {
        while self.confirmed.front().is_some_and(|(index, _)| *index <= self.told) {
            let (_, context) = self.confirmed.pop_front().expect("it was seen");
            events.push(Event::Read { context });
        }
    }

    /// Tells what a round has to tell, and lets raft know that it is applied.
    fn settle(&mut self, told: Told, outputs: &mut Outputs) {
        let partition = self.partition;
        outputs.events.extend(told.events.into_iter().map(|event| (partition, event)));
        for (index, change) in told.changes {
            // A point that was installed meanwhile says it already.
            if index < self.raft.store().first() {
                continue;
            }
            // What one replica cannot apply, none can: they all have the same members before it.
            let Ok(state) = self.raft.apply_conf_change(&change) else { continue };
            let members = Members::from_conf_state(&state);
            self.raft.mut_store().changed(index, members.clone());
            outputs.events.push((partition, Event::Membership(members)));
        }
        if let Some(applied) = told.applied.filter(|at| *at >= self.raft.raft.raft_log.applied) {
            self.raft.advance_apply_to(applied);
            self.raft.mut_store().told(applied);
        }
        let raft = &mut self.raft.raft;
        if raft.state == StateRole::Leader && raft.prs().get(self.me).is_none() {
            // It was removed, and commits nothing any more.
            let term = raft.term;
            raft.become_follower(term, INVALID_ID);
        }
    }

    /// The writes of [`Group::take_ready`] up to that number are on the disk.
    pub fn persisted(&mut self, number: u64, outputs: &mut Outputs) {
        let mut released = Vec::new();
        while let Some(held) = self.held.front() {
            if held.needs_disk && held.number > number {
                break;
            }
            let held = self.held.pop_front().expect("it was seen");
            if held.number <= number {
                self.durable_commit = self.durable_commit.max(held.commit);
            }
            released.push(held);
        }
        let Some(last) = released.last() else { return };
        self.raft.on_persist_ready(last.number);
        for Held { messages, told, .. } in released {
            self.send(messages, outputs);
            if let Some(told) = told {
                self.settle(told, outputs);
            }
        }
    }

    /// Writes the commit index when it is ahead of what was written. `is_shared` tells whether there
    /// may ever be another member.
    pub fn write_commit(&mut self, outputs: &mut Outputs, is_shared: bool) {
        // What one replica alone holds is committed: the commit index tells nothing more. Behind a
        // change of the membership, and where the point is not known yet, whoever reads the log
        // back relies on it.
        if !is_shared && self.raft.store().is_alone() {
            return;
        }
        let state = self.raft.store().hard_state();
        // A term or a vote that waits for its round is written with that.
        if state != self.written {
            outputs.writes.push((self.partition, Write::HardState(state)));
            self.written = state;
        }
    }

    /// Whether entries from an index on are to be fetched now: `None` when no follower is there
    /// any more. A follower with much under way is fed when it has answered. One that does not
    /// answer has lost it, and only finds that out when it gets something that does not fit.
    fn may_ask(&self, first: u64, since: u64) -> Option<bool> {
        let followers = self.raft.raft.prs().iter().map(|(_, progress)| progress);
        let is_stuck = self.now >= since + ELECTION_TICKS as u64;
        followers
            .filter(|progress| progress.next_idx == first)
            .map(|progress| is_stuck || progress.ins.count() < FED_MESSAGES)
            .reduce(|one, other| one || other)
    }

    /// Asks for entries that followers need from the disk, as far as they keep up.
    fn ask(&mut self, outputs: &mut Outputs) {
        if self.raft.store().fetching.borrow().unasked().next().is_none() {
            return;
        }
        let mut fetching = std::mem::take(self.raft.mut_store().fetching.get_mut());
        let asked = fetching.ask(|first, since| self.may_ask(first, since));
        *self.raft.mut_store().fetching.get_mut() = fetching;
        for (id, first) in asked {
            let entries = self.raft.store().places(first, FETCH_BYTES, FETCH_ENTRIES);
            if entries.is_empty() {
                self.raft.mut_store().fetching.get_mut().done(id);
            } else {
                outputs.fetches.push(Fetch { partition: self.partition, id, first, entries });
            }
        }
    }
}

fn write_of(entry: Entry) -> Write {
    let kind = Kind::of(entry.get_entry_type());
    Write::Entry { term: entry.term, index: entry.index, kind, data: entry.data }
}
