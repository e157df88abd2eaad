//! The seal of a datagram: the first sixteen bytes of an HMAC-SHA256 with the cluster's secret.
//!
//! A seal proves that a node of the cluster made the datagram, and that nobody changed it. It does not
//! keep anybody from sending it again, which has no effect: claims and entries that are known change
//! nothing, and only the first answer to a question counts. Nothing is encrypted.

use crate::wire::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a seal.
pub const SEAL_BYTES: usize = 16;

/// Seals with a secret, or does not seal.
#[derive(Clone)]
pub struct Seal(Option<Hmac<Sha256>>);

impl Seal {
    /// With a secret, or without.
    pub fn new(secret: Option<&Secret>) -> Self {
        Self(secret.map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
                .expect("a key of any length is allowed");
            mac.update(b"coreflow gossip");
            mac
        }))
    }

    /// Bytes that sealing adds.
    pub fn bytes(&self) -> usize {
        if self.0.is_some() { SEAL_BYTES } else { 0 }
    }

    /// Adds the seal behind the bytes.
    pub fn seal(&self, datagram: &mut Vec<u8>) {
        if let Some(mac) = &self.0 {
            let mac = mac.clone().chain_update(&datagram).finalize().into_bytes();
            datagram.extend_from_slice(&mac[..SEAL_BYTES]);
        }
    }

    /// The bytes before the seal, when it is right.
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let Some(mac) = &self.0 else { return Some(datagram) };
        let (body, seal) = datagram.split_at_checked(datagram.len().checked_sub(SEAL_BYTES)?)?;
        mac.clone().chain_update(body).verify_truncated_left(seal).ok()?;
        Some(body)
    }
}
