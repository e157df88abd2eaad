//! What the log thread needs of a consensus engine, and what engines tell it.
//!
//! There are two: `raft/`, for nodes that crash, and `pbft/`, for nodes that lie as well. Each keeps
//! the groups of all partitions as one state machine without clock, socket, file or thread, and is
//! driven in the same way: propose, step, advance, then do what its [`Outputs`] ask for.
//!
//! Invariants worth naming
//! - Committed entries are told in their order, each once in the life of an engine.
//! - A replica is told that it leads only after everything that was committed before was told.
//! - Of each proposal the fate is told: committed, or lost when it is not known any more.

use super::{
    format::BlockKind,
    members::{Change, ChangeRefused, Members},
    peers::NodeId,
    place::Place,
};
use crate::wire::names::{Crowd, Naming};
use bytes::Bytes;
use std::{borrow::Cow, fmt::Display};

/// The consensus of a node in all partitions.
pub trait Engine: Sized {
    /// Whether nodes join and leave; else all that is known of nodes is what the configuration says, and
    /// nobody else is believed.
    const MEMBERS_CHANGE: bool;
    /// Whether some of the nodes may lie.
    const NODES_MAY_LIE: bool;

    /// What replicas send each other.
    type Message: Envelope;
    /// What is to be written.
    type Write: ToBlock;
    /// Why a message is dropped.
    type Dropped: Display;

    /// Proposes a block of records; its fate is told with the ticket.
    ///
    /// # Errors
    /// When it is not taken; its fate is not told then.
    fn propose(&mut self, partition: u16, data: Bytes, ticket: u64) -> Result<(), Refused>;

    /// Takes a message that a peer sent.
    ///
    /// # Errors
    /// When it is dropped, and why.
    fn step(
        &mut self,
        partition: u16,
        from: NodeId,
        message: Self::Message,
    ) -> Result<(), Self::Dropped>;

    /// What a message says of tasks and keys that live behind an entry: blocks of records which the
    /// partition's own table confirms, when it was told all up to there, before the message is heeded.
    /// `None` when it says nothing of that. The engine hears that the message came, whatever becomes of it.
    ///
    /// # Errors
    /// When the message is dropped whatever they are, and why.
    fn claims(&mut self, _: u16, _: NodeId, _: &Self::Message) -> Result<Claims, Self::Dropped> {
        Ok(None)
    }

    /// Tells the time, from any beginning.
    fn advance(&mut self, now_ms: u64);

    /// When [`Engine::advance`] has something to do.
    fn next_tick_ms(&self) -> Option<u64>;

    /// Asks to be told when everything that is committed now was told.
    ///
    /// # Errors
    /// When this node does not lead the partition, or too many reads wait.
    fn read(&mut self, partition: u16, context: u64) -> Result<(), Refused>;

    /// Forgets a partition's entries up to an index. What they took on the disk may be freed when
    /// the write that follows from this is on it.
    fn compact(&mut self, partition: u16, index: u64);

    /// Forgets no more of a partition's entries than it has, of what it was told until now: its shard
    /// begins again behind those.
    fn keep(&mut self, partition: u16);

    /// Tells which nodes take up much of a partition: of what those ask for that take up all that they may
    /// nothing is taken, and no leader is left for what the others ask for.
    fn crowd(&mut self, partition: u16, crowd: Crowd);

    /// Tells the oldest thing that whoever leads a partition owes this node, of which the node has the
    /// proof, or that it owes nothing. A leader that owes the same for too long is replaced when more nodes
    /// than may lie have the proof: the others say it after them. To be told whenever it is another one.
    fn owed(&mut self, partition: u16, duty: Option<Duty>);

    /// Writes again what must not be lost beside entries, so that segments that hold nothing else
    /// may be freed when it is on the disk.
    fn restate(&mut self);

    /// Tells where an entry was written; before [`Engine::persisted`].
    fn placed(&mut self, partition: u16, index: u64, term: u64, place: Place);

    /// Answers a fetch with the bodies of the blocks; `None` when the entries cannot be read, and
    /// they are asked for again.
    fn fetched(&mut self, partition: u16, id: u64, data: Option<Vec<Bytes>>);

    /// A peer cannot be reached, or messages to it were dropped.
    fn unreachable(&mut self, peer: NodeId);

    /// The writes of all batches up to this one are on the disk.
    fn persisted(&mut self, batch: u64);

    /// Whether [`Engine::take_ready`] would find something.
    fn has_ready(&self) -> bool;

    /// Takes everything that is to be done, instead of what `outputs` held.
    fn take_ready(&mut self, outputs: &mut Outputs<Self::Message, Self::Write>);

    /// How a partition is doing.
    fn status(&self, partition: u16) -> Option<Status>;

