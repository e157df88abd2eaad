//! Puts a log's parts together: what a disk says, and the state machines that go on with it.
//!
//! Nothing here runs by itself: a node runs the parts on threads (`start.rs`), the simulator in an
//! order of its own, with a disk, links and a clock of its own.

use super::{
    agreement::{self, Replicas},
    book::Book,
    cluster::{Cluster, Leaders},
    damage::{Damage, Finding},
    disk::Disk,
    engine::{Engine, Limits},
    format::{PAGE_BYTES, segment_name},
    group::StoredBlock,
    keeper::Parts,
    lane::{BLOCKS_UNDER_WAY, LaneLog, LaneSettings, Signals, lane},
    links::Links,
    open::Seat,
    pbft,
    peers::NodeId,
    place::Place,
    raft::{self, Restore},
    recovery::{Recover, Recovery, Replayed},
    survey::{SegmentSurvey, Survey, survey},
    writer::{Directory, Fatal, Geometry, Writer},
};
use crate::{runtime::doorbell::Doorbell, wire::id::PartitionIndex};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
        mpsc::channel,
    },
    time::Instant,
};

pub use super::{
    keeper::{After, Keeper, Pace},
    thread::Helper,
};

/// Bytes that a partition may have proposed.
const PROPOSAL_BYTES: usize = 64 << 20;

/// Entries between two checkpoints of nodes that may lie.
pub const CHECKPOINT_ENTRIES: u64 = 128;
/// Ticks between two reports of how far a replica is, where nodes may lie.
const REPORT_TICKS: u64 = 3;
/// Ticks without progress after which a primary that may lie is replaced: as many as it takes at most
/// until somebody stands for election where a leader is silent.
const PATIENCE_TICKS: u64 = 20;
/// The longest that this becomes, milliseconds, when one primary after the other brings no progress.
const PATIENCE_MS_MAX: u64 = 30_000;

/// What was found on a disk.
pub struct Found<R = Restore> {
    /// How many partitions there were when the log began.
    pub first_partitions: PartitionIndex,
    /// The groups as they were when the log ended.
    pub groups: Vec<R>,
    /// The segments.
    pub survey: Survey,
}

/// Why a log cannot be gone on with.
#[derive(Debug)]
pub enum Unreadable {
    /// The disk cannot be read.
    Io(io::Error),
    /// Something that was acknowledged cannot be read; never empty.
    Damaged(Vec<Finding>),
    /// A core would keep none of so many partitions.
    Cores(usize),
}

/// Sizes of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a segment; rounded down to whole pages.
    pub segment_bytes: u64,
    /// Bytes of segments in use beyond which the oldest are cleaned.
    pub keep_bytes: u64,
    /// A shard's block is sent before a record would make it longer than this.
    pub block_bytes: usize,
    /// Bytes of entries that stay in memory for followers.
    pub cache_bytes: usize,
}

/// What surrounds a log.
pub struct Surroundings<D, L> {
    /// Where it is kept.
    pub disk: D,
    /// The way to other nodes.
    pub links: L,
    /// Where those can be reached.
    pub book: Book,
    /// Where that is kept.
    pub book_file: Option<PathBuf>,
    /// The time.
    pub now: Instant,
    /// The same, Unix time in milliseconds.
    pub unix_ms: u64,
    /// Names a log that begins.
    pub name: u128,
    /// What the waits before elections follow from.
    pub seed: u64,
    /// Leaders are spread over the nodes, and learners that caught up are promoted.
    pub balance: bool,
    /// How fast the log is made shorter, where nodes may lie.
    pub pace: Pace,
}

/// The parts of a log.
pub struct Assembled<D, L, E: Engine = raft::Driver> {
    /// The log thread's loop.
    pub keeper: Keeper<D, L, E>,
    /// Makes and removes segments for it.
    pub helper: Helper<D>,
    /// The shards' ends, in the order of the partitions.
    pub lanes: Vec<LaneLog>,
    /// Who leads what.
    pub cluster: Arc<Cluster>,
    /// Which files hold what.
    pub directory: Directory,
    /// Grows by one with every open.
    pub epoch: u64,
    /// Wakes the keeper.
    pub bell: Doorbell,
    /// Makes the keeper end.
    pub stop: Arc<AtomicBool>,
}

