//! A partition as its files have it.
//!
//! Files are read from the first record that no checkpoint covers; what was cut off is replaced by zeros
//! before anything is written behind it, and what is there is synced, so that it may be answered with. Then each record is applied as it was when it was written.

use super::{
    damage::{Damage, Harm},
    files::Span,
    log::RecordLog,
    partition::{Partition, Step},
    portion::Portion,
    record::{Head, Kind},
    region::Region,
    scan::{Found, Scan, Seen},
    segment::{FIRST_OFFSET, LogSettings, Segment, parse_segment_name, segment_name},
    watermark::{Mark, watermark_name},
};
use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Why files cannot be used; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Files are not there: the first of them, and how many more.
    #[error(
        "{} is missing{}: bring it back, or go on without it (coreflow doctor --memory --repair)",
        .0.display(),
        if *.1 > 0 { format!(", and {} more", .1) } else { String::new() }
    )]
    Missing(PathBuf, usize),
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct From {
    /// The segment.
    pub number: u32,
    /// Where in it.
    pub offset: usize,
    /// The sequence of the last record before.
    pub sequence: u64,
}

/// What the files of a partition have.
pub struct Files {
    /// The log, ready to go on.
    pub log: RecordLog,
    /// What is to be applied, by segment number, in order.
    pub records: Vec<(u32, Seen)>,
    /// What is damaged and cannot be named.
    pub damages: Vec<Damage>,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> RecoverError + '_ {
    move |source| RecoverError::Io { path: path.to_owned(), source }
}

/// The record files of a partition by their numbers, in order.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Those that are there and count.
    pub there: Vec<u32>,
    /// Those that should be there and are not.
    pub missing: Vec<u32>,
    /// Those that were made or removed in part: nothing in them counts.
    pub in_part: Vec<u32>,
}

/// Finds a partition's record files: those that its list has, or all where there is no list.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path, partition: u16, span: Option<Span>) -> Result<Numbers, RecoverError> {
    let entries = fs::read_dir(folder).map_err(io_error(folder))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let parsed = names.filter_map(|name| parse_segment_name(&name));
    let all: BTreeSet<u32> =
        parsed.filter(|(of, _)| *of == partition).map(|(_, number)| number).collect();
    let span = span.unwrap_or_else(|| match (all.first(), all.last()) {
        (Some(&first), Some(&last)) => Span { first, next: last + 1 },
        _ => Span::default(),
    });
    Ok(Numbers {
        missing: (span.first..span.next).filter(|number| !all.contains(number)).collect(),
        there: all.iter().copied().filter(|number| span.has(*number)).collect(),
        in_part: all.iter().copied().filter(|number| !span.has(*number)).collect(),
    })
}

/// Reads a partition's files from a place on; of those before, how long they are. What is before `covered`
/// a checkpoint has.
///
/// # Errors
/// A file cannot be read.
pub fn read(
    settings: &LogSettings,
    numbers: &[u32],
    from: From,
    covered: From,
) -> Result<(Found, Vec<Damage>), RecoverError> {
    let Some(folder) = &settings.folder else { return Ok(Default::default()) };
    let mark = Mark::read(settings).map_err(io_error(folder))?;
    let mut scan = Scan::knowing(mark.synced().unwrap_or(0).max(covered.sequence));
    let mut damages = Vec::new();
    for &number in numbers {
        let path = folder.join(segment_name(settings.partition, number));
        let file = path.display().to_string();
        let (there, whole) =
            (fs::metadata(&path).map_err(io_error(&path))?.len(), settings.segment_bytes as u64);
        if there != whole {
            damages.push(Damage::of_file(&file, Harm::Length(there, whole)));
        }
        if number < from.number {
            continue;
        }
        let mut bytes = fs::read(&path).map_err(io_error(&path))?;
        // What a start finds of a file that was shortened, as it gives it its length again.
        bytes.resize(settings.segment_bytes, 0);
        // Without a list a file may have been made in part.
        let may_be_empty = settings.list.is_none() && bytes.iter().all(|byte| *byte == 0);
        let has_begin = bytes.get(..FIRST_OFFSET) == Some(&settings.head_of(number));
        if !has_begin && !may_be_empty {
            damages.push(Damage::of_file(&file, Harm::Begin));
        }
        let offset = if number == from.number { from.offset } else { 0 };
        scan.segment(file, &bytes, settings.salt_of(number), offset);
    }
    // A file that the list has is missed; what was freed before it is not.
    let first = settings.list.as_ref().map(|list| list.span()).filter(|span| !span.is_empty());
    let first = first.map(|span| span.first).or(numbers.first().copied());
    let is_known = first.is_none_or(|first| first <= from.number);
    let found = scan.finish(is_known.then_some(from.sequence));
    let gone = mark.synced().unwrap_or(0).saturating_sub(covered.sequence);
    if numbers.is_empty() && gone > 0 {
        let file = folder.join(watermark_name(settings.partition));
        damages.push(Damage::of_file(file.display().to_string(), Harm::Gone(gone)));
    }
    // Without a watermark nobody knows whether what was cut off had been acknowledged.
    if let Some((segment, end)) = found.torn.filter(|_| mark.synced().is_none()) {
        let scanned: Vec<u32> = numbers.iter().copied().filter(|it| *it >= from.number).collect();
        let number = scanned[segment as usize];
        if (number, end as usize) > (covered.number, covered.offset) {
            let file = folder.join(segment_name(settings.partition, number));
            damages.push(Damage {
                offset: end as usize,
                ..Damage::of_file(file.display().to_string(), Harm::Cut)
            });
        }
    }
    Ok((found, damages))
}

