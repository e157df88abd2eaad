//! The vocabulary of requests: what a door asks of a node, and what a shard answers.
//!
//! Payloads, results and replies are MessagePack values.

use crate::wire::id::{AgentId, NodeId, TaskId};
use rkyv::{Archive, Deserialize, Serialize, with::Skip};
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

/// How urgent a task is.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Archive,
    Serialize,
    Deserialize,
)]
pub enum Priority {
    /// After everything else.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before normal tasks.
    High,
    /// Before everything else.
    Critical,
}

impl Priority {
    /// All priorities, least urgent first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// The name that users write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The priority of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name() == name)
    }
}

/// A task as its submitter describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The agent type that runs it.
    pub agent_type: String,
    /// One MessagePack value.
    pub payload: Vec<u8>,
    /// How urgent it is.
    pub priority: Priority,
    /// How long one attempt may take, milliseconds; `None` for the node's default.
    pub timeout_ms: Option<u64>,
    /// Attempts before the task is dead; `None` for the node's default.
    pub max_attempts: Option<u32>,
    /// Makes the submission idempotent: a second one with this key is the same task.
    pub key: Option<String>,
    /// How long the task waits before it may run, milliseconds.
    pub delay_ms: u64,
    /// Submitted with `durable = false`: kept in memory only, and may be evicted.
    pub transient: bool,
    /// What was made of a long one beside the core that submits it; says nothing more.
    #[rkyv(with = Skip)]
    pub prepared: Prepared,
}

/// What would hold the core that submits a long task: made of all its other fields, which stay as they are from then
/// on. It says nothing that they do not, so it makes no difference between two.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// The payload, to be handed on without another copy.
    pub payload: Option<Arc<[u8]>>,
    /// What tells a task with a key from others of that key.
    pub body_hash: Option<u64>,
}

impl PartialEq for Prepared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Prepared {}

impl Hash for Prepared {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum TaskStatus {
    /// Accepted, waiting for an agent.
    Queued,
    /// Accepted, waiting for its time: its delay, or the pause before another attempt.
    Delayed,
    /// An agent works on it.
    Running,
    /// Ended well; there is a result.
    Done,
    /// Ended after its last attempt failed; there is an error.
    Dead,
    /// Ended because its submitter asked so.
    Cancelled,
}

impl TaskStatus {
    /// Every status, in the order of a task's life.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Delayed, Self::Running, Self::Done, Self::Dead, Self::Cancelled];

    /// The name that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delayed => "delayed",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether nothing more will happen to the task.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled)
    }
}

/// What is known of one task.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TaskView {
    /// The task.
    pub id: TaskId,
    /// The agent type that runs it.
    pub agent_type: String,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// How urgent it is.
    pub priority: Priority,
    /// Attempts begun.
    pub attempts: u32,
    /// The other node whose agents were lent its attempt.
    pub node: Option<NodeId>,
    /// The result, one MessagePack value, when the task is done; otherwise `None`.
    pub result: Option<Vec<u8>>,
    /// What the last failed attempt said.
    pub error: Option<String>,
}

/// Tasks that a worker has taken. Their payloads lie in one buffer, so that there is one to carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Leased {
    /// The tasks.
    pub tasks: Vec<LeasedTask>,
    /// One MessagePack value of each, in the same order.
    pub payloads: Vec<u8>,
}

impl Leased {
    /// Appends a task and its payload, whose length is set here.
    pub fn push(&mut self, task: LeasedTask, payload: &[u8]) {
        let payload_bytes = payload.len() as u32;
        self.tasks.push(LeasedTask { payload_bytes, ..task });
        self.payloads.extend_from_slice(payload);
    }

    /// Appends other tasks.
    pub fn append(&mut self, mut other: Self) {
        if self.tasks.is_empty() {
            *self = other;
        } else {
            self.tasks.append(&mut other.tasks);
            self.payloads.append(&mut other.payloads);
        }
    }

    /// Each task with its payload.
    pub fn iter(&self) -> impl Iterator<Item = (&LeasedTask, &[u8])> {
        let mut payloads = &self.payloads[..];
        self.tasks.iter().map(move |task| {
            let (payload, rest) = payloads.split_at(task.payload_bytes as usize);
            payloads = rest;
            (task, payload)
        })
    }
}

