//! The log that everything which must survive goes through.
//!
//! A partition appends [`record::Record`]s to its [`log::TaskLog`]; what is committed outlasts the
//! process and a loss of power. One thread keeps the log of all partitions: each is a Raft group,
//! whatever their shards sent while one write was under way is the next write.
//!
//! ```text
//! shard: TaskLog (lane) ── blocks ──► log thread (keeper) ── entries ──► raft groups
//!            │                             ▲        │                        │
//!            │                             │        └── one group, one write ◄┘──► segment files
//!            ◄── committed: the same blocks, each with its place; those of others ──┘
//! ```
//!
//! Invariants worth naming
//! - Nothing is acknowledged before the disk has it; when the disk fails, the node ends.
//! - What was acknowledged is read back or named as damaged, never passed over.
//! - The log from its first segment on *is* the state: there are no snapshots beside it. Old
//!   segments are freed after the partitions have appended again what lives in them.
//! - What is on the disk is bounded.
//!
//! The files: `record.rs`, `format.rs` and `damage.rs` are the bytes, `place.rs` where they lie;
//! `block.rs` and `group.rs` what a shard sends and what a write carries, `news.rs` what a partition
//! hears; `disk.rs` what is asked of a disk, `files.rs` the real one, `simulated.rs` the one that
//! fails; `survey.rs` reads a log, `recovery.rs` tells what of it is committed, `writer.rs` writes
//! it, all pure; `engine.rs` and `members.rs` say what an engine of consensus is, `raft/` is one, pure as
//! well, `malformed.rs` why bytes are none of their messages; `keeper.rs` is the log thread's loop,
//! `assemble.rs` puts it together, `lane.rs`, `thread.rs` and `open.rs` run it; `reader.rs` reads single records; `tally.rs` counts
//! what is in a log. `peers/` are the links to the other nodes of a cluster.

pub mod agreement;
pub mod assemble;
pub mod begun;
pub mod block;
pub mod book;
pub mod cluster;
pub mod damage;
pub mod disk;
pub mod engine;
pub mod files;
pub mod format;
pub mod group;
mod keeper;
pub mod lane;
pub mod links;
pub mod log;
pub mod malformed;
pub mod members;
pub mod news;
pub mod notice;
pub mod open;
mod owner;
pub mod pbft;
pub mod peers;
mod pending;
pub mod place;
pub mod raft;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod simulated;
mod start;
pub mod survey;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod writer;

pub use log::{MemoryLog, TaskLog};
pub use news::{Claimed, Committed, Compacted, Foreign, Looked, News};
pub use pending::Pending;
pub use place::{Place, Position};
pub use record::Record;
