//! The groups of a node as the log thread drives them.

use super::{
    Driver, Kind, Members, Message, Outputs, Refused, Role, Stored, Write,
    group::{Group, Status},
    guard::Dropped,
    membership::{Change, ChangeRefused},
    message::{decode_apart, encode_apart},
};
use crate::{
    consensus::{
        engine::{Duty, Engine, Envelope, Requested},
        peers::NodeId,
        place::Place,
    },
    wire::names::{Crowd, Naming},
};
use bytes::Bytes;

impl Engine for Driver {
    const MEMBERS_CHANGE: bool = true;
    const NODES_MAY_LIE: bool = false;

    type Message = Message;
    type Write = Write;
    type Dropped = Dropped;

    fn propose(&mut self, partition: u16, data: Bytes, ticket: u64) -> Result<(), Refused> {
        Driver::propose(self, partition, data, ticket)
    }

    fn step(&mut self, partition: u16, _: NodeId, message: Message) -> Result<(), Dropped> {
        Driver::step(self, partition, message)
    }

    fn advance(&mut self, now_ms: u64) {
        Driver::advance(self, now_ms);
    }

    fn next_tick_ms(&self) -> Option<u64> {
        Driver::next_tick_ms(self)
    }

    fn read(&mut self, partition: u16, context: u64) -> Result<(), Refused> {
        Driver::read(self, partition, context)
    }

    fn compact(&mut self, partition: u16, index: u64) {
        Driver::compact(self, partition, index);
    }

    fn restate(&mut self) {
        Driver::restate(self);
    }

    fn placed(&mut self, partition: u16, index: u64, term: u64, place: Place) {
        Driver::placed(self, partition, index, term, place);
    }

    fn fetched(&mut self, partition: u16, id: u64, data: Option<Vec<Bytes>>) {
        Driver::fetched(self, partition, id, data);
    }

    fn unreachable(&mut self, peer: NodeId) {
        Driver::unreachable(self, peer);
    }

    fn persisted(&mut self, batch: u64) {
        Driver::persisted(self, batch);
    }

    fn has_ready(&self) -> bool {
        Driver::has_ready(self)
    }

    fn take_ready(&mut self, outputs: &mut Outputs) {
        Driver::take_ready(self, outputs);
    }

    fn status(&self, partition: u16) -> Option<Status> {
        Driver::status(self, partition)
    }

    fn members(&self, partition: u16) -> Option<&Members> {
        self.group(partition).map(Group::members)
    }

    fn begins_behind(&self, partition: u16) -> u64 {
        self.group(partition).map_or(0, |group| group.point().index)
    }

    fn stored(&self, partition: u16, index: u64) -> Option<(Kind, Stored)> {
        self.group(partition)?.stored(index)
    }

    fn in_memory(&self, partition: u16, index: u64) -> Option<Bytes> {
        self.group(partition)?.in_memory(index)
    }

    fn transfer(&mut self, partition: u16, to: NodeId) -> Result<(), Refused> {
        Driver::transfer(self, partition, to)
    }

    fn change(&mut self, partition: u16, change: &Change) -> Result<(), ChangeRefused> {
        Driver::change(self, partition, change)
    }

    fn is_membership_known(&self, partition: u16) -> bool {
        self.group(partition).is_some_and(Group::is_membership_known)
    }

    /// Whoever hears of no majority ceases to lead by itself.
    fn resign(&mut self) {}

    /// Who leads here tells the truth: it is asked.
    fn request(&mut self, partition: u16, _: Bytes, _: u64) -> Result<(), Refused> {
        let leader = match self.status(partition).map(|status| status.role) {
            Some(Role::Follower { leader }) => leader,
            _ => None,
        };
        Err(Refused::NotLeader { leader })
    }

    /// It forgets at once what it is to forget.
    fn keep(&mut self, _: u16) {}

    /// Nobody asks.
    fn crowd(&mut self, _: u16, _: Crowd) {}

    /// Whoever leads does what it has to.
    fn owed(&mut self, _: u16, _: Option<Duty>) {}

    fn naming(&self, _: u16) -> Option<Naming> {
        None
    }

    fn take_answers(&mut self) -> Vec<Requested> {
        Vec::new()
    }

    fn disown(&mut self, partition: u16, question: u64, applied: u64) {
        Driver::disown(self, partition, question, applied);
    }
}

impl Envelope for Message {
    fn to(&self) -> &[NodeId] {
        std::slice::from_ref(&self.to)
    }

    fn encode_apart(&self, partition: u16, head: &mut Vec<u8>, parts: &mut Vec<Bytes>) {
        encode_apart(partition, self, head, parts);
    }

    fn decode_apart(
        partition: u16,
        from: NodeId,
        head: &Bytes,
        parts: impl Iterator<Item = Bytes>,
    ) -> Option<Self> {
        let (named, message) = decode_apart(head, parts).ok()?;
        // A peer speaks for itself, and of the partition that its message names.
        (named == partition && message.from == from).then_some(message)
    }
}
