//! Messages between replicas as bytes: a fixed head, then what the kind has beside it.
//!
//! ```text
//! kind u8 · flags u8 · partition u16 · entries u32 · context u32 · zero u32
//! to · from · term · log_term · index · commit · commit_term · reject_hint · request_snapshot
//! · priority (u64 each)
//! context · point (flag 2): index u64, term u64, members · entries
//! entry: term u64 · index u64 · data u32 · context u16 · type u8 · apart u8 · context · data
//! ```
//!
//! The data of an entry may travel apart, so that messages to several peers share them: then they
//! are the next of the message's parts, and not in its bytes.
//!
//! A message is read from bytes that somebody else checked to be what a peer sent; whatever they
//! are, reading ends with a message or an error and allocates no more than they account for. The
//! data of entries stay where they arrived and are only referred to.

use super::{
    membership::{MEMBERS_MAX, Members},
    outputs::Point,
    wire::{Reader, put_list},
};
use crate::consensus::malformed::Malformed;
use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

/// Bytes of the head.
pub const HEAD_BYTES: usize = 96;
/// Bytes of the head of an entry.
pub const ENTRY_HEAD_BYTES: usize = 24;
const REJECT: u8 = 1;
const POINT: u8 = 2;

/// The kinds that travel, by their number in raft.
const KINDS: [MessageType; 14] = [
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// Bytes that a message takes.
pub fn encoded_bytes(message: &Message) -> usize {
    let entries: usize = message
        .entries
        .iter()
        .map(|entry| ENTRY_HEAD_BYTES + entry.context.len() + entry.data.len())
        .sum();
    let point = if message.has_snapshot() {
        let state = message.get_snapshot().get_metadata().get_conf_state();
        let ids = state.voters.len()
            + state.learners.len()
            + state.voters_outgoing.len()
            + state.learners_next.len();
        16 + 1 + 4 * 2 + 8 * ids
    } else {
        0
    };
    HEAD_BYTES + message.context.len() + point + entries
}

/// Shorter data than this do not travel apart.
const APART_FROM_BYTES: usize = 512;

/// Appends a message of a partition. Snapshots carry no data, and messages of raft nothing else that
/// is left out here.
pub fn encode(partition: u16, message: &Message, out: &mut Vec<u8>) {
    out.reserve(encoded_bytes(message));
    encode_to(partition, message, out, None);
}

/// Appends a message of a partition but for the data of entries that are worth sharing, which are
/// appended to `parts` without a copy.
pub fn encode_apart(partition: u16, message: &Message, out: &mut Vec<u8>, parts: &mut Vec<Bytes>) {
    encode_to(partition, message, out, Some(parts));
}

fn encode_to(
    partition: u16,
    message: &Message,
    out: &mut Vec<u8>,
    mut parts: Option<&mut Vec<Bytes>>,
) {
    let flags = if message.reject { REJECT } else { 0 };
    let flags = flags | if message.has_snapshot() { POINT } else { 0 };
    out.extend_from_slice(&[message.get_msg_type() as u8, flags]);
    out.extend_from_slice(&partition.to_le_bytes());
    for number in [message.entries.len() as u32, message.context.len() as u32, 0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let numbers = [
        message.to,
        message.from,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
        message.priority as u64,
    ];
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&message.context);
    if message.has_snapshot() {
        encode_point(&point_of(message.get_snapshot()), out);
    }
    for entry in &message.entries {
        out.extend_from_slice(&entry.term.to_le_bytes());
        out.extend_from_slice(&entry.index.to_le_bytes());
        out.extend_from_slice(&(entry.data.len() as u32).to_le_bytes());
        out.extend_from_slice(&(entry.context.len() as u16).to_le_bytes());
        let is_long = entry.data.len() >= APART_FROM_BYTES;
        let parts = parts.as_mut().filter(|_| is_long);
        out.extend_from_slice(&[entry.get_entry_type() as u8, u8::from(parts.is_some())]);
        out.extend_from_slice(&entry.context);
        match parts {
            Some(parts) => parts.push(entry.data.clone()),
            None => out.extend_from_slice(&entry.data),
        }
    }
}

/// Reads the partition and the message that `bytes` are.
///
/// # Errors
/// When they are not one.
pub fn decode(bytes: &Bytes) -> Result<(u16, Message), Malformed> {
    decode_apart(bytes, std::iter::empty())
}

/// Reads the partition and the message that `bytes` and these parts are.
///
/// # Errors
/// When they are not one.
pub fn decode_apart(
    bytes: &Bytes,
    mut parts: impl Iterator<Item = Bytes>,
) -> Result<(u16, Message), Malformed> {
    let mut reader = Reader::new(bytes);
    let mut message = Message::default();
    let kind = reader.u8()?;
    let known = KINDS.into_iter().find(|known| *known as u8 == kind);
    message.set_msg_type(known.ok_or(Malformed::Kind(kind))?);
    let flags = reader.u8()?;
    if flags & !(REJECT | POINT) != 0 {
        return Err(Malformed::Flags);
    }
    message.reject = flags & REJECT != 0;
    let partition = reader.u16()?;
    let entries = reader.u32()? as usize;
    let context_bytes = reader.u32()? as usize;
    if reader.u32()? != 0 {
        return Err(Malformed::Flags);
    }
    for number in [
        &mut message.to,
        &mut message.from,
        &mut message.term,
        &mut message.log_term,
        &mut message.index,
        &mut message.commit,
        &mut message.commit_term,
        &mut message.reject_hint,
        &mut message.request_snapshot,
    ] {
        *number = reader.u64()?;
    }
    message.priority = reader.u64()? as i64;
    // Raft sends both as long as both exist.
    message.deprecated_priority = u64::try_from(message.priority).unwrap_or(0);
    message.context = bytes.slice(reader.range(context_bytes)?);
    if flags & POINT != 0 {
        let Point { index, term, members } = read_point(&mut reader)?;
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(members.to_conf_state());
    }
    if entries > reader.left() / ENTRY_HEAD_BYTES {
        return Err(Malformed::Short);
    }
    let entries: Result<Vec<_>, _> =
        (0..entries).map(|_| read_entry(bytes, &mut reader, &mut parts)).collect();
    message.set_entries(entries?.into());
    reader.end()?;
    match parts.next() {
        None => Ok((partition, message)),
        Some(_) => Err(Malformed::Parts),
    }
}

fn read_entry(
    bytes: &Bytes,
    reader: &mut Reader<'_>,
    parts: &mut impl Iterator<Item = Bytes>,
) -> Result<Entry, Malformed> {
    let mut entry = Entry { term: reader.u64()?, index: reader.u64()?, ..Entry::default() };
    let data_bytes = reader.u32()? as usize;
    let context_bytes = usize::from(reader.u16()?);
    let entry_type = reader.u8()?;
    entry.set_entry_type(match entry_type {
        0 => EntryType::EntryNormal,
        2 => EntryType::EntryConfChangeV2,
        other => return Err(Malformed::EntryType(other)),
    });
    let is_apart = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed::Flags),
    };
    entry.context = bytes.slice(reader.range(context_bytes)?);
    entry.data = match is_apart {
        true => parts.next().filter(|part| part.len() == data_bytes).ok_or(Malformed::Parts)?,
        false => bytes.slice(reader.range(data_bytes)?),
    };
    Ok(entry)
}