/// A task that a worker has taken, and the right to end this attempt of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LeasedTask {
    /// The task.
    pub id: TaskId,
    /// The fencing token of this attempt; whoever ends it must show it.
    pub lease: u64,
    /// The agent type that it was submitted for: its place among those of the worker.
    pub type_place: u16,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How long the lease lasts, milliseconds from now.
    pub deadline_ms: u64,
    /// Bytes of its payload.
    pub payload_bytes: u32,
}

/// A worker that has registered: it has a seat, an agent, for each type whose tasks it takes.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Worker {
    /// Place of the type in the node's list, and the agent.
    pub seats: Vec<(u16, AgentId)>,
    /// Tasks that it may hold at the same time.
    pub capacity: u32,
}

/// How a worker ends an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The task.
    pub id: TaskId,
    /// The fencing token that came with it.
    pub lease: u64,
    /// The result, one MessagePack value, or why there is none.
    pub outcome: Result<Vec<u8>, Failure>,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub error: String,
    /// Whether another attempt may help.
    pub retry: bool,
}

/// An attempt of a task that another node keeps, to be run here.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Guest {
    /// The task.
    pub id: TaskId,
    /// The fencing token that the lender has for the attempt.
    pub lease: u64,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// How urgent the task is.
    pub priority: Priority,
    /// How long the attempt may take from its beginning, milliseconds.
    pub timeout_ms: u64,
    /// One MessagePack value.
    pub payload: Vec<u8>,
}

/// How an agent ended an attempt.
pub type Ran = Result<Vec<u8>, Failure>;

/// Which tasks a list shows; `None` shows all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TaskFilter {
    /// Only tasks that are there in their life.
    pub status: Option<TaskStatus>,
    /// Only tasks of this agent type.
    pub agent_type: Option<String>,
}

/// A part of a list of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskPage {
    /// The tasks, without their results.
    pub tasks: Vec<TaskView>,
    /// Where the next part begins; `None` at the end.
    pub cursor: Option<String>,
}

/// What an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum AgentKind {
    /// Part of this program.
    Builtin,
    /// A child process.
    Exec,
    /// A worker that connects from outside.
    Remote,
    /// Rust code linked by the program that embeds the node.
    Rust,
}

impl AgentKind {
    /// The name that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Exec => "exec",
            Self::Remote => "remote",
            Self::Rust => "rust",
        }
    }
}

/// Whether an agent takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum AgentState {
    /// Not yet able to work.
    Starting,
    /// Takes messages and tasks.
    Ready,
    /// Lets its messages wait in its mailbox.
    Paused,
}

impl AgentState {
    /// The name that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Paused => "paused",
        }
    }
}

/// One agent, as `agent.list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct AgentView {
    /// The agent.
    pub id: AgentId,
    /// Its type.
    pub agent_type: String,
    /// What an agent of that type is.
    pub kind: AgentKind,
    /// Its name, when it has one.
    pub name: Option<String>,
    /// Whether it takes work.
    pub state: AgentState,
    /// Tasks it works on.
    pub tasks: u32,
    /// Tasks it may work on at the same time.
    pub max_tasks: u32,
    /// Tasks it ended well.
    pub done: u64,
    /// Attempts that failed on it.
    pub failed: u64,
}

