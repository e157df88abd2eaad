//! How long a thread was busy between two looks at it.

use crate::runtime::executor::thread_use;
use std::time::{Duration, Instant};

/// Looks at the calling thread.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    used: Duration,
    interruptions: u64,
    at: Instant,
}

impl Watch {
    /// It begins now.
    pub(super) fn new() -> Self {
        let (used, interruptions) = thread_use();
        Self { used, interruptions, at: Instant::now() }
    }

    /// How long the thread was busy since the last look: its processor time, so that the machine's other
    /// work does not count, and no more than the time that passed, as the processor time of a virtual
    /// processor jumps at times. `None` when another thread took the processor: what the caches lost
    /// meanwhile is not this one's doing.
    pub(super) fn lap(&mut self) -> Option<Duration> {
        let before = std::mem::replace(self, Self::new());
        let used = self.used.saturating_sub(before.used).min(self.at - before.at);
        (self.interruptions == before.interruptions).then_some(used)
    }
}
