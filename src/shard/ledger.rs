//! What a partition writes to its log, and what waits until the log has committed it.

use crate::{
    consensus::{self, Committed, Foreign, News, Pending, Position, Record, TaskLog},
    task::{Moving, Place, Watcher},
    wire::{
        id::{CoreIndex, TaskId},
        names::Crowd,
    },
};
use std::collections::VecDeque;

/// What happens when the log has committed a record.
pub(super) enum Logged {
    /// A submission is accepted: its submitter is told.
    Submitted {
        /// The task.
        key: u32,
        /// Who submitted it.
        submitter: Watcher,
        /// Its place in the submitter's request.
        place: u32,
    },
    /// A submission with a key is one that came before: its submitter is told which.
    Existing {
        /// The task that came before.
        id: TaskId,
        /// Who submitted it again.
        submitter: Watcher,
        /// Its place in the submitter's request.
        place: u32,
        /// Whether the submitter wants to hear of its end.
        watched: bool,
    },
    /// A submission's key stands for another task, which may not be committed yet: its submitter is
    /// told when it is.
    Conflict {
        /// The name that the submission would have had.
        id: TaskId,
        /// Who submitted it.
        submitter: Watcher,
        /// Its place in the submitter's request.
        place: u32,
    },
    /// The same of one in a batch that wanted room.
    ConflictInBatch {
        /// The core that asked.
        asker: CoreIndex,
        /// What its answer carries.
        correlation: u64,
    },
    /// A task has ended: whoever waits is told.
    Ended {
        /// The task.
        key: u32,
    },
    /// What a worker said of an attempt is settled: the worker is told.
    Told {
        /// The random part of the task's id.
        random: u128,
        /// The worker's door.
        asker: Watcher,
        /// Its place in the worker's request.
        place: u32,
    },
    /// A dead task is queued again: whoever asked for it is told.
    Requeued {
        /// The task.
        key: u32,
        /// The core that asked.
        asker: CoreIndex,
        /// What its answer carries.
        correlation: u64,
    },
    /// A task's end is settled: whoever wanted to cancel it is told.
    Cancelled {
        /// The core that asked.
        asker: CoreIndex,
        /// What its answer carries.
        correlation: u64,
        /// Whether it was cancelled; otherwise it had ended before.
        cancelled: bool,
    },
    /// A live record was written again, so that the segment where it was can be freed.
    Moved(Moving),
    /// A walk over the log's oldest part has written again all that it found.
    Walked,
    /// Fencing tokens below this number may be given.
    Tokens {
        /// The number.
        below: u64,
    },
    /// Where nodes may lie: keys that expire up to a time are forgotten.
    Expired {
        /// The time, Unix time in milliseconds.
        upto_unix_ms: u64,
    },
    /// Nothing.
    Noted,
}

/// What a partition does next.
pub(super) enum Next {
    /// A record is committed: what waited for it, and where the log has it.
    Logged(Logged, Place),
    /// Records of somebody else are committed.
    Foreign(Foreign),
    /// The same, before those that are told anew have come that far.
    Beside(Foreign),
    /// All that was told anew was.
    CaughtUp,
    /// Whoever leads says that entries are not needed.
    Compacted(consensus::Compacted),
    /// Whoever leads says that things live.
    Claimed(consensus::Claimed),
    /// It leads.
    Lead,
    /// A read that was asked for may be done.
    Read(u64),
    /// It follows.
    Follow {
        /// Its log was replaced: entries between may never be told.
        is_replaced: bool,
    },
}

/// The place of what the log does not have.
const NOWHERE: Place = Place { generation: 0, offset: 0 };

/// A partition's log and what waits for it.
pub(super) struct Ledger {
    log: TaskLog,
    pending: Pending<(u32, Logged)>,
    /// What waits for nothing.
    ready: VecDeque<Logged>,
    last: Position,
    committed: Option<Committed>,
    unix_ms_at_start: u64,
}

impl Ledger {
    /// A ledger that writes to `log`; the node started at that Unix time, milliseconds.
    pub(super) fn new(log: TaskLog, unix_ms_at_start: u64) -> Self {
        Self {
            log,
            pending: Pending::default(),
            ready: VecDeque::new(),
            last: Position::default(),
            committed: None,
            unix_ms_at_start,
        }
    }

    /// The Unix time at a time of the node, both milliseconds.
    #[inline]
    pub(super) fn unix_ms(&self, now_ms: u64) -> u64 {
        self.unix_ms_at_start + now_ms
    }

    /// Writes a record; `then` happens when it is committed.
    #[inline]
    pub(super) fn append(&mut self, record: Record<'_>, then: Logged) {
        let (position, offset) = self.log.append(record);
        self.last = position;
        self.pending.push(position, (offset, then));
    }

    /// Says which nodes take up much.
    #[inline]
    pub(super) fn crowd(&self, crowd: Crowd) {
        self.log.crowd(crowd);
    }

