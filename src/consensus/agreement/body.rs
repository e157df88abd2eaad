//! An entry as the body of a block: its records, then one that says who asked for them.

use crate::consensus::{
    pbft::{Batch, HEADS_RECORD_BYTES},
    record::Record,
};
use crate::wire::id::PartitionIndex;
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
