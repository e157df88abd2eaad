//! What two worker cores of different nodes say to each other over their connection, as bytes;
//! little endian. A connection of this sort is called a trunk.
//!
//! Records follow each other in frames. A frame is a head of 32 bytes and a body: bytes of the body
//! as it travels (4), its plain bytes (4), which differ when it is compressed (an LZ4 block), the
//! checksum of the body as it travels (4), the frame's number (8), up to which number the frames of the
//! other side were taken (8), and the checksum of the head before it (4): so a length is believed only
//! after its checksum was seen.
//!
//! Frames are numbered from 1 in each direction for as long as a *session* lasts, which outlives its
//! connections. A frame is kept until the other side says that it was taken, and travels again over the
//! next connection. One without a body has the number 0 and says only what was taken.
//!
//! A record is its bytes behind this number (4), its kind (1) and the fields of its kind:
//!
//! | kind | fields |
//! |---|---|
//! | 1 send | receiver (8), sender (8), payload |
//! | 2 call | receiver (8), sender (8), correlation (8), the caller's patience in milliseconds (4), payload |
//! | 3 broadcast | sender (8), bytes of the type's name (1), the name, payload |
//! | 4 reply | correlation (8), payload |
//! | 5 refusal | correlation (8), which error (1), its number (8), its text |
//! | 6 full | an agent whose mailbox is full (8) |
//! | 7 room | an agent whose mailbox has room again (8) |
//! | 8 leaves | nothing: the node takes nothing more over the session |
//!
//! Invariants worth naming:
//! - Records come out in the order in which they were put in, each once, over however many connections,
//!   or the session is over.
//! - A frame that was not acknowledged is kept; what is acknowledged was taken.
//! - Memory grows with what arrived, never with what was declared, and is bounded.

mod packer;
mod parts;
mod unpacker;

pub use packer::{GivenUp, Packer};
pub use unpacker::{Progress, Unpacker};

use super::{api::Error, id::AgentId};
use std::ops::RangeInclusive;

/// The versions of all this, of the offer before it included, that this program speaks. Two nodes speak the
/// highest one that both do. Whoever changes what is said adds a version here, and takes the lowest one out
/// only when no release speaks nothing higher: so nodes are replaced one after the other.
///
/// Version 1 is that of offers which name none. What is said before an offer is that of all connections between
/// nodes (`node/greeting.rs`), and has no version: releases that do not know it cannot be asked by those that do.
pub const VERSIONS: RangeInclusive<u64> = 2..=2;

/// Bytes of a frame's head.
const HEAD_BYTES: usize = 32;
/// Those that its checksum covers.
const HEAD_BYTES_CHECKED: usize = HEAD_BYTES - 4;
/// Bytes of a record before its fields.
const RECORD_HEAD_BYTES: usize = 5;
/// Plain bytes after which a frame gets no other record.
pub const FRAME_BYTES: usize = 64 << 10;
/// Most bytes that a record has beside its payload.
pub const RECORD_BYTES_BESIDE: usize = RECORD_HEAD_BYTES + 28 + 256;

