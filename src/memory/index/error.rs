//! What is wrong with a request to the index; the index is as it was before.

use thiserror::Error;

/// A request that the index refuses. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// The vector's length is not the index's.
    #[error("the vector has {given} dimensions, the index has {expected}")]
    Dimensions {
        /// The vector's length.
        given: usize,
        /// The index's.
        expected: usize,
    },
    /// A component is not a number infinite or beyond 1e17.
    #[error("component {position} of the vector is not finite, or beyond 1e17")]
    NotFinite {
        /// Which one, from zero.
        position: usize,
    },
    /// A vector without a direction has no cosine.
    #[error("the vector is zero, which has no cosine")]
    ZeroNorm,
    /// No hits were asked for.
    #[error("k is zero")]
    ZeroK,
    /// More hits or a wider search than [`EF_MAX`](super::EF_MAX) were asked for.
    #[error("{name} is {given}, at most {max} is allowed")]
    TooWide {
        /// `k` or `ef`.
        name: &'static str,
        /// What was asked for.
        given: usize,
        /// What is allowed.
        max: usize,
    },
    /// A hit's vector is not among those given.
    #[error("no float32 vector was given for row {row}")]
    Missing {
        /// The hit's row.
        row: u32,
    },
    /// The row is not one that a loaded image left to be inserted again.
    #[error("row {row} is not one to be inserted again")]
    NotPromised {
        /// The row.
        row: u32,
    },
    /// All rows are taken.
    #[error("the partition is full: it has {max} rows")]
    Full {
        /// `vectors_max` of the options.
        max: u32,
    },
    /// An option is out of its range.
    #[error("option {name} must be {range}")]
    Options {
        /// The option.
        name: &'static str,
        /// What is allowed.
        range: &'static str,
    },
}
