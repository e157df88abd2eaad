//! Starts the threads that go on with a log that was read.

use super::{
    book::Book,
    cluster::{Cluster, Leaders},
    files::SegmentFolder,
    format::PAGE_BYTES,
    keeper::{Keeper, Parts},
    lane::{BLOCKS_UNDER_WAY, LaneSettings, Signals, lane},
    links::PeerLinks,
    open::{OpenError, OpenLog, Seat, Settings},
    raft::{self, Restore},
    reader::SegmentReader,
    survey::Survey,
    thread::{EXIT_LOG_FAILED, Helper, LogThread},
    writer::{Geometry, Writer},
};
use crate::{
    runtime::{
        disk::{FolderLock, Placement, spawn_blocking_thread},
        doorbell::Doorbell,
    },
    wire::id::PartitionIndex,
};
use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
        mpsc::channel,
    },
    time::Instant,
};

/// Bytes of entries that stay in memory for followers.
const CACHE_BYTES: usize = 64 << 20;
/// Bytes that a partition may have proposed.
const PROPOSAL_BYTES: usize = 64 << 20;
/// What the book is called in the log's folder.
const BOOK_NAME: &str = "nodes";

/// What was found in a log's folder.
pub(super) struct Found {
    /// The partitions that the log began with.
    pub first_partitions: PartitionIndex,
    /// The groups as they were when the log ended.
    pub groups: Vec<Restore>,
    pub disk: SegmentFolder,
    pub survey: Survey,
    pub lock: FolderLock,
}

/// Starts the threads.
///
/// # Errors
/// The log cannot be written, or the address for other nodes cannot be had.
pub(super) fn start(
    settings: &Settings,
    seat: &Seat,
    core_bells: &[Doorbell],
    found: Found,
) -> Result<OpenLog, OpenError> {
    let Found { first_partitions, groups, disk, survey, lock } = found;
    let page = PAGE_BYTES as u64;
    let segment_bytes = settings.segment_bytes / page * page;
    let partitions = groups.len() as PartitionIndex;
    let geometry =
        Geometry { segment_bytes, keep_bytes: settings.keep_bytes, partitions: first_partitions };
    let record_bytes_max = geometry.record_bytes_max();
    assert!(settings.block_bytes <= record_bytes_max, "a block fits into a segment");
    let io = |source| OpenError::Io { folder: settings.folder.clone(), source };
    let writer = Writer::resume(disk.clone(), geometry, &survey, fastrand::u128(..));
    let writer = writer
        .map_err(|source| OpenError::Unwritable { folder: settings.folder.clone(), source })?;
    let (epoch, directory) = (writer.epoch(), writer.directory());
    let bell = Doorbell::new().map_err(io)?;
    let signals = Arc::new(Signals {
        has_room: AtomicBool::new(writer.has_room()),
        move_before: AtomicU64::new(0),
    });
    let lane_settings = LaneSettings {
        block_bytes: settings.block_bytes,
        record_bytes_max,
        bell: bell.clone(),
        signals: signals.clone(),
    };
    let (lanes, ends) = (0..partitions)
        .zip(core_bells.iter().cycle())
        .map(|(partition, core_bell)| lane(partition, &lane_settings, core_bell.clone()))
        .unzip();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = SegmentReader::new(disk.clone(), directory);
    let told = groups.iter().map(Restore::told_upto).collect();
    let raft = raft::Driver::new(raft_settings(seat, groups.len()), groups)
        .map_err(|unfit| io(io::Error::new(io::ErrorKind::InvalidData, unfit.to_string())))?;
    let (jobs, jobs_end) = channel();
    let (results_end, results) = channel();
    let helper = Helper {
        disk: disk.clone(),
        segment_bytes,
        jobs: jobs_end,
        results: results_end,
        bell: bell.clone(),
    };
    let (bell_of_thread, stop_of_thread) = (bell.clone(), stop.clone());
    let now = Instant::now();
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
    let (cluster, asked) = Cluster::new(Leaders::new(seat.node, partitions), bell.clone());
    let keeper = Keeper::new(Parts {
        cluster: cluster.clone(),
        asked,
        links,
        book,
        book_file,
        now,
        writer,
        disk,
        raft,
        lanes: ends,
        told,
        bell: bell_of_thread,
        stop: stop_of_thread,
        signals,
        jobs,
        results,
    });
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

fn raft_settings(seat: &Seat, partitions: usize) -> raft::Settings {
    raft::Settings {
        node: seat.node,
        seed: fastrand::u64(..),
        tick_ms: seat.tick_ms,
        limits: raft::Limits {
            cache_bytes: CACHE_BYTES,
            // A lane has no more under way than that, and a compaction.
            proposals: partitions * (BLOCKS_UNDER_WAY + 1),
            proposal_bytes: partitions * PROPOSAL_BYTES,
        },
        balance: seat.links.is_some(),
    }
}
