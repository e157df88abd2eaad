//! How nodes prove to each other that they know the cluster's secret, without saying it.
//!
//! ```text
//! who listens ──challenge──► who dials ──hello and proof──► who listens ──hello and proof──► who dials
//! ```
//!
//! A proof is an HMAC with the secret over which side gives it, the challenge, and all that its hello
//! says; the answer's hello names the one that it answers. A challenge is random and a name of a
//! connection is never given twice, so that a proof that somebody saw is of no use on another
//! connection, nor on the other side of the same one. Where nodes may lie, the secret that all of them
//! know says too little: there a hello is signed as well, by the key of the node that it names, over
//! the same bytes. What travels behind the handshake is neither
//! encrypted nor proven: whoever can change packets on the way can change it.

use crate::{
    consensus::pbft::keys::{Identity, Ring, Signature},
    wire::secret::Secret,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a challenge and of a proof.
pub const PROOF_BYTES: usize = 32;

/// A proof; zeros when the node that gives it has no secret.
pub type Proof = [u8; PROOF_BYTES];

/// Random bytes that one side says to the other over each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Challenge(pub [u8; PROOF_BYTES]);

/// Who gives a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The node that made the connection.
    Dials,
    /// The node that it was made to.
    Listens,
    /// The node that offers a connection for messages between agents (`node/trunk/offer.rs`).
    Offers,
    /// The node that such an offer was made to.
    Answers,
    /// The node that comes to another one's port for requests (`node/greeting.rs`).
    Knocks,
    /// The node that it comes to.
    Opens,
}

impl Challenge {
    /// Another one, which nobody can guess.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; PROOF_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// The proof for what a hello says.
pub fn prove(secret: Option<&Secret>, side: Side, challenge: &Challenge, said: &[u8]) -> Proof {
    match secret {
        Some(secret) => mac(secret, side, challenge, said).finalize().into_bytes().into(),
        None => [0; PROOF_BYTES],
    }
}

/// Whether a proof is right; how long the answer takes does not depend on the proof. Without a
/// secret any is.
pub fn is_right(
    secret: Option<&Secret>,
    side: Side,
    challenge: &Challenge,
    said: &[u8],
    proof: &Proof,
) -> bool {
    secret.is_none_or(|secret| mac(secret, side, challenge, said).verify_slice(proof).is_ok())
}

/// What a node signs hellos with, and whose signatures it knows.
#[derive(Clone, Debug)]
pub struct Signing {
    /// Its own key.
    pub identity: Identity,
    /// The public keys of all nodes.
    pub ring: Ring,
}

impl Signing {
    /// The signature of what a hello says.
    pub fn sign(&self, side: Side, challenge: &Challenge, said: &[u8]) -> Signature {
        self.identity.sign_bytes(&signed(side, challenge, said))
    }

    /// Whether a node has signed what its hello says.
    pub fn is_right(
        &self,
        node: u64,
        side: Side,
        challenge: &Challenge,
        said: &[u8],
        signature: &Signature,
    ) -> bool {
        self.ring.has_signed_bytes(node, &signed(side, challenge, said), signature)
    }
}

fn signed(side: Side, challenge: &Challenge, said: &[u8]) -> Vec<u8> {
    [domain(side), &challenge.0, said].concat()
}

fn domain(side: Side) -> &'static [u8] {
    match side {
        Side::Dials => b"coreflow peer dials  ",
        Side::Listens => b"coreflow peer listens",
        Side::Offers => b"coreflow trunk offers",
        Side::Answers => b"coreflow trunk answer",
        Side::Knocks => b"coreflow door knocks ",
        Side::Opens => b"coreflow door opens  ",
    }
}

fn mac(secret: &Secret, side: Side, challenge: &Challenge, said: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("a key of any length is allowed");
    mac.update(domain(side));
    mac.update(&challenge.0);
    mac.update(said);
    mac
}
