//! The handshake: what two nodes say before anything else, and why one refuses the other.

use super::{
    NodeId,
    frame::FrameError,
    proof::{self, Challenge, PROOF_BYTES, Proof, Side, Signing},
};
use crate::{consensus::pbft::keys::Signature, wire::secret::Secret};

const MAGIC: [u8; 8] = *b"coreflow";
/// Bytes of what a hello says.
const SAID_BYTES: usize = 72;
/// Bytes of the body of a hello that is not signed.
pub const HELLO_BYTES: usize = SAID_BYTES + PROOF_BYTES;
const SIGNATURE_BYTES: usize = 64;
/// Bytes of a hello's body at most.
pub const HELLO_BYTES_MAX: usize = HELLO_BYTES + SIGNATURE_BYTES;

/// A name for one connection, never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nonce {
    /// Random, chosen when the process started.
    pub instance: u64,
    /// Grows with each connection of a link in the life of the process.
    pub attempt: u64,
}

/// Who a node is, as it says itself, and what it knows.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The number of the cluster; where nodes may lie, that of its genesis.
    pub cluster: u128,
    /// This node.
    pub node: NodeId,
    /// Random, chosen when the process started.
    pub instance: u64,
    /// The secret of the cluster, if it has one.
    pub secret: Option<Secret>,
    /// What hellos are signed with, where nodes may lie.
    pub signing: Option<Signing>,
}

/// What each side says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster of the one who says it.
    pub cluster: u128,
    /// Who says it.
    pub from: NodeId,
    /// To whom it believes to talk.
    pub to: NodeId,
    /// Its name for the connection.
    pub nonce: Nonce,
    /// The other side's name for it; zeros in the hello of the one who dialled.
    pub answers: Nonce,
    /// That it knows the secret of the cluster.
    pub proof: Proof,
    /// That it is who it says, where nodes may lie.
    pub signature: Option<Signature>,
}

impl Hello {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let signature = self.signature.as_ref().map_or(&[][..], |signature| &signature.0);
        [&self.said()[..], &self.proof, signature].concat()
    }

    /// The bytes that its proof is over.
    fn said(&self) -> [u8; SAID_BYTES] {
        let mut body = [0; SAID_BYTES];
        body[..8].copy_from_slice(&MAGIC);
        body[8..24].copy_from_slice(&self.cluster.to_le_bytes());
        let Self { from, to, nonce, answers, .. } = self;
        let numbers =
            [*from, *to, nonce.instance, nonce.attempt, answers.instance, answers.attempt];
        for (place, number) in body[24..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        body
    }

    /// Reads a body.
    ///
    /// # Errors
    /// It is no hello.
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let (body, signature) = body.split_at_checked(HELLO_BYTES).ok_or(FrameError::Hello)?;
        let signature = match signature.len() {
            0 => None,
            _ => Some(Signature(signature.try_into().map_err(|_| FrameError::Hello)?)),
        };
        if body[..8] != MAGIC {
            return Err(FrameError::Hello);
        }
        let number = |index: usize| {
            let start = 24 + 8 * index;
            u64::from_le_bytes(body[start..start + 8].try_into().expect("eight bytes"))
        };
        Ok(Self {
            cluster: u128::from_le_bytes(body[8..24].try_into().expect("sixteen bytes")),
            from: number(0),
            to: number(1),
            nonce: Nonce { instance: number(2), attempt: number(3) },
            answers: Nonce { instance: number(4), attempt: number(5) },
            proof: *body.last_chunk().expect("a proof is behind what is said"),
            signature,
        })
    }

    /// The hello with the proof that a node gives for it.
    #[must_use]
    pub fn proven(self, me: &Identity, side: Side, challenge: &Challenge) -> Self {
        let said = self.said();
        let proof = proof::prove(me.secret.as_ref(), side, challenge, &said);
        let signature = me.signing.as_ref().map(|signing| signing.sign(side, challenge, &said));
        Self { proof, signature, ..self }
    }

    fn is_proven(&self, me: &Identity, side: Side, challenge: &Challenge) -> bool {
        proof::is_right(me.secret.as_ref(), side, challenge, &self.said(), &self.proof)
    }

    /// Whether the node that it names has signed it, where that is asked for.
    fn is_signed(&self, me: &Identity, side: Side, challenge: &Challenge) -> bool {
        me.signing.as_ref().is_none_or(|signing| {
            self.signature.is_some_and(|signature| {
                signing.is_right(self.from, side, challenge, &self.said(), &signature)
            })
        })
    }

    /// Whether the one who dialled with this hello, and was told that challenge, is let in.
    ///
    /// # Errors
    /// Why it is not.
    pub fn judge(
        &self,
        me: &Identity,
        challenge: &Challenge,
        is_peer: bool,
    ) -> Result<(), Refusal> {
        if self.cluster != me.cluster {
            Err(Refusal::Cluster)
        } else if !self.is_proven(me, Side::Dials, challenge) {
            Err(Refusal::Proof)
        } else if self.from == me.node {
            Err(Refusal::Itself)
        } else if self.to != me.node {
            Err(Refusal::Node)
        } else if !is_peer {
            Err(Refusal::Unknown)
        } else if self.from > me.node {
            Err(Refusal::Direction)
        } else if !self.is_signed(me, Side::Dials, challenge) {
            Err(Refusal::Signature)
        } else {
            Ok(())
        }
    }

    /// Whether this is the answer of `peer`, which gave that challenge, to the hello with that nonce.
    ///
    /// # Errors
    /// What is wrong.
    pub fn judge_answer(
        &self,
        me: &Identity,
        challenge: &Challenge,
        peer: NodeId,
        nonce: Nonce,
    ) -> Result<(), Refusal> {
        if self.cluster != me.cluster {
            Err(Refusal::Cluster)
        } else if !self.is_proven(me, Side::Listens, challenge) {
            Err(Refusal::Proof)
        } else if self.from == me.node {
            Err(Refusal::Itself)
        } else if self.from != peer || self.to != me.node {
            Err(Refusal::Node)
        } else if self.answers != nonce {
            Err(Refusal::Stale)
        } else if !self.is_signed(me, Side::Listens, challenge) {
            Err(Refusal::Signature)
        } else {
            Ok(())
        }
    }
}

