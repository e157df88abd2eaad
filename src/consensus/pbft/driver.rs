//! All groups of a node, and the clock that they share.

use super::{
    batch::Batch,
    company::Company,
    credit::Credit,
    group::{Group, Settings, Status},
    members::{Members, NotMembers},
    message::Message,
    outputs::{Answer, Dropped, Letter, Write},
    restore::{Broken, Restore},
};
use crate::consensus::{
    engine::{self, Duty, Fetch, Refused},
    place::Place,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// What comes out of a driver.
pub type Outputs = engine::Outputs<Letter, Write>;

/// Partitions at most.
pub const PARTITIONS_MAX: usize = 1024;
/// Ticks that count when the caller comes late: what arrived meanwhile is to be looked at before
/// anybody concludes that a primary is gone.
const TICKS_AT_ONCE: u64 = 2;

/// Bytes that are read for members in a tick, when there are so many: one read may be more.
const READ_BYTES_A_TICK: usize = 4 << 20;

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
    /// The nodes cannot agree.
    #[error(transparent)]
    Members(#[from] NotMembers),
    /// Settings that cannot be.
    #[error("a checkpoint is made each 1 to 512 entries, and a tick takes a millisecond or more")]
    Settings,
}

/// A batch of writes that is not on the disk, and what waits for it.
#[derive(Clone, Debug)]
struct Waits {
    number: u64,
    groups: Vec<(u16, u64)>,
}

/// All groups of a node.
#[derive(Clone, Debug)]
pub struct Driver {
    groups: Vec<Group>,
    tick_ms: u64,
    /// Time in which this driver was heard.
    now_ms: u64,
    last_tick_ms: Option<u64>,
    waits: VecDeque<Waits>,
    last_batch: u64,
    /// What members may still have verified.
    credit: Credit,
    /// Bytes that may still be read for members before the next tick.
    read_bytes: usize,
    /// The partition whose members are answered first, so that each has its turn.
    first: usize,
}

impl Driver {
    /// A driver of the groups that were read back, in the order of their partitions.
    ///
    /// # Errors
    /// When they are not whole, or not all there.
    pub fn new(settings: Settings, company: &Company, groups: Vec<Restore>) -> Result<Self, Unfit> {
        let Company { node, ring, nodes, .. } = company;
        let partitions = groups.len();
        let is_row =
            groups.iter().enumerate().all(|(at, group)| usize::from(group.partition()) == at);
        if !is_row || !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(Unfit::Partitions);
        }
        let is_possible = (1..=512).contains(&settings.checkpoint_every)
            && settings.timing.tick_ms > 0
            && settings.pipeline > 0;
        if !is_possible {
            return Err(Unfit::Settings);
        }
        if let Some(stranger) = nodes.iter().find(|node| !ring.knows(**node)) {
            return Err(NotMembers::Key(*stranger).into());
        }
        if !nodes.contains(node) {
            return Err(NotMembers::Node(*node).into());
        }
        let mut share = settings;
        share.limits.cache_bytes /= partitions;
        share.limits.proposals = (share.limits.proposals / partitions).max(1);
        share.limits.proposal_bytes /= partitions;
        let group = |restore: Restore| {
            let partition = restore.partition();
            let members = Members::new(partition, nodes)?;
            Group::new(*node, members, company.keys(partition), share, restore)
                .map_err(|broken| Unfit::Broken { partition, broken })
        };
        Ok(Self {
            groups: groups.into_iter().map(group).collect::<Result<_, _>>()?,
            tick_ms: settings.timing.tick_ms,
            now_ms: 0,
            last_tick_ms: None,
            waits: VecDeque::new(),
            last_batch: 0,
            credit: Credit::new(&settings, nodes, partitions),
            read_bytes: READ_BYTES_A_TICK,
            first: 0,
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

    /// Asks for a block to be appended, whoever is the primary; [`Driver::take_answers`] tells when
    /// it was.
    ///
    /// # Errors
    /// When too much is under way.
    pub fn request(&mut self, partition: u16, data: Bytes, ticket: u64) -> Result<(), Refused> {
        let group = self.group_mut(partition).ok_or(Refused::NotLeader { leader: None })?;
        group.request(data, ticket)
    }

    /// Takes the requests of this node that are finished.
    pub fn take_answers(&mut self) -> Vec<(u16, Answer)> {
        let mut answers = Vec::new();
        for group in &mut self.groups {
            let partition = group.partition();
            answers.extend(group.take_answers().into_iter().map(|answer| (partition, answer)));
        }
        answers
    }

    /// Takes a message; the link knows who sent it.
    ///
    /// # Errors
    /// When it is dropped, and why.
    pub fn step(&mut self, partition: u16, from: u64, message: Message) -> Result<(), Dropped> {
        let (is_proof, now_ms) = (message.is_proof(), self.now_ms);
        if is_proof && !self.credit.has(from, now_ms) {
            return Err(Dropped::Full);
        }
        let read_bytes = self.read_bytes;
        let group = self.group_mut(partition).ok_or(Dropped::Partition)?;
        let before = group.verified();
        group.read_bytes = read_bytes;
        let taken = group.step(from, message);
        let (verified, read_bytes) = (group.verified() - before, group.read_bytes);
        self.read_bytes = read_bytes;
        if is_proof {
            self.credit.spend(from, verified, now_ms);
        }
        taken
    }

    /// Tells the time, from any beginning.
    pub fn advance(&mut self, now_ms: u64) {
        let last = *self.last_tick_ms.get_or_insert(now_ms);
        let ticks = now_ms.saturating_sub(last) / self.tick_ms;
        if ticks == 0 {
            return;
        }
        self.last_tick_ms = Some(last + ticks * self.tick_ms);
        self.now_ms += ticks.min(TICKS_AT_ONCE) * self.tick_ms;
        self.read_bytes = READ_BYTES_A_TICK;
        let (count, first) = (self.groups.len(), self.first);
        for at in (first..first + count).map(|at| at % count) {
            let is_spent = self.read_bytes == 0;
            let group = &mut self.groups[at];
            group.read_bytes = self.read_bytes;
            group.tick(self.now_ms);
            self.read_bytes = group.read_bytes;
            if self.read_bytes == 0 && !is_spent {
                self.first = (at + 1) % count;
            }
        }
    }

    /// When [`Driver::advance`] has something to do.
    pub fn next_tick_ms(&self) -> Option<u64> {
        self.last_tick_ms.map(|last| last + self.tick_ms)
    }

    /// Asks to be told when everything that is committed now was told.
    ///
    /// # Errors
    /// When this node does not lead the partition, or too many reads wait.
    pub fn read(&mut self, partition: u16, context: u64) -> Result<(), Refused> {
        let group = self.group_mut(partition).ok_or(Refused::NotLeader { leader: None })?;
        group.read(context)
    }

    /// Gives up a partition that this node is the primary of: the next one takes over at once.
    pub fn abdicate(&mut self, partition: u16) {
        if let Some(group) = self.group_mut(partition) {
            group.abdicate();
        }
    }

    /// A member orders an entry in a view of a partition, whatever becomes of that here.
    pub fn hear_order(&mut self, partition: u16, from: u64, view: u64, seq: u64) {
        if let Some(group) = self.group_mut(partition) {
            group.hear_order(from, view, seq);
        }
    }

    /// Tells the oldest thing that the primary of a partition owes, of which the service has the proof.
    pub fn owed(&mut self, partition: u16, duty: Option<Duty>) {
        if let Some(group) = self.group_mut(partition) {
            group.owed(duty);
        }
    }

    /// These clients alone may ask for nothing of a partition now, and what those others ask for is not
    /// waited for.
    pub fn crowd(&mut self, partition: u16, refused: Vec<u64>, unawaited: Vec<u64>) {
        if let Some(group) = self.group_mut(partition) {
            group.crowd(refused, unawaited);
        }
    }

    /// Forgets no more of a partition's entries than it has, of what it was told until now.
    pub fn keep(&mut self, partition: u16) {
        if let Some(group) = self.group_mut(partition) {
            group.keep();
        }
    }

    /// Forgets a partition's entries up to an index, at most those up to its stable checkpoint; the
    /// rest when that has moved.
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

    /// Answers a fetch; `None` when the entries cannot be read.
    pub fn fetched(&mut self, partition: u16, id: u64, batches: Option<Vec<Batch>>) {
        if let Some(group) = self.group_mut(partition) {
            group.fetched(id, batches);
        }
    }

    /// The writes of all batches up to this one are on the disk.
    pub fn persisted(&mut self, batch: u64) {
        while self.waits.front().is_some_and(|first| first.number <= batch)
            && let Some(Waits { groups, .. }) = self.waits.pop_front()
        {
            for (partition, number) in groups {
                self.groups[usize::from(partition)].persisted(number);
            }
        }
    }

    /// Whether [`Driver::take_ready`] would find something.
    pub fn has_ready(&self) -> bool {
        self.groups.iter().any(Group::has_ready)
    }

    /// Takes everything that is to be done, instead of what `outputs` held.
    pub fn take_ready(&mut self, outputs: &mut Outputs) {
        outputs.clear();
        let mut waits = Vec::new();
        for group in &mut self.groups {
            if !group.has_ready() {
                continue;
            }
            let partition = group.partition();
            let ready = group.take_ready();
            waits.extend(ready.wait.map(|number| (partition, number)));
            outputs.messages.extend(ready.letters.into_iter().map(|it| (partition, it)));
            outputs.writes.extend(ready.writes.into_iter().map(|it| (partition, it)));
            outputs.events.extend(ready.events.into_iter().map(|it| (partition, it)));
            let fetches = ready.fetches.into_iter();
            outputs.fetches.extend(fetches.map(|(id, first, entries)| Fetch {
                partition,
                id,
                first,
                entries,
            }));
        }
        if !outputs.writes.is_empty() {
            self.last_batch += 1;
        }
        if !waits.is_empty() {
            // What waits without writes of its own waits for the last ones.
            self.waits.push_back(Waits { number: self.last_batch, groups: waits });
        }
        outputs.batch = self.last_batch;
    }

    /// Signatures that were verified.
    pub fn verified(&self) -> u64 {
        self.groups.iter().map(Group::verified).sum()
    }
}
