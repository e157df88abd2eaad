//! What cores say to each other about agents and tasks: the archived payloads of a batch.

use super::{
    api::{
        AgentView, Error, Guest, Leased, Priority, Ran, TaskFilter, TaskStatus, TaskView, Worker,
    },
    batch::Attachment,
    id::{AgentId, TaskId},
    memory::{MemoryHit, MemoryItem, MemoryQuery, PartitionReport},
};
use rkyv::{Archive, Deserialize, Serialize, with::InlineAsBox};
use std::sync::{Arc, Mutex, PoisonError};

/// A letter that travels beside its batch: it is moved and not written, however much is in it.
pub struct Beside<L>(Mutex<Option<L>>);

impl<L: Send + 'static> Beside<L> {
    /// What carries it.
    pub fn attach(letter: L) -> Attachment {
        Attachment::Snapshot(Arc::new(Self(Mutex::new(Some(letter)))))
    }

    /// The letter; its one receiver takes it once.
    ///
    /// # Panics
    /// When it is another one, or was taken: both ends are this program.
    pub fn take(attachment: &Attachment) -> L {
        let letter = match attachment {
            Attachment::Snapshot(beside) => beside.downcast_ref::<Self>(),
            Attachment::Payload(_) => None,
        };
        let mut letter = letter.expect("a letter").0.lock().unwrap_or_else(PoisonError::into_inner);
        letter.take().expect("a letter is taken once")
    }
}

/// A question to a core.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub enum Request {
    /// What is known of a task; answered when it ended or `wait_ms` passed. A result longer than so
    /// many bytes is left out.
    Task(TaskId, u64, u64),
    /// A part of a partition's tasks: which, from where, and how many at most.
    Tasks(u16, TaskFilter, u64, u32),
    /// Ends a task.
    Cancel(TaskId),
    /// Queues a dead task again.
    Requeue(TaskId),
    /// Seats a worker: a remote agent of each type, and how many tasks it may hold.
    Seat(Vec<u16>, u32),
    /// Leases at most so many tasks to a worker; answered when there are some or `wait_ms` passed.
    Fetch(Worker, u32, u64),
    /// Answers what a worker waits for, with no tasks.
    StopFetch(Worker),
    /// An attempt that did not take place: the task and its lease.
    GiveBack(TaskId, u64),
    /// Lets a lease last so many milliseconds from now.
    Extend(TaskId, u64, u64),
    /// Runs an attempt of a task that another node keeps, with an agent of the type: a place in the
    /// list of types.
    Run(u16, Guest),
    /// The lender's lease of an attempt that another node lent: the task and the lease here.
    Lender(TaskId, u64),
    /// Gives up an attempt that another node lent: the random part of the task's id and the lender's
    /// lease.
    StopRun(u128, u64),
    /// The core's agents; of one type when one is named.
    Agents(Option<u16>),
    /// Starts an agent of a type, with a name or without.
    Spawn(u16, Option<String>),
    /// Asks for an agent of a type, when the core has none: those of another are all busy.
    Grow(u16),
    /// Stops an agent.
    Stop(AgentId),
    /// Keeps room in a partition's queue for so many submissions, the least urgent of that priority, unless
    /// one of their keys stands for another task: each key with the hash of what it is to stand
    /// for.
    Reserve(u16, u32, Priority, Vec<(String, u64)>),
    /// Gives room that was kept back.
    Release(u16, u32),
    /// Remembers items in a partition of the memory; answered when all are durable.
    MemoryPut(u16, Vec<MemoryItem>),
    /// An item of a partition, by namespace and key.
    MemoryGet(u16, String, String),
    /// Forgets an item of a partition, by namespace and key.
    MemoryDelete(u16, String, String),
    /// The items of a partition nearest to a vector.
    MemorySearch(u16, MemoryQuery),
    /// A part of a partition's items: of which namespace, from where, and how many at most.
    MemoryList(u16, Option<String>, u32, u32),
    /// How a partition does, with so many searches on a sample.
    MemoryStats(u16, u32),
}

/// What a core answers.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Task`].
    Task(TaskView),
    /// To [`Request::Tasks`]: with where the next part begins.
    Tasks(Vec<TaskView>, Option<u64>),
    /// To [`Request::Seat`].
    Seated(Worker),
    /// To [`Request::Fetch`].
    Leased(Leased),
    /// To [`Request::Run`]: the agent ended the attempt. That it did not begin is an error.
    Ran(Ran),
    /// To [`Request::Lender`], and to [`Request::Extend`] when another node keeps the task, whose lease
    /// has to last as well.
    Lent(u64),
    /// To [`Request::Cancel`]: false when the task had ended before.
    Cancelled(bool),
    /// To [`Request::Agents`].
    Agents(Vec<AgentView>),
    /// To [`Request::Spawn`].
    Spawned(AgentId),
    /// To [`Request::MemoryPut`]: of each item, whether it replaced another.
    MemoryPut(Vec<Result<bool, Error>>),
    /// To [`Request::MemoryGet`].
    MemoryItem(MemoryItem),
    /// To [`Request::MemoryDelete`]: false when there was none.
    MemoryDeleted(bool),
    /// To [`Request::MemorySearch`].
    MemoryHits(Vec<MemoryHit>),
    /// To [`Request::MemoryList`]: with where the next part begins.
    MemoryItems(Vec<MemoryItem>, Option<u32>),
    /// To [`Request::MemoryStats`].
    MemoryReport(PartitionReport),
    /// To questions whose answer is that it was done.
    Done,
    /// To any of them.
    Failed(Error),
}

