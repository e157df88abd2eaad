//! A folder of pattern memory, or memory alone, as partitions that can be served.

use super::{
    checkpoint::{self, Checkpoint, Loaded},
    files::{FileList, ListingError},
    folder,
    head::StoreHead,
    job::Done,
    log::RecordLog,
    partition::{Partition, Step, index_options},
    record::{HEAD_BYTES, hash_of},
    recover::{self, From, RecoverError},
    room::Room,
    segment::LogSettings,
};
use crate::{
    memory::index::Index,
    runtime::disk::{FolderLock, LockError, make_folder},
    wire::memory::Metric,
};
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

/// Changes after which a checkpoint is worth while, at least.
const CHANGES_LEAST: u64 = 10_000;
/// One change for so many items.
const CHANGES_OF_ITEMS: u64 = 4;
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
    /// Bytes of one segment of a store that is not there yet.
    pub segment_bytes: usize,
    /// What makes vectors of texts, by the name that identifies it; nothing when nothing does.
    pub embedder: String,
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
    /// The head is damaged, or missing where there are files that need one; a list of record files has
    /// what it said.
    #[error(
        "{}: {problem}; bring it back, or have it made again (coreflow doctor --memory --repair)",
        head.display()
    )]
    Head {
        /// Where the head is, or should be.
        head: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The same where no list has what it said, or several have different things.
    #[error(
        "{}: {problem}; it cannot be made again, since no list of record files (0000-files.list and so \
         on) is there and whole, or they are not all of one memory. Nothing else says how the records \
         are to be read. From a copy of this folder bring back head, or one of those lists and then \
         have the rest made again (coreflow doctor --memory --repair). Without a copy its items are \
         lost: move the folder away, start with an empty one, and store the items again or import an \
         export",
        head.display()
    )]
    Headless {
        /// Where the head is, or should be.
        head: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The list of a partition's record files is damaged.
    #[error("{}: {source}; bring it back, or have it made again (coreflow doctor --memory --repair)", file.display())]
    List {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: ListingError,
    },
    /// What is stored was made of texts by another embedder than the configuration says.
    #[error(
        "pattern memory in {} has texts whose vectors were made by the embedder {found:?}, and the \
         configuration says {wanted:?}; their vectors cannot be compared: configure {found:?}; or \
         export with it, name another folder (memory.folder), and import; or, when both make the same \
         vectors, say so with memory.embedder_model = {found:?}",
        folder.display()
    )]
    Embedder {
        /// The folder.
        folder: PathBuf,
        /// What made its vectors.
        found: String,
        /// What was asked for.
        wanted: String,
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
    pub(super) fn new_head(&self) -> StoreHead {
        StoreHead {
            dimension: self.dimension as u32,
            metric: self.metric,
            partitions: self.partitions,
            salt: fastrand::u32(..),
            segment_bytes: Some(self.segment_bytes as u32),
            embedder: self.embedder.clone(),
        }
    }

    /// Finds out whether a folder's vectors are what is configured.
    pub(super) fn check(&self, head: &StoreHead, folder: &Path) -> Result<(), OpenError> {
        let say = |dimension: u32, metric: Metric| {
            format!("vectors of {dimension} numbers, metric {:?}", metric.name())
        };
        let (dimension, metric) = (self.dimension as u32, self.metric);
        if (head.dimension, head.metric) == (dimension, metric) {
            return Ok(());
        }
        Err(OpenError::Other {
            folder: folder.to_owned(),
            found: say(head.dimension, head.metric),
            wanted: say(dimension, metric),
        })
    }

    fn log(&self, head: &StoreHead, list: Option<Arc<FileList>>, partition: u16) -> LogSettings {
        LogSettings {
            folder: self.folder.clone(),
            partition,
            segment_bytes: head.segment_bytes.map_or(self.segment_bytes, |bytes| bytes as usize),
            dimensions: self.dimension,
            salt: head.salt,
            list,
        }
    }

    fn partition(
        &self,
        head: &StoreHead,
        list: Option<Arc<FileList>>,
        number: u16,
        room: Room,
    ) -> Result<Partition, OpenError> {
        let options = index_options(self.dimension, self.metric, self.ef_construction);
        let log = self.log(head, list, number);
        let io = |source| OpenError::Io { folder: self.folder.clone().unwrap_or_default(), source };
        let first = log.list.as_ref().map_or(0, |list| list.span().first);
        let loaded = checkpoint::load(&log, options.clone(), first).map_err(io)?;
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
        let known = partition.damages.count;
        recover::replay(&mut partition, &files.records, files.damages).map_err(io)?;
        // A memory that nobody uses takes no room on the disk.
        if !partition.log.segments.is_empty() {
            partition.log.ask_spare_ahead();
            partition.settle().map_err(io)?;
            // What was met is known from now on, though what was cut off is zeros by now.
            if partition.damages.count > known {
                partition.save().map_err(io)?;
            }
        }
        partition.tell_room();
        let vectors = partition.index.late();
        if vectors > 0 {
            tracing::info!(
                partition = number,
                vectors,
                "they are found by comparing until they are linked"
            );
        }
        Ok(partition)
    }
}

