//! What a driver asks its caller to do, and tells it.

use super::membership::Members;
use crate::consensus::place::Place;
use bytes::Bytes;
use raft::eraftpb::{EntryType, Message};

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block of records; empty in the first entry of a term.
    Normal,
    /// A change of the membership, as raft encodes it.
    Change,
}

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

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads, and everything that was committed before was told.
    Leader {
        /// In this term.
        term: u64,
    },
    /// It does not lead.
    Follower {
        /// Who does, as far as is known.
        leader: Option<u64>,
    },
}

/// Something that happened in a group, told in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An entry will never be lost and is next to be applied.
    Committed {
        /// Its index: one more than that of the last one, after a start or [`Event::Installed`]
        /// one more than that of the point.
        index: u64,
        /// Its term.
        term: u64,
        /// What it carries.
        kind: Kind,
        /// The number that it was proposed with, when this replica proposed it in this term and
        /// did not tell that it was lost.
        ticket: Option<u64>,
        /// The block of records, when it is still in memory.
        data: Option<Bytes>,
        /// Where it lies on the disk.
        place: Place,
    },
    /// What becomes of this proposal is not known: leadership ended before it was committed. If it
    /// is after all, that is told without a ticket.
    Lost {
        /// The number that it was proposed with.
        ticket: u64,
    },
    /// The role changed.
    Role(Role),
    /// The membership changed.
    Membership(Members),
    /// The log was replaced by a point: what was applied so far is to be forgotten, the entries
    /// after the point follow.
    Installed {
        /// The index of the point.
        index: u64,
    },
    /// Everything that was committed when this read was asked for has been told.
    Read {
        /// The number that it was asked for with.
        context: u64,
    },
    /// Leadership ended before a read could be confirmed.
    ReadLost {
        /// The number that it was asked for with.
        context: u64,
    },
}

/// Where an entry lies on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The place of its block.
    pub place: Place,
    /// Bytes of its data.
    pub bytes: u32,
}

/// Entries in a row that a follower needs and that are on the disk only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The partition.
    pub partition: u16,
    /// What the answer is given with.
    pub id: u64,
    /// The index of the first of them.
    pub first: u64,
    /// Where they lie.
    pub entries: Vec<Stored>,
}

/// All that comes out of a driver at once; each with its partition.
#[derive(Debug, Default)]
pub struct Outputs {
    /// To be sent at once; messages to one peer stay in their order.
    pub messages: Vec<(u16, Message)>,
    /// To be written in this order; when it is on the disk, [`super::Driver::persisted`] is told
    /// the batch.
    pub writes: Vec<(u16, Write)>,
    /// What the caller acts on, in this order.
    pub events: Vec<(u16, Event)>,
    /// Answered with [`super::Driver::fetched`].
    pub fetches: Vec<Fetch>,
    /// Asked of all nodes: whether this replica is a member still. Whoever leads and has it for none
    /// answers with the same number, and [`super::Driver::disown`] is told that.
    pub questions: Vec<(u16, u64)>,
    /// The number of the batch of writes; every batch is told once, in order.
    pub batch: u64,
}

impl Outputs {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.writes.is_empty()
            && self.events.is_empty()
            && self.fetches.is_empty()
            && self.questions.is_empty()
    }

    /// Makes it empty, and keeps its buffers.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.writes.clear();
        self.events.clear();
        self.fetches.clear();
        self.questions.clear();
    }
}
