//! What a partition writes down before it says that something happened.

use super::{
    lane::LaneLog,
    news::{Committed, News},
    place::{Place, Position},
    record::Record,
};
use crate::wire::{id::TaskId, names::Crowd};
use std::collections::VecDeque;

/// A partition's log. Records are committed in the order in which they were appended.
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

    /// Writes two records down that are committed together or not at all, which records that are
    /// appended one after the other need not be; as [`TaskLog::append`] otherwise.
    pub fn append_both(&mut self, both: [Record<'_>; 2]) -> [(Position, u32); 2] {
        match self {
            Self::Memory(log) => both.map(|_| log.append()),
            Self::Durable(log) => log.append_both(both),
        }
    }

    /// Asks for a submission, which any node may, whoever leads; the answer is the name that its task has
    /// then. Where it is committed it is told as anybody's; what becomes of it is not told otherwise.
    ///
    /// # Panics
    /// Where nodes do not agree by PBFT.
    pub fn ask(&mut self, record: Record<'_>) -> TaskId {
        match self {
            Self::Memory(_) => unreachable!("a node alone asks nobody"),
            Self::Durable(log) => log.ask(record),
        }
    }

    /// Says which nodes take up much of the partition.
    #[inline]
    pub fn crowd(&self, crowd: Crowd) {
        match self {
            Self::Memory(_) => {}
            Self::Durable(log) => log.crowd(crowd),
        }
    }

    /// Nothing is needed of entries up to an index, as [`News::Compacted`] said.
    pub fn cleared(&mut self, index: u64) {
        match self {
            Self::Memory(_) => {}
            Self::Durable(log) => log.cleared(index),
        }
    }

    /// Whether what [`News::Claimed`] says is true.
    pub fn answer(&mut self, number: u64, is_true: bool) {
        match self {
            Self::Memory(_) => {}
            Self::Durable(log) => log.answer(number, is_true),
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
            Self::Memory(log) => log.next_news(),
            Self::Durable(log) => log.next_news(),
        }
    }

    /// Asks for [`News::Read`] with a number: what is read after that is as new as anything that
    /// was told to anybody before this.
    pub fn read(&mut self, number: u64) {
        match self {
            Self::Memory(log) => log.reads.push_back(number),
            Self::Durable(log) => log.read(number),
        }
    }

    /// Whether [`TaskLog::next_news`] would tell of something.
    #[inline]
    pub fn has_news(&self) -> bool {
        match self {
            Self::Memory(log) => log.told < log.last || !log.reads.is_empty(),
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
    reads: VecDeque<u64>,
}

impl MemoryLog {
    #[inline]
    fn append(&mut self) -> (Position, u32) {
        self.last.0 += 1;
        (self.last, 0)
    }

    #[inline]
    fn next_news(&mut self) -> Option<News> {
        if self.told < self.last {
            self.told = self.last;
            let committed = Committed { upto: self.last, block: Place::default() };
            return Some(News::Committed(committed));
        }
        self.reads.pop_front().map(News::Read)
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
