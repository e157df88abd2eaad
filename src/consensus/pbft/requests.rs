//! Requests of clients that wait to be ordered (OSDI '99, §4.1, §4.2).
//!
//! A replica keeps what a client asked for until it is executed, hands it on to the primary, and
//! leaves the view of a primary under which it waits too long.
//!
//! Invariants worth naming
//! - What waits is signed by its client, and bounded for each client in number and bytes: the lowest numbers
//!   stay, so that all replicas keep the same of a client that asks for more.
//! - Of each client the lowest number alone is waited for, and anew when a lower one was executed. A correct
//!   primary orders that before whatever else the client asks it for, or something lower.
//! - A request is ordered once in a view, and not when it was executed.
//! - What a primary would not take makes nobody leave its view: what a client asks for that may ask for
//!   nothing is not kept, this node's own no more than another's; what one asks for that is near to that is
//!   kept and handed on, and not waited for, since the primary may know of more; and for its own requests a
//!   node follows those who leave for them.

use super::{
    batch::{BATCH_BYTES_MAX, BATCH_REQUESTS_MAX, Batch, Request, batch_bytes},
    client::{Finished, UNDER_WAY_MAX},
    group::{Group, Head},
    message::{Message, Reply},
    notes::Note,
    outputs::{Answer, Dropped},
    table::Table,
};
use crate::consensus::engine::Refused;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{Hash, Hasher},
};

/// Bytes of requests of one client that wait; one is always taken.
pub(super) const CLIENT_BYTES_MAX: usize = 8 << 20;
/// Bytes of requests that are ordered together; a larger one is ordered alone, so that an entry fits
/// where the largest request does.
const TOGETHER_BYTES_MAX: usize = 16 << 10;
/// Numbers of requests that are reserved at once: none is used before its reservation is on the
/// disk, and none twice in two lives of a node.
const RESERVED: u64 = 1 << 16;

/// Higher requests of a client that are given up for lower ones between two reports, so that none who asks
/// for ever lower ones has all of them verified.
const GIVEN_UP_MAX: u32 = 16;

/// A queue that is no longer than this is not swept.
const QUEUE_MIN: usize = 1024;
/// Clients whose lowest request is handed on again with a report.
const HANDED_ON: usize = 32;

/// What a client asked for.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// By number.
    requests: BTreeMap<u64, Request>,
    bytes: usize,
    /// Since when the lowest is waited for, milliseconds.
    since_ms: u64,
    /// How many higher ones were given up for lower ones since the last report.
    given_up: u32,
}

impl Asked {
    /// Whether there is no room for so many bytes more.
    fn is_full(&self, bytes: usize) -> bool {
        let is_over = self.requests.len() >= UNDER_WAY_MAX || self.bytes + bytes > CLIENT_BYTES_MAX;
        is_over && !self.requests.is_empty()
    }

    /// Gives up the highest for a lower one.
    fn make_room(&mut self, timestamp: u64, bytes: usize) {
        while self.is_full(bytes)
            && let Some(highest) = self.requests.last_entry().filter(|it| *it.key() > timestamp)
        {
            self.bytes -= highest.remove().operation.len();
            self.given_up += 1;
        }
    }
}

/// Requests that wait.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    clients: BTreeMap<u64, Asked>,
    /// Those that a primary has not ordered in its view, in the order of their arrival.
    queue: VecDeque<(u64, u64)>,
    /// The queue is swept when it is longer than this.
    swept: usize,
    /// Clients that may ask for nothing now.
    refused: BTreeSet<u64>,
    /// Those whose requests nobody waits for.
    unawaited: BTreeSet<u64>,
}

impl Hash for Requests {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for (client, asked) in &self.clients {
            (client, asked.requests.keys().collect::<Vec<_>>()).hash(hasher);
        }
        self.queue.hash(hasher);
        (&self.refused, &self.unawaited).hash(hasher);
    }
}

