//! `consensus`, `consensus_finality`, `leader_failover` and `split_brain`: clusters of nodes that are
//! processes of their own, on this machine and this disk.
//!
//! All nodes share the processors with the clients that measure them, so figures of clusters say
//! what one machine does with all of it, and are to be compared with others that were measured so.
//!
//! The files: `nodes.rs` starts and asks the nodes, `proxy.rs` is the way between them where
//! something is done to it, `load.rs` the clients with full windows; the others are components.

pub(super) mod consensus;
pub(super) mod failover;
pub(super) mod finality;
mod keys;
pub(super) mod load;
pub(super) mod nodes;
mod proxy;
pub(super) mod split_brain;

/// The clusters that are measured, by their number of nodes; the last one gives the figures that
/// goals are held against.
const SIZES: [usize; 3] = [1, 3, 5];
