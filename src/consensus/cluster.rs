//! What the cores of a node know of its cluster, and what they ask of it.
//!
//! The log thread, which runs a node's part of consensus, writes down here who leads what and how
//! its groups and links do; cores and doors read it, and send what they ask for over a bounded
//! queue.

use super::{
    engine::Agreement,
    members::{Change, ChangeRefused, Members},
    peers::NodeId,
};
use crate::{runtime::doorbell::Doorbell, wire::id::PartitionIndex};
use bytes::Bytes;
use futures_channel::oneshot;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

/// Requests that may wait for the log thread.
const ASKS_MAX: usize = 64;

/// Where a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// By the other nodes' consensus.
    pub peers: SocketAddr,
    /// By clients, and by nodes that forward what clients ask for.
    pub rpc: SocketAddr,
}

/// Who leads each partition, as this node last heard.
#[derive(Debug)]
pub struct Leaders {
    me: NodeId,
    of: Box<[AtomicU64]>,
}

impl Leaders {
    /// Of a node and its partitions; nobody is known to lead.
    pub fn new(me: NodeId, partitions: PartitionIndex) -> Self {
        Self { me, of: (0..partitions).map(|_| AtomicU64::new(0)).collect() }
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> PartitionIndex {
        self.of.len() as PartitionIndex
    }

    /// Who leads a partition; `None` while nobody is known to, and for one that does not exist.
    #[inline]
    pub fn of(&self, partition: PartitionIndex) -> Option<NodeId> {
        let leader = self.of.get(usize::from(partition))?.load(Ordering::Relaxed);
        (leader != 0).then_some(leader)
    }

    /// Whether this node leads a partition.
    #[inline]
    pub fn is_here(&self, partition: PartitionIndex) -> bool {
        self.of(partition) == Some(self.me)
    }

    pub(crate) fn set(&self, partition: PartitionIndex, leader: Option<NodeId>) {
        self.of[usize::from(partition)].store(leader.unwrap_or(0), Ordering::Relaxed);
    }
}

/// How a node of the cluster does, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub id: NodeId,
    /// Where it can be reached, when that is known.
    pub address: Option<Address>,
    /// Whether it is a member of any partition, as far as this node knows.
    pub is_member: bool,
    /// Whether messages flow; true for this node itself.
    pub is_connected: bool,
    /// Messages that were sent to it and that came from it.
    pub messages: (u64, u64),
    /// Bytes that were sent to it and that came from it.
    pub bytes: (u64, u64),
    /// Messages to it that were dropped because too many waited.
    pub dropped: u64,
}

/// How a partition's replica on this node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionIndex,
    /// Who leads it, as far as is known.
    pub leader: Option<NodeId>,
    /// The latest term that this replica knows.
    pub term: u64,
    /// Index of the first entry that it has.
    pub first: u64,
    /// Index of its last entry.
    pub last: u64,
    /// Index up to which entries are committed.
    pub committed: u64,
    /// The members.
    pub members: Members,
    /// What it counted, where nodes may be byzantine.
    pub agreement: Option<Agreement>,
}

/// How the cluster does, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This node; 0 before the log thread ran.
    pub me: NodeId,
    /// All nodes whose address is known, in the order of their numbers.
    pub nodes: Vec<NodeStatus>,
    /// All partitions, in their order.
    pub partitions: Vec<PartitionStatus>,
}

impl Status {
    /// How many partitions a node leads.
    pub fn led_by(&self, node: NodeId) -> usize {
        self.partitions.iter().filter(|partition| partition.leader == Some(node)).count()
    }
}

/// What a node is asked to do in the groups that it leads, or with what it knows of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Learns where a node can be reached, and tells all others.
    Know(NodeId, Address),
    /// Changes the membership of every partition that this node leads.
    Change(Change),
    /// Hands a partition over; where nodes agree by PBFT, to the one whose turn is next.
    Transfer {
        /// The partition.
        partition: PartitionIndex,
        /// Who is to lead it.
        to: NodeId,
    },
    /// Appends a block of records to a partition's log, whoever leads it, where a leader may lie.
    Request {
        /// The partition.
        partition: PartitionIndex,
        /// Whole records of it.
        block: Bytes,
    },
}

/// What became of an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The records are in this entry for ever.
    Requested {
        /// The entry.
        index: u64,
        /// Tentative answers said so.
        is_fast: bool,
    },
    /// Too much is under way, or nobody can be asked for that here.
    Busy,
    /// What became of the change, for each partition that this node leads.
    Changes(Vec<(PartitionIndex, Result<(), ChangeRefused>)>),
    /// This node does not lead the partition.
    NotLeader {
        /// Who does, as far as is known.
        leader: Option<NodeId>,
    },
}

/// What was asked, and where the answer goes.
pub(super) type Asked = (Ask, oneshot::Sender<Answer>);

/// A node's view of its cluster; a node that is alone is a cluster of one.
#[derive(Debug)]
pub struct Cluster {
    /// Who leads what.
    pub leaders: Leaders,
    status: Mutex<Arc<Status>>,
    asks: SyncSender<Asked>,
    bell: Doorbell,
}

impl Cluster {
    /// A view, and the log thread's end of what is asked; `bell` wakes that thread.
    pub(crate) fn new(leaders: Leaders, bell: Doorbell) -> (Arc<Self>, Receiver<Asked>) {
        let (asks, asked) = sync_channel(ASKS_MAX);
        let status = Mutex::default();
        (Arc::new(Self { leaders, status, asks, bell }), asked)
    }

    /// How the cluster did a moment ago.
    pub fn status(&self) -> Arc<Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a node can be reached.
    pub fn address(&self, node: NodeId) -> Option<Address> {
        let status = self.status();
        status.nodes.iter().find(|known| known.id == node).and_then(|known| known.address)
    }

    pub(super) fn tell(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }

    /// Asks for something; `None` when too many requests wait, or the log has ended.
    pub fn ask(&self, ask: Ask) -> Option<oneshot::Receiver<Answer>> {
        let (answer, answered) = oneshot::channel();
        match self.asks.try_send((ask, answer)) {
            Ok(()) => {
                self.bell.ring_if_parked();
                Some(answered)
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}
