//! What crosses a core or a socket: ids, envelopes, batches, MessagePack and JSON.

pub mod api;
pub mod batch;
pub mod id;
pub mod letter;
