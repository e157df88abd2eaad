//! Messages as bytes: a kind, then its fields in their order.
//!
//! ```text
//! kind u8 · fields: numbers little endian, digests 32, signatures 64, lists led by a count u32
//! batch: heads u32 · data u32 · heads · data, or the data apart
//! ```
//!
//! Operations of [`APART_BYTES`] or more travel apart, so that messages to several peers share them:
//! they are the parts of the message, in their order.
//!
//! Reading ends with a message or an error, allocates no more than the bytes account for, and leaves
//! operations where they arrived. Nothing that is read is verified.

use super::{
    batch::{BATCH_BYTES_MAX, BATCH_REQUESTS_MAX, Batch, HEAD_BYTES, Request},
    certificate::{Certificate, Stable},
    group::WINDOW_MAX,
    keys::{Digest, Signature, hash},
    members::MEMBERS_MAX,
    message::{
        Checkpoint, Digests, Entries, Message, NewView, PrePrepare, Reply, StatusReport,
        ViewChange, Vote,
    },
    table::{REMEMBERED, Table},
    wire::{Put, Reader},
};
use crate::consensus::malformed::Malformed;
use bytes::Bytes;
use std::sync::Arc;

/// Operations of that many bytes travel apart.
pub const APART_BYTES: usize = 512;
/// Entries with their proofs in one message at most.
pub const PROVEN_MAX: usize = 256;
/// Entries in one message at most.
pub const ENTRIES_MAX: usize = 4096;
/// Digests in one message at most.
pub const DIGESTS_MAX: usize = 1 << 15;

