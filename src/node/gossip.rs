//! The thread that speaks for the node: it tells the other nodes what is here, and the cores what is
//! there.
//!
//! ```text
//! cores ──► bulletin ──► thread ──► gossip (pure) ◄══ datagrams ══► other nodes
//!                           └──► world ──► board ──► each core's view, with its cache
//! ```
//!
//! Datagrams go from and to the addresses of the peers' links, over UDP; who is a member is what
//! the log says. The thread waits in one place, for a datagram or the next round.

mod tells;

use super::{Shared, builder::unix_ms_now};
use crate::{
    config::{self, Config, SecretError},
    consensus::cluster::{Address, Cluster},
    gossip::{Counters, Event, Gossip, NodeView, Settings, Status},
    registry::{
        TypeIndex,
        board::{Board, Publisher},
        telling::Telling,
        world::{Limits, World},
    },
    runtime::{
        disk::{Placement, spawn_blocking_thread},
        injector::Injector,
    },
    shard::{bulletin::Bulletin, run::Job, types::Types},
    wire::id::{AgentId, NodeId},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The exit code of a process whose thread for other nodes panicked.
const EXIT_GOSSIP_FAILED: i32 = 72;
/// The longest wait for a datagram, so that the end of the node is seen.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// The shortest one: the system takes none of no time.
const WAIT_MIN: Duration = Duration::from_micros(100);
/// Datagrams that are received before it is looked whether a round is due.
const DATAGRAMS_A_LOOK: usize = 64;
/// The longest datagram that a socket gives.
const DATAGRAM_BYTES: usize = 64 << 10;

/// What the thread begins with.
pub(super) struct Speaker {
    me: NodeId,
    at: Address,
    settings: Settings,
    secret: Option<crate::wire::secret::Secret>,
    socket: UdpSocket,
    world: World,
    publisher: Publisher,
    bulletin: Arc<Bulletin>,
    told: Arc<Told>,
}

/// What the cores and the thread have in common.
#[derive(Clone)]
pub(super) struct Desk {
    /// Where the cores read who is where.
    pub board: Arc<Board>,
    /// Where they tell what is here.
    pub bulletin: Arc<Bulletin>,
    /// Where it is told how gossip does.
    pub told: Arc<Told>,
}

/// What the thread tells of itself, for `cluster.status` and `/metrics`.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Arc<GossipStatus>>);

/// How gossip does.
#[derive(Clone, Debug, Default)]
pub struct GossipStatus {
    /// What it counted.
    pub counters: Counters,
    /// Every node that is known.
    pub nodes: Vec<NodeView>,
    /// Facts of this node that other nodes could not be told: there were too many, or a name is too
    /// long.
    pub untold: u64,
    /// Agents of this node that other nodes are not told of now.
    pub left_out: u64,
    /// Facts of other nodes that were refused.
    pub refused: u64,
}

impl Told {
    /// How gossip did a moment ago.
    pub fn status(&self) -> Arc<GossipStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a node cannot speak to others.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The address is taken or not of this machine.
    #[error("cannot receive datagrams at {address} (peers of this node in [[node]]): {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A file with a secret is not as it should be.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// How gossip behaves by the tuning.
fn settings(tuning: &config::Gossip) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        reconcile: ms(tuning.reconcile_ms),
        datagram: tuning.datagram_bytes,
        fanout_max: tuning.fanout_max,
        suspicion: ms(tuning.suspicion_ms),
        ..Settings::every(ms(tuning.interval_ms))
    }
}

impl Speaker {
    /// Takes the address of a node of a cluster; `None` for one that is alone.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn new(config: &Config, cores: usize) -> Result<Option<Self>, GossipError> {
        let Some(me) = config.node.iter().find(|node| node.id == config.cluster.node) else {
            return Ok(None);
        };
        let address = me.peers;
        let socket = UdpSocket::bind(address);
        let socket = socket.map_err(|error| GossipError::Bind { address, error })?;
        let cluster = super::seat::cluster_id(&config.cluster.name, config.cluster.partitions);
        let settings = Settings { cluster: cluster as u32, ..settings(&config.gossip) };
        let mut world = World::new(me.id, Limits::default());
        let publisher = Publisher::new(&mut world);
        Ok(Some(Self {
            me: me.id,
            at: Address { peers: me.peers, rpc: me.rpc },
            settings,
            secret: config.cluster_secret()?,
            socket,
            world,
            publisher,
            bulletin: Arc::new(Bulletin::new(cores)),
            told: Arc::default(),
        }))
    }

    /// What the cores have in common with the thread.
    pub fn desk(&self) -> Desk {
        let Self { bulletin, told, .. } = self;
        Desk { board: self.publisher.board(), bulletin: bulletin.clone(), told: told.clone() }
    }

    /// Starts the thread, on any processor: the log thread, which may have a real-time priority, could
    /// keep it off one that they share.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        self,
        types: Arc<Types>,
        shared: &Arc<Shared>,
        jobs: Vec<Injector<Job>>,
    ) -> io::Result<GossipThread> {
        let cluster = shared.cluster().expect("a node with others has a cluster").clone();
        let is_ending = Arc::new(AtomicBool::new(false));
        let ends = is_ending.clone();
        let placement = Placement { cpu: None, realtime: false };
        let thread = spawn_blocking_thread("gossip", placement, EXIT_GOSSIP_FAILED, move |_| {
            Voice::new(self, types, cluster, jobs).run(&ends);
        })?;
        Ok(GossipThread { is_ending, thread })
    }
}

