//! One partition of pattern memory on its core: what it waits for, and its checkpoints.

use crate::{
    memory::store::{Checkpoint, Job, Partition},
    wire::memory::{MemoryPartition, PartitionReport},
};
use std::{io, time::Instant};

/// Namespaces that one step adds to a report.
const NAMESPACES_A_STEP: usize = 256;

/// A partition, and what it waits for.
pub(super) struct Kept {
    pub(super) partition: Partition,
    pub(super) applying_waits: bool,
    pub(super) moving_waits: bool,
    pub(super) looking_waits: bool,
    pub(super) tidying_waits: bool,
    /// The last step of moving came further.
    pub(super) is_moving: bool,
    /// The checkpoint that is being written.
    checkpoint: Option<Checkpoint>,
    /// A part of it is on its way to the disk.
    is_saving: bool,
    saved_at: Option<Instant>,
}

impl Kept {
    /// A partition for which nothing is under way.
    pub(super) fn new(partition: Partition) -> Self {
        Self {
            partition,
            applying_waits: false,
            moving_waits: false,
            looking_waits: false,
            tidying_waits: false,
            is_moving: false,
            checkpoint: None,
            is_saving: false,
            saved_at: None,
        }
    }

    /// Whether another step would find something to do.
    pub(super) fn has_work(&self) -> bool {
        let moves = self.is_moving && !self.moving_waits;
        let saves = self.checkpoint.is_some() && !self.is_saving;
        let looks = self.partition.is_looking() && !self.looking_waits;
        let tidies = self.partition.has_to_tidy() && !self.tidying_waits;
        moves || saves || looks || tidies || !self.applying_waits && self.partition.has_work()
    }

    /// Goes on with a checkpoint by a step, or begins one when it is time; a part for the disk. False
    /// when there is nothing to do.
    pub(super) fn save(&mut self, jobs: &mut Vec<Job>) -> bool {
        if self.is_saving {
            return false;
        }
        if self.checkpoint.is_none() && self.partition.should_save() {
            self.checkpoint = Some(Checkpoint::begin(&mut self.partition));
        }
        let Some(checkpoint) = &mut self.checkpoint else { return false };
        if let Some(job) = checkpoint.step(&mut self.partition) {
            self.is_saving = true;
            jobs.push(job);
        }
        true
    }

    /// A part of a checkpoint is on the disk, or cannot be written: then there is none.
    pub(super) fn saved(&mut self, result: io::Result<Vec<u8>>) {
        self.is_saving = false;
        let Some(mut checkpoint) = self.checkpoint.take() else { return };
        match result {
            Ok(_) if checkpoint.is_ended() => {
                self.partition.saved(&checkpoint);
                self.saved_at = Some(Instant::now());
            }
            Ok(buffer) => {
                checkpoint.reuse(buffer);
                self.checkpoint = Some(checkpoint);
            }
            Err(error) => {
                tracing::error!(%error, "a checkpoint of pattern memory cannot be written");
                self.partition.give_up(&checkpoint);
            }
        }
    }

    /// Adds the next namespaces to a report, from a number on; the number to go on from.
    pub(super) fn add_namespaces(
        &self,
        report: &mut PartitionReport,
        from: usize,
    ) -> Option<usize> {
        let namespaces = &self.partition.table().namespaces;
        let mut last = None;
        for (number, name) in namespaces.numbered(from).take(NAMESPACES_A_STEP) {
            report.namespaces.push((name.to_owned(), namespaces.count(number)));
            last = Some(usize::from(number));
        }
        last.map(|last| last + 1)
    }

    /// How the partition does, but for a sample of its searches and for its namespaces, which may be many.
    pub(super) fn report(&self) -> PartitionReport {
        let partition = &self.partition;
        let (stats, damages) = (partition.index().stats(), partition.damages());
        let lost = damages.lost();
        PartitionReport {
            partition: MemoryPartition {
                count: partition.len() as u64,
                dead: stats.dead as u64,
                unlinked: partition.index().late() as u64,
                bytes_resident: partition.bytes() as u64,
                bytes_on_disk: partition.bytes_on_disk(),
                changes_since_checkpoint: partition.changes(),
                checkpoint_age_s: self.saved_at.map(|at| at.elapsed().as_secs()),
            },
            namespaces: Vec::new(),
            sample: (0, 0, 0),
            damaged: damages.told.iter().map(ToString::to_string).collect(),
            damaged_count: damages.count,
            lost: damages.lost_told().map(ToString::to_string).collect(),
            lost_count: lost.items,
            lost_unnamed_count: lost.unnamed,
            lost_more: lost.is_least,
        }
    }
}