/// Something that one core says to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    /// A message to an agent.
    Send {
        /// The receiver.
        target: AgentId,
        /// The sender, on its own node.
        source: AgentId,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// A message that waits for an answer.
    Call {
        /// The receiver.
        target: AgentId,
        /// The caller, on its own node.
        source: AgentId,
        /// What the answer repeats.
        correlation: u64,
        /// How long the caller waits, milliseconds.
        patience_ms: u32,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// A message to every agent of a type.
    Broadcast {
        /// The sender, on its own node.
        source: AgentId,
        /// The type's name.
        agent_type: &'a str,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// The answer to a call.
    Reply {
        /// Which call.
        correlation: u64,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// Why there is no answer to a call.
    Refusal {
        /// Which call.
        correlation: u64,
        /// Why.
        error: Error,
    },
    /// The mailbox of an agent is full: send it nothing.
    Full(AgentId),
    /// It has room again.
    Room(AgentId),
    /// The node takes nothing more.
    Leaves,
}

/// Why bytes cannot be read; the connection that they came on is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrunkError {
    /// The checksum of a head is wrong.
    #[error("the head of a frame is damaged")]
    Head,
    /// The frame is longer than may be.
    #[error("a frame of {bytes} bytes came, at most {limit} are allowed")]
    TooLong {
        /// What its head declares.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The checksum of a body is wrong.
    #[error("the body of a frame is damaged")]
    Body,
    /// The body is no LZ4 block of the declared length.
    #[error("a frame cannot be decompressed")]
    Compressed,
    /// A frame that should have come before it is missing.
    #[error("frame {number} came where {expected} was expected")]
    Gap {
        /// Its number.
        number: u64,
        /// That of the frame that is missing.
        expected: u64,
    },
    /// More is said to be taken than was sent.
    #[error("frame {number} is said to be taken, {sent} were sent")]
    Unsent {
        /// The number of the frame that was never sent.
        number: u64,
        /// That of the last one that was.
        sent: u64,
    },
    /// A record ends behind its frame or is of no known form.
    #[error("a record cannot be read")]
    Record,
}

impl TrunkError {
    /// Whether it comes again on the next connection: no byte was changed on the way, so the other side says
    /// what it does not mean, and the session is over.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Head | Self::Body)
    }
}

/// Numbers of the kinds of records.
mod kind {
    pub const SEND: u8 = 1;
    pub const CALL: u8 = 2;
    pub const BROADCAST: u8 = 3;
    pub const REPLY: u8 = 4;
    pub const REFUSAL: u8 = 5;
    pub const FULL: u8 = 6;
    pub const ROOM: u8 = 7;
    pub const LEAVES: u8 = 8;
}

impl<'a> Record<'a> {
    /// Appends the record.
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let head = |out: &mut Vec<u8>, kind: u8| out.extend_from_slice(&[0, 0, 0, 0, kind]);
        let number = |out: &mut Vec<u8>, number: u64| out.extend_from_slice(&number.to_le_bytes());
        match self {
            Self::Send { target, source, payload } => {
                head(out, kind::SEND);
                number(out, target.to_bits());
                number(out, source.to_bits());
                out.extend_from_slice(payload);
            }
            Self::Call { target, source, correlation, patience_ms, payload } => {
                head(out, kind::CALL);
                number(out, target.to_bits());
                number(out, source.to_bits());
                number(out, *correlation);
                out.extend_from_slice(&patience_ms.to_le_bytes());
                out.extend_from_slice(payload);
            }
            Self::Broadcast { source, agent_type, payload } => {
                head(out, kind::BROADCAST);
                number(out, source.to_bits());
                let name = agent_type.as_bytes();
                out.push(u8::try_from(name.len()).expect("names of types are shorter"));
                out.extend_from_slice(name);
                out.extend_from_slice(payload);
            }
            Self::Reply { correlation, payload } => {
                head(out, kind::REPLY);
                number(out, *correlation);
                out.extend_from_slice(payload);
            }
            Self::Refusal { correlation, error } => {
                head(out, kind::REFUSAL);
                number(out, *correlation);
                let (code, value, text) = encode_error(error);
                out.push(code);
                number(out, value);
                out.extend_from_slice(text.as_bytes());
            }
            Self::Full(agent) => {
                head(out, kind::FULL);
                number(out, agent.to_bits());
            }
            Self::Room(agent) => {
                head(out, kind::ROOM);
                number(out, agent.to_bits());
            }
            Self::Leaves => head(out, kind::LEAVES),
        }
        let bytes = u32::try_from(out.len() - start - 4).expect("a record is below 4 GiB");
        out[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    /// Reads the record at the beginning of `bytes`, and how many of them it takes.
    #[inline]
    fn read(bytes: &'a [u8]) -> Result<(Self, usize), TrunkError> {
        let head = bytes.first_chunk().ok_or(TrunkError::Record)?;
        let len = u32::from_le_bytes(*head) as usize;
        let taken = len.checked_add(4).ok_or(TrunkError::Record)?;
        let mut fields = Fields(bytes.get(4..taken).ok_or(TrunkError::Record)?);
        let [kind] = fields.array()?;
        let record = match kind {
            kind::SEND => {
                let (target, source) = (fields.agent()?, fields.agent()?);
                Self::Send { target, source, payload: fields.rest() }
            }
            kind::CALL => {
                let (target, source) = (fields.agent()?, fields.agent()?);
                let correlation = fields.number()?;
                let patience_ms = u32::from_le_bytes(fields.array()?);
                Self::Call { target, source, correlation, patience_ms, payload: fields.rest() }
            }
            kind::BROADCAST => {
                let source = fields.agent()?;
                let [len] = fields.array()?;
                let name = fields.take(usize::from(len))?;
                let agent_type = std::str::from_utf8(name).map_err(|_| TrunkError::Record)?;
                Self::Broadcast { source, agent_type, payload: fields.rest() }
            }
            kind::REPLY => Self::Reply { correlation: fields.number()?, payload: fields.rest() },
            kind::REFUSAL => {
                let correlation = fields.number()?;
                let [code] = fields.array()?;
                let value = fields.number()?;
                let text = std::str::from_utf8(fields.rest()).map_err(|_| TrunkError::Record)?;
                let error = decode_error(code, value, text).ok_or(TrunkError::Record)?;
                Self::Refusal { correlation, error }
            }
            kind::FULL => Self::Full(fields.last_agent()?),
            kind::ROOM => Self::Room(fields.last_agent()?),
            kind::LEAVES if fields.0.is_empty() => Self::Leaves,
            _ => return Err(TrunkError::Record),
        };
        Ok((record, taken))
    }
}

/// The fields of a record that were not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], TrunkError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(TrunkError::Record)?;
        self.0 = rest;
        Ok(*array)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, TrunkError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    fn agent(&mut self) -> Result<AgentId, TrunkError> {
        self.number().map(AgentId::from_bits)
    }

    fn last_agent(&mut self) -> Result<AgentId, TrunkError> {
        let agent = self.agent()?;
        if self.0.is_empty() { Ok(agent) } else { Err(TrunkError::Record) }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], TrunkError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(TrunkError::Record)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn rest(self) -> &'a [u8] {
        self.0
    }
}

fn encode_error(error: &Error) -> (u8, u64, &str) {
    match error {
        Error::Invalid(text) => (1, 0, text),
        Error::NotFound(text) => (2, 0, text),
        Error::Conflict(text) => (3, 0, text),
        Error::Backpressure(retry_after_ms) => (4, *retry_after_ms, ""),
        Error::StaleLease(text) => (5, 0, text),
        Error::Unauthorized(text) => (6, 0, text),
        Error::TooLarge(text) => (7, 0, text),
        Error::Unavailable(text) => (8, 0, text),
        Error::Uncertain(text) => (9, 0, text),
        Error::NotLeader(None) => (10, 0, ""),
        Error::NotLeader(Some(leader)) => (10, 1, leader),
        Error::Full(text) => (11, 0, text),
    }
}

fn decode_error(code: u8, value: u64, text: &str) -> Option<Error> {
    let owned = || text.to_owned();
    Some(match code {
        1 => Error::Invalid(owned()),
        2 => Error::NotFound(owned()),
        3 => Error::Conflict(owned()),
        4 => Error::Backpressure(value),
        5 => Error::StaleLease(owned()),
        6 => Error::Unauthorized(owned()),
        7 => Error::TooLarge(owned()),
        8 => Error::Unavailable(owned()),
        9 => Error::Uncertain(owned()),
        10 => Error::NotLeader((value != 0).then(owned)),
        11 => Error::Full(owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
