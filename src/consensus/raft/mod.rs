//! The replicated log: one Raft group for each partition, all groups of a node in one driver.
//!
//! Nothing here owns a clock, a socket, a file or a thread. The log thread (or a simulator) feeds
//! a [`Driver`] with proposals, messages and time, and does what its [`Outputs`] ask for.
//!
//! ```text
//! propose ─┐                      ┌─► messages: send at once
//! step ────┤                      ├─► writes: one synced write for all groups ─► persisted(batch)
//! advance ─┼─► Driver ─take_ready─┤                     └─► messages that had to wait for it
//! fetched ─┤                      ├─► events: committed, lost, role, membership, read
//! placed ──┘                      └─► fetches: entries that are no longer in memory
//! ```
//!
//! Invariants worth naming
//! - A vote and an acknowledged entry are on the disk before anybody hears of them.
//! - Committed entries are told in their order, each once in the life of a driver.
//! - A replica is told that it leads only after everything that was committed before was told.
//! - Of each proposal the fate is told: committed, or lost when it is not known any more.
//! - The same inputs and seed give the same outputs.
//! - No message of a peer, however wrong, reaches a panic of the engine.
//!
//! The files: `outputs.rs` is what comes out; `entries.rs` and `fetching.rs` are a group's log as
//! raft sees it; `restore.rs` builds it from what was read back; `group.rs` is one group,
//! `ready.rs` its cycle of ready and persisted, `guard.rs` what it refuses of peers;
//! `membership.rs` the rules of changes
//! and `changes.rs` the changes; `removal.rs` how a replica finds out that it is no member; `driver.rs` all groups and their clock; `balance.rs`
//! spreads leaders; `message.rs` and `wire.rs` are messages as bytes,
//! `blocks.rs` what is written; `engine.rs` joins it to the log thread.

pub mod balance;
pub mod blocks;
mod changes;
pub mod driver;
mod engine;
pub mod entries;
mod fetching;
pub mod group;
mod guard;
pub mod membership;
pub mod message;
pub mod outputs;
mod ready;
pub mod removal;
pub mod restore;
#[cfg(test)]
mod tests;
mod wire;

pub use driver::{Driver, Settings};
pub use group::{Limits, Refused};
pub use membership::{Change, ChangeRefused, Members};
pub use outputs::{Event, Fetch, HardState, Kind, Outputs, Point, Role, Stored, Write};
pub use raft::eraftpb::Message;
pub use restore::Restore;
