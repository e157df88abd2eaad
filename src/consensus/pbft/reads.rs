//! Reads without an entry (the read-only optimisation, OSDI '99, §5.1).
//!
//! The primary asks all whether its view is still theirs. When a quorum says so, no later view can
//! have committed anything before it was asked: that takes a quorum which has left this one. So the
//! read is answered when everything that the primary had ordered by then is committed and told.
//! A primary that hears of a quorum, and not that its view is theirs, leaves the view after the patience that
//! others have with it: some have left it alone and cannot come back, or say nothing of it.
//! A client that is no primary asks all for the last committed entry and the chain behind it, and
//! believes what a quorum says alike.

use super::{group::Group, message::Message, outputs::Dropped};
use crate::{
    consensus::engine::{Event, Refused},
    planted::{self, Bug},
};
use std::collections::BTreeSet;

/// A read that waits.
#[derive(Clone, Debug)]
pub struct Read {
    /// The number of the question.
    id: u64,
    /// What it was asked for with.
    pub context: u64,
    /// What had been ordered when it was asked for.
    index: u64,
    /// When it was asked for, milliseconds.
    since_ms: u64,
    /// Who says that the view is still its own.
    said: BTreeSet<u64>,
}

impl Group {
    /// Asks to be told when everything that is committed now was told, which makes a read of what
    /// was applied linearizable.
    ///
    /// # Errors
    /// When this replica does not lead, or too many reads wait.
    pub fn read(&mut self, context: u64) -> Result<(), Refused> {
        self.leads()?;
        if !self.has_room_for_reads() {
            return Err(Refused::Busy);
        }
        self.last_question += 1;
        let (id, index) = (self.last_question, self.accepted.seq);
        let said = BTreeSet::from([self.me]);
        self.reads.push_back(Read { id, context, index, since_ms: self.now, said });
        self.tell_all(Message::ReadAsk(id, self.view));
        self.tell_reads();
        Ok(())
    }

    pub(super) fn answer_read(&mut self, from: u64, id: u64, view: u64) -> Result<(), Dropped> {
        if !self.is_active || view != self.view {
            return Err(Dropped::View);
        }
        if from != self.primary() {
            return Err(Dropped::Sender);
        }
        self.tell(from, Message::ReadTell(id, view));
        Ok(())
    }

    pub(super) fn take_read(&mut self, from: u64, id: u64, view: u64) -> Result<(), Dropped> {
        if view != self.view {
            return Err(Dropped::View);
        }
        // A view is asked later for what was asked before as well.
        let asked = self.reads.iter_mut().filter(|read| read.id <= id);
        let said = asked.map(|read| read.said.insert(from)).filter(|is_new| *is_new).count();
        if said == 0 { Err(Dropped::Unasked) } else { Ok(()) }
    }

    /// Whether a read waits too long for a quorum to say that the view is theirs, while one is heard of.
    pub(super) fn is_unconfirmed(&self) -> bool {
        let due = |read: &Read| {
            read.said.len() < self.members.quorum() && self.now >= read.since_ms + self.patience()
        };
        self.has_quorum() && self.reads.front().is_some_and(due)
    }

    /// Asks again for the reads that wait.
    pub(super) fn ask_reads(&mut self) {
        if let Some(last) = self.reads.back().map(|read| read.id) {
            self.tell_all(Message::ReadAsk(last, self.view));
        }
    }

    /// Tells of reads that are confirmed and whose entries were told.
    pub(super) fn tell_reads(&mut self) {
        let (committed, quorum) = (self.committed(), self.members.quorum());
        while let Some(read) = self.reads.front()
            && read.index <= committed
            && (read.said.len() >= quorum || planted::has(Bug::UnconfirmedRead))
        {
            self.events.push(Event::Read { context: read.context });
            self.reads.pop_front();
        }
    }

    pub(super) fn take_head_ask(&mut self, from: u64, id: u64) -> Result<(), Dropped> {
        if !self.keys.ring().knows(from) {
            return Err(Dropped::Sender);
        }
        // One question of each client waits.
        self.head_asks.insert(from, id);
        Ok(())
    }

    /// Tells clients how far the log is, when nothing is executed tentatively: a request that
    /// tentative answers have finished is in what a quorum says then (OSDI '99, §5.1).
    pub(super) fn answer_heads(&mut self) {
        let next = self.slots.get(&(self.committed() + 1));
        // It may have been answered in an earlier life, as committed perhaps, of which no more than the certificate
        // is left; and one of a later view takes that one's place.
        let is_tentative = next.is_some_and(|slot| {
            let is_prepared = slot.certificate.as_ref().is_some_and(|it| it.view >= self.view);
            slot.answered == Some(self.view) || is_prepared
        });
        let takes_any = planted::has(Bug::EarlyHead) || planted::has(Bug::TentativeHead);
        if is_tentative && !takes_any || !self.is_active || self.committed() < self.bar {
            return;
        }
        let (seq, chain) = match planted::has(Bug::TentativeHead) {
            true => (self.accepted.seq, self.accepted.chain),
            false => (self.committed(), self.log.chain()),
        };
        for (client, id) in std::mem::take(&mut self.head_asks) {
            self.tell(client, Message::HeadTell(id, seq, chain));
        }
    }
}
