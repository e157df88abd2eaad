//! When it is written to the log of messages that entries cannot be read for other nodes.
//!
//! Others ask again and again, as often and for as much as they like: a damaged entry is named once, and
//! however many there are, there is one line in a time.

use crate::wire::id::PartitionIndex;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Damaged entries that are known to be named; then all are forgotten.
const NAMED_MAX: usize = 1024;
/// A line is written so often at most.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What was said of entries that cannot be read.
pub(super) struct Unreadable {
    named: BTreeSet<(PartitionIndex, u64)>,
    /// Until then nothing is said.
    silent_until: Instant,
}

impl Unreadable {
    pub(super) fn new(now: Instant) -> Self {
        Self { named: BTreeSet::new(), silent_until: now }
    }

    /// Whether it is to be said now that an entry cannot be read, which it is for being damaged, if it is.
    pub(super) fn is_to_say(
        &mut self,
        damaged: Option<(PartitionIndex, u64)>,
        now: Instant,
    ) -> bool {
        if now < self.silent_until {
            return false;
        }
        if let Some(damaged) = damaged {
            if self.named.len() >= NAMED_MAX {
                self.named.clear();
            }
            if !self.named.insert(damaged) {
                return false;
            }
        }
        self.silent_until = now + SAY_EVERY;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_is_named_once_and_whoever_asks_much_gets_one_line_in_a_time() {
        let start = Instant::now();
        let mut unreadable = Unreadable::new(start);
        assert!(unreadable.is_to_say(Some((1, 7)), start));
        assert!(!unreadable.is_to_say(Some((1, 8)), start), "it is named later");
        let mut now = start + SAY_EVERY;
        assert!(!unreadable.is_to_say(Some((1, 7)), now), "it was named");
        assert!(unreadable.is_to_say(Some((1, 8)), now));
        now += SAY_EVERY;
        assert!(unreadable.is_to_say(None, now) && !unreadable.is_to_say(None, now));
        // A log with more damage than is remembered, and somebody who asks for all of it, each second.
        let (mut said, begins) = (0, now);
        for _ in 0..4 {
            for index in 0..2 * NAMED_MAX as u64 {
                now += Duration::from_secs(1);
                said += u64::from(unreadable.is_to_say(Some((2, index)), now));
            }
        }
        let seconds = (now - begins).as_secs();
        assert!((1..=seconds / SAY_EVERY.as_secs()).contains(&said), "{said} in {seconds} s");
        assert!(unreadable.named.len() <= NAMED_MAX);
    }
}
