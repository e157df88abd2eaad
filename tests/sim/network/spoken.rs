//! What the network knows of the messages of replicas: how the trace names them, and what they promise.

use ::raft::eraftpb::MessageType;
use coreflow::{
    consensus::{
        engine::Envelope,
        pbft::{self, Letter, batch},
        raft,
    },
    wire::id::PartitionIndex,
};

/// Characters of a letter in the trace.
const DESCRIBED_CHARS: usize = 160;

/// What a replica must not say twice in different words: what it is about, as a key, and what it says.
pub type Vow = (PartitionIndex, &'static str, u64, u64);

/// A message between replicas that travels here.
pub trait Spoken: Envelope {
    /// For the trace.
    fn describe(&self) -> String;

    /// What it promises, if it promises anything.
    fn vow(&self, partition: PartitionIndex) -> Option<(Vow, Vec<u8>)>;
}

impl Spoken for raft::Message {
    fn describe(&self) -> String {
        let (kind, entries) = (self.get_msg_type(), self.entries.len());
        let Self { term, index, commit, .. } = self;
        format!("{kind:?} term {term} index {index} entries {entries} commit {commit}")
    }

    /// A vote, in a term.
    fn vow(&self, partition: PartitionIndex) -> Option<(Vow, Vec<u8>)> {
        let is_vote = self.get_msg_type() == MessageType::MsgRequestVoteResponse && !self.reject;
        is_vote.then(|| ((partition, "vote", self.term, 0), self.to.to_le_bytes().to_vec()))
    }
}

impl Spoken for Letter {
    fn describe(&self) -> String {
        let text = format!("{:?}", self.message);
        let end = text.char_indices().nth(DESCRIBED_CHARS).map_or(text.len(), |(at, _)| at);
        text[..end].to_owned()
    }

    /// What it orders, accepts or has a certificate of, in a view.
    fn vow(&self, partition: PartitionIndex) -> Option<(Vow, Vec<u8>)> {
        let (what, view, seq, chain) = match &self.message {
            pbft::Message::PrePrepare(it) => {
                ("order", it.view, it.seq, batch::link(&it.parent, it.seq, it.batch.digest()))
            }
            pbft::Message::Prepare(vote) => ("prepare", vote.view, vote.seq, vote.chain),
            pbft::Message::Commit(vote, _) => ("commit", vote.view, vote.seq, vote.chain),
            _ => return None,
        };
        Some(((partition, what, view, seq), chain.to_vec()))
    }
}
