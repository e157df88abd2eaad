//! One partition: items by name, their vectors in the index, their records in files.
//!
//! A change is a record first. When that is on the disk the change is *applied*, in the order of the
//! records: the vector goes into the index and the row into the table. Then whoever asked is answered,
//! so what is acknowledged is on the disk and found.
//!
//! Nothing here waits for the disk. What must be written, made or read comes out of
//! [`Partition::take_jobs`]; an operation that needs a record which is not in memory says so with the
//! pieces to be loaded, and is asked again when they are.

use super::{
    damage::Damage,
    job::{Done, Job, Piece},
    log::{NoRoom, RecordLog},
    losses::Damages,
    portion::Portion,
    record::{Content, Kind, Record, hash_of},
    recover::From,
    room::Room,
    table::{NAMESPACES_MAX, Place, Row, Table},
};
use crate::{
    memory::index::{Index, IndexOptions, Insertion, Invalid, PagesAhead, VECTORS_MAX},
    wire::{
        api::Error,
        memory::{
            KEY_BYTES_MAX, METADATA_BYTES_MAX, MemoryItem, Metric, NAMESPACE_BYTES_MAX,
            TEXT_BYTES_MAX,
        },
    },
};
use foldhash::fast::RandomState;
use std::collections::{HashMap, VecDeque, hash_map::Entry};

/// Changes that wait for the disk or the index.
const PENDING_MAX: usize = 16 << 10;
/// Bytes of their records.
const PENDING_BYTES_MAX: usize = 32 << 20;
/// When to come back after one of these, milliseconds.
const RETRY_MS: u64 = 20;

/// A change that waits to be applied.
#[derive(Clone, Copy, Debug)]
struct Pending {
    kind: Kind,
    place: Place,
    hash: u64,
    sequence: u64,
    bytes: usize,
    /// No item of that name was there when it was recorded.
    adds: bool,
    /// Who asked; `None` for a record that is moved.
    token: Option<u64>,
}

/// A vector on its way into the index.
struct Coming {
    insertion: Insertion,
    /// Its namespace, so that a long record is not read again for that.
    namespace: Box<str>,
    /// The row of the item that it replaces.
    former: Option<Row>,
}

/// How far a step came.
#[derive(Debug)]
pub enum Step<T> {
    /// Records that it needs are not in memory: load them and ask again.
    Wait(Vec<Piece>),
    /// It is done.
    Done(T),
}

/// What became of a change: the token, and whether there was an item of that name.
pub type Outcome = (u64, Result<bool, Error>);

/// One partition.
pub struct Partition {
    pub(super) index: Index,
    pub(super) table: Table,
    pub(super) log: RecordLog,
    pub(super) metric: Metric,
    pending: VecDeque<Pending>,
    /// How many of them change the item of a name, by its hash.
    changing: HashMap<u64, u32, RandomState>,
    /// The oldest of them, while it is on its way into the index.
    coming: Option<Coming>,
    /// A row that was given a finer code, while it is linked anew.
    pub(super) recoding: Option<Insertion>,
    /// One that is to be given a finer code, while its record is brought into memory.
    pub(super) coarse: Option<Row>,
    pending_bytes: usize,
    /// Those of them that add an item.
    pending_new: usize,
    room: Room,
    outcomes: VecDeque<Outcome>,
    pub(super) damages: Damages,
    /// The row from which on records are to be looked at, while they are.
    pub(super) look_from: Option<Row>,
    /// The segment for whose sake they were looked at last.
    pub(super) looked_for: Option<u32>,
    /// Bytes of the last checkpoint.
    pub(super) checkpoint_bytes: u64,
    /// Changes since the last checkpoint.
    pub(super) changes: u64,
    /// The segment that is being moved, and up to where it was.
    pub(super) moving: Option<(u32, usize)>,
    /// Where the first record lies that is not applied.
    pub(super) applied: From,
    /// Records are applied that were on the disk before the start: their vectors are linked later.
    pub(super) is_starting: bool,
    /// Rows are being copied, so that no change is applied.
    pub(super) is_frozen: bool,
    /// Rows that changed since the present checkpoint's graph began to be written.
    pub(super) changed: Option<Vec<Row>>,
}

/// The index's name for a metric.
pub fn index_metric(metric: Metric) -> crate::memory::index::Metric {
    match metric {
        Metric::Cosine => crate::memory::index::Metric::Cosine,
        Metric::Euclidean => crate::memory::index::Metric::Euclidean,
        Metric::Dot => crate::memory::index::Metric::Dot,
    }
}

