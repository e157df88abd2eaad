//! What holds a folder of pattern memory together: its head, and the list of each partition's files.
//!
//! A folder without a head that has anything which needs one is refused, and so is one whose head or
//! lists are damaged or do not belong together: somebody may have the right ones. A folder of the first
//! format, which has no lists, is given them.

use super::{
    checkpoint::{self, State},
    files::{FileList, Listing, ListingError, Span, list_name},
    head::StoreHead,
    open::{OpenError, StoreSettings},
    recover::{self, Numbers, RecoverError},
    segment::{FIRST_OFFSET, LogSettings, parse_segment_name, segment_name},
};
use crate::runtime::disk::replace_file;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The file with the head.
pub const HEAD_NAME: &str = "head";

fn io_error(folder: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    |source| OpenError::Io { folder: folder.to_owned(), source }
}

/// Reads a file's text where there is one.
fn text_of(file: &Path, folder: &Path) -> Result<Option<String>, OpenError> {
    match fs::read(file) {
        // What is no text is damaged, as text with other letters is.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(folder)(error)),
    }
}

/// The head that a folder has; nothing when it has none.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read_head(folder: &Path) -> Result<Option<StoreHead>, OpenError> {
    let Some(text) = text_of(&folder.join(HEAD_NAME), folder)? else { return Ok(None) };
    match text.parse::<StoreHead>() {
        Ok(head) => Ok(Some(head)),
        Err(error) => Err(no_head(folder, error.to_string()).map_err(io_error(folder))?),
    }
}

/// The head that all lists of a folder which can be read repeat; nothing when there are none, or when they
/// do not belong together.
///
/// # Errors
/// The folder cannot be read.
pub fn head_of_lists(folder: &Path) -> io::Result<Option<StoreHead>> {
    let mut head = None;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_list = path.extension().is_some_and(|extension| extension == "list");
        let text = is_list.then(|| fs::read_to_string(&path).ok()).flatten();
        let Some(listing) = text.and_then(|text| text.parse::<Listing>().ok()) else { continue };
        match &head {
            Some(other) if *other != listing.head => return Ok(None),
            _ => head = Some(listing.head),
        }
    }
    Ok(head)
}

/// Why a folder without a head that can be read is refused: what is wrong with the head, or which file
/// needs one, and what can be done.
///
/// # Errors
/// The folder cannot be read.
pub fn no_head(folder: &Path, problem: String) -> io::Result<OpenError> {
    let head = folder.join(HEAD_NAME);
    Ok(match head_of_lists(folder)? {
        Some(_) => OpenError::Head { head, problem },
        None => OpenError::Headless { head, problem },
    })
}

/// What is said of a head that is not there, by a file that needs one.
pub fn missing_beside(file: &Path) -> String {
    format!("it is missing, and {} is there", file.display())
}

/// Gives a folder a head, instead of the one that it has.
///
/// # Errors
/// The disk refuses.
pub fn write_head(folder: &Path, head: &StoreHead) -> io::Result<()> {
    replace_file(&folder.join(HEAD_NAME), head.to_string().as_bytes())
}

/// What the list of a partition says; nothing when there is none.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read_list(folder: &Path, partition: u16) -> Result<Option<Listing>, OpenError> {
    let file = folder.join(list_name(partition));
    let Some(text) = text_of(&file, folder)? else { return Ok(None) };
    match text.parse::<Listing>() {
        Ok(listing) if listing.partition == partition => Ok(Some(listing)),
        _ => Err(OpenError::List { file, source: ListingError }),
    }
}

/// The list of a partition, which belongs to a head.
///
/// # Errors
/// It is missing, cannot be read, is damaged, or belongs to another head.
pub fn list_of(folder: &Path, head: &StoreHead, partition: u16) -> Result<Listing, OpenError> {
    let file = folder.join(list_name(partition));
    match read_list(folder, partition)? {
        Some(listing) if listing.head == head.without_embedder() => Ok(listing),
        Some(_) => Err(OpenError::List { file, source: ListingError }),
        None => Err(RecoverError::Missing(file, 0).into()),
    }
}

