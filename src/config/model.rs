//! The typed tuning values that the rest of the project reads.

use std::{fmt, net::SocketAddr};

use crate::wire::memory::Metric;

/// A whole tuning file, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which cores do what.
    pub cores: Cores,
    /// How a core's executor polls, spins and parks.
    pub runtime: Runtime,
    /// How messages travel between cores.
    pub mesh: Mesh,
    /// Limits that hold for every agent.
    pub agents: Agents,
    /// Queues and limits of the task service.
    pub tasks: Tasks,
    /// The durable log.
    pub log: Log,
    /// Pattern memory.
    pub memory: Memory,
    /// Listeners and their limits.
    pub server: Server,
    /// This node's part in a cluster.
    pub cluster: Cluster,
    /// How the nodes of the cluster agree.
    pub consensus: Consensus,
    /// What nodes tell each other of themselves.
    pub gossip: Gossip,
    /// The agent types of this node and how many of each are started.
    pub agent: Vec<AgentType>,
    /// The nodes of the cluster; no two have the same id or share an address.
    pub node: Vec<NodeEntry>,
}

/// Which cores do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Cores that run agents.
    pub workers: CoreSet,
    /// Cores that run the log and what belongs to the whole node.
    pub raft: CoreSet,
}

/// A choice of cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreSet {
    /// Chosen from the machine: the last core for `raft` when there are three or more.
    Auto,
    /// These processors, by the kernel's number.
    List(Vec<usize>),
}

/// How long an idle core polls before it parks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// Never parks: lowest latency, a whole core used even when idle.
    Forever,
    /// Parks after this many microseconds without work.
    Micros(u64),
}

/// How a core's executor polls, spins and parks.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// How long an idle core polls its rings before it parks.
    pub spin: Spin,
    /// The longest time a busy or spinning core goes without a look at all of its I/O,
    /// microseconds.
    pub poll_io_us: u64,
    /// Entries in each io_uring of an executor.
    pub ring_depth: usize,
    /// Memory that an executor registers with the kernel for its I/O, KiB.
    pub io_memory_kib: usize,
}

/// How messages travel between cores.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// Batches that one ring holds; a power of two.
    pub ring_batches: usize,
    /// Messages after which a batch leaves.
    pub batch_messages: usize,
    /// Bytes after which a batch leaves.
    pub batch_bytes: usize,
    /// The longest time the oldest message of a batch waits, microseconds.
    pub batch_timeout_us: u64,
    /// Payloads of at least this many bytes travel by reference count beside the batch.
    pub shared_payload_bytes: usize,
    /// Requests from threads outside the runtime that may wait at one core.
    pub injector_requests: usize,
}

/// Limits that hold for every agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Agents {
    /// Messages that wait for one agent that is not ready before its senders are refused.
    pub mailbox_messages: usize,
    /// Agents that one core may own.
    pub max_per_core: usize,
    /// Calls that may wait for their answer on one core.
    pub max_calls: usize,
    /// How long a call waits when the caller names no timeout, milliseconds.
    pub call_timeout_ms: u64,
    /// Restarts of a crashing agent within `restart_window_ms`; the next one waits for room in it.
    pub max_restarts: u32,
    /// The window that `max_restarts` counts in, milliseconds.
    pub restart_window_ms: u64,
}

/// Queues and limits of the task service.
#[derive(Clone, Debug, PartialEq)]
pub struct Tasks {
    /// Tasks waiting on one shard before it counts as loaded.
    pub queue_primary: usize,
    /// Tasks waiting beyond `queue_primary` before submissions are refused.
    pub queue_overflow: usize,
    /// Bytes of waiting tasks that a shard keeps in memory when the log has them as well.
    pub queue_bytes: usize,
    /// Ended tasks whose result a shard keeps.
    pub retained: usize,
    /// Bytes of results that a shard keeps.
    pub retained_bytes: usize,
    /// Largest payload or result, bytes.
    pub max_payload_bytes: usize,
    /// Attempts of a task when its submitter names none.
    pub max_attempts: u32,
    /// How long one attempt may take when the submitter names none, milliseconds.
    pub timeout_ms: u64,
    /// How long a task waits until it is as urgent as a new one of the next higher priority,
    /// milliseconds.
    pub ageing_ms: u64,
    /// Pause before a task's second attempt; it doubles with each further one, milliseconds.
    pub retry_base_ms: u64,
    /// Longest pause between two attempts, milliseconds.
    pub retry_max_ms: u64,
    /// How long a key stands for the task it was first submitted with, milliseconds.
    pub key_ttl_ms: u64,
    /// Keys that one shard remembers.
    pub keys_max: usize,
    /// Dead letters that one shard keeps.
    pub dead_max: usize,
    /// What a full queue does with a new task.
    pub drop_policy: DropPolicy,
}

