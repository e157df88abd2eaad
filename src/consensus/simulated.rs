//! A disk in memory that fails when it is told to: the tests' and the simulator's.
//!
//! What it knows of real disks: a write that was cut off leaves any of its sectors old and any new;
//! a write or a sync may fail; there may be no room; bits rot.

use super::disk::{Disk, SegmentFile};
use std::{
    collections::BTreeMap,
    io,
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

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u32, Vec<u8>>,
    capacity_bytes: Option<usize>,
    writes: u64,
    fail_write: Option<u64>,
    fail_sync: bool,
    tear: Option<Tear>,
}

impl SimulatedDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk of its own with the same content and no faults: what is there after a restart.
    pub fn restarted(&self) -> Self {
        let segments = self.state().segments.clone();
        Self(Arc::new(Mutex::new(State { segments, ..State::default() })))
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
        self.state().tear = Some(tear);
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
    /// There is no such segment.
    pub fn read_upto(&self, segment: u32, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
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
        let state = self.state();
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
            return Err(io::Error::other("the simulated disk failed"));
        }
        let tear = state.tear.take();
        let content = state.segments.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        let place = &mut content[offset as usize..offset as usize + bytes.len()];
        let sectors = place.chunks_mut(SECTOR_BYTES).zip(bytes.chunks(SECTOR_BYTES));
        let mut random = fastrand::Rng::with_seed(match tear {
            Some(Tear::Scattered(seed)) => seed,
            _ => 0,
        });
        for (index, (old, new)) in sectors.enumerate() {
            let reaches = match tear {
                None => true,
                Some(Tear::Prefix(sectors)) => index < sectors,
                Some(Tear::Scattered(_)) => random.bool(),
            };
            if reaches {
                old.copy_from_slice(new);
            }
        }
        match tear {
            None => Ok(()),
            Some(_) => {
                state.fail_write = Some(0);
                Err(io::Error::other("the simulated power was lost"))
            }
        }
    }

    fn sync(&mut self, _: u32) -> io::Result<()> {
        let failed = self.state().fail_sync;
        if failed { Err(io::Error::other("the simulated disk cannot sync")) } else { Ok(()) }
    }

    fn make(&mut self, segment: u32, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let used: usize = state.segments.values().map(Vec::len).sum();
        let bytes = bytes as usize;
        if state.capacity_bytes.is_some_and(|capacity| used + bytes > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.segments.insert(segment, vec![0; bytes]);
        Ok(())
    }

    fn remove(&mut self, segment: u32) -> io::Result<()> {
        self.state().segments.remove(&segment);
        Ok(())
    }
}