/// Opens the files of a partition: cuts off what was torn, and finds what is to be applied.
///
/// # Errors
/// A file cannot be read or written, or is missing.
pub fn open(settings: LogSettings, from: From) -> Result<Files, RecoverError> {
    let Some(folder) = settings.folder.clone() else {
        let log = RecordLog::new(settings, VecDeque::new(), FIRST_OFFSET, 0);
        return Ok(Files { log, records: Vec::new(), damages: Vec::new() });
    };
    let path_of = |number| folder.join(segment_name(settings.partition, number));
    let span = settings.list.as_ref().map(|list| list.span());
    let Numbers { there: numbers, missing, in_part } = list(&folder, settings.partition, span)?;
    if let Some(first) = missing.first() {
        return Err(RecoverError::Missing(path_of(*first), missing.len() - 1));
    }
    for path in in_part.into_iter().map(path_of) {
        tracing::info!(file = %path.display(), "a file that was made or removed in part is removed");
        fs::remove_file(&path).map_err(io_error(&path))?;
    }
    let (found, mut damages) = read(&settings, &numbers, from, from)?;
    if Mark::read(&settings).map_err(io_error(&folder))? == Mark::Damaged {
        let file = folder.join(watermark_name(settings.partition));
        tracing::warn!(file = %file.display(), "it is damaged, and is made again");
    }
    // Those that are not whole are met again, with their items, when they are applied.
    let Found { records, gaps, end, torn, last, broken: _ } = found;
    damages.extend(gaps.into_iter().map(|gap| gap.damage));
    let scanned: Vec<u32> =
        numbers.iter().copied().filter(|number| *number >= from.number).collect();
    // Where the log goes on: behind the last record, or where a checkpoint says that it ended.
    let (end_number, end_offset) = match end {
        Some((place, offset)) => (Some(scanned[place as usize]), offset as usize),
        None if from.sequence > 0 && numbers.contains(&from.number) => {
            (Some(from.number), from.offset)
        }
        // So that what was met is kept in a checkpoint, there is a segment.
        None if !damages.is_empty() => (scanned.first().copied(), FIRST_OFFSET),
        None => (None, FIRST_OFFSET),
    };
    // Nothing counts in those behind the end: made ahead, or torn. The first of them is used again.
    let next_number = end_number.map_or(0, |end| end + 1);
    if let Some(list) = settings.list.as_ref().filter(|list| list.span().next > next_number + 1) {
        let kept = if numbers.contains(&next_number) { next_number + 1 } else { next_number };
        list.cut(kept).map_err(io_error(&folder))?;
    }
    let mut segments = VecDeque::new();
    let mut spare = None;
    for &number in &numbers {
        let path = path_of(number);
        if end_number.is_none_or(|end| number > end) {
            match (number == next_number).then(|| clean(&settings, number, &path)).transpose() {
                Ok(Some(region)) => spare = Some(region),
                Ok(None) => fs::remove_file(&path).map_err(io_error(&path))?,
                Err(error) => return Err(io_error(&path)(error)),
            }
            continue;
        }
        if end_number == Some(number) && torn.is_some() {
            let file = path.display();
            tracing::warn!(%file, offset = end_offset, "what was cut off is dropped");
            zero_from(&path, end_offset, settings.segment_bytes).map_err(io_error(&path))?;
        }
        lengthen(&path, settings.segment_bytes).map_err(io_error(&path))?;
        let region = Region::open(&path, settings.segment_bytes).map_err(io_error(&path))?;
        // What a process wrote that was killed before it synced.
        if number >= from.number {
            region.sync().map_err(io_error(&path))?;
        }
        let there = region.bytes_there().map_err(io_error(&path))?;
        let readable = if end_number == Some(number) { end_offset } else { there };
        region.advance_unseen(readable.min(there));
        region.look().map_err(io_error(&path))?;
        let salt = settings.salt_of(number);
        segments.push_back(Segment { number, region: Arc::new(region), salt, records: 0, live: 0 });
    }
    for seen in &records {
        let number = scanned[seen.segment as usize];
        let segment = segments.iter_mut().find(|segment: &&mut Segment| segment.number == number);
        segment.expect("a record that was found is in one of them").records += 1;
    }
    let numbered = records.into_iter().map(|seen| (scanned[seen.segment as usize], seen));
    let records: Vec<(u32, Seen)> = numbered.collect();
    let is_empty = segments.is_empty();
    let mut log = RecordLog::new(settings, segments, end_offset, last);
    if !is_empty {
        let seals = records.iter().rev().take_while(|(_, seen)| seen.kind == Kind::Seal).count();
        log.begin_watermark(last - seals as u64).map_err(io_error(&folder))?;
    }
    if let Some(region) = spare {
        log.give_spare(region);
    }
    Ok(Files { log, records, damages })
}

