//! How much one step does: for so long, and of records so many and so many bytes. How long a comparison or a
//! record takes depends on the processor, on what else it does, and on where the memory is, so the clock is
//! what bounds a step; it is looked at after every few comparisons and every record.

use std::time::{Duration, Instant};

/// How long a step goes on. What is under way then, some comparisons or a record, is ended.
const TIME: Duration = Duration::from_micros(15);
/// Records of a step.
const RECORDS: usize = 32;
/// Bytes of records after which no further one is read. The last one may go beyond.
const BYTES: usize = 64 << 10;
/// The same where a filter is asked about each: it looks at every value in their metadata.
const FILTERED_BYTES: usize = 16 << 10;

/// What a step may still do.
pub(super) struct Portion {
    until: Instant,
    records: usize,
    bytes: usize,
    /// Nothing was taken of it.
    is_whole: bool,
}

impl Portion {
    /// That of a step which begins now.
    pub(super) fn new() -> Self {
        Self { until: Instant::now() + TIME, records: RECORDS, bytes: BYTES, is_whole: true }
    }

    /// That of a step that asks a filter.
    pub(super) fn filtered() -> Self {
        Self { bytes: FILTERED_BYTES, ..Self::new() }
    }

    /// Whether the time of the step is over; if so, it is spent as well.
    pub(super) fn is_over(&mut self) -> bool {
        let is_over = Instant::now() >= self.until;
        if is_over {
            self.bytes = 0;
        }
        is_over
    }

    /// Takes room for a record of so many bytes; false when the step should end. The first one always
    /// finds room, so that every step gets on.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if !std::mem::take(&mut self.is_whole) && (self.is_spent() || self.is_over()) {
            return false;
        }
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }

    /// Whether no further record has room.
    pub(super) fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose time is far from over, however slow the machine.
    fn long() -> Portion {
        Portion { until: Instant::now() + Duration::from_secs(3600), ..Portion::new() }
    }

    #[test]
    fn a_step_ends_after_many_records_or_many_bytes() {
        let mut small = long();
        assert_eq!((0..100).take_while(|_| small.take(64)).count(), RECORDS);
        let mut large = long();
        assert!(large.take(10 * BYTES) && !large.take(0));
    }

    #[test]
    fn a_step_ends_when_its_time_is_over_and_has_got_on_before() {
        let mut portion = long();
        assert!(portion.take(64) && !portion.is_over() && !portion.is_spent());
        portion.until = Instant::now();
        assert!(!portion.take(0) && portion.is_spent());
        let mut late = Portion { until: Instant::now(), ..Portion::new() };
        assert!(late.is_over() && late.is_spent());
        assert!(late.take(64), "nothing was done yet");
        assert!(!late.take(0));
    }
}
