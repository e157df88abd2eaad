//! Where codes, links and all else of nodes lie: in parts that never move, so that the partition grows without
//! copying.
//!
//! A walk touches rows all over the partition, and with pages of 4 KiB the processor looks most of them up in
//! memory. So parts of whole huge pages ask for pages of 2 MiB, but for the first 2 MiB of a table: a small
//! partition takes no more than it needs.
//!
//! The system clears a huge page when it is first touched, which may take some milliseconds on a virtual
//! machine. So a table says shortly before its rows reach the next one ([`Rows::take_ahead`]), and somebody
//! who may wait has it made.

#![allow(unsafe_code)]

use super::{
    graph::{Node, Tower},
    kernels::{Line, prefetch},
    options::LINKS_BASE,
    quantize::Terms,
};
use memmap2::{Advice, MmapMut, MmapRaw};
use std::{
    ops::{Index, IndexMut},
    sync::Arc,
};

/// Rows of a part. With rows of whole cache lines a part is whole huge pages.
const PART_ROWS: usize = 1 << 15;
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// So many bytes before its rows reach it a huge page is asked for.
const AHEAD_BYTES: usize = HUGE_PAGE_BYTES / 8;

const _: () = assert!((PART_ROWS * size_of::<Line>()).is_multiple_of(HUGE_PAGE_BYTES));

/// What a row is made of.
///
/// # Safety
///
/// All bytes zero are a value, it is plain data, and its alignment is at most a page.
pub(super) unsafe trait Plain: Copy + Send + Sync {}

// SAFETY: an array of bytes, aligned to 64.
unsafe impl Plain for Line {}
// SAFETY: an array of numbers, aligned to 64.
unsafe impl Plain for BaseLinks {}
// SAFETY: an array of numbers.
unsafe impl Plain for Tower {}
// SAFETY: two numbers.
unsafe impl Plain for Terms {}
// SAFETY: numbers and a state, whose first is free.
unsafe impl Plain for Node {}

/// Some rows of a table.
struct Part<T> {
    /// Where the map begins: read at each access.
    start: *mut T,
    map: Arc<MmapRaw>,
}

// SAFETY: the pointer leads into the map, which any thread may use, and the values may be sent.
unsafe impl<T: Plain> Send for Part<T> {}
// SAFETY: as above; whoever writes has the table to itself.
unsafe impl<T: Plain> Sync for Part<T> {}

/// A table of rows, each as many `T` long; all zeros until written.
pub(super) struct Rows<T> {
    parts: Vec<Part<T>>,
    /// Values of a row.
    width: usize,
    rows: usize,
    /// The next huge page, when rows come near it.
    ahead: Option<PagesAhead>,
    /// Bytes of the table up to the end of the last huge page that was asked for.
    asked: usize,
}

/// Memory that an index is about to use.
#[derive(Debug)]
pub struct PagesAhead {
    map: Arc<MmapRaw>,
    offset: usize,
}

impl PagesAhead {
    /// Has the system make the memory, whose content does not change. It takes as long as some insertions,
    /// or some hundred, so this is for a thread that keeps nobody waiting.
    pub fn populate(self) {
        // A system that does not know how makes the memory when it is used.
        let _ = self.map.advise_range(Advice::PopulateWrite, self.offset, HUGE_PAGE_BYTES);
    }
}

impl<T: Plain> Rows<T> {
    pub(super) fn new(width: usize) -> Self {
        assert!(width > 0);
        Self { parts: Vec::new(), width, rows: 0, ahead: None, asked: 0 }
    }

    fn row_bytes(&self) -> usize {
        self.width * size_of::<T>()
    }

    fn part_bytes(&self) -> usize {
        PART_ROWS * self.row_bytes()
    }

