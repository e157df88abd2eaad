//! A checkpoint: the graph and the rows as they were after some record, so that a start reads only the
//! records behind it.
//!
//! A file of blocks, each with its length, a checksum and its kind. The rows are copied while no change
//! is applied, which takes some turns; the graph is written in chunks while it is in use, and the rows
//! that changed meanwhile stand behind it. A block of the graph that is damaged costs that its rows are
//! inserted again from their records; any other damage, that all records are.
//!
//! Invariants:
//! - A checkpoint says nothing that the records do not say: without it a start takes longer, and that
//!   is all.
//! - Its file has its name once all of it is on the disk.

use super::{
    damage::Damage,
    job::{Job, Save},
    losses::Next,
    partition::Partition,
    recover::From,
    segment::LogSettings,
    table::{Entry, Place, Row, Table},
};
use crate::memory::index::{Image, Index, IndexOptions, Loader, Wanted};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
};

/// What a file begins with.
const MAGIC: &[u8; 8] = b"coreflwC";
/// Bytes of a block's head: its length, its checksum, its kind.
const BLOCK_HEAD: usize = 12;
/// Rows that one step copies.
const ROWS_A_STEP: usize = 2048;
/// Namespaces that one step copies.
const NAMES_A_STEP: usize = 512;
/// A step's damages end with the one that brings them here.
const DAMAGES_BYTES: usize = 32 << 10;
/// What is given to the disk at a time.
const PART_BYTES: usize = 1 << 20;
/// No block has more bytes.
const BLOCK_BYTES_MAX: usize = 128 << 10;

/// What a block has.
mod kind {
    pub const HEAD: u32 = 1;
    pub const NAMESPACES: u32 = 2;
    pub const ROWS: u32 = 3;
    pub const GRAPH: u32 = 4;
    pub const CHANGED: u32 = 5;
    pub const END: u32 = 6;
    pub const DAMAGES: u32 = 7;
    /// Further ones: a program that does not know them would take the last block for all.
    pub const MORE_DAMAGES: u32 = 8;
}

/// The file of a partition's checkpoint.
pub fn file_of(settings: &LogSettings) -> Option<PathBuf> {
    let folder = settings.folder.as_ref()?;
    Some(folder.join(format!("{:04}.ckpt", settings.partition)))
}

/// A checkpoint that is being written.
pub struct Checkpoint {
    phase: Phase,
    /// What is not given to the disk yet.
    bytes: Vec<u8>,
    /// Parts that are full and were not given away yet, since nothing waits for the disk while rows are
    /// copied.
    full: VecDeque<Vec<u8>>,
    /// A buffer that came back from the disk.
    spare: Option<Vec<u8>>,
    /// Bytes that were given to the disk.
    pub written: u64,
    /// Changes that it covers.
    pub covers: u64,
}

enum Phase {
    /// Namespaces from this number on.
    Names(usize),
    Rows(Row),
    /// What is damaged, from this place in the order of what is known on. After the rows: an item that is lost
    /// meanwhile has its row in the checkpoint, or stands here, or both.
    Damages(Next),
    Graph(Image),
    /// Rows that changed while the graph was written, from this place on.
    Changed(Vec<Row>, usize),
    Ended,
}

fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + BLOCK_HEAD, 0);
    fill(out);
    let length = (out.len() - start - BLOCK_HEAD) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 8..start + 12].copy_from_slice(&kind.to_le_bytes());
    let sum = crc32fast::hash(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}

