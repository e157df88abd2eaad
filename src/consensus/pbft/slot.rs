//! What a replica knows of one entry that is above its stable checkpoint.
//!
//! Invariants worth naming
//! - Of each sender there is one prepare and one commit, its last; every signature was verified.
//! - The batches that are kept are those that the accepted proposal, the certificate, the proof and the
//!   choice of the new view name; beside them one that waits to be accepted.

use super::{
    batch::{Batch, link},
    certificate::Certificate,
    keys::{Digest, Signature},
    message::{PrePrepare, Vote},
};
use crate::consensus::place::Place;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A proposal that is accepted in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The view.
    pub view: u64,
    /// The chain before the entry.
    pub parent: Digest,
    /// The digest of its batch.
    pub digest: Digest,
    /// The chain behind the entry.
    pub chain: Digest,
    /// The primary's.
    pub signature: Signature,
}

/// What lies on the disk at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Written {
    /// The digest of the batch.
    pub digest: Digest,
    /// Where, when that was told.
    pub place: Place,
    /// Whether it is surely there.
    pub is_durable: bool,
}

/// What is known of an entry.
#[derive(Clone, Debug, Default, Hash)]
pub struct Slot {
    /// What the new view of a view has chosen for it.
    pub choice: Option<Proposal>,
    /// The primary's pre-prepare, verified, until those before it are accepted.
    pub waiting: Option<PrePrepare>,
    /// One of a view that has not begun.
    pub ahead: Option<PrePrepare>,
    /// What is accepted in the current view.
    pub accepted: Option<Proposal>,
    /// What was accepted in a view that did not begin with it, as the disk says: nothing else is in that
    /// view, in no life of this replica.
    pub bound: Option<Proposal>,
    /// The certificate of the highest view.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether it is on the disk.
    pub is_certified: bool,
    /// Proof that the entry is committed, when it came as such.
    pub proof: Option<Arc<Certificate>>,
    /// The prepare of each backup.
    pub prepares: BTreeMap<u64, Vote>,
    /// The commit of each replica.
    pub commits: BTreeMap<u64, Vote>,
    /// Who had committed everything before when it sent its commit: that is a tentative answer.
    pub eager: BTreeSet<u64>,
    /// The entry that was written last.
    pub written: Option<Written>,
    /// Batches that may be needed.
    pub batches: Vec<Batch>,
    /// The view in which its tentative answers were sent.
    pub answered: Option<u64>,
    /// When its batch may be asked for again, milliseconds.
    pub ask_at: u64,
}

impl Slot {
    /// A batch by its digest.
    pub fn batch(&self, digest: &Digest) -> Option<&Batch> {
        self.batches.iter().find(|batch| batch.digest() == digest)
    }

    /// Whether somebody may need the batch with a digest.
    pub fn names(&self, digest: &Digest) -> bool {
        self.accepted.as_ref().is_some_and(|proposal| proposal.digest == *digest)
            || self.bound.as_ref().is_some_and(|proposal| proposal.digest == *digest)
            || self.choice.as_ref().is_some_and(|proposal| proposal.digest == *digest)
            || self.certificate.as_ref().is_some_and(|known| known.digest == *digest)
            || self.proof.as_ref().is_some_and(|known| known.digest == *digest)
    }

    /// Keeps a batch.
    pub fn keep(&mut self, batch: Batch) {
        if self.batch(batch.digest()).is_none() {
            self.batches.push(batch);
        }
    }

    /// Forgets the batches that nobody names.
    pub fn prune(&mut self) {
        let mut batches = std::mem::take(&mut self.batches);
        batches.retain(|batch| self.names(batch.digest()));
        self.batches = batches;
    }

    /// The signatures of prepares of a proposal.
    pub fn prepares_of<'a>(
        &'a self,
        proposal: &'a Proposal,
    ) -> impl Iterator<Item = (u64, Signature)> + 'a {
        let fits = |vote: &Vote| (vote.view, vote.chain) == (proposal.view, proposal.chain);
        self.prepares
            .iter()
            .filter(move |(_, vote)| fits(vote))
            .map(|(node, vote)| (*node, vote.signature))
    }

    /// Proof that the entry is committed.
    pub fn proof(&self, seq: u64, quorum: usize) -> Option<Arc<Certificate>> {
        if let Some(proof) = &self.proof {
            return Some(proof.clone());
        }
        let Certificate { parent, digest, .. } = **self.certificate.as_ref()?;
        let chain = link(&parent, seq, &digest);
        let alike = |view| {
            let votes = self.commits.iter().filter(move |(_, vote)| vote.view == view);
            votes.filter(|(_, vote)| vote.chain == chain)
        };
        let view = self.commits.values().map(|vote| vote.view);
        let view = view.max_by_key(|view| alike(*view).count())?;
        let commits = alike(view).map(|(node, vote)| (*node, vote.signature)).take(quorum);
        let commits: Vec<_> = commits.collect();
        let (primary, prepares) = (Signature::NONE, Vec::new());
        let is_whole = commits.len() == quorum;
        let proof = Certificate { view, seq, parent, digest, primary, prepares, commits };
        is_whole.then(|| Arc::new(proof))
    }

    /// How many replicas of one view have said that they have a certificate of this chain, of the
    /// view of which most have.
    pub fn commits_of(&self, chain: &Digest) -> usize {
        let mut views: BTreeMap<u64, usize> = BTreeMap::new();
        for vote in self.commits.values().filter(|vote| vote.chain == *chain) {
            *views.entry(vote.view).or_default() += 1;
        }
        views.into_values().max().unwrap_or(0)
    }
}

impl Proposal {
    /// A proposal.
    pub fn new(view: u64, seq: u64, parent: Digest, digest: Digest, signature: Signature) -> Self {
        Self { view, parent, digest, chain: link(&parent, seq, &digest), signature }
    }
}
