//! Reads records back that a shard keeps only the place of.
//!
//! Invariants worth naming
//! - A record is believed only where its segment was written when it was read: segments are used
//!   again, and behind what was written lie records of an earlier life, intact and of no worth.

use super::{
    damage::Damage, files::SegmentFolder, place::Place, record::Record, simulated::SimulatedDisk,
    writer::Directory,
};
use crate::{
    planted::{self, Bug},
    runtime::fs::ReadFile,
};
use std::{collections::VecDeque, io};

/// Bytes that are read at a time: records that were written after each other are often read after
/// each other.
const WINDOW_BYTES: usize = 64 * 1024;
/// Files that a core keeps open.
const FILES_MAX: usize = 8;
/// Bytes of a record that tell its length.
const LENGTH_BYTES: usize = 4;

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its generation is not part of the log any more: its shard had moved it.
    #[error("no segment of generation {0} is in use")]
    Gone(u64),
    /// What is there is no record: the log is damaged, or the place is none.
    #[error("no record can be read at byte {} of generation {}: {damage}", .place.offset, .place.generation)]
    Damaged {
        /// Where.
        place: Place,
        /// What is wrong.
        damage: Damage,
    },
    /// The file cannot be read.
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads records of a log; each core takes its own with [`SegmentReader::on_core`].
#[derive(Clone, Debug)]
pub struct SegmentReader {
    source: Source,
    directory: Directory,
}

/// Where segments are read.
#[derive(Clone, Debug)]
enum Source {
    Folder(SegmentFolder),
    Simulated(SimulatedDisk),
}

/// A segment that is open for reading.
enum Opened {
    File(ReadFile),
    Simulated(SimulatedDisk, u32),
}

impl Opened {
    async fn read_at(&self, position: u64, limit: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::File(file) => {
                file.read_at(position, limit).await.map(|read| read.as_ref().to_vec())
            }
            Self::Simulated(disk, segment) => disk.read_upto(*segment, position, limit),
        }
    }
}

impl SegmentReader {
    pub(super) fn new(folder: SegmentFolder, directory: Directory) -> Self {
        Self { source: Source::Folder(folder), directory }
    }

    /// A reader of a simulated disk; it needs no executor.
    pub fn simulated(disk: SimulatedDisk, directory: Directory) -> Self {
        Self { source: Source::Simulated(disk), directory }
    }

    /// A reader with open files, which stays on the core whose executor it reads with.
    pub fn on_core(&self) -> CoreReader {
        CoreReader {
            reader: self.clone(),
            files: VecDeque::new(),
            window: Vec::new(),
            begin: Place::default(),
        }
    }
}

/// A core's reader. Records that lie close together cost one read.
pub struct CoreReader {
    reader: SegmentReader,
    /// By generation, the least recently opened first.
    files: VecDeque<(u64, Opened)>,
    /// What was read last, from `begin` on.
    window: Vec<u8>,
    begin: Place,
}

impl CoreReader {
    /// The record at `place`, which is committed. `bytes_hint` is about how long it is; a wrong
    /// hint costs a second read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn record(
        &mut self,
        place: Place,
        bytes_hint: usize,
    ) -> Result<Record<'_>, ReadError> {
        if self.reader.directory.segment(place.generation).is_none() {
            return Err(ReadError::Gone(place.generation));
        }
        // The window may end inside it.
        if self.in_window(place).is_none_or(|bytes| decode(bytes).is_err()) {
            self.read(place, bytes_hint.max(WINDOW_BYTES)).await?;
            let head = self.window.first_chunk::<LENGTH_BYTES>();
            let length = head.map_or(0, |head| u32::from_le_bytes(*head) as usize);
            if length > self.window.len() {
                self.read(place, length).await?;
            }
        }
        let bytes = self.in_window(place).unwrap_or_default();
        match decode(bytes) {
            Ok((record, _)) => Ok(record),
            Err(damage) => Err(ReadError::Damaged { place, damage }),
        }
    }

    /// What the window has from `place` on.
    fn in_window(&self, place: Place) -> Option<&[u8]> {
        let from = place.offset.checked_sub(self.begin.offset)?;
        let is_there = place.generation == self.begin.generation;
        self.window.get(from as usize..).filter(|_| is_there)
    }

    async fn read(&mut self, place: Place, bytes: usize) -> Result<(), ReadError> {
        let written = self.reader.directory.written_bytes(place.generation);
        let written = written.ok_or(ReadError::Gone(place.generation))?;
        let bytes = bytes.min(written.saturating_sub(place.offset.into()) as usize);
        if bytes == 0 {
            (self.window, self.begin) = (Vec::new(), place);
            return Ok(());
        }
        let index = self.open(place.generation).await?;
        let window = self.files[index].1.read_at(place.offset.into(), bytes).await?;
        // The file may have been given to another generation meanwhile.
        if self.reader.directory.segment(place.generation).is_none() {
            return Err(ReadError::Gone(place.generation));
        }
        (self.window, self.begin) = (window, place);
        Ok(())
    }

    /// The index of a generation's open file.
    async fn open(&mut self, generation: u64) -> Result<usize, ReadError> {
        if let Some(index) = self.files.iter().position(|(of, _)| *of == generation) {
            return Ok(index);
        }
        let segment = self.reader.directory.segment(generation);
        let segment = segment.ok_or(ReadError::Gone(generation))?;
        let file = match &self.reader.source {
            Source::Folder(folder) => Opened::File(ReadFile::open(&folder.path(segment)).await?),
            Source::Simulated(disk) => Opened::Simulated(disk.clone(), segment),
        };
        if self.files.len() == FILES_MAX
            && let Some((_, Opened::File(oldest))) = self.files.pop_front()
        {
            oldest.close().await?;
        }
        self.files.push_back((generation, file));
        Ok(self.files.len() - 1)
    }
}

fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), Damage> {
    if planted::has(Bug::UncheckedRecord) {
        return Record::decode_checked(bytes);
    }
    Record::decode(bytes)
}
