//! JSON: reading it from untrusted bytes, writing it, and turning it into MessagePack and back.
//!
//! Size and depth are checked before the parser sees a byte, so that its work and its memory are
//! bounded by limits that this process chose.

mod document;
mod fault;
mod text;
mod transcode;

pub use document::{Document, Error, Fields, Items, Json};
pub use fault::Fault;
pub use text::{base64, escaped, string};
pub use transcode::{Transcoder, Unrepresentable, from_msgpack, to_msgpack};

/// Arrays and objects that may contain each other; the value `[[1]]` is 2 deep.
pub const DEPTH_MAX: usize = 64;
