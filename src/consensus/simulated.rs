//! A disk in memory that fails when it is told to: the tests' and the simulator's.
//!
//! What it knows of real disks: a write that was cut off leaves any of its sectors old and any new;
//! a write, a sync or a read may fail; of a write that failed, sectors may be read that are in the
//! disk's own cache only, until a sync or the next loss of power; there may be no room; bits rot.

use super::disk::{Disk, SegmentFile};
use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a disk writes whole or not at all, bytes.
pub const SECTOR_BYTES: usize = 512;

/// Which sectors of the next write reach the disk before the power is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// The first ones, this many.
    Prefix(usize),
    /// Those chosen by this seed.
    Scattered(u64),
}

/// A handle of the disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

/// A sector: its segment, and its place in it.
type Sector = (u32, usize);

/// Bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The segment.
    pub segment: u32,
    /// Where in it.
    pub bytes: Range<usize>,
}

/// What becomes of the next write.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The power is lost.
    Tear(Tear),
    /// It fails; a seed says what becomes of each of its sectors.
    Fail(u64),
}

/// What becomes of a sector that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaches {
    Nothing,
    Cache,
    Disk,
}

#[derive(Debug, Default)]
struct State {
    /// What a read gives.
    segments: BTreeMap<u32, Vec<u8>>,
    /// What the disk has of sectors whose new content is in its cache only.
    unsynced: BTreeMap<Sector, Vec<u8>>,
    capacity_bytes: Option<usize>,
    writes: u64,
    fail_write: Option<u64>,
    fail_sync: bool,
    /// Reads until one fails.
    fail_read: Option<u64>,
    /// Something has failed.
    has_failed: bool,
    fault: Option<Fault>,
    /// What was written last, and what was tried to be written since.
    last: Option<Span>,
    tried: Option<Span>,
}

