//! Reads a whole log: what is intact is handed on, what is not is named.
//!
//! One group is written at a time, and the next only after the disk has taken it. So a group that
//! cannot be read and has an intact one after it was acknowledged: that is damage. One without
//! anything intact after it is the write that was under way when the node died, which nobody was
//! told of: the tail is torn, and cut.
//!
//! Segments follow each other without a gap in their generations, groups without a gap in their
//! sequences. Whether the entries of each partition do, whoever takes the blocks finds out.

use super::{
    damage::{Damage, Finding},
    disk::{Disk, SegmentFile},
    format::{GROUP_HEAD_BYTES, GroupHead, PAGE_BYTES, SegmentHead, is_zero, segment_name},
    group::{self, StoredBlock},
    place::Place,
};
use crate::wire::id::PartitionIndex;
use std::{collections::BTreeMap, io};

/// Bytes that are read at a time where heads are searched.
const SEARCH_BYTES: usize = 1 << 20;
const FIRST_GROUP: u64 = PAGE_BYTES as u64;

/// What a segment is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Never used.
    Blank,
    /// Its head cannot be read.
    Unreadable,
    /// Used in an earlier life; nothing in it is needed.
    Free,
    /// Part of the log.
    InUse,
}

impl SegmentState {
    /// The word that is printed.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Unreadable => "unreadable",
            Self::Free => "free",
            Self::InUse => "in use",
        }
    }
}

/// What was found in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSurvey {
    /// The number in its file's name.
    pub number: u32,
    /// The length of its file.
    pub bytes: u64,
    /// What it is good for.
    pub state: SegmentState,
    /// Its generation; 0 where none can be read.
    pub generation: u64,
    /// Intact groups.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Where the next group would begin.
    pub end: u64,
}

/// A write that was under way when the node died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The number of the segment.
    pub segment: u32,
    /// Where the group begins that cannot be read.
    pub offset: u64,
}

/// Where the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The number that the folder was made with.
    pub node: u128,
    /// The epoch of the last open.
    pub epoch: u64,
    /// Segments of lower generations are free.
    pub first_generation: u64,
    /// The newest generation.
    pub generation: u64,
    /// The sequence of the next group.
    pub sequence: u64,
    /// Partitions of the tasks when the log began.
    pub partitions: PartitionIndex,
}

/// What is known of a log that was read.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Every segment, in the order of their numbers.
    pub segments: Vec<SegmentSurvey>,
    /// Everything that is wrong; such a log must not be used.
    pub findings: Vec<Finding>,
    /// The write that was cut off, if one left a trace.
    pub torn: Option<Torn>,
    /// Where the log goes on; `None` when no segment was ever used.
    pub end: Option<End>,
}

/// Reads every segment that is in use, oldest first, and calls `visit` with each intact block and
/// where it lies.
///
/// # Errors
/// The disk cannot be read; what it holds may still be well.
pub fn survey(disk: &mut dyn Disk, visit: &mut Visit<'_>) -> io::Result<Survey> {
    let files = disk.segments()?;
    let mut reading = Reading { disk, visit, survey: Survey::default(), group: Vec::new() };
    let heads = reading.read_heads(&files)?;
    let Some(&(newest, head)) = heads.values().next_back() else {
        reading.judge_unreadable(&files, None)?;
        return Ok(reading.survey);
    };
    let mut end = reading.end(newest, &head, &heads)?;
    let found = reading.judge_unreadable(&files, Some(&end))?;
    for generation in end.first_generation..=head.generation {
        if !heads.contains_key(&generation) && !found.contains(&generation) {
            let file = "the folder".to_owned();
            let damage = Damage::GenerationMissing(generation);
            reading.survey.findings.push(Finding { file, offset: 0, damage });
        }
    }
    end.sequence = reading.read_groups(&end, &heads)?;
    reading.survey.end = Some(end);
    Ok(reading.survey)
}

/// Is called with a block and its place.
pub type Visit<'a> = dyn FnMut(Place, &StoredBlock<'_>) + 'a;

/// Segments with an intact head by their generation.
type Heads = BTreeMap<u64, (SegmentFile, SegmentHead)>;

struct Reading<'a> {
    disk: &'a mut dyn Disk,
    visit: &'a mut Visit<'a>,
    survey: Survey,
    /// The group that is being checked.
    group: Vec<u8>,
}

/// What the walk through the segments carries from group to group.
struct Walk {
    node: u128,
    /// The sequence of the next group.
    sequence: u64,
}

