//! What is sent: a part of its own, and parts that several peers' messages share.

use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// Bytes of a message's fixed part in a frame.
pub const MESSAGE_HEAD_BYTES: usize = 8;
/// Bytes that each shared part adds to it.
pub const PART_HEAD_BYTES: usize = 8;
/// A shorter part is not worth the time that compressing it takes.
const COMPRESS_FROM_BYTES: usize = 1024;

/// Bytes that go to several peers, such as those of a log entry: kept once, compressed once.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plain: Bytes,
    /// `None` when compressing saves too little; made for the first peer to which it is written.
    compressed: OnceLock<Option<Bytes>>,
}

impl Shared {
    /// Shares bytes.
    pub fn new(plain: Bytes) -> Self {
        Self(Arc::new(Inner { plain, compressed: OnceLock::new() }))
    }

    /// The bytes.
    pub fn plain(&self) -> &Bytes {
        &self.0.plain
    }

    /// As they travel: compressed when that saves a fifth or more, so shorter than plain or equal.
    pub fn travelling(&self, compresses: bool) -> &Bytes {
        let plain = &self.0.plain;
        if !compresses || plain.len() < COMPRESS_FROM_BYTES {
            return plain;
        }
        self.0.compressed.get_or_init(|| compress(plain)).as_ref().unwrap_or(plain)
    }
}

fn compress(plain: &[u8]) -> Option<Bytes> {
    let mut compressed = lz4_flex::block::compress(plain);
    if compressed.len() > plain.len() / 5 * 4 {
        return None;
    }
    // The encoder reserves for the worst case, and a log entry may be kept for long.
    compressed.shrink_to_fit();
    Some(compressed.into())
}

/// A message to one peer; opaque but for the partition.
#[derive(Clone, Debug)]
pub struct Message {
    /// The partition that it is about.
    pub partition: u16,
    /// What is this message's alone.
    pub head: Bytes,
    /// What it shares with messages to others; told to the receiver part by part.
    pub parts: Vec<Shared>,
}

impl Message {
    /// A message without shared parts.
    pub fn new(partition: u16, head: impl Into<Bytes>) -> Self {
        Self { partition, head: head.into(), parts: Vec::new() }
    }

    /// Bytes that it takes in a frame when nothing is compressed.
    pub fn plain_bytes(&self) -> usize {
        let part = |part: &Shared| PART_HEAD_BYTES + part.plain().len();
        MESSAGE_HEAD_BYTES + self.head.len() + self.parts.iter().map(part).sum::<usize>()
    }
}
