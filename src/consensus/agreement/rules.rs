//! What may be ordered: by whom, and under which names.
//!
//! Invariants worth naming
//! - A message that asks for anything else is as good as lost, so no correct replica ever has it in its
//!   log.
//! - The name of each task that is asked for is the one that its place in its request has: nobody can
//!   ask for a task in somebody else's name, or for two in one.

use crate::{
    consensus::{
        pbft::{Batch, Company, Message, Request, Terms},
        record::Record,
    },
    wire::{
        id::{PartitionIndex, TOKENS_END},
        msgpack::is_one_value,
        names::{Named, Names, Naming},
    },
};
use bytes::Bytes;

/// The rules of one life of a cluster.
#[derive(Clone, Debug)]
pub struct Rules {
    names: Names,
    /// All nodes, in the order of their numbers.
    nodes: Vec<u64>,
    terms: Terms,
}

/// Bytes of a type's name at most.
pub const TYPE_BYTES_MAX: usize = 64;
/// Bytes of a key with its scope at most.
pub const KEY_BYTES_MAX: usize = TYPE_BYTES_MAX + 1 + 256;
/// The longest delay of a task, milliseconds.
pub const DELAY_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1000;

impl Rules {
    /// Those of these nodes.
    pub fn new(company: &Company) -> Self {
        let nodes = company.members().into_iter().map(|(node, _)| node).collect();
        Self { names: Names::new(company.genesis()), nodes, terms: company.terms }
    }

    fn place_of(&self, node: u64) -> Option<u8> {
        let place = self.nodes.binary_search(&node).ok()?;
        u8::try_from(place).ok()
    }

    /// What a node's requests are named by, from this number on; `None` for one that is no node.
    pub fn naming(&self, node: u64, next: u64) -> Option<Naming> {
        Some(Naming { names: self.names, asker: self.place_of(node)?, next })
    }

    /// The nodes whose bits are set, in the order of their numbers.
    pub fn among(&self, bits: u8) -> Vec<u64> {
        self.nodes.iter().copied().filter(|node| self.is_among(*node, bits)).collect()
    }

    /// Whether a node is among those whose bits are set, in the order of their numbers.
    pub fn is_among(&self, node: u64, bits: u8) -> bool {
        self.place_of(node)
            .is_some_and(|place| bits.checked_shr(place.into()).unwrap_or(0) & 1 == 1)
    }

    /// Who asked for the task of a name, and the number of that request; `None` when it is no name of
    /// the partition.
    fn asker_of(&self, partition: PartitionIndex, name: u128) -> Option<(u64, u64)> {
        let Named { asker, request, .. } =
            self.names.read(name).filter(|named| named.partition == partition)?;
        Some((*self.nodes.get(usize::from(asker))?, request))
    }

    /// Whether bytes are a block of records that a primary itself may order: one at least, each of the
    /// partition, whole and known, none that only replicas write or that anybody may ask for.
    pub fn is_own(&self, partition: PartitionIndex, bytes: &[u8]) -> bool {
        is_block(bytes, |record, _, is_alone| match record {
            Record::Order { .. } => false,
            // What is not needed any more stands alone in its entry.
            Record::Compacted { partition: of, .. } => of == partition && is_alone,
            Record::Tokens { partition: of, below } => of == partition && below < TOKENS_END,
            // Copies of tasks that live: keys live by themselves.
            Record::Submitted { id, is_asked, key, .. } => {
                id.partition == partition
                    && !is_asked
                    && key.is_none()
                    && self.asker_of(partition, id.random).is_some()
            }
            Record::Key { id, key, .. } => {
                id.partition == partition
                    && !key.is_empty()
                    && self.asker_of(partition, id.random).is_some()
            }
            Record::Ended { id, status, .. } => id.partition == partition && status.is_ended(),
            record => record.id().partition == partition,
        })
    }

    /// Whether all tasks that a primary's block says are there were asked for, as `is_done` says of the
    /// requests of a node: nobody makes one up that somebody will ask for.
    pub fn are_asked_for(
        &self,
        partition: PartitionIndex,
        bytes: &[u8],
        is_done: impl Fn(u64, u64) -> bool,
    ) -> bool {
        is_block(bytes, |record, _, _| match record {
            Record::Submitted { id, .. } | Record::Key { id, .. } => self
                .asker_of(partition, id.random)
                .is_some_and(|(node, request)| is_done(node, request)),
            _ => true,
        })
    }

