//! A client: it signs requests, sends them to the primary, counts answers (OSDI '99, §4.1, §5.1).
//!
//! Without an answer in time it sends a request to all replicas: each hands it on to the primary,
//! and leaves the view of one that does not order it.
//!
//! Invariants worth naming
//! - A request is finished when f + 1 replicas say that it is committed in an entry, or 2f + 1 that
//!   it is committed or tentatively executed there, in the same view and with the same chain.
//! - Of each request the last answer of each replica is kept.

use super::{
    batch::{BATCH_BYTES_MAX, Request},
    group::Timing,
    keys::{Digest, Keys},
    members::Members,
    message::{Message, Reply},
    outputs::{Dropped, Letter},
    requests::CLIENT_BYTES_MAX,
    table::REMEMBERED,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Requests under way at once: far fewer than are remembered, so that none is ever forgotten.
pub const UNDER_WAY_MAX: usize = REMEMBERED / 2;

/// What a replica has said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Said {
    view: u64,
    seq: u64,
    chain: Digest,
    is_tentative: bool,
}

#[derive(Clone, Debug)]
struct Waiting {
    request: Request,
    sent_ms: u64,
    /// How often it was sent.
    times: u32,
    said: BTreeMap<u64, Said>,
}

/// A request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its number.
    pub timestamp: u64,
    /// The entry that it is in.
    pub seq: u64,
    /// Tentative answers finished it.
    pub is_fast: bool,
}

/// A question how far the log is.
#[derive(Clone, Debug)]
struct Question {
    id: u64,
    said: BTreeMap<u64, (u64, Digest)>,
}

/// A client of a group.
#[derive(Clone, Debug)]
pub struct Client {
    me: u64,
    members: Members,
    keys: Keys,
    timing: Timing,
    now: u64,
    /// The view whose primary is asked.
    view: u64,
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Bytes of the operations that wait.
    bytes: usize,
    question: Option<Question>,
    last_question: u64,
    letters: Vec<Letter>,
    finished: Vec<Finished>,
}

