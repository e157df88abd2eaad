//! Starts a node.

use super::{
    Node, Others, Shared,
    embed::Embedder,
    forward,
    gossip::{GossipError, Speaker},
    local::LocalGateway,
    memory, recover,
    seat::{SeatError, seat},
};
use crate::{
    config::{self, AGENT_NAME_BYTES_MAX, Config, SecretError},
    consensus::open::OpenError,
    registry::fact::Capabilities,
    runtime::{
        aside::{self, Aside},
        executor::{self, CoreThread, Settings},
        free_memory,
        injector::Injector,
        mesh::{Port, mesh},
        topology::{Topology, TopologyError},
    },
    shard::{
        agent::Agent,
        builtin,
        core::{Shard, Start},
        exec::{Exec, embedder::Embedder as Child},
        memory::Memory,
        neighbours::CacheSize,
        partition::Beginning,
        remote::Seat,
        run::Core,
        types::{TypeSpec, Types},
    },
    wire::{api::AgentKind, batch::Batch, id::CoreIndex},
};
use std::{
    io,
    rc::Rc,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};

/// What is run on each core when it starts, in the order of the cores: for doors to open.
pub type OnCore = Arc<dyn Fn(Rc<LocalGateway>) -> io::Result<()> + Send + Sync>;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tuning file asks for cores that are not there.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The tuning file asks for what this version does not have.
    #[error("agent type {agent_type:?}: {reason}")]
    AgentType {
        /// The type.
        agent_type: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused something.
    #[error("core {cpu}: {error}; `coreflow doctor` tells what the host lacks")]
    Core {
        /// The kernel's number of the processor.
        cpu: usize,
        /// What the system said.
        error: io::Error,
    },
    /// A file with a secret is not as it should be.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The node cannot take its place among others.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// The log could not be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Pattern memory could not be opened.
    #[error(transparent)]
    Memory(#[from] crate::memory::store::OpenError),
    /// The node cannot speak to others.
    #[error(transparent)]
    Gossip(#[from] GossipError),
    /// The system gives no thread.
    #[error("no thread beside the cores: {0}")]
    Thread(io::Error),
    /// The system gave no more descriptors for the mesh.
    #[error("the mesh between the cores: {0}")]
    Mesh(io::Error),
}

/// A configuration that does not fit the host or this version is [`io::ErrorKind::InvalidInput`].
impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        let kind = match &error {
            StartError::Topology(_)
            | StartError::AgentType { .. }
            | StartError::Secret(_)
            | StartError::Seat(_) => io::ErrorKind::InvalidInput,
            StartError::Core { error, .. } | StartError::Mesh(error) => error.kind(),
            StartError::Gossip(GossipError::Bind { error, .. }) => error.kind(),
            StartError::Gossip(GossipError::Secret(_)) => io::ErrorKind::InvalidInput,
            StartError::Thread(error) => error.kind(),
            StartError::Log(_) | StartError::Memory(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// A node before its start: a configuration, and what a program that embeds it adds.
pub struct NodeBuilder {
    config: Config,
    types: Vec<(String, AgentOptions, crate::shard::types::Factory)>,
    on_core: Vec<OnCore>,
    durable: bool,
}

/// How many agents of a linked type there are, and where.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Agents started with the node and kept.
    pub min: usize,
    /// Agents that may exist at the same time; more than `min` are started while tasks wait and
    /// every agent has as many as it takes. At 1 there is never a second.
    pub max: usize,
    /// Tasks that one agent runs at the same time.
    pub max_tasks: u32,
    /// How long an agent above `min` that the node started by itself may have nothing to do before
    /// it stops, milliseconds.
    pub idle_timeout_ms: u64,
    /// The worker cores that own them, by index from 0; empty for all.
    pub cores: Vec<CoreIndex>,
    /// What they can do, in at most 16 words of 1 to 32 bytes by which they are found, on other nodes
    /// as well.
    pub capabilities: Vec<String>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10_000,
            max_tasks: 1,
            idle_timeout_ms: 30_000,
            cores: Vec::new(),
            capabilities: Vec::new(),
        }
    }
}

impl NodeBuilder {
    /// A node with the agent types of a configuration.
    pub fn new(config: Config) -> Self {
        Self { config, types: Vec::new(), on_core: Vec::new(), durable: false }
    }

    /// Adds an agent type whose agents `make` makes, on the core that will own each.
    pub fn agent<A: Agent>(
        mut self,
        name: &str,
        options: AgentOptions,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        let factory = Arc::new(move || Box::new(make()) as Box<dyn Agent>);
        self.types.push((name.to_owned(), options, factory));
        self
    }

    /// Keeps tasks in the log of the configuration's folder, so that they outlast the process;
    /// without it they are kept in memory.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Runs something on each core when it starts, one core after the other.
    pub fn on_core(
        mut self,
        open: impl Fn(Rc<LocalGateway>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.on_core.push(Arc::new(open));
        self
    }

    /// Starts the cores, one after the other; returns when all of them run.
    ///
    /// # Errors
    /// What the tuning file asks for is not there, or the system refuses it; no core is left
    /// running.
    pub fn start(self) -> Result<Node, StartError> {
        let topology = Topology::detect(&self.config.cores)?;
        let cores = topology.workers.len() as CoreIndex;
        let mut types = self.list_types(cores)?;
        let ports = mesh::<Batch>(cores as usize, self.config.mesh.ring_batches)
            .map_err(StartError::Mesh)?;
        let bells: Vec<_> = ports.iter().map(|port| port.bells[port.index].clone()).collect();
        let (at, unix_ms) = (Instant::now(), unix_ms_now());
        let recovered = match self.durable {
            true => {
                let (config, seat) = (&self.config, seat(&self.config)?);
                recover::from_log(config, &seat, &topology, &bells, &mut types, unix_ms)?
            }
            false => recover::in_memory(&self.config, cores, unix_ms),
        };
        let types = Arc::new(types);
        let (log, reader) = recovered.durable.unzip();
        let partitions = recovered.partitions;
        let mut tables: Vec<Vec<Beginning>> = bells.iter().map(|_| Vec::new()).collect();
        for (partition, table) in recovered.tables.into_iter().enumerate() {
            tables[partition % bells.len()].push(table);
        }
        let forward = partitions.clustered.then(|| forward::Settings::of(&self.config));
        let (workers, cluster) = (&topology.workers, recovered.cluster);
        let (embedder, mut child) = Embedder::new(&self.config);
        let forward = forward.transpose()?;
        let speaker = match self.durable {
            true => Speaker::new(&self.config, bells.len())?,
            false => None,
        };
        let memory::Opened { facts, memories, ending, back } =
            memory::open(&self.config, self.durable, &topology, &bells)?;
        let neighbours = speaker.as_ref().map(Speaker::desk);
        let others = Others { cluster, forward, neighbours };
        let cache = CacheSize::of(&self.config.gossip);
        let mut shared = Shared::new(at, workers, partitions, others, cache, embedder, facts);
        shared.know_types(&types);
        let jobs = ports.iter().map(|port| {
            Injector::new(self.config.mesh.injector_requests, port.bells[port.index].clone())
        });
        let jobs: Vec<_> = jobs.collect();
        shared.jobs.clone_from(&jobs);
        let shared = Arc::new(shared);
        let log_cpu = topology.raft.first().copied();
        let give_back = free_memory::start(log_cpu).map_err(StartError::Thread)?;
        let mut node = Node {
            shared,
            topology,
            jobs,
            threads: Vec::new(),
            log,
            gossip: None,
            memory: ending,
            give_back,
            handles: 0.into(),
        };
        let aside = aside::start("aside", log_cpu).map_err(StartError::Thread)?;
        let release = aside::start("release", log_cpu).map_err(StartError::Thread)?;
        for ((port, tables), memory) in ports.into_iter().zip(tables).zip(memories) {
            let cpu = node.topology.workers[port.index];
            let reader = reader.clone();
            let cluster = node.shared.cluster.clone();
            let seed = fastrand::u64(..);
            let start = Start { at, unix_ms, partitions, cluster, tables, reader, seed };
            let (aside, release) = (aside.clone(), release.clone());
            let keeps =
                Keeps { embedder: child.take(), memory, back: back.clone(), aside, release };
            let launched =
                self.start_core(&node, port, types.clone(), start, recovered.is_alone, keeps);
            match launched {
                Ok(thread) => node.threads.push(thread),
                Err(error) => {
                    node.jobs.truncate(node.threads.len());
                    // The cores that run are stopped; why this one does not is what counts.
                    let _ = node.shutdown();
                    return Err(StartError::Core { cpu, error });
                }
            }
        }
        if let Some(speaker) = speaker {
            match speaker.start(types, &node.shared, node.jobs.clone()) {
                Ok(thread) => node.gossip = Some(thread),
                Err(error) => {
                    // Why the thread does not start is what counts.
                    let _ = node.shutdown();
                    return Err(StartError::Thread(error));
                }
            }
        }
        Ok(node)
    }

    fn start_core(
        &self,
        node: &Node,
        port: Port<Batch>,
        types: Arc<Types>,
        start: Start,
        is_alone: bool,
        keeps: Keeps,
    ) -> io::Result<CoreThread<()>> {
        let (config, index) = (self.config.clone(), port.index);
        let settings = Settings {
            cpu: node.topology.workers[index],
            ring_depth: config.runtime.ring_depth,
            io_memory: config.runtime.io_memory_kib * 1024,
        };
        let (jobs, shared) = (node.jobs[index].clone(), node.shared.clone());
        let on_core = self.on_core.clone();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let name = format!("coreflow-{index}");
        let thread = executor::spawn_pinned(&name, &settings, move || async move {
            let bell = port.bells[index].clone();
            let mut shard = Shard::new(port, types, &config, start);
            shard.read_clock();
            // A log that nobody shares says at once that this node leads; in a cluster it may lead
            // nothing for as long as others do.
            let leads = || !is_alone || shard.turn_until_it_leads();
            if !executor::spin_until(LEAD_LIMIT, leads) {
                let late = io::Error::other("the log does not say that it can be written");
                let _ = ready.send(Err(late));
                return;
            }
            shard.start_pools();
            let Keeps { embedder, memory, back, aside, release } = keeps;
            executor::set_aside(aside, release);
            shard.keep_memory(memory);
            let core = Core::new(shard, jobs, bell, shared.stats[index].clone());
            let gateway = LocalGateway::new(core.clone(), shared);
            gateway.join_cluster();
            let opened = on_core.iter().try_for_each(|open| open(gateway.clone()));
            let failed = opened.is_err();
            // The starting thread waits for this.
            let _ = ready.send(opened);
            if !failed {
                if let Some(embedder) = embedder {
                    let (ended, stay) = core.until_end();
                    executor::spawn(embedder.run(ended, stay));
                }
                core.clone().run(&config.runtime).await;
            }
            // Whoever stops the node waits for it; nobody does when the start failed.
            let memory = core.with_shard(Shard::take_memory);
            if let Some(memory) = memory {
                let _ = back.send(memory);
            }
        })?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(error)) => thread.join().and(Err(error)),
            Err(_) => Err(thread
                .join()
                .err()
                .unwrap_or_else(|| io::Error::other("the core ended before it was ready"))),
        }
    }

    fn list_types(&self, cores: CoreIndex) -> Result<Types, StartError> {
        let configured = self.config.agent.iter().map(|agent| self.configured(agent, cores));
        let mut specs = configured.collect::<Result<Vec<_>, _>>()?;
        for (name, options, factory) in &self.types {
            // Names are part of keys, up to a zero byte.
            if !(1..=AGENT_NAME_BYTES_MAX).contains(&name.len()) || name.contains('\0') {
                return Err(StartError::AgentType {
                    agent_type: name.clone(),
                    reason: format!("a name has 1 to {AGENT_NAME_BYTES_MAX} bytes, none of them 0"),
                });
            }
            let all = || (0..cores).collect();
            let hosts = if options.cores.is_empty() { all() } else { options.cores.clone() };
            if let Some(core) = hosts.iter().find(|core| **core >= cores) {
                return Err(StartError::AgentType {
                    agent_type: name.clone(),
                    reason: format!("there is no worker core {core}, only {cores} of them"),
                });
            }
            let words = options.capabilities.iter().map(String::as_str);
            let capabilities = Capabilities::new(words).map_err(|error| StartError::AgentType {
                agent_type: name.clone(),
                reason: error.to_string(),
            })?;
            specs.push(TypeSpec {
                name: name.clone(),
                kind: AgentKind::Rust,
                max_tasks: options.max_tasks,
                min: options.min,
                max: options.max.max(options.min),
                warmup_delay_ms: 0,
                idle_timeout_ms: options.idle_timeout_ms,
                hosts,
                capabilities,
                factory: factory.clone(),
            });
        }
        Ok(Types::new(specs))
    }

    fn configured(
        &self,
        agent: &config::AgentType,
        cores: CoreIndex,
    ) -> Result<TypeSpec, StartError> {
        let name = agent.name.clone();
        let refuse = |reason: &str| StartError::AgentType {
            agent_type: name.clone(),
            reason: reason.to_owned(),
        };
        let (kind, factory): (_, crate::shard::types::Factory) = match &agent.kind {
            config::AgentKind::Builtin => {
                if builtin::make(&name).is_none() {
                    return Err(refuse("there is no builtin agent of that name"));
                }
                let make = move |name: &str| match builtin::make(name) {
                    Some(agent) => agent,
                    None => unreachable!("it was there when the node started"),
                };
                let name = name.clone();
                (AgentKind::Builtin, Arc::new(move || make(&name)))
            }
            config::AgentKind::Exec { command } => {
                let (name, command) = (name.clone(), command.clone());
                // Room for the result and for the JSON around it.
                let max_line_bytes = 2 * self.config.tasks.max_payload_bytes + 1024;
                let make = move || Exec::new(name.clone(), command.clone(), max_line_bytes);
                (AgentKind::Exec, Arc::new(move || Box::new(make()) as Box<dyn Agent>))
            }
            config::AgentKind::Remote => {
                (AgentKind::Remote, Arc::new(|| Box::new(Seat) as Box<dyn Agent>))
            }
        };
        let capabilities = Capabilities::new(agent.capabilities.iter().map(String::as_str))
            .map_err(|error| refuse(&error.to_string()))?;
        // Every core may own agents as far as `max` goes; `min` are on the first of them. Tasks go
        // where agents are, and a core whose agents are all busy asks one that has none for help.
        // Workers come to any core.
        let hosts = match kind {
            AgentKind::Remote => cores,
            _ => agent.max.clamp(1, cores as usize) as CoreIndex,
        };
        Ok(TypeSpec {
            name,
            kind,
            max_tasks: agent.max_tasks,
            min: agent.min,
            max: agent.max,
            warmup_delay_ms: agent.warmup_delay_ms,
            idle_timeout_ms: agent.idle_timeout_ms,
            hosts: (0..hosts).collect(),
            capabilities,
            factory,
        })
    }
}

/// What a core has beside its shard's tasks and agents.
struct Keeps {
    /// The child that makes vectors of texts, on one core.
    embedder: Option<Child>,
    /// Its part of pattern memory.
    memory: Memory,
    /// Where that goes when the core ends.
    back: mpsc::Sender<Box<Memory>>,
    /// The thread that does what would hold the core.
    aside: Aside,
    /// The thread that frees what the core let go of.
    release: Aside,
}

/// How long a core waits at its start until the log says that it can be written.
const LEAD_LIMIT: Duration = Duration::from_secs(30);

/// The time of the wall's clock, milliseconds since 1970.
pub(super) fn unix_ms_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 is wrong, and times that are compared with each other only are not.
    since.map_or(0, |since| since.as_millis() as u64)
}
