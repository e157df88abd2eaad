//! The replicas of a node as the log thread drives them.

#[cfg(any(feature = "byzantine", feature = "planted-bugs"))]
use super::byzantine::Liar;
use super::{
    body::{batch_of, body_of},
    recovery::Restored,
    rules::{Rules, asked_before, submitted_before},
    tokens::Tokens,
};
use crate::consensus::{
    engine::{
        Agreement, Block, Claims, Duty, Engine, Envelope, Event, Kind, Refused, Requested, Role,
        Status, Stored, ToBlock,
    },
    format::BlockKind,
    members::{Change, ChangeRefused, Members},
    pbft::{
        Answer, Company, Dropped, Group, Letter, Message, Outputs, Settings, Write,
        driver::{Driver, Unfit},
    },
    peers::NodeId,
    place::Place,
};
use crate::wire::names::{Crowd, Naming};
use bytes::Bytes;
use std::borrow::Cow;

/// How far a node's clock may be ahead of a primary's, milliseconds: what was submitted later than that is not
/// ordered, since the keys of it would be kept for long.
const AHEAD_MS_MAX: u64 = 60 * 60 * 1000;
/// How far the clocks of two correct nodes may be from each other, milliseconds: a replica waits for nothing
/// that the primary may have to refuse by its clock.
const APART_MS_MAX: u64 = 10 * 60 * 1000;

/// How far beyond that one may be whose order this node takes part in, milliseconds: clocks differ, and what
/// no primary should order would be dropped by some, and not by others.
const ORDERED_AHEAD_MS_MAX: u64 = AHEAD_MS_MAX + 24 * 60 * 60 * 1000;

