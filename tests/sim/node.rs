//! A node: the production parts of one, over a simulated disk and links, without threads.

use crate::{
    liar,
    log::{Log, Protocol, company},
    network::{Network, SimLinks},
    trace::{Trace, note},
};
use coreflow::{
    config::Config,
    consensus::{
        agreement,
        assemble::{
            After, Assembled, Found, Helper, Keeper, Pace, Sizes, Surroundings, Unfit, Unreadable,
            assemble, assemble_agreed, read, read_agreed,
        },
        book::Book,
        cluster::{Address, Cluster},
        engine::{Engine, Role, Status},
        lane::LaneLog,
        members::Members,
        open::Seat as ClusterSeat,
        peers::NodeId,
        reader::SegmentReader,
        recovery::Replayed,
        simulated::SimulatedDisk,
        writer::Directory,
    },
    runtime::mesh::mesh,
    shard::{
        core::{Partitions, Shard, Start, TaskUnreadable},
        recovering::{Recovering, among},
        remote::Seat,
        types::{TypeSpec, Types},
    },
    task::TableLimits,
    wire::{api::AgentKind, batch::Batch, id::PartitionIndex},
};
use futures_util::{future::LocalBoxFuture, task::noop_waker_ref};
use std::{
    cell::{Cell, RefCell},
    fmt,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
    time::{Duration, Instant},
};

/// The agent type of all tasks.
pub const TYPE: &str = "work";
/// Logs are made shorter ten times as fast as by a node, so that it happens within a run.
const PACE: Pace = Pace { heed_every: Duration::from_secs(1), patience: Duration::from_secs(3) };
/// Unix time at which a run begins, milliseconds.
const EPOCH_UNIX_MS: u64 = 1_700_000_000_000;

/// What all nodes of a run have in common.
pub struct Common {
    /// How they agree.
    pub protocol: Protocol,
    /// Entries between two checkpoints, by PBFT.
    pub checkpoint_entries: u64,
    /// Who votes at the beginning.
    pub voters: Vec<NodeId>,
    /// All nodes that there may be.
    pub nodes: Vec<(NodeId, Address)>,
    /// How many partitions there are.
    pub partitions: PartitionIndex,
    /// Sizes of the logs.
    pub sizes: Sizes,
    /// Milliseconds of a tick.
    pub tick_ms: u64,
    /// Leaders are spread.
    pub balance: bool,
    /// The tuning.
    pub config: Config,
    /// The time 0 of the run.
    pub zero: Instant,
}

/// A made-up address of a node.
pub fn address(node: NodeId) -> Address {
    let at = |port| SocketAddr::from((Ipv4Addr::new(10, 0, 0, node as u8), port));
    Address { peers: at(7452), rpc: at(7450) }
}

/// How a node ended, or why it could not begin.
pub enum Down {
    /// The disk failed.
    Disk(String),
    /// The log is damaged.
    Damaged(String),
    /// An accepted task cannot be read back.
    Unreadable(TaskUnreadable),
}

impl fmt::Display for Down {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(why) => write!(formatter, "its disk: {why}"),
            Self::Damaged(why) => write!(formatter, "its log is damaged: {why}"),
            Self::Unreadable(why) => write!(formatter, "{why}"),
        }
    }
}

/// What goes wrong with a node's next start.
#[derive(Clone, Copy, Debug)]
pub enum AtStart {
    /// The disk does not sync.
    SyncFails,
    /// The read after so many more fails.
    ReadFails(u64),
}

/// What of a node is gone when its process ends.
pub struct Running {
    pub log: Log,
    helper: Rc<RefCell<Option<Helper<SimulatedDisk>>>>,
    pub shard: Shard,
    pub cluster: Arc<Cluster>,
    stop: Arc<AtomicBool>,
    paused_us: Rc<Cell<u64>>,
    /// Reads of the log that are under way.
    reads: Vec<LocalBoxFuture<'static, ()>>,
    began_us: u64,
}

/// What was found on a disk.
enum FoundLog {
    Raft(Found),
    Pbft(Found<agreement::Restored>),
}

/// What a log is made of.
struct Parts {
    log: Log,
    helper: Helper<SimulatedDisk>,
    lanes: Vec<LaneLog>,
    cluster: Arc<Cluster>,
    directory: Directory,
    stop: Arc<AtomicBool>,
}

impl Parts {
    fn of<E: Engine>(
        assembled: Assembled<SimulatedDisk, SimLinks, E>,
        log: impl FnOnce(Box<Keeper<SimulatedDisk, SimLinks, E>>) -> Log,
    ) -> Self {
        let Assembled { keeper, helper, lanes, cluster, directory, stop, .. } = assembled;
        Self { log: log(Box::new(keeper)), helper, lanes, cluster, directory, stop }
    }
}

