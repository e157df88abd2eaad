//! Opens a log: reads what is there, and starts the thread that goes on with it.

use super::{
    agreement,
    assemble::{
        CHECKPOINT_ENTRIES, Unreadable, assemble, assemble_agreed, name_broken, read, read_agreed,
        take,
    },
    cluster::{Address, Cluster},
    damage::Finding,
    files::SegmentFolder,
    format::segment_name,
    lane::LaneLog,
    owner::{self, Protocol},
    pbft::Company,
    peers::{self, NodeId},
    reader::SegmentReader,
    recovery::{Recover, Recovery, Replayed, replayed},
    start::start,
    survey::{Survey, survey},
    thread::LogThread,
    writer::Fatal,
};
use crate::{
    runtime::{
        disk::{FolderLock, LockError, is_direct, make_folder},
        doorbell::Doorbell,
    },
    wire::id::PartitionIndex,
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The number of a node that is alone.
const NODE: NodeId = 1;
/// Milliseconds of a tick of the groups' clock on a node that is alone: it waits for nobody.
const TICK_MS: u64 = 100;

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

/// A node's place among others.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its number; not 0.
    pub node: NodeId,
    /// Who votes when a log begins its life; nobody on a node that joins others and waits to be
    /// told.
    pub voters: Vec<NodeId>,
    /// How many partitions a log is begun with; `None` for one for each core, and more when there
    /// are more cores later.
    pub partitions: Option<PartitionIndex>,
    /// Milliseconds of a tick of the groups' clock.
    pub tick_ms: u64,
    /// Where nodes can be reached, this one among them, by what is configured.
    pub nodes: Vec<(NodeId, Address)>,
    /// The links to other nodes; `None` on a node that is alone.
    pub links: Option<peers::Config>,
    /// Whom it agrees with by PBFT; `None` where nodes replicate by Raft.
    pub company: Option<Company>,
    /// Entries between two checkpoints by PBFT, the same on all nodes.
    pub checkpoint_entries: u64,
    /// The file that says in which lives of those it has begun a log; `None` when nobody wants to know.
    pub begun_file: Option<PathBuf>,
    /// Whether what it agrees on is answered before it is committed, as PBFT can without a risk.
    pub is_tentative: bool,
}

impl Seat {
    /// That of a node that is alone.
    pub fn alone() -> Self {
        Self {
            node: NODE,
            voters: vec![NODE],
            partitions: None,
            tick_ms: TICK_MS,
            nodes: Vec::new(),
            links: None,
            company: None,
            checkpoint_entries: CHECKPOINT_ENTRIES,
            begun_file: None,
            is_tentative: true,
        }
    }

    /// Whether there are no other nodes, and never will be.
    pub fn is_alone(&self) -> bool {
        self.links.is_none() && self.voters == [self.node]
    }
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
    /// The log is another node's.
    #[error("the log in {} is not this node's: {why}", .folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Whose it is and what to do, a sentence.
        why: String,
    },
    /// Other nodes cannot be listened to.
    #[error("cannot listen to other nodes on {address}: {source}")]
    Peers {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A core would keep no partition.
    #[error(
        "the log has {partitions} partitions and the node {cores} worker cores, some of which would \
         have nothing to do; set cores.workers to {partitions} cores at most (or begin a new \
         cluster with a larger cluster.partitions)"
    )]
    Cores {
        /// Partitions of the log.
        partitions: usize,
        /// Worker cores.
        cores: usize,
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
/// as many partitions as when the log began; on a node that is alone more when there are more cores,
/// so that each core has one, or when partitions that were added so have records.
///
/// # Errors
/// See [`OpenError`]; what `replay` was told must be thrown away then.
///
/// # Panics
/// When a block does not fit into a segment: a configuration that says so is refused.
pub fn open(
    settings: Settings,
    seat: &Seat,
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
    let cores = core_bells.len();
    let unreadable = |unreadable| match unreadable {
        Unreadable::Io(source) => io(source),
        Unreadable::Damaged(findings) => {
            OpenError::Damaged { folder: settings.folder.clone(), findings }
        }
        Unreadable::Cores(partitions) => OpenError::Cores { partitions, cores },
    };
    let claim = |survey: &Survey| {
        owner::claim(&settings.folder, seat, survey.end.is_some())
            .map_err(io)?
            .map_err(|why| OpenError::Foreign { folder: settings.folder.clone(), why })?;
        tell_torn(survey);
        Ok(())
    };
    owner::check(&settings.folder, seat)
        .map_err(io)?
        .map_err(|why| OpenError::Foreign { folder: settings.folder.clone(), why })?;
    match &seat.company {
        None => {
            let found = read(&mut disk, seat, cores, replay).map_err(unreadable)?;
            claim(&found.survey)?;
            start(&settings, seat, found, disk, lock, |sizes, found, surroundings| {
                assemble(sizes, seat, core_bells, found, surroundings)
            })
        }
        Some(company) => {
            let found = read_agreed(&mut disk, seat, cores, replay).map_err(unreadable)?;
            claim(&found.survey)?;
            start(&settings, seat, found, disk, lock, |sizes, found, surroundings| {
                assemble_agreed(sizes, seat, company, core_bells, found, surroundings)
            })
        }
    }
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
    let survey = match owner::protocol(folder).map_err(io)? {
        Protocol::Raft => verify(folder, Recovery::alone(NODE, &mut nothing), visit),
        Protocol::Pbft => {
            let recovery = agreement::Recovery::new(CHECKPOINT_ENTRIES, &mut nothing);
            verify(folder, recovery, visit)
        }
    };
    survey.map_err(io)
}

fn verify(
    folder: &Path,
    mut recovery: impl Recover,
    visit: &mut dyn FnMut(Replayed<'_>),
) -> io::Result<Survey> {
    let mut broken = None;
    let mut disk = SegmentFolder::new(folder, false);
    let mut survey = survey(&mut disk, &mut |place, block| {
        take(&mut recovery, &mut broken, place, block);
        if let Err(damage) = replayed(place, block, visit) {
            broken.get_or_insert((place, damage));
        }
    })?;
    name_broken(&mut survey, broken);
    Ok(survey)
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