/// The point that a snapshot is.
pub(super) fn point_of(snapshot: &Snapshot) -> Point {
    let metadata = snapshot.get_metadata();
    let members = Members::from_conf_state(metadata.get_conf_state());
    Point { index: metadata.index, term: metadata.term, members }
}

/// Appends a point; also as it is kept on the disk.
pub fn encode_point(point: &Point, out: &mut Vec<u8>) {
    out.extend_from_slice(&point.index.to_le_bytes());
    out.extend_from_slice(&point.term.to_le_bytes());
    let Members { voters, learners, outgoing, learners_next, auto_leave } = &point.members;
    out.push(u8::from(*auto_leave));
    for list in [voters, learners, outgoing, learners_next] {
        put_list(list, out);
    }
}

/// Reads a point that `bytes` are.
///
/// # Errors
/// When they are not one.
pub fn decode_point(bytes: &[u8]) -> Result<Point, Malformed> {
    let mut reader = Reader::new(bytes);
    let point = read_point(&mut reader)?;
    reader.end()?;
    Ok(point)
}

fn read_point(reader: &mut Reader<'_>) -> Result<Point, Malformed> {
    let (index, term) = (reader.u64()?, reader.u64()?);
    let auto_leave = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed::Flags),
    };
    let mut lists = [const { Vec::new() }; 4];
    for list in &mut lists {
        *list = reader.list(MEMBERS_MAX)?;
    }
    let [voters, learners, outgoing, learners_next] = lists;
    let members = Members { voters, learners, outgoing, learners_next, auto_leave };
    // A log that never held anything has no members yet.
    if members.is_valid() || (members == Members::default() && index == 0) {
        Ok(Point { index, term, members })
    } else {
        Err(Malformed::Members)
    }
}
