//! The segments of a partition: their files, what they begin with, and which place is where.
//!
//! Segments of one size follow each other; the first one may go when nothing in it lives, so those that
//! are there have numbers without a gap. A [`Place`] is the distance of a record from the begin of the
//! first segment that there ever was, in units, modulo 2^32: 4 bytes for as many segments as have
//! 256 GiB.

use super::{files::FileList, record::UNIT_BYTES, region::Region, table::Place};
use std::{path::PathBuf, sync::Arc};

/// What a segment's file begins with.
const MAGIC: &[u8; 8] = b"coreflwM";
/// The version of the format.
const VERSION: u32 = 1;
/// Where a segment's first record lies.
pub const FIRST_OFFSET: usize = UNIT_BYTES;
/// Which files a partition has.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Where they are; `None` for memory alone.
    pub folder: Option<PathBuf>,
    /// The partition.
    pub partition: u16,
    /// Bytes of a segment: a multiple of a unit, and room for the longest record.
    pub segment_bytes: usize,
    /// Numbers of a vector.
    pub dimensions: usize,
    /// What the salts of the segments follow from.
    pub salt: u32,
    /// The list of its files; `None` for memory alone.
    pub list: Option<Arc<FileList>>,
}

/// One segment.
#[derive(Debug)]
pub struct Segment {
    /// Its number.
    pub number: u32,
    /// Its bytes.
    pub region: Arc<Region>,
    /// What its checksums begin with.
    pub salt: u32,
    /// Records in it.
    pub records: u64,
    /// Rows whose record is in it.
    pub live: u64,
}

/// The file of a segment.
pub fn segment_name(partition: u16, number: u32) -> String {
    format!("{partition:04}-{number:08}.rec")
}

/// The partition and number that a file's name says.
pub fn parse_segment_name(name: &str) -> Option<(u16, u32)> {
    let (partition, number) = name.strip_suffix(".rec")?.split_once('-')?;
    Some((partition.parse().ok()?, number.parse().ok()?))
}

impl LogSettings {
    /// The salt of a segment.
    pub fn salt_of(&self, number: u32) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.salt);
        hasher.update(&self.partition.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        hasher.finalize()
    }

    /// What a segment begins with.
    pub fn head_of(&self, number: u32) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&u32::from(self.partition).to_le_bytes());
        head.extend_from_slice(&number.to_le_bytes());
        head.extend_from_slice(&(self.dimensions as u32).to_le_bytes());
        head.extend_from_slice(&self.salt_of(number).to_le_bytes());
        head.resize(FIRST_OFFSET, 0);
        head
    }

    pub(super) fn units(&self) -> u32 {
        (self.segment_bytes / UNIT_BYTES) as u32
    }

    /// Segments that places can tell apart.
    pub(super) fn segments_max(&self) -> u32 {
        u32::MAX / self.units()
    }

    /// The place of an offset in a segment.
    pub fn place(&self, number: u32, offset: usize) -> Place {
        (number % self.segments_max()) * self.units() + (offset / UNIT_BYTES) as u32
    }

    /// The offset that a place has in its segment.
    pub fn offset(&self, place: Place) -> usize {
        (place % self.units()) as usize * UNIT_BYTES
    }

    /// How many segments after the first one a place is, when that one has this number.
    pub fn distance(&self, place: Place, first: u32) -> usize {
        let (slot, slots) = (place / self.units(), self.segments_max());
        ((slot + slots - first % slots) % slots) as usize
    }
}
