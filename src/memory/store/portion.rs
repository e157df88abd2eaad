//! How many records one step reads: so many, or so many bytes, that messages wait no longer than for any
//! other step. How long a long record takes depends on the memory that it is copied to, so there the time
//! counts as well.

use std::time::{Duration, Instant};

/// Records of a step.
const RECORDS: usize = 32;
/// Bytes of records after which no further one is read. The last one may go beyond.
const BYTES: usize = 64 << 10;
/// The same where a filter is asked about each: it looks at every value in their metadata.
const FILTERED_BYTES: usize = 16 << 10;
/// From how many bytes on a record is long enough to look at the clock.
pub(super) const LONG_BYTES: usize = 4 << 10;
/// The time after which no long record is read.
const TIME: Duration = Duration::from_micros(30);

/// What a step may still read.
pub(super) struct Portion {
    records: usize,
    bytes: usize,
    /// When its first long record was begun.
    began: Option<Instant>,
}

impl Portion {
    /// That of a step which begins.
    pub(super) fn new() -> Self {
        Self { records: RECORDS, bytes: BYTES, began: None }
    }

    /// That of a step that asks a filter.
    pub(super) fn filtered() -> Self {
        Self { bytes: FILTERED_BYTES, ..Self::new() }
    }

    /// Takes room for a record of so many bytes; false when the step should end. The first one always
    /// finds room.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if self.is_spent() {
            return false;
        }
        if bytes >= LONG_BYTES && self.began.get_or_insert_with(Instant::now).elapsed() >= TIME {
            self.bytes = 0;
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

    #[test]
    fn a_step_ends_after_many_records_or_a_long_one() {
        let mut small = Portion::new();
        assert_eq!((0..100).take_while(|_| small.take(64)).count(), RECORDS);
        let mut long = Portion::new();
        assert!(long.take(10 * BYTES) && !long.take(0));
    }

    #[test]
    fn a_step_ends_when_long_records_took_long() {
        let mut portion = Portion::new();
        assert!(portion.take(LONG_BYTES));
        portion.began = Instant::now().checked_sub(TIME);
        assert!(!portion.is_spent());
        assert!(portion.take(LONG_BYTES - 1), "a short one is as good as free");
        assert!(!portion.take(LONG_BYTES) && portion.is_spent());
    }
}
