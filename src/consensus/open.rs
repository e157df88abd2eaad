//! Opens a log: reads what is there, and starts the thread that goes on with it.

use super::{
    cluster::{Cluster, Leaders},
    damage::{Damage, Finding},
    files::SegmentFolder,
    format::{PAGE_BYTES, segment_name},
    group::StoredBlock,
    keeper::{Keeper, Parts},
    lane::{BLOCKS_UNDER_WAY, LaneLog, LaneSettings, Signals, lane},
    place::Place,
    raft::{self, Restore},
    reader::SegmentReader,
    recovery::{Recovery, Replayed, replayed},
    survey::{SegmentSurvey, Survey, survey},
    thread::{EXIT_LOG_FAILED, Helper, LogThread},
    writer::{Fatal, Geometry, Writer},
};
use crate::{
    runtime::{
        disk::{FolderLock, LockError, Placement, is_direct, make_folder, spawn_blocking_thread},
        doorbell::Doorbell,
    },
    wire::id::PartitionIndex,
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
        mpsc::channel,
    },
};

/// The number of a node that is alone.
const NODE: u64 = 1;
/// Milliseconds of a tick of the groups' clock.
const TICK_MS: u64 = 100;
/// Bytes of entries that stay in memory for followers.
const CACHE_BYTES: usize = 64 << 20;
/// Bytes that a partition may have proposed.
const PROPOSAL_BYTES: usize = 64 << 20;

/// How a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder; it is made when it is not there.
    pub folder: PathBuf,
    /// Bytes of a segment file; rounded down to whole pages.
    pub segment_bytes: u64,
    /// Bytes of segments in use beyond which the oldest are cleaned.
    pub keep_bytes: u64,
    /// A shard's block is sent before a record would make it longer than this.
    pub block_bytes: usize,
    /// The processor that the log thread keeps to.
    pub cpu: Option<usize>,
    /// Whether the log thread asks for a real-time priority.
    pub realtime: bool,
}

/// A log that was opened.
#[derive(Debug)]
pub struct OpenLog {
    /// The shards' ends, in the order of the partitions; the partition `p` of `c` cores belongs to
    /// core `p` modulo `c`.
    pub lanes: Vec<LaneLog>,
    /// How many partitions there were when the log began.
    pub first_partitions: PartitionIndex,
    /// The threads that write it.
    pub thread: LogThread,
    /// Grows by one with every open.
    pub epoch: u64,
    /// Reads records back.
    pub reader: SegmentReader,
    /// Who leads what.
    pub cluster: Arc<Cluster>,
}

/// Why a log could not be opened. What was acknowledged is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error("the log in {} is in use: {holder}; stop it, or set log.folder to another folder", .folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who has it, as a sentence.
        holder: LockError,
    },
    /// The folder or its files cannot be used.
    #[error("the log in {} cannot be used: {source}", .folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something that was acknowledged cannot be read.
    #[error(
        "the log in {} is damaged: {}{}; `coreflow doctor --log --folder {}` shows all",
        .folder.display(), .findings[0], more(.findings), .folder.display()
    )]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong; never empty.
        findings: Vec<Finding>,
    },
    /// The log cannot be written.
    #[error("the log in {} cannot be written: {source}", .folder.display())]
    Unwritable {
        /// The folder.
        folder: PathBuf,
        /// What failed.
        source: Fatal,
    },
}

fn more(findings: &[Finding]) -> String {
    match findings.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    }
}