/// Something every core should know.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub enum Notice {
    /// An agent started: id, type, name.
    AgentUp(AgentId, u16, Option<String>),
    /// An agent that was told of still starts (false), or can work (true).
    AgentReady(AgentId, bool),
    /// An agent is gone.
    AgentDown(AgentId),
    /// An agent's mailbox is full: send it nothing more. Its type is told for broadcasts.
    MailboxFull(AgentId, u16),
    /// There is room in it again.
    MailboxOpen(AgentId),
}

/// A task on its way to the core of its partition.
#[derive(Clone, Copy, Debug, Archive, Serialize)]
pub struct Submission<'a> {
    /// The random part of its id.
    pub random: u128,
    /// Its partition.
    pub partition: u16,
    /// How long one attempt may take, milliseconds; 0 for the node's default.
    pub timeout_ms: u64,
    /// Attempts before it is dead; 0 for the node's default.
    pub max_attempts: u32,
    /// Its agent type.
    pub type_index: u16,
    /// Place in `Priority::ALL`.
    pub priority: u8,
    /// Whether room was reserved for it.
    pub reserved: bool,
    /// Whether the submitter wants to hear of its end.
    pub watched: bool,
    /// Kept in memory only.
    pub transient: bool,
    /// Its place in the submitter's request.
    pub place: u32,
    /// How long it waits before it may run, milliseconds.
    pub delay_ms: u64,
    /// Makes it idempotent: what its submitter chose, in the scope of the agent type; empty for
    /// none.
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    /// What tells it from others of its key, where that was found out already.
    pub body_hash: Option<u64>,
    /// One MessagePack value; empty where it travels beside the batch ([`LongPayload`]).
    #[rkyv(with = InlineAsBox)]
    pub payload: &'a [u8],
}

/// The payload of a [`Submission`] that is not copied: it travels by reference count.
pub struct LongPayload(Arc<[u8]>);

impl LongPayload {
    /// What carries it.
    pub fn attach(payload: &Arc<[u8]>) -> Attachment {
        Attachment::Snapshot(Arc::new(Self(payload.clone())))
    }

    /// The payload.
    ///
    /// # Panics
    /// When it carries something else: both ends are this program.
    pub fn of(attachment: &Attachment) -> &Arc<[u8]> {
        let long = match attachment {
            Attachment::Snapshot(long) => long.downcast_ref::<Self>(),
            Attachment::Payload(_) => None,
        };
        &long.expect("a submission's payload").0
    }
}

/// How a worker ends an attempt, on its way to the core of the task's partition.
#[derive(Clone, Copy, Debug, Archive, Serialize)]
pub struct Ending<'a> {
    /// The random part of the task's id.
    pub random: u128,
    /// The task's partition.
    pub partition: u16,
    /// The attempt's fencing token.
    pub lease: u64,
    /// Its place in the worker's request.
    pub place: u32,
    /// Whether the attempt failed.
    pub failed: bool,
    /// Whether another attempt may help.
    pub retry: bool,
    /// The result, or the error's text.
    #[rkyv(with = InlineAsBox)]
    pub body: &'a [u8],
}

/// What became of a submission or of an attempt's end, told to who sent it.
#[derive(Clone, Copy, Debug, Archive, Serialize)]
pub struct TaskNews<'a> {
    /// The random part of the task's id.
    pub random: u128,
    /// The task's partition.
    pub partition: u16,
    /// Its place in the request that this answers.
    pub place: u32,
    /// What happened.
    pub what: NewsKind,
    /// Attempts begun.
    pub attempts: u32,
    /// Milliseconds to wait, when the submission was refused for lack of room.
    pub retry_after_ms: u64,
    /// The result of a task that is done, the error's text of one that is dead or refused.
    #[rkyv(with = InlineAsBox)]
    pub body: &'a [u8],
}

/// What happened to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Clone, Copy))]
pub enum NewsKind {
    /// It was accepted; the id may be that of a task with the same key.
    Accepted,
    /// The attempt's end is committed.
    Ended,
    /// The attempt was not the task's current one.
    Stale,
    /// It contradicts what is there.
    Conflict,
    /// It was refused for lack of room.
    Backpressure,
    /// It was refused because it is wrong.
    Invalid,
    /// It is larger than what is taken.
    TooLarge,
    /// The partition is led elsewhere; nothing was done.
    NotLeader,
    /// The partition ceased to be led here meanwhile: it was done or not.
    Uncertain,
    /// It ended well.
    Done,
    /// It ended after its last attempt failed.
    Dead,
    /// It was cancelled.
    Cancelled,
}

impl NewsKind {
    /// The end that it tells of, if it tells of one.
    pub const fn ended(self) -> Option<TaskStatus> {
        match self {
            Self::Done => Some(TaskStatus::Done),
            Self::Dead => Some(TaskStatus::Dead),
            Self::Cancelled => Some(TaskStatus::Cancelled),
            _ => None,
        }
    }
}

impl From<ArchivedNewsKind> for NewsKind {
    fn from(kind: ArchivedNewsKind) -> Self {
        match kind {
            ArchivedNewsKind::Accepted => Self::Accepted,
            ArchivedNewsKind::Ended => Self::Ended,
            ArchivedNewsKind::Stale => Self::Stale,
            ArchivedNewsKind::Conflict => Self::Conflict,
            ArchivedNewsKind::Backpressure => Self::Backpressure,
            ArchivedNewsKind::Invalid => Self::Invalid,
            ArchivedNewsKind::TooLarge => Self::TooLarge,
            ArchivedNewsKind::NotLeader => Self::NotLeader,
            ArchivedNewsKind::Uncertain => Self::Uncertain,
            ArchivedNewsKind::Done => Self::Done,
            ArchivedNewsKind::Dead => Self::Dead,
            ArchivedNewsKind::Cancelled => Self::Cancelled,
        }
    }
}
