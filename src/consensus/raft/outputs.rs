//! What a driver asks its caller to do, and tells it.

use super::membership::Members;
use crate::consensus::engine;
pub use crate::consensus::engine::{Event, Fetch, Kind, Role, Stored};
use bytes::Bytes;
use raft::eraftpb::{EntryType, Message};

impl Kind {
    pub(super) fn of(entry_type: EntryType) -> Self {
        match entry_type {
            EntryType::EntryNormal => Self::Normal,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Self::Change,
        }
    }

    pub(super) fn entry_type(self) -> EntryType {
        match self {
            Self::Normal => EntryType::EntryNormal,
            Self::Change => EntryType::EntryConfChangeV2,
        }
    }
}

/// What a replica must not forget beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term that it knows.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// Entries up to this index are committed.
    pub commit: u64,
    /// It was taken out of the group when the log had come to this index, and neither votes nor
    /// stands for election until it holds that; 0 when it never was.
    pub votes_from: u64,
}

/// Where a log begins: the last entry that it does not hold any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Its index; 0 in a log that never held anything.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The membership after it.
    pub members: Members,
}

/// Something to write, in the order in which it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// An entry; it cuts off whatever the partition had at its index and above.
    Entry {
        /// Its term.
        term: u64,
        /// Its index.
        index: u64,
        /// What it carries.
        kind: Kind,
        /// The block of records.
        data: Bytes,
    },
    /// The hard state; the last one counts.
    HardState(HardState),
    /// The log begins behind this point; what is above it stays.
    Compacted(Point),
    /// The log is empty and begins behind this point.
    Installed(Point),
}

/// All that comes out of a driver at once; each with its partition.
pub type Outputs = engine::Outputs<Message, Write>;