impl Message {
    /// Appends it to `out`, and what travels apart to `parts`.
    pub fn encode(&self, out: &mut Vec<u8>, parts: &mut Vec<Bytes>) {
        match self {
            Self::Request(request) => {
                out.put_u8(1);
                put_request(request, out, parts);
            }
            Self::PrePrepare(PrePrepare { view, seq, parent, signature, batch }) => {
                out.put_u8(2);
                out.put_u64(*view);
                out.put_u64(*seq);
                out.put_digest(parent);
                out.put_signature(signature);
                put_batch(batch, out, parts);
            }
            Self::Prepare(vote) => {
                out.put_u8(3);
                put_vote(vote, out);
            }
            Self::Commit(vote, committed) => {
                out.put_u8(4);
                put_vote(vote, out);
                out.put_u64(*committed);
            }
            Self::Reply(reply) => {
                out.put_u8(5);
                put_reply(reply, out);
            }
            Self::Checkpoint(Checkpoint { seq, chain, table, signature }) => {
                out.put_u8(6);
                out.put_u64(*seq);
                out.put_digest(chain);
                out.put_digest(table);
                out.put_signature(signature);
            }
            Self::Stable(stable) => {
                out.put_u8(7);
                put_stable(stable, out);
            }
            Self::ViewChange(change) => {
                out.put_u8(8);
                put_view_change(change, out);
            }
            Self::NewView(new_view) => {
                out.put_u8(9);
                put_new_view_body(new_view, out);
                out.put_signature(&new_view.signature);
            }
            Self::Status(report) => {
                out.put_u8(10);
                put_status(report, out);
            }
            Self::BatchAsk(seq, digest) => {
                out.put_u8(11);
                out.put_u64(*seq);
                out.put_digest(digest);
            }
            Self::BatchTell(seq, batch) => {
                out.put_u8(12);
                out.put_u64(*seq);
                put_batch(batch, out, parts);
            }
            Self::EntriesAsk(id, first, last) => {
                out.put_u8(13);
                out.put_numbers(&[*id, *first, *last]);
            }
            Self::Entries(entries) => {
                out.put_u8(14);
                put_entries(entries, out, parts);
            }
            Self::ReadAsk(id, view) => {
                out.put_u8(15);
                out.put_numbers(&[*id, *view]);
            }
            Self::ReadTell(id, view) => {
                out.put_u8(16);
                out.put_numbers(&[*id, *view]);
            }
            Self::Owed(view) => {
                out.put_u8(22);
                out.put_u64(*view);
            }
            Self::HeadAsk(id) => {
                out.put_u8(17);
                out.put_u64(*id);
            }
            Self::Proven(entries) => {
                out.put_u8(19);
                out.put_u32(entries.len() as u32);
                for (certificate, batch) in entries {
                    put_certificate(certificate, out);
                    put_batch(batch, out, parts);
                }
            }
            Self::DigestsAsk(id, first, last) => {
                out.put_u8(20);
                out.put_numbers(&[*id, *first, *last]);
            }
            Self::Digests(digests) => {
                out.put_u8(21);
                put_digests(digests, out);
            }
            Self::HeadTell(id, seq, chain) => {
                out.put_u8(18);
                out.put_numbers(&[*id, *seq]);
                out.put_digest(chain);
            }
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: &Bytes, parts: &[Bytes]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, parts);
        let from = &mut reader;
        let message = match from.u8()? {
            1 => Self::Request(request(from)?),
            2 => Self::PrePrepare(PrePrepare {
                view: from.u64()?,
                seq: from.u64()?,
                parent: from.digest()?,
                signature: from.signature()?,
                batch: batch(from)?,
            }),
            3 => Self::Prepare(vote(from)?),
            4 => Self::Commit(vote(from)?, from.u64()?),
            5 => Self::Reply(reply(from)?),
            6 => Self::Checkpoint(Checkpoint {
                seq: from.u64()?,
                chain: from.digest()?,
                table: from.digest()?,
                signature: from.signature()?,
            }),
            7 => Self::Stable(Arc::new(stable(from)?)),
            8 => Self::ViewChange(Arc::new(view_change(from)?)),
            9 => Self::NewView(Arc::new(new_view(from)?)),
            10 => Self::Status(status(from)?),
            11 => Self::BatchAsk(from.u64()?, from.digest()?),
            12 => Self::BatchTell(from.u64()?, batch(from)?),
            13 => Self::EntriesAsk(from.u64()?, from.u64()?, from.u64()?),
            14 => Self::Entries(entries(from)?),
            15 => Self::ReadAsk(from.u64()?, from.u64()?),
            16 => Self::ReadTell(from.u64()?, from.u64()?),
            22 => Self::Owed(from.u64()?),
            17 => Self::HeadAsk(from.u64()?),
            18 => Self::HeadTell(from.u64()?, from.u64()?, from.digest()?),
            19 => {
                let count = from.count(PROVEN_MAX, 160)?;
                let entry = |_| Ok((Arc::new(certificate(from)?), batch(from)?));
                Self::Proven((0..count).map(entry).collect::<Result<_, Malformed>>()?)
            }
            20 => Self::DigestsAsk(from.u64()?, from.u64()?, from.u64()?),
            21 => Self::Digests(digests(from)?),
            kind => return Err(Malformed::Kind(kind)),
        };
        reader.end()?;
        Ok(message)
    }
}

fn put_data(data: &Bytes, out: &mut Vec<u8>, parts: &mut Vec<Bytes>) {
    if data.len() >= APART_BYTES {
        parts.push(data.clone());
    } else {
        out.extend_from_slice(data);
    }
}

fn data(length: usize, from: &mut Reader<'_>) -> Result<Bytes, Malformed> {
    if length >= APART_BYTES { from.part(length) } else { from.bytes(length) }
}

fn put_batch(batch: &Batch, out: &mut Vec<u8>, parts: &mut Vec<Bytes>) {
    out.put_u32(batch.heads().len() as u32);
    out.put_u32(batch.data().len() as u32);
    out.extend_from_slice(batch.heads());
    put_data(batch.data(), out, parts);
}

fn batch(from: &mut Reader<'_>) -> Result<Batch, Malformed> {
    let (heads, length) = (from.u32()? as usize, from.u32()? as usize);
    if heads > 12 + BATCH_REQUESTS_MAX * HEAD_BYTES || length > BATCH_BYTES_MAX {
        return Err(Malformed::Batch);
    }
    let heads = from.bytes(heads)?;
    Batch::new(heads, data(length, from)?)
}

fn put_request(request: &Request, out: &mut Vec<u8>, parts: &mut Vec<Bytes>) {
    out.put_u64(request.client);
    out.put_u64(request.timestamp);
    out.put_signature(&request.signature);
    out.put_u32(request.operation.len() as u32);
    put_data(&request.operation, out, parts);
}

