//! A folder of pattern memory, or memory alone, as partitions that can be served.

use super::{
    checkpoint::{self, Checkpoint, Loaded},
    head::{HeadError, StoreHead},
    job::Done,
    log::{LogSettings, RecordLog},
    partition::{Partition, Step, index_options},
    record::hash_of,
    recover::{self, From, RecoverError},
    room::Room,
};
use crate::{
    memory::index::Index,
    runtime::disk::{FolderLock, LockError, make_folder, replace_file},
    wire::memory::Metric,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

/// Changes after which a checkpoint is worth while, at least.
const CHANGES_LEAST: u64 = 10_000;
/// One change for so many items.
const CHANGES_OF_ITEMS: u64 = 4;
/// The file with the head.
pub(super) const HEAD_NAME: &str = "head";

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Where it lies; `None` for memory alone.
    pub folder: Option<PathBuf>,
    /// Numbers of each vector.
    pub dimension: usize,
    /// What near means.
    pub metric: Metric,
    /// Partitions of a store that is not there yet.
    pub partitions: u16,
    /// Candidates that an insertion weighs.
    pub ef_construction: usize,
    /// Items that all partitions together may have.
    pub items_max: usize,
    /// Bytes of one segment.
    pub segment_bytes: usize,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has it.
    #[error("pattern memory in {}: {source}", folder.display())]
    Lock {
        /// The folder.
        folder: PathBuf,
        /// Who has it.
        source: LockError,
    },
    /// A file cannot be read or written.
    #[error("pattern memory in {}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The head is damaged.
    #[error("{}: {source}", file.display())]
    Head {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: HeadError,
    },
    /// What is stored has another dimension or metric than the configuration says.
    #[error(
        "pattern memory in {} has {found}, and the configuration says {wanted}: configure what it \
         has, or name another folder (memory.folder) and store the items again",
        folder.display()
    )]
    Other {
        /// The folder.
        folder: PathBuf,
        /// What it has.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// The record files cannot be used.
    #[error("pattern memory: {0}")]
    Files(#[from] RecoverError),
    /// The configuration's numbers do not fit each other.
    #[error("pattern memory: {0}")]
    Options(String),
}

/// A store whose partitions can be served.
pub struct Store {
    /// What holds for all of it.
    pub head: StoreHead,
    /// Its partitions, in order.
    pub partitions: Vec<Partition>,
    /// The folder is this process's for as long as this is kept.
    pub lock: Option<FolderLock>,
}

/// The partition of an item.
pub fn partition_of(namespace: &str, key: &str, partitions: u16) -> u16 {
    let upper_half = hash_of(namespace, key) >> 32;
    ((upper_half * u64::from(partitions)) >> 32) as u16
}

impl StoreSettings {
    fn new_head(&self) -> StoreHead {
        StoreHead {
            dimension: self.dimension as u32,
            metric: self.metric,
            partitions: self.partitions,
            salt: fastrand::u32(..),
        }
    }

    /// The head that a folder has, or is given.
    fn head(&self, folder: &Path) -> Result<StoreHead, OpenError> {
        let file = folder.join(HEAD_NAME);
        let io = |source| OpenError::Io { folder: folder.to_owned(), source };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let head = self.new_head();
                replace_file(&file, head.to_string().as_bytes()).map_err(io)?;
                return Ok(head);
            }
            Err(error) => return Err(io(error)),
        };
        let head: StoreHead = text.parse().map_err(|source| OpenError::Head { file, source })?;
        let say = |dimension: u32, metric: Metric| {
            format!("vectors of {dimension} numbers, metric {:?}", metric.name())
        };
        let (dimension, metric) = (self.dimension as u32, self.metric);
        if (head.dimension, head.metric) != (dimension, metric) {
            return Err(OpenError::Other {
                folder: folder.to_owned(),
                found: say(head.dimension, head.metric),
                wanted: say(dimension, metric),
            });
        }
        Ok(head)
    }

    pub(super) fn log(&self, head: &StoreHead, partition: u16) -> LogSettings {
        LogSettings {
            folder: self.folder.clone(),
            partition,
            segment_bytes: self.segment_bytes,
            dimensions: self.dimension,
            salt: head.salt,
        }
    }

    fn partition(&self, head: &StoreHead, number: u16, room: Room) -> Result<Partition, OpenError> {
        // Names are dealt out by their hashes, so that each partition gets about the same.
        let items_max = self.items_max.div_ceil(head.partitions.into());
        let options = index_options(self.dimension, self.metric, self.ef_construction, items_max);
        let log = self.log(head, number);
        let io = |source| OpenError::Io { folder: self.folder.clone().unwrap_or_default(), source };
        let loaded = match &self.folder {
            Some(folder) => {
                let first = recover::list(folder, number)?.first().copied().unwrap_or(0);
                checkpoint::load(&log, options.clone(), first).map_err(io)?
            }
            None => None,
        };
        let from = loaded.as_ref().map_or(From::default(), |loaded| loaded.from);
        let files = recover::open(log, from)?;
        let mut partition = match loaded {
            Some(loaded) => resume(loaded, files.log, self.metric, room).map_err(io)?,
            None => {
                let index =
                    Index::new(options).map_err(|error| OpenError::Options(error.to_string()))?;
                Partition::new(index, files.log, self.metric, room)
            }
        };
        recover::replay(&mut partition, &files.records, files.damages).map_err(io)?;
        // A memory that nobody uses takes no room on the disk.
        if !partition.log.segments.is_empty() {
            partition.log.ask_spare_ahead();
            partition.settle().map_err(io)?;
        }
        partition.tell_room();
        Ok(partition)
    }
}

