//! A client of a node, over MessagePack-RPC and blocking sockets.
//!
//! Two ways to talk: [`Client`] asks and waits, one request after the other; a [`Sender`] and a
//! [`Receiver`] are the two halves of one connection that keeps many requests under way.
//!
//! Invariants worth naming:
//!
//! - It runs on any thread and knows no executor: a program in another process uses the same code.
//! - What a node sends is untrusted: it passes the scanner before anything reads it, and a
//!   malformed or endless answer is an error, never a panic or unbounded memory.
//! - A request whose answer did not come ([`ClientError::is_uncertain`]) may have taken effect or
//!   not; only a submission with a key may simply be sent again.

mod call;
mod error;
mod frame;
mod incoming;
mod params;
mod pipeline;
mod target;
mod view;

pub use call::Client;
pub use error::{ClientError, Refusal};
pub use frame::Answer;
pub(crate) use frame::request;
pub use params::Params;
pub use pipeline::{Receiver, Sender, connect};
pub use target::Target;
pub use view::{Fields, Items, View};

#[cfg(test)]
mod tests;
