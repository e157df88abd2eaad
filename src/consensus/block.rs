//! The records that one shard wrote in a row, on their way to the disk and back.

use super::{format::BLOCK_HEAD_BYTES, place::Position, record::Record};

/// A block; its buffer goes round between a shard and the log for ever.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    records: u32,
    last: Position,
    /// Its shard has nothing alive any more in generations below this; 0 when it does not say.
    pub moved_before: u64,
    /// The reign that it was written in: what it says follows from what was committed before that
    /// began, and from the other blocks of it.
    pub reign: u64,
    /// A read that its shard asks for; 0 for none.
    pub read: u64,
    /// Its shard has found that nothing is needed of entries up to this one; 0 when it does not say.
    pub cleared: u64,
    /// Its records are asked for, whoever leads, and not proposed; what becomes of them is told as that
    /// of anybody's.
    pub is_request: bool,
    /// Where it was written: the generation.
    pub generation: u64,
    /// Where it was written: the offset in its segment.
    pub offset: u32,
}

impl Block {
    /// A block with room for `capacity_bytes` of records before its buffer grows.
    pub fn new(capacity_bytes: usize) -> Self {
        let bytes = Vec::with_capacity(capacity_bytes);
        let last = Position::default();
        Self {
            bytes,
            records: 0,
            last,
            moved_before: 0,
            reign: 0,
            read: 0,
            cleared: 0,
            is_request: false,
            generation: 0,
            offset: 0,
        }
    }

    /// Appends a record; the answer is its offset in the block as it is written, behind a head.
    #[inline]
    pub fn push(&mut self, position: Position, record: Record<'_>) -> u32 {
        let offset = (BLOCK_HEAD_BYTES + self.bytes.len()) as u32;
        record.encode(&mut self.bytes);
        self.records += 1;
        self.last = position;
        offset
    }

    /// Makes it as good as new; a buffer that grew far beyond `capacity_bytes` is given up.
    pub fn clear(&mut self, capacity_bytes: usize) {
        if self.bytes.capacity() > 2 * capacity_bytes {
            *self = Self::new(0);
        }
        self.bytes.clear();
        (self.records, self.last) = (0, Position::default());
        (self.moved_before, self.reign, self.read) = (0, 0, 0);
        (self.cleared, self.is_request) = (0, false);
        (self.generation, self.offset) = (0, 0);
    }

    /// Its records, as they are written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many records it holds.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The position of its last record.
    pub fn last(&self) -> Position {
        self.last
    }
}
