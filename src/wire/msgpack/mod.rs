//! MessagePack: finding a value's end in a stream, reading and writing values in place.
//!
//! Invariants worth naming:
//!
//! - Nothing here recurses, and nothing allocates in proportion to a length that a peer only
//!   *declared*: a five-byte array header that promises four billion values costs nothing.
//! - Bytes from a peer pass [`Scanner`] before anything else reads them. [`Reader`] is total all
//!   the same: on bytes that were not scanned it answers [`Malformed`], it never panics.

mod head;
mod read;
mod scan;
mod span;
pub mod write;

pub use head::{Head, Value};
pub use read::{Malformed, Reader};
pub use scan::{Scan, Scanner};

/// Whether bytes are one value, and nothing follows.
pub fn is_one_value(bytes: &[u8]) -> bool {
    Scanner::new(bytes.len()).scan(bytes) == Scan::Complete(bytes.len())
}

/// Arrays and maps that may contain each other; the value `[[1]]` is 2 deep.
pub const DEPTH_MAX: usize = 64;
