//! Joins the cores into one node: start, routes, drain, shutdown.
//!
//! A [`Node`] is started with a valid configuration, and lives until [`Node::shutdown`]. What
//! runs on a core reaches it through that core's [`LocalGateway`](local::LocalGateway); other
//! threads through a [`NodeHandle`], which runs a function on a core and brings back its answer.
//!
//! Invariants worth naming:
//! - A node that drains refuses new work and goes on with what it has accepted.
//! - Every core stops: a shutdown returns when all threads of the cores have ended.

mod builder;
mod embed;
mod fetch;
mod forward;
pub mod gateway;
mod gossip;
mod greeting;
mod hand_over;
mod handle;
mod lend;
pub mod local;
mod memory;
mod neighbours;
mod recover;
mod seat;
mod trunk;

pub use builder::{AgentOptions, NodeBuilder, StartError};

use crate::{
    consensus::{
        cluster::{Answer, Ask, Cluster, Leaders, PartitionStatus, Status},
        thread::LogThread,
    },
    registry::fact::Capabilities,
    runtime::{
        executor::CoreThread, free_memory::GiveBack, injector::Injector, topology::Topology,
    },
    shard::{core::Partitions, neighbours::CacheSize, run::Job, types::Types},
    wire::{
        api::{AgreementStats, ClusterStats, CoreStats, Error, LinkStats, NodeStats},
        id::PartitionIndex,
    },
};
use futures_channel::oneshot;
use futures_lite::future;
use gateway::Gateway;
use local::LocalGateway;
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How often a drain looks whether everything has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(5);
/// How long handing over what it leads may delay a node's stop.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
/// When to come back while many requests wait for the log thread, milliseconds.
const ASKS_RETRY_MS: u64 = 20;
/// What a core has at least to say whether it has ended its work.
const ANSWER_AT_LEAST: Duration = Duration::from_millis(100);

/// What all cores of a node share: nothing that a core touches while it works.
pub struct Shared {
    started: Instant,
    accepting: AtomicBool,
    stats: Vec<Arc<Mutex<CoreStats>>>,
    workers: Vec<usize>,
    partitions: Partitions,
    cluster: Option<Arc<Cluster>>,
    /// What forwarding may cost; `None` when nobody else leads anything.
    forward: Option<forward::Settings>,
    /// How much a core keeps of what it looked up.
    cache: CacheSize,
    /// What the agents of each of this node's types can do.
    capabilities: BTreeMap<String, Capabilities>,
    /// What makes vectors of texts.
    embedder: embed::Embedder,
    counts: Counts,
    /// What is known of the other nodes, where there are some, and what they are told.
    neighbours: Option<gossip::Desk>,
    /// What holds for all of pattern memory.
    memory: memory::Facts,
    /// Where each core takes work from others.
    jobs: Vec<Injector<Job>>,
}

/// The other nodes, where there are some.
struct Others {
    /// Who leads what; there for a node that is alone with a log, too.
    cluster: Option<Arc<Cluster>>,
    /// What forwarding may cost.
    forward: Option<forward::Settings>,
    /// What is known of them.
    neighbours: Option<gossip::Desk>,
}

/// What this node did for tasks that others lead.
#[derive(Default)]
struct Counts {
    /// Requests that were sent to other nodes.
    forwarded: AtomicU64,
    /// Requests that were refused because no leader took them.
    not_leader: AtomicU64,
}

impl Shared {
    fn new(
        started: Instant,
        workers: &[usize],
        partitions: Partitions,
        others: Others,
        cache: CacheSize,
        embedder: embed::Embedder,
        memory: memory::Facts,
    ) -> Self {
        let Others { cluster, forward, neighbours } = others;
        let stats = workers
            .iter()
            .map(|&cpu| Arc::new(Mutex::new(CoreStats { cpu, ..CoreStats::default() })));
        Self {
            started,
            accepting: AtomicBool::new(true),
            stats: stats.collect(),
            workers: workers.to_vec(),
            partitions,
            cluster,
            forward,
            neighbours,
            cache,
            capabilities: BTreeMap::new(),
            embedder,
            counts: Counts::default(),
            memory,
            jobs: Vec::new(),
        }
    }