fn push(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

impl Checkpoint {
    /// Begins one; until its rows are copied no change is applied.
    pub fn begin(partition: &mut Partition) -> Self {
        let mut bytes = Vec::with_capacity(PART_BYTES + BLOCK_BYTES_MAX);
        bytes.extend_from_slice(MAGIC);
        let From { number, offset, sequence } = partition.applied;
        let log = &partition.log;
        block(&mut bytes, kind::HEAD, |out| {
            push(out, log.settings().salt);
            push(out, number);
            push(out, offset as u32);
            out.extend_from_slice(&sequence.to_le_bytes());
            push(out, log.segments.front().map_or(0, |segment| segment.number));
            push(out, partition.table.rows());
            push(out, log.segments.len() as u32);
            for segment in &log.segments {
                push(out, segment.number);
                push(out, segment.records as u32);
            }
        });
        partition.is_frozen = true;
        // What is not linked yet, a checkpoint does not have.
        let covers = partition.changes.saturating_sub(partition.index.late() as u64);
        let (full, spare) = (VecDeque::new(), None);
        Self { phase: Phase::Names(0), bytes, full, spare, written: 0, covers }
    }

    /// Goes on: a part for the disk, when there is one. While a part is under way this need not be
    /// called.
    pub fn step(&mut self, partition: &mut Partition) -> Option<Job> {
        if !partition.is_frozen
            && let Some(part) = self.full.pop_front()
        {
            return self.part(partition, part, false);
        }
        match &mut self.phase {
            Phase::Names(next) => {
                let mut count = 0;
                block(&mut self.bytes, kind::NAMESPACES, |out| {
                    let names = partition.table.namespaces.numbered(*next);
                    for (number, name) in names.take(NAMES_A_STEP) {
                        *next = usize::from(number) + 1;
                        push(out, number.into());
                        push(out, name.len() as u32);
                        out.extend_from_slice(name.as_bytes());
                        count += 1;
                    }
                });
                if count < NAMES_A_STEP {
                    self.phase = Phase::Rows(0);
                }
                self.cut();
                None
            }
            Phase::Rows(from) => {
                let end = partition.table.rows().min(*from + ROWS_A_STEP as Row);
                let rows = *from..end;
                block(&mut self.bytes, kind::ROWS, |out| {
                    for row in rows {
                        if let Some(entry) = partition.table.get(row) {
                            push(out, row);
                            push(out, entry.place);
                            push(out, entry.hash);
                            push(out, entry.namespace.into());
                        }
                    }
                });
                *from = end;
                if end == partition.table.rows() {
                    self.phase = Phase::Damages(Next::default());
                }
                // The disk is not waited for while nothing is applied.
                self.cut();
                None
            }
            Phase::Damages(next) => {
                let mut is_end = true;
                let kind = if next.is_first() { kind::DAMAGES } else { kind::MORE_DAMAGES };
                block(&mut self.bytes, kind, |out| {
                    let start = out.len();
                    for (hash, damage, behind) in partition.damages.lasting_from(*next) {
                        if out.len() - start >= DAMAGES_BYTES {
                            is_end = false;
                            break;
                        }
                        push(out, hash.is_some().into());
                        push(out, hash.unwrap_or(0));
                        damage.write(out);
                        *next = behind;
                    }
                });
                if is_end {
                    partition.is_frozen = false;
                    partition.changed = Some(Vec::new());
                    self.phase = Phase::Graph(partition.index.begin_image());
                }
                self.cut();
                None
            }
            Phase::Graph(image) => {
                let index = &partition.index;
                let mut is_complete = false;
                block(&mut self.bytes, kind::GRAPH, |out| {
                    is_complete = image.chunk(index, out).is_none();
                });
                if is_complete {
                    let changed = partition.changed.take().unwrap_or_default();
                    self.phase = Phase::Changed(changed, 0);
                }
                self.cut();
                let part = self.full.pop_front()?;
                self.part(partition, part, false)
            }
            Phase::Changed(changed, from) => {
                let end = changed.len().min(*from + ROWS_A_STEP);
                block(&mut self.bytes, kind::CHANGED, |out| {
                    changed[*from..end].iter().for_each(|row| push(out, *row));
                });
                *from = end;
                if end < changed.len() {
                    self.cut();
                    return None;
                }
                block(&mut self.bytes, kind::END, |_| {});
                self.phase = Phase::Ended;
                let last = std::mem::take(&mut self.bytes);
                self.part(partition, last, true)
            }
            Phase::Ended => None,
        }
    }

    /// Begins a new part when the present one is full: a buffer that grew would be copied.
    fn cut(&mut self) {
        if self.bytes.len() >= PART_BYTES {
            let next = self.spare.take();
            let next = next.unwrap_or_else(|| Vec::with_capacity(PART_BYTES + BLOCK_BYTES_MAX));
            self.full.push_back(std::mem::replace(&mut self.bytes, next));
        }
    }

    /// Fills a buffer again that came back from the disk.
    pub fn reuse(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.spare = Some(buffer);
    }

    /// Whether its last part was given away.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    fn part(&mut self, partition: &Partition, bytes: Vec<u8>, is_last: bool) -> Option<Job> {
        let finished = file_of(partition.log.settings())?;
        let offset = self.written;
        self.written += bytes.len() as u64;
        let path = finished.with_extension("new");
        Some(Job::Save(Save { path, offset, bytes, finished: is_last.then_some(finished) }))
    }
}