/// One core, as `node.stats` shows it.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct CoreStats {
    /// The kernel's number of the processor.
    pub cpu: usize,
    /// Agents it owns.
    pub agents: u64,
    /// Messages delivered to its agents.
    pub messages_delivered: u64,
    /// Messages whose agent was gone.
    pub messages_undeliverable: u64,
    /// Sends that were refused because a ring or a mailbox was full.
    pub sends_refused: u64,
    /// Messages and calls sent to agents of other nodes.
    pub far_sent: u64,
    /// Messages and calls that came from other nodes.
    pub far_received: u64,
    /// Messages to agents of other nodes of which nobody said that they arrived when their node was gone.
    pub far_lost: u64,
    /// Sessions with other nodes that ended because the other side said what cannot be.
    pub far_broken: u64,
    /// Offers of connections for messages in the name of other nodes, and answers to them, that were refused: not
    /// proven, of no version that this node speaks, or no answers at all.
    pub far_refused: u64,
    /// Lookups of agents of all nodes that the core's cache answered.
    pub cache_hits: u64,
    /// Lookups that it did not answer.
    pub cache_misses: u64,
    /// Answers that it gave up for others.
    pub cache_evictions: u64,
    /// Lookups that it did not answer because its answer was too old.
    pub cache_expired: u64,
    /// Answers that it gave up because what other nodes said since made them wrong.
    pub cache_invalidated: u64,
    /// Batches received over the mesh.
    pub batches_received: u64,
    /// Buffers for batches that it allocated because no used one had come back.
    pub batch_buffers: u64,
    /// Tasks accepted.
    pub tasks_accepted: u64,
    /// Submissions refused with `backpressure`.
    pub tasks_refused: u64,
    /// Submissions that were the same as an earlier one, by their key.
    pub tasks_repeated: u64,
    /// Unended tasks that were found in the log at the start.
    pub tasks_recovered: u64,
    /// Tasks waiting for an agent now, in memory or in the log alone.
    pub tasks_queued: u64,
    /// Tasks waiting for their time.
    pub tasks_delayed: u64,
    /// Tasks waiting whose payload is in the log alone.
    pub tasks_cold: u64,
    /// Tasks running now.
    pub tasks_running: u64,
    /// Tasks that ended well.
    pub tasks_done: u64,
    /// Tasks that died.
    pub tasks_dead: u64,
    /// Tasks that were cancelled.
    pub tasks_cancelled: u64,
    /// Tasks that died because a full queue gave them up.
    pub tasks_evicted: u64,
    /// Attempts that failed.
    pub attempts_failed: u64,
    /// Attempts that were lent to other nodes, whose agents run them.
    pub tasks_lent: u64,
    /// Those that came back without having begun.
    pub tasks_lent_back: u64,
    /// Those of which nobody knows what became of them: they failed.
    pub tasks_lent_lost: u64,
    /// Attempts of tasks of other nodes that were taken in.
    pub tasks_borrowed: u64,
    /// Dead letters kept.
    pub dead_letters: u64,
    /// Dead letters that were queued again.
    pub dead_letters_requeued: u64,
    /// Dead letters forgotten because there were too many.
    pub dead_letters_purged: u64,
    /// Keys remembered.
    pub keys: u64,
    /// Agents started, for whatever reason.
    pub agents_started: u64,
    /// Those of them that followed one which had crashed.
    pub agents_restarted: u64,
    /// Agents stopped because they were idle.
    pub agents_stopped_idle: u64,
    /// Agents that panicked.
    pub agent_panics: u64,
    /// Times the core parked.
    pub parks: u64,
}

/// The whole node, as `node.stats` and `swarm_status` show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeStats {
    /// Seconds since the node started.
    pub uptime_s: u64,
    /// The version of the program.
    pub version: &'static str,
    /// Whether the node accepts work (false while it drains).
    pub accepting: bool,
    /// Resident memory of the process, bytes.
    pub resident_bytes: u64,
    /// One entry a worker core.
    pub cores: Vec<CoreStats>,
    /// The node's part in its cluster; `None` for one that is alone.
    pub cluster: Option<ClusterStats>,
}

/// A node's part in its cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterStats {
    /// Partitions that there are.
    pub partitions: u64,
    /// Those that this node leads.
    pub leads: u64,
    /// Those of which this node knows no leader.
    pub leaderless: u64,
    /// Requests that were sent to other nodes.
    pub forwarded: u64,
    /// Requests that were answered `not_leader`.
    pub not_leader: u64,
    /// The links to the other nodes.
    pub links: Vec<LinkStats>,
    /// What nodes tell each other of themselves.
    pub gossip: Option<Box<GossipStats>>,
    /// What agreement counted, where nodes may lie.
    pub agreement: Option<AgreementStats>,
}

/// What the replicas of this node counted, in all partitions, where nodes may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgreementStats {
    /// Requests of this node that tentative answers finished.
    pub fast: u64,
    /// Requests of this node that committed answers finished.
    pub slow: u64,
    /// Views that were left.
    pub view_changes: u64,
    /// Messages that were dropped.
    pub dropped: u64,
    /// Those of them that no correct node sends.
    pub wrong: u64,
    /// Signatures that were verified.
    pub verified: u64,
    /// Partitions in which more nodes lie than can.
    pub diverged: u64,
}