    /// Takes over what the agents of each type can do.
    fn know_types(&mut self, types: &Types) {
        let able = types.iter().filter(|(_, spec)| !spec.capabilities.is_empty());
        self.capabilities =
            able.map(|(_, spec)| (spec.name.clone(), spec.capabilities.clone())).collect();
    }

    /// As [`Gateway::is_able`].
    fn is_able(&self, agent_type: &str, capability: &str) -> bool {
        self.capabilities.get(agent_type).is_some_and(|words| words.has(capability))
    }

    /// Who leads what; `None` when tasks are kept in memory.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// As [`Gateway::readiness`].
    fn readiness(&self) -> Result<(), String> {
        if !self.accepting() {
            return Err("the node stops".into());
        }
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.partitions.clustered) else {
            return Ok(());
        };
        let status = cluster.status();
        let is_member = |it: &PartitionStatus| it.members.is_member(status.me);
        if !status.partitions.is_empty() && !status.partitions.iter().any(is_member) {
            return Err("this node is a member of no partition".into());
        }
        let without = leaderless(&cluster.leaders, &status).map(|it| it.to_string());
        let without: Vec<_> = without.collect();
        match without.len() {
            0 => Ok(()),
            _ => Err(format!("nobody is known to lead the partitions {}", without.join(", "))),
        }
    }

    /// As [`Gateway::cluster_status`].
    fn cluster_status(&self) -> Result<Arc<Status>, Error> {
        self.cluster.as_ref().map(|cluster| cluster.status()).ok_or_else(in_memory)
    }

    /// As [`Gateway::ask_cluster`].
    async fn ask_cluster(&self, ask: Ask) -> Result<Answer, Error> {
        let cluster = self.cluster.as_ref().ok_or_else(in_memory)?;
        if !self.partitions.clustered {
            let text = "the node is alone: its configuration gives it no number (cluster.node)";
            return Err(Error::Conflict(text.into()));
        }
        let answered = cluster.ask(ask).ok_or(Error::Backpressure(ASKS_RETRY_MS))?;
        let gone = |_| Error::Uncertain("the node ended before it answered".into());
        match answered.await.map_err(gone)? {
            Answer::NotLeader { leader } => {
                let address = leader.and_then(|leader| cluster.address(leader));
                Err(Error::NotLeader(address.map(|address| address.rpc.to_string())))
            }
            answer => Ok(answer),
        }
    }

    /// Whether new work is accepted.
    pub fn accepting(&self) -> bool {
        self.accepting.load(Ordering::Relaxed)
    }

    /// Counters as the cores last published them.
    pub fn stats(&self) -> NodeStats {
        let core = |(index, stats): (usize, &Arc<Mutex<CoreStats>>)| {
            let mut stats = stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
            stats.cpu = self.workers[index];
            stats
        };
        NodeStats {
            uptime_s: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            accepting: self.accepting(),
            resident_bytes: crate::metrics::process::resident_bytes(),
            cores: self.stats.iter().enumerate().map(core).collect(),
            cluster: self.cluster_stats(),
        }
    }

    fn cluster_stats(&self) -> Option<ClusterStats> {
        let cluster = self.cluster.as_ref().filter(|_| self.partitions.clustered)?;
        let (leaders, status) = (&cluster.leaders, cluster.status());
        let all = || 0..leaders.partitions();
        let links = status.nodes.iter().filter(|node| node.is_member && node.id != leaders.me());
        let links = links.map(|node| LinkStats {
            node: node.id,
            connected: node.is_connected,
            messages_sent: node.messages.0,
            messages_received: node.messages.1,
            bytes_sent: node.bytes.0,
            bytes_received: node.bytes.1,
            messages_dropped: node.dropped,
        });
        Some(ClusterStats {
            partitions: leaders.partitions().into(),
            leads: all().filter(|partition| leaders.is_here(*partition)).count() as u64,
            leaderless: leaderless(leaders, &status).count() as u64,
            forwarded: self.counts.forwarded.load(Ordering::Relaxed),
            not_leader: self.counts.not_leader.load(Ordering::Relaxed),
            links: links.collect(),
            gossip: self.gossip_stats(),
            agreement: agreement_stats(&status),
        })
    }
}

