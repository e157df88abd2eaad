//! The links between the nodes of a cluster: messages, in order, over one connection a pair.
//!
//! ```text
//! log thread: send ──► queue (bounded) ──► frame ──► socket ═══► socket ──► decoder ──► Event
//!                      one for each peer    what waited is one frame        checked before it is told
//! ```
//!
//! Invariants worth naming
//! - What is told was sent by that peer, whole and unchanged, in the order in which it was sent,
//!   and is told at most once. It may be missing: when a queue is full its oldest messages are
//!   dropped, and a connection that is lost takes with it what was under way. Raft repeats.
//! - Of a pair of nodes the one with the lower id dials, so that there are never two connections
//!   in use; one that comes later replaces the one before, and never the other way round.
//! - What a stranger can cost is bounded: connections without a handshake, their bytes, their time.
//! - Nothing here waits but [`sockets::Sockets::wait`].
//!
//! The handshake finds mistakes (another cluster, another node behind an address) and, when the
//! cluster has a secret, proves that both sides know it. Nothing is encrypted: nodes trust the network
//! between them not to change what travels.
//!
//! The files: `frame.rs` is the bytes, `hello.rs` the handshake, `proof.rs` what proves that a node
//! belongs to the cluster, `message.rs` what is sent,
//! `outgoing.rs` what waits, `limits.rs` what it may cost, `link.rs` the life of a link, all pure;
//! `door.rs` receives whoever connects, `peer.rs` moves the bytes of a link, `sockets.rs` drives
//! everything; `counters.rs` are the figures, `seldom.rs` keeps the log of messages short.

pub mod counters;
mod door;
pub mod frame;
pub mod hello;
pub mod limits;
pub mod link;
pub mod message;
mod outgoing;
mod peer;
pub mod proof;
mod seldom;
pub mod sockets;
#[cfg(test)]
mod tests;

pub use crate::wire::id::NodeId;
pub use limits::{Limits, Timing};
pub use link::Lost;
pub use message::{Message, Shared};
pub use proof::Signing;
pub use sockets::{Config, Event, Sockets};
