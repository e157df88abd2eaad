//! The log as a state machine over a [`Disk`]: gathers blocks, writes groups, begins and frees
//! segments.
//!
//! Invariants worth naming
//! - One group is written at a time.
//! - After a write that failed, nothing is written any more.
//! - A segment is used again only after a group is on the disk that says it is not needed.
//! - What is on the disk is bounded: beyond a limit the oldest segments are cleaned, and beyond
//!   twice that submissions are refused. The limit is what the configuration keeps, or an eighth
//!   more than what the last cleaning left, if more lives than that: cleaning a log in which
//!   everything lives would free nothing, for ever.

use super::{
    disk::Disk,
    format::{BlockHead, GroupHead, PAGE_BYTES, SegmentHead},
    group::{GROUP_BYTES_MAX, Group},
    place::Place,
    survey::{End, SegmentState, Survey},
};
use crate::{
    planted::{self, Bug},
    wire::id::PartitionIndex,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// Segments that are made ahead.
const SEGMENTS_AHEAD: usize = 2;
const PAGE: u64 = PAGE_BYTES as u64;
/// The end of a segment is kept for a seal, and for a group that says which segments are free: a
/// log that found no room for that one would be full for ever.
const RESERVED: u64 = 2 * PAGE;

/// Sizes and numbers of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of segments in use beyond which the oldest are cleaned.
    pub keep_bytes: u64,
    /// What a new log says of how many partitions there were when it began.
    pub partitions: PartitionIndex,
}

impl Geometry {
    /// Bytes of the largest record, and of the largest block but for its head: an empty segment
    /// has room for it beside all heads, and for a seal behind it.
    pub const fn record_bytes_max(&self) -> usize {
        (self.segment_bytes as usize).saturating_sub(4 * PAGE_BYTES)
    }
}

/// The log cannot go on: the node must end, and read the log again.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Fatal {
    what: String,
    source: io::Error,
}

impl Fatal {
    pub(super) fn new(what: &str, source: io::Error) -> Self {
        Self { what: what.to_owned(), source }
    }
}

/// Which file holds a generation, and how far it is written; shared with those who read.
#[derive(Clone, Debug, Default)]
pub struct Directory(Arc<Mutex<BTreeMap<u64, Written>>>);

/// What of a file is of its generation.
#[derive(Clone, Copy, Debug)]
struct Written {
    number: u32,
    /// Bytes from the beginning. What is behind them is of an earlier life of the file, and looks
    /// like records.
    bytes: u64,
}

impl Directory {
    /// The number of the segment of a generation; `None` when it is not in use.
    pub fn segment(&self, generation: u64) -> Option<u32> {
        self.map().get(&generation).map(|written| written.number)
    }

    /// How many bytes of a generation's segment are written; `None` when it is not in use. Whoever
    /// asks before a read may believe that much of it.
    pub fn written_bytes(&self, generation: u64) -> Option<u64> {
        self.map().get(&generation).map(|written| written.bytes)
    }

