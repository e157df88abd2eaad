//! An entry as the body of a block: its records, then one that says who asked for them.

use crate::{
    consensus::{
        pbft::{Batch, HEADS_RECORD_BYTES, Message},
        record::Record,
    },
    wire::id::{PartitionIndex, TOKENS_END},
};
use bytes::Bytes;

/// The body of the block that keeps a batch.
pub fn body_of(partition: PartitionIndex, heads: &[u8], data: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(data.len() + HEADS_RECORD_BYTES + heads.len());
    body.extend_from_slice(data);
    Record::Order { partition, heads }.encode(&mut body);
    body
}

/// The heads and the data in a body, every record of which was checked; `None` when the last record
/// does not say who asked.
pub fn split(body: &Bytes) -> Option<(Bytes, Bytes)> {
    let mut at = 0;
    loop {
        let (record, bytes) = Record::decode_checked(&body[at..]).ok()?;
        if at + bytes < body.len() {
            at += bytes;
            continue;
        }
        return match record {
            Record::Order { heads, .. } => Some((body.slice_ref(heads), body.slice(..at))),
            _ => None,
        };
    }
}

/// The batch in a body, every record of which was checked.
pub fn batch_of(body: &Bytes) -> Option<Batch> {
    let (heads, data) = split(body)?;
    Batch::new(heads, data).ok()
}

/// Whether bytes are a block of records that a primary itself may order: one at least, each of the
/// partition, whole and known, none that only replicas write or that anybody may ask for.
pub fn is_own(partition: PartitionIndex, bytes: &[u8]) -> bool {
    is_block(bytes, |record, is_alone| match record {
        Record::Order { .. } => false,
        // What is not needed any more stands alone in its entry.
        Record::Compacted { partition: of, .. } => of == partition && is_alone,
        Record::Tokens { partition: of, below } => of == partition && below < TOKENS_END,
        // Copies of tasks that live: keys live by themselves.
        Record::Submitted { id, is_asked, key, .. } => {
            id.partition == partition && !is_asked && key.is_none()
        }
        Record::Key { id, key, .. } => id.partition == partition && !key.is_empty(),
        Record::Ended { id, status, .. } => id.partition == partition && status.is_ended(),
        record => record.id().partition == partition,
    })
}

/// Whether bytes are a block of records that any node may ask for: submissions of the partition.
pub fn is_request(partition: PartitionIndex, bytes: &[u8]) -> bool {
    is_block(bytes, |record, _| match record {
        Record::Submitted {
            id, is_asked, attempts, key, submitted_unix_ms, due_unix_ms, ..
        } => {
            let is_in_order = due_unix_ms == 0 || due_unix_ms >= submitted_unix_ms;
            let has_key = key.is_none_or(|key| !key.is_empty());
            id.partition == partition && is_asked && attempts == 0 && is_in_order && has_key
        }
        _ => false,
    })
}

/// Whether bytes are whole records, one at least, each of them fit; that is told whether a record is
/// alone.
fn is_block(bytes: &[u8], is_fit: impl Fn(Record<'_>, bool) -> bool) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let Ok((record, length)) = Record::decode(&bytes[at..]) else { return false };
        if !is_fit(record, length == bytes.len()) {
            return false;
        }
        at += length;
    }
    at > 0
}

/// Whether all that a message asks to be ordered may be.
pub fn is_fit(partition: PartitionIndex, message: &Message) -> bool {
    let is_batch = |batch: &Batch| {
        batch.operations().all(|request| match request.timestamp {
            0 => is_own(partition, &request.operation),
            _ => is_request(partition, &request.operation),
        })
    };
    match message {
        Message::Request(request) => is_request(partition, &request.operation),
        message => batches(message).into_iter().all(is_batch),
    }
}

/// The batches that a message carries.
fn batches(message: &Message) -> Vec<&Batch> {
    match message {
        Message::PrePrepare(order) => vec![&order.batch],
        Message::BatchTell(_, batch) => vec![batch],
        Message::Entries(entries) => entries.batches.iter().collect(),
        Message::Proven(entries) => entries.iter().map(|(_, batch)| batch).collect(),
        _ => Vec::new(),
    }
}