    /// What a primary says in an order of tasks and keys that live, block by block.
    pub fn claims(message: &Message) -> Vec<Bytes> {
        let Message::PrePrepare(order) = message else { return Vec::new() };
        let is_claim = |own: &Request| {
            let is_copy = |record: Record<'_>| {
                matches!(record, Record::Submitted { .. } | Record::Key { .. })
            };
            own.timestamp == 0 && !is_block(&own.operation, |record, _, _| !is_copy(record))
        };
        let own = order.batch.operations().filter(is_claim);
        own.map(|own| own.operation).collect()
    }

    /// Whether a request is one that any node may make: a block of submissions to the partition, each
    /// under the name that is its own.
    pub fn is_request(&self, partition: PartitionIndex, request: &Request) -> bool {
        let Some(asker) = self.place_of(request.client) else { return false };
        let named = |place| Named { asker, partition, request: request.timestamp, place };
        is_block(&request.operation, |record, place, _| match record {
            Record::Submitted { id, is_asked, attempts, .. } => {
                let is_its_own = id.random == self.names.name(named(place));
                id.partition == partition
                    && is_its_own
                    && is_asked
                    && attempts == 0
                    && self.is_submission(&record)
            }
            _ => false,
        })
    }

    /// Whether a door would have taken a submission.
    fn is_submission(&self, record: &Record<'_>) -> bool {
        let Record::Submitted { agent_type, submitted_unix_ms, due_unix_ms, key, payload, .. } =
            record
        else {
            return false;
        };
        let delay_ms = match due_unix_ms {
            0 => Some(0),
            due_unix_ms => due_unix_ms.checked_sub(*submitted_unix_ms),
        };
        let is_key = |key: &[u8]| (1..=KEY_BYTES_MAX).contains(&key.len());
        delay_ms.is_some_and(|delay_ms| delay_ms <= DELAY_MS_MAX)
            && agent_type.len() <= TYPE_BYTES_MAX
            && key.is_none_or(is_key)
            && payload.len() as u64 <= self.terms.payload_bytes_max
            && is_one_value(payload)
    }

    /// Whether all that a message asks to be ordered may be.
    pub fn is_fit(&self, partition: PartitionIndex, message: &Message) -> bool {
        let is_batch = |batch: &Batch| {
            batch.operations().all(|request| match request.timestamp {
                0 => self.is_own(partition, &request.operation),
                _ => self.is_request(partition, &request),
            })
        };
        match message {
            Message::Request(request) => self.is_request(partition, request),
            message => message.batches().into_iter().all(is_batch),
        }
    }
}

/// Whether all submissions of a request were submitted before a time, Unix time in milliseconds.
pub fn submitted_before(request: &[u8], unix_ms: u64) -> bool {
    is_block(request, |record, _, _| match record {
        Record::Submitted { submitted_unix_ms, .. } => submitted_unix_ms < unix_ms,
        _ => true,
    })
}

/// Whether all tasks were submitted before a time that a primary orders because others ask for them. What it
/// says lives may be as old as it was when clocks were ahead: refused, it could never be written again, and its
/// primaries would be left one after the other.
pub fn asked_before(message: &Message, unix_ms: u64) -> bool {
    let Message::PrePrepare(order) = message else { return true };
    let mut asked = order.batch.operations().filter(|request| request.timestamp > 0);
    asked.all(|request| submitted_before(&request.operation, unix_ms))
}

/// Whether bytes are whole records, one at least, each of them fit; that is told its place among them,
/// and whether it is alone.
fn is_block(bytes: &[u8], is_fit: impl Fn(Record<'_>, u32, bool) -> bool) -> bool {
    let (mut at, mut place) = (0, 0);
    while at < bytes.len() {
        let Ok((record, length)) = Record::decode(&bytes[at..]) else { return false };
        if !is_fit(record, place, length == bytes.len()) {
            return false;
        }
        (at, place) = (at + length, place + 1);
    }
    at > 0
}
