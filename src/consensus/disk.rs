//! What the log asks of a disk.

use std::io;

/// A segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// The number in its name.
    pub number: u32,
    /// Its length.
    pub bytes: u64,
}

/// Segments, by number. The real one is a folder of files, the simulated one loses power.
pub trait Disk {
    /// Every segment that is there, in the order of their numbers.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn segments(&mut self) -> io::Result<Vec<SegmentFile>>;

    /// Fills `into` from a segment.
    ///
    /// # Errors
    /// There are not that many bytes, or they cannot be read.
    fn read(&mut self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes whole pages at the begin of a page; once it returns they outlast a loss of power.
    ///
    /// # Errors
    /// Any: the bytes may be written in part, and nothing may be written after them.
    fn write(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was read from a segment outlast a loss of power.
    ///
    /// # Errors
    /// The disk refuses.
    fn sync(&mut self, segment: u32) -> io::Result<()>;

    /// Makes a segment of `bytes` zeros that outlasts a loss of power. Nothing is left of it after
    /// an error.
    ///
    /// # Errors
    /// The disk is full, or refuses.
    fn make(&mut self, segment: u32, bytes: u64) -> io::Result<()>;

    /// Removes a segment.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&mut self, segment: u32) -> io::Result<()>;
}
