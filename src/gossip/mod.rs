//! Which nodes live, and what each of them says of itself: known everywhere, soon, for few bytes.
//!
//! ```text
//! every 100 ms    ask    the nodes that this one watches, and others by chance ──► answer, and news
//!                 push   what is new, for some rounds, to as many others
//!                 judge  the silence of the watched: suspect, and dead when it does not refute
//! when a peer knows other things and no news explains it, and every 10 s:
//!                 compare   sums of 256 buckets ──► digests of those that differ ──► deltas
//! ```
//!
//! A node owns one map of keys to values and its *incarnation*; it alone changes them, and every change
//! has the next *version*. So what a node knows of the others is a vector of versions, and what another
//! lacks is a delta: the changes above a version, in order. The shell gives the time and the datagrams
//! and sends what comes out; there is no clock, socket, thread or source of chance in here.
//!
//! Invariants worth naming
//! - Of two claims of a node the one with the higher incarnation stands, then the worse status, on
//!   every node alike. Only the accused raises its incarnation, so an accusation ends by its word.
//! - A change is applied when all before it were, and a map that has to be fetched anew is shown when
//!   it is whole. Whoever is too far behind to know which tombstones it missed is reset.
//! - Deaths are noticed by few and known by all. A node is watched by some others, the next ones on a
//!   ring of all; one that answers none of the rounds' questions is accused, the accusation spreads as
//!   news, and after a time in which it could have refuted everybody takes it for dead.
//! - What a node sends in a round is bounded: a question to each of at most `fanout_max` peers and their
//!   answers; pushes of at most `burst` datagrams to as many; everything else within `round_bytes`.
//!   When nothing changes there are the questions to the watched and their answers, of some tens of bytes, in
//!   every other round.
//! - What comes is read as a whole before any of it counts. A datagram that comes again, late or out of
//!   order has no effect but a counter, and only a first answer in time counts as a sign of life.
//!
//! Why heartbeats are answers: among ten thousand nodes a heartbeat of each cannot reach each in every
//! round, and one that comes now and then says little. Here each node is asked in every other round, and in each
//! that is not quiet, by those that watch it; the bytes do not depend on the number of nodes and neither does
//! the time to notice a death, which is what the watchers' phi and the time to refute come to.
//! A death is not a local verdict: few watch, and the accused hears of it and can refute, so a bad path
//! between two nodes, or a thread that does not run for a second, costs an accusation and no death.
//!
//! What is believed: whoever knows the secret may tell of others. A forged claim or version is refuted
//! by the node that it is about, as soon as it hears of it: by a higher incarnation, or by beginning its
//! map again. Entries that are false under a version that the node itself gave show when two nodes
//! compare, by a check over each map, and the node that they are of judges.
//!
//! | file | duty |
//! |---|---|
//! | `state`, `round`, `receive` | a node: what it has, what it does in a round, and with a datagram |
//! | `claims`, `compare` | which claim stands; what of two nodes one lacks |
//! | `record`, `entries`, `roster` | what is known of a node, its map, all nodes on a ring |
//! | `rumors` | what is news |
//! | `watch`, `phi` | who is watched, and how suspicious a silence is |
//! | `datagram`, `pack`, `seal` | bytes: their form, how they are cut, who made them |
//! | `settings`, `counters` | what it may cost, and what happened |
//! | `simulated` | many nodes in one thread, for tests and the benchmark |
//!
//! Literature: Demers and others, *Epidemic Algorithms for Replicated Database Maintenance*, 1987; van
//! Renesse and others, *Efficient Reconciliation and Flow Control for Anti-Entropy Protocols*, 2008
//! (Scuttlebutt); Das, Gupta, Motivala, *SWIM*, 2002; Hayashibara and others, *The φ Accrual Failure
//! Detector*, 2004; Karp and others, *Randomized Rumor Spreading*, 2000.

mod claims;
mod compare;
mod counters;
mod datagram;
mod disputes;
mod entries;
mod pack;
mod phi;
mod receive;
mod record;
mod roster;
mod round;
mod rumors;
mod seal;
mod settings;
pub mod simulated;
mod state;
#[cfg(test)]
mod tests;
mod watch;

pub use counters::{Counters, Kind, Refused};
pub use entries::{ENTRIES_MAX, KEY_BYTES_MAX, SetError, TOMBSTONES_MAX, VALUE_BYTES_MAX, Version};
pub use record::{INCARNATION_START_MAX, Status};
pub use settings::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, Settings, Unusable};
pub use state::{EVENTS_MAX, Event, Gossip, NodeView};

/// A node of the cluster, as raft numbers it; 0 is no node.
pub type NodeId = u64;
