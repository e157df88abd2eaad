//! What is ready, and what waits for the disk.
//!
//! What a replica promises is held until what it promises is on its disk; the rest is sent at once.
//! Several of these rounds may share one synced write, and they end in their order.

use super::{
    group::Group,
    keys::Digest,
    message::Message,
    outputs::{Letter, Write},
};
use crate::consensus::engine::{Event, Stored};

/// What follows when the writes before it are on the disk.
#[derive(Clone, Debug)]
pub(super) enum AfterDisk {
    /// An entry is there.
    Written { seq: u64, digest: Digest },
    /// A proposal is accepted.
    Accepted { view: u64, seq: u64, chain: Digest },
    /// An entry is prepared.
    Certified { view: u64, seq: u64 },
    /// A view was left or begun, and that is said.
    Send(Letter),
    /// The first life of this replica, in the first view, has begun.
    Begun,
    /// Numbers of requests are reserved.
    Reserved,
    /// Entries came by state transfer.
    Transferred { id: u64 },
}

/// What waits for a batch of writes.
#[derive(Clone, Debug)]
pub(super) struct Held {
    number: u64,
    after: Vec<AfterDisk>,
}

/// What comes out of a group at once.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// To be sent at once.
    pub letters: Vec<Letter>,
    /// To be written in this order.
    pub writes: Vec<Write>,
    /// What the caller acts on.
    pub events: Vec<Event>,
    /// Answered with [`Group::fetched`]: what the answer is given with, the first entry, where they
    /// lie.
    pub fetches: Vec<(u64, u64, Vec<Stored>)>,
    /// What [`Group::persisted`] is told when the writes of this call, and of those before, are on
    /// the disk; `None` when nothing waits for that.
    pub wait: Option<u64>,
}

impl Group {
    /// Whether [`Group::take_ready`] would find something.
    pub fn has_ready(&self) -> bool {
        let is_empty = self.letters.is_empty()
            && self.writes.is_empty()
            && self.events.is_empty()
            && self.fetches.is_empty()
            && self.after_disk.is_empty();
        !is_empty || self.may_order_requests()
    }

    /// Takes everything that is to be done.
    pub fn take_ready(&mut self) -> Ready {
        self.order_requests();
        self.given.clear();
        if !self.writes.is_empty() {
            self.note_commit();
        }
        let mut wait = None;
        if !self.writes.is_empty() || !self.after_disk.is_empty() {
            let after = std::mem::take(&mut self.after_disk);
            if self.writes.is_empty() && self.held.is_empty() {
                // Nothing is under way that it could wait for.
                self.release(after);
                return self.take_ready();
            }
            self.batch += 1;
            wait = Some(self.batch);
            self.held.push_back(Held { number: self.batch, after });
        }
        Ready {
            letters: std::mem::take(&mut self.letters),
            writes: std::mem::take(&mut self.writes),
            events: std::mem::take(&mut self.events),
            fetches: std::mem::take(&mut self.fetches),
            wait,
        }
    }

    /// The writes up to that number are on the disk.
    pub fn persisted(&mut self, number: u64) {
        while self.held.front().is_some_and(|held| held.number <= number)
            && let Some(held) = self.held.pop_front()
        {
            self.release(held.after);
        }
    }

    fn release(&mut self, after: Vec<AfterDisk>) {
        for after in after {
            match after {
                AfterDisk::Written { seq, digest } => self.written_durably(seq, digest),
                AfterDisk::Accepted { view, seq, chain } => {
                    self.accepted_durably(view, seq, chain);
                }
                AfterDisk::Certified { view, seq } => self.certified_durably(view, seq),
                AfterDisk::Send(letter) => {
                    match &letter.message {
                        Message::ViewChange(it) => self.is_change_said |= it.view == self.view,
                        Message::NewView(it) => self.is_view_said |= it.view == self.view,
                        _ => {}
                    }
                    if !letter.to.is_empty() {
                        self.letters.push(letter);
                    }
                }
                AfterDisk::Begun => self.is_view_said |= self.is_active && self.view == 0,
                AfterDisk::Reserved => self.is_reserving = false,
                AfterDisk::Transferred { id } => self.transferred(id),
            }
        }
        self.settle();
    }
}