/// What a checkpoint has, but for the log.
pub struct Loaded {
    /// Where the records begin that it does not cover.
    pub from: From,
    /// Its rows, those apart whose segment is gone.
    pub table: Table,
    /// The graph.
    pub index: Index,
    /// Rows that must be inserted again from their records.
    pub again: Vec<Row>,
    /// Records of each segment.
    pub records: HashMap<u32, u64>,
    /// Damage that was known, with the low half of the item's hash where it is an item's.
    pub damages: Vec<Known>,
    /// Its bytes.
    pub bytes: u64,
}

/// Damage, and the item that it is of.
pub type Known = (Option<u32>, Damage);

/// What a checkpoint's file comes to, its graph apart.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// There is none.
    None,
    /// It is as it was written.
    Well(Outline),
    /// Its graph is not, and that is all: a start builds that part again.
    Graph(Outline),
    /// More of it is not: a start reads all records.
    Damaged,
}

impl State {
    /// What it says of the records, as far as that is as it was written.
    pub fn outline(&self) -> Option<&Outline> {
        match self {
            Self::Well(outline) | Self::Graph(outline) => Some(outline),
            Self::None | Self::Damaged => None,
        }
    }
}

/// What a checkpoint says of the records.
#[derive(Debug, PartialEq, Eq)]
pub struct Outline {
    /// Up to where it covers them.
    pub from: From,
    /// What it knows of damage.
    pub known: Vec<Known>,
    /// The first segment that there was.
    pub first: u32,
    /// Where the record of each item lies, and the low half of its name's hash.
    pub places: Vec<(Place, u32)>,
}

/// Reads numbers off the front of bytes.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*first))
    }

    fn long(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }
}

/// Reads a partition's checkpoint; nothing when there is none, or none that can be used. `first` is the
/// number of the first segment that is there.
///
/// # Errors
/// The file is there and cannot be read.
pub fn load(
    settings: &LogSettings,
    options: IndexOptions,
    first: u32,
) -> io::Result<Option<Loaded>> {
    let Some(path) = file_of(settings) else { return Ok(None) };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let loaded = parse(&bytes, settings, options, first);
    if loaded.is_none() {
        tracing::warn!(file = %path.display(), "a checkpoint of pattern memory is damaged; all records are read");
    }
    Ok(loaded)
}

fn parse(
    bytes: &[u8],
    settings: &LogSettings,
    options: IndexOptions,
    first: u32,
) -> Option<Loaded> {
    let all = bytes;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut loader = Loader::new(options).ok()?;
    let mut head = None;
    let mut names: HashMap<u32, &str> = HashMap::new();
    let mut entries: Vec<(Row, Entry, u32)> = Vec::new();
    let mut changed = HashSet::new();
    let mut damages = Vec::new();
    let mut is_whole = false;
    while rest.len() >= BLOCK_HEAD {
        let (block_kind, content, is_well) = next_block(&mut rest)?;
        let mut content = Numbers(content);
        if block_kind == kind::GRAPH {
            // A damaged chunk is not taken: its rows are inserted again.
            if !content.0.is_empty()
                && let Err(error) = loader.chunk(content.0)
            {
                tracing::warn!(%error, "a part of a checkpoint is damaged");
            }
            continue;
        }
        if !is_well {
            return None;
        }
        match block_kind {
            kind::HEAD => head = Some(read_head(&mut content, settings)?),
            kind::NAMESPACES => {
                while !content.0.is_empty() {
                    let (number, length) = (content.next()?, content.next()? as usize);
                    let (name, after) = content.0.split_at_checked(length)?;
                    content.0 = after;
                    names.insert(number, std::str::from_utf8(name).ok()?);
                }
            }
            kind::ROWS => {
                while !content.0.is_empty() {
                    let row = content.next()?;
                    let (place, hash) = (content.next()?, content.next()?);
                    let entry = Entry { place, hash, namespace: 0, is_taken: true };
                    entries.push((row, entry, content.next()?));
                }
            }
            kind::CHANGED => {
                while let Some(row) = content.next() {
                    changed.insert(row);
                }
            }
            kind::DAMAGES | kind::MORE_DAMAGES => {
                damages.extend(read_damages(content.0, settings.folder.as_deref()?)?)
            }
            kind::END => is_whole = true,
            _ => return None,
        }
    }
    let head = head.filter(|_| is_whole)?;
    let is_there = |place: Place| {
        // The number that its segment had when the checkpoint was written.
        let number = head.first + settings.distance(place, head.first) as u32;
        number >= first
    };
    let mut table = Table::default();
    for (row, entry, namespace) in entries {
        if is_there(entry.place) {
            let number = table.namespaces.enter(names.get(&namespace)?)?;
            table.insert(row, entry.place, entry.hash, number);
        }
    }
    let wanted = |row| match table.get(row) {
        None => Wanted::Nothing,
        Some(_) if changed.contains(&row) => Wanted::Changed,
        Some(_) => Wanted::Same,
    };
    let (index, again) = loader.finish(head.rows, wanted).ok()?;
    let (from, records, bytes) = (head.from, head.records, all.len() as u64);
    Some(Loaded { from, table, index, again, records, damages, bytes })
}