impl Requests {
    /// Whether a request waits here, so its signature was verified.
    pub fn knows(&self, request: &Request) -> bool {
        self.get(request.client, request.timestamp).is_some_and(|known| known == request)
    }

    fn get(&self, client: u64, timestamp: u64) -> Option<&Request> {
        self.clients.get(&client)?.requests.get(&timestamp)
    }

    /// Whether there is room for a request, were it signed: that of higher ones as well.
    fn has_room_for(&self, request: &Request) -> bool {
        let Some(asked) = self.clients.get(&request.client) else { return true };
        let is_lower = asked.requests.keys().next_back().is_none_or(|it| request.timestamp < *it);
        is_lower && asked.given_up < GIVEN_UP_MAX || !asked.is_full(request.operation.len())
    }

    fn insert(&mut self, request: Request, now: u64) -> Result<(), Dropped> {
        let Request { client, timestamp, .. } = request;
        let asked = self.clients.entry(client).or_default();
        let bytes = request.operation.len();
        asked.make_room(timestamp, bytes);
        if asked.is_full(bytes) {
            return Err(Dropped::Full);
        }
        if asked.requests.keys().next().is_none_or(|lowest| timestamp < *lowest) {
            asked.since_ms = now;
        }
        asked.requests.insert(timestamp, request);
        asked.bytes += bytes;
        self.queue.push_back((client, timestamp));
        if self.queue.len() > self.swept.max(QUEUE_MIN) {
            // Those that were executed leave; a backup orders nothing and would keep them for ever.
            let (clients, mut seen) = (&self.clients, BTreeSet::new());
            self.queue.retain(|(client, timestamp)| {
                clients.get(client).is_some_and(|it| it.requests.contains_key(timestamp))
                    && seen.insert((*client, *timestamp))
            });
            self.swept = 2 * self.queue.len();
        }
        Ok(())
    }

    /// Requests of a client were executed, of which this is the lowest: forgets those, and those that can
    /// never be any more because their numbers are too far below.
    pub fn executed(&mut self, client: u64, timestamp: u64, table: &Table, now: u64) {
        let Some(asked) = self.clients.get_mut(&client) else { return };
        if asked.requests.keys().next().is_some_and(|lowest| timestamp <= *lowest) {
            asked.since_ms = now;
        }
        asked.requests.retain(|timestamp, _| table.is_fresh(client, *timestamp));
        asked.bytes = asked.requests.values().map(|request| request.operation.len()).sum();
        if asked.requests.is_empty() {
            self.clients.remove(&client);
        }
    }

    /// The same for all clients.
    pub fn all_executed(&mut self, table: &Table, now: u64) {
        let clients: Vec<_> = self.clients.keys().copied().collect();
        clients.into_iter().for_each(|client| self.executed(client, 0, table, now));
    }

    /// These clients alone may ask for nothing: forgets what they ask for that waits. Of the others those
    /// alone are not waited for; whoever is from now on, from now on.
    fn crowd(&mut self, refused: BTreeSet<u64>, unawaited: BTreeSet<u64>, now: u64) {
        self.clients.retain(|client, _| !refused.contains(client));
        for client in self.unawaited.difference(&unawaited) {
            self.clients.get_mut(client).into_iter().for_each(|asked| asked.since_ms = now);
        }
        (self.refused, self.unawaited) = (refused, unawaited);
    }

    /// Of each client the lowest, those first that have waited longest.
    fn oldest(&self, count: usize) -> Vec<Request> {
        let mut all: Vec<_> = self.clients.values().collect();
        all.sort_by_key(|asked| asked.since_ms);
        let lowest = all.into_iter().filter_map(|asked| asked.requests.values().next());
        lowest.take(count).cloned().collect()
    }

    /// Since when the lowest of another client than a node is waited for, milliseconds.
    pub fn since(&self, me: u64) -> Option<u64> {
        let is_awaited = |client: &u64| *client != me && !self.unawaited.contains(client);
        let others = self.clients.iter().filter(|(client, _)| is_awaited(client));
        others.map(|(_, asked)| asked.since_ms).min()
    }

