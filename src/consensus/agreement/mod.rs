//! Byzantine agreement joined to the log thread: [`super::pbft`] behind the trait of engines, its
//! entries and notes as blocks of the log, and its state read back from them.
//!
//! Invariants worth naming
//! - What is ordered is blocks of whole records of their partition, and tasks that any node asks for have
//!   the names that their requests give them: a message that carries anything else is as good as lost, so
//!   no correct replica ever has it in its log.
//! - Of an entry only the records are told to shards; who asked for them stands behind them in the
//!   same block, for other replicas.
//!
//! The files: `body.rs` is an entry as a block, `rules.rs` what may be one; `replicas.rs` the engine;
//! `tokens.rs` bounds reservations of fencing tokens;
//! `recovery.rs` what is read back; `byzantine.rs` a node that lies, for tests.

pub mod body;
#[cfg(any(feature = "byzantine", feature = "planted-bugs"))]
pub mod byzantine;
pub mod recovery;
pub mod replicas;
pub mod rules;
#[cfg(test)]
mod tests;
mod tokens;

pub use recovery::{Recovery, Restored};
pub use replicas::Replicas;
pub use rules::Rules;
