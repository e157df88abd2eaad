//! The bytes of a segment: a mapped file, or memory of this process that nobody else has.
//!
//! Invariants:
//! - Bytes are read only below [`Region::readable`], and written only above: nothing that somebody
//!   may look at changes. The file belongs to this process alone (the folder is locked).
//! - A page that is not [resident](Region::is_resident) costs whoever touches it a read of the disk.
//!
//! A file that somebody shortens behind our back, or a disk that fails under a mapped page, ends the
//! process with SIGBUS; cold pages are read with `pread` first, which says what went wrong.

#![allow(unsafe_code)]

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::fs::{Advice, FallocateFlags};
use std::{
    fs::{self, File, OpenOptions},
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

const _: () = assert!(cfg!(target_endian = "little"), "vectors are read as they lie in the file");

/// What residency is counted in; a larger page of the kernel is resident as a whole.
const PAGE_BYTES: usize = 4096;

/// Memory that is given back at a time: some twenty microseconds of a core.
const RELEASE_BYTES: usize = 256 << 10;

/// The bytes of a segment.
#[derive(Debug)]
pub struct Region {
    map: MmapRaw,
    file: Option<(File, PathBuf)>,
    readable: AtomicUsize,
    /// Bytes from the begin that were given back.
    released: usize,
    /// A bit for each page: whether it was in memory when somebody last looked.
    resident: Box<[AtomicU64]>,
}

impl Region {
    /// Memory of this process, all zeros.
    ///
    /// # Errors
    /// There is not so much.
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(bytes)?.into();
        let readable = AtomicUsize::new(0);
        Ok(Self { map, file: None, readable, released: 0, resident: Box::default() })
    }

    /// Maps so many bytes of a file; nothing of it is readable yet. A file that is shorter is mapped
    /// all the same, and no more of it may be made readable than it has.
    ///
    /// # Errors
    /// It cannot be opened or mapped.
    pub fn open(path: &Path, bytes: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let map = MmapOptions::new().len(bytes).map_raw_read_only(&file)?;
        let words = map.len().div_ceil(PAGE_BYTES).div_ceil(64);
        let resident = (0..words).map(|_| AtomicU64::new(0)).collect();
        let file = Some((file, path.to_owned()));
        Ok(Self { map, file, readable: AtomicUsize::new(0), released: 0, resident })
    }

    /// Makes a file of so many zeros whose blocks are all there, and maps it.
    ///
    /// # Errors
    /// The disk is full, or refuses.
    pub fn make(path: &Path, bytes: usize) -> io::Result<Self> {
        let file = File::create(path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes as u64) {
            Ok(()) => {}
            // A file system without it: a full disk is told by the write that meets it.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes as u64)?,
            Err(error) => {
                // What is there in part would only take room from others.
                let _ = fs::remove_file(path);
                return Err(error.into());
            }
        }
        file.sync_all()?;
        Self::open(path, bytes)
    }

    /// Bytes of it.
    pub fn size(&self) -> usize {
        self.map.len()
    }

    /// Bytes that are there: fewer than [`Region::size`] when somebody shortened the file.
    ///
    /// # Errors
    /// The system does not say.
    pub fn bytes_there(&self) -> io::Result<usize> {
        let Some((file, _)) = &self.file else { return Ok(self.size()) };
        Ok(usize::try_from(file.metadata()?.len()).map_or(self.size(), |it| it.min(self.size())))
    }

    /// The file; `None` for memory.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(_, path)| path.as_path())
    }

    /// Up to where bytes may be read.
    pub fn readable(&self) -> usize {
        self.readable.load(Ordering::Acquire)
    }

    /// Makes bytes readable that are written and will not be written again.
    pub fn advance(&self, upto: usize) {
        assert!(upto <= self.size());
        let before = self.readable.fetch_max(upto, Ordering::AcqRel);
        self.note(before..upto.max(before), true);
    }

    /// The same for what was written before this process began; whether it is in memory is unknown.
    pub fn advance_unseen(&self, upto: usize) {
        assert!(upto <= self.size());
        self.readable.fetch_max(upto, Ordering::AcqRel);
    }

    /// Bytes below [`Region::readable`].
    ///
    /// # Panics
    /// When the range goes beyond that.
    #[inline]
    pub fn bytes(&self, offset: usize, length: usize) -> &[u8] {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= self.readable()), "the bytes are not readable yet");
        // SAFETY: the range lies in the map, which lives as long as the slice. What is readable is
        // not written again: `write` refuses it here, `write_file` likewise, and the file belongs
        // to this process.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(offset), length) }
    }

    /// Numbers below [`Region::readable`], at a multiple of four bytes.
    ///
    /// # Panics
    /// When the range goes beyond that, or begins elsewhere.
    #[inline]
    pub fn floats(&self, offset: usize, count: usize) -> &[f32] {
        let bytes = self.bytes(offset, count * size_of::<f32>());
        assert!(offset.is_multiple_of(align_of::<f32>()));
        // SAFETY: the map begins at a page, so the offset's alignment is the pointer's; every
        // pattern of bits is a number; the bytes are as long as the numbers.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), count) }
    }

    /// Writes into memory of this process, above what is readable.
    ///
    /// # Panics
    /// When the region is a file, or the range is readable or beyond the end. One thread writes at
    /// a time: the partition that owns the region.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(self.file.is_none() && offset >= self.readable());
        assert!(offset + bytes.len() <= self.size());
        // SAFETY: the range lies in the map, which is writable memory of this process, and nobody
        // reads above `readable`.
        unsafe {
            let target = self.map.as_mut_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    /// Writes to the file, above what is readable; in memory when it returns, on the disk after
    /// [`Region::sync`].
    ///
    /// # Errors
    /// Any: nobody knows what was written.
    pub fn write_file(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(offset >= self.readable() && offset + bytes.len() <= self.size());
        match &self.file {
            Some((file, _)) => file.write_all_at(bytes, offset as u64),
            None => Ok(()),
        }
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// The disk refuses: nobody knows what it has.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |(file, _)| file.sync_data())
    }

    /// Whether all pages of a range were in memory when somebody last looked.
    #[inline]
    pub fn is_resident(&self, offset: usize, length: usize) -> bool {
        let pages = offset / PAGE_BYTES..(offset + length).div_ceil(PAGE_BYTES);
        self.file.is_none() || pages.into_iter().all(|page| self.page_bit(page))
    }

    fn page_bit(&self, page: usize) -> bool {
        self.resident[page / 64].load(Ordering::Relaxed) >> (page % 64) & 1 == 1
    }

    fn note(&self, bytes: std::ops::Range<usize>, is_resident: bool) {
        if self.file.is_none() || bytes.is_empty() {
            return;
        }
        for page in bytes.start / PAGE_BYTES..bytes.end.div_ceil(PAGE_BYTES) {
            self.set_page(page, is_resident);
        }
    }

    fn set_page(&self, page: usize, is_resident: bool) {
        let (word, bit) = (&self.resident[page / 64], 1 << (page % 64));
        match is_resident {
            true => word.fetch_or(bit, Ordering::Relaxed),
            false => word.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// Asks the kernel to read a range ahead; the range is not in memory yet when this returns.
    pub fn fetch(&self, offset: usize, length: usize) {
        if let (Some((file, _)), Some(length)) = (&self.file, NonZeroU64::new(length as u64)) {
            // It is advice: that it was not taken changes nothing but the time.
            let _ = rustix::fs::fadvise(file, offset as u64, Some(length), Advice::WillNeed);
        }
    }

    /// Waits until a range is in memory.
    ///
    /// # Errors
    /// The disk cannot read it.
    pub fn load(&self, offset: usize, length: usize) -> io::Result<()> {
        let Some((file, _)) = &self.file else { return Ok(()) };
        let (mut at, end) = (offset, (offset + length).min(self.size()));
        let mut scratch = [0; 16 << 10];
        while at < end {
            let part = (end - at).min(scratch.len());
            file.read_exact_at(&mut scratch[..part], at as u64)?;
            at += part;
        }
        self.note(offset..end, true);
        Ok(())
    }

    /// Asks the kernel which pages are in memory.
    ///
    /// # Errors
    /// The kernel does not say; what was known before still counts.
    pub fn look(&self) -> io::Result<()> {
        // SAFETY: sysconf takes no pointer.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        if self.file.is_none() || page_bytes != PAGE_BYTES as libc::c_long {
            return Ok(());
        }
        let pages = self.size().div_ceil(PAGE_BYTES);
        let mut found = vec![0_u8; pages];
        // SAFETY: the range is the map, which lives through the call, and the vector has a byte
        // for each of its pages.
        let result =
            unsafe { libc::mincore(self.map.as_mut_ptr().cast(), self.size(), found.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let readable = self.readable().div_ceil(PAGE_BYTES);
        for (page, state) in found.iter().take(readable).enumerate() {
            let is_resident = state & 1 == 1;
            if is_resident != self.page_bit(page) {
                self.set_page(page, is_resident);
            }
        }
        Ok(())
    }

    /// Gives the next piece of memory back to the system, whose content is lost; false when all is. All at
    /// once it would take as long as some thousand messages.
    ///
    /// # Panics
    /// When the region is a file.
    pub fn release_some(&mut self) -> bool {
        assert!(self.file.is_none(), "files are removed");
        let length = RELEASE_BYTES.min(self.size() - self.released);
        if length > 0 {
            // SAFETY: the range lies in the map, and nobody looks at it: the region is borrowed for
            // writing. Its bytes are zeros afterwards, which are bytes as well.
            let result = unsafe {
                let start = self.map.as_mut_ptr().add(self.released);
                libc::madvise(start.cast(), length, libc::MADV_DONTNEED)
            };
            // What the system does not take back now goes with the map.
            self.released = if result == 0 { self.released + length } else { self.size() };
        }
        self.released < self.size()
    }

    /// Asks the kernel to forget what it has of the file: for measurements of cold reads.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget(&self) -> io::Result<()> {
        let Some((file, _)) = &self.file else { return Ok(()) };
        file.sync_data()?;
        // SAFETY: the range is the map; what is dropped is read from the file again when touched.
        let result = unsafe {
            libc::madvise(self.map.as_mut_ptr().cast(), self.size(), libc::MADV_DONTNEED)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
        self.look()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_where_it_was_written_and_knows_what_is_in_memory() {
        let path = std::env::temp_dir().join(format!("coreflow-region-{}", std::process::id()));
        let region = Region::make(&path, 1 << 20).unwrap();
        region.write_file(0, &[7; 10_000]).unwrap();
        region.sync().unwrap();
        assert!(!region.is_resident(0, 10_000));
        region.advance(10_000);
        assert!(region.is_resident(0, 10_000));
        assert_eq!(region.bytes(9_999, 1), [7]);
        region.forget().unwrap();
        assert_eq!(region.bytes(0, 10_000), [7; 10_000]);
        region.load(4096, 4096).unwrap();
        assert!(region.is_resident(4096, 4096));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn memory_is_read_where_it_was_written() {
        let region = Region::anonymous(1 << 20).unwrap();
        region.write(64, &1.5_f32.to_le_bytes());
        region.advance(68);
        assert_eq!(region.floats(64, 1), [1.5]);
        assert!(region.is_resident(0, 1 << 20) && !region.size().is_multiple_of(3));
    }

    #[test]
    fn memory_is_given_back_in_pieces() {
        let mut region = Region::anonymous(2 * RELEASE_BYTES + 4096).unwrap();
        region.write(0, &[7; 100]);
        assert!(region.release_some() && region.release_some() && !region.release_some());
        assert!(!region.release_some());
        region.advance(1);
        assert_eq!(region.bytes(0, 1), [0]);
    }

    #[test]
    #[should_panic = "not readable yet"]
    fn what_is_not_readable_yet_is_not_read() {
        Region::anonymous(4096).unwrap().bytes(0, 1);
    }
}