/// A file in a folder that is of no use without a head.
///
/// # Errors
/// The folder cannot be read.
pub fn needs_head(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_list = name.ends_with("-files.list");
        let is_empty_list = || {
            let listing = fs::read_to_string(&path).ok().and_then(|it| it.parse::<Listing>().ok());
            listing.is_some_and(|listing| listing.span.is_empty())
        };
        let counts = parse_segment_name(name).is_some() || name.ends_with(".ckpt");
        // The lists of a new folder are there before its head is.
        if counts || is_list && !is_empty_list() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The head and the lists that a folder has, or is given.
///
/// # Errors
/// They are damaged, in part missing, or not what is configured.
pub fn establish(
    settings: &StoreSettings,
    folder: &Path,
) -> Result<(StoreHead, HashMap<u16, Arc<FileList>>), OpenError> {
    let Some(head) = read_head(folder)? else {
        if let Some(file) = needs_head(folder).map_err(io_error(folder))? {
            return Err(no_head(folder, missing_beside(&file)).map_err(io_error(folder))?);
        }
        let head = settings.new_head();
        let lists = (0..head.partitions)
            .map(|partition| give_list(folder, &head, partition, Span::default()))
            .collect::<Result<_, _>>()?;
        write_head(folder, &head).map_err(io_error(folder))?;
        return Ok((head, lists));
    };
    settings.check(&head, folder)?;
    if head.segment_bytes.is_none() {
        return upgrade(folder, &head, settings.segment_bytes);
    }
    let list = |partition| {
        let listing = list_of(folder, &head, partition)?;
        Ok((partition, Arc::new(FileList::known(folder, listing))))
    };
    let lists = (0..head.partitions).map(list).collect::<Result<_, OpenError>>()?;
    Ok((head, lists))
}

/// Gives a partition a list.
///
/// # Errors
/// The disk refuses.
pub fn give_list(
    folder: &Path,
    head: &StoreHead,
    partition: u16,
    span: Span,
) -> Result<(u16, Arc<FileList>), OpenError> {
    let listing = Listing { head: head.without_embedder(), partition, span };
    let list = FileList::write(folder, listing).map_err(io_error(folder))?;
    Ok((partition, Arc::new(list)))
}

/// What a partition without a list has, as far as its files and its checkpoint tell: the files that
/// there should be, and those of them that are missing.
///
/// # Errors
/// A file cannot be read.
pub fn find_span(settings: &LogSettings, folder: &Path) -> Result<(Span, Vec<u32>), OpenError> {
    let Numbers { there, .. } = recover::list(folder, settings.partition, None)?;
    let mut there = there;
    // The last one may have been made in part.
    while let Some(&last) = there.last() {
        let mut begin = [0; FIRST_OFFSET];
        let path = folder.join(segment_name(settings.partition, last));
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
        if read.is_ok() && begin != [0; FIRST_OFFSET] {
            break;
        }
        there.pop();
    }
    let mut span = match (there.first(), there.last()) {
        (Some(&first), Some(&last)) => Span { first, next: last + 1 },
        _ => Span::default(),
    };
    if let State::Well(outline) | State::Graph(outline) =
        checkpoint::look_at(settings).map_err(io_error(folder))?
    {
        let last = outline.from.number;
        let first = if span.is_empty() { last } else { span.first.min(last) };
        span = Span { first, next: span.next.max(last + 1) };
    }
    let missing = (span.first..span.next).filter(|number| !there.contains(number)).collect();
    Ok((span, missing))
}

/// Bytes of a segment in a folder of the first format, which does not say.
///
/// # Errors
/// The folder cannot be read.
pub fn longest_file(folder: &Path) -> io::Result<Option<u32>> {
    let mut longest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if parse_segment_name(&entry.file_name().to_string_lossy()).is_some() {
            longest = longest.max(u32::try_from(entry.metadata()?.len()).ok());
        }
    }
    Ok(longest)
}

/// Gives a folder of the first format lists, and a head of the second.
fn upgrade(
    folder: &Path,
    head: &StoreHead,
    segment_bytes: usize,
) -> Result<(StoreHead, HashMap<u16, Arc<FileList>>), OpenError> {
    let longest = longest_file(folder).map_err(io_error(folder))?;
    let segment_bytes = longest.unwrap_or(segment_bytes as u32);
    let head = StoreHead { segment_bytes: Some(segment_bytes), ..head.clone() };
    let mut spans = Vec::new();
    for partition in 0..head.partitions {
        let settings = settings_of(folder, &head, partition);
        let (span, missing) = find_span(&settings, folder)?;
        if let Some(first) = missing.first() {
            let path = folder.join(segment_name(partition, *first));
            return Err(RecoverError::Missing(path, missing.len() - 1).into());
        }
        spans.push(span);
    }
    let lists = (0..head.partitions)
        .zip(spans)
        .map(|(partition, span)| give_list(folder, &head, partition, span))
        .collect::<Result<_, _>>()?;
    write_head(folder, &head).map_err(io_error(folder))?;
    tracing::info!(folder = %folder.display(), "pattern memory has lists of its record files now");
    Ok((head, lists))
}

/// Which files a partition of a folder has, without its list.
pub fn settings_of(folder: &Path, head: &StoreHead, partition: u16) -> LogSettings {
    LogSettings {
        folder: Some(folder.to_owned()),
        partition,
        segment_bytes: head.segment_bytes.unwrap_or(0) as usize,
        dimensions: head.dimension as usize,
        salt: head.salt,
        list: None,
    }
}
