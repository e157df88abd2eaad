//! Questions about tasks, answered so that no answer is older than what somebody was told before.
//! So is what somebody wants to have done with a task that is not there: it may be there for the
//! next leader.
//!
//! A node that leads a partition may have been replaced without knowing. So a question waits until
//! a majority has confirmed, after it came, that this node leads still (raft's ReadIndex): many
//! questions share one such round, and what they read then is linearizable. A node that is alone has
//! nobody to ask and answers at once.

use super::{core::Shard, ledger::Logged};
use crate::{
    planted::{self, Bug},
    wire::{
        api::{Error, TaskFilter},
        id::{CoreIndex, PartitionIndex, TaskId},
        letter::Response,
    },
};
use std::collections::VecDeque;

/// Questions of one partition that may wait.
const READS_MAX: usize = 4096;
/// When to come back when there are so many, milliseconds.
const READS_RETRY_MS: u64 = 10;

/// What is read.
#[derive(Debug)]
pub(super) enum Question {
    /// A task; a result of more bytes is left out.
    Task(TaskId, usize),
    /// A part of a partition's tasks: which, from where, and how many at most.
    Tasks(PartitionIndex, TaskFilter, u64, u32),
    /// A task that is to be cancelled and was not found, or had ended.
    Cancel(TaskId),
    /// A dead letter that is to be queued again and was not found.
    Requeue(TaskId),
}

impl Question {
    fn partition(&self) -> PartitionIndex {
        match self {
            Self::Task(id, _) | Self::Cancel(id) | Self::Requeue(id) => id.partition,
            Self::Tasks(partition, ..) => *partition,
        }
    }
}

/// A question, and who asks.
#[derive(Debug)]
pub(super) struct Read {
    /// The core that asks.
    pub asker: CoreIndex,
    /// What its answer carries.
    pub correlation: u64,
    /// What it asks.
    pub question: Question,
}

/// The questions of a partition that wait for the log, each with its number.
#[derive(Debug, Default)]
pub(super) struct Reads {
    last: u64,
    waiting: VecDeque<(u64, Read)>,
}

impl Reads {
    /// Lets a question wait for the log to tell its number, or gives it back when too many do.
    fn push(&mut self, read: Read) -> Result<u64, Read> {
        if self.waiting.len() >= READS_MAX {
            return Err(read);
        }
        self.last += 1;
        self.waiting.push_back((self.last, read));
        Ok(self.last)
    }

    /// The next question that a number covers.
    fn pop(&mut self, number: u64) -> Option<Read> {
        let is_covered = self.waiting.front().is_some_and(|(first, _)| *first <= number);
        if is_covered { self.waiting.pop_front().map(|(_, read)| read) } else { None }
    }

    /// All of them: none will be answered.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = Read> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, read)| read)
    }
}

impl Shard {
    /// Answers a question, at once where nobody else can lead.
    pub(super) fn read(&mut self, read: Read) {
        let partition = self.tasks.of(read.question.partition());
        let is_sure = self.kernel.cluster.is_none() || planted::has(Bug::UnconfirmedRead);
        if is_sure || partition.check_leading().is_err() {
            return self.answer_read(read);
        }
        match partition.reads.push(read) {
            Ok(number) => partition.ledger.read(number),
            Err(Read { asker, correlation, .. }) => {
                let full = Response::Failed(Error::Backpressure(READS_RETRY_MS));
                self.kernel.answer(asker, correlation, &full);
            }
        }
    }

    /// Answers the questions of a partition that a number covers.
    pub(super) fn may_read(&mut self, place: usize, number: u64) {
        while let Some(read) = self.tasks.partitions[place].reads.pop(number) {
            self.answer_read(read);
        }
    }

    fn answer_read(&mut self, Read { asker, correlation, question }: Read) {
        let response = match question {
            Question::Task(id, result_bytes) => self.view_task(id, result_bytes),
            Question::Tasks(partition, filter, from, max) => {
                self.list_tasks(partition, &filter, from, max)
            }
            Question::Cancel(id) => match self.try_cancel(asker, correlation, id) {
                Ok(true) => return,
                Ok(false) => {
                    // Its end may wait for the log.
                    let then = Logged::Cancelled { asker, correlation, cancelled: false };
                    return self.tasks.of(id.partition).ledger.after_all(then);
                }
                Err(error) => Response::Failed(error),
            },
            Question::Requeue(id) => match self.try_requeue(asker, correlation, id) {
                Ok(()) => return,
                Err(error) => Response::Failed(error),
            },
        };
        self.kernel.answer(asker, correlation, &response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(correlation: u64) -> Read {
        let question = Question::Task(TaskId { partition: 0, random: 1 }, 0);
        Read { asker: 0, correlation, question }
    }

    #[test]
    fn a_number_covers_what_was_asked_up_to_it() {
        let mut reads = Reads::default();
        let numbers: Vec<u64> = (0..3).map(|each| reads.push(read(each)).unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let mut covered = |number| {
            std::iter::from_fn(|| reads.pop(number))
                .map(|read| read.correlation)
                .collect::<Vec<_>>()
        };
        assert!(covered(0).is_empty());
        assert_eq!(covered(2), [0, 1]);
        assert!(covered(2).is_empty());
        assert_eq!(covered(9), [2]);
    }

    #[test]
    fn what_is_abandoned_is_not_covered_by_a_number_that_comes_late() {
        let mut reads = Reads::default();
        let number = reads.push(read(7)).unwrap();
        assert_eq!(reads.abandon().map(|read| read.correlation).collect::<Vec<_>>(), [7]);
        let next = reads.push(read(8)).unwrap();
        assert!(next > number && reads.pop(number).is_none());
        assert_eq!(reads.pop(next).map(|read| read.correlation), Some(8));
    }

    #[test]
    fn questions_that_wait_are_bounded() {
        let mut reads = Reads::default();
        for each in 0..READS_MAX as u64 {
            reads.push(read(each)).unwrap();
        }
        assert_eq!(reads.push(read(1)).unwrap_err().correlation, 1);
        assert!(reads.pop(1).is_some() && reads.push(read(2)).is_ok());
    }
}
