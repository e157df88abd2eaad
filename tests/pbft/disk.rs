//! A replica's disk: what was written in its order, of which a crash leaves what was synced and as much
//! of the rest as it comes.

use coreflow::consensus::place::Place;
use std::collections::VecDeque;

/// Something that was written.
#[derive(Clone, Debug)]
pub struct Record<W> {
    /// Where it lies.
    pub place: Place,
    /// The partition that it is of.
    pub partition: u16,
    /// What it is.
    pub write: W,
}

/// The disk.
#[derive(Clone, Debug)]
pub struct Disk<W> {
    records: VecDeque<Record<W>>,
    /// Records that were ever written; the place of the next one.
    written: u64,
    /// Places below this one are safe.
    synced: u64,
}

impl<W> Default for Disk<W> {
    fn default() -> Self {
        Self { records: VecDeque::new(), written: 0, synced: 0 }
    }
}

impl<W> Disk<W> {
    /// Writes something behind everything else.
    pub fn write(&mut self, partition: u16, write: W) -> Place {
        let place = Place { generation: self.written, offset: 0 };
        self.written += 1;
        self.records.push_back(Record { place, partition, write });
        place
    }

    /// How much was written until now, for [`Disk::sync`] and [`Disk::free`].
    pub fn end(&self) -> u64 {
        self.written
    }

    /// Where what is safe and not freed begins and ends.
    pub fn range(&self) -> (u64, u64) {
        let first = self.records.front().map_or(self.synced, |first| first.place.generation);
        (first.min(self.synced), self.synced)
    }

    /// What was written up to an end is safe.
    pub fn sync(&mut self, end: u64) {
        self.synced = end.max(self.synced);
    }

    /// What lies before an end is not needed any more.
    pub fn free(&mut self, end: u64) {
        while self.records.front().is_some_and(|first| first.place.generation < end) {
            self.records.pop_front();
        }
    }

    /// The power is lost: of what is not safe, some is there.
    pub fn crash(&mut self, rng: &mut fastrand::Rng) {
        let kept = rng.u64(self.synced..=self.written);
        while self.records.back().is_some_and(|last| last.place.generation >= kept) {
            self.records.pop_back();
        }
        // Places are not given twice, so that nobody takes a new record for an old one.
        self.synced = self.written;
    }

    /// What lies at a place.
    pub fn read(&self, place: Place) -> Option<&Record<W>> {
        let at = self.records.binary_search_by_key(&place, |record| record.place).ok()?;
        self.records.get(at)
    }

    /// All that is there, in the order in which it was written.
    pub fn records(&self) -> impl Iterator<Item = &Record<W>> {
        self.records.iter()
    }
}