    /// Nothing is needed of entries up to an index.
    pub(super) fn cleared(&mut self, index: u64) {
        self.log.cleared(index);
    }

    /// Whether what somebody claims is true.
    pub(super) fn answer(&mut self, number: u64, is_true: bool) {
        self.log.answer(number, is_true);
    }

    /// Asks for a submission, whoever leads: it comes back as anybody's, under the name that is told.
    pub(super) fn ask(&mut self, record: Record<'_>) -> TaskId {
        self.log.ask(record)
    }

    /// Writes two records that say nothing true without each other: both are committed or neither.
    pub(super) fn append_both(&mut self, both: [(Record<'_>, Logged); 2]) {
        let [(first, then_first), (second, then_second)] = both;
        let [(one, offset_one), (other, offset_other)] = self.log.append_both([first, second]);
        self.last = other;
        self.pending.push(one, (offset_one, then_first));
        self.pending.push(other, (offset_other, then_second));
    }

    /// Lets something happen when everything that was written so far is committed.
    #[inline]
    pub(super) fn after_all(&mut self, then: Logged) {
        self.pending.push(self.last, (0, then));
    }

    /// Lets something happen that the log knows nothing of.
    pub(super) fn at_once(&mut self, then: Logged) {
        self.ready.push_back(then);
    }

    /// What happens next.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Next> {
        if let Some(logged) = self.ready.pop_front() {
            return Some(Next::Logged(logged, NOWHERE));
        }
        loop {
            let upto = self.committed.map_or(Position::default(), |block| block.upto);
            if let Some((offset, logged)) = self.pending.pop(upto) {
                let place = self.committed.map_or(NOWHERE, |block| {
                    let consensus::Place { generation, offset } = block.place(offset);
                    Place { generation, offset }
                });
                return Some(Next::Logged(logged, place));
            }
            match self.log.next_news()? {
                News::Committed(committed) => self.committed = Some(committed),
                News::Foreign(foreign) => return Some(Next::Foreign(foreign)),
                News::Beside(foreign) => return Some(Next::Beside(foreign)),
                News::CaughtUp => return Some(Next::CaughtUp),
                News::Compacted(compacted) => return Some(Next::Compacted(compacted)),
                News::Claimed(claimed) => return Some(Next::Claimed(claimed)),
                News::Lead => return Some(Next::Lead),
                News::Read(number) => return Some(Next::Read(number)),
                News::Follow { is_replaced } => return Some(Next::Follow { is_replaced }),
            }
        }
    }

    /// What waited for the log and will never hear of it.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = Logged> + use<> {
        let (pending, ready) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.ready));
        ready.into_iter().chain(pending.into_events().map(|(_, (_, logged))| logged))
    }

    /// What waits for the log.
    pub(super) fn pending(&self) -> usize {
        self.pending.len() + self.ready.len()
    }

    /// Sends what was written on its way.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.log.flush();
    }

    /// Asks for [`Next::Read`] with a number, which rises from one question to the next.
    pub(super) fn read(&mut self, number: u64) {
        self.log.read(number);
    }

    /// Whether submissions may be written.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.log.has_room()
    }

    /// Whether what is committed outlasts the process.
    pub(super) fn is_durable(&self) -> bool {
        self.log.is_durable()
    }

    /// Whether [`Ledger::next`] would find something new.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        !self.ready.is_empty() || self.log.has_news()
    }

    /// Whether something that was written could not leave yet.
    #[inline]
    pub(super) fn has_departures(&self) -> bool {
        self.log.has_departures()
    }

    /// 0, or the generation below which nothing that lives may stay.
    #[inline]
    pub(super) fn move_before(&self) -> u64 {
        self.log.move_before()
    }

    /// Everything that lives below a generation was written again.
    pub(super) fn moved_before(&mut self, generation: u64) {
        self.log.moved_before(generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::MemoryLog;

    #[test]
    fn what_waits_for_records_keeps_their_order() {
        let mut ledger = Ledger::new(TaskLog::Memory(MemoryLog::default()), 1_000);
        let id = TaskId { partition: 0, random: 1 };
        ledger.append(Record::Requeued { id }, Logged::Ended { key: 1 });
        ledger.after_all(Logged::Ended { key: 2 });
        ledger.append(Record::Requeued { id }, Logged::Ended { key: 3 });
        ledger.at_once(Logged::Ended { key: 0 });
        assert!(ledger.has_news());
        let mut order = Vec::new();
        while let Some(Next::Logged(Logged::Ended { key }, _)) = ledger.next() {
            order.push(key);
        }
        assert_eq!(order, [0, 1, 2, 3]);
        assert!(!ledger.has_news());
        ledger.after_all(Logged::Ended { key: 4 });
        assert!(matches!(ledger.next(), Some(Next::Logged(Logged::Ended { key: 4 }, _))));
        assert_eq!(ledger.unix_ms(5), 1_005);
    }
}
