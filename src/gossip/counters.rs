//! What a node's gossip counts.

/// Why a datagram, or a part of one, was refused. Nothing of a refused part has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// More bytes than any datagram has.
    Oversized,
    /// Its seal is not that of the cluster's secret.
    Unsealed,
    /// Bytes that no node sends.
    Malformed,
    /// It comes from a node of another cluster.
    Cluster,
    /// It comes from, or tells of, a node that is no member.
    Stranger,
    /// It says that this node sent it.
    Mirrored,
    /// An incarnation that no node reaches.
    Incarnation,
    /// A change whose predecessors are missing; they are asked for.
    Gap,
    /// Entries of a life that is over.
    Stale,
    /// More entries than a node may have.
    Full,
    /// An answer to a question that was not asked, or was answered already.
    Unasked,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Oversized,
        Self::Unsealed,
        Self::Malformed,
        Self::Cluster,
        Self::Stranger,
        Self::Mirrored,
        Self::Incarnation,
        Self::Gap,
        Self::Stale,
        Self::Full,
        Self::Unasked,
    ];

    /// Its name among figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Unsealed => "unsealed",
            Self::Malformed => "malformed",
            Self::Cluster => "cluster",
            Self::Stranger => "stranger",
            Self::Mirrored => "mirrored",
            Self::Incarnation => "incarnation",
            Self::Gap => "gap",
            Self::Stale => "stale",
            Self::Full => "full",
            Self::Unasked => "unasked",
        }
    }
}

/// What bytes of datagrams are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Who sends a datagram, and its seal.
    Envelope,
    /// Whether a node lives and knows something new.
    Ask,
    /// That it lives.
    Answer,
    /// News, and what was asked for.
    Delta,
    /// Sums of the parts of the ring, to compare.
    Buckets,
    /// What is known of the nodes of a part, to compare.
    Digest,
    /// What is asked for.
    Want,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Envelope,
        Self::Ask,
        Self::Answer,
        Self::Delta,
        Self::Buckets,
        Self::Digest,
        Self::Want,
    ];

    /// Its name among figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Ask => "ask",
            Self::Answer => "answer",
            Self::Delta => "delta",
            Self::Buckets => "buckets",
            Self::Digest => "digest",
            Self::Want => "want",
        }
    }
}

/// What happened since the node was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rounds.
    pub rounds: u64,
    /// Those of them in which nothing was news, asked for or suspect.
    pub quiet_rounds: u64,
    /// Datagrams that were sent.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// These bytes by what they are for, by the place in [`Kind::ALL`].
    pub bytes_out_of: [u64; Kind::ALL.len()],
    /// Datagrams that came.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// What was refused, by the place in [`Refused::ALL`].
    pub refused: [u64; Refused::ALL.len()],
    /// Claims of other nodes that took the place of what was known.
    pub claims: u64,
    /// Deltas that told new entries.
    pub deltas: u64,
    /// Deltas that were known already.
    pub repeats: u64,
    /// Answers that were cut because the round's bytes were spent.
    pub deferred: u64,
    /// Comparisons with a peer, bucket by bucket.
    pub comparisons: u64,
    /// Silent nodes that this node accused.
    pub suspicions: u64,
    /// Nodes that became dead here.
    pub deaths: u64,
    /// Suspects and dead that turned out to live.
    pub returns: u64,
    /// Accusations of this node that it refuted.
    pub refutations: u64,
    /// Times that this node had to begin its map again, because others knew more of it than it does.
    pub rebirths: u64,
    /// Maps of others that were begun again because too much was missed.
    pub resets: u64,
    /// Rounds that began late.
    pub late_rounds: u64,
    /// Times that the clock went back.
    pub clock_jumps: u64,
    /// Events that nobody fetched in time.
    pub missed_events: u64,
}

impl Counters {
    /// How often something was refused for a reason.
    pub fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize]
    }

    pub(super) fn refuse(&mut self, why: Refused) {
        self.refused[why as usize] += 1;
    }
}