/// A partition as a checkpoint has it: rows whose part of the graph was damaged, or changed while it
/// was written, are inserted again from their records.
fn resume(loaded: Loaded, log: RecordLog, metric: Metric, room: Room) -> io::Result<Partition> {
    let Loaded { table, index, again, records, .. } = loaded;
    let mut partition = Partition::new(index, log, metric, room);
    partition.log.know(&records);
    partition.table = table;
    for row in 0..partition.table.rows() {
        if let Some(place) = partition.place_of(row) {
            partition.log.hold(place);
        }
    }
    if !again.is_empty() {
        tracing::warn!(rows = again.len(), "vectors are inserted again that a checkpoint lacks");
    }
    for row in again {
        let Some(place) = partition.place_of(row) else { continue };
        while let Some((region, offset, length)) = partition.log.missing(place) {
            region.load(offset, length)?;
        }
        let read = partition.log.read(place).map(|record| record.vector());
        let inserted = match read {
            Ok(vector) => partition.index.insert_at(row, &vector).is_ok(),
            Err(damage) => {
                partition.note(damage);
                false
            }
        };
        if !inserted {
            partition.remove_row(row);
        }
    }
    Ok(partition)
}

impl Store {
    /// Opens a store, or makes one. Each partition is read by a thread of its own.
    ///
    /// # Errors
    /// Another process has it, it is another's, or its files cannot be used.
    pub fn open(settings: &StoreSettings) -> Result<Self, OpenError> {
        let (lock, head) = match &settings.folder {
            Some(folder) => {
                let io = |source| OpenError::Io { folder: folder.clone(), source };
                make_folder(folder).map_err(io)?;
                let locked = FolderLock::take(folder)
                    .map_err(|source| OpenError::Lock { folder: folder.clone(), source })?;
                (Some(locked), settings.head(folder)?)
            }
            None => (None, settings.new_head()),
        };
        let read = thread::scope(|scope| {
            let rooms = Room::shared(head.partitions, settings.items_max);
            let parts = (0..head.partitions).zip(rooms);
            let threads: Vec<_> = parts
                .map(|(number, room)| scope.spawn(move || settings.partition(&head, number, room)))
                .collect();
            let joined = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect::<Result<Vec<_>, _>>()
        });
        Ok(Self { head, partitions: read?, lock })
    }
}

impl Partition {
    /// Applies all that waits and seals the files: for a partition that is served no more. Waits for
    /// the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close(&mut self) -> io::Result<()> {
        self.abandon_checkpoint();
        self.settle()?;
        // Without room for a seal there is none: then the end cannot be told from a torn one.
        let _ = self.log.seal();
        self.settle()?;
        if self.changes > 0 { self.save() } else { Ok(()) }
    }

    /// A checkpoint that was begun will not be ended.
    pub fn abandon_checkpoint(&mut self) {
        self.is_frozen = false;
        self.changed = None;
    }

    /// Whether so much has changed since the last checkpoint that a start would take long.
    pub fn should_save(&self) -> bool {
        let many = CHANGES_LEAST.max(self.len() as u64 / CHANGES_OF_ITEMS);
        self.changes >= many && self.log.is_durable() && self.log.failure().is_none()
    }

    /// A checkpoint is on the disk.
    pub fn saved(&mut self, checkpoint: &Checkpoint) {
        self.changes -= checkpoint.covers;
    }

    /// Writes a checkpoint. Waits for the disk.
    ///
    /// # Errors
    /// The disk refuses; the checkpoint before is still there.
    pub fn save(&mut self) -> io::Result<()> {
        if !self.log.is_durable() {
            return Ok(());
        }
        let mut checkpoint = Checkpoint::begin(self);
        while !checkpoint.is_ended() {
            let done = checkpoint.step(self).and_then(super::job::Job::perform);
            if let Some(Done::Saved(Err(error))) = done {
                return Err(error);
            }
        }
        self.saved(&checkpoint);
        Ok(())
    }

    /// Writes and applies all that waits. Waits for the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn settle(&mut self) -> io::Result<()> {
        loop {
            self.flush();
            let jobs = self.take_jobs();
            let mut worked = !jobs.is_empty();
            for done in jobs.into_iter().filter_map(super::job::Job::perform) {
                self.done(done);
            }
            loop {
                match self.apply() {
                    Step::Done(false) => break,
                    Step::Done(true) => worked = true,
                    Step::Wait(pieces) => pieces
                        .iter()
                        .try_for_each(|(region, offset, length)| region.load(*offset, *length))?,
                }
            }
            if !worked {
                let failure =
                    self.log.failure().map(|problem| io::Error::other(problem.to_owned()));
                return failure.map_or(Ok(()), Err);
            }
        }
    }
}
