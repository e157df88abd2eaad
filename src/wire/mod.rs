//! What crosses a core or a socket: ids, envelopes, batches, MessagePack and JSON.

pub mod api;
pub mod arrivals;
pub mod batch;
pub mod id;
pub mod json;
pub mod letter;
pub mod memory;
pub mod msgpack;
pub mod names;
pub mod neighbours;
pub mod secret;
pub mod trunk;
