//! Identities and what they sign.
//!
//! Invariants worth naming
//! - A signature is of a [`Statement`] in one partition of one life of a cluster, its genesis: it says
//!   nothing in another, and nothing as a statement of another kind.
//! - Who is not in the ring has signed nothing.

use super::scheme::{Ed25519, Signs, Verifies};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use std::{fmt, sync::Arc};

/// What SHA-256 makes of bytes.
pub type Digest = [u8; 32];

/// What every signed statement begins with.
const DOMAIN: &[u8; 16] = b"coreflow pbft 1\0";
/// Bytes of a signed statement at most.
const STATEMENT_BYTES: usize = 16 + 16 + 2 + 1 + 8 + 8 + 32 + 32;

/// SHA-256 of some parts in a row; the first names what is hashed.
pub fn hash(parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// That of nobody.
    pub const NONE: Self = Self([0; 64]);
}

impl fmt::Debug for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, ..] = self.0;
        write!(out, "signature {first:02x}{second:02x}{third:02x}{fourth:02x}")
    }
}

/// What a signature can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement<'a> {
    /// The primary of a view orders an entry, which makes the log up to it this chain.
    PrePrepare {
        /// The view.
        view: u64,
        /// The entry.
        seq: u64,
        /// The chain behind it.
        chain: &'a Digest,
    },
    /// A backup has accepted that.
    Prepare {
        /// The view.
        view: u64,
        /// The entry.
        seq: u64,
        /// The chain behind it.
        chain: &'a Digest,
    },
    /// A replica has a certificate of it.
    Commit {
        /// The view.
        view: u64,
        /// The entry.
        seq: u64,
        /// The chain behind it.
        chain: &'a Digest,
    },
    /// A replica has committed everything up to an entry.
    Checkpoint {
        /// The entry.
        seq: u64,
        /// The chain behind it.
        chain: &'a Digest,
        /// The digest of the clients' table.
        table: &'a Digest,
    },
    /// A replica leaves all views below one.
    ViewChange {
        /// The view that it wants.
        view: u64,
        /// The digest of all that it says.
        digest: &'a Digest,
    },
    /// The primary of a view begins it.
    NewView {
        /// The view.
        view: u64,
        /// The digest of all that it says.
        digest: &'a Digest,
    },
    /// A client wants an operation to be done once.
    Request {
        /// The client.
        client: u64,
        /// Its number for it.
        timestamp: u64,
        /// The digest of the operation.
        digest: &'a Digest,
    },
    /// A replica's answer to a client.
    Reply {
        /// The client.
        client: u64,
        /// The view that the replica was in.
        view: u64,
        /// The digest of all that it says.
        digest: &'a Digest,
    },
}

impl Statement<'_> {
    fn write(&self, genesis: u128, partition: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(DOMAIN);
        out.extend_from_slice(&genesis.to_le_bytes());
        out.extend_from_slice(&partition.to_le_bytes());
        let none = &[0; 32];
        let (kind, first, second, digest, other) = match *self {
            Self::PrePrepare { view, seq, chain } => (1, view, seq, chain, none),
            Self::Prepare { view, seq, chain } => (2, view, seq, chain, none),
            Self::Commit { view, seq, chain } => (3, view, seq, chain, none),
            Self::Checkpoint { seq, chain, table } => (4, 0, seq, chain, table),
            Self::ViewChange { view, digest } => (5, view, 0, digest, none),
            Self::NewView { view, digest } => (6, view, 0, digest, none),
            Self::Request { client, timestamp, digest } => (7, client, timestamp, digest, none),
            Self::Reply { client, view, digest } => (8, client, view, digest, none),
        };
        out.push(kind);
        out.extend_from_slice(&u64::to_le_bytes(first));
        out.extend_from_slice(&u64::to_le_bytes(second));
        out.extend_from_slice(digest);
        out.extend_from_slice(other);
    }
}

/// A secret key.
#[derive(Clone)]
pub struct Identity(Arc<dyn Signs>);

