//! Builds the partitions' logs again from the blocks of a survey, and hands on what is committed.
//!
//! Invariants worth naming
//! - Only committed entries are handed on, each partition's in their order, once.
//! - What one replica alone holds is committed when it is on the disk. Behind a change of the
//!   membership, committed or not, only the commit index tells what is: the change may have given
//!   others a vote.

use super::{
    damage::Damage,
    format::{BLOCK_HEAD_BYTES, BlockKind},
    group::StoredBlock,
    news::each_and_next,
    peers::NodeId,
    place::Place,
    raft::{
        Point, Restore, Stored, blocks::decode_hard_state, driver::PARTITIONS_MAX,
        message::decode_point, restore::Broken,
    },
    record::Record,
};
use crate::{
    planted::{self, Bug},
    wire::id::PartitionIndex,
};
use std::collections::VecDeque;

/// What a log says of its partitions, in the order in which it was committed.
pub enum Replayed<'a> {
    /// A record of a partition, where it lies, and whether the one behind says that its task is over
    /// ([`Record::is_over`]).
    Record(Place, PartitionIndex, Record<'a>, bool),
    /// What was said of a partition is to be forgotten: its log was replaced.
    Anew(PartitionIndex),
}

/// Builds the groups of a node again, whatever engine they are of.
pub trait Recover {
    /// What a group goes on with.
    type Restore;

    /// Takes a block.
    ///
    /// # Errors
    /// When it cannot follow the blocks before.
    fn take(&mut self, place: Place, block: &StoredBlock<'_>) -> Result<(), Damage>;

    /// The groups of at least so many partitions, to go on with.
    fn finish(self, partitions: PartitionIndex) -> Vec<Self::Restore>;
}

/// Takes the blocks of a survey.
pub struct Recovery<'a> {
    node: NodeId,
    /// There will never be another member: where the log's first part was freed, and the point is
    /// not known yet, what is written is committed all the same.
    is_alone: bool,
    voters: Vec<NodeId>,
    partitions: Vec<Partition>,
    hand_on: &'a mut dyn FnMut(Replayed<'_>),
}

struct Partition {
    index: PartitionIndex,
    restore: Restore,
    /// Entries that are not known to be committed, in a row.
    waiting: VecDeque<Waiting>,
    /// Committed entries up to this index were handed on.
    told: u64,
}

struct Waiting {
    index: u64,
    place: Place,
    body: Vec<u8>,
    is_records: bool,
}

impl<'a> Recovery<'a> {
    /// A recovery of a node's partitions, which begin their life with these voters.
    pub fn new(node: NodeId, voters: &[NodeId], hand_on: &'a mut dyn FnMut(Replayed<'_>)) -> Self {
        let (is_alone, voters) = (false, voters.to_vec());
        Self { node, is_alone, voters, partitions: Vec::new(), hand_on }
    }

    /// A recovery of a node that has no others and never will.
    pub fn alone(node: NodeId, hand_on: &'a mut dyn FnMut(Replayed<'_>)) -> Self {
        Self { is_alone: true, ..Self::new(node, &[node], hand_on) }
    }
}

