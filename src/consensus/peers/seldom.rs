//! Keeps what may happen a thousand times a second out of the log of messages.

const PAUSE_MS: u64 = 60_000;

/// Lets one line through a minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seldom {
    next_ms: u64,
    unsaid: u64,
}

impl Seldom {
    /// Whether to say it now: then how often it happened unsaid since the last time.
    pub fn say(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms < self.next_ms {
            self.unsaid += 1;
            return None;
        }
        self.next_ms = now_ms.saturating_add(PAUSE_MS);
        Some(std::mem::take(&mut self.unsaid))
    }
}
