//! What clients ask for: operations that say whose they are, so that what is executed is judged by its
//! contents alone, whatever the replicas say of it.

use bytes::Bytes;
use coreflow::consensus::pbft::Message;

/// What every operation begins with.
const MAGIC: u16 = 0xC0F1;
/// Bytes before the filling.
const HEADER_BYTES: usize = 20;

/// Which operation of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    /// Who asked for it: a node or another client.
    pub author: u64,
    /// The author's number for it.
    pub number: u64,
}

impl Operation {
    /// Its bytes, with a filling that follows from what it is.
    pub fn encode(self, filling: usize) -> Bytes {
        let length = (HEADER_BYTES + filling) as u16;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + filling);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.author.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend((0..filling).map(|at| (self.number as usize + at) as u8));
        bytes.into()
    }

    /// The operations that are written one behind the other, if these bytes are that.
    pub fn parse(mut bytes: &[u8]) -> Option<Vec<(Self, &[u8])>> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let header = bytes.get(..HEADER_BYTES)?;
            let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8"));
            let short = |at: usize| u16::from_le_bytes(header[at..at + 2].try_into().expect("2"));
            let length = usize::from(short(2));
            if short(0) != MAGIC || length < HEADER_BYTES {
                return None;
            }
            let (one, rest) = bytes.split_at_checked(length)?;
            all.push((Self { author: long(4), number: long(12) }, one));
            bytes = rest;
        }
        Some(all)
    }

    /// Those in an entry, for whoever looks for a cause.
    pub fn names(bytes: &[u8]) -> Vec<String> {
        let all = Self::parse(bytes).unwrap_or_default().into_iter();
        all.map(|(Self { author, number }, _)| format!("{author}:{number:x}")).collect()
    }
}

/// Whether a replica may agree to all that a message carries: each request is whole operations, at least
/// one. Others are kept from replicas, as the node keeps what is no record.
pub fn is_fit(message: &Message) -> bool {
    let is_valid = |bytes: &[u8]| Operation::parse(bytes).is_some_and(|all| !all.is_empty());
    match message {
        Message::Request(request) => is_valid(&request.operation),
        message => message
            .batches()
            .into_iter()
            .all(|batch| batch.operations().all(|request| is_valid(&request.operation))),
    }
}