/// The partitions that nobody is known to lead; where nodes may lie, those without a quorum as well.
fn leaderless<'a>(
    leaders: &'a Leaders,
    status: &'a Status,
) -> impl Iterator<Item = PartitionIndex> + 'a {
    let is_led = |partition: &PartitionIndex| {
        let told = status.partitions.iter().find(|told| told.partition == *partition);
        let has_quorum = told.and_then(|told| told.agreement).is_none_or(|it| it.has_quorum);
        leaders.of(*partition).is_some() && has_quorum
    };
    (0..leaders.partitions()).filter(move |partition| !is_led(partition))
}

/// What the replicas of this node counted, where nodes may lie.
fn agreement_stats(status: &Status) -> Option<AgreementStats> {
    let counted = status.partitions.iter().filter_map(|partition| partition.agreement);
    counted.fold(None, |sum, it| {
        let sum = sum.unwrap_or_default();
        Some(AgreementStats {
            fast: sum.fast + it.fast,
            slow: sum.slow + it.slow,
            view_changes: sum.view_changes + it.view_changes,
            dropped: sum.dropped + it.dropped,
            wrong: sum.wrong + it.wrong,
            verified: sum.verified + it.verified,
            diverged: sum.diverged + u64::from(it.diverged.is_some()),
        })
    })
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    topology: Topology,
    jobs: Vec<Injector<Job>>,
    threads: Vec<CoreThread<()>>,
    /// What writes the log, when tasks are kept on disk.
    log: Option<LogThread>,
    /// What speaks to the other nodes, where there are some.
    gossip: Option<gossip::GossipThread>,
    /// What is left of pattern memory when the cores have ended.
    memory: memory::Ending,
    /// What gives free memory back to the system while the node runs.
    #[expect(dead_code, reason = "it ends when it is dropped")]
    give_back: GiveBack,
    /// Handles that were given out.
    handles: AtomicUsize,
}

impl Node {
    /// What doors do, for threads outside the runtime: a handle to one of the cores, which take
    /// turns.
    pub fn handle(&self) -> NodeHandle {
        let core = self.handles.fetch_add(1, Ordering::Relaxed) % self.jobs.len();
        NodeHandle { jobs: self.jobs[core].clone(), shared: self.shared.clone(), forwards: true }
    }

    /// Which processor does what.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Counters as the cores last published them.
    pub fn stats(&self) -> NodeStats {
        self.shared.stats()
    }

    /// Refuses new work from now on.
    pub fn stop_accepting(&self) {
        self.shared.accepting.store(false, Ordering::Relaxed);
    }

    /// Refuses new work and waits, for at most `limit`, until what was accepted has ended; with a
    /// durable log until what runs has ended, since the rest goes on after the next start. Tells
    /// how many tasks had not ended by then.
    pub fn drain(&self, limit: Duration) -> u64 {
        self.stop_accepting();
        self.wait_for_none(limit, |gateway| gateway.wind_down())
    }

    /// Closes the doors, lets what is inside finish for at most `limit`, and tells how many cores
    /// still had somebody inside then.
    pub fn close_doors(&self, limit: Duration) -> u64 {
        self.wait_for_none(limit, |gateway| u64::from(!gateway.close_doors()))
    }