    /// A view begins: all have to be ordered in it, and its primary has its time for that.
    pub fn begin(&mut self, now: u64) {
        self.queue.clear();
        for (client, asked) in &mut self.clients {
            asked.since_ms = now;
            self.queue.extend(asked.requests.keys().map(|timestamp| (*client, *timestamp)));
        }
    }

    /// Bytes of a batch of the first one alone; none when it was executed.
    fn first_bytes(&self) -> usize {
        let first = self.queue.front();
        let first = first.and_then(|(client, timestamp)| self.get(*client, *timestamp));
        first.map_or(0, |request| batch_bytes(1, request.operation.len()))
    }

    /// Whether nothing is to be ordered.
    fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Group {
    /// The first clients alone may ask for nothing now. Neither what they have asked for is waited for, nor
    /// what the second ones ask for, so that no primary is left which does not order it.
    pub fn crowd(
        &mut self,
        refused: impl IntoIterator<Item = u64>,
        unawaited: impl IntoIterator<Item = u64>,
    ) {
        let (refused, unawaited) = (refused.into_iter().collect(), unawaited.into_iter().collect());
        self.requests.crowd(refused, unawaited, self.now);
    }

    pub(super) fn take_request(&mut self, from: u64, request: Request) -> Result<(), Dropped> {
        let Request { client, timestamp, .. } = request;
        let is_member = self.peers.contains_key(&from) || from == self.me;
        if !(is_member || from == client) || !self.keys.ring().knows(client) {
            return Err(Dropped::Sender);
        }
        let is_over = request.operation.len() > BATCH_BYTES_MAX;
        if timestamp == 0 || is_over {
            return Err(Dropped::Proof);
        }
        if !self.table.is_fresh(client, timestamp) {
            self.answer_again(client, timestamp);
            return Err(Dropped::Duplicate);
        }
        if self.requests.refused.contains(&client) {
            return Err(Dropped::Full);
        }
        let is_asked_here = from == client;
        let is_known = self.requests.get(client, timestamp).is_some();
        if !is_known {
            // Nothing is verified that is not kept.
            if !self.requests.has_room_for(&request) {
                return Err(Dropped::Full);
            }
            if !request.is_signed(&mut self.keys) {
                return Err(Dropped::Signature);
            }
            self.requests.insert(request.clone(), self.now)?;
        }
        // A replica hands on what the client itself sent, so that nothing goes round; and what it has
        // verified, so that nobody distrusts it for what a client sends.
        let known = self.requests.get(client, timestamp).filter(|_| is_asked_here);
        if let Some(known) = known.filter(|_| !self.is_primary()).cloned() {
            self.tell_other(self.primary(), Message::Request(known));
        }
        if is_known { Err(Dropped::Duplicate) } else { Ok(()) }
    }

    /// Hands on again what is waited for: what was lost on the way to the primary, or what it had
    /// no room for.
    pub(super) fn hand_on_again(&mut self) {
        self.requests.clients.values_mut().for_each(|asked| asked.given_up = 0);
        if self.is_active && !self.is_primary() {
            let primary = self.primary();
            for request in self.requests.oldest(HANDED_ON) {
                self.tell(primary, Message::Request(request));
            }
        }
    }

    fn tell_other(&mut self, to: u64, message: Message) {
        if to != self.me {
            self.tell(to, message);
        }
    }

    /// Answers a request that was executed already.
    fn answer_again(&mut self, client: u64, timestamp: u64) {
        let Some(seq) = self.table.executed_in(client, timestamp) else { return };
        // What is compacted has no chain here any more, and the replicas need not agree on where
        // their logs begin: they answer without.
        let chain = self.log.chain_at(seq).unwrap_or_default();
        self.reply(client, vec![timestamp], Head { seq, chain }, false);
    }

    /// Whether waiting requests are to be ordered here: as the primary, when not too many entries are
    /// under way.
    pub(super) fn may_order_requests(&self) -> bool {
        !self.requests.is_idle()
            && self.leads().is_ok()
            && self.is_primary()
            && self.accepted.seq < self.high()
            && self.accepted.seq < self.committed() + self.settings.pipeline
            && self.requests.first_bytes() <= self.room_at(self.accepted.seq + 1)
    }

    /// Orders waiting requests. What has arrived since outputs were taken last travels together.
    pub(super) fn order_requests(&mut self) {
        while self.may_order_requests() {
            let batch = self.next_requests();
            if batch.is_empty() {
                return;
            }
            self.order(Batch::of_requests(self.view, &batch));
        }
    }

    fn next_requests(&mut self) -> Vec<Request> {
        let room = self.room_at(self.accepted.seq + 1);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((client, timestamp)) = self.requests.queue.front().copied() {
            let request = self.requests.get(client, timestamp);
            let request = request.filter(|_| self.projected.is_fresh(client, timestamp));
            let length = request.map_or(0, |request| request.operation.len());
            let is_full = !batch.is_empty() && bytes + length > TOGETHER_BYTES_MAX;
            let is_over = request.is_some() && batch_bytes(batch.len() + 1, bytes + length) > room;
            if batch.len() == BATCH_REQUESTS_MAX || is_full || is_over {
                break;
            }
            bytes += length;
            batch.extend(request.cloned());
            self.requests.queue.pop_front();
        }
        batch
    }

    /// Asks for a block as a client, whoever is the primary; ends in an [`Answer`].
    ///
    /// # Errors
    /// When too much is under way.
    pub fn request(&mut self, data: Bytes, ticket: u64) -> Result<(), Refused> {
        let next = self.client.next_timestamp();
        if next >= self.numbers_below {
            self.numbers_below = next + RESERVED;
            self.note(&Note::Numbers(self.numbers_below));
            self.after_disk.push(super::ready::AfterDisk::Reserved);
            self.is_reserving = true;
        }
        self.client.follow(self.view);
        let timestamp = self.client.submit(data).ok_or(Refused::Busy)?;
        self.client_tickets.insert(timestamp, ticket);
        self.settle();
        Ok(())
    }

    /// The number that this node's next request has.
    pub fn next_number(&self) -> u64 {
        self.client.next_timestamp()
    }

    /// Whether a request of a client was executed, as far as this replica has the log.
    pub fn has_executed(&self, client: u64, timestamp: u64) -> bool {
        !self.table.is_fresh(client, timestamp)
    }

    /// Takes the requests of this node that are finished.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    pub(super) fn take_reply(&mut self, from: u64, reply: Reply) -> Result<(), Dropped> {
        let taken = self.client.step(from, &Message::Reply(reply));
        self.take_finished();
        taken
    }

    /// The answer of this replica to its own node.
    pub(super) fn hear_reply(&mut self, from: u64, reply: &Reply) {
        self.client.hear(from, reply);
        self.take_finished();
    }

    fn take_finished(&mut self) {
        for Finished { timestamp, seq, is_fast, .. } in self.client.take_finished() {
            let Some(ticket) = self.client_tickets.remove(&timestamp) else { continue };
            self.answers.push(Answer { ticket, index: seq, is_fast });
            if is_fast {
                self.counters.fast += 1;
            } else {
                self.counters.slow += 1;
            }
        }
    }

    /// Sends what this node's client has to send, once its numbers are reserved on the disk.
    pub(super) fn take_client_letters(&mut self) {
        if self.is_reserving {
            return;
        }
        for letter in self.client.take_letters() {
            for to in letter.to {
                if to != self.me {
                    self.tell(to, letter.message.clone());
                } else if let Message::Request(request) = letter.message.clone() {
                    // One that it cannot take now is sent again.
                    let _ = self.take_request(self.me, request);
                }
            }
        }
    }
}