impl Identity {
    /// The identity of a secret.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self::with(Arc::new(SigningKey::from_bytes(secret)))
    }

    /// One of another scheme than a node's.
    pub fn with(key: Arc<dyn Signs>) -> Self {
        Self(key)
    }

    /// Its public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.public()
    }

    /// Signs bytes that begin with a domain of the caller's own, which is not that of statements.
    ///
    /// # Panics
    /// When they begin as a statement does.
    pub fn sign_bytes(&self, bytes: &[u8]) -> Signature {
        assert!(!bytes.starts_with(DOMAIN), "statements are signed as such");
        self.0.sign(bytes)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret stays one.
        out.write_str("Identity")
    }
}

/// A key cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public key of {0} is none that ed25519 knows, or a weak one")]
pub struct BadKey(pub u64);

/// The public keys of everybody, by number.
#[derive(Clone)]
pub struct Ring(Arc<dyn Verifies>);

impl Ring {
    /// A ring of these keys.
    ///
    /// # Errors
    /// When one is no key.
    pub fn new(keys: impl IntoIterator<Item = (u64, [u8; 32])>) -> Result<Self, BadKey> {
        Ok(Self::with(Arc::new(Ed25519::new(keys)?)))
    }

    /// One of another scheme than a node's.
    pub fn with(keys: Arc<dyn Verifies>) -> Self {
        Self(keys)
    }

    /// Whether somebody has a key here.
    pub fn knows(&self, node: u64) -> bool {
        self.key(node).is_some()
    }

    /// The public key of somebody.
    pub fn key(&self, node: u64) -> Option<[u8; 32]> {
        self.0.key(node)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody signed bytes with [`Identity::sign_bytes`].
    pub fn has_signed_bytes(&self, node: u64, bytes: &[u8], signature: &Signature) -> bool {
        !bytes.starts_with(DOMAIN) && self.0.is_signed(node, bytes, signature)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Ring of {}", self.len())
    }
}

/// Signs and verifies the statements of one partition of one life of a cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    identity: Identity,
    ring: Ring,
    genesis: u128,
    partition: u16,
    /// Signatures that were verified.
    pub(super) verified: u64,
}

impl Keys {
    /// The keys of a replica or client; [`super::Company::genesis`] says what they are bound to.
    pub fn new(identity: Identity, ring: Ring, genesis: u128, partition: u16) -> Self {
        Self { identity, ring, genesis, partition, verified: 0 }
    }

    /// Signs a statement.
    pub fn sign(&self, statement: Statement<'_>) -> Signature {
        let mut bytes = Vec::with_capacity(STATEMENT_BYTES);
        statement.write(self.genesis, self.partition, &mut bytes);
        self.identity.0.sign(&bytes)
    }

    /// Whether somebody signed a statement.
    pub fn has_signed(
        &mut self,
        node: u64,
        statement: Statement<'_>,
        signature: &Signature,
    ) -> bool {
        self.verified += 1;
        let mut bytes = Vec::with_capacity(STATEMENT_BYTES);
        statement.write(self.genesis, self.partition, &mut bytes);
        self.ring.0.is_signed(node, &bytes, signature)
    }

    /// Whether clients signed all of some requests: the client, the number, the operation's digest, the
    /// signature.
    ///
    /// Many are verified at once, at a fraction of the time. A client that signs in a way that only the
    /// strict verification refuses may pass here. That harms nobody: it takes the client's own
    /// secret, and a primary, which verifies each request strictly, orders only what passes here
    /// everywhere. What is shown to a third is never verified so.
    pub fn have_requested(&mut self, requests: &[(u64, u64, Digest, Signature)]) -> bool {
        self.verified += requests.len() as u64;
        let signed = |(client, timestamp, digest, signature): &(u64, u64, Digest, Signature)| {
            let mut bytes = Vec::with_capacity(STATEMENT_BYTES);
            let (client, timestamp) = (*client, *timestamp);
            let statement = Statement::Request { client, timestamp, digest };
            statement.write(self.genesis, self.partition, &mut bytes);
            (client, bytes, *signature)
        };
        self.ring.0.are_signed(&requests.iter().map(signed).collect::<Vec<_>>())
    }

    /// Everybody's public keys.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }
}
