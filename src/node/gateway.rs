//! What a door (a protocol, the command line, a linked program) can ask of a node.
//!
//! Payloads, results and replies are MessagePack values: a door that speaks JSON converts at its
//! edge. Every future of a [`Gateway`] ends: with the answer, or with an [`Error`] that says what
//! to do.

pub use super::greeting::{Awaited, Credentials, Known};
pub use crate::consensus::{
    cluster::{Address, Answer, Ask, Status as ClusterStatus},
    engine::Agreement,
    members::{Change, ChangeRefused},
};
use crate::wire::{
    api::{
        AgentView, Completion, Error, Guest, Leased, NodeStats, Ran, TaskFilter, TaskPage,
        TaskSpec, TaskView, Worker,
    },
    id::{AgentAddress, AgentId, PartitionIndex, TaskId},
    memory::{MemoryHit, MemoryItem, MemoryPage, MemoryQuery, MemoryStats, Metric, not_configured},
    neighbours::{AgentFilter, FarAgent, Neighbour},
};
pub use crate::{
    consensus::peers::proof::{Challenge, Proof},
    shard::{
        doors::prepare,
        trunks::{Offer, Origin},
    },
};
use std::{ops::RangeInclusive, rc::Rc, sync::Arc};

/// What another node says to open a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkOffer {
    /// Who offers what.
    pub offer: Offer,
    /// The versions that it speaks (`wire/trunk.rs`).
    pub versions: RangeInclusive<u64>,
    /// What the answer is to be proven over, where the one who offers knows a secret.
    pub challenge: Option<Challenge>,
    /// That it knows the secret of the cluster, over the challenge that it was answered before.
    pub proof: Option<Proof>,
}

/// What it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkAnswer {
    /// It is to be proven over this.
    Challenged(Challenge),
    /// It is believed.
    Heard {
        /// What is answered; where that knows the session the connection is a trunk.
        words: TrunkWords,
        /// That this node knows the secret of the cluster, over the challenge of the one who offers.
        proof: Option<Proof>,
    },
}

/// What is answered to an offer that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrunkWords {
    /// The longest record that the node takes, bytes.
    pub record_bytes: usize,
    /// The version that both speak.
    pub version: u64,
    /// The last frame that it took, if it knows the session.
    pub taken: Option<u64>,
}

/// Items of pattern memory of which others need not have their turn between two: requests of a connection
/// with so few are begun as a whole, in the order in which they came.
pub const FEW_ITEMS: usize = 256;