/// The running thread.
pub(super) struct GossipThread {
    is_ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl GossipThread {
    /// Says goodbye to the other nodes and ends.
    pub fn stop(self) {
        self.is_ending.store(true, Ordering::Relaxed);
        // One that panics ends the process.
        drop(self.thread.join());
    }
}

/// What the thread owns.
struct Voice {
    start: Instant,
    gossip: Gossip,
    socket: UdpSocket,
    /// The members and where each listens, as they were last.
    members: BTreeMap<NodeId, SocketAddr>,
    cluster: Arc<Cluster>,
    world: World,
    publisher: Publisher,
    bulletin: Arc<Bulletin>,
    told: Arc<Told>,
    types: Arc<Types>,
    tellings: Vec<Telling>,
    /// The types that others were told of.
    introduced: BTreeSet<TypeIndex>,
    jobs: Vec<Injector<Job>>,
    /// Nodes that are gone since the last look.
    gone: Vec<NodeId>,
    /// Those that began again, and when.
    began_again: Vec<(NodeId, Instant)>,
    /// When all agents were asked for last.
    retold: Option<Instant>,
    /// Whether they have to be asked.
    owes_all: bool,
    /// Agents of this node that others were not told of, because there are too many.
    left_out: HashSet<AgentId>,
    /// When that was logged last.
    left_out_logged: Option<Instant>,
    /// Facts that could not be told when they came.
    untold: u64,
    refused: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Voice {
    fn new(
        speaker: Speaker,
        types: Arc<Types>,
        cluster: Arc<Cluster>,
        jobs: Vec<Injector<Job>>,
    ) -> Self {
        let Speaker { me, at, settings, secret, socket, world, publisher, .. } = speaker;
        // A node that starts again has a higher incarnation while its clock goes forward; if it went back,
        // others say so and the node takes a higher one.
        let (start, unix_ms) = (Instant::now(), unix_ms_now());
        let seed = fastrand::u64(..);
        let gossip = Gossip::new(settings, me, unix_ms, at.peers, secret, seed, Duration::ZERO);
        let mut voice = Self {
            start,
            gossip,
            socket,
            members: BTreeMap::new(),
            cluster,
            world,
            publisher,
            bulletin: speaker.bulletin,
            told: speaker.told,
            tellings: Vec::new(),
            introduced: BTreeSet::new(),
            types,
            retold: None,
            owes_all: false,
            left_out: HashSet::new(),
            left_out_logged: None,
            untold: 0,
            refused: 0,
            key: Vec::new(),
            value: Vec::new(),
            gone: Vec::new(),
            began_again: Vec::new(),
            jobs,
        };
        voice.introduce(me, at.rpc);
        voice
    }

    fn run(mut self, is_ending: &AtomicBool) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while !is_ending.load(Ordering::Relaxed) {
            let now = self.start.elapsed();
            if now >= self.gossip.next_wake() {
                self.go_round();
            }
            let now = self.start.elapsed();
            let wait = self.gossip.next_wake().saturating_sub(now).clamp(WAIT_MIN, WAIT_MAX);
            if let Err(error) = self.socket.set_read_timeout(Some(wait)) {
                tracing::error!(%error, "the socket for other nodes cannot be waited for");
                std::thread::sleep(wait);
            }
            self.receive(&mut buffer);
            self.take_events();
            self.publisher.publish(&mut self.world);
            // After it: who loses what it had lent to a node must know that the node is gone.
            self.sever_gone();
            self.tell_began_again();
        }
        let (now, socket) = (self.start.elapsed(), &self.socket);
        self.gossip.leave(now, &mut |_, address, datagram| send(socket, address, datagram));
    }

