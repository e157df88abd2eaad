//! All groups of a node, and the clock that they share.

use super::{
    balance::{self, Balance},
    group::{Group, Limits, Refused, Status},
    guard::Dropped,
    membership::{Change, ChangeRefused},
    outputs::Outputs,
    restore::{Broken, Restore},
};
use crate::consensus::place::Place;
use bytes::Bytes;
use raft::eraftpb::Message;
use std::collections::VecDeque;

/// Partitions at most: a node that is alone has one for each worker core.
pub const PARTITIONS_MAX: usize = 1024;
/// Ticks that count when the caller comes late: what arrived meanwhile is to be looked at before
/// anybody concludes that a leader is gone.
const TICKS_AT_ONCE: u64 = 2;
/// Ticks after which commit indexes are written without anything else.
const COMMIT_TICKS: u64 = 10;

/// What a driver is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node; not 0.
    pub node: u64,
    /// What the waits before elections follow from; nodes may have the same.
    pub seed: u64,
    /// Milliseconds of a tick. Without a leader for [`super::group::ELECTION_TICKS`] to twice as
    /// many, a replica stands for election.
    pub tick_ms: u64,
    /// Bounds of all groups together.
    pub limits: Limits,
    /// Leaders are spread over the nodes, and learners that caught up are promoted.
    pub balance: bool,
}

/// A driver cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// What was read back of a partition is no log.
    #[error("partition {partition}: {broken}")]
    Broken {
        /// The partition.
        partition: u16,
        /// What is wrong.
        broken: Broken,
    },
    /// The partitions are not 0, 1, 2, and so on up to a bound.
    #[error("partitions count from 0 without a gap, and there are 1 to {PARTITIONS_MAX}")]
    Partitions,
    /// The node's number is 0.
    #[error("a node's number is not 0")]
    Node,
}

/// A batch of writes that is not on the disk, and the rounds that wait for it.
#[derive(Debug)]
struct Batch {
    number: u64,
    waits: Vec<(u16, u64)>,
}

/// All groups of a node.
pub struct Driver {
    groups: Vec<Group>,
    balance: Option<Balance>,
    tick_ms: u64,
    /// Ticks that have passed.
    now: u64,
    last_tick_ms: Option<u64>,
    commits_due: bool,
    /// What [`Driver::persisted`] let out, for the next call of [`Driver::take_ready`].
    outputs: Outputs,
    batches: VecDeque<Batch>,
    last_batch: u64,
}