/// The next block's kind and content, and whether its checksum is right.
fn next_block<'a>(rest: &mut &'a [u8]) -> Option<(u32, &'a [u8], bool)> {
    let mut numbers = Numbers(rest);
    let (length, sum) = (numbers.next()? as usize, numbers.next()?);
    let covered = rest.get(8..BLOCK_HEAD.checked_add(length)?)?;
    let kind = numbers.next()?;
    *rest = &rest[BLOCK_HEAD + length..];
    Some((kind, &covered[4..], crc32fast::hash(covered) == sum))
}

fn read_damages(mut content: &[u8], folder: &Path) -> Option<Vec<Known>> {
    let mut damages = Vec::new();
    while !content.is_empty() {
        let mut numbers = Numbers(content);
        let (is_item, hash) = (numbers.next()? != 0, numbers.next()?);
        content = numbers.0;
        let mut damage = Damage::read(&mut content)?;
        // The folder may lie elsewhere by now.
        if let Some(name) = Path::new(&damage.file).file_name() {
            damage.file = folder.join(name).display().to_string();
        }
        damages.push((is_item.then_some(hash), damage));
    }
    Some(damages)
}

/// Looks at every checksum of a partition's checkpoint.
///
/// # Errors
/// The file is there and cannot be read.
pub fn look_at(settings: &LogSettings) -> io::Result<State> {
    let Some(path) = file_of(settings) else { return Ok(State::None) };
    match fs::read(path) {
        Ok(bytes) => Ok(judge(&bytes, settings).unwrap_or(State::Damaged)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::None),
        Err(error) => Err(error),
    }
}

fn judge(bytes: &[u8], settings: &LogSettings) -> Option<State> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let (mut known, mut head, mut places) = (Vec::new(), None, Vec::new());
    let (mut is_ended, mut is_whole) = (false, true);
    while !rest.is_empty() {
        let (kind, content, is_well) = next_block(&mut rest)?;
        is_whole &= is_well;
        match kind {
            kind::GRAPH => {}
            _ if !is_well => return None,
            kind::HEAD => head = Some(read_head(&mut Numbers(content), settings)?),
            kind::ROWS => {
                let mut content = Numbers(content);
                while content.next().is_some() {
                    places.push((content.next()?, content.next()?));
                    let _namespace = content.next()?;
                }
            }
            kind::DAMAGES | kind::MORE_DAMAGES => {
                known.extend(read_damages(content, settings.folder.as_deref()?)?)
            }
            kind::END => is_ended = true,
            _ => {}
        }
    }
    let Head { from, first, .. } = head.filter(|_| is_ended)?;
    let outline = Outline { from, known, first, places };
    Some(if is_whole { State::Well(outline) } else { State::Graph(outline) })
}

struct Head {
    from: From,
    first: u32,
    rows: Row,
    records: HashMap<u32, u64>,
}

fn read_head(content: &mut Numbers<'_>, settings: &LogSettings) -> Option<Head> {
    if content.next()? != settings.salt {
        return None;
    }
    let (number, offset) = (content.next()?, content.next()? as usize);
    let from = From { number, offset, sequence: content.long()? };
    let (first, rows, count) = (content.next()?, content.next()?, content.next()?);
    let mut records = HashMap::new();
    for _ in 0..count {
        records.insert(content.next()?, content.next()?.into());
    }
    Some(Head { from, first, rows, records })
}
