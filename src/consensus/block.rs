//! The records that one shard wrote in a row, on their way to the disk and back.

use super::{
    format::{BLOCK_HEAD_BYTES, BlockHead},
    log::Position,
    record::Record,
};

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
    /// Where it was written: the generation.
    pub generation: u64,
    /// Where it was written: the offset in its segment.
    pub offset: u32,
}

impl Block {
    /// A block with room for `capacity_bytes` of records before its buffer grows.
    pub fn new(capacity_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity_bytes + BLOCK_HEAD_BYTES);
        bytes.resize(BLOCK_HEAD_BYTES, 0);
        let last = Position::default();
        Self { bytes, records: 0, last, moved_before: 0, reign: 0, generation: 0, offset: 0 }
    }

    /// Appends a record; the answer is its offset in the block.
    #[inline]
    pub fn push(&mut self, position: Position, record: Record<'_>) -> u32 {
        let offset = self.bytes.len() as u32;
        record.encode(&mut self.bytes);
        self.records += 1;
        self.last = position;
        offset
    }

    /// Writes the head; nothing may be appended after this.
    pub fn close(&mut self, shard: u16) {
        let head = BlockHead {
            bytes: u32::try_from(self.bytes.len()).expect("a block is below 4 GiB"),
            records: self.records,
            first_position: (self.last.0 + 1).saturating_sub(self.records.into()),
            shard,
        };
        head.encode(&mut self.bytes);
    }

    /// Makes it as good as new; a buffer that grew far beyond `capacity_bytes` is given up.
    pub fn clear(&mut self, capacity_bytes: usize) {
        if self.bytes.capacity() > 2 * (capacity_bytes + BLOCK_HEAD_BYTES) {
            *self = Self::new(0);
        }
        self.bytes.truncate(BLOCK_HEAD_BYTES);
        (self.records, self.last) = (0, Position::default());
        (self.moved_before, self.reign, self.generation, self.offset) = (0, 0, 0, 0);
    }

    /// Its bytes, as they are written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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