/// What a full queue does with a new task. Only tasks that were submitted with `durable = false`
/// are ever evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropPolicy {
    /// Refuses it.
    #[default]
    Reject,
    /// Evicts a waiting task of a lower priority, of the lowest that there is.
    LowPriority,
    /// Evicts the task that waits longest.
    Oldest,
}

impl DropPolicy {
    /// All policies, in the order of [`DropPolicy::NAMES`].
    pub const ALL: [Self; 3] = [Self::Reject, Self::LowPriority, Self::Oldest];
    /// The names that users write.
    pub const NAMES: [&str; 3] = ["reject", "low_priority", "oldest"];
}

/// The durable log.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The folder that it lies in.
    pub folder: String,
    /// Size of a segment file, MiB.
    pub segment_mib: u64,
    /// Size of the log beyond which its oldest segments are cleaned, MiB.
    pub keep_mib: u64,
    /// Most that a core gathers before it hands it to the log, KiB.
    pub block_kib: usize,
    /// Whether the log's thread asks for a real-time priority.
    pub realtime: Realtime,
}

/// Whether a thread asks for a real-time priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realtime {
    /// Where the process may have one.
    Auto,
    /// Never.
    Off,
}

/// Pattern memory: vectors, and what is kept with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Numbers of each vector.
    pub dimension: usize,
    /// What near means.
    pub metric: Metric,
    /// Candidates that a search keeps when its caller names no `ef`.
    pub ef_search: usize,
    /// Candidates that an insertion weighs.
    pub ef_construction: usize,
    /// The folder that it lies in; `None`: the folder `memory` in that of the log.
    pub folder: Option<String>,
    /// MiB of a record file of a memory that is not there yet.
    pub segment_mib: usize,
    /// Vectors that all cores together keep.
    pub max_vectors: usize,
    /// What makes a vector of a text.
    pub embedder: Embedder,
    /// Program and arguments of an embedder that is a child process; else no words.
    pub embedder_command: Vec<String>,
    /// What identifies an embedder that is a child process; `None`: its program and arguments.
    pub embedder_model: Option<String>,
    /// How long an embedder may take for one request, milliseconds.
    pub embedder_timeout_ms: u64,
    /// Texts that may wait for an embedder that is a child process.
    pub embedder_queue: usize,
}

/// What makes a vector of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embedder {
    /// Nothing: who stores or searches sends a vector.
    None,
    /// Words and pieces of words, counted: it finds what shares words, and knows no meaning.
    Lexical,
    /// A child process.
    Exec,
}

impl Embedder {
    /// All of them, in the order of [`Embedder::NAMES`].
    pub const ALL: [Self; 3] = [Self::None, Self::Lexical, Self::Exec];
    /// The names that users write.
    pub const NAMES: [&str; 3] = ["none", "lexical", "exec"];
}

/// Listeners and their limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where MessagePack-RPC listens.
    pub rpc_address: SocketAddr,
    /// Where HTTP listens: MCP, metrics, health.
    pub http_address: SocketAddr,
    /// The file with the token that clients must know; `None`: none is asked for.
    pub token_file: Option<String>,
    /// Largest request, bytes; a larger one is answered `too_large` and the connection closed.
    pub max_frame_bytes: usize,
    /// Connections that one core serves.
    pub max_connections: usize,
    /// Requests of one connection that may wait for their answer.
    pub max_in_flight: usize,
    /// Answers waiting for a client that does not read, bytes, before it is disconnected.
    pub write_buffer_bytes: usize,
    /// A client that makes no progress in the middle of a frame for this long is disconnected,
    /// milliseconds; also how long a blocked write may take.
    pub stall_timeout_ms: u64,
    /// How long running tasks may take to finish after SIGTERM, milliseconds.
    pub drain_ms: u64,
}

