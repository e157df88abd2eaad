//! The log that everything which must survive goes through.
//!
//! A shard appends [`record::Record`]s to its [`log::TaskLog`]; what is committed outlasts the
//! process and a loss of power. One thread writes for all shards: whatever they sent while one
//! write was under way is the next write.
//!
//! ```text
//! shard: TaskLog (lane) ── blocks ──► log thread: one group, one write ──► segment files
//!            ◄── the same blocks: committed, each with its place ──┘
//! ```
//!
//! Invariants worth naming
//! - Nothing is acknowledged before the disk has it; when the disk fails, the node ends.
//! - What was acknowledged is read back or named as damaged, never passed over.
//! - The log from its first segment on *is* the state: there are no snapshots beside it. Old
//!   segments are freed after the shards have appended again what lives in them.
//! - What is on the disk is bounded.
//!
//! The files: `record.rs`, `format.rs` and `damage.rs` are the bytes; `block.rs` and `group.rs`
//! what a shard sends and what a write carries; `disk.rs` what is asked of a disk, `files.rs` the
//! real one, `simulated.rs` the one that fails; `survey.rs` reads a log, `writer.rs` writes it,
//! both pure; `lane.rs`, `thread.rs` and `open.rs` run them; `reader.rs` reads single records;
//! `tally.rs` counts what is in a log. `peers/` are the links to the other nodes of a cluster.

pub mod block;
pub mod damage;
pub mod disk;
pub mod files;
pub mod format;
pub mod group;
mod keeper;
pub mod lane;
pub mod log;
pub mod open;
pub mod peers;
mod pending;
pub mod raft;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod simulated;
pub mod survey;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod writer;

pub use log::{Committed, Foreign, MemoryLog, News, Place, Position, TaskLog};
pub use pending::Pending;
pub use record::Record;