/// What gossip did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GossipStats {
    /// Nodes that are alive, suspect, dead, and gone with a goodbye.
    pub nodes: [u64; 4],
    /// Rounds.
    pub rounds: u64,
    /// Datagrams that were sent.
    pub datagrams_sent: u64,
    /// Datagrams that came.
    pub datagrams_received: u64,
    /// Bytes that were sent.
    pub bytes_sent: u64,
    /// These, by what they were for.
    pub bytes_sent_of: Vec<(&'static str, u64)>,
    /// Bytes that came.
    pub bytes_received: u64,
    /// Rounds in which nothing was news, asked for or suspect.
    pub quiet_rounds: u64,
    /// Silent nodes that this node accused.
    pub suspicions: u64,
    /// Nodes that became dead here.
    pub deaths: u64,
    /// Suspects and dead that turned out to live.
    pub returns: u64,
    /// Accusations of this node that it refuted.
    pub refutations: u64,
    /// Nodes of which too much was missed, so that everything was asked for.
    pub resets: u64,
    /// Times that this node began what it tells again, because others knew more of it than it did.
    pub rebirths: u64,
    /// Rounds that began late.
    pub late_rounds: u64,
    /// Times that the clock went back.
    pub clock_jumps: u64,
    /// Changes that were not taken in one by one, because there were too many at once.
    pub missed_events: u64,
    /// What was refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Facts of this node that could not be told.
    pub facts_untold: u64,
    /// Agents of this node that other nodes are not told of now, because there are too many.
    pub agents_left_out: u64,
    /// Facts of other nodes that were refused.
    pub facts_refused: u64,
}

/// A link to another node, over which partitions are replicated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkStats {
    /// The node.
    pub node: u64,
    /// Whether messages flow.
    pub connected: bool,
    /// Messages that were sent.
    pub messages_sent: u64,
    /// Messages that came.
    pub messages_received: u64,
    /// Bytes that were sent.
    pub bytes_sent: u64,
    /// Bytes that came.
    pub bytes_received: u64,
    /// Messages that were dropped because too many waited.
    pub messages_dropped: u64,
}

/// Why a request did not do what it asked; the variant says what the caller should do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Archive, Serialize, Deserialize)]
pub enum Error {
    /// The request is wrong: correct it. The text names the field.
    #[error("{0}")]
    Invalid(String),
    /// There is no such task, agent or type.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is there, for example a name that is taken.
    #[error("{0}")]
    Conflict(String),
    /// Nothing was accepted: come back after this many milliseconds.
    #[error("the node is full; nothing was accepted, try again in {0} ms")]
    Backpressure(u64),
    /// There is no room, and waiting makes none: nothing was accepted. The text names the limit.
    #[error("{0}")]
    Full(String),
    /// The lease is not the task's current one: the task went on without that attempt.
    #[error("{0}")]
    StaleLease(String),
    /// The connection did not say the token that the node asks for.
    #[error("{0}")]
    Unauthorized(String),
    /// Larger than the limit that the text names.
    #[error("{0}")]
    TooLarge(String),
    /// The node drains, or nobody can do it now: nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// Whoever was asked did not answer, or ceased to lead the task's partition meanwhile: it was
    /// done or not.
    #[error("{0}")]
    Uncertain(String),
    /// Another node leads the task's partition: the one that is named by its address for clients,
    /// where it is known. Nothing was done.
    #[error("{}", .0.as_ref().map_or("nobody is known to lead the task's partition now; are more than half of the nodes there?".to_owned(), |leader| format!("this node does not lead the task's partition, {leader} does")))]
    NotLeader(Option<String>),
}

impl Error {
    /// The code that protocols carry.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::Backpressure(_) | Self::Full(_) => "backpressure",
            Self::StaleLease(_) => "stale_lease",
            Self::Unauthorized(_) => "unauthorized",
            Self::TooLarge(_) => "too_large",
            Self::Unavailable(_) | Self::Uncertain(_) => "unavailable",
            Self::NotLeader(_) => "not_leader",
        }
    }

    /// When to try again, where waiting helps, milliseconds.
    pub const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Backpressure(retry_after_ms) => Some(*retry_after_ms),
            _ => None,
        }
    }
}
