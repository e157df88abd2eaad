//! What a shard writes down before it says that something happened.

use super::{damage::Damage, format::BLOCK_HEAD_BYTES, lane::LaneLog, record::Record};
use bytes::Bytes;

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

/// A block of records that will not be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The last of the records; the first is the one after the block before.
    pub upto: Position,
    pub(super) block: Place,
}

impl Committed {
    /// Where a record of this block lies, from the offset that [`TaskLog::append`] told.
    pub fn place(&self, offset_in_block: u32) -> Place {
        let Place { generation, offset } = self.block;
        Place { generation, offset: offset + offset_in_block }
    }
}

/// A block that another node proposed, or this one in an earlier reign; it is committed.
#[derive(Clone, Debug)]
pub struct Foreign {
    records: Bytes,
    block: Place,
}

impl Foreign {
    /// The records of a block that lies at a place of this node's disk.
    pub fn new(records: Bytes, block: Place) -> Self {
        Self { records, block }
    }

    /// Where the block lies.
    pub fn block(&self) -> Place {
        self.block
    }

    /// Calls `visit` with each record and where it lies; the bytes were checked when they arrived.
    ///
    /// # Errors
    /// What is wrong with the bytes, when they were not.
    pub fn records(&self, mut visit: impl FnMut(Place, Record<'_>)) -> Result<(), Damage> {
        let Place { generation, offset } = self.block;
        let mut at = 0;
        while at < self.records.len() {
            let (record, bytes) = Record::decode_checked(&self.records[at..])?;
            let offset = offset + (BLOCK_HEAD_BYTES + at) as u32;
            visit(Place { generation, offset }, record);
            at += bytes;
        }
        Ok(())
    }
}

/// What a partition hears from its log, in this order.
#[derive(Clone, Debug)]
pub enum News {
    /// Records that it appended are committed.
    Committed(Committed),
    /// Records that somebody else appended are committed. Comes only while it follows.
    Foreign(Foreign),
    /// It leads: everything that was committed before was told, and it may append.
    Lead,
    /// It follows: what it appended and was not told of may be committed or not. It begins again
    /// with an empty table, and everything that was ever committed and lives is told once more.
    Follow,
}

/// A shard's log. Records are committed in the order in which they were appended.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each partition, and it stays")]
pub enum TaskLog {
    /// Keeps nothing.
    Memory(MemoryLog),
    /// Keeps everything.
    Durable(LaneLog),
}

impl TaskLog {
    /// Writes a record down; also tells its offset in the block that it will be committed with.
    #[inline]
    pub fn append(&mut self, record: Record<'_>) -> (Position, u32) {
        match self {
            Self::Memory(log) => log.append(),
            Self::Durable(log) => log.append(record),
        }
    }

    /// Sends what was appended on its way, as far as there is room; for the end of a turn.
    #[inline]
    pub fn flush(&mut self) {
        match self {
            Self::Memory(_) => {}
            Self::Durable(log) => log.flush(),
        }
    }

    /// What happened next.
    #[inline]
    pub fn next_news(&mut self) -> Option<News> {
        match self {
            Self::Memory(log) => log.next_committed().map(News::Committed),
            Self::Durable(log) => log.next_news(),
        }
    }

    /// Whether [`TaskLog::next_news`] would tell of something.
    #[inline]
    pub fn has_news(&self) -> bool {
        match self {
            Self::Memory(log) => log.told < log.last,
            Self::Durable(log) => log.has_news(),
        }
    }

    /// Whether submissions may be appended; everything else always may.
    #[inline]
    pub fn has_room(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Durable(log) => log.has_room(),
        }
    }

    /// Whether what is committed outlasts the process.
    pub fn is_durable(&self) -> bool {
        matches!(self, Self::Durable(_))
    }

    /// 0, or the generation below which nothing that lives may stay: the shard appends again what
    /// it has there and then tells [`TaskLog::moved_before`].
    #[inline]
    pub fn move_before(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::Durable(log) => log.move_before(),
        }
    }

    /// Everything that lives in generations below `generation` was appended again.
    pub fn moved_before(&mut self, generation: u64) {
        match self {
            Self::Memory(_) => {}
            Self::Durable(log) => log.moved_before(generation),
        }
    }

    /// Whether something that was appended could not leave yet.
    #[inline]
    pub fn has_departures(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Durable(log) => log.has_departures(),
        }
    }
}

/// A log that keeps nothing: what it is told is committed at once, and gone when the process
/// ends.
#[derive(Debug, Default)]
pub struct MemoryLog {
    last: Position,
    told: Position,
}

impl MemoryLog {
    #[inline]
    fn append(&mut self) -> (Position, u32) {
        self.last.0 += 1;
        (self.last, 0)
    }

    #[inline]
    fn next_committed(&mut self) -> Option<Committed> {
        let is_news = self.told < self.last;
        self.told = self.last;
        is_news.then_some(Committed { upto: self.last, block: Place::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::id::TaskId;

    #[test]
    fn the_memory_log_commits_at_once_and_tells_it_once() {
        let mut log = TaskLog::Memory(MemoryLog::default());
        assert!(log.next_news().is_none());
        let record = Record::Requeued { id: TaskId { partition: 0, random: 7 } };
        log.append(record);
        let (last, _) = log.append(record);
        let Some(News::Committed(committed)) = log.next_news() else { panic!("it is committed") };
        assert_eq!(committed.upto, last);
        assert!(log.next_news().is_none());
        assert!(log.has_room() && !log.has_departures() && !log.is_durable());
    }
}