    /// Takes the datagrams in that are there, and waits for the first.
    fn receive(&mut self, buffer: &mut [u8]) {
        for count in 0..DATAGRAMS_A_LOOK {
            // Only the first one is waited for: what came must not wait for what may come.
            if count == 1 && self.socket.set_nonblocking(true).is_err() {
                return;
            }
            match self.socket.recv_from(buffer) {
                Ok((bytes, from)) => {
                    let (now, socket) = (self.start.elapsed(), &self.socket);
                    let mut out = |_, address, datagram: &[u8]| send(socket, address, datagram);
                    self.gossip.receive(now, from, &buffer[..bytes], &mut out);
                }
                // Nothing came in time, or a node that was sent something is not there.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
            if self.start.elapsed() >= self.gossip.next_wake() {
                break;
            }
        }
        if let Err(error) = self.socket.set_nonblocking(false) {
            tracing::error!(%error, "the socket for other nodes cannot be waited for");
        }
    }

    /// What is to be done once a round: who is a member, what is new here, then the round.
    fn go_round(&mut self) {
        self.look_at_members();
        self.look_at_agents();
        self.look_at_loads();
        let (now, socket) = (self.start.elapsed(), &self.socket);
        self.gossip.tick(now, &mut |_, address, datagram| send(socket, address, datagram));
        self.gossip.set_time_of_day(unix_ms_now());
        let status = GossipStatus {
            counters: *self.gossip.counters(),
            nodes: self.gossip.nodes().collect(),
            untold: self.untold,
            left_out: self.left_out.len() as u64,
            refused: self.refused,
        };
        *self.told.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }

    fn look_at_members(&mut self) {
        let status = self.cluster.status();
        if status.me == 0 {
            return;
        }
        let known = status.nodes.iter().filter(|node| node.id != status.me && node.is_member);
        let members: BTreeMap<_, _> =
            known.filter_map(|node| Some((node.id, node.address?.peers))).collect();
        if members == self.members {
            return;
        }
        for node in self.members.keys().filter(|node| !members.contains_key(node)) {
            self.gossip.forget(*node);
            self.world.forget(*node);
        }
        for (node, address) in &members {
            self.gossip.learn(*node, *address);
        }
        self.members = members;
    }

    /// Takes over what gossip says of other nodes.
    fn take_events(&mut self) {
        let me = self.world.me();
        let events: Vec<Event> = self.gossip.events().collect();
        for event in events {
            match event {
                Event::Set { node, .. } | Event::Removed { node, .. } | Event::Reset { node }
                    if node == me => {}
                Event::Set { node, key } => self.take_entry(node, &key),
                Event::Removed { node, key } => drop(self.world.remove(node, &key)),
                Event::Reset { node } => self.world.reset(node),
                Event::Status { node, status } => self.take_status(node, status),
                Event::BeganAgain { node, ago } => {
                    tracing::warn!(node, "a node began again before it was missed");
                    let before = Instant::now();
                    self.began_again.push((node, before.checked_sub(ago).unwrap_or(before)));
                }
                Event::Missed => self.take_everything(),
            }
        }
    }

    fn take_entry(&mut self, node: NodeId, key: &[u8]) {
        if let Some(value) = self.gossip.value(node, key) {
            self.refused += u64::from(self.world.set(node, key, value).is_err());
        }
    }

    fn take_status(&mut self, node: NodeId, status: Status) {
        let is_news = self.world.set_status(node, seen(status));
        if !is_news {
            return;
        }
        match status {
            Status::Alive => tracing::info!(node, "a node is there"),
            Status::Suspect => tracing::info!(node, "a node is silent"),
            Status::Dead => tracing::warn!(node, "a node is dead"),
            Status::Left => tracing::info!(node, "a node said goodbye"),
        }
        if matches!(status, Status::Dead | Status::Left) {
            self.gone.push(node);
        }
    }

    /// Has cores end their connections with nodes that are gone.
    fn sever_gone(&mut self) {
        for node in self.gone.drain(..) {
            for jobs in &self.jobs {
                // A core that takes no job now finds out by its connection.
                let job: Job =
                    Box::new(move |core| core.with_shard(|shard| shard.sever_trunks(node)));
                drop(jobs.push(job));
            }
        }
    }

    /// Tells cores that what nodes did before they began again does not go on. Their connections, which
    /// belong to processes, tell it of themselves.
    fn tell_began_again(&mut self) {
        for (node, before) in self.began_again.drain(..) {
            for jobs in &self.jobs {
                let job: Job = Box::new(move |core| {
                    core.with_shard(|shard| shard.borrower_began_again(node, before));
                });
                drop(jobs.push(job));
            }
        }
    }

    fn take_everything(&mut self) {
        let me = self.world.me();
        let nodes: Vec<NodeView> = self.gossip.nodes().filter(|node| node.node != me).collect();
        for NodeView { node, status, .. } in nodes {
            self.world.reset(node);
            self.take_status(node, status);
            for (key, value) in self.gossip.entries(node) {
                self.refused += u64::from(self.world.set(node, key, value).is_err());
            }
        }
    }
}

fn seen(status: Status) -> crate::registry::world::Status {
    use crate::registry::world::Status as Seen;
    match status {
        Status::Alive => Seen::Alive,
        Status::Suspect => Seen::Suspect,
        Status::Dead => Seen::Dead,
        Status::Left => Seen::Left,
    }
}

/// Datagrams may be lost anywhere, here as well.
fn send(socket: &UdpSocket, address: SocketAddr, datagram: &[u8]) {
    if let Err(error) = socket.send_to(datagram, address) {
        tracing::debug!(%address, %error, "a datagram could not be sent");
    }
}
