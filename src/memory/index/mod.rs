//! One partition of the vector index: which stored vectors are nearest to a query.
//!
//! A vector is kept as one code of eight bits a dimension ([`Metric`] says how codes are compared),
//! and codes are the nodes of a graph, a *hierarchical navigable small world* (Malkov, Yashunin:
//! *Efficient and Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable Small
//! World Graphs*, 2016). A vector's name here is its [`Row`], the slot of its node; names of other kinds,
//! and the float32 vectors, belong to the caller, who may order the first hits by those again
//! ([`Index::rerank`]).
//!
//! | file | duty |
//! |---|---|
//! | `kernels` | dot products with the widest instructions that the processor has |
//! | `quantize` | a vector as a code, and the distance of two codes |
//! | `centre` | what codes are the difference to |
//! | `coarse` | rows that need a nearer centre |
//! | `rows` | where codes and links lie |
//! | `graph` | nodes, their levels, the way through one layer |
//! | `prune` | which of many candidates a node links to |
//! | `late` | vectors that are found before they are linked |
//! | `live` | which rows live, so that a few are found among many |
//! | `filtered` | the walk of a search that is asked for some of the vectors alone |
//! | `reach` | ways to all that lives, and from it |
//! | `splice` | links that take no way from any other node |
//! | `insert`, `remove`, `search`, `rerank` | what a caller does |
//! | `image` | the graph as bytes, written while it is in use |
//! | `steps` | operations that go on step by step |
//! | `pool`, `marks` | the best found so far, and what was seen already |
//!
//! Invariants:
//! - A link leads to a node that is live, or dead and not yet freed; never to a free slot, never to
//!   its own node, never twice to the same one, and on no layer above its target's level.
//!   Nodes that a sweep is freeing may still lead to each other's slots; nothing leads to them.
//! - A slot is freed when a sweep that began after its death has passed all nodes, so nothing leads
//!   there. An insertion takes it when all operations have ended that were open then. At most a tenth of the nodes and [`DEAD_LEAST`] are
//!   dead when a sweep begins, and it ends before that number has died again.
//! - The entry is in use, and no live node that is linked has a higher level.
//!
//! Operations may be open side by side, each going on step by step ([`Search`], [`Insertion`]); a call
//! that does it at once is one step without end.
//!
//! Links are directed. All is single-threaded and pure: no clock, no file, and the levels come from a
//! seed, so the same calls make the same graph.

mod centre;
mod coarse;
mod error;
mod filtered;
mod graph;
mod image;
mod insert;
pub mod kernels;
mod late;
mod live;
mod marks;
mod options;
mod pool;
mod prune;
mod quantize;
mod reach;
mod remove;
mod rerank;
mod rows;
mod search;
mod splice;
mod spread;
mod steps;
#[cfg(test)]
mod tests;

pub use error::Invalid;
pub use graph::{Index, Row, Stats};
pub use image::{Damaged, IMAGE_HEADER_BYTES, Image, Loader, Wanted};
pub use insert::Insertion;
pub use options::{DIMENSIONS_MAX, EF_MAX, IndexOptions, VECTORS_MAX};
pub use quantize::Metric;
pub use remove::DEAD_LEAST;
pub use rows::PagesAhead;
pub use search::{Hit, Search};
