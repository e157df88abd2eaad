//! What can be wrong with bytes that were read back from the log.

use super::{pbft, raft::restore::Broken};
use crate::wire::id::PartitionIndex;
use std::fmt;

/// What is wrong with a part of the log; where it is wrong is told by a [`Finding`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Fewer bytes than the record's own length asks for.
    #[error("a record is cut off")]
    RecordCut,
    /// The bytes of a record are not those that were written.
    #[error("the checksum of a record is wrong")]
    RecordChecksum,
    /// The record is intact, and this program does not know its kind.
    #[error("a record of kind {0} is unknown to this version of the program")]
    RecordKind(u8),
    /// The record is intact, and a field of it holds what cannot be.
    #[error("the field {0} of a record is malformed")]
    RecordField(&'static str),
    /// The head of a block does not match its checksum, or its lengths do not fit its group.
    #[error("the head of a block is damaged")]
    BlockHead,
    /// What a block holds beside records does not match its checksum, or cannot be read.
    #[error("the body of a block is damaged")]
    BlockBody,
    /// The entries of a partition do not follow each other.
    #[error("the log of partition {partition} is not whole: {broken}")]
    Entries {
        /// The partition.
        partition: PartitionIndex,
        /// What is wrong.
        broken: Broken,
    },
    /// The entries of a partition on which nodes agree that may lie do not follow each other.
    #[error("the log of partition {partition} is not whole: {broken}")]
    Agreed {
        /// The partition.
        partition: PartitionIndex,
        /// What is wrong.
        broken: pbft::restore::Broken,
    },
    /// There is no head of a group where one must be.
    #[error("the head of a group is damaged or missing")]
    GroupHead,
    /// The bytes between a group's end and the next page are not zero.
    #[error("the padding of a group is damaged")]
    GroupPadding,
    /// A group is intact, and the ones before it are gone.
    #[error("groups are missing: expected sequence {expected}, found {found}")]
    SequenceGap {
        /// The sequence after the last group that was read.
        expected: u64,
        /// The sequence that was found.
        found: u64,
    },
    /// The head of a segment does not match its checksum, or its rest is not zero.
    #[error("the head of a segment is damaged")]
    SegmentHead,
    /// The segment was written in a format that this program does not know.
    #[error("the segment has format version {0}, which this version of the program cannot read")]
    SegmentVersion(u32),
    /// The file is shorter than its head says.
    #[error("the file is cut off: {found} bytes of {expected}")]
    SegmentCut {
        /// Bytes that the file has.
        found: u64,
        /// Bytes that it must have.
        expected: u64,
    },
    /// No file holds a generation that is needed.
    #[error("the segment of generation {0} is missing")]
    GenerationMissing(u64),
    /// Two files hold the same generation.
    #[error("a second segment of generation {0}")]
    GenerationTwice(u64),
    /// The segment comes from another folder.
    #[error("the segment belongs to the log of another node")]
    OtherNode,
}

/// A damage and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the file, or of what stands for a file that is missing.
    pub file: String,
    /// Where in the file, bytes.
    pub offset: u64,
    /// What is wrong there.
    pub damage: Damage,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}: {}", self.file, self.offset, self.damage)
    }
}