    /// Waits until a count is 0 on every core; tells what it was last.
    fn wait_for_none(&self, limit: Duration, count: fn(&LocalGateway) -> u64) -> u64 {
        let deadline = Instant::now() + limit;
        let of_core = |jobs: &Injector<Job>| {
            let asked = start_on(jobs, &self.shared, move |gateway| async move { count(&gateway) });
            let answer = async { asked.ok()?.await.ok() };
            let patience = async {
                async_io::Timer::at(deadline.max(Instant::now() + ANSWER_AT_LEAST)).await;
                None
            };
            let answered = future::block_on(future::or(answer, patience));
            // A core that does not answer is busy: it has not ended its work.
            answered.unwrap_or(1)
        };
        loop {
            let left = self.jobs.iter().map(of_core).sum();
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            std::thread::sleep(DRAIN_LOOK);
        }
    }

    /// Hands over what it leads, stops all cores and waits for their threads.
    ///
    /// # Errors
    /// When a core's thread ended by itself before; the text says how.
    pub fn shutdown(self) -> io::Result<()> {
        self.stop_accepting();
        if let Some(cluster) = self.shared.cluster() {
            hand_over::hand_over(cluster, HAND_OVER_LIMIT);
        }
        tracing::debug!("what it leads is handed over; gossip ends");
        if let Some(gossip) = self.gossip {
            gossip.stop();
        }
        tracing::debug!("the cores end");
        for jobs in &self.jobs {
            // A core that no longer takes jobs has ended, which joining it tells.
            let mut job: Job = Box::new(|core| core.stop());
            while let Err(refused) = jobs.push(job) {
                job = refused;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let mut ended = Ok(());
        for thread in self.threads {
            ended = thread.join().and(ended);
        }
        tracing::debug!("pattern memory is closed");
        if let Err(error) = self.memory.close() {
            tracing::error!(%error, "pattern memory was not closed well; the next start repairs it");
        }
        tracing::debug!("the log ends");
        if let Some(log) = self.log {
            log.stop();
        }
        ended
    }
}

/// A node's doors for threads outside the runtime; cheap to clone.
///
/// A handle and its clones use the doors of one core, through that core's bounded queue: what one
/// thread sends to an agent through a handle arrives in the order in which it was sent. A request
/// that finds the queue full is refused with [`Error::Backpressure`].
#[derive(Clone)]
pub struct NodeHandle {
    jobs: Injector<Job>,
    shared: Arc<Shared>,
    /// Whether what another node leads goes there.
    forwards: bool,
}

impl NodeHandle {
    /// Runs a request on the handle's core and brings back its answer:
    /// `handle.run(|gateway| gateway.submit(specs)).await`.
    ///
    /// # Errors
    /// Those of the request, [`Error::Backpressure`] when the core's queue is full and
    /// [`Error::Unavailable`] when the node has stopped.
    pub async fn run<T, F, Fut>(&self, request: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(Rc<LocalGateway>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + 'static,
    {
        let forwards = self.forwards;
        let request =
            move |core: Rc<LocalGateway>| request(if forwards { core } else { core.here() });
        start_on(&self.jobs, &self.shared, request)?.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The same for threads that wait for the answer.
    ///
    /// # Errors
    /// As [`NodeHandle::run`].
    pub fn wait<T, F, Fut>(&self, request: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(Rc<LocalGateway>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + 'static,
    {
        future::block_on(self.run(request))
    }
}

fn in_memory() -> Error {
    Error::Conflict("the node keeps its tasks in memory and belongs to no cluster".into())
}

fn stopped() -> Error {
    Error::Unavailable("the node has stopped".into())
}

/// Starts a request on a core; the receiver gets its answer.
fn start_on<T, F, Fut>(
    jobs: &Injector<Job>,
    shared: &Arc<Shared>,
    request: F,
) -> Result<oneshot::Receiver<T>, Error>
where
    T: Send + 'static,
    F: FnOnce(Rc<LocalGateway>) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let (answer, answered) = oneshot::channel();
    let shared = shared.clone();
    let job: Job = Box::new(move |core| {
        let request = request(LocalGateway::new(core.clone(), shared));
        crate::runtime::executor::spawn(async move {
            // Whoever asked may have gone away.
            let _ = answer.send(request.await);
        });
    });
    jobs.push(job).map_err(|_| Error::Backpressure(1))?;
    Ok(answered)
}