/// A segment in which nothing counts, as one that was just made.
fn clean(settings: &LogSettings, number: u32, path: &Path) -> io::Result<Arc<Region>> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(settings.segment_bytes as u64)?;
    file.write_all_at(&settings.head_of(number), 0)?;
    drop(file);
    zero_from(path, FIRST_OFFSET, settings.segment_bytes)?;
    Region::open(path, settings.segment_bytes).map(Arc::new)
}

/// Gives a file that was shortened its length again, with zeros.
fn lengthen(path: &Path, bytes: usize) -> io::Result<()> {
    if fs::metadata(path)?.len() < bytes as u64 {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(bytes as u64)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Replaces by zeros what lies from an offset to the end, where it is not zeros.
fn zero_from(path: &Path, offset: usize, bytes: usize) -> io::Result<()> {
    const PART: usize = 1 << 20;
    lengthen(path, bytes)?;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut part = vec![0; PART];
    let mut at = offset;
    while at < bytes {
        let length = PART.min(bytes - at);
        file.read_exact_at(&mut part[..length], at as u64)?;
        if part[..length].iter().any(|byte| *byte != 0) {
            file.write_all_at(&vec![0; length], at as u64)?;
        }
        at += length;
    }
    file.sync_all()
}

/// Applies what was found to a partition that has what came before.
///
/// # Errors
/// A record cannot be read from the disk.
pub fn replay(
    partition: &mut Partition,
    records: &[(u32, Seen)],
    damages: Vec<Damage>,
) -> io::Result<()> {
    let number = partition.log.settings().partition;
    let mut told = Instant::now();
    partition.is_starting = true;
    for (done, (segment, seen)) in records.iter().enumerate() {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tracing::info!(partition = number, done, of = records.len(), "records are read again");
        }
        replay_one(partition, *segment, seen)?;
    }
    partition.is_starting = false;
    damages.into_iter().for_each(|damage| partition.note_unnamed(damage));
    partition.changes += records.len() as u64;
    let ((number, offset), sequence) = (partition.log.end(), partition.log.sequence());
    partition.applied = From { number, offset, sequence };
    Ok(())
}

fn replay_one(partition: &mut Partition, segment: u32, seen: &Seen) -> io::Result<()> {
    while partition.index.sweep_some(usize::MAX) {}
    let settings = partition.log.settings();
    let place = settings.place(segment, seen.offset as usize);
    let Some(Head { kind, hash, .. }) = partition.log.head(place) else {
        // The names behind a damaged head said which item it was.
        let damage = partition.log.damage(place, None);
        partition.lose(seen.kind, seen.hash, damage);
        return Ok(());
    };
    loop {
        match partition.apply_record(place, kind, hash, &mut Portion::new()) {
            Step::Done(None) => {}
            Step::Done(Some(Ok(_))) => return Ok(()),
            Step::Done(Some(Err(error))) => {
                tracing::error!(%error, "a record was not taken in again");
                return Ok(());
            }
            Step::Wait(pieces) => pieces
                .iter()
                .try_for_each(|(region, offset, length)| region.load(*offset, *length))?,
        }
    }
}