fn request(from: &mut Reader<'_>) -> Result<Request, Malformed> {
    let (client, timestamp, signature) = (from.u64()?, from.u64()?, from.signature()?);
    let length = from.u32()? as usize;
    if length > BATCH_BYTES_MAX {
        return Err(Malformed::Batch);
    }
    Ok(Request { client, timestamp, signature, operation: data(length, from)? })
}

fn put_vote(vote: &Vote, out: &mut Vec<u8>) {
    out.put_u64(vote.view);
    out.put_u64(vote.seq);
    out.put_digest(&vote.chain);
    out.put_signature(&vote.signature);
}

fn vote(from: &mut Reader<'_>) -> Result<Vote, Malformed> {
    Ok(Vote {
        view: from.u64()?,
        seq: from.u64()?,
        chain: from.digest()?,
        signature: from.signature()?,
    })
}

fn put_reply(reply: &Reply, out: &mut Vec<u8>) {
    out.put_u64(reply.view);
    out.put_u64(reply.client);
    out.put_u32(reply.timestamps.len() as u32);
    reply.timestamps.iter().for_each(|timestamp| out.put_u64(*timestamp));
    out.put_u64(reply.seq);
    out.put_digest(&reply.chain);
    out.put_flag(reply.is_tentative);
    out.put_signature(&reply.signature);
}

fn reply(from: &mut Reader<'_>) -> Result<Reply, Malformed> {
    let (view, client) = (from.u64()?, from.u64()?);
    let count = from.count(REMEMBERED, 8)?;
    Ok(Reply {
        view,
        client,
        timestamps: (0..count).map(|_| from.u64()).collect::<Result<_, _>>()?,
        seq: from.u64()?,
        chain: from.digest()?,
        is_tentative: from.flag()?,
        signature: from.signature()?,
    })
}

fn put_votes(votes: &[(u64, Signature)], out: &mut Vec<u8>) {
    out.put_u32(votes.len() as u32);
    for (node, signature) in votes {
        out.put_u64(*node);
        out.put_signature(signature);
    }
}

fn votes(from: &mut Reader<'_>) -> Result<Vec<(u64, Signature)>, Malformed> {
    let count = from.count(MEMBERS_MAX, 72)?;
    (0..count).map(|_| Ok((from.u64()?, from.signature()?))).collect()
}

pub(super) fn put_certificate(certificate: &Certificate, out: &mut Vec<u8>) {
    out.put_u64(certificate.view);
    out.put_u64(certificate.seq);
    out.put_digest(&certificate.parent);
    out.put_digest(&certificate.digest);
    out.put_signature(&certificate.primary);
    put_votes(&certificate.prepares, out);
    put_votes(&certificate.commits, out);
}

pub(super) fn certificate(from: &mut Reader<'_>) -> Result<Certificate, Malformed> {
    Ok(Certificate {
        view: from.u64()?,
        seq: from.u64()?,
        parent: from.digest()?,
        digest: from.digest()?,
        primary: from.signature()?,
        prepares: votes(from)?,
        commits: votes(from)?,
    })
}

pub(super) fn put_stable(stable: &Stable, out: &mut Vec<u8>) {
    out.put_u64(stable.seq);
    out.put_digest(&stable.chain);
    out.put_digest(&stable.table);
    put_votes(&stable.votes, out);
}

pub(super) fn stable(from: &mut Reader<'_>) -> Result<Stable, Malformed> {
    Ok(Stable {
        seq: from.u64()?,
        chain: from.digest()?,
        table: from.digest()?,
        votes: votes(from)?,
    })
}

fn put_view_change_body(change: &ViewChange, out: &mut Vec<u8>) {
    out.put_u64(change.view);
    out.put_u64(change.replica);
    put_stable(&change.stable, out);
    out.put_u32(change.prepared.len() as u32);
    change.prepared.iter().for_each(|certificate| put_certificate(certificate, out));
}

fn put_view_change(change: &ViewChange, out: &mut Vec<u8>) {
    put_view_change_body(change, out);
    out.put_signature(&change.signature);
}

