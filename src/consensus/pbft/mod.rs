//! Byzantine agreement: the replicated log's other engine, for 3f + 1 nodes of which f may lie.
//!
//! It is PBFT: M. Castro and B. Liskov, *Practical Byzantine Fault Tolerance*, OSDI '99, and
//! *Practical Byzantine Fault Tolerance and Proactive Recovery*, TOCS 20(4), 2002; sections are
//! named where they are followed. The replicated service is a log: executing entry n appends it.
//! Nothing here owns a clock, a socket, a file, a thread or a random source.
//!
//! ```text
//! propose, request ─┐                      ┌─► letters: send at once
//! step ─────────────┤                      ├─► writes: one synced write ─► persisted(batch)
//! advance ──────────┼─► Driver ─take_ready─┤              └─► what had to wait for it
//! fetched, placed ──┘                      ├─► events: committed, lost, role, read
//!                                          └─► fetches: entries that are no longer in memory
//! ```
//!
//! Invariants worth naming
//! - No two correct replicas commit different entries at an index, while f members at most lie.
//! - What a client takes for finished is never undone.
//! - What a replica has promised is on its disk first.
//! - What is signed of an entry is the chain of all up to it, so votes cover what was before.
//! - No message, however wrong, panics or takes memory without bound.
//!
//! Which operations may be in the log is the caller's to say: a message that carries another one is not handed
//! to a replica ([`Message::batches`]), so no correct one ever accepts it.
//!
//! The files: `keys.rs` identities and signed statements, `scheme.rs` how they are signed, `members.rs` who takes part,
//! `settings.rs` and `status.rs` what a group is given and tells, `batch.rs` what an entry carries, `table.rs` which requests were executed, `message.rs`,
//! `codec.rs` and `wire.rs` messages and their bytes, `certificate.rs` proofs; `group.rs` is one
//! replica: `normal.rs` orders, `execute.rs` commits and answers, `checkpoint.rs` forgets,
//! `view_change.rs` and `new_view.rs` replace a primary, `catch_up.rs`, `serving.rs` and `transfer.rs` help
//! who is behind, `trust.rs` and `credit.rs` bound what is verified, `requests.rs` and `reads.rs` are what clients ask, `duty.rs` and `unsettled.rs` what a
//! primary owes the service, and of its orders; `client.rs` is a client; `log.rs` and
//! `slot.rs` what is known of entries; `notes.rs` and `restore.rs` what is read back; `ready.rs` what
//! waits for the disk; `driver.rs` all groups of a node.

pub mod batch;
mod catch_up;
pub mod certificate;
mod checkpoint;
pub mod client;
pub mod codec;
pub mod company;
mod credit;
pub mod driver;
mod duty;
mod execute;
pub mod group;
pub mod keys;
pub mod log;
pub mod members;
pub mod message;
pub mod new_view;
mod normal;
pub mod notes;
pub mod outputs;
mod reads;
mod ready;
mod requests;
pub mod restore;
pub mod scheme;
mod serving;
pub mod settings;
mod slot;
pub mod status;
pub mod table;
#[cfg(test)]
mod tests;
mod transfer;
mod trust;
mod unsettled;
mod view_change;
mod wire;

pub use batch::{Batch, Request};
pub use client::Client;
pub use company::{Company, Terms};
pub use driver::{Driver, Outputs};
pub use execute::{HEADS_RECORD_BYTES, body_bytes};
pub use group::{Group, Settings, Timing};
pub use keys::{Identity, Keys, Ring};
pub use members::Members;
pub use message::Message;
pub use outputs::{Answer, Counters, Dropped, Letter, Write};
pub use ready::Ready;
pub use restore::{Noted, Restore};
