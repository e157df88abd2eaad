//! What a partition asks of those who may wait for the disk, and what they answer.
//!
//! A partition writes no file itself: it fills buffers, and another thread writes and syncs them. Jobs
//! of one kind are done in the order in which they were given.

use super::{files::FileList, region::Region, watermark::Watermark};
use crate::{memory::index::PagesAhead, runtime::disk::sync_folder};
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Something that waits for the disk.
#[derive(Debug)]
pub enum Job {
    /// For the thread that writes: it syncs once for all that it has.
    Write(Write),
    /// Makes a segment.
    Make(Make),
    /// Removes a segment's file, when nobody reads it any more.
    Remove(Remove),
    /// Brings records into memory.
    Load(Load),
    /// Writes a part of a checkpoint.
    Save(Save),
    /// Has the system make memory that the index needs soon.
    Populate(PagesAhead),
}

/// Records to be written and synced.
#[derive(Debug)]
pub struct Write {
    /// Where they go.
    pub region: Arc<Region>,
    /// Where in it.
    pub offset: usize,
    /// The records.
    pub bytes: Vec<u8>,
    /// Up to which record the disk has all once they are on it, seals apart.
    pub sequence: u64,
    /// What says how far records are on the disk; `None` for memory alone.
    pub watermark: Option<Arc<Watermark>>,
}

/// A segment to be made.
#[derive(Debug)]
pub struct Make {
    /// Its file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: usize,
    /// What it begins with.
    pub head: Vec<u8>,
    /// Its number.
    pub number: u32,
    /// The list that gets it.
    pub list: Option<Arc<FileList>>,
    /// What is made beside the first one.
    pub watermark: Option<Arc<Watermark>>,
}

/// A segment to be removed: nothing in it lives, and all before it are gone.
#[derive(Debug)]
pub struct Remove {
    /// Its bytes.
    pub region: Arc<Region>,
    /// Its number.
    pub number: u32,
    /// The list that has it.
    pub list: Option<Arc<FileList>>,
}

/// Bytes that are to be in memory: a region, the offset and the length.
pub type Piece = (Arc<Region>, usize, usize);

/// Records to be brought into memory.
#[derive(Debug)]
pub struct Load {
    /// Whose they are: comes back with the answer.
    pub token: u64,
    /// Where they lie.
    pub pieces: Vec<Piece>,
}

/// A part of a checkpoint's file.
#[derive(Debug)]
pub struct Save {
    /// The file that is written.
    pub path: PathBuf,
    /// Where the bytes go.
    pub offset: u64,
    /// What is written.
    pub bytes: Vec<u8>,
    /// The name that the whole file gets, once it is on the disk; nothing before the last part.
    pub finished: Option<PathBuf>,
}

/// What became of a job.
#[derive(Debug)]
pub enum Done {
    /// The oldest write: its records are on the disk, and the buffer may be filled again.
    Written(io::Result<Vec<u8>>),
    /// A segment is there.
    Made(io::Result<Arc<Region>>),
    /// Records are in memory, or why they are not.
    Loaded(u64, io::Result<()>),
    /// A part of a checkpoint is written; the buffer may be filled again.
    Saved(io::Result<Vec<u8>>),
}

impl Write {
    /// Writes without waiting for the disk.
    ///
    /// # Errors
    /// Any: nobody knows what was written.
    pub fn write(&self) -> io::Result<()> {
        self.region.write_file(self.offset, &self.bytes)
    }

    /// What became of it, by what became of the write and of the sync behind it: what is on the disk is
    /// noted as such before anybody is told.
    pub fn finish(self, synced: io::Result<()>) -> Done {
        let Self { watermark, sequence, bytes, .. } = self;
        let Some(watermark) = watermark else { return Done::Written(synced.map(|()| bytes)) };
        let noted = match synced {
            Ok(()) => watermark.advance(sequence),
            Err(error) => {
                watermark.stop();
                Err(error)
            }
        };
        Done::Written(noted.map(|()| bytes))
    }
}

impl Job {
    /// Does the job and waits until it is on the disk; nothing to tell of a removal, and of memory.
    pub fn perform(self) -> Option<Done> {
        Some(match self {
            Self::Write(write) => {
                let synced = write.write().and_then(|()| write.region.sync());
                write.finish(synced)
            }
            Self::Make(make) => Done::Made(make.perform().map(Arc::new)),
            Self::Remove(remove) => {
                remove.perform();
                return None;
            }
            Self::Load(load) => {
                let result = load.perform();
                Done::Loaded(load.token, result)
            }
            Self::Populate(pages) => {
                pages.populate();
                return None;
            }
            Self::Save(save) => {
                let result = save.perform();
                Done::Saved(result.map(|()| save.bytes))
            }
        })
    }
}

impl Make {
    fn perform(&self) -> io::Result<Region> {
        let region = Region::make(&self.path, self.bytes)?;
        region.write_file(0, &self.head)?;
        region.sync()?;
        self.watermark.as_ref().map_or(Ok(()), |watermark| watermark.make())?;
        self.path.parent().map_or(Ok(()), sync_folder)?;
        self.list.as_ref().map_or(Ok(()), |list| list.made(self.number))?;
        Ok(region)
    }
}

impl Load {
    /// All pieces are asked for before the first one is waited for: the disk reads them at once.
    fn perform(&self) -> io::Result<()> {
        self.pieces.iter().for_each(|(region, offset, length)| region.fetch(*offset, *length));
        self.pieces.iter().try_for_each(|(region, offset, length)| region.load(*offset, *length))
    }
}

impl Save {
    fn perform(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(self.offset == 0);
        let file = options.open(&self.path)?;
        file.write_all_at(&self.bytes, self.offset)?;
        let Some(finished) = &self.finished else { return Ok(()) };
        file.sync_all()?;
        fs::rename(&self.path, finished)?;
        finished.parent().map_or(Ok(()), sync_folder)
    }
}

impl Remove {
    fn perform(&self) {
        let Some(path) = self.region.path() else { return };
        let parent = path.parent().unwrap_or(Path::new("."));
        let listed = self.list.as_ref().map_or(Ok(()), |list| list.freed(self.number));
        let removed =
            listed.and_then(|()| fs::remove_file(path)).and_then(|()| sync_folder(parent));
        // A file that stays is found at the next start, and what is in it was superseded.
        if let Err(error) = removed {
            tracing::warn!(%error, file = %path.display(), "a record file cannot be removed");
        }
    }
}