fn view_change(from: &mut Reader<'_>) -> Result<ViewChange, Malformed> {
    let (view, replica, stable) = (from.u64()?, from.u64()?, stable(from)?);
    let count = from.count(WINDOW_MAX as usize, 152)?;
    let prepared = (0..count).map(|_| certificate(from)).collect::<Result<_, _>>()?;
    Ok(ViewChange { view, replica, stable, prepared, signature: from.signature()? })
}

/// What the signature of a view change is of.
pub(super) fn view_change_digest(change: &ViewChange) -> Digest {
    let mut bytes = Vec::new();
    put_view_change_body(change, &mut bytes);
    hash(&[b"view change", &bytes])
}

fn put_new_view_body(new_view: &NewView, out: &mut Vec<u8>) {
    out.put_u64(new_view.view);
    out.put_u32(new_view.changes.len() as u32);
    new_view.changes.iter().for_each(|change| put_view_change(change, out));
    out.put_u32(new_view.proposals.len() as u32);
    new_view.proposals.iter().for_each(|signature| out.put_signature(signature));
}

/// What the signature of a new view is of.
pub(super) fn new_view_digest(new_view: &NewView) -> Digest {
    let mut bytes = Vec::new();
    put_new_view_body(new_view, &mut bytes);
    hash(&[b"new view", &bytes])
}

fn new_view(from: &mut Reader<'_>) -> Result<NewView, Malformed> {
    let view = from.u64()?;
    let count = from.count(MEMBERS_MAX, 100)?;
    let changes = (0..count).map(|_| view_change(from).map(Arc::new)).collect::<Result<_, _>>()?;
    let count = from.count(WINDOW_MAX as usize, 64)?;
    let proposals = (0..count).map(|_| from.signature()).collect::<Result<_, _>>()?;
    Ok(NewView { view, changes, proposals, signature: from.signature()? })
}

fn put_status(report: &StatusReport, out: &mut Vec<u8>) {
    let StatusReport { view, is_active, point, stable, committed, accepted, prepared } = *report;
    out.put_flag(is_active);
    out.put_numbers(&[view, point, stable, committed, accepted, prepared]);
}

fn status(from: &mut Reader<'_>) -> Result<StatusReport, Malformed> {
    Ok(StatusReport {
        is_active: from.flag()?,
        view: from.u64()?,
        point: from.u64()?,
        stable: from.u64()?,
        committed: from.u64()?,
        accepted: from.u64()?,
        prepared: from.u64()?,
    })
}

fn put_digests(digests: &Digests, out: &mut Vec<u8>) {
    let Digests { id, point, first, digests } = digests;
    out.put_numbers(&[*id, *first]);
    out.put_flag(point.is_some());
    if let Some((index, chain)) = point {
        out.put_u64(*index);
        out.put_digest(chain);
    }
    out.put_u32(digests.len() as u32);
    digests.iter().for_each(|digest| out.put_digest(digest));
}

fn digests(from: &mut Reader<'_>) -> Result<Digests, Malformed> {
    let (id, first) = (from.u64()?, from.u64()?);
    let point = if from.flag()? { Some((from.u64()?, from.digest()?)) } else { None };
    let count = from.count(DIGESTS_MAX, 32)?;
    let digests = (0..count).map(|_| from.digest()).collect::<Result<_, _>>()?;
    Ok(Digests { id, point, first, digests })
}

fn put_entries(entries: &Entries, out: &mut Vec<u8>, parts: &mut Vec<Bytes>) {
    let Entries { id, point, first, batches } = entries;
    out.put_u64(*id);
    out.put_u64(*first);
    out.put_flag(point.is_some());
    if let Some((index, chain, table)) = point {
        out.put_u64(*index);
        out.put_digest(chain);
        table.encode(out);
    }
    out.put_u32(batches.len() as u32);
    batches.iter().for_each(|batch| put_batch(batch, out, parts));
}

fn entries(from: &mut Reader<'_>) -> Result<Entries, Malformed> {
    let (id, first) = (from.u64()?, from.u64()?);
    let point = match from.flag()? {
        true => Some((from.u64()?, from.digest()?, Arc::new(Table::decode(from)?))),
        false => None,
    };
    let count = from.count(ENTRIES_MAX, 8)?;
    let batches = (0..count).map(|_| batch(from)).collect::<Result<_, _>>()?;
    Ok(Entries { id, point, first, batches })
}
