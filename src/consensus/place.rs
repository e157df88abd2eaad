//! Where records lie: in the order of their partition, and on the disk.

/// A record's place in its shard's log, from 1; it begins anew with every open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// Where a committed record lies on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The generation of its segment.
    pub generation: u64,
    /// Its offset in the segment, bytes.
    pub offset: u32,
}
