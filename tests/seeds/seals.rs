//! A scheme of signatures for simulators: a seal is a hash of a secret and of what is sealed. Four fifths of a
//! run's time would be ed25519's otherwise; what a run does is the same by either, which `tests/pbft` looks at.
//!
//! Who verifies knows all secrets, so it protects from nobody but a simulated liar, who is given its own
//! identity alone and has nobody else's seals but those that it was sent.

use coreflow::consensus::pbft::{
    Identity, Ring,
    keys::{Signature, hash},
    scheme::{Signs, Verifies},
};
use std::{collections::BTreeMap, sync::Arc};

struct Secret([u8; 32]);

struct Secrets(BTreeMap<u64, Secret>);

impl Signs for Secret {
    fn public(&self) -> [u8; 32] {
        hash(&[b"public", &self.0])
    }

    fn sign(&self, bytes: &[u8]) -> Signature {
        let seal = hash(&[b"seal", &self.0, bytes]);
        Signature(*[seal, seal].as_flattened().first_chunk().expect("two hashes"))
    }
}

impl Verifies for Secrets {
    fn key(&self, who: u64) -> Option<[u8; 32]> {
        self.0.get(&who).map(Secret::public)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_signed(&self, who: u64, bytes: &[u8], signature: &Signature) -> bool {
        self.0.get(&who).is_some_and(|secret| secret.sign(bytes) == *signature)
    }
}

/// The identity of a secret.
pub fn identity(secret: [u8; 32]) -> Identity {
    Identity::with(Arc::new(Secret(secret)))
}

/// The ring of everybody's secrets.
pub fn ring(secrets: impl IntoIterator<Item = (u64, [u8; 32])>) -> Ring {
    let secrets = secrets.into_iter().map(|(who, secret)| (who, Secret(secret)));
    Ring::with(Arc::new(Secrets(secrets.collect())))
}
