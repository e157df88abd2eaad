//! How far a partition's records are on the disk, in a file of its own.
//!
//! Whoever syncs records writes it behind the sync and before anybody is told. So after a kill a record
//! that cannot be read is known as damaged when it was acknowledged, and as cut off when it was not. It is
//! not synced itself, which would cost as much again: after a loss of power it may say less than the disk
//! has, and records tell the same of those some way before them.
//!
//! Invariants:
//! - It never says more than the disk has.
//! - What is answered for is in it before the answer.
//! - After a write that failed it does not move: nobody knows what the disk has.

use super::segment::LogSettings;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// What the file begins with.
const MAGIC: &[u8; 8] = b"coreflwW";
/// Bytes of it: they lie in one sector, which is written as a whole or not at all.
const BYTES: usize = 28;

/// What the file of a watermark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// There is none: no record was ever made, or an older version made them.
    Missing,
    /// It is not as it was written.
    Damaged,
    /// The sequence of a record that is on the disk, as all before it are.
    Synced(u64),
}

/// The watermark of a partition.
#[derive(Debug)]
pub struct Watermark {
    path: PathBuf,
    salt: u32,
    partition: u16,
    file: OnceLock<File>,
    is_stopped: AtomicBool,
}

/// The file of a partition's watermark.
pub fn watermark_name(partition: u16) -> String {
    format!("{partition:04}-synced.mark")
}

impl Mark {
    /// Reads a partition's.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(settings: &LogSettings) -> io::Result<Self> {
        let Some(watermark) = Watermark::of(settings) else { return Ok(Self::Missing) };
        let bytes = match fs::read(&watermark.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Missing),
            Err(error) => return Err(error),
        };
        let sequence = bytes.get(16..24).and_then(|it| it.try_into().ok()).map(u64::from_le_bytes);
        let is_well = |sequence: &u64| bytes == watermark.bytes(*sequence);
        Ok(sequence.filter(is_well).map_or(Self::Damaged, Self::Synced))
    }

    /// The sequence that it says; nothing when it says none.
    pub fn synced(self) -> Option<u64> {
        match self {
            Self::Synced(sequence) => Some(sequence),
            Self::Missing | Self::Damaged => None,
        }
    }
}

impl Watermark {
    /// That of a partition; none for memory alone. Nothing is opened or made yet.
    pub fn of(settings: &LogSettings) -> Option<Self> {
        let partition = settings.partition;
        Some(Self {
            path: settings.folder.as_ref()?.join(watermark_name(partition)),
            salt: settings.salt,
            partition,
            file: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
        })
    }

    /// Sees to it that the file is there. Its name is on the disk once the folder is synced.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn make(&self) -> io::Result<()> {
        let is_there = self.file()?.metadata()?.len() == BYTES as u64;
        if is_there { Ok(()) } else { self.begin(0) }
    }

    /// Says where records begin, on the disk: for a start, which has looked at all records.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn begin(&self, sequence: u64) -> io::Result<()> {
        let file = self.file()?;
        file.set_len(BYTES as u64)?;
        file.write_all_at(&self.bytes(sequence), 0)?;
        file.sync_all()
    }

    /// Everything up to a record is on the disk.
    ///
    /// # Errors
    /// The disk refuses; it does not move any more.
    pub fn advance(&self, sequence: u64) -> io::Result<()> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        let written = self.file().and_then(|file| file.write_all_at(&self.bytes(sequence), 0));
        written.inspect_err(|_| self.stop())
    }

    /// A write failed.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&self.path)?;
        Ok(self.file.get_or_init(|| file))
    }

    fn bytes(&self, sequence: u64) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.salt.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.partition).to_le_bytes());
        bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str) -> LogSettings {
        let name = format!("coreflow-watermark-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).unwrap();
        LogSettings {
            folder: Some(folder),
            partition: 3,
            segment_bytes: 4096,
            dimensions: 4,
            salt: 9,
            list: None,
        }
    }

    #[test]
    fn it_says_what_was_said_last_and_with_any_other_bytes_nothing() {
        let settings = settings("read");
        assert_eq!(Mark::read(&settings).unwrap(), Mark::Missing);
        let watermark = Watermark::of(&settings).unwrap();
        watermark.make().unwrap();
        assert_eq!(Mark::read(&settings).unwrap(), Mark::Synced(0));
        watermark.advance(0x1234_5678_9abc).unwrap();
        watermark.make().unwrap();
        assert_eq!(Mark::read(&settings).unwrap(), Mark::Synced(0x1234_5678_9abc));
        let bytes = fs::read(&watermark.path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            fs::write(&watermark.path, other).unwrap();
            assert_eq!(Mark::read(&settings).unwrap(), Mark::Damaged, "bit {bit}");
        }
        for length in (0..bytes.len()).chain([bytes.len() + 1]) {
            let mut other = bytes.clone();
            other.resize(length, 0);
            fs::write(&watermark.path, other).unwrap();
            assert_eq!(Mark::read(&settings).unwrap(), Mark::Damaged, "{length} bytes");
        }
        watermark.begin(7).unwrap();
        assert_eq!(Mark::read(&settings).unwrap(), Mark::Synced(7));
        fs::remove_dir_all(settings.folder.unwrap()).unwrap();
    }

    #[test]
    fn it_does_not_move_after_a_write_that_failed() {
        let settings = settings("stopped");
        let watermark = Watermark::of(&settings).unwrap();
        watermark.make().unwrap();
        watermark.advance(4).unwrap();
        watermark.stop();
        watermark.advance(5).unwrap();
        assert_eq!(Mark::read(&settings).unwrap(), Mark::Synced(4));
        fs::remove_dir_all(settings.folder.unwrap()).unwrap();
    }
}
