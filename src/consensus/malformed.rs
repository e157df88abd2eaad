//! Why bytes that another node sent are no message, whichever engine reads them.

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end too early.
    #[error("a message is cut off")]
    Short,
    /// Something follows.
    #[error("bytes follow a message")]
    Long,
    /// A kind that is never sent, or unknown.
    #[error("a message has the kind {0}")]
    Kind(u8),
    /// An entry of a type that is never sent, or unknown.
    #[error("an entry has the type {0}")]
    EntryType(u8),
    /// Bits that have no meaning.
    #[error("a message has unknown flags")]
    Flags,
    /// A list is longer than it may be.
    #[error("a message has {0} items in a list, more than it may")]
    Count(usize),
    /// A batch that is none.
    #[error("a message has a batch that does not fit together")]
    Batch,
    /// Parts that it does not name, or too few of them.
    #[error("a message has other parts than it names")]
    Parts,
    /// A membership that cannot be.
    #[error("a message has an impossible membership")]
    Members,
}
