//! The real disk: a folder of segment files.

use super::{
    disk::{Disk, SegmentFile},
    format::{segment_name, segment_number},
};
use crate::runtime::disk::{self, SyncedFile};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// What a segment is called until all of it is written.
const UNFINISHED: &str = "segment.new";

/// A folder of segment files. A clone opens its own.
#[derive(Debug)]
pub struct SegmentFolder {
    path: PathBuf,
    direct: bool,
    written: Option<(u32, SyncedFile)>,
    read: Option<(u32, File)>,
}

impl Clone for SegmentFolder {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), direct: self.direct, written: None, read: None }
    }
}

impl SegmentFolder {
    /// The folder at `path`; `direct` says whether its files are written past the page cache.
    pub fn new(path: &Path, direct: bool) -> Self {
        Self { path: path.to_owned(), direct, written: None, read: None }
    }

    /// The path of a segment.
    pub fn path(&self, segment: u32) -> PathBuf {
        self.path.join(segment_name(segment))
    }

    fn written(&mut self, segment: u32) -> io::Result<&SyncedFile> {
        if self.written.as_ref().is_none_or(|(number, _)| *number != segment) {
            let file = SyncedFile::open(&self.path(segment), self.direct)?;
            self.written = Some((segment, file));
        }
        let (_, file) = self.written.as_ref().expect("the file was just opened");
        Ok(file)
    }
}

impl Disk for SegmentFolder {
    fn segments(&mut self) -> io::Result<Vec<SegmentFile>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(number) = entry.file_name().to_str().and_then(segment_number) {
                segments.push(SegmentFile { number, bytes: entry.metadata()?.len() });
            }
        }
        segments.sort_by_key(|segment| segment.number);
        Ok(segments)
    }

    fn read(&mut self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<()> {
        // A number may have been removed and made again since its file was opened.
        let is_there = |file: &File| file.metadata().is_ok_and(|found| found.nlink() > 0);
        if !self.read.as_ref().is_some_and(|(number, file)| *number == segment && is_there(file)) {
            self.read = Some((segment, File::open(self.path(segment))?));
        }
        let (_, file) = self.read.as_ref().expect("the file was just opened");
        file.read_exact_at(into, offset)
    }

    fn write(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.written(segment)?.write(offset, bytes)
    }

    fn sync(&mut self, segment: u32) -> io::Result<()> {
        self.written(segment)?.sync()
    }

    fn make(&mut self, segment: u32, bytes: u64) -> io::Result<()> {
        let unfinished = self.path.join(UNFINISHED);
        let made = disk::write_zeros(&unfinished, bytes, self.direct)
            .and_then(|()| fs::rename(&unfinished, self.path(segment)))
            .and_then(|()| disk::sync_folder(&self.path));
        if made.is_err() {
            // The room that it took is needed; what remains is written over at the next try.
            let _ = fs::remove_file(&unfinished);
        }
        made
    }

    fn remove(&mut self, segment: u32) -> io::Result<()> {
        fs::remove_file(self.path(segment))
    }
}
