//! Where codes and links lie: in parts that never move, so that the partition grows without copying.

use super::{kernels::prefetch, options::LINKS_BASE};

/// Rows of a part.
const PART_ROWS: usize = 4096;

/// A table of rows, each as many `T` long.
pub(super) struct Rows<T> {
    parts: Vec<Box<[T]>>,
    /// Values of a row.
    width: usize,
    filler: T,
}

impl<T: Copy> Rows<T> {
    pub(super) fn new(width: usize, filler: T) -> Self {
        assert!(width > 0);
        Self { parts: Vec::new(), width, filler }
    }

    /// Makes room for a row.
    pub(super) fn reserve(&mut self, row: u32) {
        while self.parts.len() <= row as usize / PART_ROWS {
            let part = vec![self.filler; PART_ROWS * self.width];
            self.parts.push(part.into_boxed_slice());
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, row: u32) -> &[T] {
        let row = row as usize;
        &self.parts[row / PART_ROWS][row % PART_ROWS * self.width..][..self.width]
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, row: u32) -> &mut [T] {
        let row = row as usize;
        &mut self.parts[row / PART_ROWS][row % PART_ROWS * self.width..][..self.width]
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, row: u32) {
        prefetch(self.get(row));
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts.len() * PART_ROWS * self.width * size_of::<T>()
    }
}

/// Fills the places behind a node's last link.
pub(super) const NONE: u32 = u32::MAX;

/// Links of a node on the lowest layer, in whole cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct BaseLinks(pub(super) [u32; LINKS_BASE]);

impl BaseLinks {
    pub(super) const EMPTY: BaseLinks = BaseLinks([NONE; LINKS_BASE]);
}
