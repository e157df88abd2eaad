//! Which node to talk to.

use crate::wire::secret::Secret;
use std::net::SocketAddr;

/// Where a node is, and the token that it asks for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens for MessagePack-RPC.
    pub address: SocketAddr,
    /// What is said to it first; `None`: nothing.
    pub token: Option<Secret>,
}

impl From<SocketAddr> for Target {
    /// A node that asks for no token.
    fn from(address: SocketAddr) -> Self {
        Self { address, token: None }
    }
}

impl From<&Target> for Target {
    fn from(target: &Target) -> Self {
        target.clone()
    }
}
