//! Byzantine agreement on the log of each partition.
//!
//! The files: `keys.rs` is identities and what they sign.

pub mod keys;
