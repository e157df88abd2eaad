//! What the client knows by itself: which submissions were acknowledged, which tasks ran and which
//! ends were acknowledged. It lives in another process than the node, so no crash of the node can
//! change it.

use crate::wire::id::TaskId;
use std::collections::{BTreeSet, VecDeque};

/// Acknowledged submissions that are sent once more after a crash, to see that their keys still
/// stand for the same tasks.
const REPEATED: usize = 50;

/// The producer's half: tasks by number, from 0.
pub(super) struct Submissions {
    ids: Vec<Option<TaskId>>,
    acknowledged: u32,
    /// Numbers below it may be sent.
    open: u32,
    /// The next number that was never sent.
    next: u32,
    /// Sent, and not answered yet.
    under_way: BTreeSet<u32>,
    again: VecDeque<u32>,
    /// Acknowledged last.
    recent: VecDeque<u32>,
    /// Submissions that got no answer and were sent again.
    pub resubmitted: u64,
    /// Acknowledged submissions that were sent again with their key.
    pub repeated: u64,
    /// Second submissions that became another task.
    pub keys_broken: u64,
}

impl Submissions {
    pub(super) fn new(total: u32) -> Self {
        Self {
            ids: vec![None; total as usize],
            acknowledged: 0,
            open: total,
            next: 0,
            under_way: BTreeSet::new(),
            again: VecDeque::new(),
            recent: VecDeque::new(),
            resubmitted: 0,
            repeated: 0,
            keys_broken: 0,
        }
    }

    /// Only numbers below `open` may be sent for now.
    pub(super) fn open(&mut self, open: u32) {
        self.open = open.min(self.total());
    }

    /// A number to submit, which is then under way.
    pub(super) fn next(&mut self) -> Option<u32> {
        let number = match self.again.pop_front() {
            Some(number) => number,
            None if self.next < self.open => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        self.under_way.insert(number);
        Some(number)
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// The node took it.
    pub(super) fn accepted(&mut self, number: u32, id: TaskId) {
        self.under_way.remove(&number);
        match self.ids[number as usize].replace(id) {
            None => self.acknowledged += 1,
            Some(before) if before != id => {
                self.keys_broken += 1;
                self.ids[number as usize] = Some(before);
            }
            Some(_) => {}
        }
        self.recent.push_back(number);
        if self.recent.len() > REPEATED {
            self.recent.pop_front();
        }
    }

    /// The node refused it and did nothing: it is to be sent again.
    pub(super) fn refused(&mut self, number: u32) {
        self.under_way.remove(&number);
        self.again.push_back(number);
    }

    /// The connection is gone: what was under way was taken or not.
    pub(super) fn lost(&mut self) {
        let unanswered = std::mem::take(&mut self.under_way);
        let first_time = unanswered.iter().filter(|&&number| self.ids[number as usize].is_none());
        self.resubmitted += first_time.count() as u64;
        self.again.extend(unanswered);
        self.repeated += self.recent.len() as u64;
        self.again.append(&mut self.recent);
    }

    /// All tasks, acknowledged or not.
    pub(super) fn total(&self) -> u32 {
        self.ids.len() as u32
    }

    /// Submissions that were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.into()
    }

    /// Whether all that may be sent were acknowledged and none is to be repeated.
    pub(super) fn is_complete(&self) -> bool {
        self.acknowledged == self.open && self.under_way.is_empty() && self.again.is_empty()
    }

    /// The task of a number, once acknowledged.
    pub(super) fn id(&self, number: u32) -> Option<TaskId> {
        self.ids[number as usize]
    }
}

/// The worker's half.
pub(super) struct Runs {
    ran_as: Vec<Option<TaskId>>,
    ends: Vec<u8>,
    /// Attempts that were begun.
    pub executions: u64,
    /// Ends that came too late: the node had given the task to another attempt.
    pub stale: u64,
    /// Attempts of a task under another id than before.
    pub doubled: u64,
    ended: u64,
}

impl Runs {
    pub(super) fn new(total: u32) -> Self {
        Self {
            ran_as: vec![None; total as usize],
            ends: vec![0; total as usize],
            executions: 0,
            stale: 0,
            doubled: 0,
            ended: 0,
        }
    }

    /// An attempt began.
    pub(super) fn ran(&mut self, number: u32, id: TaskId) {
        self.executions += 1;
        match self.ran_as[number as usize].replace(id) {
            Some(before) if before != id => self.doubled += 1,
            _ => {}
        }
    }

    /// The node acknowledged the end.
    pub(super) fn ended(&mut self, number: u32) {
        let ends = &mut self.ends[number as usize];
        *ends = ends.saturating_add(1);
        self.ended += 1;
    }

    /// Ends that were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.ended
    }

    /// Tasks whose end was acknowledged more than once.
    pub(super) fn ended_twice(&self) -> u64 {
        self.ends.iter().filter(|&&ends| ends > 1).count() as u64
    }

    /// Whether the task of a number ran under this id.
    pub(super) fn ran_as(&self, number: u32, id: TaskId) -> bool {
        self.ran_as[number as usize] == Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(random: u128) -> TaskId {
        TaskId { partition: 0, random }
    }

    #[test]
    fn what_got_no_answer_is_sent_again_and_what_was_refused_too() {
        let mut ledger = Submissions::new(4);
        let sent: Vec<_> = std::iter::from_fn(|| ledger.next()).collect();
        assert_eq!(sent, [0, 1, 2, 3]);
        ledger.accepted(0, id(10));
        ledger.refused(1);
        assert_eq!((ledger.next(), ledger.under_way()), (Some(1), 3));
        ledger.lost();
        assert_eq!((ledger.resubmitted, ledger.repeated), (3, 1));
        let again: BTreeSet<_> = std::iter::from_fn(|| ledger.next()).collect();
        assert_eq!(again, BTreeSet::from([0, 1, 2, 3]), "the acknowledged one is repeated too");
        ledger.accepted(0, id(10));
        (1..4).for_each(|number| ledger.accepted(number, id(number.into())));
        assert!(ledger.is_complete());
        assert_eq!((ledger.acknowledged(), ledger.keys_broken), (4, 0));
        assert_eq!(ledger.id(0), Some(id(10)));
    }

    #[test]
    fn a_key_that_becomes_another_task_is_counted() {
        let mut ledger = Submissions::new(1);
        ledger.next();
        ledger.accepted(0, id(1));
        ledger.lost();
        assert_eq!(ledger.next(), Some(0));
        ledger.accepted(0, id(2));
        assert_eq!((ledger.keys_broken, ledger.id(0)), (1, Some(id(1))));
    }

    #[test]
    fn second_ends_and_second_tasks_are_counted() {
        let mut runs = Runs::new(2);
        runs.ran(0, id(1));
        runs.ran(0, id(1));
        runs.ended(0);
        assert_eq!((runs.executions, runs.ended_twice(), runs.doubled), (2, 0, 0));
        runs.ended(0);
        runs.ran(1, id(5));
        runs.ran(1, id(6));
        assert_eq!((runs.ended_twice(), runs.doubled), (1, 1));
        assert!(runs.ran_as(1, id(6)) && !runs.ran_as(1, id(5)));
    }
}
