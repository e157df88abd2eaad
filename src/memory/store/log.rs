//! The record files of one partition: where records are appended, and where they lie.
//!
//! Invariants:
//! - Records are written in the order of their sequences, which have no gaps.
//! - What [`RecordLog::synced`] says is on the disk; nothing else may be answered for.
//! - After a write that failed nothing more is written: nobody knows what the disk has.

use super::{
    compact::RECORD_BYTES_MAX,
    damage::{Damage, Harm},
    job::{Job, Make, Piece, Remove, Write},
    record::{self, Content, Guess, HEAD_BYTES, Head, Kind, Record, Stamp, UNIT_BYTES},
    region::Region,
    segment::{FIRST_OFFSET, LogSettings, Segment, segment_name},
    table::Place,
    watermark::Watermark,
};
use std::{
    collections::{HashMap, VecDeque},
    io,
    path::Path,
    sync::Arc,
};

/// Bytes of records after which a write begins whatever is under way.
const WRITE_BYTES: usize = 256 << 10;
/// Room of a buffer for a write: one that grew would be copied. What is not used of it costs nothing.
const BUFFER_BYTES: usize = WRITE_BYTES + RECORD_BYTES_MAX;
/// Buffers that are kept for further writes.
const BUFFERS_MAX: usize = 4;
/// Writes under way; what comes meanwhile waits for the next one and shares its sync.
const WRITES_MAX: usize = 2;
/// A record's bytes beside its vector that are brought into memory with its head.
const NEAR_BYTES: usize = 2048;

/// Why a record was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The next segment is being made: come back.
    Soon,
    /// There are as many segments as places can name.
    Full,
    /// A write failed, or a segment could not be made.
    Failed(String),
}

#[derive(Debug)]
enum Spare {
    None,
    Asked,
    Ready(Arc<Region>),
    Failed(String),
}

/// A write that is not known to be on the disk.
#[derive(Debug)]
struct UnderWay {
    region: Arc<Region>,
    end: usize,
    sequence: u64,
}

/// The record files of one partition.
#[derive(Debug)]
pub struct RecordLog {
    settings: LogSettings,
    watermark: Option<Arc<Watermark>>,
    pub(super) segments: VecDeque<Segment>,
    /// Records in all of them, and those of them that live.
    records: u64,
    live: u64,
    spare: Spare,
    /// The sequence of the last record.
    sequence: u64,
    synced: u64,
    /// The sequence of the last record that says something: seals behind it may be cut off.
    said: u64,
    /// Records that are not under way yet, and where they go in the last segment.
    open: Vec<u8>,
    open_offset: usize,
    under_way: VecDeque<UnderWay>,
    buffers: Vec<Vec<u8>>,
    jobs: Vec<Job>,
    failed: Option<String>,
    /// Segments in memory alone in which nothing lives: they are given back a piece at a time.
    retired: Vec<Arc<Region>>,
}

impl RecordLog {
    /// The log behind what was read of it: `end` is where the last segment goes on.
    pub fn new(settings: LogSettings, segments: VecDeque<Segment>, end: usize, last: u64) -> Self {
        assert!(settings.segment_bytes.is_multiple_of(UNIT_BYTES));
        let watermark = Watermark::of(&settings).map(Arc::new);
        let sum = |count: fn(&Segment) -> u64| segments.iter().map(count).sum();
        let (records, live) = (sum(|segment| segment.records), sum(|segment| segment.live));
        Self {
            settings,
            watermark,
            records,
            live,
            segments,
            spare: Spare::None,
            sequence: last,
            synced: last,
            said: last,
            open: Vec::with_capacity(BUFFER_BYTES),
            open_offset: end,
            under_way: VecDeque::new(),
            buffers: Vec::new(),
            jobs: Vec::new(),
            failed: None,
            retired: Vec::new(),
        }
    }

    /// Which files these are.
    pub fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// Whether items outlive the process.
    pub fn is_durable(&self) -> bool {
        self.settings.folder.is_some()
    }