impl Recover for Recovery<'_> {
    type Restore = Restore;

    fn take(&mut self, place: Place, block: &StoredBlock<'_>) -> Result<(), Damage> {
        let index = block.head.partition;
        if usize::from(index) >= PARTITIONS_MAX {
            return Err(Damage::BlockHead);
        }
        while self.partitions.len() <= usize::from(index) {
            self.partitions.push(Partition::new(self.partitions.len() as u16, &self.voters));
        }
        let partition = &mut self.partitions[usize::from(index)];
        let broken = |broken| Damage::Entries { partition: index, broken };
        let body = block.body();
        match block.head.kind {
            BlockKind::Records | BlockKind::Change => {
                let is_records = block.head.kind == BlockKind::Records;
                partition.entry(place, block, is_records).map_err(broken)?;
                if !partition.restore.is_alone(self.node).unwrap_or(self.is_alone) {
                    partition.wait_for_commit(place, block, is_records);
                    return Ok(());
                }
                partition.commit(block.head.index, self.hand_on)?;
                partition.told = block.head.index;
                if is_records {
                    hand_on_records(place, index, body, self.hand_on)?;
                }
            }
            BlockKind::HardState => {
                let state = decode_hard_state(body).ok_or(Damage::BlockBody)?;
                partition.restore.hard_state(state);
                partition.commit(state.commit, self.hand_on)?;
            }
            BlockKind::Compacted | BlockKind::Installed => {
                let point = decode_point(body).map_err(|_| Damage::BlockBody)?;
                let is_new = block.head.kind == BlockKind::Installed;
                partition.point(point, is_new, self.hand_on).map_err(broken)?;
            }
            // Another engine wrote this log.
            BlockKind::Note => return Err(Damage::BlockHead),
        }
        Ok(())
    }

    fn finish(mut self, partitions: PartitionIndex) -> Vec<Restore> {
        while self.partitions.len() < usize::from(partitions) {
            self.partitions.push(Partition::new(self.partitions.len() as u16, &self.voters));
        }
        let finish = |mut partition: Partition| {
            partition.restore.told(partition.told);
            partition.restore
        };
        self.partitions.into_iter().map(finish).collect()
    }
}

impl Partition {
    fn new(index: PartitionIndex, voters: &[u64]) -> Self {
        let restore = match voters {
            [] => Restore::empty(index),
            voters => Restore::with_voters(index, voters),
        };
        Self { index, restore, waiting: VecDeque::new(), told: 0 }
    }

    fn entry(
        &mut self,
        place: Place,
        block: &StoredBlock<'_>,
        is_records: bool,
    ) -> Result<(), Broken> {
        let (index, body) = (block.head.index, block.body());
        let stored = Stored { place, bytes: body.len() as u32 };
        self.restore.entry(index, block.head.term, stored, (!is_records).then_some(body))?;
        while self.waiting.back().is_some_and(|last| last.index >= index)
            && !planted::has(Bug::DroppedTruncation)
        {
            self.waiting.pop_back();
        }
        Ok(())
    }

    /// Keeps an entry until it is known to be committed.
    fn wait_for_commit(&mut self, place: Place, block: &StoredBlock<'_>, is_records: bool) {
        let (index, body) = (block.head.index, block.body().to_vec());
        self.waiting.push_back(Waiting { index, place, body, is_records });
    }

    fn commit(&mut self, upto: u64, hand_on: &mut dyn FnMut(Replayed<'_>)) -> Result<(), Damage> {
        while self.waiting.front().is_some_and(|first| first.index <= upto) {
            let Waiting { index, place, body, is_records } =
                self.waiting.pop_front().expect("it was seen");
            self.told = index;
            if is_records {
                hand_on_records(place, self.index, &body, hand_on)?;
            }
        }
        Ok(())
    }

    fn point(
        &mut self,
        point: Point,
        is_new: bool,
        hand_on: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(), Broken> {
        if is_new {
            self.waiting.clear();
            self.told = point.index;
            hand_on(Replayed::Anew(self.index));
            self.restore.installed(point);
            return Ok(());
        }
        self.told = self.told.max(point.index);
        self.restore.compacted(point)
    }
}

/// Hands on what a block says, whether it is committed or not.
///
/// # Errors
/// When its records cannot be read, though their checksums are right.
pub fn replayed(
    place: Place,
    block: &StoredBlock<'_>,
    hand_on: &mut dyn FnMut(Replayed<'_>),
) -> Result<(), Damage> {
    let partition = block.head.partition;
    match block.head.kind {
        BlockKind::Records => hand_on_records(place, partition, block.body(), hand_on),
        BlockKind::Installed => {
            hand_on(Replayed::Anew(partition));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Hands on the records of a body.
///
/// # Errors
/// When they cannot be read, though their checksums are right.
pub(super) fn hand_on_records(
    place: Place,
    partition: PartitionIndex,
    body: &[u8],
    hand_on: &mut dyn FnMut(Replayed<'_>),
) -> Result<(), Damage> {
    each_and_next(body, |at, record, next| {
        let offset = place.offset + (BLOCK_HEAD_BYTES + at) as u32;
        let is_over = record.is_over(next);
        hand_on(Replayed::Record(Place { offset, ..place }, partition, record, is_over));
    })
}
