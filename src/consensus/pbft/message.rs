//! What replicas and clients say to each other.
//!
//! Who sent a message is told beside it, by a link that knows. What may be shown to a third is
//! signed as well.

use super::{
    batch::{Batch, Request},
    certificate::{Certificate, Stable},
    codec::{new_view_digest, view_change_digest},
    keys::{Digest, Keys, Signature, Statement, hash},
    table::Table,
    wire::Put,
};
use std::sync::Arc;

/// The primary orders an entry (OSDI '99, §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrePrepare {
    /// The view.
    pub view: u64,
    /// The entry.
    pub seq: u64,
    /// The chain before it.
    pub parent: Digest,
    /// The primary's, of the chain behind it.
    pub signature: Signature,
    /// What it carries.
    pub batch: Batch,
}

/// A prepare or a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The view.
    pub view: u64,
    /// The entry.
    pub seq: u64,
    /// The chain behind it.
    pub chain: Digest,
    /// The sender's.
    pub signature: Signature,
}

/// A checkpoint of the sender (OSDI '99, §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// Everything up to this entry is committed.
    pub seq: u64,
    /// The chain behind it.
    pub chain: Digest,
    /// The digest of the clients' table.
    pub table: Digest,
    /// The sender's.
    pub signature: Signature,
}

/// An answer to a client about requests that are in one entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    /// The view that the replica is in.
    pub view: u64,
    /// The client.
    pub client: u64,
    /// Which of its requests.
    pub timestamps: Vec<u64>,
    /// The entry that they are in.
    pub seq: u64,
    /// The chain behind it.
    pub chain: Digest,
    /// The entry is prepared and all before it are committed; else it is committed itself.
    pub is_tentative: bool,
    /// The replica's.
    pub signature: Signature,
}

impl Reply {
    fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        self.timestamps.iter().for_each(|timestamp| bytes.put_u64(*timestamp));
        bytes.put_u64(self.seq);
        bytes.put_digest(&self.chain);
        bytes.put_flag(self.is_tentative);
        hash(&[b"reply", &bytes])
    }

    /// Signs it.
    pub fn sign(&mut self, keys: &Keys) {
        let digest = self.digest();
        let (client, view) = (self.client, self.view);
        self.signature = keys.sign(Statement::Reply { client, view, digest: &digest });
    }

    /// Whether a replica signed it.
    pub fn is_signed(&self, replica: u64, keys: &mut Keys) -> bool {
        let digest = self.digest();
        let (client, view) = (self.client, self.view);
        keys.has_signed(
            replica,
            Statement::Reply { client, view, digest: &digest },
            &self.signature,
        )
    }
}

/// A replica leaves all views below one, and says what it has prepared (OSDI '99, §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewChange {
    /// The view that it wants.
    pub view: u64,
    /// Its stable checkpoint.
    pub stable: Stable,
    /// For each entry after that, in a row, its certificate of the highest view.
    pub prepared: Vec<Certificate>,
    /// Who says so.
    pub replica: u64,
    /// Its signature.
    pub signature: Signature,
}

impl ViewChange {
    /// Signs it.
    pub fn sign(&mut self, keys: &Keys) {
        let (view, digest) = (self.view, view_change_digest(self));
        self.signature = keys.sign(Statement::ViewChange { view, digest: &digest });
    }
}

impl NewView {
    /// Signs it.
    pub fn sign(&mut self, keys: &Keys) {
        let (view, digest) = (self.view, new_view_digest(self));
        self.signature = keys.sign(Statement::NewView { view, digest: &digest });
    }
}

/// The primary of a view begins it (OSDI '99, §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewView {
    /// The view.
    pub view: u64,
    /// What a quorum says it has prepared, in the order of their numbers.
    pub changes: Vec<Arc<ViewChange>>,
    /// The primary's pre-prepares of what follows from that.
    pub proposals: Vec<Signature>,
    /// The primary's.
    pub signature: Signature,
}

/// How far a replica is; whoever is ahead sends again what it misses (TOCS 2002).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StatusReport {
    /// Its view.
    pub view: u64,
    /// Whether that has begun for it.
    pub is_active: bool,
    /// Its log begins behind this entry.
    pub point: u64,
    /// Its stable checkpoint.
    pub stable: u64,
    /// Everything up to this entry is committed.
    pub committed: u64,
    /// It has accepted everything up to this entry in this view.
    pub accepted: u64,
    /// It has certificates of everything up to this entry.
    pub prepared: u64,
}

/// The digests of entries, for a replica that is behind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digests {
    /// The request's number.
    pub id: u64,
    /// Where the sender's log begins, and the chain there, when that is behind what was asked for.
    pub point: Option<(u64, Digest)>,
    /// The first of them.
    pub first: u64,
    /// The digests of the batches.
    pub digests: Vec<Digest>,
}

/// Entries for a replica that is behind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entries {
    /// The request's number.
    pub id: u64,
    /// Where the sender's log begins, when that is behind what was asked for.
    pub point: Option<(u64, Digest, Arc<Table>)>,
    /// The first of them.
    pub first: u64,
    /// The entries.
    pub batches: Vec<Batch>,
}

impl Message {
    /// Whether it holds many signatures, or is one of which any number can be made.
    pub fn is_proof(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint(_)
                | Self::Stable(_)
                | Self::ViewChange(_)
                | Self::NewView(_)
                | Self::Proven(_)
        )
    }

    /// The batches that it carries.
    pub fn batches(&self) -> Vec<&Batch> {
        match self {
            Self::PrePrepare(order) => vec![&order.batch],
            Self::BatchTell(_, batch) => vec![batch],
            Self::Entries(entries) => entries.batches.iter().collect(),
            Self::Proven(entries) => entries.iter().map(|(_, batch)| batch).collect(),
            _ => Vec::new(),
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A client's request, from it or a replica that hands it on.
    Request(Request),
    /// An entry is ordered.
    PrePrepare(PrePrepare),
    /// It is accepted.
    Prepare(Vote),
    /// It is prepared. The number is up to where the sender has committed.
    Commit(Vote, u64),
    /// An answer to a client.
    Reply(Reply),
    /// A checkpoint of the sender.
    Checkpoint(Checkpoint),
    /// A checkpoint of a quorum.
    Stable(Arc<Stable>),
    /// A view is left.
    ViewChange(Arc<ViewChange>),
    /// A view begins.
    NewView(Arc<NewView>),
    /// How far the sender is.
    Status(StatusReport),
    /// The sender misses the batch of an entry, with this digest.
    BatchAsk(u64, Digest),
    /// The batch of an entry.
    BatchTell(u64, Batch),
    /// Committed entries in a row, with the commits of a quorum for each.
    Proven(Vec<(Arc<Certificate>, Batch)>),
    /// The sender wants to know which committed entries it misses: a number for the question, the first,
    /// and the last.
    DigestsAsk(u64, u64, u64),
    /// Digests of committed entries.
    Digests(Digests),
    /// The sender misses committed entries: a number for the question, the first, and the last.
    EntriesAsk(u64, u64, u64),
    /// Committed entries.
    Entries(Entries),
    /// Is this view still yours? With a number for the question.
    ReadAsk(u64, u64),
    /// It is, with the number and the view.
    ReadTell(u64, u64),
    /// A client asks how far the log is, with a number for the question (the read-only
    /// optimisation, OSDI '99, §5.1).
    HeadAsk(u64),
    /// With the number, the last committed entry, and the chain behind it.
    HeadTell(u64, u64, Digest),
    /// The primary of this view owes the sender's service something for too long.
    Owed(u64),
}
