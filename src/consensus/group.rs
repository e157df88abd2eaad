//! What one write carries: the blocks of all shards that arrived while the last one was written.

use super::{
    damage::Damage,
    format::{
        BLOCK_HEAD_BYTES, BlockHead, BlockKind, GROUP_HEAD_BYTES, GroupHead, PAGE_BYTES, is_zero,
        padded,
    },
    record::Record,
};
use crate::{
    planted::{self, Bug},
    runtime::disk::AlignedBuffer,
    wire::id::PartitionIndex,
};

/// A group larger than this is made only for one block that is.
pub const GROUP_BYTES_MAX: usize = 2 << 20;

/// A group that is being gathered, in memory that may be written past the page cache.
pub struct Group {
    buffer: AlignedBuffer,
    used: usize,
    blocks: u32,
}

impl Default for Group {
    fn default() -> Self {
        Self { buffer: AlignedBuffer::new(GROUP_BYTES_MAX), used: GROUP_HEAD_BYTES, blocks: 0 }
    }
}

impl Group {
    /// Bytes that the group takes on the disk once a block of `block_bytes` is in it.
    pub fn padded_bytes_with(&self, block_bytes: usize) -> usize {
        padded(self.used + block_bytes)
    }

    /// Whether nothing was gathered.
    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Copies a block in; the answer is its offset in the group.
    pub fn add(&mut self, head: &BlockHead, body: &[u8]) -> usize {
        let offset = self.used;
        let begin = offset + BLOCK_HEAD_BYTES;
        self.used = begin + body.len();
        self.buffer.grow(padded(self.used), offset);
        head.encode(&mut self.buffer[offset..begin]);
        self.buffer[begin..self.used].copy_from_slice(body);
        self.blocks += 1;
        offset
    }

    /// The bytes to write. `head` tells where the group stands; what it holds is filled in.
    pub fn finish(&mut self, node: u128, head: GroupHead) -> &[u8] {
        let payload_bytes = (self.used - GROUP_HEAD_BYTES) as u32;
        let end = padded(self.used);
        self.buffer[self.used..end].fill(0);
        let head = GroupHead { payload_bytes, blocks: self.blocks, ..head };
        head.encode(node, &mut self.buffer);
        &self.buffer[..end]
    }

    /// Begins the next group; a buffer that grew for one large block is given up.
    pub fn clear(&mut self) {
        if self.buffer.len() > GROUP_BYTES_MAX {
            self.buffer = AlignedBuffer::new(GROUP_BYTES_MAX);
        }
        (self.used, self.blocks) = (GROUP_HEAD_BYTES, 0);
    }
}

/// A block that was read back, and where it begins in its group.
pub struct StoredBlock<'a> {
    /// Its head.
    pub head: BlockHead,
    /// Its offset in the group.
    pub offset: usize,
    bytes: &'a [u8],
}

impl<'a> StoredBlock<'a> {
    /// What follows the head.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[BLOCK_HEAD_BYTES..]
    }

    /// How many records it holds.
    pub fn records(&self) -> u64 {
        let (mut at, mut records) = (0, 0);
        let body = if self.head.kind == BlockKind::Records { self.body() } else { &[] };
        while let Some(length) = body.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
            at += u32::from_le_bytes(*length) as usize;
            records += 1;
        }
        records
    }

    fn check(&self) -> Result<(), Damage> {
        let body = self.body();
        if self.head.kind != BlockKind::Records {
            let intact = crc32fast::hash(body) == self.head.checksum;
            return if intact { Ok(()) } else { Err(Damage::BlockBody) };
        }
        let mut at = 0;
        while at < body.len() {
            at += Record::decode(&body[at..])?.1;
        }
        Ok(())
    }
}

/// Checks every byte of a block that was read alone, which is to be a certain entry.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_entry(block: &[u8], partition: PartitionIndex, index: u64) -> Result<(), Damage> {
    let head = BlockHead::decode(block)?;
    let is_entry = matches!(head.kind, BlockKind::Records | BlockKind::Change)
        && (head.partition, head.index, head.bytes as usize) == (partition, index, block.len());
    if !is_entry {
        return Err(Damage::BlockHead);
    }
    if planted::has(Bug::UncheckedEntry) {
        return Ok(());
    }
    StoredBlock { head, offset: 0, bytes: block }.check()
}

/// The blocks of a whole group, every byte of which was checked.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check<'a>(head: &GroupHead, group: &'a [u8]) -> Result<Vec<StoredBlock<'a>>, Damage> {
    let end = GROUP_HEAD_BYTES + head.payload_bytes as usize;
    let mut blocks = Vec::with_capacity((head.blocks as usize).min(PAGE_BYTES));
    let mut offset = GROUP_HEAD_BYTES;
    while offset < end {
        let bytes = &group[offset..end];
        let block = BlockHead::decode(bytes)?;
        let stored = StoredBlock { head: block, offset, bytes: &bytes[..block.bytes as usize] };
        if !planted::has(Bug::UncheckedStart) {
            stored.check()?;
        }
        offset += block.bytes as usize;
        blocks.push(stored);
    }
    if blocks.len() != head.blocks as usize {
        return Err(Damage::BlockHead);
    }
    if !is_zero(&group[end..]) {
        return Err(Damage::GroupPadding);
    }
    Ok(blocks)
}
