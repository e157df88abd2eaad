//! How a partition is built, and the bounds of everything in it.

use super::{error::Invalid, quantize::Metric};

/// The longest vector: the sum of as many products of two codes still fits 32 bits with room.
pub const DIMENSIONS_MAX: usize = 4096;
/// No index has more vectors.
pub const VECTORS_MAX: u32 = 1 << 30;
/// The widest search, and the most hits of one.
pub const EF_MAX: usize = 4096;
/// Links of a node on each layer above the lowest.
pub(super) const LINKS_UPPER: usize = 16;
/// Links of a node on the lowest layer: two cache lines.
pub(super) const LINKS_BASE: usize = 2 * LINKS_UPPER;
/// Links of a new node on the lowest layer; the other places are for nodes that come later.
pub(super) const LINKS_NEW: usize = 24;
/// The same under the dot product, where the first of them lead to near nodes ([`prune`](super::prune)) and those of the
/// largest products would find less if they were fewer.
pub(super) const LINKS_NEW_DOT: usize = 28;
/// Links to near nodes: of a new node, and when all places are taken.
pub(super) const LINKS_NEAR_NEW: usize = 8;
pub(super) const LINKS_NEAR: usize = 12;
/// The highest level of a node: five layers.
pub(super) const LEVEL_MAX: usize = 4;

const _: () = assert!(DIMENSIONS_MAX * 255 * 127 < i32::MAX as usize);
const _: () =
    assert!(LINKS_NEAR_NEW < LINKS_NEAR && LINKS_NEAR < LINKS_NEW && LINKS_NEW < LINKS_BASE);
const _: () = assert!(LINKS_NEW <= LINKS_NEW_DOT && LINKS_NEW_DOT < LINKS_BASE);
const _: () = assert!((LINKS_BASE * size_of::<u32>()).is_multiple_of(64));

/// What a partition is made with.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// The length of every vector: 1 to [`DIMENSIONS_MAX`].
    pub dimensions: usize,
    /// What near means.
    pub metric: Metric,
    /// Candidates that an insertion weighs, at least 16 and at most [`EF_MAX`]. More make a better graph,
    /// and each insertion takes longer in proportion.
    pub ef_construction: usize,
    /// How much nearer to a chosen neighbour than to the node itself a candidate must be to be left
    /// out: 1.0 to 2.0. Above 1, more long links stay.
    pub alpha: f32,
    /// Rows for vectors, dead ones that are not yet freed included.
    pub vectors_max: u32,
    /// Decides the levels of the nodes.
    pub seed: u64,
}

impl IndexOptions {
    /// The defaults for vectors of this length.
    pub fn new(dimensions: usize, metric: Metric) -> Self {
        Self { dimensions, metric, ef_construction: 200, alpha: 1.0, vectors_max: 1 << 24, seed: 0 }
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let check = |well: bool, name, range| {
            if well { Ok(()) } else { Err(Invalid::Options { name, range }) }
        };
        check((1..=DIMENSIONS_MAX).contains(&self.dimensions), "dimensions", "1 to 4096")?;
        check(
            (LINKS_UPPER..=EF_MAX).contains(&self.ef_construction),
            "ef_construction",
            "16 to 4096",
        )?;
        check((1.0..=2.0).contains(&self.alpha), "alpha", "1.0 to 2.0")?;
        check((1..=VECTORS_MAX).contains(&self.vectors_max), "vectors_max", "1 to 2^30")
    }
}
