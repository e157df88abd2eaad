//! Proofs that a replica shows to others: a prepared certificate, and a stable checkpoint.
//!
//! Castro & Liskov, OSDI '99, §4.2 (prepared), §4.3 (stable checkpoints). What is signed here is
//! not the batch but the chain behind it, so a certificate is one of everything before as well.
//!
//! Invariants worth naming
//! - Each signer counts once, and only members do.

use super::{
    batch::link,
    keys::{Digest, Keys, Signature, Statement},
    members::Members,
};

/// Proof that a quorum has accepted an entry in a view: the primary's pre-prepare and 2f prepares. The
/// commits of a quorum prove that as well, and that the entry is committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// The view.
    pub view: u64,
    /// The entry.
    pub seq: u64,
    /// The chain before it.
    pub parent: Digest,
    /// The digest of its batch.
    pub digest: Digest,
    /// The primary's, of its pre-prepare.
    pub primary: Signature,
    /// Those of backups, of their prepares.
    pub prepares: Vec<(u64, Signature)>,
    /// Those of replicas, of their commits; then there are no others.
    pub commits: Vec<(u64, Signature)>,
}

impl Certificate {
    /// The chain behind the entry.
    pub fn chain(&self) -> Digest {
        link(&self.parent, self.seq, &self.digest)
    }

    /// Whether it is one of commits.
    pub fn proves_commit(&self) -> bool {
        !self.commits.is_empty()
    }

    /// Whether it proves what it says.
    pub fn is_valid(&self, members: &Members, keys: &mut Keys) -> bool {
        let chain = self.chain();
        let Self { view, seq, .. } = *self;
        if self.proves_commit() {
            let commit = Statement::Commit { view, seq, chain: &chain };
            return self.prepares.is_empty()
                && self.commits.len() == members.quorum()
                && are_distinct(members, self.commits.iter().map(|(node, _)| *node))
                && self.commits.iter().all(|(node, sign)| keys.has_signed(*node, commit, sign));
        }
        let primary = members.primary(view);
        let signers = self.prepares.iter().map(|(node, _)| *node);
        let prepare = Statement::Prepare { view, seq, chain: &chain };
        let pre_prepare = Statement::PrePrepare { view, seq, chain: &chain };
        self.prepares.len() == members.prepares()
            && are_distinct(members, signers.clone())
            && signers.clone().all(|node| node != primary)
            && keys.has_signed(primary, pre_prepare, &self.primary)
            && self.prepares.iter().all(|(node, sign)| keys.has_signed(*node, prepare, sign))
    }
}

/// Proof that a quorum has committed everything up to an entry, so that nobody needs the messages
/// about it any more. Without votes it is the beginning of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stable {
    /// The entry.
    pub seq: u64,
    /// The chain behind it.
    pub chain: Digest,
    /// The digest of the clients' table.
    pub table: Digest,
    /// Of a quorum.
    pub votes: Vec<(u64, Signature)>,
}

impl Stable {
    /// Whether it proves what it says.
    pub fn is_valid(&self, members: &Members, keys: &mut Keys) -> bool {
        if self.seq == 0 {
            return self.votes.is_empty() && self.chain == [0; 32] && self.table == [0; 32];
        }
        let Self { seq, chain, table, .. } = self;
        let statement = Statement::Checkpoint { seq: *seq, chain, table };
        self.votes.len() == members.quorum()
            && are_distinct(members, self.votes.iter().map(|(node, _)| *node))
            && self.votes.iter().all(|(node, sign)| keys.has_signed(*node, statement, sign))
    }
}

/// Whether these are members, each once, in their order.
pub(super) fn are_distinct(members: &Members, nodes: impl Iterator<Item = u64>) -> bool {
    let mut last = None;
    for node in nodes {
        if !members.contains(node) || last.is_some_and(|last| last >= node) {
            return false;
        }
        last = Some(node);
    }
    true
}
