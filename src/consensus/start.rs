//! Starts the threads that go on with a log that was read.

use super::{
    assemble::{Assembled, Found, Pace, Sizes, Surroundings, Unfit},
    book::Book,
    engine::Engine,
    files::SegmentFolder,
    links::PeerLinks,
    open::{OpenError, OpenLog, Seat, Settings},
    owner,
    reader::SegmentReader,
    thread::{EXIT_LOG_FAILED, LogThread},
};
use crate::runtime::disk::{FolderLock, Placement, spawn_blocking_thread};
use std::{
    fs, io,
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Bytes of entries that stay in memory for followers.
const CACHE_BYTES: usize = 64 << 20;
/// What the book is called in the log's folder.
const BOOK_NAME: &str = "nodes";

/// What surrounds the log of a process.
type Own = Surroundings<SegmentFolder, PeerLinks>;

/// Starts the threads of what `assemble` makes.
///
/// # Errors
/// The log cannot be written, or the address for other nodes cannot be had.
pub(super) fn start<R, E: Engine + Send + 'static>(
    settings: &Settings,
    seat: &Seat,
    found: Found<R>,
    disk: SegmentFolder,
    lock: FolderLock,
    assemble: impl FnOnce(Sizes, Found<R>, Own) -> Result<Assembled<SegmentFolder, PeerLinks, E>, Unfit>,
) -> Result<OpenLog, OpenError>
where
    E::Message: Send,
    E::Write: Send,
{
    let io = |source| OpenError::Io { folder: settings.folder.clone(), source };
    let now = Instant::now();
    let first_partitions = found.first_partitions;
    let (links, book, book_file) = match &seat.links {
        Some(config) => {
            let links = PeerLinks::listen(config.clone(), now)
                .map_err(|source| OpenError::Peers { address: config.listen, source })?;
            let file = settings.folder.join(BOOK_NAME);
            let mut book = Book::of_configuration(&seat.nodes);
            book.merge(&kept_book(&file).map_err(io)?);
            (links, book, Some(file))
        }
        None => (PeerLinks::default(), Book::of_configuration(&seat.nodes), None),
    };
    let sizes = Sizes {
        segment_bytes: settings.segment_bytes,
        keep_bytes: settings.keep_bytes,
        block_bytes: settings.block_bytes,
        cache_bytes: CACHE_BYTES,
    };
    let (name, seed) = (fastrand::u128(..), fastrand::u64(..));
    let folder = disk.clone();
    let balance = seat.links.is_some();
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH);
    let unix_ms = unix_ms.map_or(0, |since| since.as_millis() as u64);
    let pace = Pace::default();
    let surroundings =
        Surroundings { disk, links, book, book_file, now, unix_ms, name, seed, balance, pace };
    let assembled = assemble(sizes, found, surroundings);
    let assembled = assembled.map_err(|unfit| match unfit {
        Unfit::Unwritable(source) => {
            OpenError::Unwritable { folder: settings.folder.clone(), source }
        }
        Unfit::Io(source) => io(source),
    })?;
    owner::begin(seat).map_err(io)?;
    let Assembled { keeper, helper, lanes, cluster, directory, epoch, bell, stop } = assembled;
    let helper = spawn_blocking_thread(
        "log-helper",
        Placement { cpu: None, realtime: false },
        EXIT_LOG_FAILED,
        move |_| helper.run(),
    );
    let placement = Placement { cpu: settings.cpu, realtime: settings.realtime };
    let thread =
        spawn_blocking_thread("log", placement, EXIT_LOG_FAILED, move |placed| keeper.run(placed));
    let threads = vec![thread.map_err(io)?, helper.map_err(io)?];
    let thread = LogThread::new(stop, bell, threads, lock);
    let reader = SegmentReader::new(folder, directory);
    Ok(OpenLog { lanes, first_partitions, thread, epoch, reader, cluster })
}

/// What a node kept of the book; nothing when there is none yet.
fn kept_book(file: &Path) -> io::Result<Book> {
    match fs::read_to_string(file) {
        Ok(text) => Book::from_text(&text).map_err(|unreadable| {
            let text = format!(
                "{}: {unreadable}; remove it, and nodes are learned again from the \
                                configuration and from each other",
                file.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::default()),
        Err(error) => Err(error),
    }
}
