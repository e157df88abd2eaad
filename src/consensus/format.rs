//! The heads of segments, groups and blocks, as bytes; little endian.
//!
//! A segment file is a page with its head, then groups. A group is what one write carried: its
//! head, blocks, zeros up to the next page. A block is one thing that a partition's log must not
//! forget: its head, and an entry (what a shard wrote in a row) or what goes with entries.
//!
//! Invariants worth naming
//! - Every byte of a group is covered by a checksum, or must be zero.
//! - The checksum of a group's head begins with the node's number, so neither a group of another
//!   folder nor one that somebody submitted as a payload passes for one of this log.

use super::damage::Damage;
use crate::wire::id::PartitionIndex;

/// What the log is written in: groups begin at multiples of it and fill multiples of it.
pub const PAGE_BYTES: usize = 4096;
/// The format that this program writes and reads.
const VERSION: u32 = 2;
const SEGMENT_MAGIC: [u8; 8] = *b"coreflow";
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"CFgr");
/// Bytes of a segment's head that are not always zero.
const SEGMENT_HEAD_BYTES: usize = 76;
/// Bytes of a group's head.
pub const GROUP_HEAD_BYTES: usize = 64;
/// Bytes of a block's head.
pub const BLOCK_HEAD_BYTES: usize = 32;

/// The name of a segment's file.
pub fn segment_name(number: u32) -> String {
    format!("segment-{number:06}.log")
}

/// The number in the name of a segment's file.
pub fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("segment-")?.strip_suffix(".log")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// What the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The number that the folder was made with.
    pub node: u128,
    /// Grows by one with each segment that is begun; never repeats.
    pub generation: u64,
    /// The sequence of its first group.
    pub first_sequence: u64,
    /// Segments of lower generations were free when it was begun.
    pub first_generation: u64,
    /// Which open of the log began it.
    pub epoch: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Partitions of the tasks when the log began.
    pub partitions: PartitionIndex,
}