/// Opens the log for as many cores as there are bells, calls `replay` with every record that was
/// committed, oldest first, and the partition that wrote it, and starts the log thread. There are
/// as many partitions as when the log began; more when there are more cores, so that each core has
/// one, or when partitions that were added so have records.
///
/// # Errors
/// See [`OpenError`]; what `replay` was told must be thrown away then.
///
/// # Panics
/// When a block does not fit into a segment: a configuration that says so is refused.
pub fn open(
    settings: Settings,
    core_bells: &[Doorbell],
    replay: &mut dyn FnMut(Replayed<'_>),
) -> Result<OpenLog, OpenError> {
    let io = |source| OpenError::Io { folder: settings.folder.clone(), source };
    make_folder(&settings.folder).map_err(io)?;
    let lock = FolderLock::take(&settings.folder).map_err(|error| match error {
        LockError::Io(source) => io(source),
        holder => OpenError::Locked { folder: settings.folder.clone(), holder },
    })?;
    let mut disk = folder(&settings.folder).map_err(io)?;
    let mut recovery = Recovery::new(&[NODE], replay);
    let mut broken = None;
    let survey = survey(&mut disk, &mut |place, block| {
        take(&mut recovery, &mut broken, place, block);
    });
    let mut survey = survey.map_err(io)?;
    name_broken(&mut survey, broken);
    if !survey.findings.is_empty() {
        let (folder, findings) = (settings.folder, survey.findings);
        return Err(OpenError::Damaged { folder, findings });
    }
    tell_torn(&survey);
    let first_partitions =
        survey.end.map_or(core_bells.len() as PartitionIndex, |end| end.partitions);
    let groups = recovery.finish(first_partitions.max(core_bells.len() as PartitionIndex));
    start(&settings, first_partitions, groups, core_bells, disk, &survey, lock)
}

/// Reads a log without changing anything, while no node has it, and calls `visit` with every record
/// that can be read, committed or not; damage is in the survey.
///
/// # Errors
/// A node has the log, or its folder cannot be read.
pub fn inspect(folder: &Path, visit: &mut dyn FnMut(Replayed<'_>)) -> Result<Survey, OpenError> {
    let io = |source| OpenError::Io { folder: folder.to_owned(), source };
    let _lock = FolderLock::share(folder).map_err(|error| match error {
        LockError::Io(source) => io(source),
        holder => OpenError::Locked { folder: folder.to_owned(), holder },
    })?;
    let mut nothing = |_: Replayed<'_>| {};
    let mut recovery = Recovery::new(&[NODE], &mut nothing);
    let mut broken = None;
    let mut disk = SegmentFolder::new(folder, false);
    let survey = survey(&mut disk, &mut |place, block| {
        take(&mut recovery, &mut broken, place, block);
        if let Err(damage) = replayed(place, block, visit) {
            broken.get_or_insert((place, damage));
        }
    });
    let mut survey = survey.map_err(io)?;
    name_broken(&mut survey, broken);
    Ok(survey)
}

/// Lets a recovery take a block, unless one before did not fit.
fn take(
    recovery: &mut Recovery<'_>,
    broken: &mut Option<(Place, Damage)>,
    place: Place,
    block: &StoredBlock<'_>,
) {
    if broken.is_none() {
        *broken = recovery.take(place, block).err().map(|damage| (place, damage));
    }
}

/// Names what does not follow from the blocks before it, unless something else is wrong, which
/// explains it.
fn name_broken(survey: &mut Survey, broken: Option<(Place, Damage)>) {
    let Some((place, damage)) = broken.filter(|_| survey.findings.is_empty()) else { return };
    let of_generation = |found: &&SegmentSurvey| found.generation == place.generation;
    let segment = survey.segments.iter().find(of_generation).map_or(0, |found| found.number);
    let (file, offset) = (segment_name(segment), place.offset.into());
    survey.findings.push(Finding { file, offset, damage });
}

fn folder(path: &Path) -> io::Result<SegmentFolder> {
    let direct = is_direct(path)?;
    if !direct {
        tracing::warn!(
            "the file system of {} cannot be written past the page cache: each write of the log \
             is followed by an fdatasync instead, which takes longer",
            path.display()
        );
    }
    Ok(SegmentFolder::new(path, direct))
}

fn tell_torn(survey: &Survey) {
    if let Some(torn) = survey.torn {
        tracing::warn!(
            "the last write to the log was cut off and is dropped ({} at byte {}); nobody was told \
             that it succeeded",
            segment_name(torn.segment),
            torn.offset
        );
    }
}

fn start(
    settings: &Settings,
    first_partitions: PartitionIndex,
    groups: Vec<Restore>,
    core_bells: &[Doorbell],
    disk: SegmentFolder,
    survey: &Survey,
    lock: FolderLock,
) -> Result<OpenLog, OpenError> {
    let page = PAGE_BYTES as u64;
    let segment_bytes = settings.segment_bytes / page * page;
    let partitions = groups.len() as PartitionIndex;
    let geometry =
        Geometry { segment_bytes, keep_bytes: settings.keep_bytes, partitions: first_partitions };
    let record_bytes_max = geometry.record_bytes_max();
    assert!(settings.block_bytes <= record_bytes_max, "a block fits into a segment");
    let io = |source| OpenError::Io { folder: settings.folder.clone(), source };
    let writer = Writer::resume(disk.clone(), geometry, survey, fastrand::u128(..));
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
    let raft = raft::Driver::new(raft_settings(groups.len()), groups)
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
    let (cluster, asked) = Cluster::new(Leaders::new(NODE, partitions), bell.clone());
    let keeper = Keeper::new(Parts {
        cluster: cluster.clone(),
        asked,
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

/// What all groups of a node that is alone are given.
fn raft_settings(partitions: usize) -> raft::Settings {
    raft::Settings {
        node: NODE,
        seed: fastrand::u64(..),
        tick_ms: TICK_MS,
        limits: raft::Limits {
            cache_bytes: CACHE_BYTES,
            // A lane has no more under way than that, and a compaction.
            proposals: partitions * (BLOCKS_UNDER_WAY + 1),
            proposal_bytes: partitions * PROPOSAL_BYTES,
        },
        balance: false,
    }
}