/// A node.
pub struct Node {
    pub id: NodeId,
    pub disk: SimulatedDisk,
    pub running: Option<Running>,
    /// How often it was started.
    pub boots: u64,
    /// Its log thread is busy until then.
    pub keeper_busy_us: u64,
    /// Its shard's core is busy until then.
    pub shard_busy_us: u64,
    /// How far its clock is ahead, milliseconds.
    pub skew_ms: u64,
    /// It is to end in good order.
    pub is_leaving: bool,
    /// Its log is damaged.
    pub is_rotten: bool,
    /// Its disk is not damaged for good: it may be there to replace one whose disk was.
    pub lasts: bool,
    /// It did not start with a damaged log, and never will; or it was not begun yet.
    pub is_out: bool,
    /// Another one has taken its place for good.
    pub is_replaced: bool,
    /// What goes wrong with its next start.
    pub at_start: Option<AtStart>,
    /// How it lies, if it does.
    pub lies: Option<&'static str>,
}

impl Node {
    /// A node with an empty disk.
    pub fn new(id: NodeId, skew_ms: u64) -> Self {
        Self {
            id,
            disk: SimulatedDisk::default(),
            running: None,
            boots: 0,
            keeper_busy_us: 0,
            shard_busy_us: 0,
            skew_ms,
            is_leaving: false,
            is_rotten: false,
            lasts: false,
            is_out: false,
            is_replaced: false,
            at_start: None,
            lies: None,
        }
    }

    /// Starts it with what its disk has.
    pub fn start(
        &mut self,
        common: &Common,
        network: &Network,
        seed: u64,
        now_us: u64,
    ) -> Result<(), Down> {
        assert!(self.running.is_none(), "it runs");
        self.disk = self.disk.restarted();
        match self.at_start.take() {
            Some(AtStart::SyncFails) => self.disk.fail_syncs(),
            Some(AtStart::ReadFails(reads)) => self.disk.fail_read_after(reads),
            None => {}
        }
        self.boots += 1;
        let unix_ms = EPOCH_UNIX_MS + now_us / 1000 + self.skew_ms;
        let voters =
            if common.voters.contains(&self.id) { common.voters.clone() } else { Vec::new() };
        let agrees = common.protocol == Protocol::Pbft;
        let seat = ClusterSeat {
            node: self.id,
            voters,
            partitions: Some(common.partitions),
            tick_ms: common.tick_ms,
            nodes: common.nodes.clone(),
            links: None,
            company: agrees.then(|| company(self.id, &common.voters)),
            checkpoint_entries: common.checkpoint_entries,
            begun_file: None,
            is_tentative: true,
        };
        let mut ports = mesh::<Batch>(1, common.config.mesh.ring_batches).expect("descriptors");
        let port = ports.pop().expect("one core has one port");
        let mut types = Types::new(vec![work_type()]);
        let limits = TableLimits::from(&common.config.tasks);
        let among = seat.company.as_ref().and_then(among);
        let mut recovering = Recovering::new(&mut types, 1, unix_ms, limits, among);
        let mut replay = |replayed: Replayed<'_>| recovering.take(replayed);
        let found = match common.protocol {
            Protocol::Raft => read(&mut self.disk, &seat, 1, &mut replay).map(FoundLog::Raft),
            Protocol::Pbft => {
                read_agreed(&mut self.disk, &seat, 1, &mut replay).map(FoundLog::Pbft)
            }
        };
        let found = found.map_err(|unreadable| match unreadable {
            Unreadable::Damaged(findings) => Down::Damaged(findings[0].to_string()),
            Unreadable::Io(error) => Down::Disk(error.to_string()),
            Unreadable::Cores(_) => unreachable!("there is one core"),
        })?;
        let now = common.zero + Duration::from_micros(now_us);
        let (helper, stop, paused_us) = (Rc::default(), Rc::default(), Rc::new(Cell::new(0)));
        let links = SimLinks::new(
            self.id,
            network.clone(),
            Rc::clone(&helper),
            Rc::clone(&stop),
            paused_us.clone(),
            now,
        );
        let surroundings = Surroundings {
            disk: self.disk.clone(),
            links,
            book: Book::of_configuration(&common.nodes),
            book_file: None,
            now,
            name: 1 + u128::from(self.id),
            seed,
            balance: common.balance,
            unix_ms,
            pace: PACE,
        };
        let (sizes, bells) = (common.sizes, &port.bells);
        let parts = match found {
            FoundLog::Raft(found) => assemble(sizes, &seat, bells, found, surroundings)
                .map(|it| Parts::of(it, Log::Raft)),
            FoundLog::Pbft(found) => {
                let company = seat.company.as_ref().expect("they agree");
                liar::lie(self.lies);
                assemble_agreed(sizes, &seat, company, bells, found, surroundings)
                    .map(|it| Parts::of(it, Log::Pbft))
            }
        };
        let parts = parts.map_err(|unfit| match unfit {
            Unfit::Unwritable(fatal) => Down::Disk(fatal.to_string()),
            Unfit::Io(error) => panic!("the groups of node {} are not whole: {error}", self.id),
        })?;
        let Parts { log, helper: works, lanes, cluster, directory, stop: ends } = parts;
        *helper.borrow_mut() = Some(works);
        *stop.borrow_mut() = Some(ends.clone());
        let start = Start {
            at: now,
            unix_ms,
            partitions: Partitions {
                keyed: common.partitions,
                all: common.partitions,
                clustered: common.nodes.len() > 1,
                agreed: agrees,
            },
            cluster: Some(cluster.clone()),
            tables: recovering.finish(lanes),
            reader: Some(SegmentReader::simulated(self.disk.clone(), directory)),
            seed: seed ^ 0x5eed,
        };
        let mut shard = Shard::new(port, Arc::new(types), &common.config, start);
        shard.set_clock(0);
        shard.start_pools();
        self.running = Some(Running {
            log,
            helper,
            shard,
            cluster,
            stop: ends,
            paused_us,
            reads: Vec::new(),
            began_us: now_us,
        });
        self.is_leaving = false;
        Ok(())
    }

