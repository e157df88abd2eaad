//! Submissions where nodes may lie: this node asks all replicas for them, whoever leads, and tells its
//! submitters what its own replica has committed.
//!
//! Invariants worth naming
//! - Nobody is told that a task is accepted before its record, as it was asked for, was committed here
//!   and became one: what any other node says of it does not matter.
//! - What is asked for has the name that the log gives it, and not the one that its submitter thought of.
//! - What waits has a time, behind which its submitter is told that nobody knows. It is asked for further,
//!   and takes up room until it is committed, unless this replica may never be told of that.

#[cfg(test)]
mod tests;

use super::{
    core::Shard, kernel::Timer, leadership::uncertain, partition::key_conflict,
    submissions::record_of,
};
use crate::{
    planted::{self, Bug},
    task::{Settled, Submission, Watcher},
    wire::{
        api::Error,
        id::{AgentId, PartitionIndex, TaskId},
        letter::NewsKind,
        msgpack::is_one_value,
    },
};
use std::collections::{HashMap, VecDeque};

/// How long a submission waits, ticks of the groups: several primaries may have to be replaced.
const LIMIT_TICKS: u64 = 200;
/// And at least, milliseconds.
const LIMIT_MS_LEAST: u64 = 10_000;

/// How long a submission waits, milliseconds.
pub(super) fn limit_ms(tick_ms: u64) -> u64 {
    LIMIT_MS_LEAST.max(LIMIT_TICKS * tick_ms)
}

/// Who waits for what became of a submission.
#[derive(Debug)]
pub(super) struct Asker {
    submitter: Watcher,
    /// Its place in the submitter's request.
    place: u32,
    /// Whether the submitter wants to hear of the task's end.
    is_watched: bool,
}

impl Asker {
    /// Who is told of the task's end.
    pub(super) fn watcher(&self) -> Option<Watcher> {
        self.is_watched.then_some(self.submitter)
    }
}

/// Who waits for what was asked for.
#[derive(Debug)]
enum Waits {
    /// Somebody does, until its time.
    Asker(Asker),
    /// Nobody does any more: it takes up room until it is committed.
    Nobody,
    /// Nobody, and it may be in what this replica was never told: it takes up room until it is committed, or
    /// until its time.
    Abandoned,
}

/// The submissions of a partition that were asked for here and are not settled.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// By name.
    askers: HashMap<u128, Waits>,
    /// How many of them wait.
    waiting: usize,
    /// When each has waited long enough, oldest first; some are settled.
    times: VecDeque<(u64, u128)>,
    /// A timer is set for the first of them, or for one before.
    is_timed: bool,
}

impl Asking {
    /// How many there are, whether anybody waits for them or not.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.askers.len()
    }

    /// How many somebody waits for.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes out who waits for a submission that is committed: under its name nobody else asks for
    /// anything.
    pub(super) fn take(&mut self, id: TaskId) -> Option<Asker> {
        let Waits::Asker(asker) = self.askers.remove(&id.random)? else { return None };
        self.waiting -= 1;
        Some(asker)
    }

    /// Somebody waits for what has a name until a time; whether a timer is wanted for that.
    fn push(&mut self, TaskId { random, .. }: TaskId, until_ms: u64, asker: Asker) -> bool {
        self.forget_settled();
        if self.askers.insert(random, Waits::Asker(asker)).is_none() {
            self.waiting += 1;
        }
        self.times.push_back((until_ms, random));
        !std::mem::replace(&mut self.is_timed, true)
    }

    fn forget_settled(&mut self) {
        while self.times.front().is_some_and(|(_, random)| !self.askers.contains_key(random)) {
            self.times.pop_front();
        }
    }

    /// Takes out who has waited long enough at a time.
    fn expire(&mut self, now_ms: u64) -> Option<(u128, Asker)> {
        loop {
            self.forget_settled();
            let (until_ms, random) = self.times.front().copied()?;
            if until_ms > now_ms {
                return None;
            }
            self.times.pop_front();
            match self.askers.insert(random, Waits::Nobody) {
                Some(Waits::Asker(asker)) => {
                    self.waiting -= 1;
                    return Some((random, asker));
                }
                _ => drop(self.askers.remove(&random)),
            }
        }
    }

    /// When the next one has waited long enough, milliseconds: a timer is to be set for that.
    fn next_ms(&mut self) -> Option<u64> {
        let next_ms = self.times.front().map(|(until_ms, _)| *until_ms);
        self.is_timed = next_ms.is_some();
        next_ms
    }

    /// Takes out all who wait. What they wait for takes up room for as long as they would have waited;
    /// what was late already does no more.
    fn abandon(&mut self) -> Vec<(u128, Asker)> {
        self.waiting = 0;
        let mut abandoned = Vec::new();
        self.askers.retain(|random, waits| match std::mem::replace(waits, Waits::Abandoned) {
            Waits::Asker(asker) => {
                abandoned.push((*random, asker));
                true
            }
            Waits::Nobody => false,
            Waits::Abandoned => true,
        });
        abandoned
    }
}