    /// The members of a partition.
    fn members(&self, partition: u16) -> Option<&Members>;

    /// The last entry that a partition's log does not hold any more; 0 when it holds all.
    fn begins_behind(&self, partition: u16) -> u64;

    /// What an entry carries, and where it lies on the disk.
    fn stored(&self, partition: u16, index: u64) -> Option<(Kind, Stored)>;

    /// The data of an entry, when they are in memory.
    fn in_memory(&self, partition: u16, index: u64) -> Option<Bytes>;

    /// Begins to hand a partition over. Where primaries take turns it goes to the next one, and whoever
    /// wants another asks that one again; nothing happens when this node is whom it is for, or that
    /// has no vote.
    ///
    /// # Errors
    /// When this node does not lead it.
    fn transfer(&mut self, partition: u16, to: NodeId) -> Result<(), Refused>;

    /// Begins a change of a partition's membership.
    ///
    /// # Errors
    /// When it is not allowed now, and why.
    fn change(&mut self, partition: u16, change: &Change) -> Result<(), ChangeRefused>;

    /// Whether this node, which leads a partition, knows its members.
    fn is_membership_known(&self, partition: u16) -> bool;

    /// Gives up all that it leads: this node stops, and nobody confirms what it has proposed.
    fn resign(&mut self);

    /// Asks for a block of records to be appended, whoever leads, where a leader may lie;
    /// [`Engine::take_answers`] tells when that is so. Its tasks are named as those of the next request
    /// ([`Engine::naming`]): other nodes drop it otherwise.
    ///
    /// # Errors
    /// When too much is under way, or this engine has none that may lie.
    fn request(&mut self, partition: u16, data: Bytes, ticket: u64) -> Result<(), Refused>;

    /// What this node's requests in a partition are named by; `None` where nobody lies.
    fn naming(&self, partition: u16) -> Option<Naming>;

    /// Takes the requests of this node that are finished.
    fn take_answers(&mut self) -> Vec<Requested>;

    /// A leader's answer to a question of this replica: it is no member of the partition's group, whose
    /// log is applied up to an index there.
    fn disown(&mut self, partition: u16, question: u64, applied: u64);
}

/// Blocks of records that say what lives, and the entry behind which they do.
pub type Claims = Option<(u64, Vec<Bytes>)>;

/// A request of this node is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requested {
    /// The number that it was asked for with.
    pub ticket: u64,
    /// The entry that its records are in for ever.
    pub index: u64,
    /// Tentative answers finished it.
    pub is_fast: bool,
}

/// A message between replicas.
pub trait Envelope: Sized {
    /// Whom it is for.
    fn to(&self) -> &[NodeId];

    /// Appends its bytes but for those that are worth sharing with other messages, which are appended
    /// to `parts` without a copy.
    fn encode_apart(&self, partition: u16, head: &mut Vec<u8>, parts: &mut Vec<Bytes>);

    /// Reads what a node sent about a partition; `None` when it is no message, or not that node's.
    fn decode_apart(
        partition: u16,
        from: NodeId,
        head: &Bytes,
        parts: impl Iterator<Item = Bytes>,
    ) -> Option<Self>;
}

/// What is written as a block of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// What it holds.
    pub kind: BlockKind,
    /// The term of an entry.
    pub term: u64,
    /// The index of an entry.
    pub index: u64,
    /// What it says.
    pub body: Cow<'a, [u8]>,
}

/// Something to write.
pub trait ToBlock {
    /// The block that is written for it in a partition's log.
    fn to_block(&self, partition: u16) -> Block<'_>;
}

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block of records; empty in the first entry of a term.
    Normal,
    /// A change of the membership, as raft encodes it.
    Change,
}

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads, and everything that was committed before was told.
    Leader {
        /// In this term.
        term: u64,
    },
    /// It does not lead.
    Follower {
        /// Who does, as far as is known.
        leader: Option<u64>,
    },
}

/// Something that happened in a group, told in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An entry will never be lost and is next to be applied.
    Committed {
        /// Its index: one more than that of the last one, after a start or [`Event::Installed`]
        /// one more than that of the point.
        index: u64,
        /// Its term.
        term: u64,
        /// What it carries.
        kind: Kind,
        /// The number that it was proposed with, when this replica proposed it in this term and
        /// did not tell that it was lost.
        ticket: Option<u64>,
        /// The block of records, when it is still in memory.
        data: Option<Bytes>,
        /// Where it lies on the disk.
        place: Place,
    },
    /// What becomes of this proposal is not known: leadership ended before it was committed. If it
    /// is after all, that is told without a ticket.
    Lost {
        /// The number that it was proposed with.
        ticket: u64,
    },
    /// The role changed.
    Role(Role),
    /// The membership changed.
    Membership(Members),
    /// The log was replaced by a point: what was applied so far is to be forgotten, the entries
    /// after the point follow.
    Installed {
        /// The index of the point.
        index: u64,
    },
    /// Everything that was committed when this read was asked for has been told.
    Read {
        /// The number that it was asked for with.
        context: u64,
    },
    /// Leadership ended before a read could be confirmed.
    ReadLost {
        /// The number that it was asked for with.
        context: u64,
    },
}