impl Client {
    /// A client with a number in the ring.
    pub fn new(me: u64, members: Members, keys: Keys, timing: Timing) -> Self {
        Self {
            me,
            members,
            keys,
            timing,
            now: 0,
            view: 0,
            last: 0,
            waiting: BTreeMap::new(),
            bytes: 0,
            question: None,
            last_question: 0,
            letters: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Numbers up to this one are not used: an earlier life may have.
    pub fn begin_after(&mut self, timestamp: u64) {
        self.last = self.last.max(timestamp);
    }

    /// The number that the next request will have.
    pub fn next_timestamp(&self) -> u64 {
        self.last + 1
    }

    /// Whether another request of so many bytes may be under way. Numbers under way are near each
    /// other, so that a replica remembers each for as long as it may come again, and replicas keep no
    /// more bytes of a client than this one lets wait.
    pub fn has_room(&self, bytes: usize) -> bool {
        let oldest = self.waiting.keys().next();
        let is_near = |oldest: &u64| self.last - oldest < UNDER_WAY_MAX as u64;
        self.waiting.len() < UNDER_WAY_MAX
            && oldest.is_none_or(|oldest| is_near(oldest) && self.bytes + bytes <= CLIENT_BYTES_MAX)
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.waiting.len()
    }

    /// Asks for an operation to be appended to the log; the answer is its number, or `None` when
    /// too much is under way or it is too large.
    pub fn submit(&mut self, operation: Bytes) -> Option<u64> {
        if !self.has_room(operation.len())
            || operation.is_empty()
            || operation.len() > BATCH_BYTES_MAX
        {
            return None;
        }
        self.last += 1;
        self.bytes += operation.len();
        let timestamp = self.last;
        let request = Request::new(&self.keys, self.me, timestamp, operation);
        let to = vec![self.members.primary(self.view)];
        self.letters.push(Letter { to, message: Message::Request(request.clone()) });
        let (sent_ms, times, said) = (self.now, 1, BTreeMap::new());
        self.waiting.insert(timestamp, Waiting { request, sent_ms, times, said });
        Some(timestamp)
    }

    /// Asks how far the log is; an answer that a quorum gives alike ends in [`Client::head`].
    pub fn ask_head(&mut self) {
        self.last_question += 1;
        let id = self.last_question;
        self.question = Some(Question { id, said: BTreeMap::new() });
        let to = self.members.nodes().to_vec();
        self.letters.push(Letter { to, message: Message::HeadAsk(id) });
    }

    /// What a quorum says of the log's last entry and the chain behind it (the read-only
    /// optimisation, OSDI '99, §5.1).
    pub fn head(&self) -> Option<(u64, Digest)> {
        let said = &self.question.as_ref()?.said;
        let alike = |head: &(u64, Digest)| said.values().filter(|other| *other == head).count();
        said.values().find(|head| alike(head) >= self.members.quorum()).copied()
    }

    /// Takes a message of a replica.
    ///
    /// # Errors
    /// When it is dropped, and why.
    pub fn step(&mut self, from: u64, message: &Message) -> Result<(), Dropped> {
        if !self.members.contains(from) {
            return Err(Dropped::Sender);
        }
        match message {
            Message::Reply(reply) => self.take_reply(from, reply),
            Message::HeadTell(id, seq, chain) => {
                let question = self.question.as_mut().filter(|question| question.id == *id);
                question.ok_or(Dropped::Unasked)?.said.insert(from, (*seq, *chain));
                Ok(())
            }
            _ => Err(Dropped::Unasked),
        }
    }

    fn take_reply(&mut self, from: u64, reply: &Reply) -> Result<(), Dropped> {
        let is_wanted = reply.timestamps.iter().any(|number| self.waiting.contains_key(number));
        if reply.client != self.me || !is_wanted {
            return Err(Dropped::Unasked);
        }
        let says = reply.timestamps.iter().any(|number| self.is_new(from, *number, reply));
        if !says {
            return Err(Dropped::Duplicate);
        }
        if !reply.is_signed(from, &mut self.keys) {
            return Err(Dropped::Signature);
        }
        self.hear(from, reply);
        Ok(())
    }

    /// Whether an answer says something of a request. What is committed stays so; a tentative answer of an older
    /// view came late.
    fn is_new(&self, from: u64, timestamp: u64, reply: &Reply) -> bool {
        let Reply { view, is_tentative, .. } = *reply;
        let Some(waiting) = self.waiting.get(&timestamp) else { return false };
        waiting
            .said
            .get(&from)
            .is_none_or(|known| known.is_tentative && (!is_tentative || known.view < view))
    }

    /// Takes an answer that is surely a replica's.
    pub(super) fn hear(&mut self, from: u64, reply: &Reply) {
        let Reply { view, seq, chain, is_tentative, .. } = *reply;
        let said = Said { view, seq, chain, is_tentative };
        for timestamp in &reply.timestamps {
            let is_new = self.is_new(from, *timestamp, reply);
            let Some(waiting) = self.waiting.get_mut(timestamp) else { continue };
            if is_new {
                waiting.said.insert(from, said);
            }
            self.look(*timestamp);
        }
    }

    /// Whether a request is finished.
    fn look(&mut self, timestamp: u64) {
        let Some(waiting) = self.waiting.get(&timestamp) else { return };
        let count =
            |fits: &dyn Fn(&Said) -> bool| waiting.said.values().filter(|said| fits(said)).count();
        for said in waiting.said.values() {
            let is_same = |other: &Said| (other.seq, other.chain) == (said.seq, said.chain);
            let committed = count(&|other| is_same(other) && !other.is_tentative);
            let answers =
                count(&|other| is_same(other) && (!other.is_tentative || other.view == said.view));
            let is_slow = committed >= self.members.one_correct();
            if is_slow || answers >= self.members.quorum() {
                let seq = said.seq;
                // Of the highest views that are named, one that a correct replica has come to.
                let mut views: Vec<_> = waiting.said.values().map(|said| said.view).collect();
                views.sort_unstable_by(|one, other| other.cmp(one));
                let view = views.get(self.members.faulty()).copied().unwrap_or(0);
                self.view = self.view.max(view);
                let done = self.waiting.remove(&timestamp);
                self.bytes -= done.map_or(0, |done| done.request.operation.len());
                self.finished.push(Finished { timestamp, seq, is_fast: !is_slow });
                return;
            }
        }
    }

    /// Tells the time: what waits too long is sent to all.
    pub fn tick(&mut self, now: u64) {
        self.now = now;
        let patience = self.timing.patience_ms / 2;
        let to = self.members.nodes().to_vec();
        for waiting in self.waiting.values_mut() {
            let wait = patience << waiting.times.saturating_sub(1).min(4);
            if now < waiting.sent_ms + wait.min(self.timing.patience_max_ms) {
                continue;
            }
            (waiting.sent_ms, waiting.times) = (now, waiting.times + 1);
            let message = Message::Request(waiting.request.clone());
            self.letters.push(Letter { to: to.clone(), message });
        }
    }

    /// The primary of this view is asked from now on.
    pub fn follow(&mut self, view: u64) {
        self.view = self.view.max(view);
    }

    /// Takes what is to be sent.
    pub fn take_letters(&mut self) -> Vec<Letter> {
        std::mem::take(&mut self.letters)
    }

    /// Takes the requests that are finished.
    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    /// Signatures that were verified.
    pub fn verified(&self) -> u64 {
        self.keys.verified
    }
}