/// The options of a partition's index. It takes all that the records say, however many items there may be:
/// that is for [`Room`] to say, before a record is written.
pub fn index_options(dimensions: usize, metric: Metric, ef_construction: usize) -> IndexOptions {
    let options = IndexOptions::new(dimensions, index_metric(metric));
    IndexOptions { ef_construction, vectors_max: VECTORS_MAX, ..options }
}

/// Finds out whether names have lengths that are allowed.
///
/// # Errors
/// [`Error::Invalid`] names the field.
pub fn check_names(namespace: &str, key: &str) -> Result<(), Error> {
    let check = |name, len, max| match len {
        0 => Err(Error::Invalid(format!("{name}: it is empty"))),
        _ if len > max => {
            Err(Error::Invalid(format!("{name}: it has {len} bytes; allowed: 1 to {max}")))
        }
        _ => Ok(()),
    };
    check("namespace", namespace.len(), NAMESPACE_BYTES_MAX)?;
    check("key", key.len(), KEY_BYTES_MAX)
}

impl Partition {
    /// A partition whose items are those of a log that was read; they are replayed next.
    pub(super) fn new(index: Index, log: RecordLog, metric: Metric, room: Room) -> Self {
        Self {
            index,
            table: Table::default(),
            log,
            metric,
            pending: VecDeque::new(),
            changing: HashMap::default(),
            coming: None,
            recoding: None,
            coarse: None,
            pending_bytes: 0,
            pending_new: 0,
            room,
            outcomes: VecDeque::new(),
            damages: Damages::default(),
            look_from: None,
            looked_for: None,
            checkpoint_bytes: 0,
            changes: 0,
            moving: None,
            applied: From::default(),
            is_starting: false,
            is_frozen: false,
            changed: None,
        }
    }