/// The doors' view of a node, one instance a core: it never leaves the core it was made on.
///
/// Dropping a future withdraws the wait, never the work: a submitted task still runs.
#[allow(async_fn_in_trait)]
pub trait Gateway: 'static {
    /// Lets the core's messages have their turn when futures have gone on for long enough: for a door with
    /// much to read or write, between steps of some microseconds.
    async fn breathe(&self) {}

    /// Accepts all the tasks or none; ids in the order of `specs`.
    async fn submit(self: Rc<Self>, specs: Vec<TaskSpec>) -> Result<Vec<TaskId>, Error>;

    /// Accepts or refuses each task by itself; outcomes in the order of `specs`.
    async fn submit_each(
        self: Rc<Self>,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<Result<TaskId, Error>>, Error>;

    /// What is known of a task; with `wait_ms` above 0, waits that long for it to end.
    async fn task(self: Rc<Self>, id: TaskId, wait_ms: u64) -> Result<TaskView, Error>
    where
        Self: Sized,
    {
        self.task_within(id, wait_ms, usize::MAX).await
    }

    /// The same, but a result longer than `result_bytes` is left out: a task that is done and shows
    /// none has a longer one.
    async fn task_within(
        self: Rc<Self>,
        id: TaskId,
        wait_ms: u64,
        result_bytes: usize,
    ) -> Result<TaskView, Error>;

    /// Ends a task that has not ended; what an agent still does for it is ignored.
    /// `Ok(false)` when it had ended before.
    async fn cancel(self: Rc<Self>, id: TaskId) -> Result<bool, Error>;

    /// A part of the tasks that the node knows; the first part without a cursor.
    async fn tasks(
        self: Rc<Self>,
        filter: TaskFilter,
        cursor: Option<String>,
        max: u32,
    ) -> Result<TaskPage, Error>;

    /// Queues a dead task again, with all of its attempts before it.
    async fn requeue(self: Rc<Self>, id: TaskId) -> Result<(), Error>;

    /// Takes a worker in that fetches tasks of remote agent types.
    async fn register(self: Rc<Self>, types: Vec<String>, capacity: u32) -> Result<Worker, Error>;

    /// Leases at most `max` tasks to a worker; with `wait_ms` above 0, waits that long for one.
    async fn fetch(self: Rc<Self>, worker: Worker, max: u32, wait_ms: u64)
    -> Result<Leased, Error>;

    /// Ends attempts; each is answered when its end is committed, in the order of `completions`.
    async fn end_attempts(
        self: Rc<Self>,
        completions: Vec<Completion>,
    ) -> Result<Vec<Result<(), Error>>, Error>;

    /// Lets a lease last `extend_ms` from now.
    async fn extend(self: Rc<Self>, id: TaskId, lease: u64, extend_ms: u64) -> Result<(), Error>;

    /// A worker is gone: what it holds counts as failed and goes to others.
    async fn leave(self: Rc<Self>, worker: Worker);

    /// All agents of the node, by id; `agent_type` keeps those of one type.
    async fn agents(self: Rc<Self>, agent_type: Option<String>) -> Result<Vec<AgentView>, Error>;

    /// Starts an agent of a configured type.
    async fn spawn(
        self: Rc<Self>,
        agent_type: String,
        name: Option<String>,
    ) -> Result<AgentId, Error>;

    /// Stops an agent; its tasks go to others.
    async fn stop(self: Rc<Self>, id: AgentId) -> Result<(), Error>;

    /// Sends one MessagePack value to an agent of any node; delivered at most once, in order.
    async fn send(
        self: Rc<Self>,
        to: impl Into<AgentAddress>,
        payload: Vec<u8>,
    ) -> Result<(), Error>;

    /// Sends a value to an agent of any node and waits for its answer; 0 means the node's default timeout.
    async fn call(
        self: Rc<Self>,
        to: impl Into<AgentAddress>,
        payload: Vec<u8>,
        timeout_ms: u64,
    ) -> Result<Vec<u8>, Error>;

    /// Counters of every core.
    fn stats(&self) -> NodeStats;

    /// Whether the node is past its start and not draining, and in a cluster knows a leader of every
    /// partition; else why not, in a sentence.
    fn readiness(&self) -> Result<(), String>;

    /// The same doors, but what another node leads is refused ([`Error::NotLeader`]) and not
    /// forwarded.
    fn here(self: Rc<Self>) -> Rc<Self>;

    /// A part of a partition's tasks from a place on, and where the next part begins.
    async fn tasks_of(
        self: Rc<Self>,
        partition: PartitionIndex,
        filter: TaskFilter,
        from: u64,
        max: u32,
    ) -> Result<(Vec<TaskView>, Option<u64>), Error>;

    /// Runs an attempt of a task that another node keeps, with an agent of this one; an error says that
    /// it did not begin, or that nobody knows. Dropping the future gives the attempt up.
    async fn run_guest(self: Rc<Self>, _agent_type: String, _guest: Guest) -> Result<Ran, Error> {
        Err(Error::Conflict("the node belongs to no cluster".into()))
    }

    /// Gives up an attempt that another node lent, by its task and the lender's lease.
    fn stop_guest(&self, _id: TaskId, _lease: u64) {}

    /// This node as others of its cluster can prove themselves to it; `None` where there is no secret.
    fn known(&self) -> Option<Known> {
        None
    }

    /// Whether a trunk that another node offers is taken, over a connection that was answered that
    /// challenge last.
    async fn judge_trunk(
        self: Rc<Self>,
        _said: TrunkOffer,
        _given: Option<Challenge>,
    ) -> Result<TrunkAnswer, Error> {
        Err(Error::Conflict("the node belongs to no cluster".into()))
    }

    /// How the cluster does, as this node sees it.
    fn cluster_status(&self) -> Result<Arc<ClusterStatus>, Error>;

    /// A part of the agents of all nodes that are there; `None` for a node that is alone.
    fn agents_everywhere(&self, _filter: &AgentFilter) -> Option<Vec<FarAgent>> {
        None
    }

    /// Whether agents of a type of this node can do something.
    fn is_able(&self, _agent_type: &str, _capability: &str) -> bool {
        false
    }

    /// The agent of that name: one of this node before those of others.
    fn find_agent(&self, _name: &str) -> Option<AgentAddress> {
        None
    }

    /// All nodes of the cluster as gossip tells of them; empty for a node that is alone.
    fn neighbours(&self) -> Vec<Neighbour> {
        Vec::new()
    }

    /// Asks something of the cluster, in the partitions that this node leads.
    async fn ask_cluster(self: Rc<Self>, ask: Ask) -> Result<Answer, Error>;

    /// A vector for each text by the node's embedder, or why there is none; in the order of `texts`.
    async fn memory_embed(
        self: Rc<Self>,
        _texts: Vec<String>,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        Err(not_configured())
    }

    /// The name of the node's embedder.
    fn embedder_name(&self) -> &'static str {
        "none"
    }

    /// Numbers of each vector, and what near means; `None` for a node without a memory.
    fn memory_shape(&self) -> Option<(usize, Metric)> {
        None
    }

    /// Remembers items, each by itself; an item replaces the one of the same name. Answered when all
    /// are on the disk, in the order of `items`: `true` for one that replaced another. What is
    /// acknowledged is found by each search that begins later.
    async fn memory_put(
        self: Rc<Self>,
        _items: Vec<MemoryItem>,
    ) -> Result<Vec<Result<bool, Error>>, Error> {
        Err(not_configured())
    }

    /// An item by its name.
    async fn memory_get(
        self: Rc<Self>,
        _namespace: String,
        _key: String,
    ) -> Result<MemoryItem, Error> {
        Err(not_configured())
    }

    /// Forgets an item. `Ok(false)` when there was none.
    async fn memory_delete(
        self: Rc<Self>,
        _namespace: String,
        _key: String,
    ) -> Result<bool, Error> {
        Err(not_configured())
    }

    /// The items nearest to a vector, nearest first.
    async fn memory_search(self: Rc<Self>, _query: MemoryQuery) -> Result<Vec<MemoryHit>, Error> {
        Err(not_configured())
    }

    /// A part of the items, of one namespace when one is named, in no order that means anything;
    /// the first part without a cursor.
    async fn memory_list(
        self: Rc<Self>,
        _namespace: Option<String>,
        _cursor: Option<String>,
        _max: u32,
    ) -> Result<MemoryPage, Error> {
        Err(not_configured())
    }

    /// How the memory does; with `sample` above 0, how much so many searches find, which takes an
    /// exhaustive scan for each.
    async fn memory_stats(self: Rc<Self>, _sample: u32) -> Result<MemoryStats, Error> {
        Err(not_configured())
    }
}
