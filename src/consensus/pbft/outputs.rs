//! What a group asks its caller to do, beside what every engine asks.

use super::message::Message;
use bytes::Bytes;

/// A message and whom it is for: members, or clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Letter {
    /// Whom it is for; empty in one that arrived.
    pub to: Vec<u64>,
    /// What is said.
    pub message: Message,
}

/// Something to write, in the order in which it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// An entry; of those that are written at an index, the last one before it is committed is the
    /// one that is. It cuts nothing off.
    Entry {
        /// One more than the view in which it was proposed first.
        term: u64,
        /// Its index.
        index: u64,
        /// Who asked for it.
        heads: Bytes,
        /// The block of records.
        data: Bytes,
    },
    /// Something that is not to be forgotten beside entries; read back by
    /// [`super::Restore::note`].
    Note(Bytes),
}

/// A request of this node is finished: what it asked for is in the log for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The number that it was asked for with.
    pub ticket: u64,
    /// The entry that it is in.
    pub index: u64,
    /// It was finished by tentative answers of a quorum.
    pub is_fast: bool,
}

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Dropped {
    /// There is no such partition.
    #[error("there is no such partition")]
    Partition,
    /// Its sender has no part in that.
    #[error("the sender has no part in that")]
    Sender,
    /// It is of a view that is over, or not to be expected.
    #[error("it is of another view")]
    View,
    /// It is outside the water marks.
    #[error("it is outside the water marks")]
    Seq,
    /// A signature is not its signer's.
    #[error("a signature is not its signer's")]
    Signature,
    /// What it is to prove, it does not.
    #[error("it proves nothing")]
    Proof,
    /// It was there already, or is not needed any more.
    #[error("it was there already, or is not needed any more")]
    Duplicate,
    /// It contradicts what the same sender said before.
    #[error("it contradicts what the sender said before")]
    Contradiction,
    /// It is no answer to a question of this replica.
    #[error("nobody asked for it")]
    Unasked,
    /// It is more than is kept for this sender.
    #[error("it is more than is kept for the sender")]
    Full,
    /// Its sender has sent signatures that were none, and nothing signed of it is looked at for a while.
    #[error("nothing that the sender signs is looked at for a while")]
    Distrusted,
    /// This replica has found that what is committed contradicts itself, and takes no part any more.
    #[error("this replica has seen more faults than the group can bear")]
    Diverged,
}

impl Dropped {
    /// All reasons, in the order in which they are counted.
    pub const ALL: [Self; 12] = [
        Self::Partition,
        Self::Sender,
        Self::View,
        Self::Seq,
        Self::Signature,
        Self::Proof,
        Self::Duplicate,
        Self::Contradiction,
        Self::Unasked,
        Self::Full,
        Self::Distrusted,
        Self::Diverged,
    ];
}

/// What a group has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests of this node that tentative answers finished.
    pub fast: u64,
    /// Requests of this node that committed answers finished.
    pub slow: u64,
    /// Views that this replica has left.
    pub view_changes: u64,
    /// Those of them whose primary owed something.
    pub duties: u64,
    /// Dropped messages by reason, in the order of [`Dropped::ALL`].
    pub dropped: [u64; Dropped::ALL.len()],
    /// Entries that came by state transfer.
    pub transferred: u64,
    /// Signatures and proofs that were none, after each of which their sender is not listened to.
    pub distrusted: u64,
    /// Primaries that were caught in a contradiction.
    pub caught: u64,
}

impl Counters {
    /// What no correct node sends.
    pub fn wrong(&self) -> u64 {
        let reasons = [Dropped::Signature, Dropped::Proof, Dropped::Contradiction];
        reasons.into_iter().map(|why| self.dropped[why as usize]).sum()
    }
}