/// Why a connection is not used. Each is said to the other side, which sees the reason from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// The first bytes are no hello.
    #[error("what connected is no node of coreflow")]
    NoHello = 1,
    /// The frames are of another version.
    #[error("the two nodes speak different versions of the protocol")]
    Version,
    /// The numbers of the clusters differ.
    #[error(
        "the two nodes belong to different clusters: cluster.name or cluster.partitions differ; or, \
         where nodes agree by PBFT, consensus.protocol, consensus.generation, or the ids and \
         public_keys in the list of nodes"
    )]
    Cluster,
    /// An address leads to another node than it should.
    #[error("another node than expected is behind the address")]
    Node,
    /// Both sides have the same id.
    #[error("a node reached itself, or two nodes have the same id")]
    Itself,
    /// The dialling node is not among the peers.
    #[error("the node is not among the peers of the one that it dialled")]
    Unknown,
    /// The dialling node has the higher id.
    #[error("the node with the higher id dialled, which only the lower one does")]
    Direction,
    /// A connection that was given up before, or an answer to another one.
    #[error("the connection is older than the one in use")]
    Stale,
    /// No hello within the time for it.
    #[error("no handshake came in time")]
    Late,
    /// Others connected, and there was no room for more that had said nothing yet.
    #[error("too many connections without a handshake")]
    Crowded,
    /// Its proof is not over the secret of this node.
    #[error("the two nodes do not have the same cluster.secret_file")]
    Proof,
    /// It is not signed by the node that it says it is.
    #[error(
        "the signature is not that of the node's public_key: consensus.protocol, \
         consensus.identity_file and the public_key of its [[node]] must fit together"
    )]
    Signature,
}

impl Refusal {
    /// Every reason, in the order of their codes.
    pub const ALL: [Self; 12] = [
        Self::NoHello,
        Self::Version,
        Self::Cluster,
        Self::Node,
        Self::Itself,
        Self::Unknown,
        Self::Direction,
        Self::Stale,
        Self::Late,
        Self::Crowded,
        Self::Proof,
        Self::Signature,
    ];

    /// Its place in [`Refusal::ALL`].
    pub const fn index(self) -> usize {
        self as usize - 1
    }

    /// What it is called in a label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoHello => "no_hello",
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Itself => "itself",
            Self::Unknown => "unknown",
            Self::Direction => "direction",
            Self::Stale => "stale",
            Self::Late => "late",
            Self::Crowded => "crowded",
            Self::Proof => "proof",
            Self::Signature => "signature",
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// It is no refusal.
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        match body {
            &[code @ 1..=12] => Ok(Self::ALL[usize::from(code) - 1]),
            _ => Err(FrameError::Refusal),
        }
    }
}

impl From<FrameError> for Refusal {
    /// Why a connection whose first bytes were not understood is refused.
    fn from(error: FrameError) -> Self {
        if matches!(error, FrameError::Version(_)) { Self::Version } else { Self::NoHello }
    }
}
