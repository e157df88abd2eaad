//! What an entry carries: operations in a row, and who asked for them.
//!
//! ```text
//! heads: origin u64 · count u32 · (client u64 · timestamp u64 · length u32 · signature 64)*
//! data: the operations, one behind the other
//! ```
//!
//! A batch with the client that is the origin view's primary, timestamp 0 and no signature is what
//! the primary itself proposed: the signature of its pre-prepare is of that too, and the chain that
//! it is part of says it once. All other operations are signed requests.
//!
//! Invariants worth naming
//! - The lengths of the operations add up to the data, however the bytes came to be.
//! - The digest is of everything: who is the origin, who asked for what.

use super::{
    keys::{Digest, Keys, Signature, Statement, hash},
    wire::{Put, Reader},
};
use crate::consensus::malformed::Malformed;
use bytes::Bytes;

/// Requests in a batch at most.
pub const BATCH_REQUESTS_MAX: usize = 1024;
/// Bytes of the operations of a batch at most.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes that each request adds to the heads.
pub const HEAD_BYTES: usize = 8 + 8 + 4 + 64;
/// Bytes of the heads of a batch without requests.
const HEADS_BYTES: usize = 8 + 4;

/// Bytes of a batch of so many requests whose operations have so many.
pub const fn batch_bytes(requests: usize, operations: usize) -> usize {
    HEADS_BYTES + requests * HEAD_BYTES + operations
}

/// A request of a client, with its operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who asks.
    pub client: u64,
    /// The client's number for it; not 0.
    pub timestamp: u64,
    /// What is to be appended to the log.
    pub operation: Bytes,
    /// The client's.
    pub signature: Signature,
}

impl Request {
    /// A request, signed.
    pub fn new(keys: &Keys, client: u64, timestamp: u64, operation: Bytes) -> Self {
        let digest = operation_digest(&operation);
        let signature = keys.sign(Statement::Request { client, timestamp, digest: &digest });
        Self { client, timestamp, operation, signature }
    }

    /// Whether its client signed it.
    pub fn is_signed(&self, keys: &mut Keys) -> bool {
        let Self { client, timestamp, .. } = *self;
        let digest = operation_digest(&self.operation);
        let statement = Statement::Request { client, timestamp, digest: &digest };
        keys.has_signed(client, statement, &self.signature)
    }
}

fn operation_digest(operation: &[u8]) -> Digest {
    hash(&[b"operation", operation])
}

/// Who asked for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// The client.
    pub client: u64,
    /// Its number; 0 when the primary itself proposed it.
    pub timestamp: u64,
    /// Bytes of the operation.
    pub length: u32,
    /// The client's.
    pub signature: Signature,
}

/// Operations that are ordered together; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    digest: Digest,
    origin: u64,
    heads: Bytes,
    data: Bytes,
}

impl Batch {
    /// What the primary of a view proposes itself.
    pub fn own(view: u64, primary: u64, data: Bytes) -> Self {
        let length = data.len() as u32;
        let head = Head { client: primary, timestamp: 0, length, signature: Signature::NONE };
        Self::of(view, &[head], data)
    }

    /// Requests of clients, in this order.
    pub fn of_requests(view: u64, requests: &[Request]) -> Self {
        let head = |request: &Request| Head {
            client: request.client,
            timestamp: request.timestamp,
            length: request.operation.len() as u32,
            signature: request.signature,
        };
        let heads: Vec<_> = requests.iter().map(head).collect();
        let data = match requests {
            [request] => request.operation.clone(),
            _ => requests.iter().flat_map(|request| request.operation.iter().copied()).collect(),
        };
        Self::of(view, &heads, data)
    }

    fn of(origin: u64, heads: &[Head], data: Bytes) -> Self {
        let mut bytes = Vec::with_capacity(HEADS_BYTES + heads.len() * HEAD_BYTES);
        bytes.put_u64(origin);
        bytes.put_u32(heads.len() as u32);
        for head in heads {
            bytes.put_u64(head.client);
            bytes.put_u64(head.timestamp);
            bytes.put_u32(head.length);
            bytes.put_signature(&head.signature);
        }
        Self::new(bytes.into(), data).expect("the lengths are those of the operations")
    }

    /// A batch of these bytes.
    ///
    /// # Errors
    /// When they do not fit together.
    pub fn new(heads: Bytes, data: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(&heads, &[]);
        let origin = reader.u64()?;
        let count = reader.count(BATCH_REQUESTS_MAX, HEAD_BYTES)?;
        if count == 0 || data.len() > BATCH_BYTES_MAX {
            return Err(Malformed::Batch);
        }
        let mut bytes = 0;
        for _ in 0..count {
            bytes += read_head(&mut reader)?.length as usize;
        }
        reader.end()?;
        if bytes != data.len() {
            return Err(Malformed::Batch);
        }
        let digest =
            hash(&[b"batch", &(heads.len() as u64).to_le_bytes(), heads.as_ref(), data.as_ref()]);
        Ok(Self { digest, origin, heads, data })
    }

    /// The digest of everything in it.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The view in which it was proposed first.
    pub fn origin(&self) -> u64 {
        self.origin
    }

    /// Who asked for what, as bytes.
    pub fn heads(&self) -> &Bytes {
        &self.heads
    }

    /// The operations.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Who asked for each operation, in order.
    pub fn requests(&self) -> impl Iterator<Item = Head> + '_ {
        let mut reader = Reader::new(&self.heads, &[]);
        // The bytes were read once already.
        let count = reader.u64().and_then(|_| reader.u32()).unwrap_or(0);
        (0..count).map_while(move |_| read_head(&mut reader).ok())
    }

    /// The requests with their operations.
    pub fn operations(&self) -> impl Iterator<Item = Request> + '_ {
        let mut at = 0;
        self.requests().map(move |head| {
            let Head { client, timestamp, length, signature } = head;
            let operation = self.data.slice(at..at + length as usize);
            at += length as usize;
            Request { client, timestamp, operation, signature }
        })
    }

    /// Whether it is what the primary of its origin view itself proposed.
    pub fn is_own(&self, primary: u64) -> bool {
        let mut requests = self.requests();
        let first = requests.next();
        first.is_some_and(|head| head.timestamp == 0 && head.client == primary)
            && requests.next().is_none()
    }

    /// Whether everything in it is a request that its client signed. Those that `is_known` says
    /// were verified before are not verified again.
    pub fn is_signed(&self, keys: &mut Keys, mut is_known: impl FnMut(&Request) -> bool) -> bool {
        let mut unknown = Vec::new();
        for request in self.operations() {
            if request.timestamp == 0 {
                return false;
            }
            if !is_known(&request) {
                let Request { client, timestamp, operation, signature } = request;
                unknown.push((client, timestamp, operation_digest(&operation), signature));
            }
        }
        keys.have_requested(&unknown)
    }

    /// Bytes that it takes in a message or on the disk.
    pub fn bytes(&self) -> usize {
        self.heads.len() + self.data.len()
    }
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, Malformed> {
    Ok(Head {
        client: reader.u64()?,
        timestamp: reader.u64()?,
        length: reader.u32()?,
        signature: reader.signature()?,
    })
}

/// The chain behind an entry.
pub fn link(parent: &Digest, seq: u64, digest: &Digest) -> Digest {
    hash(&[b"chain", parent, &seq.to_le_bytes(), digest])
}
