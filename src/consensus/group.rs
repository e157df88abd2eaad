//! What one write carries: the blocks of all shards that arrived while the last one was written.

use super::{
    damage::Damage,
    format::{
        BLOCK_HEAD_BYTES, BlockHead, GROUP_HEAD_BYTES, GroupHead, PAGE_BYTES, is_zero, padded,
    },
    record::Record,
};
use crate::runtime::disk::AlignedBuffer;

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

    /// Copies a closed block in; the answer is its offset in the group.
    pub fn add(&mut self, block: &[u8]) -> usize {
        let offset = self.used;
        self.used += block.len();
        self.buffer.grow(padded(self.used), offset);
        self.buffer[offset..self.used].copy_from_slice(block);
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
    /// Calls `visit` with each record and its offset in the group; the group was checked before.
    ///
    /// # Errors
    /// Never, when the group was checked.
    pub fn records(&self, mut visit: impl FnMut(usize, Record<'a>)) -> Result<(), Damage> {
        let mut at = BLOCK_HEAD_BYTES;
        while at < self.bytes.len() {
            let (record, bytes) = Record::decode_checked(&self.bytes[at..])?;
            visit(self.offset + at, record);
            at += bytes;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Damage> {
        let (mut at, mut records) = (BLOCK_HEAD_BYTES, 0);
        while at < self.bytes.len() {
            at += Record::decode(&self.bytes[at..])?.1;
            records += 1;
        }
        if records == self.head.records { Ok(()) } else { Err(Damage::BlockHead) }
    }
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
        stored.check()?;
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