impl Reading<'_> {
    fn found(&mut self, segment: u32, offset: u64, damage: Damage) {
        self.survey.findings.push(Finding { file: segment_name(segment), offset, damage });
    }

    fn entry(&mut self, segment: u32) -> &mut SegmentSurvey {
        let entry = self.survey.segments.iter_mut().find(|entry| entry.number == segment);
        entry.expect("every file has an entry")
    }

    fn read_heads(&mut self, files: &[SegmentFile]) -> io::Result<Heads> {
        let mut heads = Heads::new();
        let mut node = None;
        for &file in files {
            let SegmentFile { number, bytes } = file;
            let state = SegmentState::Unreadable;
            let entry = SegmentSurvey {
                number,
                bytes,
                state,
                generation: 0,
                groups: 0,
                records: 0,
                end: FIRST_GROUP,
            };
            self.survey.segments.push(entry);
            // A segment is given its name only when all of it was written.
            if bytes < 2 * FIRST_GROUP {
                self.found(
                    number,
                    bytes,
                    Damage::SegmentCut { found: bytes, expected: bytes.max(2 * FIRST_GROUP) },
                );
                continue;
            }
            let mut page = [0; PAGE_BYTES];
            self.disk.read(number, 0, &mut page)?;
            match SegmentHead::decode(&page) {
                Ok(None) => self.entry(number).state = SegmentState::Blank,
                Ok(Some(head)) if *node.get_or_insert(head.node) != head.node => {
                    self.found(number, 0, Damage::OtherNode);
                }
                Ok(Some(head)) => {
                    let entry = self.entry(number);
                    (entry.state, entry.generation) = (SegmentState::Free, head.generation);
                    if heads.insert(head.generation, (file, head)).is_some() {
                        self.found(number, 0, Damage::GenerationTwice(head.generation));
                    }
                }
                Err(damage @ Damage::SegmentVersion(_)) => self.found(number, 0, damage),
                Err(_) => {}
            }
        }
        Ok(heads)
    }

    /// Where the log ends but for the sequence, from all heads in the newest segment.
    fn end(&mut self, newest: SegmentFile, head: &SegmentHead, heads: &Heads) -> io::Result<End> {
        let first = heads.values().map(|(_, head)| head.first_generation).max();
        let mut end = End {
            node: head.node,
            epoch: head.epoch,
            first_generation: first.unwrap_or(head.first_generation),
            generation: head.generation,
            sequence: head.first_sequence,
            partitions: head.partitions,
        };
        self.search(newest, FIRST_GROUP, head.node, |_, group| {
            if group.generation == head.generation {
                end.epoch = end.epoch.max(group.epoch);
                end.first_generation = end.first_generation.max(group.first_generation);
            }
            false
        })?;
        Ok(end)
    }

    /// Calls `stop` with the place of each intact head of a group from `offset` on, until it says
    /// so.
    fn search(
        &mut self,
        file: SegmentFile,
        mut offset: u64,
        node: u128,
        mut stop: impl FnMut(u64, GroupHead) -> bool,
    ) -> io::Result<()> {
        let mut bytes = vec![0; SEARCH_BYTES];
        while offset + FIRST_GROUP <= file.bytes {
            let whole_pages = (file.bytes - offset) / FIRST_GROUP * FIRST_GROUP;
            let part = &mut bytes[..whole_pages.min(SEARCH_BYTES as u64) as usize];
            self.disk.read(file.number, offset, part)?;
            for page in part.chunks_exact(PAGE_BYTES) {
                if let Ok(head) = GroupHead::decode(node, page)
                    && stop(offset, head)
                {
                    return Ok(());
                }
                offset += FIRST_GROUP;
            }
        }
        Ok(())
    }

    /// Tells segments whose head was torn when they were begun, with nothing in them yet, from
    /// those whose head was lost; the answer is the generations of the latter.
    fn judge_unreadable(
        &mut self,
        files: &[SegmentFile],
        end: Option<&End>,
    ) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for &file in files {
            let state = self.entry(file.number).state;
            let is_suspect = matches!(state, SegmentState::Blank | SegmentState::Unreadable);
            if !is_suspect || file.bytes < 2 * FIRST_GROUP {
                continue;
            }
            let mut page = vec![0; PAGE_BYTES];
            self.disk.read(file.number, FIRST_GROUP, &mut page)?;
            if state == SegmentState::Blank && is_zero(&page) {
                continue;
            }
            let mut generation = None;
            match end {
                // Without a node's number no group can be told from junk.
                None => generation = (!is_zero(&page)).then_some(1),
                Some(end) => self.search(file, FIRST_GROUP, end.node, |_, head| {
                    generation = Some(head.generation);
                    true
                })?,
            }
            let first_generation = end.map_or(0, |end| end.first_generation);
            if let Some(generation) =
                generation.filter(|generation| *generation >= first_generation)
            {
                found.push(generation);
                self.found(file.number, 0, Damage::SegmentHead);
            }
        }
        Ok(found)
    }

    /// Walks through all segments in use; the answer is the sequence of the next group.
    fn read_groups(&mut self, end: &End, heads: &Heads) -> io::Result<u64> {
        let mut in_use = heads.range(end.first_generation..).peekable();
        let sequence = in_use.peek().map_or(end.sequence, |(_, (_, head))| head.first_sequence);
        let mut walk = Walk { node: end.node, sequence };
        while let Some((_, (file, head))) = in_use.next() {
            self.entry(file.number).state = SegmentState::InUse;
            if file.bytes < head.bytes {
                let damage = Damage::SegmentCut { found: file.bytes, expected: head.bytes };
                self.found(file.number, file.bytes, damage);
            }
            if walk.sequence != head.first_sequence {
                // The generation between them is missing, and was named.
                walk.sequence = head.first_sequence;
            }
            let until = in_use.peek().map(|(_, (_, next))| next);
            let until = until.filter(|next| next.generation == head.generation + 1);
            self.walk(&mut walk, *file, head, until.map(|next| next.first_sequence))?;
        }
        Ok(walk.sequence)
    }

    /// Walks through one segment. `until` is the sequence that the next one begins with; `None`
    /// for the newest one.
    fn walk(
        &mut self,
        walk: &mut Walk,
        file: SegmentFile,
        head: &SegmentHead,
        until: Option<u64>,
    ) -> io::Result<()> {
        let mut offset = FIRST_GROUP;
        while until != Some(walk.sequence) {
            let damage = match self.read_group(walk, file, head, offset)? {
                Ok(bytes) => {
                    offset += bytes;
                    walk.sequence += 1;
                    continue;
                }
                Err(damage) => damage,
            };
            let mut next = None;
            self.search(file, offset, walk.node, |at, group| {
                let is_later =
                    group.generation == head.generation && group.sequence > walk.sequence;
                next = is_later.then_some((at, group.sequence));
                is_later
            })?;
            let expected = walk.sequence;
            match (next, until) {
                (Some((at, sequence)), _) if at == offset => {
                    self.found(file.number, at, Damage::SequenceGap { expected, found: sequence });
                    walk.sequence = sequence;
                }
                (Some((at, sequence)), _) => {
                    self.found(file.number, offset, damage);
                    (offset, walk.sequence) = (at, sequence);
                }
                (None, Some(sequence)) => {
                    self.found(file.number, offset, damage);
                    walk.sequence = sequence;
                }
                (None, None) => {
                    self.entry(file.number).end = offset;
                    return self.judge_tail(walk, file, head, offset);
                }
            }
        }
        self.entry(file.number).end = offset;
        Ok(())
    }

    /// Whether something was being written behind the last group.
    fn judge_tail(
        &mut self,
        walk: &Walk,
        file: SegmentFile,
        head: &SegmentHead,
        offset: u64,
    ) -> io::Result<()> {
        if offset + FIRST_GROUP > file.bytes {
            return Ok(());
        }
        let mut page = [0; PAGE_BYTES];
        self.disk.read(file.number, offset, &mut page)?;
        let expected = GroupHead {
            generation: head.generation,
            sequence: walk.sequence,
            first_generation: 0,
            epoch: 0,
            payload_bytes: 0,
            blocks: 0,
        };
        if expected.resembles(&page) {
            self.survey.torn = Some(Torn { segment: file.number, offset });
        }
        Ok(())
    }

    /// Checks the group at `offset` and hands its records on; the answer is the bytes it takes.
    fn read_group(
        &mut self,
        walk: &mut Walk,
        file: SegmentFile,
        head: &SegmentHead,
        offset: u64,
    ) -> io::Result<Result<u64, Damage>> {
        if offset + FIRST_GROUP > file.bytes {
            return Ok(Err(Damage::GroupHead));
        }
        let mut bytes = std::mem::take(&mut self.group);
        bytes.resize(PAGE_BYTES, 0);
        self.disk.read(file.number, offset, &mut bytes)?;
        let group = match GroupHead::decode(walk.node, &bytes) {
            Ok(group) if is_next(&group, walk, head) => group,
            _ => {
                self.group = bytes;
                return Ok(Err(Damage::GroupHead));
            }
        };
        let padded_bytes = group.padded_bytes();
        if padded_bytes > file.bytes - offset {
            self.group = bytes;
            return Ok(Err(Damage::GroupHead));
        }
        bytes.resize(padded_bytes as usize, 0);
        self.disk.read(file.number, offset + FIRST_GROUP, &mut bytes[PAGE_BYTES..])?;
        let result = match group::check(&group, &bytes) {
            Ok(blocks) => {
                self.hand_on(file, &group, offset, &blocks);
                Ok(padded_bytes)
            }
            Err(damage) => Err(damage),
        };
        self.group = bytes;
        Ok(result)
    }

    fn hand_on(
        &mut self,
        file: SegmentFile,
        group: &GroupHead,
        offset: u64,
        blocks: &[StoredBlock<'_>],
    ) {
        let mut records = 0;
        for block in blocks {
            let offset = (offset + block.offset as u64) as u32;
            (self.visit)(Place { generation: group.generation, offset }, block);
            records += block.records();
        }
        let entry = self.entry(file.number);
        entry.groups += 1;
        entry.records += records;
    }
}

/// Whether a group is the one that the walk has come to, and not one of an earlier life of the
/// file.
fn is_next(group: &GroupHead, walk: &Walk, head: &SegmentHead) -> bool {
    group.generation == head.generation && group.sequence == walk.sequence
}

const _: () = assert!(GROUP_HEAD_BYTES <= PAGE_BYTES);