/// The replicas of a node in all partitions.
pub struct Replicas {
    driver: Driver,
    me: NodeId,
    members: Members,
    rules: Rules,
    /// What was reserved in each partition.
    tokens: Vec<Tokens>,
    /// Who takes up much in each partition.
    crowds: Vec<Crowd>,
    /// The Unix time at which this engine's time began, milliseconds.
    zero_unix_ms: u64,
    now_ms: u64,
    #[cfg(any(feature = "byzantine", feature = "planted-bugs"))]
    liar: Liar,
}

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwanted {
    /// What it wants to be ordered is no block of records of the partition.
    #[error("it asks for something that no log can hold")]
    Unfit,
    /// Whoever asks has as many tasks or keys in the partition as one node may have.
    #[error("whoever asks takes up all that one node may")]
    Crowded,
    /// Whoever asks has a clock that is far ahead.
    #[error("it was submitted in the future")]
    Ahead,
    /// Whoever says what lives is not the primary of this view.
    #[error("only who leads says what lives")]
    NotLeading,
    /// The replica drops it.
    #[error(transparent)]
    Dropped(#[from] Dropped),
}

impl Replicas {
    /// Replicas that go on with what was read back, in the order of their partitions; their time begins at
    /// that Unix time, milliseconds.
    ///
    /// # Errors
    /// When that is not whole, or these nodes cannot agree.
    pub fn new(
        settings: Settings,
        company: &Company,
        groups: Vec<Restored>,
        zero_unix_ms: u64,
    ) -> Result<Self, Unfit> {
        let members = Members::of_voters(&company.nodes);
        let crowds = vec![Crowd::default(); groups.len()];
        let tokens = groups.iter().map(|group| Tokens::new(group.reserved)).collect();
        let groups = groups.into_iter().map(|group| group.restore).collect();
        Ok(Self {
            driver: Driver::new(settings, company, groups)?,
            me: company.node,
            members,
            rules: Rules::new(company),
            tokens,
            crowds,
            zero_unix_ms,
            now_ms: 0,
            #[cfg(any(feature = "byzantine", feature = "planted-bugs"))]
            liar: Liar::of_environment(company),
        })
    }

    /// Whether a primary may reserve the tokens that it does.
    fn may_reserve(&self, partition: u16, message: &Message) -> bool {
        let Message::PrePrepare(order) = message else { return true };
        let tokens = self.tokens.get(usize::from(partition));
        tokens.is_none_or(|tokens| tokens.may_order(order.batch.data(), self.now_ms))
    }

    /// Whether a primary may order what others ask for, by the time at which they say that it was
    /// submitted: keys would be kept for long, and the order of waiting would be lost.
    fn is_of_this_time(&self, message: &Message) -> bool {
        asked_before(message, self.now_unix_ms().saturating_add(ORDERED_AHEAD_MS_MAX))
    }

    fn now_unix_ms(&self) -> u64 {
        self.zero_unix_ms.saturating_add(self.now_ms)
    }

    /// Whether a node may ask for more now.
    fn may_ask(&self, partition: u16, message: &Message) -> Result<(), Unwanted> {
        let Message::Request(request) = message else { return Ok(()) };
        let crowd = self.crowds.get(usize::from(partition)).copied().unwrap_or_default();
        if self.rules.is_among(request.client, crowd.full) {
            return Err(Unwanted::Crowded);
        }
        let orders = self.group(partition).is_some_and(|group| group.primary() == self.me);
        let ahead_ms = if orders { AHEAD_MS_MAX } else { AHEAD_MS_MAX - APART_MS_MAX };
        match submitted_before(&request.operation, self.now_unix_ms().saturating_add(ahead_ms)) {
            true => Ok(()),
            false => Err(Unwanted::Ahead),
        }
    }

    /// Whether all tasks that a primary says are there were asked for, as far as this replica knows.
    /// What it does not know yet it is sent again when it does.
    fn are_asked_for(&self, partition: u16, message: &Message) -> bool {
        let Message::PrePrepare(order) = message else { return true };
        let Some(group) = self.driver.group(partition) else { return true };
        let is_done = |node, request| group.has_executed(node, request);
        let mut own = order.batch.operations().filter(|request| request.timestamp == 0);
        own.all(|own| self.rules.are_asked_for(partition, &own.operation, is_done))
    }

    /// The group of a partition.
    pub fn group(&self, partition: u16) -> Option<&Group> {
        self.driver.group(partition)
    }
}

impl Engine for Replicas {
    const MEMBERS_CHANGE: bool = false;
    const NODES_MAY_LIE: bool = true;

    type Message = Letter;
    type Write = Write;
    type Dropped = Unwanted;

    fn propose(&mut self, partition: u16, data: Bytes, ticket: u64) -> Result<(), Refused> {
        debug_assert!(self.rules.is_own(partition, &data), "others would drop it");
        #[cfg(any(feature = "byzantine", feature = "planted-bugs"))]
        let data = {
            let committed = self.driver.group(partition).map_or(0, |group| group.log().last());
            self.liar.propose(partition, data, committed)
        };
        self.driver.propose(partition, data, ticket)
    }

    fn step(&mut self, partition: u16, from: NodeId, letter: Letter) -> Result<(), Unwanted> {
        #[cfg(any(feature = "byzantine", feature = "planted-bugs"))]
        if self.liar.ignores(&letter.message) {
            return Ok(());
        }
        #[cfg(any(feature = "byzantine", feature = "planted-bugs"))]
        if let Some(stolen) = self.liar.steal(partition, &letter.message) {
            // Nobody else need take it from a node that orders it itself.
            let _ = self.driver.step(partition, self.me, stolen);
        }
        let message = &letter.message;
        let is_fit = self.rules.is_fit(partition, message)
            && self.may_reserve(partition, message)
            && self.are_asked_for(partition, message);
        if !is_fit {
            return Err(Unwanted::Unfit);
        }
        self.may_ask(partition, message)?;
        if !self.is_of_this_time(message) {
            return Err(Unwanted::Ahead);
        }
        Ok(self.driver.step(partition, from, letter.message)?)
    }

    fn claims(
        &mut self,
        partition: u16,
        from: NodeId,
        letter: &Letter,
    ) -> Result<Claims, Unwanted> {
        let Message::PrePrepare(order) = &letter.message else { return Ok(None) };
        // It is waited for, whatever becomes of it here.
        self.driver.hear_order(partition, from, order.view, order.seq);
        let claims = Rules::claims(&letter.message);
        if claims.is_empty() {
            return Ok(None);
        }
        if self.driver.group(partition).is_some_and(|group| order.seq <= group.log().last()) {
            // What lived then may have ended.
            return Err(Dropped::Duplicate.into());
        }
        let leads = |group: &Group| group.view() == order.view && group.primary() == from;
        if !self.driver.group(partition).is_some_and(leads) {
            return Err(Unwanted::NotLeading);
        }
        match self.rules.is_fit(partition, &letter.message) {
            true => Ok(Some((order.seq.saturating_sub(1), claims))),
            false => Err(Unwanted::Unfit),
        }
    }

    fn advance(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.driver.advance(now_ms);
    }

    fn next_tick_ms(&self) -> Option<u64> {
        self.driver.next_tick_ms()
    }

    fn read(&mut self, partition: u16, context: u64) -> Result<(), Refused> {
        self.driver.read(partition, context)
    }

    fn compact(&mut self, partition: u16, index: u64) {
        self.driver.compact(partition, index);
    }

    fn keep(&mut self, partition: u16) {
        self.driver.keep(partition);
    }

    fn crowd(&mut self, partition: u16, crowd: Crowd) {
        let Some(known) = self.crowds.get_mut(usize::from(partition)) else { return };
        let before = std::mem::replace(known, crowd);
        if before == crowd {
            return;
        }
        let Crowd { full, near } = crowd;
        self.driver.crowd(partition, self.rules.among(full), self.rules.among(near));
        let newly = full & !before.full;
        for node in self.rules.among(newly) {
            tracing::warn!(
                partition,
                node,
                "a node takes up all that one may: it may ask for nothing"
            );
        }
    }

    fn owed(&mut self, partition: u16, duty: Option<Duty>) {
        self.driver.owed(partition, duty);
    }

    fn restate(&mut self) {
        self.driver.restate();
    }

    fn placed(&mut self, partition: u16, index: u64, term: u64, place: Place) {
        self.driver.placed(partition, index, term, place);
    }

    fn fetched(&mut self, partition: u16, id: u64, data: Option<Vec<Bytes>>) {
        let batches = data.and_then(|bodies| bodies.iter().map(batch_of).collect());
        self.driver.fetched(partition, id, batches);
    }

    /// What was lost is sent again when the other replica tells how far it is.
    fn unreachable(&mut self, _: NodeId) {}

    fn persisted(&mut self, batch: u64) {
        self.driver.persisted(batch);
    }

    fn has_ready(&self) -> bool {
        self.driver.has_ready()
    }

    fn take_ready(&mut self, outputs: &mut Outputs) {
        self.driver.take_ready(outputs);
        for (partition, event) in &outputs.events {
            if let (Event::Committed { data: Some(data), .. }, Some(tokens)) =
                (event, self.tokens.get_mut(usize::from(*partition)))
            {
                tokens.committed(data, self.now_ms);
            }
        }
        #[cfg(any(feature = "byzantine", feature = "planted-bugs"))]
        self.liar.lie(outputs);
    }

    fn status(&self, partition: u16) -> Option<Status> {
        let status = self.driver.status(partition)?;
        let counters = status.counters;
        Some(Status {
            role: status.role,
            term: status.view + 1,
            first: status.first,
            last: status.accepted,
            commit: status.committed.seq,
            cached_bytes: status.cached_bytes,
            proposals: status.proposals,
            agreement: Some(Agreement {
                view: status.view,
                is_active: status.is_active,
                fast: counters.fast,
                slow: counters.slow,
                view_changes: counters.view_changes,
                has_quorum: status.has_quorum,
                dropped: counters.dropped.iter().sum(),
                wrong: counters.wrong(),
                verified: status.verified,
                chain: status.committed.chain,
                diverged: status.diverged,
            }),
        })
    }

    fn members(&self, partition: u16) -> Option<&Members> {
        self.driver.group(partition).map(|_| &self.members)
    }

    fn begins_behind(&self, partition: u16) -> u64 {
        self.driver.group(partition).map_or(0, |group| group.log().point().index)
    }

    fn stored(&self, partition: u16, index: u64) -> Option<(Kind, Stored)> {
        let stored = self.driver.group(partition)?.log().stored(index)?;
        Some((Kind::Normal, stored))
    }

    fn in_memory(&self, partition: u16, index: u64) -> Option<Bytes> {
        let batch = self.driver.group(partition)?.log().in_memory(index)?;
        Some(batch.data().clone())
    }

    /// Primaries take turns, so that none that lies picks the next: the one whose turn it is takes
    /// over, and hands on in its turn until it is that of the node that was asked for.
    fn transfer(&mut self, partition: u16, to: NodeId) -> Result<(), Refused> {
        match self.driver.status(partition).map(|status| status.role) {
            Some(Role::Leader { .. }) => {}
            Some(Role::Follower { leader }) => return Err(Refused::NotLeader { leader }),
            None => return Err(Refused::NotLeader { leader: None }),
        }
        if to != self.me && self.members.is_voter(to) {
            self.driver.abdicate(partition);
        }
        Ok(())
    }

    fn change(&mut self, _: u16, _: &Change) -> Result<(), ChangeRefused> {
        Err(ChangeRefused::Fixed)
    }

    fn is_membership_known(&self, _: u16) -> bool {
        true
    }

    fn resign(&mut self) {
        let partitions = (0..).take_while(|partition| self.driver.group(*partition).is_some());
        let partitions: Vec<_> = partitions.collect();
        partitions.into_iter().for_each(|partition| self.driver.abdicate(partition));
    }

    fn request(&mut self, partition: u16, data: Bytes, ticket: u64) -> Result<(), Refused> {
        #[cfg(debug_assertions)]
        if let Some(group) = self.driver.group(partition) {
            let (client, timestamp, operation) = (self.me, group.next_number(), data.clone());
            let request = Request { client, timestamp, operation, signature: Signature::NONE };
            assert!(self.rules.is_request(partition, &request), "others would drop it");
        }
        self.driver.request(partition, data, ticket)
    }

    fn naming(&self, partition: u16) -> Option<Naming> {
        self.rules.naming(self.me, self.driver.group(partition)?.next_number())
    }

    fn take_answers(&mut self) -> Vec<Requested> {
        let answers = self.driver.take_answers().into_iter();
        let requested = |(_, answer): (u16, Answer)| {
            let Answer { ticket, index, is_fast } = answer;
            Requested { ticket, index, is_fast }
        };
        answers.map(requested).collect()
    }

    /// Nobody is ever taken out.
    fn disown(&mut self, _: u16, _: u64, _: u64) {}
}

impl Envelope for Letter {
    fn to(&self) -> &[NodeId] {
        &self.to
    }

    fn encode_apart(&self, _: u16, head: &mut Vec<u8>, parts: &mut Vec<Bytes>) {
        self.message.encode(head, parts);
    }

    fn decode_apart(
        _: u16,
        _: NodeId,
        head: &Bytes,
        parts: impl Iterator<Item = Bytes>,
    ) -> Option<Self> {
        let parts: Vec<_> = parts.collect();
        let message = Message::decode(head, &parts).ok()?;
        Some(Self { to: Vec::new(), message })
    }
}

impl ToBlock for Write {
    fn to_block(&self, partition: u16) -> Block<'_> {
        match self {
            Self::Entry { term, index, heads, data } => {
                let body = Cow::Owned(body_of(partition, heads, data));
                Block { kind: BlockKind::Records, term: *term, index: *index, body }
            }
            Self::Note(bytes) => {
                Block { kind: BlockKind::Note, term: 0, index: 0, body: Cow::Borrowed(bytes) }
            }
        }
    }
}