    /// Items.
    pub fn len(&self) -> usize {
        self.table.live()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its rows, names and namespaces.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Memory that the index needs soon: for somebody who may wait for the system to make it.
    pub fn take_ahead(&mut self) -> Option<PagesAhead> {
        self.index.take_ahead()
    }

    /// Its files.
    pub fn log(&self) -> &RecordLog {
        &self.log
    }

    /// Its index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Damage that was met.
    pub fn damages(&self) -> &Damages {
        &self.damages
    }

    /// Changes since the last checkpoint.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Bytes of its files: segments, the one that is made ahead, and the checkpoint.
    pub fn bytes_on_disk(&self) -> u64 {
        if self.log.is_durable() { self.log.bytes() + self.checkpoint_bytes } else { 0 }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.index.stats().bytes + self.table.bytes()
    }

    /// Records an item; its outcome comes when it is on the disk and in the index.
    ///
    /// # Errors
    /// Nothing was recorded: it is wrong, or there is no room now.
    pub fn put(&mut self, item: &MemoryItem, token: u64) -> Result<(), Error> {
        check_names(&item.namespace, &item.key)?;
        let too_large = |name, len, max| match len > max {
            true => Err(Error::TooLarge(format!("{name}: it has {len} bytes; allowed: {max}"))),
            false => Ok(()),
        };
        too_large("text", item.text.as_ref().map_or(0, String::len), TEXT_BYTES_MAX)?;
        too_large("metadata", item.metadata.len(), METADATA_BYTES_MAX)?;
        self.index
            .check(&item.vector)
            .map_err(|error| Error::Invalid(format!("vector: {error}")))?;
        let hash = hash_of(&item.namespace, &item.key);
        if !self.has_hash(hash) {
            self.tell_room();
            if self.room.is_full() && !self.is_changing(hash) {
                return Err(full(item, &self.room));
            }
        }
        let namespaces = &self.table.namespaces;
        if namespaces.find(&item.namespace).is_none() {
            if namespaces.used() >= NAMESPACES_MAX {
                return Err(too_many_namespaces());
            }
            if namespaces.used() + self.pending_new >= NAMESPACES_MAX {
                return Err(Error::Backpressure(RETRY_MS));
            }
        }
        let content = Content {
            kind: Kind::Put,
            namespace: &item.namespace,
            key: &item.key,
            vector: &item.vector,
            text: item.text.as_deref(),
            metadata: &item.metadata,
        };
        self.record(&content, token)
    }

    /// Records that an item is gone; its outcome comes when that is on the disk.
    ///
    /// # Errors
    /// Nothing was recorded: the name is wrong, or there is no room now.
    pub fn delete(&mut self, namespace: &str, key: &str, token: u64) -> Result<(), Error> {
        check_names(namespace, key)?;
        let hash = hash_of(namespace, key);
        let may_be_there =
            self.has_hash(hash) || self.damages.of_item(hash).is_some() || self.is_changing(hash);
        if !may_be_there {
            self.outcomes.push_back((token, Ok(false)));
            return Ok(());
        }
        let content =
            Content { kind: Kind::Delete, namespace, key, vector: &[], text: None, metadata: &[] };
        self.record(&content, token)
    }

    fn record(&mut self, content: &Content<'_>, token: u64) -> Result<(), Error> {
        let is_full = self.pending.len() >= PENDING_MAX || self.pending_bytes >= PENDING_BYTES_MAX;
        if is_full {
            return Err(Error::Backpressure(RETRY_MS));
        }
        self.append(content, None, Some(token)).map_err(|no_room| match no_room {
            NoRoom::Soon => Error::Backpressure(RETRY_MS),
            NoRoom::Full => {
                let text = "pattern memory has all the files that it can have: delete items";
                Error::Full(text.into())
            }
            NoRoom::Failed(problem) => Error::Unavailable(problem),
        })
    }

    pub(super) fn append(
        &mut self,
        content: &Content<'_>,
        moved_from: Option<Place>,
        token: Option<u64>,
    ) -> Result<(), NoRoom> {
        let place = self.log.append(content, moved_from)?;
        let hash = hash_of(content.namespace, content.key);
        let bytes = super::record::length_of(content);
        let (kind, sequence) = (content.kind, self.log.sequence());
        let adds = kind == Kind::Put && !self.has_hash(hash);
        self.pending.push_back(Pending { kind, place, hash, sequence, bytes, adds, token });
        *self.changing.entry(hash).or_default() += 1;
        self.pending_bytes += bytes;
        self.pending_new += usize::from(adds);
        self.tell_room();
        Ok(())
    }

    /// Sees to it that changes have a file to go to; false while the first one is being made.
    pub fn prepare(&mut self) -> bool {
        self.log.prepare()
    }

    /// Whether there is an item of that name, or one whose hash is half the same.
    fn has_hash(&self, hash: u64) -> bool {
        self.table.with_hash(hash as u32).next().is_some()
    }

    /// Where the oldest record lies that is not applied.
    pub(super) fn oldest_pending(&self) -> Option<Place> {
        self.pending.front().map(|pending| pending.place)
    }

    /// Tells the other partitions how much room this one takes.
    pub(super) fn tell_room(&self) {
        self.room.tell(self.table.live() + self.pending_new);
    }

    /// Whether a change of that name waits.
    pub(super) fn is_changing(&self, hash: u64) -> bool {
        self.changing.contains_key(&hash)
    }

    /// Lets what was recorded be written.
    pub fn flush(&mut self) {
        self.log.flush();
    }

    /// What somebody who waits for the disk is to do.
    pub fn take_jobs(&mut self) -> Vec<Job> {
        self.log.take_jobs()
    }

    /// What became of a job. Loads are the business of who gave them.
    pub fn done(&mut self, done: Done) {
        match done {
            Done::Written(result) => {
                self.log.written(result);
                self.fail_pending();
                self.log.flush();
            }
            Done::Made(result) => self.log.made(result),
            Done::Loaded(..) | Done::Saved(_) => {}
        }
    }

    /// After a write that failed nobody knows what the disk has.
    fn fail_pending(&mut self) {
        let Some(problem) = self.log.failure().map(str::to_owned) else { return };
        let synced = self.log.synced();
        while let Some(&pending) = self.pending.back().filter(|last| last.sequence > synced) {
            self.pending.pop_back();
            self.forget_pending(&pending);
            if let Some(token) = pending.token {
                let uncertain = Error::Uncertain(problem.clone());
                self.outcomes.push_back((token, Err(uncertain)));
            }
        }
    }

    fn forget_pending(&mut self, pending: &Pending) {
        if let Entry::Occupied(mut entry) = self.changing.entry(pending.hash) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        self.pending_bytes -= pending.bytes;
        self.pending_new -= usize::from(pending.adds);
        self.tell_room();
    }

    /// What became of a change, oldest first.
    pub fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Whether a change can be applied, or an outcome waits.
    pub fn has_work(&self) -> bool {
        let synced = self.log.synced();
        let is_ready = |pending: &Pending| pending.sequence <= synced && !self.is_frozen;
        !self.outcomes.is_empty()
            || self.index.owes_sweep()
            || self.pending.front().is_some_and(is_ready)
    }

    /// Goes on with the oldest change that is on the disk, after what a removal before it left to be swept;
    /// false when there is none.
    pub fn apply(&mut self) -> Step<bool> {
        let mut portion = Portion::new();
        if self.sweep_some(&mut portion) {
            return Step::Done(true);
        }
        let synced = self.log.synced();
        let ready = self.pending.front().filter(|first| first.sequence <= synced);
        let Some(&pending) = ready.filter(|_| !self.is_frozen) else {
            return Step::Done(false);
        };
        let applied = self.apply_record(pending.place, pending.kind, pending.hash, &mut portion);
        let outcome = match applied {
            Step::Wait(pieces) => return Step::Wait(pieces),
            Step::Done(None) => return Step::Done(true),
            Step::Done(Some(outcome)) => outcome,
        };
        self.pending.pop_front();
        self.forget_pending(&pending);
        self.note_applied(pending.place, pending.bytes, pending.sequence);
        self.changes += 1;
        if let Some(token) = pending.token {
            self.outcomes.push_back((token, outcome));
        }
        Step::Done(true)
    }

    /// Goes on with what a removal left to be swept; false when it left nothing.
    fn sweep_some(&mut self, portion: &mut Portion) -> bool {
        let distances = self.index.step_distances();
        let mut has_swept = false;
        while self.index.sweep_some(distances) {
            has_swept = true;
            if portion.is_over() {
                break;
            }
        }
        has_swept
    }

    fn note_applied(&mut self, place: Place, bytes: usize, sequence: u64) {
        if let Some(segment) = self.log.segment(place) {
            let offset = self.log.settings().offset(place) + bytes;
            self.applied = From { number: segment.number, offset, sequence };
        }
    }

    fn note_changed(&mut self, row: Row) {
        if let Some(changed) = &mut self.changed {
            changed.push(row);
        }
    }

    /// Goes on with what a record says; at the end, whether there was an item of that name before.
    /// It is called for one record until that end.
    pub(super) fn apply_record(
        &mut self,
        place: Place,
        kind: Kind,
        hash: u64,
        portion: &mut Portion,
    ) -> Step<Option<Result<bool, Error>>> {
        if let Some(coming) = self.coming.take() {
            return Step::Done(self.go_on_inserting(coming, place, hash, portion));
        }
        if kind == Kind::Seal {
            return Step::Done(Some(Ok(false)));
        }
        let record = match self.log.read(place) {
            Ok(record) => record,
            Err(damage) => return Step::Done(Some(Err(self.lose(kind, hash, damage)))),
        };
        if let Some(from) = record.head.moved_from {
            let rows = self.table.with_hash(hash as u32);
            let moved = rows.filter(|row| self.place_of(*row) == Some(from)).last();
            if let Some(row) = moved {
                self.move_row(row, place);
                return Step::Done(Some(Ok(true)));
            }
        }
        let former = match self.find(record.namespace(), record.key()) {
            Step::Wait(pieces) => return Step::Wait(pieces),
            Step::Done(former) => former,
        };
        if kind != Kind::Put {
            return Step::Done(Some(Ok(self.leave(former, hash))));
        }
        let vector = self.log.vector(place, &record.head);
        if self.is_starting {
            let row = self.index.insert_late(vector).map_err(|error| not_taken(&error));
            let namespace = record.namespace().to_owned();
            let arrived = row.and_then(|row| self.enter(row, place, hash, &namespace));
            return Step::Done(Some(arrived.map(|()| self.leave(former, hash))));
        }
        match self.index.begin_insert(vector) {
            Ok(insertion) => {
                let coming = Coming { insertion, namespace: record.namespace().into(), former };
                if portion.is_over() {
                    // A long record takes as long as a step.
                    self.coming = Some(coming);
                    return Step::Done(None);
                }
                Step::Done(self.go_on_inserting(coming, place, hash, portion))
            }
            Err(error) => Step::Done(Some(Err(not_taken(&error)))),
        }
    }

    fn go_on_inserting(
        &mut self,
        mut coming: Coming,
        place: Place,
        hash: u64,
        portion: &mut Portion,
    ) -> Option<Result<bool, Error>> {
        let distances = self.index.step_distances();
        let inserted = loop {
            if let Some(inserted) = coming.insertion.step(&mut self.index, distances) {
                break inserted;
            }
            if portion.is_over() {
                self.coming = Some(coming);
                return None;
            }
        };
        let row = inserted.map_err(|error| not_taken(&error));
        let arrived = row.and_then(|row| self.enter(row, place, hash, &coming.namespace));
        Some(arrived.map(|()| self.leave(coming.former, hash)))
    }

    /// A vector is in the index: its row is its record's item.
    fn enter(&mut self, row: Row, place: Place, hash: u64, namespace: &str) -> Result<(), Error> {
        let Some(number) = self.table.namespaces.enter(namespace) else {
            self.index.remove(row);
            return Err(too_many_namespaces());
        };
        self.table.insert(row, place, hash as u32, number);
        self.log.hold(place);
        self.note_changed(row);
        Ok(())
    }

    /// What an item was before is no more; whether it was anything.
    fn leave(&mut self, former: Option<Row>, hash: u64) -> bool {
        if let Some(row) = former {
            self.remove_row(row);
        }
        self.damages.forget_item(hash) || former.is_some()
    }

    pub(super) fn place_of(&self, row: Row) -> Option<Place> {
        self.table.get(row).map(|entry| entry.place)
    }

    /// An item is gone. The index may owe a part of a sweep then, which is paid before the next change.
    pub(super) fn remove_row(&mut self, row: Row) {
        if let Some(entry) = self.table.remove(row) {
            self.note_changed(row);
            self.index.begin_remove(row);
            self.log.release(entry.place);
        }
    }

    fn move_row(&mut self, row: Row, place: Place) {
        if let Some(before) = self.place_of(row) {
            self.log.release(before);
            self.log.hold(place);
            self.table.set_place(row, place);
        }
    }

    /// The row of an item, if there is one.
    pub fn find(&self, namespace: &str, key: &str) -> Step<Option<Row>> {
        let hash = hash_of(namespace, key);
        let mut missing = Vec::new();
        for row in self.table.with_hash(hash as u32) {
            let Some(place) = self.place_of(row) else { continue };
            match self.log.missing(place) {
                Some(piece) => missing.push(piece),
                None if self.is_named(place, hash, namespace, key) => {
                    return Step::Done(Some(row));
                }
                None => {}
            }
        }
        if missing.is_empty() { Step::Done(None) } else { Step::Wait(missing) }
    }

    fn is_named(&self, place: Place, hash: u64, namespace: &str, key: &str) -> bool {
        let head = self.log.head(place);
        if head.is_some_and(|head| {
            head.hash == hash && self.log.seems_named(place, &head, namespace, key)
        }) {
            // All of a long record need not be read for that: were it damaged, its hash would decide.
            return true;
        }
        match self.log.read(place) {
            Ok(record) => record.namespace() == namespace && record.key() == key,
            // A damaged record has no name to compare: what is left of the hash decides, so that
            // the item can be replaced and deleted.
            Err(_) => self.log.head(place).is_none_or(|head| head.hash == hash),
        }
    }
}

/// There is no room for an item, and waiting makes none.
fn full(item: &MemoryItem, room: &Room) -> Error {
    let MemoryItem { namespace, key, .. } = item;
    let (used, items_max) = (room.used(), room.items_max());
    Error::Full(format!(
        "the memory is full: {namespace}/{key} is not stored. It has {used} items, and \
         memory.max_vectors is {items_max}; delete some, or raise it and start the node again"
    ))
}

fn too_many_namespaces() -> Error {
    Error::Full(format!("there are {NAMESPACES_MAX} namespaces, and no more can be made"))
}

fn not_taken(error: &Invalid) -> Error {
    Error::Unavailable(format!("the index does not take the vector: {error}"))
}

/// What is told of a damaged record.
pub(super) fn damaged(damage: &Damage) -> Error {
    Error::Unavailable(damage.to_string())
}

/// An item as its record has it, without the vector.
pub fn item_of(record: &Record<'_>) -> MemoryItem {
    MemoryItem {
        key: record.key().to_owned(),
        namespace: record.namespace().to_owned(),
        vector: Vec::new(),
        text: record.text().map(str::to_owned),
        metadata: record.metadata().to_vec(),
    }
}