    /// Says on the disk what it has: for a start, which has synced what it read; behind `said` are seals.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn begin_watermark(&mut self, said: u64) -> io::Result<()> {
        self.said = said;
        self.watermark.as_ref().map_or(Ok(()), |watermark| watermark.begin(said))
    }

    /// Counts records that were not read again.
    pub fn know(&mut self, records: &HashMap<u32, u64>) {
        for segment in &mut self.segments {
            let known = records.get(&segment.number).copied().unwrap_or(0);
            segment.records += known;
            self.records += known;
        }
    }

    /// Uses a segment that is there and empty as the next one.
    pub fn give_spare(&mut self, region: Arc<Region>) {
        self.spare = Spare::Ready(region);
    }

    /// The sequence of the last record that was appended.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The sequence of the last record that is known to be on the disk.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// What somebody who waits for the disk is to do.
    pub fn take_jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// Where the next record goes: segment and offset.
    pub fn end(&self) -> (u32, usize) {
        let number = self.segments.back().map_or(0, |segment| segment.number);
        (number, self.open_offset + self.open.len())
    }

    /// Records that are there, and those of them that live.
    pub fn counts(&self) -> (u64, u64) {
        (self.records, self.live)
    }

    /// The bytes of all segments.
    pub fn regions(&self) -> impl Iterator<Item = Arc<Region>> {
        self.segments.iter().map(|segment| segment.region.clone())
    }

    /// Whether records or jobs wait to be given away.
    pub fn is_filling(&self) -> bool {
        let can_write = !self.open.is_empty() && self.under_way.len() < WRITES_MAX;
        can_write || !self.jobs.is_empty()
    }

    /// Bytes of all segments, and of the one that is made ahead.
    pub fn bytes(&self) -> u64 {
        let ahead = usize::from(matches!(self.spare, Spare::Ready(_)));
        ((self.segments.len() + ahead) * self.settings.segment_bytes) as u64
    }

    /// Appends a record. It is durable when [`RecordLog::synced`] has reached its sequence.
    ///
    /// # Errors
    /// There is no room; nothing was appended.
    pub fn append(
        &mut self,
        content: &Content<'_>,
        moved_from: Option<Place>,
    ) -> Result<Place, NoRoom> {
        if let Some(problem) = &self.failed {
            return Err(NoRoom::Failed(problem.clone()));
        }
        self.make_room(record::length_of(content))?;
        if self.open.len() >= WRITE_BYTES {
            self.start_write();
        }
        let segment = self.segments.back_mut().expect("there is room in one");
        let place = self.settings.place(segment.number, self.open_offset + self.open.len());
        self.sequence += 1;
        if content.kind != Kind::Seal {
            self.said = self.sequence;
        }
        segment.records += 1;
        self.records += 1;
        let (sequence, synced, salt) = (self.sequence, self.synced, segment.salt);
        record::encode(&mut self.open, content, Stamp { sequence, synced, moved_from, salt });
        Ok(place)
    }

    /// Sees to it that the last segment has so many bytes, and room for a seal.
    fn make_room(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let used = self.open_offset + self.open.len();
        let limit = self.settings.segment_bytes - HEAD_BYTES;
        assert!(FIRST_OFFSET + bytes <= limit, "a segment has room for the longest record");
        if !self.segments.is_empty() && used + bytes <= limit {
            return Ok(());
        }
        self.begin_segment()
    }

    /// Lets the next record go to a new segment.
    ///
    /// # Errors
    /// It is not there yet, or cannot be.
    pub fn begin_segment(&mut self) -> Result<(), NoRoom> {
        if self.segments.len() + 1 >= self.settings.segments_max() as usize {
            return Err(NoRoom::Full);
        }
        // Made now where that takes no disk.
        self.ask_spare();
        let region = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::Ready(region) => region,
            Spare::Failed(problem) => {
                self.ask_spare();
                return Err(NoRoom::Failed(problem));
            }
            asked => {
                self.spare = asked;
                return Err(NoRoom::Soon);
            }
        };
        self.start_write();
        let number = self.next_number();
        let salt = self.settings.salt_of(number);
        region.advance(FIRST_OFFSET);
        self.segments.push_back(Segment { number, region, salt, records: 0, live: 0 });
        self.open_offset = FIRST_OFFSET;
        self.ask_spare_ahead();
        Ok(())
    }

    fn next_number(&self) -> u32 {
        self.segments.back().map_or(0, |segment| segment.number.wrapping_add(1))
    }

    /// Asks for the segment after the last one before it is needed; memory is there when it is.
    pub fn ask_spare_ahead(&mut self) {
        if self.is_durable() {
            self.ask_spare();
        }
    }

    /// Sees to it that there is a segment, for the first change; false while it is being made.
    pub fn prepare(&mut self) -> bool {
        if self.segments.is_empty() {
            self.ask_spare();
        }
        !self.segments.is_empty() || !matches!(self.spare, Spare::Asked)
    }

    fn ask_spare(&mut self) {
        if !matches!(self.spare, Spare::None) {
            return;
        }
        let (number, bytes) = (self.next_number(), self.settings.segment_bytes);
        let Some(folder) = &self.settings.folder else {
            self.spare = match Region::anonymous(bytes) {
                Ok(region) => Spare::Ready(Arc::new(region)),
                Err(error) => Spare::Failed(error.to_string()),
            };
            return;
        };
        let path = folder.join(segment_name(self.settings.partition, number));
        let head = self.settings.head_of(number);
        let (list, watermark) = (self.settings.list.clone(), self.watermark.clone());
        self.jobs.push(Job::Make(Make { path, bytes, head, number, list, watermark }));
        self.spare = Spare::Asked;
    }

    /// The segment that was asked for is there, or why it is not.
    pub fn made(&mut self, result: io::Result<Arc<Region>>) {
        self.spare = match result {
            Ok(region) => Spare::Ready(region),
            Err(error) => Spare::Failed(format!("a record file cannot be made: {error}")),
        };
    }

    /// Lets what was appended be written, unless so much is under way that it should wait and share
    /// the next sync.
    pub fn flush(&mut self) {
        if self.under_way.len() < WRITES_MAX {
            self.start_write();
        }
    }

    fn start_write(&mut self) {
        let Some(segment) = self.segments.back().filter(|_| !self.open.is_empty()) else { return };
        let next = self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        let bytes = std::mem::replace(&mut self.open, next);
        let (offset, end) = (self.open_offset, self.open_offset + bytes.len());
        self.open_offset = end;
        let (region, sequence) = (segment.region.clone(), self.sequence);
        self.under_way.push_back(UnderWay { region: region.clone(), end, sequence });
        match self.settings.folder {
            Some(_) => {
                let (sequence, watermark) = (self.said, self.watermark.clone());
                self.jobs.push(Job::Write(Write { region, offset, bytes, sequence, watermark }));
            }
            None => {
                region.write(offset, &bytes);
                self.written(Ok(bytes));
            }
        }
    }

    /// The oldest write under way is on the disk, or failed.
    pub fn written(&mut self, result: io::Result<Vec<u8>>) {
        let written = self.under_way.pop_front().expect("a write was under way");
        match result {
            Ok(mut bytes) => {
                if self.failed.is_none() {
                    written.region.advance(written.end);
                    self.synced = written.sequence;
                }
                bytes.clear();
                if self.buffers.len() < BUFFERS_MAX {
                    self.buffers.push(bytes);
                }
            }
            Err(error) => {
                let file = written.region.path().unwrap_or(Path::new("memory"));
                let problem = format!("{} cannot be written: {error}", file.display());
                self.failed.get_or_insert(problem);
            }
        }
    }

    /// Why nothing is written any more.
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Says on the disk that all before is on the disk: the last record before a stop.
    ///
    /// # Errors
    /// There is no room.
    pub fn seal(&mut self) -> Result<(), NoRoom> {
        if self.segments.is_empty() || self.synced == 0 {
            return Ok(());
        }
        let nothing = ("", &[][..], None, &[][..]);
        let (key, vector, text, metadata) = nothing;
        let content = Content { kind: Kind::Seal, namespace: "", key, vector, text, metadata };
        self.append(&content, None).map(drop)
    }

    /// The segment of a place.
    pub fn segment(&self, place: Place) -> Option<&Segment> {
        let first = self.segments.front()?.number;
        self.segments.get(self.settings.distance(place, first))
    }

    fn segment_mut(&mut self, place: Place) -> Option<&mut Segment> {
        let first = self.segments.front()?.number;
        self.segments.get_mut(self.settings.distance(place, first))
    }

    /// A row's record is here from now on.
    pub fn hold(&mut self, place: Place) {
        if let Some(segment) = self.segment_mut(place) {
            segment.live += 1;
            self.live += 1;
        }
    }

    /// A row's record is here no more.
    pub fn release(&mut self, place: Place) {
        if let Some(segment) = self.segment_mut(place) {
            segment.live -= 1;
            self.live -= 1;
        }
    }

    /// The head of the record at a place.
    #[inline]
    pub fn head(&self, place: Place) -> Option<Head> {
        let segment = self.segment(place)?;
        let offset = self.settings.offset(place);
        if offset + HEAD_BYTES > segment.region.readable() {
            return None;
        }
        Head::read(segment.region.bytes(offset, HEAD_BYTES), segment.salt)
    }

    /// The record at a place.
    ///
    /// # Errors
    /// It is not what was written there.
    #[inline]
    pub fn read(&self, place: Place) -> Result<Record<'_>, Damage> {
        let (head, offset) = (self.head(place), self.settings.offset(place));
        let record = head.zip(self.segment(place)).and_then(|(head, segment)| {
            let is_there = offset + head.length <= segment.region.readable();
            let bytes = is_there.then(|| segment.region.bytes(offset, head.length))?;
            head.record(bytes, segment.salt)
        });
        record.ok_or_else(|| self.damage(place, head))
    }

    /// Whether the record at a place has these names, as far as its bytes say; whether they are what was written is not
    /// looked at.
    pub fn seems_named(&self, place: Place, head: &Head, namespace: &str, key: &str) -> bool {
        let offset = self.settings.offset(place);
        self.segment(place).is_some_and(|segment| {
            let region = &segment.region;
            let names = head.names_range();
            offset + head.length <= region.readable()
                && head.namespace_bytes() == namespace.len()
                && names.len() == namespace.len() + key.len()
                && {
                    let (one, other) =
                        region.bytes(offset + names.start, names.len()).split_at(namespace.len());
                    one == namespace.as_bytes() && other == key.as_bytes()
                }
        })
    }

    /// The vector of a record, where it lies.
    #[inline]
    pub fn vector(&self, place: Place, head: &Head) -> &[f32] {
        let segment = self.segment(place).expect("its record was read");
        let offset = self.settings.offset(place) + head.vector_range().start;
        segment.region.floats(offset, head.dimensions())
    }

    /// What is told of a record that cannot be read; the name of its item is read where it is in memory.
    pub fn damage(&self, place: Place, head: Option<Head>) -> Damage {
        let (segment, offset) = (self.segment(place), self.settings.offset(place));
        let path = segment.and_then(|segment| segment.region.path());
        let key = segment.and_then(|Segment { region, .. }| {
            let left = region.readable().saturating_sub(offset);
            match head {
                Some(head) => (head.length <= left)
                    .then(|| head.guess_name(region.bytes(offset, head.length))),
                None => {
                    let near = HEAD_BYTES + Guess::names_within(self.settings.dimensions);
                    let near = near.min(left);
                    let is_near = near > 0 && region.is_resident(offset, near);
                    let guess = is_near.then(|| Guess::of(region.bytes(offset, near)));
                    guess.flatten().map(|guess| guess.name)
                }
            }
        });
        let file = path.map_or("memory".to_owned(), |path| path.display().to_string());
        Damage { file, offset, harm: Harm::Record, key }
    }

    /// What of a record is not in memory; nothing when all is, or when it cannot be there.
    #[inline]
    pub fn missing(&self, place: Place) -> Option<Piece> {
        let segment = self.segment(place)?;
        let (region, offset) = (&segment.region, self.settings.offset(place));
        let near = HEAD_BYTES + self.settings.dimensions * size_of::<f32>() + NEAR_BYTES;
        let near = near.min(region.readable().saturating_sub(offset));
        if near == 0 {
            return None;
        }
        if !region.is_resident(offset, near.min(HEAD_BYTES)) {
            return Some((region.clone(), offset, near));
        }
        let length = self.head(place)?.length.min(region.readable().saturating_sub(offset));
        (!region.is_resident(offset, length)).then(|| (region.clone(), offset, length))
    }

    /// Frees the first segments in which nothing lives, except the last one, and none from that of
    /// `needed` on.
    pub fn free_first(&mut self, needed: Option<Place>) -> bool {
        let needed = needed.and_then(|place| self.segment(place)).map(|segment| segment.number);
        let mut freed = false;
        while self.segments.len() > 1
            && self.segments[0].live == 0
            && needed != Some(self.segments[0].number)
        {
            let segment = self.segments.pop_front().expect("there are several");
            self.records -= segment.records;
            if self.is_durable() {
                let (region, number) = (segment.region, segment.number);
                let list = self.settings.list.clone();
                self.jobs.push(Job::Remove(Remove { region, number, list }));
            } else {
                self.retired.push(segment.region);
            }
            freed = true;
        }
        freed
    }

    /// Gives back a piece of the memory of freed segments; false when there is none.
    pub fn release_some(&mut self) -> bool {
        let Some(region) = self.retired.last_mut() else { return false };
        let is_more = Arc::get_mut(region).is_some_and(Region::release_some);
        if !is_more {
            self.retired.pop();
        }
        true
    }
}