/// Where an entry lies on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The place of its block.
    pub place: Place,
    /// Bytes of its data.
    pub bytes: u32,
}

/// Entries in a row that a follower needs and that are on the disk only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The partition.
    pub partition: u16,
    /// What the answer is given with.
    pub id: u64,
    /// The index of the first of them.
    pub first: u64,
    /// Where they lie.
    pub entries: Vec<Stored>,
}

/// All that comes out of a driver at once; each with its partition.
#[derive(Debug)]
pub struct Outputs<M, W> {
    /// To be sent at once; messages to one peer stay in their order.
    pub messages: Vec<(u16, M)>,
    /// To be written in this order; when it is on the disk, [`Engine::persisted`] is told
    /// the batch.
    pub writes: Vec<(u16, W)>,
    /// What the caller acts on, in this order.
    pub events: Vec<(u16, Event)>,
    /// Answered with [`Engine::fetched`].
    pub fetches: Vec<Fetch>,
    /// Asked of all nodes: whether this replica is a member still. Whoever leads and has it for none
    /// answers with the same number, and [`Engine::disown`] is told that.
    pub questions: Vec<(u16, u64)>,
    /// The number of the batch of writes; every batch is told once, in order.
    pub batch: u64,
}

impl<M, W> Default for Outputs<M, W> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            writes: Vec::new(),
            events: Vec::new(),
            fetches: Vec::new(),
            questions: Vec::new(),
            batch: 0,
        }
    }
}

impl<M, W> Outputs<M, W> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.writes.is_empty()
            && self.events.is_empty()
            && self.fetches.is_empty()
            && self.questions.is_empty()
    }

    /// Makes it empty, and keeps its buffers.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.writes.clear();
        self.events.clear();
        self.fetches.clear();
        self.questions.clear();
    }
}

/// Something that a leader has to do, and only a leader can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Another thing has another number.
    pub number: u64,
    /// How long each leader has for it, milliseconds; twice as long as the one before, which did not do it.
    pub patience_ms: u64,
}

/// What bounds a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of told entries that stay in memory for followers.
    pub cache_bytes: usize,
    /// Proposals of this replica whose fate was not told.
    pub proposals: usize,
    /// Their bytes; one is always taken.
    pub proposal_bytes: usize,
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This replica was not told that it leads.
    #[error("this replica does not lead")]
    NotLeader {
        /// Who does, as far as is known.
        leader: Option<u64>,
    },
    /// Too much is under way, or leadership is being handed over; try again.
    #[error("too much is under way")]
    Busy,
}

/// How a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it was told to be.
    pub role: Role,
    /// The latest term that it knows.
    pub term: u64,
    /// The index of its first entry.
    pub first: u64,
    /// The index of its last entry.
    pub last: u64,
    /// The index up to which entries are committed.
    pub commit: u64,
    /// Bytes of entries in memory.
    pub cached_bytes: usize,
    /// Proposals whose fate was not told.
    pub proposals: usize,
    /// What an engine with byzantine agreement counted; `None` of any other.
    pub agreement: Option<Agreement>,
}

/// What a replica that agrees with byzantine ones counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The view that it is in.
    pub view: u64,
    /// Whether it takes part in that, or waits for it to begin.
    pub is_active: bool,
    /// Requests of this node that were finished by tentative answers.
    pub fast: u64,
    /// Requests of this node that were finished by committed ones.
    pub slow: u64,
    /// Changes of the view.
    pub view_changes: u64,
    /// Whether it has heard of a quorum lately, itself among them. Without one nothing is agreed on.
    pub has_quorum: bool,
    /// Messages that were dropped, whatever the reason: most came twice, or too late to be needed.
    pub dropped: u64,
    /// Those of them, and orders of primaries, that no correct node sends: with signatures that are none,
    /// proofs that prove nothing, or contradictions.
    pub wrong: u64,
    /// Signatures that were verified.
    pub verified: u64,
    /// What identifies all that is committed: two replicas that have committed as much have the same.
    pub chain: [u8; 32],
    /// The entry at which what is committed contradicts itself: more nodes are faulty than the cluster
    /// can bear, and the replica takes part in nothing any more.
    pub diverged: Option<u64>,
}