/// This node's part in a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// This node's id in the list of nodes, which has it; 0 when it is alone.
    pub node: u64,
    /// What a node knows of the cluster when its log begins.
    pub start: ClusterStart,
    /// Partitions that the tasks of a new cluster are split into.
    pub partitions: usize,
    /// What the groups' timers count in, milliseconds.
    pub tick_ms: u64,
    /// What the nodes of one cluster, and no others, have in common.
    pub name: String,
    /// The file with the secret that its nodes prove to know; `None`: none is asked for.
    pub secret_file: Option<String>,
}

/// How the nodes of a cluster agree on what the log says.
#[derive(Clone, Debug, PartialEq)]
pub struct Consensus {
    /// What they trust each other with.
    pub protocol: Protocol,
    /// The file with this node's secret key; `None`: it has none.
    pub identity_file: Option<String>,
    /// Which life of the nodes it is: signatures of another one count for nothing.
    pub generation: u64,
}

/// What the nodes of a cluster trust each other with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Nodes may crash, and do nothing wrong: any more than half of them go on.
    Raft,
    /// Fewer than a third of the nodes may do anything at all, lies among it.
    Pbft,
}

/// An ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        crate::wire::secret::bytes_of_hex(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What nodes tell each other of themselves, and how soon they notice deaths.
#[derive(Clone, Debug, PartialEq)]
pub struct Gossip {
    /// Time between two rounds, milliseconds.
    pub interval_ms: u64,
    /// Most nodes that a node tells news in a round, and most that it asks.
    pub fanout_max: usize,
    /// How long a silent node may refute that it is dead, milliseconds.
    pub suspicion_ms: u64,
    /// Largest datagram, bytes.
    pub datagram_bytes: usize,
    /// Time between two comparisons of all with some node, milliseconds.
    pub reconcile_ms: u64,
    /// Answers about other nodes that a core remembers.
    pub lookups: usize,
    /// How long it remembers them, milliseconds.
    pub lookup_ttl_ms: u64,
}

/// What a node knows of the cluster when its log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterStart {
    /// The listed nodes begin it together, each as a voter.
    New,
    /// Nothing: a member will ask the node to join.
    Join,
}

/// One node of the cluster: where it listens and where the others reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its number, from 1.
    pub id: u64,
    /// Where it receives other nodes.
    pub peers: SocketAddr,
    /// Where MessagePack-RPC listens.
    pub rpc: SocketAddr,
    /// Where HTTP listens: MCP, metrics, health.
    pub http: SocketAddr,
    /// What it signs with, to be known by; `None` where nodes do not sign.
    pub public_key: Option<PublicKey>,
}

/// One agent type: what runs its tasks, and how many agents of it there are.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentType {
    /// The name that tasks and messages use.
    pub name: String,
    /// What an agent of this type is.
    pub kind: AgentKind,
    /// Agents started with the node.
    pub min: usize,
    /// Agents that may exist at the same time.
    pub max: usize,
    /// Tasks that one agent runs at the same time.
    pub max_tasks: u32,
    /// How long an agent above `min` may be idle before it stops, milliseconds.
    pub idle_timeout_ms: u64,
    /// Pause between two starts towards `min`, milliseconds.
    pub warmup_delay_ms: u64,
    /// What its agents can do, as other nodes are told.
    pub capabilities: Vec<String>,
}

/// What an agent is.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentKind {
    /// Part of this program: `echo`, `sleep` or `sha256`; the type's name says which.
    Builtin,
    /// A child process: its program and arguments.
    Exec {
        /// Program and arguments; never empty.
        command: Vec<String>,
    },
    /// A worker that connects over MessagePack-RPC.
    Remote,
}