    /// Makes room for a row.
    pub(super) fn reserve(&mut self, row: u32) {
        let row = row as usize;
        self.rows = self.rows.max(row + 1);
        self.map_up_to(row / PART_ROWS);
        let near = (row + 1) * self.row_bytes() + AHEAD_BYTES;
        let is_first = near < HUGE_PAGE_BYTES;
        if is_first || near < self.asked || !self.part_bytes().is_multiple_of(HUGE_PAGE_BYTES) {
            return;
        }
        let begin = near - near % HUGE_PAGE_BYTES;
        let (part, offset) = (begin / self.part_bytes(), begin % self.part_bytes());
        self.map_up_to(part);
        self.asked = begin + HUGE_PAGE_BYTES;
        self.ahead = Some(PagesAhead { map: self.parts[part].map.clone(), offset });
    }

    fn map_up_to(&mut self, last: usize) {
        while self.parts.len() <= last {
            let bytes = self.part_bytes();
            let map = MmapMut::map_anon(bytes).expect("memory for the index");
            if bytes.is_multiple_of(HUGE_PAGE_BYTES) {
                let start = if self.parts.is_empty() { HUGE_PAGE_BYTES } else { 0 };
                // Where the kernel has no huge pages the part has small ones.
                let _ = map.advise_range(Advice::HugePage, start, bytes - start);
            }
            let map = Arc::new(MmapRaw::from(map));
            self.parts.push(Part { start: map.as_mut_ptr().cast(), map });
        }
    }

    /// The huge page that rows are about to reach, once.
    pub(super) fn take_ahead(&mut self) -> Option<PagesAhead> {
        self.ahead.take()
    }

    #[inline(always)]
    pub(super) fn get(&self, row: u32) -> &[T] {
        let start = row as usize % PART_ROWS * self.width;
        let part = self.parts[row as usize / PART_ROWS].start;
        // SAFETY: a part is `PART_ROWS * width` values and `start` is that of one of its rows. It is aligned to a
        // page, zeros are values, and whoever writes a row has this table to itself.
        unsafe { std::slice::from_raw_parts(part.add(start), self.width) }
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, row: u32) -> &mut [T] {
        let start = row as usize % PART_ROWS * self.width;
        let part = self.parts[row as usize / PART_ROWS].start;
        // SAFETY: as above, and the table is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(part.add(start), self.width) }
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, row: u32) {
        prefetch(self.get(row));
    }

    /// Bytes of the rows that were ever reserved; what is behind them was never touched.
    pub(super) fn bytes(&self) -> usize {
        let bytes = self.rows * self.row_bytes();
        let has_huge_pages = self.part_bytes().is_multiple_of(HUGE_PAGE_BYTES);
        let is_huge = has_huge_pages && bytes > HUGE_PAGE_BYTES;
        let bytes = bytes.next_multiple_of(if is_huge { HUGE_PAGE_BYTES } else { 4096 });
        // What was taken in advance is there already.
        if self.ahead.is_none() { bytes.max(self.asked) } else { bytes }
    }
}

/// A table of one value a row, from zero up to its length.
pub(super) struct Column<T> {
    rows: Rows<T>,
    length: usize,
}

impl<T: Plain> Column<T> {
    pub(super) fn new() -> Self {
        Self { rows: Rows::new(1), length: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, value: T) {
        let row = self.length as u32;
        self.rows.reserve(row);
        self.rows.get_mut(row)[0] = value;
        self.length += 1;
    }

    #[inline(always)]
    pub(super) fn get(&self, row: usize) -> Option<&T> {
        (row < self.length).then(|| &self.rows.get(row as u32)[0])
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        (0..self.length).map(|row| &self[row])
    }

    /// Forgets all rows. Memory is kept for what comes.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) fn take_ahead(&mut self) -> Option<PagesAhead> {
        self.rows.take_ahead()
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}

impl<T: Plain> Index<usize> for Column<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, row: usize) -> &T {
        assert!(row < self.length);
        &self.rows.get(row as u32)[0]
    }
}

impl<T: Plain> IndexMut<usize> for Column<T> {
    #[inline(always)]
    fn index_mut(&mut self, row: usize) -> &mut T {
        assert!(row < self.length);
        &mut self.rows.get_mut(row as u32)[0]
    }
}

/// Fills the places behind a node's last link.
pub(super) const NONE: u32 = u32::MAX;

/// Links of a node on the lowest layer, in whole cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct BaseLinks(pub(super) [u32; LINKS_BASE]);