    fn set(&self, generation: u64, number: u32, bytes: u64) {
        self.map().insert(generation, Written { number, bytes });
    }

    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Written>> {
        // Every change is one operation on the map, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work that may take long, for a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Make the segment of this number.
    Make(u32),
    /// Remove the segment of this number.
    Remove(u32),
}

impl Job {
    /// Does it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn run(self, disk: &mut dyn Disk, segment_bytes: u64) -> io::Result<()> {
        match self {
            Self::Make(number) => disk.make(number, segment_bytes),
            Self::Remove(number) => disk.remove(number),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct InUse {
    generation: u64,
    number: u32,
    bytes: u64,
}

/// The log's writing end.
pub struct Writer<D> {
    disk: D,
    geometry: Geometry,
    node: u128,
    partitions: PartitionIndex,
    epoch: u64,
    /// The sequence of the next group.
    sequence: u64,
    /// Segments of the log, oldest first; the last one is written.
    in_use: VecDeque<InUse>,
    /// Where the next group begins in it.
    offset: u64,
    free: BTreeSet<u32>,
    /// Segments that are not needed and to be removed.
    surplus: BTreeSet<u32>,
    job: Option<Job>,
    /// The last try to make a segment failed.
    is_full: bool,
    /// Segments of lower generations hold nothing that lives.
    first_generation: u64,
    /// What the groups on the disk say of it.
    announced: u64,
    /// The generation that the shards move everything out from below; 0 for none.
    moving: u64,
    limit_bytes: u64,
    group: Group,
    /// Whether the last group is a seal.
    is_sealed: bool,
    has_failed: bool,
    directory: Directory,
}

impl<D: Disk> Writer<D> {
    /// Goes on where a survey ended, which found no damage; `node` is the number of a new folder.
    /// The epoch of this open is on the disk when it returns.
    ///
    /// # Errors
    /// The disk refuses, or has no room for a first segment.
    pub fn resume(disk: D, geometry: Geometry, survey: &Survey, node: u128) -> Result<Self, Fatal> {
        assert!(survey.findings.is_empty(), "a damaged log is not written");
        let end = survey.end.unwrap_or(End {
            node,
            epoch: 0,
            first_generation: 1,
            generation: 0,
            sequence: 1,
            partitions: geometry.partitions,
        });
        let mut writer = Self {
            disk,
            geometry,
            node: end.node,
            partitions: end.partitions,
            epoch: end.epoch + 1,
            sequence: end.sequence,
            in_use: VecDeque::new(),
            offset: 0,
            free: BTreeSet::new(),
            surplus: BTreeSet::new(),
            job: None,
            is_full: false,
            first_generation: end.first_generation,
            announced: end.first_generation,
            moving: 0,
            limit_bytes: geometry.keep_bytes,
            group: Group::default(),
            is_sealed: false,
            has_failed: false,
            directory: Directory::default(),
        };
        writer.take_over(survey)?;
        writer.announce()?;
        Ok(writer)
    }

    /// Sorts the segments that were found, and makes the ones that a first write needs.
    fn take_over(&mut self, survey: &Survey) -> Result<(), Fatal> {
        let mut in_use: Vec<_> =
            survey.segments.iter().filter(|found| found.state == SegmentState::InUse).collect();
        in_use.sort_by_key(|found| found.generation);
        for found in &in_use {
            let &&super::survey::SegmentSurvey { generation, number, bytes, .. } = found;
            self.in_use.push_back(InUse { generation, number, bytes });
            self.directory.set(generation, number, found.end);
            self.offset = found.end;
        }
        for found in survey.segments.iter().filter(|found| found.state != SegmentState::InUse) {
            let is_usable = found.bytes == self.geometry.segment_bytes;
            let pool = if is_usable { &mut self.free } else { &mut self.surplus };
            pool.insert(found.number);
        }
        if let Some(&InUse { number, .. }) = self.in_use.back()
            && !planted::has(Bug::UnsyncedStart)
        {
            // What was read may still be in the disk's own cache only.
            let synced = self.disk.sync(number);
            self.checked(synced, "the log cannot be synced")?;
        }
        if self.room() < PAGE && self.free.is_empty() {
            let number = self.unused_number();
            let made = self.disk.make(number, self.geometry.segment_bytes);
            self.checked(made, "a first segment of the log cannot be made")?;
            self.free.insert(number);
        }
        Ok(())
    }

    fn checked(&mut self, result: io::Result<()>, what: &str) -> Result<(), Fatal> {
        result.map_err(|source| {
            self.has_failed = true;
            Fatal { what: what.to_owned(), source }
        })
    }

    /// Takes a block into the next group and tells where it will lie; `None` when it belongs to
    /// the group after that, or must wait for a segment.
    ///
    /// # Errors
    /// A segment could not be begun.
    pub fn offer(&mut self, head: &BlockHead, body: &[u8]) -> Result<Option<Place>, Fatal> {
        assert!(!self.has_failed, "a log that failed is not written");
        let bytes = self.group.padded_bytes_with(head.bytes as usize);
        if !self.group.is_empty() && bytes > GROUP_BYTES_MAX {
            return Ok(None);
        }
        if bytes as u64 + RESERVED > self.room() {
            if !self.group.is_empty() || self.free.is_empty() {
                return Ok(None);
            }
            self.begin_segment()?;
        }
        let offset = (self.offset as usize + self.group.add(head, body)) as u32;
        Ok(Some(Place { generation: self.current().generation, offset }))
    }

    /// Whether there is something to write.
    pub fn has_gathered(&self) -> bool {
        !self.group.is_empty()
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// The disk did not take it: the node must end.
    pub fn write(&mut self) -> Result<(), Fatal> {
        if self.has_gathered() {
            self.write_group()?;
            self.is_sealed = false;
        }
        self.settle();
        Ok(())
    }

    /// Segments below a generation hold nothing that lives.
    pub fn release(&mut self, generation: u64) {
        assert!(generation <= self.current().generation, "the segment that is written is in use");
        self.first_generation = self.first_generation.max(generation);
        if self.moving <= generation {
            self.moving = 0;
        }
        self.settle();
    }

    /// Writes a group without blocks behind the last one, so that damage to that one is told from
    /// a write that was cut off. Does nothing when the segment is full and there is no other.
    ///
    /// # Errors
    /// The disk did not take it: the node must end.
    pub fn seal(&mut self) -> Result<(), Fatal> {
        self.is_sealed = true;
        if self.room() < RESERVED && self.free.is_empty() {
            return Ok(());
        }
        self.write_empty()
    }

    /// Whether the last group is no seal.
    pub fn needs_seal(&self) -> bool {
        !self.is_sealed
    }

    /// Whether segments wait to be free until a group says that they are, and one can: any group
    /// does, [`Writer::announce`] writes one without blocks.
    pub fn needs_announcement(&self) -> bool {
        !self.is_announced() && (self.room() >= PAGE || !self.free.is_empty())
    }

    /// Writes a group for what it says of other segments.
    ///
    /// # Errors
    /// The disk did not take it: the node must end.
    pub fn announce(&mut self) -> Result<(), Fatal> {
        self.write_empty()
    }

    fn is_announced(&self) -> bool {
        self.announced == self.first_generation
    }

    fn write_empty(&mut self) -> Result<(), Fatal> {
        assert!(!self.has_gathered(), "what was gathered is written first");
        if self.room() < PAGE {
            self.begin_segment()?;
        }
        self.write_group()?;
        self.is_sealed = true;
        self.settle();
        Ok(())
    }

    /// Whether submissions may be accepted.
    pub fn has_room(&self) -> bool {
        let is_ahead = !self.free.is_empty()
            || (!self.is_full && self.room() >= self.geometry.segment_bytes / 4);
        is_ahead && self.in_use_bytes() <= 2 * self.limit_bytes
    }

    /// Whether more is in use than so many halves of the limit.
    pub fn is_beyond(&self, halves: u64) -> bool {
        2 * self.in_use_bytes() > halves * self.limit_bytes
    }

    /// The generation that is written.
    pub fn generation(&self) -> u64 {
        self.current().generation
    }

    /// 0, or the generation below which no partition may keep anything that lives.
    pub fn move_before(&self) -> u64 {
        self.moving
    }

    /// The next piece of work for the helper; one at a time.
    pub fn next_job(&mut self) -> Option<Job> {
        if self.job.is_some() {
            return None;
        }
        self.job = if self.free.len() < SEGMENTS_AHEAD {
            Some(Job::Make(self.unused_number()))
        } else {
            self.surplus.first().copied().map(Job::Remove)
        };
        self.job
    }

    /// The helper has done its work, or could not.
    pub fn job_done(&mut self, result: &io::Result<()>) {
        let job = self.job.take().expect("only work that was given out is done");
        match (job, result) {
            (Job::Make(number), Ok(())) => {
                self.free.insert(number);
                self.is_full = false;
            }
            (Job::Make(_), Err(_)) => self.is_full = true,
            (Job::Remove(number), Ok(())) => {
                self.surplus.remove(&number);
            }
            (Job::Remove(_), Err(_)) => {}
        }
    }

    /// Which file holds a generation.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Which open of the log this is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn current(&self) -> InUse {
        *self.in_use.back().expect("a segment was begun before anything is written")
    }

    /// Bytes of all segments in use.
    pub fn in_use_bytes(&self) -> u64 {
        self.in_use.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes that the segment that is written has left.
    fn room(&self) -> u64 {
        self.in_use.back().map_or(0, |current| current.bytes.saturating_sub(self.offset))
    }

    fn unused_number(&self) -> u32 {
        let is_used = |number: &u32| {
            self.free.contains(number)
                || self.surplus.contains(number)
                || self.in_use.iter().any(|segment| segment.number == *number)
        };
        (1..).find(|number| !is_used(number)).expect("there are fewer segments than numbers")
    }

    fn begin_segment(&mut self) -> Result<(), Fatal> {
        let number = self.free.pop_first().expect("the caller saw a free segment");
        let generation =
            self.in_use.back().map_or(self.first_generation, |last| last.generation + 1);
        let bytes = self.geometry.segment_bytes;
        let head = SegmentHead {
            node: self.node,
            generation,
            first_sequence: self.sequence,
            first_generation: self.first_generation,
            epoch: self.epoch,
            bytes,
            partitions: self.partitions,
        };
        let mut page = crate::runtime::disk::AlignedBuffer::new(PAGE_BYTES);
        head.encode(&mut page);
        let written = self.disk.write(number, 0, &page);
        self.checked(written, "a segment of the log cannot be begun")?;
        self.in_use.push_back(InUse { generation, number, bytes });
        self.directory.set(generation, number, PAGE);
        self.offset = PAGE;
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), Fatal> {
        assert!(!self.has_failed, "a log that failed is not written");
        let (current, offset) = (self.current(), self.offset);
        let head = GroupHead {
            generation: current.generation,
            sequence: self.sequence,
            first_generation: self.first_generation,
            epoch: self.epoch,
            payload_bytes: 0,
            blocks: 0,
        };
        let bytes = self.group.finish(self.node, head);
        let length = bytes.len() as u64;
        assert!(offset + length <= current.bytes, "a group fits into its segment");
        let written = self.disk.write(current.number, offset, bytes);
        self.checked(written, "the log cannot be written")?;
        self.group.clear();
        self.offset += length;
        self.directory.set(current.generation, current.number, self.offset);
        self.sequence += 1;
        self.announced = self.first_generation;
        Ok(())
    }

    /// Frees what the last group lets free, and decides what is to be freed next.
    fn settle(&mut self) {
        if !self.is_announced() {
            return;
        }
        let before = self.in_use.len();
        while let Some(oldest) = self.in_use.front().copied()
            && oldest.generation < self.first_generation
        {
            self.in_use.pop_front();
            self.directory.map().remove(&oldest.generation);
            let is_usable = oldest.bytes == self.geometry.segment_bytes;
            let pool = if is_usable { &mut self.free } else { &mut self.surplus };
            pool.insert(oldest.number);
        }
        let in_use_bytes = self.in_use_bytes();
        if self.in_use.len() < before {
            self.limit_bytes = self.geometry.keep_bytes.max(in_use_bytes + in_use_bytes / 8);
            self.trim(in_use_bytes);
        }
        if self.moving == 0 && in_use_bytes > self.limit_bytes {
            self.moving = self.cleaning_target();
        }
    }

    /// Gives up free segments that the limit has no use for.
    fn trim(&mut self, in_use_bytes: u64) {
        let spare_bytes = self.limit_bytes.saturating_sub(in_use_bytes);
        let useful = (spare_bytes / self.geometry.segment_bytes) as usize + SEGMENTS_AHEAD;
        while self.free.len() > useful
            && let Some(number) = self.free.pop_last()
        {
            self.surplus.insert(number);
        }
    }

    /// The generation before which about a quarter of the log lies; never that of the segment that
    /// is written.
    fn cleaning_target(&self) -> u64 {
        let segments = (self.in_use.len() / 4).max(1);
        self.in_use.get(segments).map_or(0, |first_kept| first_kept.generation)
    }
}
