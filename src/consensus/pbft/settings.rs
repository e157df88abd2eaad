//! What a group is given beside its keys and members.

use crate::consensus::engine::Limits;

/// Entries between the water marks at most.
pub const WINDOW_MAX: u64 = 1024;
/// Bytes of orders that are kept for each primary until they can be accepted, when nobody says.
const EARLY_BYTES: usize = 8 << 20;
/// Bytes of batches that are kept of entries which are to be committed later than the next one, when
/// nobody says.
const ACCEPTED_BYTES: usize = 16 << 20;

/// How long things may take, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Of a tick.
    pub tick_ms: u64,
    /// Between two reports of a replica's status, by which the others send again what it misses.
    pub status_ms: u64,
    /// Without a sign of the primary, or progress in what was asked of it, a replica leaves the view.
    pub patience_ms: u64,
    /// It doubles with each view that brings no progress, up to this.
    pub patience_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { tick_ms: 50, status_ms: 150, patience_ms: 1000, patience_max_ms: 30_000 }
    }
}

/// What a group is given beside its keys and members.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bounds.
    pub limits: Limits,
    /// How long things may take.
    pub timing: Timing,
    /// Entries between two checkpoints; the water marks are twice as far from each other (OSDI '99,
    /// §4.3). All replicas of a cluster have the same.
    pub checkpoint_every: u64,
    /// Whether clients are answered tentatively (OSDI '99, §5.1).
    pub is_tentative: bool,
    /// Entries of requests that are ordered at once; more requests wait and travel together.
    pub pipeline: u64,
    /// Bytes of orders that are kept for each primary until they can be accepted, beside the order that
    /// comes next. What has no room is dropped, and sent again when a report says that it is missing.
    pub early_bytes: usize,
    /// Bytes of batches that are kept of entries behind the one that is to be committed next. Where there is no room a primary orders nothing, and a backup accepts nothing,
    /// until something is committed.
    pub accepted_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits { cache_bytes: 1 << 20, proposals: 1024, proposal_bytes: 64 << 20 };
        Self {
            limits,
            timing: Timing::default(),
            checkpoint_every: 128,
            is_tentative: true,
            pipeline: 16,
            early_bytes: EARLY_BYTES,
            accepted_bytes: ACCEPTED_BYTES,
        }
    }
}