    /// The process is gone.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Makes it end in good order.
    pub fn leave(&mut self) {
        if let Some(running) = &self.running {
            running.stop.store(true, Ordering::Release);
            self.is_leaving = true;
        }
    }

    /// A turn of its log thread; whether there is another one ever.
    pub fn turn_keeper(
        &mut self,
        common: &Common,
        now_us: u64,
        write_us: impl FnOnce() -> u64,
    ) -> Result<bool, Down> {
        let Some(running) = &mut self.running else { return Ok(true) };
        let writes = self.disk.writes();
        running.paused_us.set(0);
        let now = common.zero + Duration::from_micros(now_us);
        let after = running.log.turn(now).map_err(|fatal| Down::Disk(fatal.to_string()))?;
        let mut busy_us = running.paused_us.get();
        if self.disk.writes() > writes {
            busy_us += write_us();
        }
        self.keeper_busy_us = now_us + busy_us;
        Ok(after != After::End)
    }

    /// A turn of its core.
    pub fn turn_shard(&mut self, now_us: u64) -> Result<(), Down> {
        let Some(running) = &mut self.running else { return Ok(()) };
        running.shard.set_clock(now_us - running.began_us);
        running.shard.turn().map_err(Down::Unreadable)?;
        running.reads.extend(running.shard.take_futures());
        Ok(())
    }

    /// Reads of the log end, and the helper does a piece of work.
    pub fn do_io(&mut self, trace: &Trace, rng: &mut fastrand::Rng) {
        let Some(running) = &mut self.running else { return };
        if !running.reads.is_empty() && rng.bool() {
            let mut read = running.reads.swap_remove(rng.usize(..running.reads.len()));
            let polled = read.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
            assert!(polled.is_ready(), "a simulated disk keeps nobody waiting");
        }
        if rng.bool()
            && let Some(helper) = &mut *running.helper.borrow_mut()
            && helper.step()
        {
            note!(trace, "{} helper", self.id);
        }
    }

    /// The shard at a time, for whoever asks it something.
    pub fn shard_at(&mut self, now_us: u64) -> Option<&mut Shard> {
        let running = self.running.as_mut()?;
        running.shard.set_clock(now_us - running.began_us);
        Some(&mut running.shard)
    }
}

/// Who leads a partition, by what the nodes say of themselves; how its replica does, and who are
/// the members.
pub fn leader(nodes: &[Node], partition: PartitionIndex) -> Option<(NodeId, Status, &Members)> {
    let replicas = nodes.iter().filter_map(|node| {
        let log = &node.running.as_ref()?.log;
        Some((node.id, log.status(partition), log.members(partition)))
    });
    let leaders = replicas.filter(|(_, status, _)| matches!(status.role, Role::Leader { .. }));
    leaders.max_by_key(|(_, status, _)| status.term)
}

fn work_type() -> TypeSpec {
    TypeSpec {
        name: TYPE.to_owned(),
        kind: AgentKind::Remote,
        max_tasks: 1,
        min: 0,
        max: 1_000,
        warmup_delay_ms: 0,
        idle_timeout_ms: 0,
        capabilities: Default::default(),
        hosts: vec![0],
        factory: Arc::new(|| Box::new(Seat)),
    }
}