impl Driver {
    /// A driver of the groups that were read back, in the order of their partitions.
    ///
    /// # Errors
    /// When they are not whole, or not all there.
    pub fn new(settings: Settings, groups: Vec<Restore>) -> Result<Self, Unfit> {
        let Settings { node, seed, tick_ms, limits, balance } = settings;
        let partitions = groups.len();
        if node == 0 {
            return Err(Unfit::Node);
        }
        let is_row =
            groups.iter().enumerate().all(|(at, group)| usize::from(group.partition()) == at);
        if !is_row || !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(Unfit::Partitions);
        }
        let share = Limits {
            cache_bytes: limits.cache_bytes / partitions,
            proposals: limits.proposals / partitions,
            proposal_bytes: limits.proposal_bytes / partitions,
        };
        let groups = groups.into_iter().map(|restore| {
            let partition = restore.partition();
            Group::new(node, seed, share, restore)
                .map_err(|broken| Unfit::Broken { partition, broken })
        });
        Ok(Self {
            groups: groups.collect::<Result<_, _>>()?,
            balance: balance.then(|| Balance::new(partitions)),
            tick_ms: tick_ms.max(1),
            now: 0,
            last_tick_ms: None,
            commits_due: false,
            outputs: Outputs::default(),
            batches: VecDeque::new(),
            last_batch: 0,
        })
    }

    fn group_mut(&mut self, partition: u16) -> Option<&mut Group> {
        self.groups.get_mut(usize::from(partition))
    }

    /// The group of a partition.
    pub fn group(&self, partition: u16) -> Option<&Group> {
        self.groups.get(usize::from(partition))
    }

    /// How a partition is doing.
    pub fn status(&self, partition: u16) -> Option<Status> {
        self.group(partition).map(Group::status)
    }

    /// Proposes a block of records; its fate is told with the ticket.
    ///
    /// # Errors
    /// When it is not taken; its fate is not told then.
    pub fn propose(&mut self, partition: u16, data: Bytes, ticket: u64) -> Result<(), Refused> {
        let group = self.group_mut(partition).ok_or(Refused::NotLeader { leader: None })?;
        group.propose(data, ticket)
    }

    /// Takes a message that a peer sent.
    ///
    /// # Errors
    /// When it is dropped, and why.
    pub fn step(&mut self, partition: u16, message: Message) -> Result<(), Dropped> {
        self.group_mut(partition).ok_or(Dropped::Partition)?.step(message)
    }

    /// Tells the time, from any beginning.
    pub fn advance(&mut self, now_ms: u64) {
        let last = *self.last_tick_ms.get_or_insert(now_ms);
        let ticks = now_ms.saturating_sub(last) / self.tick_ms;
        if ticks == 0 {
            return;
        }
        self.last_tick_ms = Some(last + ticks * self.tick_ms);
        for _ in 0..ticks.min(TICKS_AT_ONCE) {
            self.tick();
        }
    }

    /// When [`Driver::advance`] has something to do.
    pub fn next_tick_ms(&self) -> Option<u64> {
        self.last_tick_ms.map(|last| last + self.tick_ms)
    }

    fn tick(&mut self) {
        self.now += 1;
        for group in &mut self.groups {
            group.tick(self.now);
        }
        self.commits_due |= self.now.is_multiple_of(COMMIT_TICKS);
        if let Some(balance) = &mut self.balance
            && self.now.is_multiple_of(balance::LOOK_TICKS)
        {
            self.groups.iter_mut().for_each(Group::promote);
            balance.look(self.now, &mut self.groups);
        }
    }

    /// Begins to hand a partition over.
    ///
    /// # Errors
    /// When this node does not lead it.
    pub fn transfer(&mut self, partition: u16, to: u64) -> Result<(), Refused> {
        let group = self.group_mut(partition).ok_or(Refused::NotLeader { leader: None })?;
        group.transfer(to)
    }

    /// Begins a change of a partition's membership.
    ///
    /// # Errors
    /// When it is not allowed now, and why.
    pub fn change(&mut self, partition: u16, change: &Change) -> Result<(), ChangeRefused> {
        let group = self.group_mut(partition).ok_or(ChangeRefused::NotLeader { leader: None })?;
        group.change(change)
    }

    /// Asks to be told when everything that is committed now was told.
    ///
    /// # Errors
    /// When this node does not lead the partition, or too many reads wait.
    pub fn read(&mut self, partition: u16, context: u64) -> Result<(), Refused> {
        let group = self.group_mut(partition).ok_or(Refused::NotLeader { leader: None })?;
        group.read(context)
    }

    /// Forgets a partition's entries up to an index. What they took on the disk may be freed when
    /// the write that follows from this is on it.
    pub fn compact(&mut self, partition: u16, index: u64) {
        if let Some(group) = self.group_mut(partition) {
            group.compact(index);
        }
    }

    /// Writes again what must not be lost beside entries, so that segments that hold nothing else
    /// may be freed when it is on the disk.
    pub fn restate(&mut self) {
        self.groups.iter_mut().for_each(Group::restate);
    }

    /// Tells where an entry was written; before [`Driver::persisted`].
    pub fn placed(&mut self, partition: u16, index: u64, term: u64, place: Place) {
        if let Some(group) = self.group_mut(partition) {
            group.placed(index, term, place);
        }
    }

    /// Answers a fetch; `None` when the entries cannot be read, and they are asked for again.
    pub fn fetched(&mut self, partition: u16, id: u64, data: Option<Vec<Bytes>>) {
        if let Some(group) = self.group_mut(partition) {
            group.fetched(id, data);
        }
    }

    /// A leader's answer to a question of this replica: it is no member of the partition's group, whose
    /// log is applied up to an index there.
    pub fn disown(&mut self, partition: u16, question: u64, applied: u64) {
        if let Some(group) = self.group_mut(partition) {
            group.disown(question, applied);
        }
    }

    /// A peer cannot be reached, or messages to it were dropped.
    pub fn unreachable(&mut self, peer: u64) {
        self.groups.iter_mut().for_each(|group| group.unreachable(peer));
    }

    /// The writes of all batches up to this one are on the disk.
    pub fn persisted(&mut self, batch: u64) {
        while self.batches.front().is_some_and(|first| first.number <= batch) {
            let Batch { waits, .. } = self.batches.pop_front().expect("it was seen");
            for (partition, number) in waits {
                self.groups[usize::from(partition)].persisted(number, &mut self.outputs);
            }
        }
    }

    /// Whether [`Driver::take_ready`] would find something.
    pub fn has_ready(&self) -> bool {
        self.commits_due || !self.outputs.is_empty() || self.groups.iter().any(Group::has_ready)
    }

    /// Takes everything that is to be done, instead of what `outputs` held.
    pub fn take_ready(&mut self, outputs: &mut Outputs) {
        let mut waits = Vec::new();
        for group in &mut self.groups {
            if let Some(number) = group.take_ready(&mut self.outputs) {
                waits.push((group.partition, number));
            }
        }
        if self.commits_due || !self.outputs.writes.is_empty() {
            self.commits_due = false;
            let is_shared = self.balance.is_some();
            for group in &mut self.groups {
                group.write_commit(&mut self.outputs, is_shared);
            }
        }
        if !self.outputs.writes.is_empty() {
            self.last_batch += 1;
            self.batches.push_back(Batch { number: self.last_batch, waits });
        }
        self.outputs.batch = self.last_batch;
        outputs.clear();
        std::mem::swap(outputs, &mut self.outputs);
    }
}
