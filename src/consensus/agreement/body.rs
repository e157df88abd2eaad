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

/// Whether bytes are a block of records of a partition that somebody may ask for: one at least, each
/// whole and known, none that only replicas write.
pub fn is_operation(partition: PartitionIndex, bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let Ok((record, length)) = Record::decode(&bytes[at..]) else { return false };
        let is_alone = at == 0 && length == bytes.len();
        let is_fit = match record {
            Record::Order { .. } => false,
            // What is not needed any more stands alone in its entry.
            Record::Compacted { partition: of, .. } => of == partition && is_alone,
            Record::Tokens { partition: of, below } => of == partition && below < TOKENS_END,
            record => record.id().partition == partition,
        };
        if !is_fit {
            return false;
        }
        at += length;
    }
    at > 0
}

/// Whether all that a message asks to be ordered may be.
pub fn is_fit(partition: PartitionIndex, message: &Message) -> bool {
    let is_batch = |batch: &Batch| {
        batch.operations().all(|request| is_operation(partition, &request.operation))
    };
    match message {
        Message::Request(request) => is_operation(partition, &request.operation),
        message => batches(message).into_iter().all(is_batch),
    }
}

/// Whether a message asks for something in the name of another client than the primary that proposes it.
pub fn has_requests(message: &Message) -> bool {
    let is_asked = |batch: &Batch| batch.requests().any(|head| head.timestamp != 0);
    match message {
        Message::Request(_) => true,
        message => batches(message).into_iter().any(is_asked),
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
