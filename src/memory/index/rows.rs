//! Where codes and links lie: in parts that never move, so that the partition grows without copying.
//!
//! A walk touches rows all over the partition, and with pages of 4 KiB the processor looks most of them up in
//! memory. So parts ask for pages of 2 MiB, but for the first 2 MiB of a table: a small partition takes
//! no more than it needs.

#![allow(unsafe_code)]

use super::{
    kernels::{Line, prefetch},
    options::LINKS_BASE,
};
use memmap2::{Advice, MmapMut};
use std::marker::PhantomData;

/// Rows of a part. With rows of whole cache lines a part is whole huge pages.
const PART_ROWS: usize = 1 << 15;
const HUGE_PAGE_BYTES: usize = 2 << 20;

const _: () = assert!((PART_ROWS * size_of::<Line>()).is_multiple_of(HUGE_PAGE_BYTES));

/// What a row is made of.
///
/// # Safety
///
/// All bytes zero are a value, and its alignment is at most a page.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: an array of bytes, aligned to 64.
unsafe impl Plain for Line {}
// SAFETY: an array of numbers, aligned to 64.
unsafe impl Plain for BaseLinks {}

/// A table of rows, each as many `T` long; all zeros until written.
pub(super) struct Rows<T> {
    parts: Vec<MmapMut>,
    /// Values of a row.
    width: usize,
    rows: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Rows<T> {
    pub(super) fn new(width: usize) -> Self {
        assert!(width > 0);
        Self { parts: Vec::new(), width, rows: 0, of: PhantomData }
    }

    /// Makes room for a row.
    pub(super) fn reserve(&mut self, row: u32) {
        self.rows = self.rows.max(row as usize + 1);
        while self.parts.len() <= row as usize / PART_ROWS {
            let bytes = PART_ROWS * self.width * size_of::<T>();
            let part = MmapMut::map_anon(bytes).expect("memory for the index");
            let start = if self.parts.is_empty() { HUGE_PAGE_BYTES.min(bytes) } else { 0 };
            // Where the kernel has no huge pages the part has small ones.
            let _ = part.advise_range(Advice::HugePage, start, bytes - start);
            self.parts.push(part);
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, row: u32) -> &[T] {
        let start = row as usize % PART_ROWS * self.width;
        let part = self.parts[row as usize / PART_ROWS].as_ptr().cast::<T>();
        // SAFETY: a part is `PART_ROWS * width` values and `start` is that of one of its rows. It is aligned to a
        // page, zeros are values, and whoever writes a row has this table to itself.
        unsafe { std::slice::from_raw_parts(part.add(start), self.width) }
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, row: u32) -> &mut [T] {
        let start = row as usize % PART_ROWS * self.width;
        let part = self.parts[row as usize / PART_ROWS].as_mut_ptr().cast::<T>();
        // SAFETY: as above, and the table is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(part.add(start), self.width) }
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, row: u32) {
        prefetch(self.get(row));
    }

    /// Bytes of the rows that were ever reserved; what is behind them was never touched.
    pub(super) fn bytes(&self) -> usize {
        let bytes = self.rows * self.width * size_of::<T>();
        let page = if bytes > HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 4096 };
        bytes.next_multiple_of(page)
    }
}

/// Fills the places behind a node's last link.
pub(super) const NONE: u32 = u32::MAX;

/// Links of a node on the lowest layer, in whole cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct BaseLinks(pub(super) [u32; LINKS_BASE]);
