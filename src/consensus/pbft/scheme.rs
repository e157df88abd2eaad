//! How bytes are signed: ed25519, verified strictly.
//!
//! The two traits are the seam at which a simulator puts a scheme that costs less; a node has none but
//! this one.

use super::keys::{BadKey, Signature};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use std::collections::BTreeMap;

/// Fewer signatures are verified one by one.
const BATCH_FROM: usize = 4;

/// A secret key.
pub trait Signs: Send + Sync {
    /// Its public key.
    fn public(&self) -> [u8; 32];

    /// Signs bytes.
    fn sign(&self, bytes: &[u8]) -> Signature;
}

/// The public keys of everybody, by number.
pub trait Verifies: Send + Sync {
    /// The public key of somebody.
    fn key(&self, who: u64) -> Option<[u8; 32]>;

    /// How many keys there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether somebody signed bytes: what one correct replica accepts, all do, so a certificate never
    /// divides them.
    fn is_signed(&self, who: u64, bytes: &[u8], signature: &Signature) -> bool;

    /// Whether all of these were signed by whom they name, less strictly perhaps.
    fn are_signed(&self, all: &[(u64, Vec<u8>, Signature)]) -> bool {
        all.iter().all(|(who, bytes, signature)| self.is_signed(*who, bytes, signature))
    }
}

impl Signs for SigningKey {
    fn public(&self) -> [u8; 32] {
        self.verifying_key().to_bytes()
    }

    fn sign(&self, bytes: &[u8]) -> Signature {
        Signature(Signer::sign(self, bytes).to_bytes())
    }
}

/// Keys of ed25519.
pub(super) struct Ed25519(BTreeMap<u64, VerifyingKey>);

impl Ed25519 {
    /// A ring of these keys.
    ///
    /// # Errors
    /// When one is no key.
    pub fn new(keys: impl IntoIterator<Item = (u64, [u8; 32])>) -> Result<Self, BadKey> {
        let key = |(who, bytes): (u64, [u8; 32])| {
            let key = VerifyingKey::from_bytes(&bytes).map_err(|_| BadKey(who))?;
            if key.is_weak() { Err(BadKey(who)) } else { Ok((who, key)) }
        };
        Ok(Self(keys.into_iter().map(key).collect::<Result<_, _>>()?))
    }
}

impl Verifies for Ed25519 {
    fn key(&self, who: u64) -> Option<[u8; 32]> {
        self.0.get(&who).map(VerifyingKey::to_bytes)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_signed(&self, who: u64, bytes: &[u8], signature: &Signature) -> bool {
        let Some(key) = self.0.get(&who) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(bytes, &signature).is_ok()
    }

    fn are_signed(&self, all: &[(u64, Vec<u8>, Signature)]) -> bool {
        if all.len() < BATCH_FROM {
            return all
                .iter()
                .all(|(who, bytes, signature)| self.is_signed(*who, bytes, signature));
        }
        let Some(keys) = all.iter().map(|(who, ..)| self.0.get(who).copied()).collect() else {
            return false;
        };
        let keys: Vec<_> = keys;
        let bytes: Vec<_> = all.iter().map(|(_, bytes, _)| bytes.as_slice()).collect();
        let signature = |of: &Signature| ed25519_dalek::Signature::from_bytes(&of.0);
        let signatures: Vec<_> = all.iter().map(|(.., of)| signature(of)).collect();
        ed25519_dalek::verify_batch(&bytes, &signatures, &keys).is_ok()
    }
}