/// A partition as a checkpoint has it: rows whose part of the graph was damaged, or changed while it
/// was written, are inserted again from their records.
fn resume(loaded: Loaded, log: RecordLog, metric: Metric, room: Room) -> io::Result<Partition> {
    let Loaded { table, index, again, records, damages, bytes, .. } = loaded;
    let mut partition = Partition::new(index, log, metric, room);
    partition.checkpoint_bytes = bytes;
    partition.take_known(damages);
    partition.begin_to_look();
    partition.log.know(&records);
    partition.table = table;
    for row in 0..partition.table.rows() {
        if let Some(place) = partition.place_of(row) {
            partition.log.hold(place);
        }
    }
    if !again.is_empty() {
        tracing::info!(vectors = again.len(), "they are linked again, as a checkpoint lacks them");
    }
    // What is linked is not in a checkpoint before the next one.
    partition.changes = again.len() as u64;
    for row in again {
        let Some(place) = partition.place_of(row) else { continue };
        while let Some((region, offset, length)) = partition.log.missing(place) {
            region.load(offset, length)?;
        }
        let read = partition.log.read(place).map(|record| record.vector());
        match read {
            Ok(vector) if partition.index.insert_late_at(row, &vector).is_ok() => {}
            Ok(_) => partition.remove_row(row),
            Err(damage) => partition.lose_row(row, damage),
        }
        // What was not inserted is not kept room for.
        partition.index.forgo(row);
    }
    Ok(partition)
}

impl Store {
    /// Opens a store, or makes one. Each partition is read by a thread of its own.
    ///
    /// # Errors
    /// Another process has it, it is another's, or its files cannot be used.
    pub fn open(settings: &StoreSettings) -> Result<Self, OpenError> {
        let Some(folder) = &settings.folder else {
            let (head, no_lists) = (settings.new_head(), HashMap::new());
            let partitions = Self::partitions(settings, &head, &no_lists)?;
            return Ok(Self { head, partitions, lock: None });
        };
        let io = |source| OpenError::Io { folder: folder.clone(), source };
        make_folder(folder).map_err(io)?;
        let lock = FolderLock::take(folder)
            .map_err(|source| OpenError::Lock { folder: folder.clone(), source })?;
        Self::open_locked(settings, folder, lock)
    }

    /// The same for a folder that is this process's already, and is the one in the settings.
    pub(super) fn open_locked(
        settings: &StoreSettings,
        folder: &Path,
        lock: FolderLock,
    ) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { folder: folder.to_owned(), source };
        let (mut head, lists) = folder::establish(settings, folder)?;
        let partitions = Self::partitions(settings, &head, &lists)?;
        if !settings.embedder.is_empty() && settings.embedder != head.embedder {
            let mut has_texts = false;
            for partition in &partitions {
                has_texts = has_texts || partition.has_text().map_err(io)?;
            }
            // Before this was noted, nobody knows what it was.
            if has_texts && !head.embedder.is_empty() {
                let (found, wanted) = (head.embedder, settings.embedder.clone());
                return Err(OpenError::Embedder { folder: folder.to_owned(), found, wanted });
            }
            if has_texts {
                let (folder, embedder) = (folder.display(), &settings.embedder);
                tracing::warn!(
                    "pattern memory in {folder} has texts, and nobody noted what made vectors of \
                     them; from now on it is {embedder:?}"
                );
            }
            head.embedder.clone_from(&settings.embedder);
            folder::write_head(folder, &head).map_err(io)?;
        }
        Ok(Self { head, partitions, lock: Some(lock) })
    }

    fn partitions(
        settings: &StoreSettings,
        head: &StoreHead,
        lists: &HashMap<u16, Arc<FileList>>,
    ) -> Result<Vec<Partition>, OpenError> {
        let rooms = Room::shared(head.partitions, settings.items_max);
        let read = |number, room| {
            let list = lists.get(&number).cloned();
            settings.partition(head, list, number, room)
        };
        let read = &read;
        thread::scope(|scope| {
            let parts = (0..head.partitions).zip(rooms);
            let threads: Vec<_> =
                parts.map(|(number, room)| scope.spawn(move || read(number, room))).collect();
            let joined = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        })
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

    /// Whether so much has changed since the last checkpoint that a start would have much to link. Until all is
    /// linked that the last one took in, a checkpoint would lack it again, so it waits until twice as much has changed.
    pub fn should_save(&self) -> bool {
        let many = CHANGES_LEAST.max(self.len() as u64 / CHANGES_OF_ITEMS);
        let is_linked = self.index.late() == 0;
        let enough = if is_linked { many } else { 2 * many };
        self.changes >= enough && self.log.is_durable() && self.log.failure().is_none()
    }

    /// A checkpoint is on the disk.
    pub fn saved(&mut self, checkpoint: &Checkpoint) {
        self.changes -= checkpoint.covers;
        self.checkpoint_bytes = checkpoint.written;
    }

    /// A checkpoint cannot be written. It is tried again after as many changes.
    pub fn give_up(&mut self, checkpoint: &Checkpoint) {
        self.abandon_checkpoint();
        self.changes -= checkpoint.covers;
    }

    /// Whether there is an item that was stored as a text. Waits for the disk.
    fn has_text(&self) -> io::Result<bool> {
        for row in 0..self.table.rows() {
            let Some(place) = self.place_of(row) else { continue };
            if let Some((region, offset, _)) = self.log.missing(place) {
                region.load(offset, HEAD_BYTES)?;
            }
            if self.log.head(place).is_some_and(|head| head.is_of_text()) {
                return Ok(true);
            }
        }
        Ok(false)
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
