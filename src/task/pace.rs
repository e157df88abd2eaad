//! When it is worth to come back to a full shard.

/// Shortest advice, milliseconds.
const SHORTEST_MS: u64 = 10;
/// Longest advice, milliseconds.
const LONGEST_MS: u64 = 1_000;
/// Advice while nothing is known, milliseconds.
const UNKNOWN_MS: u64 = 100;
/// Time over which ends are counted, milliseconds.
const WINDOW_MS: u64 = 100;
/// The part of the queue that should have gone when the submitter comes back.
const PART: u64 = 8;

/// How fast tasks end, as far as the advice to a refused submitter needs it.
#[derive(Default)]
pub(super) struct Pace {
    since_ms: u64,
    ended_then: u64,
    /// Tasks a second in the last window; 0 when nothing is known.
    a_second: u64,
}

impl Pace {
    /// Milliseconds until about an eighth of the queue has gone, given how many tasks have ended
    /// so far.
    pub(super) fn retry_after_ms(&mut self, now_ms: u64, ended: u64, queued: u64) -> u64 {
        let elapsed_ms = now_ms.saturating_sub(self.since_ms);
        if elapsed_ms >= WINDOW_MS {
            self.a_second = (ended - self.ended_then) * 1_000 / elapsed_ms;
            self.since_ms = now_ms;
            self.ended_then = ended;
        }
        if self.a_second == 0 {
            return UNKNOWN_MS;
        }
        (queued * 1_000 / PART / self.a_second).clamp(SHORTEST_MS, LONGEST_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_follows_the_pace_of_ends() {
        let mut pace = Pace::default();
        assert_eq!(pace.retry_after_ms(0, 0, 800), UNKNOWN_MS);
        assert_eq!(pace.retry_after_ms(1_000, 1_000, 800), 100, "100 of 800 take 100 ms");
        assert_eq!(pace.retry_after_ms(1_050, 1_001, 800), 100, "the window still runs");
        assert_eq!(pace.retry_after_ms(2_000, 1_001_000, 800), SHORTEST_MS);
        assert_eq!(pace.retry_after_ms(3_000, 1_001_001, 800), LONGEST_MS);
        assert_eq!(pace.retry_after_ms(4_000, 1_001_001, 800), UNKNOWN_MS, "nothing ended");
    }
}