/// Why a log cannot be assembled.
#[derive(Debug)]
pub enum Unfit {
    /// It cannot be written.
    Unwritable(Fatal),
    /// The system refuses something, or the groups are not whole.
    Io(io::Error),
}

/// Reads a log, and calls `replay` with every record that was committed, oldest first.
///
/// # Errors
/// What `replay` was told must be thrown away then.
pub fn read(
    disk: &mut dyn Disk,
    seat: &Seat,
    cores: usize,
    replay: &mut dyn FnMut(Replayed<'_>),
) -> Result<Found, Unreadable> {
    let recovery = match seat.is_alone() {
        true => Recovery::alone(seat.node, replay),
        false => Recovery::new(seat.node, &seat.voters, replay),
    };
    read_with(disk, seat, cores, recovery)
}

/// As [`read`], where nodes may lie.
///
/// # Errors
/// What `replay` was told must be thrown away then.
pub fn read_agreed(
    disk: &mut dyn Disk,
    seat: &Seat,
    cores: usize,
    replay: &mut dyn FnMut(Replayed<'_>),
) -> Result<Found<agreement::Restored>, Unreadable> {
    read_with(disk, seat, cores, agreement::Recovery::new(seat.checkpoint_entries, replay))
}

fn read_with<R: Recover>(
    disk: &mut dyn Disk,
    seat: &Seat,
    cores: usize,
    mut recovery: R,
) -> Result<Found<R::Restore>, Unreadable> {
    let mut broken = None;
    let survey = survey(disk, &mut |place, block| take(&mut recovery, &mut broken, place, block));
    let mut survey = survey.map_err(Unreadable::Io)?;
    name_broken(&mut survey, broken);
    if !survey.findings.is_empty() {
        return Err(Unreadable::Damaged(survey.findings));
    }
    let at_first = seat.partitions.unwrap_or(cores as PartitionIndex);
    let first_partitions = survey.end.map_or(at_first, |end| end.partitions);
    let groups = match seat.partitions {
        Some(_) => recovery.finish(first_partitions),
        None => recovery.finish(first_partitions.max(cores as PartitionIndex)),
    };
    match groups.len() < cores {
        true => Err(Unreadable::Cores(groups.len())),
        false => Ok(Found { first_partitions, groups, survey }),
    }
}

/// Lets a recovery take a block, unless one before did not fit.
pub(super) fn take(
    recovery: &mut impl Recover,
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
pub(super) fn name_broken(survey: &mut Survey, broken: Option<(Place, Damage)>) {
    let Some((place, damage)) = broken.filter(|_| survey.findings.is_empty()) else { return };
    let of_generation = |found: &&SegmentSurvey| found.generation == place.generation;
    let segment = survey.segments.iter().find(of_generation).map_or(0, |found| found.number);
    let (file, offset) = (segment_name(segment), place.offset.into());
    survey.findings.push(Finding { file, offset, damage });
}

/// Makes the parts that go on with what was found, for a core for each bell.
///
/// # Errors
/// The log cannot be written, or its groups are not whole.
///
/// # Panics
/// When a block does not fit into a segment: a configuration that says so is refused.
pub fn assemble<D: Disk + Clone, L: Links>(
    sizes: Sizes,
    seat: &Seat,
    core_bells: &[Doorbell],
    found: Found,
    surroundings: Surroundings<D, L>,
) -> Result<Assembled<D, L>, Unfit> {
    let told = found.groups.iter().map(Restore::told_upto).collect();
    let Surroundings { seed, balance, .. } = surroundings;
    let begin = |limits, groups| {
        let (node, tick_ms) = (seat.node, seat.tick_ms);
        let settings = raft::Settings { node, seed, tick_ms, limits, balance };
        raft::Driver::new(settings, groups).map_err(|unfit| unfit.to_string())
    };
    assemble_with(sizes, seat.node, core_bells, found, told, surroundings, begin)
}

/// As [`assemble`], where nodes may lie.
///
/// # Errors
/// The log cannot be written, its groups are not whole, or these nodes cannot agree.
///
/// # Panics
/// As [`assemble`].
pub fn assemble_agreed<D: Disk + Clone, L: Links<pbft::Letter>>(
    sizes: Sizes,
    seat: &Seat,
    company: &pbft::Company,
    core_bells: &[Doorbell],
    found: Found<agreement::Restored>,
    surroundings: Surroundings<D, L>,
) -> Result<Assembled<D, L, Replicas>, Unfit> {
    let told = found.groups.iter().map(agreement::Restored::committed).collect();
    let (tick_ms, is_tentative) = (seat.tick_ms, seat.is_tentative);
    let unix_ms = surroundings.unix_ms;
    let begin = |limits, groups| {
        let timing = pbft::Timing {
            tick_ms,
            status_ms: REPORT_TICKS * tick_ms,
            patience_ms: PATIENCE_TICKS * tick_ms,
            patience_max_ms: PATIENCE_MS_MAX.max(PATIENCE_TICKS * tick_ms),
        };
        let checkpoint_every = seat.checkpoint_entries;
        let settings =
            pbft::Settings { limits, timing, checkpoint_every, is_tentative, ..Default::default() };
        Replicas::new(settings, company, groups, unix_ms).map_err(|unfit| unfit.to_string())
    };
    assemble_with(sizes, seat.node, core_bells, found, told, surroundings, begin)
}

fn assemble_with<D: Disk + Clone, L: Links<E::Message>, E: Engine, R>(
    sizes: Sizes,
    me: NodeId,
    core_bells: &[Doorbell],
    found: Found<R>,
    told: Vec<u64>,
    surroundings: Surroundings<D, L>,
    begin: impl FnOnce(Limits, Vec<R>) -> Result<E, String>,
) -> Result<Assembled<D, L, E>, Unfit> {
    let Found { first_partitions, groups, survey } = found;
    let Surroundings { disk, links, book, book_file, now, name, pace, .. } = surroundings;
    let page = PAGE_BYTES as u64;
    let segment_bytes = sizes.segment_bytes / page * page;
    let partitions = groups.len() as PartitionIndex;
    let geometry =
        Geometry { segment_bytes, keep_bytes: sizes.keep_bytes, partitions: first_partitions };
    let record_bytes_max = geometry.record_bytes_max();
    assert!(sizes.block_bytes <= record_bytes_max, "a block fits into a segment");
    let writer =
        Writer::resume(disk.clone(), geometry, &survey, name).map_err(Unfit::Unwritable)?;
    let (epoch, directory) = (writer.epoch(), writer.directory());
    let bell = Doorbell::new().map_err(Unfit::Io)?;
    let signals = Arc::new(Signals {
        has_room: AtomicBool::new(writer.has_room()),
        move_before: AtomicU64::new(0),
    });
    let lane_settings = LaneSettings {
        block_bytes: sizes.block_bytes,
        record_bytes_max,
        bell: bell.clone(),
        signals: signals.clone(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let limits = Limits {
        cache_bytes: sizes.cache_bytes,
        // A lane has no more under way than that, and a compaction.
        proposals: groups.len() * (BLOCKS_UNDER_WAY + 1),
        proposal_bytes: groups.len() * PROPOSAL_BYTES,
    };
    let engine = begin(limits, groups)
        .map_err(|unfit| Unfit::Io(io::Error::new(io::ErrorKind::InvalidData, unfit)))?;
    let (lanes, ends) = (0..partitions)
        .zip(core_bells.iter().cycle())
        .map(|(partition, core_bell)| {
            lane(partition, &lane_settings, engine.naming(partition), core_bell.clone())
        })
        .unzip();
    let (jobs, jobs_end) = channel();
    let (results_end, results) = channel();
    let helper = Helper {
        disk: disk.clone(),
        segment_bytes,
        jobs: jobs_end,
        results: results_end,
        bell: bell.clone(),
    };
    let (cluster, asked) = Cluster::new(Leaders::new(me, partitions), bell.clone());
    let keeper = Keeper::new(Parts {
        cluster: cluster.clone(),
        asked,
        links,
        book,
        book_file,
        now,
        writer,
        disk,
        engine,
        lanes: ends,
        told,
        bell: bell.clone(),
        stop: stop.clone(),
        signals,
        jobs,
        results,
        pace,
    });
    Ok(Assembled { keeper, helper, lanes, cluster, directory, epoch, bell, stop })
}
