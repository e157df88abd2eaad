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
use std::fmt::{self, Write};

/// Characters of a letter in the trace.
const DESCRIBED_CHARS: usize = 160;

/// What a replica must not say twice in different words: what it is about, as a key, and what it says.
pub type Vow = (PartitionIndex, &'static str, u64, u64);

/// Takes so many characters of a text: a letter may be thousands of times as long, and most of a run would be
/// spent on writing it.
struct Beginning {
    text: String,
    left: usize,
}

impl Write for Beginning {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let end = piece.char_indices().nth(self.left).map_or(piece.len(), |(at, _)| at);
        self.text.push_str(&piece[..end]);
        self.left -= piece[..end].chars().count();
        if end == piece.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

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
        let mut beginning = Beginning { text: String::new(), left: DESCRIBED_CHARS };
        // What does not fit is an error that ends the writing.
        let _ = write!(beginning, "{:?}", self.message);
        beginning.text
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