impl SimulatedDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk of its own with the same content and no faults: what is there after a restart of the
    /// process.
    pub fn restarted(&self) -> Self {
        let state = self.state();
        let (segments, unsynced) = (state.segments.clone(), state.unsynced.clone());
        let (last, tried) = (state.last.clone(), state.tried.clone());
        let state = State { segments, unsynced, last, tried, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Limits the room for segments.
    pub fn set_capacity(&self, capacity_bytes: Option<usize>) {
        self.state().capacity_bytes = capacity_bytes;
    }

    /// Writes that were asked for.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// The write after `writes` more fails, and nothing of it reaches the disk.
    pub fn fail_write_after(&self, writes: u64) {
        let mut state = self.state();
        state.fail_write = Some(state.writes + writes);
    }

    /// Makes every sync fail.
    pub fn fail_syncs(&self) {
        self.state().fail_sync = true;
    }

    /// The power is lost during the next write.
    pub fn tear_next_write(&self, tear: Tear) {
        self.state().fault = Some(Fault::Tear(tear));
    }

    /// The next write fails: each of its sectors is as it was, or in the disk's cache, or written.
    pub fn fail_next_write(&self, seed: u64) {
        self.state().fault = Some(Fault::Fail(seed));
    }

    /// The read after `reads` more fails.
    pub fn fail_read_after(&self, reads: u64) {
        self.state().fail_read = Some(reads);
    }

    /// The power is lost between two writes: what is in the disk's cache only may go with it.
    pub fn lose_power(&self, seed: u64) {
        self.state().lose_power(&mut fastrand::Rng::with_seed(seed));
    }

    /// Whether anything has failed, or found no room, since the restart.
    pub fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// Whether a bit that turns in these bytes may look like a write that was cut off: they belong
    /// to what was written last.
    pub fn is_tail(&self, segment: u32, offset: usize) -> bool {
        let state = self.state();
        let mut spans = state.last.iter().chain(&state.tried);
        spans.any(|span| span.segment == segment && span.bytes.contains(&offset))
    }

    /// Turns one bit round.
    pub fn flip(&self, segment: u32, offset: usize, bit: u8) {
        self.state().segments.get_mut(&segment).expect("the segment exists")[offset] ^= 1 << bit;
    }

    /// Cuts a segment's file off.
    pub fn truncate(&self, segment: u32, bytes: usize) {
        self.state().segments.get_mut(&segment).expect("the segment exists").truncate(bytes);
    }

    /// Up to so many bytes of a segment, as far as it goes.
    ///
    /// # Errors
    /// There is no such segment, or the read fails.
    pub fn read_upto(&self, segment: u32, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.count_read()?;
        let content = state.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let from = content.get(offset as usize..).unwrap_or_default();
        Ok(from[..limit.min(from.len())].to_vec())
    }

    /// The bytes of a segment.
    pub fn content(&self, segment: u32) -> Vec<u8> {
        self.state().segments[&segment].clone()
    }

    /// Replaces bytes of a segment.
    pub fn replace(&self, segment: u32, offset: usize, bytes: &[u8]) {
        let mut state = self.state();
        let content = state.segments.get_mut(&segment).expect("the segment exists");
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

impl State {
    fn fail(&mut self, why: &'static str) -> io::Result<()> {
        self.has_failed = true;
        Err(io::Error::other(why))
    }

    /// A read begins; it may be the one that fails.
    fn count_read(&mut self) -> io::Result<()> {
        match &mut self.fail_read {
            None => Ok(()),
            Some(0) => {
                self.fail_read = None;
                self.fail("the simulated disk cannot read")
            }
            Some(reads) => {
                *reads -= 1;
                Ok(())
            }
        }
    }

    /// Sectors that are in the cache only are lost, or not, as it comes.
    fn lose_power(&mut self, random: &mut fastrand::Rng) {
        for ((segment, sector), old) in std::mem::take(&mut self.unsynced) {
            if let Some(content) = self.segments.get_mut(&segment).filter(|_| random.bool()) {
                let at = sector * SECTOR_BYTES;
                content[at..at + old.len()].copy_from_slice(&old);
            }
        }
    }

    /// Writes sectors as far as `reaches` says of each.
    fn put(
        &mut self,
        span: &Span,
        bytes: &[u8],
        mut reaches: impl FnMut(usize) -> Reaches,
    ) -> io::Result<()> {
        let Span { segment, bytes: Range { start, end } } = span.clone();
        let content = self.segments.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        let sectors = content[start..end].chunks_mut(SECTOR_BYTES).zip(bytes.chunks(SECTOR_BYTES));
        for (index, (old, new)) in sectors.enumerate() {
            let sector = (segment, start / SECTOR_BYTES + index);
            match reaches(index) {
                Reaches::Nothing => continue,
                // What the disk has is what it had before the first write that failed.
                Reaches::Cache => drop(self.unsynced.entry(sector).or_insert_with(|| old.to_vec())),
                Reaches::Disk => drop(self.unsynced.remove(&sector)),
            }
            old.copy_from_slice(new);
        }
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn segments(&mut self) -> io::Result<Vec<SegmentFile>> {
        let state = self.state();
        let file = |(&number, content): (&u32, &Vec<u8>)| SegmentFile {
            number,
            bytes: content.len() as u64,
        };
        Ok(state.segments.iter().map(file).collect())
    }

    fn read(&mut self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.count_read()?;
        let content = state.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let from = content.get(offset as usize..).unwrap_or_default();
        let bytes = from.get(..into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.writes += 1;
        if state.fail_write.is_some_and(|fails| state.writes > fails) {
            return state.fail("the simulated disk failed");
        }
        let span = Span { segment, bytes: offset as usize..offset as usize + bytes.len() };
        let Some(fault) = state.fault.take() else {
            state.put(&span, bytes, |_| Reaches::Disk)?;
            (state.last, state.tried) = (Some(span), None);
            return Ok(());
        };
        state.fail_write = Some(0);
        let whether = |is_there| if is_there { Reaches::Disk } else { Reaches::Nothing };
        let why = match fault {
            Fault::Tear(tear) => {
                let mut random = fastrand::Rng::with_seed(match tear {
                    Tear::Scattered(seed) => seed,
                    Tear::Prefix(_) => 0,
                });
                state.put(&span, bytes, |index| match tear {
                    Tear::Prefix(sectors) => whether(index < sectors),
                    Tear::Scattered(_) => whether(random.bool()),
                })?;
                state.lose_power(&mut random);
                "the simulated power was lost"
            }
            Fault::Fail(seed) => {
                let mut random = fastrand::Rng::with_seed(seed);
                // Often all of it is in the cache: the last step failed.
                let is_cached = random.bool();
                state.put(&span, bytes, |_| match random.u32(..3) {
                    _ if is_cached => Reaches::Cache,
                    0 => Reaches::Nothing,
                    1 => Reaches::Cache,
                    _ => Reaches::Disk,
                })?;
                "the simulated disk failed"
            }
        };
        state.tried = Some(span);
        state.fail(why)
    }

    fn sync(&mut self, segment: u32) -> io::Result<()> {
        let mut state = self.state();
        if state.fail_sync {
            return state.fail("the simulated disk cannot sync");
        }
        state.unsynced.retain(|(of, _), _| *of != segment);
        Ok(())
    }

    fn make(&mut self, segment: u32, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let used: usize = state.segments.values().map(Vec::len).sum();
        let bytes = bytes as usize;
        if state.capacity_bytes.is_some_and(|capacity| used + bytes > capacity) {
            state.has_failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.segments.insert(segment, vec![0; bytes]);
        Ok(())
    }

    fn remove(&mut self, segment: u32) -> io::Result<()> {
        let mut state = self.state();
        state.segments.remove(&segment);
        state.unsynced.retain(|(of, _), _| *of != segment);
        Ok(())
    }
}
