//! Builds the replicas again from the blocks of a survey, and hands on what is committed.
//!
//! Invariants worth naming
//! - Of what was written at an index, the last block before it is said to be committed is the one
//!   that is handed on.

use super::{body::split, tokens::reserved};
use crate::{
    consensus::{
        damage::Damage,
        format::BlockKind,
        group::StoredBlock,
        pbft::{Noted, Restore, driver::PARTITIONS_MAX, restore::Broken},
        place::Place,
        recovery::{Recover, Replayed, hand_on_records},
    },
    wire::id::PartitionIndex,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Takes the blocks of a survey.
pub struct Recovery<'a> {
    checkpoint_every: u64,
    partitions: Vec<Partition>,
    hand_on: &'a mut dyn FnMut(Replayed<'_>),
}

/// What is known of a partition.
pub struct Restored {
    pub(super) restore: Restore,
    /// Fencing tokens below it were reserved, as far as the log says.
    pub(super) reserved: Option<u64>,
}

impl Restored {
    /// The last entry that is known to be committed.
    pub fn committed(&self) -> u64 {
        self.restore.committed()
    }
}

struct Partition {
    restore: Restore,
    reserved: Option<u64>,
    /// What was written last at each index that is not known to be committed, and where.
    waiting: BTreeMap<u64, (Place, Bytes)>,
    /// Committed entries up to this index were handed on, or are not needed.
    told: u64,
}

impl<'a> Recovery<'a> {
    /// A recovery of replicas that make a checkpoint after so many entries.
    pub fn new(checkpoint_every: u64, hand_on: &'a mut dyn FnMut(Replayed<'_>)) -> Self {
        Self { checkpoint_every, partitions: Vec::new(), hand_on }
    }

    fn grow_to(&mut self, count: usize) {
        while self.partitions.len() < count {
            let index = self.partitions.len() as PartitionIndex;
            let restore = Restore::new(index, self.checkpoint_every);
            let waiting = BTreeMap::new();
            self.partitions.push(Partition { restore, reserved: None, waiting, told: 0 });
        }
    }
}

impl Recover for Recovery<'_> {
    type Restore = Restored;

    fn take(&mut self, place: Place, block: &StoredBlock<'_>) -> Result<(), Damage> {
        let partition = block.head.partition;
        if usize::from(partition) >= PARTITIONS_MAX {
            return Err(Damage::BlockHead);
        }
        self.grow_to(usize::from(partition) + 1);
        let of = &mut self.partitions[usize::from(partition)];
        let broken = |broken: Broken| Damage::Agreed { partition, broken };
        let body = Bytes::copy_from_slice(block.body());
        match block.head.kind {
            BlockKind::Records => {
                let index = block.head.index;
                let (heads, data) = split(&body).ok_or(Damage::BlockBody)?;
                of.restore.entry(index, heads, data.clone(), place).map_err(broken)?;
                if index > of.told {
                    of.waiting.insert(index, (place, data));
                }
                Ok(())
            }
            BlockKind::Note => match of.restore.note(&body).map_err(broken)? {
                Noted::Committed(upto) => of.commit(upto, partition, self.hand_on),
                // What was committed before is handed on all the same: that it was may be said behind this.
                Noted::Nothing | Noted::Compacted(_) => Ok(()),
                Noted::Installed(index) => {
                    of.told = 0;
                    of.forget(index);
                    (self.hand_on)(Replayed::Anew(partition));
                    Ok(())
                }
            },
            // Another engine wrote this log.
            BlockKind::Change
            | BlockKind::HardState
            | BlockKind::Compacted
            | BlockKind::Installed => Err(Damage::BlockHead),
        }
    }

    fn finish(mut self, partitions: PartitionIndex) -> Vec<Restored> {
        self.grow_to(partitions.into());
        let restored = |Partition { restore, reserved, .. }| Restored { restore, reserved };
        self.partitions.into_iter().map(restored).collect()
    }
}

impl Partition {
    fn commit(
        &mut self,
        upto: u64,
        partition: PartitionIndex,
        hand_on: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(), Damage> {
        let rest = self.waiting.split_off(&(upto + 1));
        for (place, data) in std::mem::replace(&mut self.waiting, rest).into_values() {
            hand_on_records(place, partition, &data, hand_on)?;
            self.reserved = self.reserved.max(reserved(&data));
        }
        self.told = self.told.max(upto);
        Ok(())
    }

    /// What lies up to an entry is not needed any more.
    fn forget(&mut self, upto: u64) {
        self.waiting = self.waiting.split_off(&(upto + 1));
        self.told = self.told.max(upto);
    }
}