impl SegmentHead {
    /// Fills a page.
    pub fn encode(&self, page: &mut [u8]) {
        let page = &mut page[..PAGE_BYTES];
        page.fill(0);
        page[..8].copy_from_slice(&SEGMENT_MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        page[12..28].copy_from_slice(&self.node.to_le_bytes());
        let numbers =
            [self.generation, self.first_sequence, self.first_generation, self.epoch, self.bytes];
        for (place, number) in page[28..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        page[68..70].copy_from_slice(&self.partitions.to_le_bytes());
        let checksum = crc32fast::hash(&page[..SEGMENT_HEAD_BYTES - 4]);
        page[SEGMENT_HEAD_BYTES - 4..SEGMENT_HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a page; `None` when it was never written.
    ///
    /// # Errors
    /// When it was written, and not by this, or is damaged.
    pub fn decode(page: &[u8]) -> Result<Option<Self>, Damage> {
        let page = &page[..PAGE_BYTES];
        if is_zero(page) {
            return Ok(None);
        }
        let (head, rest) = page.split_at(SEGMENT_HEAD_BYTES);
        let written = u32_at(head, SEGMENT_HEAD_BYTES - 4);
        let intact = head[..8] == SEGMENT_MAGIC
            && crc32fast::hash(&head[..SEGMENT_HEAD_BYTES - 4]) == written;
        if !intact {
            return Err(Damage::SegmentHead);
        }
        // A newer version may use the rest.
        if u32_at(head, 8) != VERSION {
            return Err(Damage::SegmentVersion(u32_at(head, 8)));
        }
        if !is_zero(rest) {
            return Err(Damage::SegmentHead);
        }
        Ok(Some(Self {
            node: u128::from_le_bytes(head[12..28].try_into().expect("sixteen bytes")),
            generation: u64_at(head, 28),
            first_sequence: u64_at(head, 36),
            first_generation: u64_at(head, 44),
            epoch: u64_at(head, 52),
            bytes: u64_at(head, 60),
            partitions: u16::from_le_bytes([head[68], head[69]]),
        }))
    }
}

/// What the head of a group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHead {
    /// The generation of its segment: groups of the file's earlier lives have another.
    pub generation: u64,
    /// Grows by one with each group of the log.
    pub sequence: u64,
    /// Segments of lower generations are free.
    pub first_generation: u64,
    /// Which open of the log wrote it; grows with every open.
    pub epoch: u64,
    /// Bytes of its blocks.
    pub payload_bytes: u32,
    /// Its blocks; a group without any is a seal.
    pub blocks: u32,
}

impl GroupHead {
    /// Fills the head's bytes.
    pub fn encode(&self, node: u128, head: &mut [u8]) {
        let head = &mut head[..GROUP_HEAD_BYTES];
        head.fill(0);
        head[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        let numbers = [self.generation, self.sequence, self.first_generation, self.epoch];
        for (place, number) in head[8..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        head[40..44].copy_from_slice(&self.payload_bytes.to_le_bytes());
        head[44..48].copy_from_slice(&self.blocks.to_le_bytes());
        let checksum = group_checksum(node, &head[..GROUP_HEAD_BYTES - 4]);
        head[GROUP_HEAD_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a head.
    ///
    /// # Errors
    /// When no group of this node begins here.
    pub fn decode(node: u128, head: &[u8]) -> Result<Self, Damage> {
        let head = &head[..GROUP_HEAD_BYTES];
        let written = u32_at(head, GROUP_HEAD_BYTES - 4);
        if u32_at(head, 0) != GROUP_MAGIC
            || group_checksum(node, &head[..GROUP_HEAD_BYTES - 4]) != written
        {
            return Err(Damage::GroupHead);
        }
        Ok(Self {
            generation: u64_at(head, 8),
            sequence: u64_at(head, 16),
            first_generation: u64_at(head, 24),
            epoch: u64_at(head, 32),
            payload_bytes: u32_at(head, 40),
            blocks: u32_at(head, 44),
        })
    }

    /// Whether bytes that are no intact head look as if this one had been written there: two of
    /// its parts survived.
    pub fn resembles(&self, head: &[u8]) -> bool {
        let parts = [
            u32_at(head, 0) == GROUP_MAGIC,
            u64_at(head, 8) == self.generation,
            u64_at(head, 16) == self.sequence,
        ];
        parts.into_iter().filter(|survived| *survived).count() >= 2
    }

    /// Bytes from the group's begin to the next one's.
    pub fn padded_bytes(&self) -> u64 {
        padded(GROUP_HEAD_BYTES + self.payload_bytes as usize) as u64
    }
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// An entry of a partition's log: records, each with its own checksum.
    Records,
    /// An entry that changes the membership.
    Change,
    /// A hard state.
    HardState,
    /// The point that a partition's log begins behind from now on.
    Compacted,
    /// The point that replaces a partition's log.
    Installed,
    /// What byzantine agreement must not forget beside entries.
    Note,
}

impl BlockKind {
    /// Whether it holds an entry, which has a term and an index.
    pub const fn is_entry(self) -> bool {
        matches!(self, Self::Records | Self::Change)
    }

    const ALL: [Self; 6] = [
        Self::Records,
        Self::Change,
        Self::HardState,
        Self::Compacted,
        Self::Installed,
        Self::Note,
    ];
}

/// What the head of a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// Bytes of the block, its head among them.
    pub bytes: u32,
    /// What it holds.
    pub kind: BlockKind,
    /// Whose it is.
    pub partition: PartitionIndex,
    /// The term of an entry.
    pub term: u64,
    /// The index of an entry.
    pub index: u64,
    /// The checksum of what follows; 0 where records have their own.
    pub checksum: u32,
}

impl BlockHead {
    /// The head of a block that holds `body`.
    ///
    /// # Panics
    /// When that is longer than its length can tell; blocks are bounded far below.
    pub fn new(
        kind: BlockKind,
        partition: PartitionIndex,
        term: u64,
        index: u64,
        body: &[u8],
    ) -> Self {
        let bytes = u32::try_from(BLOCK_HEAD_BYTES + body.len()).expect("a block is below 4 GiB");
        let checksum = if kind == BlockKind::Records { 0 } else { crc32fast::hash(body) };
        Self { bytes, kind, partition, term, index, checksum }
    }

    /// Fills the head's bytes.
    pub fn encode(&self, head: &mut [u8]) {
        let head = &mut head[..BLOCK_HEAD_BYTES];
        head[..4].copy_from_slice(&self.bytes.to_le_bytes());
        head[4] = self.kind as u8 + 1;
        head[5] = 0;
        head[6..8].copy_from_slice(&self.partition.to_le_bytes());
        head[8..16].copy_from_slice(&self.term.to_le_bytes());
        head[16..24].copy_from_slice(&self.index.to_le_bytes());
        head[24..28].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = crc32fast::hash(&head[..BLOCK_HEAD_BYTES - 4]);
        head[BLOCK_HEAD_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a head from the start of `bytes`, which hold the whole block.
    ///
    /// # Errors
    /// When it is damaged, or longer than `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let head = bytes.get(..BLOCK_HEAD_BYTES).ok_or(Damage::BlockHead)?;
        let kind = BlockKind::ALL.get(usize::from(head[4].wrapping_sub(1)));
        let block = Self {
            bytes: u32_at(head, 0),
            kind: *kind.ok_or(Damage::BlockHead)?,
            partition: u16::from_le_bytes([head[6], head[7]]),
            term: u64_at(head, 8),
            index: u64_at(head, 16),
            checksum: u32_at(head, 24),
        };
        let intact = head[5] == 0
            && crc32fast::hash(&head[..BLOCK_HEAD_BYTES - 4]) == u32_at(head, BLOCK_HEAD_BYTES - 4)
            && (BLOCK_HEAD_BYTES..=bytes.len()).contains(&(block.bytes as usize));
        if intact { Ok(block) } else { Err(Damage::BlockHead) }
    }
}

/// `bytes` rounded up to whole pages.
pub const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE_BYTES)
}

/// Whether every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |seen, byte| seen | byte) == 0
}

fn group_checksum(node: u128, head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&node.to_le_bytes());
    hasher.update(head);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}