impl Shard {
    /// Asks all replicas of a partition for a submission, or tells why not.
    pub(super) fn ask_for(
        &mut self,
        index: PartitionIndex,
        place: u32,
        submitter: Watcher,
        submission: &Submission<'_>,
    ) {
        let now_ms = self.kernel.now_ms();
        let until_ms = now_ms + self.kernel.ask_limit_ms;
        let id = TaskId { partition: index, random: submission.random };
        let partition = self.tasks.of(index);
        let may = match is_one_value(submission.payload) {
            true => partition.may_ask(now_ms, submission),
            // Other nodes would take nothing that is asked for together with it.
            false => {
                partition.table.release(u32::from(submission.reserved) as usize);
                Err(Error::Invalid("payload: it is not one MessagePack value".into()))
            }
        };
        match may {
            Ok(None) => {
                let agent_type = &self.kernel.types.get(submission.type_index).name;
                let unix_ms = partition.ledger.unix_ms(now_ms);
                let record = record_of(submission, id, agent_type, unix_ms, true);
                let is_watched = submission.watcher.is_some();
                let asker = Asker { submitter, place, is_watched };
                let id = partition.ledger.ask(record);
                let is_early = planted::has(Bug::EarlyAcknowledgement);
                if !is_early && partition.asking.push(id, until_ms, asker) {
                    self.kernel.wheel.insert(until_ms, Timer::Asked(index));
                }
                if is_early {
                    self.tell_briefly(submitter, id, NewsKind::Accepted, place);
                }
            }
            // This replica has committed it.
            Ok(Some(random)) => {
                let known = TaskId { partition: index, random };
                self.tell_briefly(submitter, known, NewsKind::Accepted, place);
            }
            Err(error) => self.refuse(submitter, id, place, &error),
        }
    }

    /// Tells a submitter what became of a submission that is committed.
    pub(super) fn tell_settled(
        &mut self,
        place: usize,
        (asker, id, settled): (Asker, TaskId, Settled),
    ) {
        let Asker { submitter, place: at, is_watched, .. } = asker;
        let leads = self.tasks.partitions[place].check_leading().is_ok();
        match settled {
            // It will be done, and whoever leads tells nobody of another node how it ends.
            Settled::New if is_watched && !leads => {
                let untold =
                    "it is accepted, and another node leads, which does not tell how it ends";
                self.refuse(submitter, id, at, &Error::Uncertain(untold.into()));
            }
            // An agent hears of refusals and ends alone.
            Settled::New if !Self::is_door(AgentId::from_bits(submitter.target)) => {}
            Settled::New => self.tell_briefly(submitter, id, NewsKind::Accepted, at),
            Settled::Existing(random) => {
                let known = TaskId { random, ..id };
                self.tell_briefly(submitter, known, NewsKind::Accepted, at);
            }
            Settled::Conflict => self.refuse(submitter, id, at, &key_conflict()),
        }
    }

    /// Tells those who have waited long enough that nobody knows.
    pub(super) fn asked_for_long(&mut self, index: PartitionIndex) {
        let now_ms = self.kernel.now_ms();
        while let Some((random, asker)) = self.tasks.of(index).asking.expire(now_ms) {
            let late = "it was not agreed on in time: it may be yet, or not";
            let id = TaskId { partition: index, random };
            self.refuse(asker.submitter, id, asker.place, &Error::Uncertain(late.into()));
        }
        if let Some(next_ms) = self.tasks.of(index).asking.next_ms() {
            self.kernel.wheel.insert(next_ms, Timer::Asked(index));
        }
    }

    /// The log was replaced: what was asked for may be in what this replica was never told.
    pub(super) fn abandon_asked(&mut self, place: usize) {
        let partition = &mut self.tasks.partitions[place];
        let index = partition.table.partition();
        for (random, asker) in partition.asking.abandon() {
            let id = TaskId { partition: index, random };
            self.refuse(asker.submitter, id, asker.place, &uncertain());
        }
    }
}
